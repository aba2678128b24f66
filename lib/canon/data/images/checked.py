"""Remembers which files of large folders could be read, so that a million of them are opened once, not at every start.

What is kept, in ~/.cache/canon/checked, are the times at which the directories last changed and the files that could
not be read. A file that is added, renamed or replaced changes its directory, whose files are then checked again. One
that is overwritten in place does not: if it is damaged by that, the error comes when it is read. To have all checked
again, remove that folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from canon.data.images.image_files import check_in_threads

FOLDER = '~/.cache/canon/checked'
MIN_FILES = 10_000  # fewer are opened in some seconds
# Seconds: what changed within them before a check may have changed after it was listed, too.
_SETTLED = 10

_log = logging.getLogger('canon')


def check_files(check: Callable[[str], str], files: Sequence[str], root: Path, title: str, kind: str) -> list[str]:
    """Returns of each file why it cannot be read, or ''; those that passed before, in unchanged directories, pass.

    Args:
      check: of a file.
      files: all below `root` that are used.
      root: their folder.
      title: of the bar.
      kind: what is checked; results of one kind are not taken for those of another.
    """
    record = _place(root, kind) if len(files) >= MIN_FILES else None
    if record is None:
        return check_in_threads(check, files, title)
    folders = [file.rpartition(os.sep)[0] for file in files]  # os.path.dirname takes three times as long
    times = {folder: os.stat(folder).st_mtime_ns for folder in set(folders)}
    known, bad = _read(record)
    unchanged = {folder for folder, changed in times.items() if known.get(folder) == changed}
    reasons = dict.fromkeys(files, '')
    asked = [f for f, folder in zip(files, folders, strict=True) if folder not in unchanged or f in bad]
    if len(asked) < len(files):
        _log.info('%s: %d of %d images were checked before', root, len(files) - len(asked), len(files))
    latest = (time.time() - _SETTLED) * 1e9
    reasons.update(zip(asked, check_in_threads(check, asked, title), strict=True))
    settled = {folder: changed for folder, changed in times.items() if changed < latest}
    _write(record, settled, sorted(file for file, reason in reasons.items() if reason))
    return list(reasons.values())


def _place(root: Path, kind: str) -> Path | None:
    """Returns the file of what was checked; None if there is no home."""
    # The path as it is written, too: the names in the record begin with it.
    names = f'{root.resolve()}\n{root}\n{kind}'.encode(errors='surrogateescape')
    digest = hashlib.sha256(names).hexdigest()[:16]
    try:
        return Path(FOLDER).expanduser() / f'{digest}.json'
    except RuntimeError:
        return None


def _read(record: Path) -> tuple[dict[str, int], set[str]]:
    """Returns {directory: when it changed} and the files that could not be read; nothing if there is no such record."""
    try:
        content = json.loads(record.read_text())
        return dict(content['directories']), set(content['unreadable'])
    except (OSError, ValueError, LookupError, TypeError):
        return {}, set()


def _write(record: Path, times: dict[str, int], bad: list[str]) -> None:
    part = record.with_name(f'{record.name}.{os.getpid()}')
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({'directories': times, 'unreadable': bad}))
        os.replace(part, record)
    except OSError as error:  # a home that cannot be written: everything is checked again next time
        _log.debug('%s is not written (%s)', record, error.strerror)
