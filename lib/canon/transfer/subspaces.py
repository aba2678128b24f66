"""Features that two domains share, in closed form: aligned subspaces, transfer components, aligned covariances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

from canon import named
from canon.errors import UsageError
from canon.transfer.kernels import check_rows, gaussian_kernel, median_width


class SubspacePair(NamedTuple):
    """Maps of both domains into one space of d dimensions.

    Attributes:
      source_map: [D, d]: features of the source are (x - source_mean) @ source_map.
      target_map: [D, d].
      source_mean: [D].
      target_mean: [D].
    """

    source_map: np.ndarray
    target_map: np.ndarray
    source_mean: np.ndarray
    target_mean: np.ndarray

    def map_source(self, x: np.ndarray) -> np.ndarray:
        """Maps source rows [N, D] to [N, d]."""
        return (x - self.source_mean) @ self.source_map

    def map_target(self, x: np.ndarray) -> np.ndarray:
        """Maps target rows [M, D] to [M, d]."""
        return (x - self.target_mean) @ self.target_map


def align_subspaces(source: np.ndarray, target: np.ndarray, dimensions: named.Count) -> SubspacePair:
    """Aligns the d principal directions of the source with those of the target: Fernando et al. 2013.

    P_s and P_t [D, d] are the leading eigenvectors of the covariances; M = P_s' P_t minimises |P_s M - P_t|_F. The
    source is mapped by P_s M, the target by P_t.

    Raises:
      UsageError: d is more than the columns or the rows of a domain allow, or the features do not fit each other.
    """
    x, t = check_rows(source, target, 2)
    most = min(x.shape[1], len(x) - 1, len(t) - 1)
    if not 1 <= dimensions <= most:
        raise UsageError(f'dimensions={dimensions} must be in 1..{most} for {len(x)} and {len(t)} rows of {x.shape[1]}')
    bases = [_principal_directions(rows, dimensions) for rows in (x, t)]
    return SubspacePair(bases[0] @ (bases[0].T @ bases[1]), bases[1], x.mean(0), t.mean(0))


def _principal_directions(rows: np.ndarray, dimensions: int) -> np.ndarray:
    # The singular vectors of the centred rows are the eigenvectors of their covariance, with twice the digits.
    return np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:dimensions].T


class KernelComponents(NamedTuple):
    """Components k(x, rows) @ coefficients; calling it with rows [N, D] gives [N, d].

    Attributes:
      rows: of both domains, [N + M, D].
      coefficients: W, [N + M, d].
      width: of the Gaussian kernel; None for the linear kernel.
    """

    rows: np.ndarray
    coefficients: np.ndarray
    width: float | None

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return _kernel(np.asarray(x, np.float64), self.rows, self.width) @ self.coefficients


def fit_transfer_components(
    source: np.ndarray,
    target: np.ndarray,
    dimensions: named.Count,
    mu: named.Positive = 1.0,
    kernel: str = 'gaussian',
    width: float | None = None,
) -> KernelComponents:
    """Finds the components with little discrepancy and much variance: Pan et al. 2011 (unsupervised TCA).

    W are the d leading eigenvectors of (K L K + mu I)^-1 K H K, with K the kernel of all rows, L the matrix whose
    tr(K L) is the biased MMD^2 of the domains, and H = I - 1 1' / (N + M). They are scaled so that
    W' (K L K + mu I) W = I.

    Args:
      source: [N, D].
      target: [M, D].
      dimensions: d.
      mu: of the norm of W.
      kernel: 'gaussian' or 'linear'.
      width: of the Gaussian kernel; None is the median distance.

    Raises:
      UsageError: the kernel is unknown, d is more than the rows, or the features do not fit each other.
    """
    x, t = check_rows(source, target)
    rows = np.concatenate([x, t])
    if kernel not in ('gaussian', 'linear'):
        raise UsageError(f"kernel={kernel!r} is neither 'gaussian' nor 'linear'")
    if not 1 <= dimensions < len(rows):
        raise UsageError(f'dimensions={dimensions} must be in 1..{len(rows) - 1} for {len(rows)} rows')
    width = None if kernel == 'linear' else median_width(x, t) if width is None else width
    gram = _kernel(rows, rows, width)
    means = np.concatenate([np.full(len(x), 1 / len(x)), np.full(len(t), -1 / len(t))])
    between = gram @ means  # K L K is the outer product of K e with itself, since L = e e'
    centred = gram - gram.mean(0)
    spread = centred.T @ centred  # K H K, as H is a projection
    regular = np.outer(between, between) + mu * np.eye(len(rows))
    last = len(rows) - 1
    _, vectors = scipy.linalg.eigh(spread, regular, subset_by_index=(last - dimensions + 1, last))
    return KernelComponents(rows, vectors[:, ::-1], width)


def _kernel(x: np.ndarray, rows: np.ndarray, width: float | None) -> np.ndarray:
    return x @ rows.T if width is None else gaussian_kernel(x, rows, width)


def align_covariances(source: np.ndarray, target: np.ndarray, ridge: named.NonNegative = 1.0) -> np.ndarray:
    """Returns the source whitened and recoloured with the target's covariance: Sun, Feng & Saenko 2016 (CORAL).

    x C_S^-1/2 C_T^1/2, with C = cov + ridge I; ridge = 1 is the paper's. Means are left as they are, as in the paper:
    standardise both domains first.

    Args:
      source: [N, D].
      target: [M, D].
      ridge: added to both diagonals; 0 needs covariances of full rank.

    Raises:
      UsageError: the covariance of the source has no inverse, or the features do not fit each other.
    """
    x, t = check_rows(source, target, 2)
    values, vectors = np.linalg.eigh(np.cov(x.T).reshape(x.shape[1], -1) + ridge * np.eye(x.shape[1]))
    if values[0] <= 1e-12 * values[-1]:
        raise UsageError(f'the covariance of the source has rank less than {x.shape[1]}; give ridge > 0')
    whiten = vectors / np.sqrt(values) @ vectors.T
    values, vectors = np.linalg.eigh(np.cov(t.T).reshape(t.shape[1], -1) + ridge * np.eye(t.shape[1]))
    colour = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return x @ whiten @ colour
