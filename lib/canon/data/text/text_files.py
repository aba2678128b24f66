"""UTF-8 text files, plain or gzipped, line by line: how corpora, parallel text and inputs of `predict` are read.

A line ends at a line feed and nowhere else, so that two parallel files stay parallel whatever their lines contain (a
form feed, U+2028). A carriage return before the line feed and a byte order mark at the beginning are dropped.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from canon import named
from canon.errors import CanonError, UsageError

_BOM = b'\xef\xbb\xbf'
_SUFFIXES = ('.txt', '.text', '.gz', '.csv', '.tsv', '.json', '.jsonl', '.tok', '.tokens')


def read_lines(path: str | Path) -> Iterator[str]:
    """Yields the lines of `path` without their ends; `.gz` is decompressed.

    Raises UsageError for a missing or empty file, CanonError that names file and line for text that is not UTF-8.
    """
    file = expand_path(path)
    if not file.is_file():
        raise UsageError(f'there is no file {file}')
    number = 0
    try:
        with gzip.open(file) if file.suffix == '.gz' else file.open('rb') as stream:
            for number, line in enumerate(stream, 1):
                line = line.removeprefix(_BOM) if number == 1 else line
                # Bytes are split before they are decoded, so that an error can name its line.
                yield line.removesuffix(b'\n').removesuffix(b'\r').decode()
    except UnicodeDecodeError as error:
        raise CanonError(
            f'{file}, line {number} is not UTF-8 text ({error.reason}); convert it, for instance with iconv'
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise CanonError(f'{file} cannot be read ({error}); repair it or fetch it again') from error
    if not number:
        raise UsageError(f'{file} is empty; a line of text is needed')


def expand_path(path: str | Path) -> Path:
    """Returns `path` with ~ expanded.

    Raises UsageError for an empty path, which would be the current directory, and for one that no file can have.
    """
    if not str(path).strip():
        raise UsageError('data.source.path is empty; name the file or folder of the data')
    try:
        expanded = Path(path).expanduser()
        expanded.exists()  # raises for a name that is too long or holds a null byte
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f'{str(path)[:80]!r} cannot be the path of a file or folder ({_reason(error)})') from error
    return expanded


def require_folder(path: str | Path) -> Path:
    """Returns `path` with ~ expanded. Raises UsageError, with near names, if it is not a folder."""
    folder = expand_path(path)
    if not folder.is_dir():
        raise UsageError(f'there is no folder {folder}{suggest_neighbours(folder)}')
    return folder


def suggest_neighbours(path: Path) -> str:
    """Returns `; did you mean 'x'?` with the names next to a missing path that are near its own, or the key to set."""
    try:
        near = named.suggest(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        near = ''
    return near if 'did you mean' in near else '; give an existing one by data.source.path'


def _reason(error: Exception) -> str:
    """Returns the reason of an error without the path, which may be long."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def read_input(source: str, suffixes: Iterable[str] = ()) -> list[str]:
    """Returns the lines of the file `source`, plain or .gz, or [source] if it is a sentence.

    A missing file is distinguished from a sentence by its form: it has a separator ('runs/test') or an ending of text
    files ('test.txt', or one of `suffixes`); a source with spaces needs both to be taken for a file name.

    Raises UsageError for a folder, for a file name that does not exist, and for text that is not UTF-8; CanonError as
    `read_lines`.
    """
    try:
        source.encode()
    except UnicodeEncodeError:
        raise UsageError(f'{source!r} is not UTF-8; rename the file, or convert the text, as with iconv') from None
    if not source:
        return ['']
    try:
        path = expand_path(source)
    except UsageError:  # a sentence may be longer than any file name, or hold characters that none has
        return [source]
    if path.is_file():
        return list(read_lines(path))
    if path.is_dir():
        raise UsageError(f'{source} is a folder; give a file with a sentence on each line, or a sentence')
    if _is_file_name(source, (*_SUFFIXES, *suffixes)):
        raise UsageError(f'there is no file {source}; if it is meant as a sentence, write it into a file of one line')
    return [source]


def _is_file_name(source: str, suffixes: tuple[str, ...]) -> bool:
    """Whether `source` has the form of a file name; with spaces it has to have both marks: 'my texts/test.txt'."""
    marks = '/' in source, source.endswith(suffixes)
    return all(marks) if len(source.split()) > 1 else any(marks)


def read_bytes(path: Path) -> bytes:
    """Returns the content of `path`. Raises CanonError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CanonError(f'{path} cannot be read ({error}); repair it or fetch it again') from error


def find_compressed(path: Path) -> Path:
    """Returns `path`, or `path`.gz if only that exists."""
    compressed = path.with_name(f'{path.name}.gz')
    return compressed if compressed.is_file() and not path.is_file() else path
