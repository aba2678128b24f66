"""Gaussian kernels between rows, and checks of the rows."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist, pdist

from canon.errors import UsageError

_MEDIAN_ROWS = 1000  # the median of all pairs of more rows takes seconds and hardly differs


def gaussian_kernel(x: np.ndarray, y: np.ndarray, width: float) -> np.ndarray:
    """Computes exp(-|x_i - y_j|^2 / (2 width^2)) of rows [N, D] and [M, D]: float64 [N, M].

    Raises UsageError for a width that is not positive.
    """
    if not width > 0:
        raise UsageError(f'width={width}: a Gaussian kernel needs a positive width')
    return np.exp(-cdist(x, y, 'sqeuclidean') / (2 * width**2))


def median_width(*rows: np.ndarray) -> float:
    """Returns the median distance between the rows of all arrays, the usual first guess of a width; 1 if it is 0."""
    everything = np.concatenate(rows)
    if len(everything) > _MEDIAN_ROWS:
        everything = everything[np.random.default_rng(0).permutation(len(everything))[:_MEDIAN_ROWS]]
    return float(np.median(pdist(everything))) or 1.0


def check_rows(source: np.ndarray, target: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features of both domains as float64 [N, D] and [M, D].

    Raises UsageError if they are not tables of the same width, have fewer than `least` rows, or are not finite.
    """
    arrays = []
    for name, values in (('source', source), ('target', target)):
        array = np.asarray(values, np.float64)
        if array.ndim != 2 or len(array) < least:
            raise UsageError(f'{name} features {list(array.shape)} must be [N, D] with N of at least {least}')
        if not np.isfinite(array).all():
            raise UsageError(f'{name} features have {int((~np.isfinite(array)).sum())} values that are not finite')
        arrays.append(array)
    if arrays[0].shape[1] != arrays[1].shape[1]:
        raise UsageError(
            f'source features have {arrays[0].shape[1]} columns and target features {arrays[1].shape[1]}; project both'
            ' into one space first'
        )
    return arrays[0], arrays[1]
