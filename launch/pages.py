"""Tables on pages of the manual whose rows are measured one by one: each row replaces the former one of its key."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]], rule: str = '---') -> str:
    """Returns a table of Markdown; `rule` is that of the columns after the first, such as '---:' for numbers."""
    lines = [head, ['---', *[rule] * (len(head) - 1)], *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


class TablePage(NamedTuple):
    """A page with one table.

    Attributes:
      title: the text above the table.
      head: names of the columns.
      key: row to what identifies it; rows are sorted by it.
      known: row to whether it may stay: False if what it measured no longer exists.
    """

    title: str
    head: Sequence[str]
    key: Callable[[Sequence[str]], Hashable]
    known: Callable[[Sequence[str]], bool]

    def write(self, page: Path, rows: Iterable[Sequence[str]]) -> None:
        """Replaces the rows that were measured; those of other keys stay as they were."""
        rows_by_key = {self.key(row): row for row in self._read(page) if self.known(row)}
        # A bar in an error message would be a column.
        cells = ([cell.replace('|', '/') for cell in row] for row in rows)
        rows_by_key.update((self.key(row), row) for row in cells)
        page.parent.mkdir(exist_ok=True)
        ordered = (rows_by_key[key] for key in sorted(rows_by_key, key=str))
        page.write_text(self.title + format_table(self.head, ordered))

    def _read(self, page: Path) -> list[list[str]]:
        if not page.is_file():
            return []
        lines = [line for line in page.read_text().splitlines() if line.startswith('|')]
        rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines[2:]]
        return [row for row in rows if len(row) == len(self.head)]
