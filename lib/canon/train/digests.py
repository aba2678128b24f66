"""Digests of the files of a checkpoint: written before it counts as complete, compared before it is read.

Each array has files of its own, so one digest per file is at least one per array; the small files that describe the
arrays are covered, too. CRC-32 detects every burst of up to 32 changed bits, and misses others once in four billion.
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
# Orbax writes these two after the digests are taken; nothing is restored from them.
_LATER = ('_CHECKPOINT_METADATA', 'commit_success.txt')
_BLOCK = 1 << 22  # bytes in memory at a time: a file may be larger than that


def write_digests(folder: Path, names: Iterable[str] | None = None) -> None:
    """Writes the digests of all files of a checkpoint, or updates those of `names` (paths relative to `folder`)."""
    known = {} if names is None else read_digests(folder) or {}
    paths = _files(folder) if names is None else list(names)
    with ThreadPoolExecutor(_threads()) as pool:  # zlib releases the GIL
        known |= dict(zip(paths, pool.map(lambda name: _digest(folder / name), paths), strict=True))
    replace_text(folder / NAME, json.dumps(known, indent=0))


def read_digests(folder: Path) -> dict[str, list[int]] | None:
    """Returns {file: [bytes, CRC-32]}; None for a checkpoint that was written without digests.

    Raises ValueError if the file of digests is damaged itself.
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
    """Describes the first file of a checkpoint that is not as it was saved; returns None if there is none.

    The value that ranks a checkpoint is not compared here: without it the checkpoint is still sound.

    Args:
      folder: of one checkpoint.
      under: compares only the files of this item ('model').
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
    """Describes how a file differs from its digest; returns None if it does not."""
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
    """Returns `the array params.Dense_0.bias (model/params.Dense_0.bias/0)`, or the name of another file."""
    # Jobs of several processes save in the format OCDBT, in which arrays have no folders of their own.
    item, _, rest = name.partition('/')
    array, _, file = rest.partition('/')
    if item in ('model', 'opt') and file and array not in ('array_metadatas', 'd') and not array.startswith('ocdbt.'):
        return f'the array {array} ({name})'
    return name


def _threads() -> int:
    return min(4, os.cpu_count() or 1)
