"""Images of cropped words with their texts: a folder of images and a list of files and texts."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canon import named
from canon.data.images.image_files import path_within, read_encoded, read_head, read_image
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text import text_files
from canon.data.text.alphabets import Alphabet
from canon.errors import CanonError, UsageError

_SYNTH90K = 'annotation_'
_OUTSIDE = ('refuse', 'filter', 'skip')
# The file, in quotes or without a comma, and the text after it. Not the csv module, to which a text that begins with a
# quote goes on over the following lines.
_ROW = re.compile(r'(?P<file>\s*"(?:[^"]|"")*"\s*|[^,]*),(?P<space>\s*)(?P<text>.*)')
_HEADER = re.compile(r'\s*"?file"?\s*,\s*"?text"?\s*', re.IGNORECASE)
# Escapes within quotes: RFC 4180 doubles a quote (some writers put a backslash before it); ICDAR escapes backslashes
# as well.
_RFC, _ICDAR = re.compile(r'""|\\"(?!")'), re.compile(r'""|\\["\\]')


def words(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = Alphabet(),
    max_length: named.Count = 25,
    outside: str = 'refuse',
) -> Words:
    """Reads the words listed in `path/<split>.csv`, or in Synth90k's `path/annotation_<split>.txt`.

    A .csv has one row per word, `file,text`, with the file relative to `path`. It may begin with a byte order mark and
    a header `file,text`. A text with a comma is enclosed in quotes, as in CSV or as in ICDAR's lists, which can be read
    as they are, renamed. A line of Synth90k is `./2425/1/115_Lube_45484.jpg 45484`: the text is part of the file name
    (Jaderberg et al. 2014).

    Args:
      path: the folder.
      split: may be sliced, 'train[:1000]', in the order of the list.
      alphabet: the characters of labels.
      max_length: characters of the longest label.
      outside: what happens to texts with characters that are not in `alphabet`. 'refuse' raises an error. 'filter'
        removes these characters ("don't" becomes `dont`), as published results on IIIT5K, SVT and ICDAR do, and skips
        texts of which nothing is left or that are too long. 'skip' skips such texts. The number skipped is logged.

    Raises:
      UsageError: the folder, the list or the image of the first word is missing.
      CanonError: a row is malformed, or a text is refused; the message names file and line.
    """
    if outside not in _OUTSIDE:
        raise UsageError(f'outside={outside!r} must be one of {", ".join(map(repr, _OUTSIDE))}')
    root = text_files.expand_path(path)
    base, first, last = splits.parse_split(split)
    listing = _find_listing(root, base)
    files, texts, skipped = [], [], 0
    for number, file, text in _read_rows(listing):
        text = alphabet.filter(text) if outside == 'filter' else text
        problem = 'none of its characters is in the alphabet' if outside == 'filter' and not text else None
        problem = problem or alphabet.find_problem(text, max_length)
        if problem and outside == 'refuse':
            raise CanonError(
                f"{listing}, line {number}: {text!r}: {problem}; correct it, or set outside='filter' or 'skip'"
            )
        if problem:
            skipped += 1
            continue
        # The list may come from anywhere; only the name is checked, since opening millions of files takes hours.
        path_within(root, file, f'{listing}, line {number}')
        files.append(file.encode())
        texts.append(text.encode())
    if skipped:
        logging.getLogger('canon').warning('%d of %d words of %s are skipped', skipped, skipped + len(files), listing)
    part = splits.to_slice(first, last, len(files))
    info = Info(str(root), split, total=len(files))
    source = Words(root, listing, files[part], texts[part], alphabet, max_length, info)
    if not len(source):
        raise UsageError(f'{listing} lists no words for {split!r}')
    # One image is looked for at once: a wrong folder is the usual mistake.
    first_file = source.files[0].decode()
    if not (root / first_file).is_file():
        raise UsageError(f'{listing} names {first_file}, which is not in {root}')
    return source


class Words:
    """The source of `words`: 'image' uint8 [H, W, 3] of any size, 'label' int32 [max_length], 'label_length' int32."""

    def __init__(
        self,
        root: Path,
        listing: Path,
        files: list[bytes],
        texts: list[bytes],
        alphabet: Alphabet,
        max_length: int,
        info: Info,
    ):
        self.root, self.listing, self.alphabet, self.max_length, self.info = root, listing, alphabet, max_length, info
        self.files, self.texts = np.array(files, bytes), np.array(texts, bytes)  # a tenth of the memory of lists of str

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError if the image cannot be read."""
        text = self.texts[index].decode()
        try:
            image = read_image(self.root / self.files[index].decode())
        except CanonError as error:
            raise CanonError(f'{error}, or remove its line from {self.listing.name}') from error
        return {'image': image, **self.alphabet.encode(text, self.max_length)}

    def read_text(self, index: int) -> str:
        """Returns the text of an example, as its label has it."""
        return self.texts[index].decode()

    def image_sizes(self) -> np.ndarray:
        """Returns the (height, width) of all images, int [n, 2], from the headers of their files."""
        heads = (read_head(read_encoded(self.root / file.decode())) for file in self.files)
        return np.array([(head.height, head.width) for head in heads], int).reshape(-1, 2)

    def __repr__(self) -> str:
        return f'Words({self.info.name}, {self.info.split}, {len(self)} words)'


def _find_listing(root: Path, base: str) -> Path:
    text_files.require_folder(root)
    for name in (f'{base}.csv', f'{_SYNTH90K}{base}.txt'):
        if (root / name).is_file():
            return root / name
    splits_there = [p.stem.removeprefix(_SYNTH90K) for p in (*root.glob('*.csv'), *root.glob(f'{_SYNTH90K}*.txt'))]
    raise UsageError(
        f'{root} has neither {base}.csv (rows file,text) nor {_SYNTH90K}{base}.txt (Synth90k)'
        f'{named.suggest(base, splits_there)}'
    )


def _read_rows(listing: Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line number, file, text) of each row."""
    parse = _parse_synth90k if listing.name.startswith(_SYNTH90K) else _parse_csv
    for number, line in enumerate(text_files.read_lines(listing), 1):
        row = parse(line, number) if line.strip() else None
        if row is not None:
            yield number, *row
        elif line.strip() and not (number == 1 and _HEADER.fullmatch(line)):
            form = 'file name such as 115_Lube_45484.jpg' if parse is _parse_synth90k else 'row file,text'
            raise CanonError(f'{listing}, line {number}: {line.strip()[:80]!r} is not a {form}')


def _parse_csv(line: str, number: int) -> tuple[str, str] | None:
    return None if number == 1 and _HEADER.fullmatch(line) else parse_row(line)


def parse_row(line: str) -> tuple[str, str] | None:
    """Returns the file and the text of a line `file,text`, one row whatever its quotes; None for a malformed row."""
    row = _ROW.fullmatch(line)
    if not row:
        return None
    file, text = _unquote(row['file'], False), _unquote(row['text'], bool(row['space']))
    return None if not file or text is None else (file, text)


def _unquote(cell: str, icdar: bool) -> str | None:
    """Returns the content of a cell; None for a comma or a quote that is not enclosed.

    Within quotes, a quote is written as "" (RFC 4180) or \\". icdar: within quotes a backslash is written as \\\\, as
    in ICDAR's lists, which have a space before the text; elsewhere a backslash is itself.
    """
    cell = cell.strip()
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"':
        return None if ',' in cell else cell  # a quote that does not enclose the cell is a character of the text
    escaped = _ICDAR if icdar else _RFC
    return None if '"' in escaped.sub('', cell[1:-1]) else escaped.sub(lambda m: m[0][-1], cell[1:-1])


def _parse_synth90k(line: str, number: int) -> tuple[str, str] | None:
    file = line.split()[0]
    parts = Path(file).stem.split('_')
    # NUMBER_TEXT_LEXICON-INDEX; the text is written with its capitals.
    return (file, parts[1]) if len(parts) == 3 else None
