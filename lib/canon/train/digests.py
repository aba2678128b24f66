"""Digests of a checkpoint's files: written before the checkpoint counts as complete, compared before it is read.

Each array has files of its own, so a digest per file is one per array, and the small files that describe the arrays
are covered too. CRC-32 detects every change of up to 32 bits in a row and misses others once in four billion.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from canon.train.workdir import replace_text

NAME = 'digests.json'
# Orbax writes these two after the digests are taken; nothing that is restored stands in them.
_LATER = ('_CHECKPOINT_METADATA', 'commit_success.txt')
_BLOCK = 1 << 22


def write_digests(folder: Path, names: Iterable[str] | None = None) -> None:
    """Writes the digests of all files of a checkpoint, or renews those of `names` (paths relative to `folder`)."""
    known = {} if names is None else read_digests(folder) or {}
    paths = _files(folder) if names is None else list(names)
    with ThreadPoolExecutor(_threads()) as pool:  # zlib releases the GIL
        known |= dict(zip(paths, pool.map(lambda name: _digest(folder / name), paths), strict=True))
    replace_text(folder / NAME, json.dumps(known, indent=0))


def read_digests(folder: Path) -> dict[str, list[int]] | None:
    """Returns {file: [bytes, CRC-32]}, or None for a checkpoint that was written without digests.

    Raises ValueError for a file of digests that is damaged itself.
    """
    try:
        text = (folder / NAME).read_text()
    except FileNotFoundError:
        return None
    digests = json.loads(text)
    if not isinstance(digests, dict):
        raise ValueError(f'{NAME} is damaged')
    return digests


def find_damage(folder: Path, under: str = '') -> str | None:
    """Describes the first file of a checkpoint that is not as it was saved, or returns None.

    under: compares only the files of this item ('model'). The value that ranks a checkpoint is compared where it is
    read: without it the checkpoint is still sound.
    """
    try:
        digests = read_digests(folder) or {}
    except (OSError, ValueError):
        return f'{NAME} is damaged'
    names = [n for n in digests if n.startswith(f'{under}/' if under else '') and not n.startswith('metrics/')]
    with ThreadPoolExecutor(_threads()) as pool:
        problems = pool.map(lambda name: compare_digest(folder, name, digests[name]), names)
        return next(filter(None, problems), None)


def compare_digest(folder: Path, name: str, digest: list[int]) -> str | None:
    """Describes how a file differs from its digest, or returns None."""
    try:
        same = _digest(folder / name) == digest
    except FileNotFoundError:
        return f'{_title(name)} is missing'
    except OSError as error:
        return f'{_title(name)} cannot be read ({error.strerror})'
    return None if same else f'{_title(name)} has changed since it was saved'


def _digest(path: Path) -> list[int]:
    size, crc = 0, 0
    with path.open('rb') as file:
        while block := file.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def _files(folder: Path) -> list[str]:
    names = [p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file()]
    return sorted(name for name in names if name not in _LATER and not name.startswith(NAME))


def _title(name: str) -> str:
    """`the array params.Dense_0.bias (model/params.Dense_0.bias/0)`, or the file where it is not an array's own."""
    item, _, rest = name.partition('/')
    array, _, file = rest.partition('/')
    if item in ('model', 'opt') and file and array not in ('array_metadatas', 'd') and not array.startswith('ocdbt.'):
        return f'the array {array} ({name})'
    return name


def _threads() -> int:
    return min(4, os.cpu_count() or 1)
