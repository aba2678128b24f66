"""Word images in LMDB folders, the form of deep-text-recognition-benchmark (Baek et al. 2019) and of PARSeq.

A folder with `data.mdb` is a database of the keys `num-samples`, `image-000000001` (the bytes of an image file) and
`label-000000001` (UTF-8), counted from 1.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import unicodedata
from array import array
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canon import named
from canon.data.images import image_files
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text import text_files
from canon.data.text.alphabets import Alphabet
from canon.data.text.text_images import Outside, TextProtocol, WordRule, slice_kept
from canon.errors import CanonError, UsageError, first_line
from canon.progress import show_progress

_FILE = 'data.mdb'
_MANY = 1_000_000  # texts of which reading takes long enough to say so
# {folder: (process, handle)}. Sources share handles, since several may read one database, as slices of it do.
_HANDLES: dict[str, tuple[int, Any]] = {}
_LOCK = threading.Lock()


def lmdb_words(
    path: str,
    split: str = 'test',
    alphabet: Alphabet = Alphabet(ignore_case=True),
    max_length: named.Count = 25,
    outside: Outside = 'filter',
    words: WordRule = 'all',
) -> LmdbWords:
    """Reads the word images of all LMDB databases in `path/<split>`, in the order of their names.

    With `path` 'data_lmdb_release/evaluation' the split 'IC15_1811' is a benchmark; with 'data_lmdb_release' the split
    'training' is MJSynth and SynthText. Every label is read now, and every image when it is needed.

    Args:
      path: the folder of the splits; or a database itself, with the split 'all'.
      split: the name of a folder in it, at any depth; may be sliced.
      alphabet: the characters of labels.
      max_length: characters of the longest label.
      outside: as of `TextProtocol`. DTRB trains on 'skip' (it leaves out words with other characters), PARSeq on
        'filter' (it removes the characters).
      words: as of `TextProtocol`.

    Raises:
      UsageError: there is no such folder, no database in it, or no word remains.
      CanonError: a database cannot be read, or a text is refused.
    """
    base = splits.parse_split(split)[0]
    root = text_files.expand_path(path)
    folders = _find_databases(root, base)
    protocol = TextProtocol(alphabet, max_length, outside, words)
    dropped: Counter[str] = Counter()
    kept = array('q')  # 8 bytes for each of millions of words
    for number, folder in enumerate(folders):
        for i, text in _read_labels(folder, dropped):
            if protocol.keeps(text, f'{folder}, label {i}', dropped):
                kept.append(number << 32 | i)
    ids = np.frombuffer(kept, np.int64)[slice_kept(len(kept), split, dropped, root)]
    return LmdbWords(folders, ids, protocol, Info(str(root), split, total=len(kept)), dropped)


class LmdbWords:
    """The source of `lmdb_words`: 'image' uint8 [H, W, 3] of any size, 'label' int32 [max_length] and 'label_length'.

    Attributes:
      dropped: {reason: number of words that were left out}.
    """

    def __init__(
        self, folders: Sequence[Path], ids: np.ndarray, protocol: TextProtocol, info: Info, dropped: Counter[str]
    ):
        """ids: int64 [n], the number of the folder in the high 32 bits, of the word in the low ones."""
        self.folders, self.ids, self.protocol, self.info, self.dropped = folders, ids, protocol, info, dropped
        self.alphabet = protocol.alphabet

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError, which names the database and the key, if the image cannot be read."""
        image = image_files.decode_image(self._read_encoded(index))
        return {'image': image, **self.protocol.encode(self.read_text(index))}

    def image_sizes(self) -> np.ndarray:
        """Returns the (height, width) of all images, int [n, 2], from the headers of their files."""
        heads = (image_files.read_head(self._read_encoded(i)) for i in range(len(self)))
        return np.array([(head.height, head.width) for head in heads], int).reshape(-1, 2)

    def _read_encoded(self, index: int) -> image_files.Encoded:
        folder, number = self._locate(index)
        key = f'image-{number:09d}'
        content = _read_value(folder, key)
        if content is None:
            raise CanonError(f'{folder} has no key {key}; make it again')
        return image_files.Encoded(content, f'{folder}:{key}')

    def read_text(self, index: int) -> str:
        """Returns the whole text of an example, with the characters that its label may lack."""
        folder, number = self._locate(index)
        content = _read_value(folder, f'label-{number:09d}')
        return _decode(content or b'', folder, number)

    def _locate(self, index: int) -> tuple[Path, int]:
        number = int(self.ids[index])
        return self.folders[number >> 32], number & 0xFFFFFFFF

    def __repr__(self) -> str:
        return f'LmdbWords({self.info.name}, {self.info.split}, {len(self)} words)'


def _find_databases(root: Path, base: str) -> list[Path]:
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}; an LMDB is a folder with {_FILE}')
    if (root / _FILE).is_file():
        if base != 'all':
            raise UsageError(f"{root} is a database itself: give the folder above it, or split='all'")
        return [root]
    # The name of a split has no slash, so a benchmark may be given by its own folder at any depth.
    every = sorted(file.parent for file in root.rglob(_FILE))
    below = [folder for folder in every if base in folder.relative_to(root).parts]
    if not below:
        known = sorted({part for folder in every for part in folder.relative_to(root).parts})
        there = f'; there are {", ".join(known[:20])}' if known else ''
        raise UsageError(f'{root} has no folder {base} with a {_FILE}{named.suggest(base, known) or there}')
    return below


def _read_labels(folder: Path, dropped: Counter[str]) -> Iterator[tuple[int, str]]:
    """Yields the number and the text of each label of a database."""
    count = _read_value(folder, 'num-samples')
    if count is None or not count.strip().isdigit():
        raise UsageError(f'{folder}/{_FILE} has no number under the key num-samples: it is not an LMDB of word images')
    total = int(count)
    if total >= _MANY:
        logging.getLogger('canon').info('reading the %d labels of %s', total, folder)
    with _begin(folder) as transaction:
        for number in show_progress(range(1, total + 1), f'labels of {folder.name}', 'label'):
            content = transaction.get(f'label-{number:09d}'.encode())
            if content is None:
                dropped['without a label'] += 1
            else:
                yield number, _decode(content, folder, number)


def _decode(content: bytes, folder: Path, number: int) -> str:
    try:
        return unicodedata.normalize('NFC', content.decode('utf-8-sig').strip())
    except UnicodeDecodeError as error:
        raise CanonError(f'{folder}, label {number} is not UTF-8 text ({error.reason}); make it again') from error


def _read_value(folder: Path, key: str) -> bytes | None:
    with _begin(folder) as transaction:
        return transaction.get(key.encode())


@contextlib.contextmanager
def _begin(folder: Path) -> Generator[Any]:
    """Begins to read a database. Raises CanonError, which names it, if it is damaged or cannot be opened."""
    import lmdb  # only these data sets need it

    try:
        with _open(str(folder)).begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise CanonError(f'{folder}/{_FILE} cannot be read ({first_line(error)}); fetch or make it again') from error


def _open(folder: str) -> Any:
    """Opens a database once per process: LMDB forbids a second handle in one, and the use of a handle after a fork."""
    import lmdb

    with _LOCK:
        process, handle = _HANDLES.get(folder, (None, None))
        if process == os.getpid():
            return handle
        if handle is not None:  # inherited by a fork; the parent's own stays open
            handle.close()
        # Without a lock, which would need the right to write and refuse a database that another program has locked.
        handle = lmdb.open(folder, readonly=True, lock=False, readahead=False, meminit=False)
        _HANDLES[folder] = os.getpid(), handle
        return handle
