"""Discrepancies between two sets of features: maximum mean discrepancies, moments, and disagreeing classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from canon.errors import UsageError

# The default range of pytorch-adapt, which has 33 kernels in steps of sqrt(2); here they are 17 in steps of 2.
DAN_SCALES = tuple(2.0**k for k in range(-8, 9))
TLLIB_SCALES = tuple(2.0**k for k in range(-3, 2))  # of the code of DAN's and JAN's authors, too
DOMAINBED_GAMMAS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
Estimator = Literal['biased', 'unbiased']


def pairwise_squares(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns |x_i - y_j|^2, [N, M], of vectors [N, D] and [M, D].

    Computed from differences: |x|^2 + |y|^2 - 2 x.y loses all digits where vectors are close, as aligned features are.
    """
    return jnp.square(x[:, None] - y[None]).sum(-1)


def rbf_kernel(
    squares: jax.Array,
    scales: Sequence[float] = DAN_SCALES,
    reference: jax.Array | float | None = None,
    average: bool = True,
) -> jax.Array:
    """Computes a sum of Gaussian kernels sum_k exp(-d^2 / (2 s_k r)) of squared distances.

    Args:
      squares: d^2, of any shape.
      scales: s_k > 0, the squared bandwidths in units of `reference`.
      reference: r, the unit; None is the mean of `squares`, as a constant of the gradient. exp(-gamma d^2) of DomainBed
        has the scales 1 / (2 gamma) and the reference 1.
      average: whether the sum is divided by the number of kernels (the paper's convex combination with equal weights).

    Raises:
      UsageError: there is no kernel, or one without a positive width.
    """
    if not len(scales) or min(scales) <= 0:
        raise UsageError(f'scales={tuple(scales)}: kernels need positive widths, at least one')
    # The bandwidth must not be learnt: the features would shrink it instead of meeting.
    unit = jax.lax.stop_gradient(squares.mean()) if reference is None else jnp.asarray(reference)
    unit = jnp.where(unit > 0, unit, 1)  # all features are equal: every kernel is 1
    kernel = jnp.zeros_like(squares)
    for scale in scales:
        kernel += jnp.exp(-squares / (2 * scale * unit))
    return kernel / len(scales) if average else kernel


def mmd_of_kernel(kernel: jax.Array, num_source: int, estimator: Estimator = 'unbiased') -> jax.Array:
    """Estimates the squared maximum mean discrepancy from the kernel of both samples: Gretton et al. 2012.

    Args:
      kernel: [N + M, N + M] of the N source rows, then the M target rows.
      num_source: N.
      estimator: 'biased', the V-statistic (the square of MMD_b), which is never negative and 0 for equal samples;
        'unbiased', the U-statistic (lemma 6), which leaves out the pairs of a row with itself and may be negative.

    Raises:
      UsageError: the estimator is unknown, or it has less than two rows of a domain.
    """
    n, m = num_source, len(kernel) - num_source
    ss, tt, st = kernel[:n, :n], kernel[n:, n:], kernel[:n, n:]
    if estimator == 'biased' and min(n, m) >= 1:
        return ss.mean() + tt.mean() - 2 * st.mean()
    if estimator == 'unbiased' and min(n, m) >= 2:
        within = [(k.sum() - jnp.trace(k)) / (c * (c - 1)) for k, c in ((ss, n), (tt, m))]
        return within[0] + within[1] - 2 * st.mean()
    if estimator not in ('biased', 'unbiased'):
        raise UsageError(f"estimator={estimator!r} is neither 'biased' nor 'unbiased'")
    raise UsageError(f'the {estimator} MMD of {n} source and {m} target rows does not exist; give more rows per domain')


def mmd(
    source: jax.Array,
    target: jax.Array,
    scales: Sequence[float] = DAN_SCALES,
    estimator: Estimator = 'unbiased',
    reference: jax.Array | float | None = None,
) -> jax.Array:
    """Estimates MK-MMD^2 of features [N, D] and [M, D] with Gaussian kernels: Long et al. 2015 (DAN).

    The paper chooses the weights of its kernels by a quadratic program; here they are equal, as in the authors' code
    and in tllib. Both add their five kernels up, so that their weight 1 of the loss is 5 here, where the mean is taken.

    For DomainBed's MMD give `scales=[1 / (2 g) for g in DOMAINBED_GAMMAS]`, `reference=1` and `estimator='biased'`,
    and multiply by their number.

    Args:
      source: [N, D].
      target: [M, D].
      scales: see `rbf_kernel`.
      estimator: see `mmd_of_kernel`.
      reference: see `rbf_kernel`; None is the mean squared distance of all pairs.

    Raises:
      UsageError: a width is not positive, or there are too few rows.
    """
    rows = jnp.concatenate([source, target])
    return mmd_of_kernel(rbf_kernel(pairwise_squares(rows, rows), scales, reference), len(source), estimator)


def joint_mmd(
    source: Sequence[jax.Array],
    target: Sequence[jax.Array],
    scales: Sequence[Sequence[float]] | None = None,
    estimator: Estimator = 'unbiased',
    references: Sequence[float | None] | None = None,
) -> jax.Array:
    """Estimates JMMD^2 of the joint distribution of several layers: Long et al. 2017 (JAN).

    The kernel is the product of the layers' kernels, so that their dependence counts and not their marginals alone.

    Args:
      source: of each layer [N, D_l]; JAN takes the bottleneck and the softmax of the logits.
      target: of each layer [M, D_l].
      scales: of each layer; None is the authors' choice, `TLLIB_SCALES` for all but the last, and for the softmax the
        one kernel exp(-d^2 / 1.68), whose width is fixed (tllib has 2 * 0.92^2 in place of 1.68).
      estimator: see `mmd_of_kernel`.
      references: of each layer, see `rbf_kernel`; None is the authors' choice where `scales` is None, too, otherwise
        the mean squared distance of each layer.

    Raises:
      UsageError: the numbers of layers differ, or as in `mmd`.
    """
    if not source or len(source) != len(target):
        raise UsageError(
            f'joint_mmd: {len(source)} layers of the source and {len(target)} of the target must be as many'
        )
    if references is None:
        references = [None] * (len(source) - 1) + [1.0 if scales is None else None]
    if scales is None:
        scales = [TLLIB_SCALES] * (len(source) - 1) + [(0.84,)]
    kernel = jnp.ones(())
    for a, b, own, reference in zip(source, target, scales, references, strict=True):
        rows = jnp.concatenate([a, b])
        kernel = kernel * rbf_kernel(pairwise_squares(rows, rows), own, reference)
    return mmd_of_kernel(kernel, len(source[0]), estimator)


def covariance(x: jax.Array) -> jax.Array:
    """Returns the covariance [D, D] of rows [N, D], divided by N - 1."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def coral(source: jax.Array, target: jax.Array) -> jax.Array:
    """Computes |C_S - C_T|_F^2 / (4 d^2) of the covariances of features [N, d], [M, d]: Sun & Saenko 2016, eq. 1.

    Raises UsageError for a domain with less than two rows.
    """
    _require_rows(source, target)
    return jnp.square(covariance(source) - covariance(target)).sum() / (4 * source.shape[1] ** 2)


def mean_cov(source: jax.Array, target: jax.Array) -> jax.Array:
    """Computes mean (mu_S - mu_T)^2 + mean (C_S - C_T)^2, which tllib and DomainBed call CORAL.

    It differs from the paper's `coral` in its constants and by the means, which the paper does not match.

    Raises UsageError for a domain with less than two rows.
    """
    _require_rows(source, target)
    means = jnp.square(source.mean(0) - target.mean(0)).mean()
    return means + jnp.square(covariance(source) - covariance(target)).mean()


def classifier_discrepancy(logits: jax.Array, others: jax.Array) -> jax.Array:
    """Computes mean_c |p1_c - p2_c| of two classifiers' probabilities per row [N]: Saito et al. 2018 (MCD)."""
    return jnp.abs(jax.nn.softmax(logits) - jax.nn.softmax(others)).mean(-1)


def _require_rows(source: jax.Array, target: jax.Array) -> None:
    if min(len(source), len(target)) < 2 or source.shape[1:] != target.shape[1:]:
        raise UsageError(
            f'features {list(source.shape)} and {list(target.shape)} have no covariances to compare; give each domain'
            ' at least two rows of the same width'
        )
