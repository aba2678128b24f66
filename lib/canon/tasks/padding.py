"""Pads batches of an evaluator whose natural size, such as the pixels of a picture, the devices may not divide."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np


def round_up_to_devices(count: int) -> int:
    """Returns the least multiple of the number of devices, of all processes together, that is at least `count`."""
    # Rounded up: floor division of the negated number.
    return -(-count // jax.device_count()) * jax.device_count()


def pad_rows(batch: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Repeats the last row of every array until there are `rows`; the evaluator must drop or mask what is added.

    A repeated row is computed like any other one, whereas a row of zeros (a ray without a direction, say) may give NaN,
    which a mask multiplied by it does not remove.
    """
    return {name: np.pad(x, [(0, rows - len(x))] + [(0, 0)] * (x.ndim - 1), 'edge') for name, x in batch.items()}
