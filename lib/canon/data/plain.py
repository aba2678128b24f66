"""Files of UTF-8 text, plain or packed by gzip, line by line: what corpora and parallel text are read by.

A line ends at a line feed and nowhere else, so that two parallel files stay parallel whatever stands in them (a form
feed, U+2028); a carriage return before it and a byte order mark at the beginning are dropped.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from canon.errors import CanonError, UsageError

_BOM = b'\xef\xbb\xbf'


def lines(path: str | Path) -> Iterator[str]:
    """The lines of `path` without their ends; `.gz` is unpacked.

    Raises UsageError for a missing or empty file, CanonError naming file and line of what is no UTF-8.
    """
    file = Path(path).expanduser()
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
        raise UsageError(f'{file} is empty; there is nothing to learn from')


def either(path: Path) -> Path:
    """`path`, or `path`.gz where only that is there."""
    packed = path.with_name(f'{path.name}.gz')
    return packed if packed.is_file() and not path.is_file() else path
