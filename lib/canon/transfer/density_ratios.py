"""Weights of source examples, w(x) = p_target(x) / p_source(x), estimated without the two densities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import scipy.sparse.linalg

from canon import named
from canon.errors import UsageError
from canon.transfer.kernels import check_rows, gaussian_kernel, median_width
from canon.transfer.logistic import SoftmaxModel, fit_softmax

_WIDTHS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0)  # candidates, in units of the median distance
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


class KernelRatio(NamedTuple):
    """A ratio sum_l a_l k(x, c_l) of Gaussian kernels; calling it with rows [N, D] gives the weights [N].

    Attributes:
      centres: c, [L, D].
      coefficients: a, [L], none negative.
      width: of the kernels.
    """

    centres: np.ndarray
    coefficients: np.ndarray
    width: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return gaussian_kernel(np.asarray(x, np.float64), self.centres, self.width) @ self.coefficients


def effective_count(weights: np.ndarray) -> float:
    """Returns (sum w)^2 / sum w^2: how many equally weighted examples estimate a mean as well (Kish 1965)."""
    weights = np.asarray(weights, np.float64)
    return float(weights.sum() ** 2 / np.square(weights).sum())


# --- kernel mean matching --------------------------------------------------------------------------------------------


def kernel_mean_matching(
    source: np.ndarray,
    target: np.ndarray,
    width: float | None = None,
    bound: named.Positive = 1000.0,
    epsilon: float | None = None,
    iterations: named.Count = 3000,
) -> np.ndarray:
    """Weighs source rows so that their kernel mean is that of the target: Huang et al. 2007 (KMM).

    Minimises w' K w / 2 - kappa' w with 0 <= w_i <= B and |sum_i w_i - N| <= N epsilon, where K_ij = k(x_i, x_j) and
    kappa_i = N / M sum_j k(x_i, t_j), by accelerated projected gradients.

    Args:
      source: x, [N, D].
      target: t, [M, D].
      width: of the Gaussian kernel; None is the median distance.
      bound: B.
      epsilon: None is the authors' (sqrt(N) - 1) / sqrt(N).
      iterations: at most; they end where no weight moves by 1e-9 N.

    Returns:
      the weights of the source rows, [N].

    Raises:
      UsageError: the features do not fit each other, or the width is not positive.
    """
    x, t = check_rows(source, target)
    n = len(x)
    width = median_width(x, t) if width is None else width
    slack = n * ((np.sqrt(n) - 1) / np.sqrt(n) if epsilon is None else epsilon)
    kernel = gaussian_kernel(x, x, width)
    kappa = n / len(t) * gaussian_kernel(x, t, width).sum(1)
    step = 1 / _largest_eigenvalue(kernel)
    weights = point = np.ones(n)
    momentum = 1.0
    for _ in range(iterations):
        moved = _project_weights(point - step * (kernel @ point - kappa), bound, n - slack, n + slack)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        # Momentum that points uphill is dropped, without which the weights oscillate (O'Donoghue & Candes 2015).
        if (point - moved) @ (moved - weights) > 0:
            following = 1.0
        point = moved + (momentum - 1) / following * (moved - weights) if following > 1 else moved
        change = np.abs(moved - weights).max()
        weights, momentum = moved, following
        if change < 1e-9 * n:
            break
    return weights


def _largest_eigenvalue(kernel: np.ndarray) -> float:
    if len(kernel) < 100:
        return float(np.linalg.eigvalsh(kernel)[-1])
    # Of thousands of rows all eigenvalues take a minute; a fixed first vector keeps the result a function of the rows.
    return float(scipy.sparse.linalg.eigsh(kernel, 1, v0=np.ones(len(kernel)), return_eigenvectors=False)[0])


def _project_weights(weights: np.ndarray, bound: float, least: float, most: float) -> np.ndarray:
    """Projects onto 0 <= w <= bound, least <= sum w <= most: clip(w - tau) with the tau that fits the sum."""
    clipped = np.clip(weights, 0, bound)
    if least <= clipped.sum() <= most:
        return clipped
    goal = least if clipped.sum() < least else most
    low, high = weights.min() - bound, weights.max()
    for _ in range(100):  # bisection: the sum falls as tau rises
        tau = (low + high) / 2
        low, high = (tau, high) if np.clip(weights - tau, 0, bound).sum() > goal else (low, tau)
    return np.clip(weights - high, 0, bound)


# --- KLIEP -----------------------------------------------------------------------------------------------------------


def fit_kliep(
    source: np.ndarray,
    target: np.ndarray,
    widths: Sequence[float] | None = None,
    centres: named.Count = 100,
    folds: Annotated[int, named.Range(2)] = 5,
    seed: int = 0,
) -> KernelRatio:
    """Maximises mean_t log w(t) with mean_x w(x) = 1 and w = sum a_l k(., c_l): Sugiyama et al. 2008 (KLIEP).

    With g_l = a_l mean_x k(x, c_l) the constraint is sum_l g_l = 1, g_l >= 0, so that the problem is that of the
    proportions of a mixture, and EM ascends it without a step size. The centres are rows of the target; the width is
    the one of the greatest likelihood on held-out target rows (likelihood cross-validation).

    Args:
      source: x, [N, D].
      target: t, [M, D].
      widths: candidates; None takes multiples of the median distance.
      centres: at most so many rows of the target are centres.
      folds: of the cross-validation.
      seed: of the folds and centres.

    Raises:
      UsageError: the features do not fit each other, or the target has fewer rows than folds.
    """
    x, t = check_rows(source, target)
    candidates = _list_widths(widths, x, t)
    rng = np.random.default_rng(seed)
    chosen = t[rng.permutation(len(t))[:centres]]
    parts = _divide(len(t), folds, rng)

    def score(width):
        held = []
        for part in parts:
            ratio = _maximise_likelihood(x, np.delete(t, part, 0), chosen, width)
            held.append(np.log(np.maximum(ratio(t[part]), 1e-300)).mean())
        return np.mean(held)

    width = candidates[0] if len(candidates) == 1 else max(candidates, key=score)
    return _maximise_likelihood(x, t, chosen, width)


def _maximise_likelihood(x: np.ndarray, t: np.ndarray, centres: np.ndarray, width: float) -> KernelRatio:
    of_source = gaussian_kernel(x, centres, width).mean(0)
    usable = of_source > 0  # a centre that no source row reaches would have an infinite coefficient
    if not usable.any():
        raise UsageError(f'width={width:g}: no source row is near a target row; take larger widths')
    components = gaussian_kernel(t, centres[usable], width) / of_source[usable]
    shares = np.full(usable.sum(), 1 / usable.sum())
    for _ in range(500):
        mixture = np.maximum(components @ shares, 1e-300)
        # A row far from all centres pulls none of them; the shares stay a distribution.
        updated = shares * (components / mixture[:, None]).mean(0)
        updated /= updated.sum()
        change, shares = np.abs(updated - shares).max(), updated
        if change < 1e-7:
            break
    return KernelRatio(centres[usable], shares / of_source[usable], width)


# --- least-squares importance fitting --------------------------------------------------------------------------------


def fit_ulsif(
    source: np.ndarray,
    target: np.ndarray,
    alpha: Annotated[float, named.Range(0, 1, open_high=True)] = 0.0,
    widths: Sequence[float] | None = None,
    ridges: Sequence[float] = _RIDGES,
    centres: named.Count = 100,
    folds: Annotated[int, named.Range(2)] = 5,
    seed: int = 0,
) -> KernelRatio:
    """Fits the ratio by least squares: Kanamori et al. 2009 (uLSIF); with alpha > 0 the relative ratio (RuLSIF).

    a = max(0, (H + ridge I)^-1 h), with h = mean_t k(t) and H = alpha mean_t k k' + (1 - alpha) mean_x k k', which
    estimates p_target / (alpha p_target + (1 - alpha) p_source): at most 1 / alpha, hence of less variance
    (Yamada et al. 2011). Width and ridge are those of the least a' H a / 2 - h' a on held-out rows.

    Args:
      source: x, [N, D].
      target: t, [M, D].
      alpha: 0 is the plain ratio; 0.1 is usual for the relative one (RuLSIF).
      widths: candidates; None takes multiples of the median distance.
      ridges: candidates.
      centres: at most so many rows of the target are centres.
      folds: of the cross-validation.
      seed: of the folds and centres.

    Raises:
      UsageError: the features do not fit each other, or a domain has fewer rows than folds.
    """
    x, t = check_rows(source, target)
    candidates = _list_widths(widths, x, t)
    rng = np.random.default_rng(seed)
    chosen = t[rng.permutation(len(t))[:centres]]
    parts = list(zip(_divide(len(x), folds, rng), _divide(len(t), folds, rng), strict=True))
    scores = {}
    for width in candidates if len(candidates) * len(ridges) > 1 else ():
        kernels = [gaussian_kernel(rows, chosen, width) for rows in (x, t)]
        scores |= {(width, ridge): score for ridge, score in _cross_validate(kernels, parts, alpha, ridges).items()}
    width, ridge = min(scores, key=lambda pair: scores[pair]) if scores else (candidates[0], ridges[0])
    square, linear = _moments(*(gaussian_kernel(rows, chosen, width) for rows in (x, t)), alpha)
    return KernelRatio(chosen, _solve_ridge(square, linear, ridge), width)


def _cross_validate(kernels, parts, alpha: float, ridges: Sequence[float]) -> dict[float, float]:
    """Returns {ridge: the mean of a' H a / 2 - h' a over the folds}, for one width."""
    totals = dict.fromkeys(ridges, 0.0)
    for part in parts:
        fitted = _moments(*(np.delete(kernel, rows, 0) for kernel, rows in zip(kernels, part, strict=True)), alpha)
        square, linear = _moments(*(kernel[rows] for kernel, rows in zip(kernels, part, strict=True)), alpha)
        for ridge in ridges:
            a = _solve_ridge(*fitted, ridge)
            totals[ridge] += float(a @ square @ a / 2 - linear @ a) / len(parts)
    return totals


def _moments(of_source: np.ndarray, of_target: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    square = (1 - alpha) * of_source.T @ of_source / len(of_source)
    if alpha:
        square = square + alpha * of_target.T @ of_target / len(of_target)
    return square, of_target.mean(0)


def _solve_ridge(square: np.ndarray, linear: np.ndarray, ridge: float) -> np.ndarray:
    return np.maximum(np.linalg.solve(square + ridge * np.eye(len(linear)), linear), 0)


def _list_widths(widths: Sequence[float] | None, x: np.ndarray, t: np.ndarray) -> list[float]:
    candidates = [median_width(x, t) * factor for factor in _WIDTHS] if widths is None else list(widths)
    if not candidates or min(candidates) <= 0:
        raise UsageError(f'widths={tuple(candidates)}: kernels need positive widths, at least one')
    return candidates


def _divide(count: int, folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    if count < folds:
        raise UsageError(f'{count} rows cannot be divided into {folds} folds; take fewer folds')
    return np.array_split(rng.permutation(count), folds)


# --- a discriminator's ratio -----------------------------------------------------------------------------------------


class DiscriminatorRatio(NamedTuple):
    """The odds of a classifier of domains, times N / M; calling it with rows [N, D] gives the weights [N]."""

    classify: SoftmaxModel
    quadratic: bool
    prior: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        logits = self.classify.logits(_expand(np.asarray(x, np.float64), self.quadratic))
        return self.prior * np.exp(logits[:, 1] - logits[:, 0])


def fit_discriminator_ratio(
    source: np.ndarray, target: np.ndarray, quadratic: bool = False, l2: named.NonNegative = 1e-3
) -> DiscriminatorRatio:
    """Estimates p_target / p_source = N / M P(target | x) / P(source | x) by logistic regression: Bickel et al. 2007.

    Args:
      source: x, [N, D].
      target: t, [M, D].
      quadratic: whether squares and products of columns are features too, which make the ratio of any two Gaussians
        exact; otherwise that of Gaussians with the same covariance.
      l2: of the regression.

    Raises UsageError if the features do not fit each other.
    """
    x, t = check_rows(source, target)
    rows = _expand(np.concatenate([x, t]), quadratic)
    model = fit_softmax(rows, np.repeat([0, 1], [len(x), len(t)]), num_classes=2, l2=l2)
    return DiscriminatorRatio(model, quadratic, len(x) / len(t))


def _expand(x: np.ndarray, quadratic: bool) -> np.ndarray:
    if not quadratic:
        return x
    i, j = np.triu_indices(x.shape[1])
    return np.concatenate([x, x[:, i] * x[:, j]], 1)
