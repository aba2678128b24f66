"""`Rows`: what each row of the data gave, for scores of a whole corpus, which are no means over batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np


class Rows(NamedTuple):
    """An accumulator of rows, batch by batch: `a + b` holds those of a, then those of b.

    Batches may differ in shape. In a run of several processes each holds all rows, in the order of the batches.
    """

    parts: tuple[tuple[Any, Any], ...]

    @classmethod
    def of(cls, values: Any, mask: Any) -> Rows:
        """values: a tree of arrays [B, ...]; those where mask [B] is false are padding."""
        return cls(((values, mask),))

    def __add__(self, other: Rows) -> Rows:  # ty: ignore[incompatible-method-override]
        return Rows(self.parts + other.parts)

    def each(self) -> Iterator[Any]:
        """The rows that are no padding, as the trees they came in."""
        for values, mask in self.parts:
            for i in np.flatnonzero(mask):
                yield jax.tree.map(lambda x, i=i: np.asarray(x)[i], values)
