"""Cropped words with their texts: a folder of images and a list of what stands on them."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from canon import named
from canon.data import splits
from canon.data.files import read_image
from canon.data.source import Example, Info
from canon.data.text import Alphabet
from canon.errors import CanonError, UsageError

_SYNTH90K = 'annotation_'


def words(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = Alphabet(),
    max_length: int = 25,
    outside: str = 'refuse',
) -> Words:
    """The words listed in `path/<split>.csv`, or in Synth90k's `path/annotation_<split>.txt`.

    A .csv has a row a word, `file,text`, with the file's place below `path`; quotes, spaces after the comma, a first
    row `file,text` and a byte order mark may be there (so ICDAR's lists can be read as they are, renamed). A line of
    Synth90k is `./2425/1/115_Lube_45484.jpg 45484`: the text is in the file's name (Jaderberg et al. 2014).
    split: may be sliced, 'train[:1000]', in the list's order.
    outside: texts that alphabet or max_length do not hold are an error ('refuse') or left out and logged ('skip').

    Raises UsageError for a missing folder, list or image (of the first word; others when they are read), CanonError
    naming file and line of a row that is none, and of a text that is refused.
    """
    if outside not in ('refuse', 'skip'):
        raise UsageError(f"outside={outside!r} is neither 'refuse' nor 'skip'")
    root = Path(path).expanduser()
    base, first, last = splits.parse(split)
    listed = _list(root, base)
    files, texts, left_out = [], [], 0
    for number, file, text in _rows(listed):
        why = alphabet.refusal(text, max_length)
        if why and outside == 'refuse':
            raise CanonError(f"{listed}, line {number}: {text!r}: {why}; mend it, or say outside='skip'")
        if why:
            left_out += 1
            continue
        files.append(file.encode())
        texts.append(text.encode())
    if left_out:
        logging.getLogger('canon').warning('%d of %d words of %s are left out', left_out, left_out + len(files), listed)
    part = splits.bounds(first, last, len(files))
    found = Words(root, listed, files[part], texts[part], alphabet, max_length, Info(str(root), split))
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
    raise UsageError(
        f'{root} has neither {base}.csv (rows file,text) nor {_SYNTH90K}{base}.txt (Synth90k){named.near(base, lists)}'
    )


def _rows(listed: Path) -> Iterator[tuple[int, str, str]]:
    """(line, file, text) of each row."""
    try:
        with listed.open(newline='', encoding='utf-8-sig') as lines:
            yield from (_synth90k if listed.name.startswith(_SYNTH90K) else _csv)(listed, lines)
    except UnicodeDecodeError as error:
        raise CanonError(f'{listed} is no UTF-8 text ({error.reason}); convert it') from error


def _csv(listed: Path, lines) -> Iterator[tuple[int, str, str]]:
    reader = csv.reader(lines, skipinitialspace=True, escapechar='\\')
    for row in reader:
        if not row or (reader.line_num == 1 and [c.strip().lower() for c in row] == ['file', 'text']):
            continue
        if len(row) != 2 or not row[0]:
            raise CanonError(f'{listed}, line {reader.line_num}: {",".join(row)!r} is no row of file,text')
        yield reader.line_num, row[0].strip(), row[1].strip()


def _synth90k(listed: Path, lines) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        file = line.split()[0] if line.strip() else ''
        parts = Path(file).stem.split('_')
        if file and len(parts) != 3:
            raise CanonError(f'{listed}, line {number}: {file!r} is no name such as 115_Lube_45484.jpg')
        if file:
            yield number, file, parts[1]
