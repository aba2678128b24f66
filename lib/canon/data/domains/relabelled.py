"""A source whose labels are replaced, as by the predictions of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canon.data.domains.domain_batches import Unlabelled
from canon.data.pipeline.source import Arrays, Example, Source, read_examples
from canon.errors import UsageError


def relabel(source: Source, rows: np.ndarray, labels: np.ndarray) -> Source:
    """Returns the given examples of a source, their images alone, under other labels: as `Relabelled`, or in memory."""
    if isinstance(source, Arrays) and len(rows) and len(rows) == len(labels):
        fields = {'image': source.arrays['image'][rows], 'label': np.asarray(labels, np.int64)}
        return Arrays(fields, source.info._replace(total=len(rows)))
    return Relabelled(source, rows, labels)


class Relabelled:
    """The given examples of a source under other labels; of the source only `fields` are read, and never its labels."""

    def __init__(self, source: Source, rows: np.ndarray, labels: np.ndarray, fields: Sequence[str] = ('image',)):
        """
        Args:
          source: the examples, such as the unlabelled ones of an intermediate domain.
          rows: numbers of the examples that are taken, [n].
          labels: their labels, integers [n].
          fields: that examples keep.

        Raises:
          UsageError: there is no row, or the numbers of rows and labels differ.
        """
        if not len(rows) or len(rows) != len(labels):
            raise UsageError(
                f'{source!r}: {len(rows)} rows and {len(labels)} labels; give at least one row, and a label per row'
            )
        self.source, self.rows, self._labels = Unlabelled(source, fields), np.asarray(rows), np.asarray(labels)
        self.info = source.info._replace(total=len(rows))
        self.in_memory = getattr(source, 'in_memory', False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, ids: Sequence[int]) -> list[Example]:
        examples = read_examples(self.source, [int(self.rows[i]) for i in ids])
        return [{**e, 'label': np.int64(self._labels[i])} for e, i in zip(examples, ids, strict=True)]

    def labels(self) -> np.ndarray:
        """Returns the labels [n]."""
        return self._labels.astype(np.int64)

    def __repr__(self) -> str:
        return f'Relabelled({len(self)} of {self.source.source!r})'
