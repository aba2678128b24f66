"""`Rows`: values of every row of the data, for scores of a whole corpus that are not means over batches, as BLEU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np


class Rows(NamedTuple):
    """An accumulator of values per row: `a + b` holds the rows of a, then those of b.

    Batches may differ in shape. In a job of several processes each holds all rows, in the order of the batches.

    Attributes:
      parts: for each batch its values, a tree of arrays [B, ...], and its mask [B].
    """

    parts: tuple[tuple[Any, Any], ...]

    @classmethod
    def of(cls, values: Any, mask: Any) -> Rows:
        """Returns the rows of one batch.

        values: a tree of arrays [B, ...]. mask: bool [B], false for padding.
        """
        return cls(((values, mask),))

    def __add__(self, other: Rows) -> Rows:  # ty: ignore[incompatible-method-override]
        # Tuples and not arrays are concatenated: batches of other shapes are kept as they are.
        return Rows(self.parts + other.parts)

    def each(self) -> Iterator[Any]:
        """Yields the values of each row that is not padding, as a tree without the batch axis."""
        for values, mask in self.parts:
            for i in np.flatnonzero(mask):
                yield jax.tree.map(lambda x, i=i: np.asarray(x)[i], values)
