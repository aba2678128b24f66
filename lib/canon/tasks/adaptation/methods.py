"""Methods of adaptation and generalisation: what is added to the source risk, and how the risks are weighed.

A method is a function of what the network computes of each domain. Where a batch has unlabelled domains (adaptation),
each labelled domain is aligned with each of them; where it has none (generalisation), all pairs are aligned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from canon import losses, named, ops
from canon.errors import UsageError

Metrics = dict[str, jax.Array]
NonNegative = named.NonNegative
TARGET, SHOWN = 'target', 'shown'  # the unlabelled domain, and its labelled few, in the batches of adaptation


class DomainOutputs(NamedTuple):
    """Outputs of the network for the rows of one domain."""

    features: jax.Array  # [B, D]
    logits: jax.Array  # [B, C]
    second_logits: jax.Array  # [B, C] of the second classifier
    labels: Any  # [B], None of an unlabelled domain


class Evaluation(NamedTuple):
    """Inputs of a method: the outputs by domain, the heads, and the step."""

    domains: Mapping[str, DomainOutputs]
    discriminate: Callable[[jax.Array], jax.Array]
    classify: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    step: jax.Array


class Method(NamedTuple):
    """A method.

    Attributes:
      align: evaluation -> (what is added to the mean source risk, metrics). None adds nothing, and unlabelled domains
        are then not evaluated at all.
      weigh: (risks [E] of the labelled domains, weights [E] carried from step to step) -> (the weights of this step,
        which add up to 1). None weighs all alike.
      domain_input: (features, logits) -> what the discriminator sees.
    """

    align: Callable[[Evaluation], tuple[jax.Array, Metrics]] | None = None
    weigh: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    domain_input: Callable[[jax.Array, jax.Array], jax.Array] = lambda features, logits: features


def source_only() -> Method:
    """Trains on the labelled domains alone: the baseline of adaptation, and ERM of generalisation."""
    return Method()


# --- adversarial -----------------------------------------------------------------------------------------------------


def dann(weight: NonNegative = 1.0, alpha: named.Positive = 10.0, ramp_steps: named.Count = 1000) -> Method:
    """Reverses the gradient of a discriminator of domains: Ganin et al. 2016 (DANN), eq. 9.

    Args:
      weight: of the reversed gradient after the ramp. The discriminator's own gradient has the weight 1.
      alpha: of the ramp, see `ops.reversal_weight`.
      ramp_steps: over which it rises.
    """

    def align(evaluation):
        reversal = _ramp(evaluation.step, weight, alpha, ramp_steps)
        rows = {name: ops.reverse_gradient(d.features, reversal) for name, d in evaluation.domains.items()}
        return _discriminate(evaluation, rows, {name: jnp.ones(len(x)) for name, x in rows.items()}, reversal)

    return Method(align)


def cdan(
    weight: NonNegative = 1.0,
    alpha: named.Positive = 10.0,
    ramp_steps: named.Count = 1000,
    entropy_conditioning: bool = True,
) -> Method:
    """Conditions the discriminator on the predictions, by their outer product with the features: Long et al. 2018.

    Args:
      weight: as of `dann`.
      alpha: as of `dann`.
      ramp_steps: as of `dann`.
      entropy_conditioning: whether certain rows count more, CDAN+E.
    """

    def align(evaluation):
        reversal = _ramp(evaluation.step, weight, alpha, ramp_steps)
        rows, row_weights = {}, {}
        for name, d in evaluation.domains.items():
            rows[name] = ops.reverse_gradient(losses.multilinear_map(d.features, d.logits), reversal)
            row_weights[name] = losses.entropy_weights(d.logits) if entropy_conditioning else jnp.ones(len(d.logits))
        return _discriminate(evaluation, rows, row_weights, reversal)

    return Method(align, domain_input=losses.multilinear_map)


def _ramp(step, weight: float, alpha: float, ramp_steps: int) -> jax.Array:
    return ops.reversal_weight(jnp.minimum(step / ramp_steps, 1.0), alpha, weight)


def _discriminate(evaluation: Evaluation, rows, row_weights, reversal) -> tuple[jax.Array, Metrics]:
    """Returns the mean loss of the discriminator, in which every domain counts alike, and its accuracy."""
    risks, accuracies = [], []
    numbers = number_domains(rows)
    for name, x in rows.items():
        number, logits = numbers[name], evaluation.discriminate(x)
        if logits.shape[-1] <= max(numbers.values()):
            count = max(numbers.values()) + 1
            raise UsageError(
                f'model.domains={logits.shape[-1]}, but batches have {count} domains; set model.domains={count}'
            )
        labels = jnp.full(len(x), number, jnp.int32)
        w = row_weights[name]
        risks.append((w * losses.softmax_cross_entropy(logits, labels)).sum() / w.sum())
        accuracies.append((logits.argmax(-1) == number).mean())
    metrics = {'domain_accuracy': jnp.stack(accuracies).mean(), 'reversal': reversal}
    return jnp.stack(risks).mean(), metrics


def number_domains(names: Iterable[str]) -> dict[str, int]:
    """Returns the class that a discriminator gives each domain; the shown examples are of the target's domain."""
    listed = list(names)
    numbers = {name: number for number, name in enumerate(name for name in listed if name != SHOWN)}
    if SHOWN in listed:
        numbers[SHOWN] = numbers.get(TARGET, len(numbers))
    return numbers


def mcd(weight: NonNegative = 1.0) -> Method:
    """Maximises the discrepancy of two classifiers on the target and minimises it by the features: Saito et al. 2018.

    The form with a gradient reversal in place of the paper's three steps (MCD): the classifiers ascend the discrepancy
    on unlabelled rows while the features descend it, in one gradient. Both classifiers learn the labelled rows.

    Args:
      weight: of the discrepancy.
    """

    def align(evaluation):
        second = [
            losses.softmax_cross_entropy(d.second_logits, d.labels).mean()
            for d in evaluation.domains.values()
            if d.labels is not None
        ]
        gaps = []
        for d in _unlabelled(evaluation, 'mcd'):
            logits = evaluation.classify(ops.reverse_gradient(d.features))
            gaps.append(losses.classifier_discrepancy(*logits).mean())
        gap = jnp.stack(gaps).mean()
        return jnp.stack(second).mean() - weight * gap, {'discrepancy': gap}

    return Method(align)


# --- moments and kernels ---------------------------------------------------------------------------------------------


def mmd(weight: NonNegative = 1.0, unbiased: bool = True) -> Method:
    """Adds the multi-kernel MMD of the features: Long et al. 2015 (DAN).

    The width of the kernels follows the features, so that features that are all equal have the discrepancy 0: on drawn
    and handwritten digits a weight of 1 without a ramp ends there, at chance, and 0.1 does not.

    Args:
      weight: of the discrepancy.
      unbiased: whether the U-statistic is taken; otherwise the V-statistic, which is never negative.
    """
    estimator = 'unbiased' if unbiased else 'biased'
    scales = losses.discrepancies.TLLIB_SCALES
    return _pairwise(weight, lambda a, b: losses.mmd(a.features, b.features, scales, estimator))


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


def _pairwise(weight: float, discrepancy: Callable[[DomainOutputs, DomainOutputs], jax.Array]) -> Method:
    def align(evaluation):
        values = [discrepancy(a, b) for a, b in list_pairs(evaluation.domains)]
        mean = jnp.stack(values).mean()
        return weight * mean, {'discrepancy': mean}

    return Method(align)


def list_pairs(domains: Mapping[str, DomainOutputs]) -> list[tuple[DomainOutputs, DomainOutputs]]:
    """Returns the pairs to align: each labelled with each unlabelled domain, or all pairs where none is unlabelled.

    Raises UsageError for a single domain.
    """
    labelled = [d for d in domains.values() if d.labels is not None]
    unlabelled = [d for d in domains.values() if d.labels is None]
    pairs = list(itertools.product(labelled, unlabelled) if unlabelled else itertools.combinations(labelled, 2))
    if not pairs:
        raise UsageError(f'alignment needs two domains, and the batch has one: {", ".join(domains)}')
    return pairs


# --- predictions of the target ---------------------------------------------------------------------------------------


def mcc(weight: NonNegative = 1.0, temperature: named.Positive = 2.5) -> Method:
    """Adds the class confusion of the unlabelled rows: Jin et al. 2020 (MCC).

    Args:
      weight: of the confusion.
      temperature: that softens the predictions.
    """

    def align(evaluation):
        values = [losses.class_confusion(d.logits, temperature) for d in _unlabelled(evaluation, 'mcc')]
        mean = jnp.stack(values).mean()
        return weight * mean, {'confusion': mean}

    return Method(align)


def _unlabelled(evaluation: Evaluation, method: str) -> list[DomainOutputs]:
    domains = [d for d in evaluation.domains.values() if d.labels is None]
    if not domains:
        raise UsageError(f'method.name={method!r} needs an unlabelled domain, and every domain of the batch has labels')
    return domains


# --- several risks ---------------------------------------------------------------------------------------------------


def irm(
    weight: NonNegative = 100.0, anneal_steps: Annotated[int, named.Range(0)] = 500, halves: bool = False
) -> Method:
    """Adds IRM's penalty of each labelled domain: Arjovsky et al. 2019 (IRMv1).

    After the annealing the whole loss is divided by the weight, as in the authors' code, so that its scale stays.

    Args:
      weight: of the penalty after `anneal_steps`; before, it is 1. DomainBed's default is 100.
      anneal_steps: DomainBed's default is 500. Its code makes a new Adam there; here the moments stay.
      halves: whether the penalty is estimated without bias, from the halves of the batch, as in DomainBed.
    """
    penalty = losses.irm_penalty_of_halves if halves else losses.irm_penalty

    def align(evaluation):
        labelled = _labelled(evaluation, 1, 'irm')
        value = jnp.stack([penalty(d.logits, d.labels) for d in labelled]).mean()
        return _annealed(evaluation, weight, anneal_steps) * value, {'penalty': value}

    return Method(align)


def v_rex(weight: NonNegative = 10.0, anneal_steps: Annotated[int, named.Range(0)] = 500) -> Method:
    """Adds the variance of the risks of the labelled domains: Krueger et al. 2021 (V-REx).

    Args:
      weight: of the variance after `anneal_steps`; before, it is 1. DomainBed's default is 10.
      anneal_steps: DomainBed's default is 500.
    """

    def align(evaluation):
        labelled = _labelled(evaluation, 2, 'v_rex')
        risks = [losses.softmax_cross_entropy(d.logits, d.labels).mean() for d in labelled]
        value = losses.risk_variance(jnp.stack(risks))
        return _annealed(evaluation, weight, anneal_steps) * value, {'penalty': value}

    return Method(align)


def _annealed(evaluation: Evaluation, weight: float, anneal_steps: int) -> jax.Array:
    return jnp.where(evaluation.step >= anneal_steps, weight, 1.0)


def _labelled(evaluation: Evaluation, least: int, method: str) -> list[DomainOutputs]:
    domains = [d for d in evaluation.domains.values() if d.labels is not None]
    if len(domains) < least:
        raise UsageError(f'method.name={method!r} needs {least} labelled domains, and the batch has {len(domains)}')
    return domains


def group_dro(step_size: NonNegative = 1e-2) -> Method:
    """Weighs the labelled domains by exponentiated ascent of their risks: Sagawa et al. 2020 (GroupDRO), algorithm 1.

    Args:
      step_size: eta; 0 is ERM with the mean of the domains' risks.
    """
    return Method(weigh=lambda risks, weights: losses.update_group_weights(weights, risks, step_size))


METHODS: dict[str, Callable[..., Method]] = {
    function.__name__: function
    for function in (source_only, dann, cdan, mcd, mmd, jan, coral, mean_cov, mcc, irm, v_rex, group_dro)
}


def make_method(name: str = 'source_only', **arguments: Any) -> Method:
    """Makes a method of `METHODS` by name. Raises UsageError for an unknown name or argument."""
    if name not in METHODS:
        raise UsageError(f'method.name={name!r} is unknown{named.suggest(name, METHODS)}')
    return named.call(METHODS[name], arguments, 'method')
