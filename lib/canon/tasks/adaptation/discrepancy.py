"""Methods of adaptation by a distance: moments and kernels of the features, and confusion of the predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from canon import losses, named
from canon.tasks.adaptation.methods import DomainOutputs, Method, NonNegative, list_pairs, require_unlabelled


def mmd(
    weight: NonNegative = 1.0,
    unbiased: bool = True,
    kernels: Literal['tllib', 'dan', 'domainbed'] = 'tllib',
) -> Method:
    """Adds the multi-kernel MMD of the features: Long et al. 2015 (DAN).

    The width of the kernels follows the features, so that features that are all equal have the discrepancy 0: on drawn
    and handwritten digits a weight of 1 without a ramp ends there, at chance, and 0.1 does not.

    Args:
      weight: of the discrepancy, which is the mean over the kernels except with 'domainbed'; tllib adds them up, so
        that its weight 1 is 5 here.
      unbiased: whether the U-statistic is taken; otherwise the V-statistic, which is never negative.
      kernels: squared widths in units of the mean squared distance, 2^-3 .. 2^1 ('tllib') or 2^-8 .. 2^8 ('dan'); or
        the sum of exp(-gamma d^2), gamma = 0.001 .. 1000, whose widths do not follow the features ('domainbed', with
        `unbiased=False` there).
    """
    estimator = 'unbiased' if unbiased else 'biased'
    fixed = kernels == 'domainbed'
    gammas = losses.discrepancies.DOMAINBED_GAMMAS
    scales = {
        'tllib': losses.discrepancies.TLLIB_SCALES,
        'dan': losses.discrepancies.DAN_SCALES,
        'domainbed': tuple(1 / (2 * gamma) for gamma in gammas),
    }[kernels]

    def discrepancy(a, b):
        value = losses.mmd(a.features, b.features, scales, estimator, 1.0 if fixed else None)
        return len(gammas) * value if fixed else value  # DomainBed adds its kernels up

    return _pairwise(weight, discrepancy)


def jan(weight: NonNegative = 1.0) -> Method:
    """Adds the joint MMD of features and predictions: Long et al. 2017 (JAN).

    Args:
      weight: of the discrepancy.
    """

    def discrepancy(a, b):
        source, target = ((d.features, jax.nn.softmax(d.logits)) for d in (a, b))
        return losses.joint_mmd(source, target)

    return _pairwise(weight, discrepancy)


def coral(weight: NonNegative = 1.0) -> Method:
    """Adds the distance of the covariances of the features: Sun & Saenko 2016 (Deep CORAL).

    Args:
      weight: of the distance.
    """
    return _pairwise(weight, lambda a, b: losses.coral(a.features, b.features))


def mean_cov(weight: NonNegative = 1.0) -> Method:
    """Adds the distances of means and covariances, which tllib and DomainBed call CORAL (`losses.mean_cov`).

    Args:
      weight: of the distances.
    """
    return _pairwise(weight, lambda a, b: losses.mean_cov(a.features, b.features))


def match_pairs(weight: NonNegative = 1.0) -> Method:
    """Adds the mean squared distance of the features of paired rows, [B, D] of each domain.

    The supervision of heterogeneous adaptation by correspondences: row i of every domain is the same example, as with
    `data.domains.paired`, and no label of the target is needed. The risk of the source keeps features from being equal.

    Args:
      weight: of the distance.
    """
    return _pairwise(weight, lambda a, b: jnp.square(a.features - b.features).mean())


def _pairwise(weight: float, discrepancy: Callable[[DomainOutputs, DomainOutputs], jax.Array]) -> Method:
    def align(evaluation):
        values = [discrepancy(a, b) for a, b in list_pairs(evaluation.domains)]
        mean = jnp.stack(values).mean()
        return weight * mean, {'discrepancy': mean}

    return Method(align, least_domains=2)


# --- predictions of the target ---------------------------------------------------------------------------------------


def mcc(weight: NonNegative = 1.0, temperature: named.Positive = 2.5) -> Method:
    """Adds the class confusion of the unlabelled rows: Jin et al. 2020 (MCC).

    Args:
      weight: of the confusion.
      temperature: that softens the predictions.
    """

    def align(evaluation):
        values = [losses.class_confusion(d.logits, temperature) for d in require_unlabelled(evaluation, 'mcc')]
        mean = jnp.stack(values).mean()
        return weight * mean, {'confusion': mean}

    return Method(align, least_domains=2)
