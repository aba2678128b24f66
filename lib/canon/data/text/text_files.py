"""Files of UTF-8 text, plain or packed by gzip, line by line: how corpora, parallel text and inputs are read.

A line ends at a line feed and nowhere else, so that two parallel files stay parallel whatever stands in them (a form
feed, U+2028); a carriage return before it and a byte order mark at the beginning are dropped.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from canon.errors import CanonError, UsageError

_BOM = b'\xef\xbb\xbf'
_SUFFIXES = ('.txt', '.text', '.gz', '.csv', '.tsv', '.json', '.jsonl', '.tok', '.tokens')


def lines(path: str | Path) -> Iterator[str]:
    """The lines of `path` without their ends; `.gz` is unpacked.

    Raises UsageError for a missing or empty file, CanonError naming file and line of what is no UTF-8.
    """
    file = named_path(path)
    if not file.is_file():
        raise UsageError(f'there is no file {file}')
    number = 0
    try:
        with gzip.open(file) if file.suffix == '.gz' else file.open('rb') as opened:
            for number, line in enumerate(opened, 1):
                line = line.removeprefix(_BOM) if number == 1 else line
                yield line.removesuffix(b'\n').removesuffix(b'\r').decode()
    except UnicodeDecodeError as error:
        raise CanonError(f'{file}, line {number} is no UTF-8 text ({error.reason}); convert it, as by iconv') from error
    except (OSError, EOFError, zlib.error) as error:
        raise CanonError(f'{file} cannot be read ({error}); mend or fetch it again') from error
    if not number:
        raise UsageError(f'{file} is empty; a line of text is needed')


def named_path(path: str | Path) -> Path:
    """Returns `path` with ~ expanded.

    Raises UsageError for an empty one, which would be the current directory, and for what no path can be.
    """
    if not str(path).strip():
        raise UsageError('data.source.path is empty; name the file or folder of the data')
    try:
        expanded = Path(path).expanduser()
        expanded.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f'{str(path)[:80]!r} cannot be the path of a file or folder ({_reason(error)})') from error
    return expanded


def _reason(error: Exception) -> str:
    """Returns what went wrong, without the path, which may be long."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def given(source: str, suffixes: Iterable[str] = ()) -> list[str]:
    """Returns the lines of the file `source`, plain or .gz, or `source` itself where it is a sentence.

    A name is told from a sentence by its looks: a separator ('runs/test'), or a suffix of text ('test.txt', or one of
    `suffixes`); if it has spaces, by both.

    Raises UsageError for a folder, for a name of no file, and for what is no UTF-8; as `lines` does for the file.
    """
    try:
        source.encode()
    except UnicodeEncodeError:
        raise UsageError(f'{source!r} is no UTF-8; rename the file, or convert the text, as by iconv') from None
    if not source:
        return ['']
    try:
        path = named_path(source)
    except UsageError:  # a sentence may be longer than any name, or hold what no name can
        return [source]
    if path.is_file():
        return list(lines(path))
    if path.is_dir():
        raise UsageError(f'{source} is a folder; give a file with a sentence on each line, or a sentence')
    if _is_name(source, (*_SUFFIXES, *suffixes)):
        raise UsageError(f'there is no file {source}; if it is meant as a sentence, write it into a file of one line')
    return [source]


def _is_name(source: str, endings: tuple[str, ...]) -> bool:
    """Whether `source` looks like the name of a file; one with spaces has to look so twice: 'my texts/test.txt'."""
    looks = '/' in source, source.endswith(endings)
    return all(looks) if len(source.split()) > 1 else any(looks)


def read_bytes(path: Path) -> bytes:
    """Returns the content of `path`. Raises CanonError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CanonError(f'{path} cannot be read ({error}); mend or fetch it again') from error


def either(path: Path) -> Path:
    """`path`, or `path`.gz where only that is there."""
    packed = path.with_name(f'{path.name}.gz')
    return packed if packed.is_file() and not path.is_file() else path
