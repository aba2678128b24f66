"""Cropped words with their texts: a folder of images and a list of what stands on them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canon import named
from canon.data.images.image_files import path_within, read_image
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text import text_files
from canon.data.text.alphabets import Alphabet
from canon.errors import CanonError, UsageError

_SYNTH90K = 'annotation_'
_OUTSIDE = ('refuse', 'filter', 'skip')
_ROW = re.compile(r'(?P<file>\s*"(?:[^"]|"")*"\s*|[^,]*),(?P<space>\s*)(?P<text>.*)')
_HEAD = re.compile(r'\s*"?file"?\s*,\s*"?text"?\s*', re.IGNORECASE)
_RFC, _ICDAR = re.compile(r'""|\\"(?!")'), re.compile(r'""|\\["\\]')


def words(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = Alphabet(),
    max_length: named.Count = 25,
    outside: str = 'refuse',
) -> Words:
    """The words listed in `path/<split>.csv`, or in Synth90k's `path/annotation_<split>.txt`.

    A .csv has a row per word, `file,text`, with the file's place below `path`. A first row `file,text` and a byte order
    mark may be there. A text with a comma is enclosed in quotes, as CSV has it or as ICDAR's lists do, which can be
    read as they are, renamed. A line of Synth90k is `./2425/1/115_Lube_45484.jpg 45484`: the text is in the file's name
    (Jaderberg et al. 2014).

    Args:
      path: the folder.
      split: may be sliced, 'train[:1000]', in the list's order.
      alphabet: the characters of labels.
      max_length: the longest label.
      outside: what becomes of texts that `alphabet` does not hold. 'refuse': an error. 'filter': their other characters
        are taken out ("don't" is `dont`), as published results on IIIT5K, SVT and ICDAR count them; a text of which
        nothing is left, or that is too long, is left out. 'skip': they are left out. What is left out is logged.

    Raises UsageError for a missing folder, list or image (of the first word; others when they are read), CanonError
    naming file and line of a row that is none, and of a text that is refused.
    """
    if outside not in _OUTSIDE:
        raise UsageError(f'outside={outside!r} is none of {", ".join(map(repr, _OUTSIDE))}')
    root = text_files.expand_path(path)
    base, first, last = splits.parse(split)
    listed = _list(root, base)
    files, texts, left_out = [], [], 0
    for number, file, text in _rows(listed):
        text = alphabet.filter(text) if outside == 'filter' else text
        why = 'none of its characters is in the alphabet' if outside == 'filter' and not text else None
        why = why or alphabet.find_problem(text, max_length)
        if why and outside == 'refuse':
            raise CanonError(f"{listed}, line {number}: {text!r}: {why}; correct it, or set outside='filter' or 'skip'")
        if why:
            left_out += 1
            continue
        path_within(root, file, f'{listed}, line {number}')
        files.append(file.encode())
        texts.append(text.encode())
    if left_out:
        logging.getLogger('canon').warning('%d of %d words of %s are left out', left_out, left_out + len(files), listed)
    part = splits.bounds(first, last, len(files))
    found = Words(
        root, listed, files[part], texts[part], alphabet, max_length, Info(str(root), split, total=len(files))
    )
    if not len(found):
        raise UsageError(f'{listed} lists no words for {split!r}')
    if not (root / found.files[0].decode()).is_file():
        raise UsageError(f'{listed} names {found.files[0].decode()}, which is not in {root}')
    return found


class Words:
    """image: uint8 [H, W, 3], H and W its own; label: int32 [max_length], of which label_length int32 count."""

    def __init__(
        self,
        root: Path,
        listed: Path,
        files: list[bytes],
        texts: list[bytes],
        alphabet: Alphabet,
        max_length: int,
        info: Info,
    ):
        self.root, self.listed, self.alphabet, self.max_length, self.info = root, listed, alphabet, max_length, info
        self.files, self.texts = np.array(files, bytes), np.array(texts, bytes)  # a tenth of what lists of str take

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError naming the image that cannot be read."""
        text = self.texts[index].decode()
        try:
            image = read_image(self.root / self.files[index].decode())
        except CanonError as error:
            raise CanonError(f'{error}, or take its line out of {self.listed.name}') from error
        return {'image': image, **self.alphabet.encode(text, self.max_length)}

    def __repr__(self) -> str:
        return f'Words({self.info.name}, {self.info.split}, {len(self)} words)'


def _list(root: Path, base: str) -> Path:
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    for name in (f'{base}.csv', f'{_SYNTH90K}{base}.txt'):
        if (root / name).is_file():
            return root / name
    lists = [p.stem.removeprefix(_SYNTH90K) for p in (*root.glob('*.csv'), *root.glob(f'{_SYNTH90K}*.txt'))]
    near = named.suggest(base, lists)
    raise UsageError(f'{root} has neither {base}.csv (rows file,text) nor {_SYNTH90K}{base}.txt (Synth90k){near}')


def _rows(listed: Path) -> Iterator[tuple[int, str, str]]:
    """(line, file, text) of each row."""
    parse = _synth90k if listed.name.startswith(_SYNTH90K) else _csv
    for number, line in enumerate(text_files.read_lines(listed), 1):
        row = parse(line, number) if line.strip() else None
        if row is not None:
            yield number, *row
        elif line.strip() and not (number == 1 and _HEAD.fullmatch(line)):
            form = 'name such as 115_Lube_45484.jpg' if parse is _synth90k else 'row of file,text'
            raise CanonError(f'{listed}, line {number}: {line.strip()[:80]!r} is no {form}')


def _csv(line: str, number: int) -> tuple[str, str] | None:
    """The file and the text of one line, which is one row whatever its quotes are; None where it is no row."""
    row = _ROW.fullmatch(line)
    if not row or (number == 1 and _HEAD.fullmatch(line)):
        return None
    file, text = _unquote(row['file'], False), _unquote(row['text'], bool(row['space']))
    return None if not file or text is None else (file, text)


def _unquote(cell: str, icdar: bool) -> str | None:
    """The content of a cell; None for commas or quotes that nothing encloses.

    Inside of quotes a quote is written "" (RFC 4180) or \\". icdar: a backslash is written \\\\ there, as in ICDAR's
    lists, which have a space before the text; elsewhere a backslash is one.
    """
    cell = cell.strip()
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"':
        return None if ',' in cell else cell  # a quote that does not enclose the whole is a sign of the text
    escaped = _ICDAR if icdar else _RFC
    return None if '"' in escaped.sub('', cell[1:-1]) else escaped.sub(lambda m: m[0][-1], cell[1:-1])


def _synth90k(line: str, number: int) -> tuple[str, str] | None:
    file = line.split()[0]
    parts = Path(file).stem.split('_')
    return (file, parts[1]) if len(parts) == 3 else None
