"""The types of methods of adaptation and generalisation: what is added to the source risk, and who learns from it.

A method is a function of what the network computes of each domain. Where a batch has unlabelled domains (adaptation),
each labelled domain is aligned with each of them; where it has none (generalisation), all pairs are aligned.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax

from canon import losses, metrics, named
from canon.errors import UsageError
from canon.train import Task

Metrics = dict[str, jax.Array]
NonNegative = named.NonNegative
TARGET, SHOWN = 'target', 'shown'  # the unlabelled domain, and its labelled few, in the batches of adaptation


class MixedLabels(NamedTuple):
    """Labels of rows that are mixed of two: share * first + (1 - share) * second."""

    first: jax.Array  # integers [B]
    second: jax.Array  # integers [B]
    share: jax.Array  # []


class DomainOutputs(NamedTuple):
    """Outputs of the network for the rows of one domain."""

    features: jax.Array  # [B, D]
    logits: jax.Array  # [B, C]
    second_logits: jax.Array  # [B, C] of the second classifier
    labels: Any  # [B] or MixedLabels, None of an unlabelled domain
    mask: Any  # [B], real rows
    weight: Any = None  # [B], density ratios of the rows; None is 1


class Evaluation(NamedTuple):
    """Inputs of a method: the outputs by domain, the heads, and the step."""

    domains: Mapping[str, DomainOutputs]
    risk: jax.Array  # the weighted mean of the labelled domains' risks
    discriminate: Callable[[jax.Array], jax.Array]
    classify: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    step: jax.Array
    params: Any
    frozen: Mapping[str, DomainOutputs]  # outputs of the frozen copy of the network, of a method that keeps one


Objective = Callable[[Evaluation], tuple[jax.Array, Metrics]]


class Player(NamedTuple):
    """One side of a game between parts of the network.

    Attributes:
      pattern: regex of the paths of its parameters.
      objective: evaluation -> (what it descends, metrics).
      repeats: updates per step; of methods with turns.
      domains: that its objective reads; others are not evaluated.
    """

    pattern: str
    objective: Objective
    repeats: int = 1
    domains: Literal['all', 'labelled', 'unlabelled'] = 'all'


class Method(NamedTuple):
    """A method.

    Attributes:
      align: evaluation -> (what is added to the mean source risk, metrics). None adds nothing, and unlabelled domains
        are then not evaluated at all.
      weigh: (risks [E] of the labelled domains, weights [E] carried from step to step) -> (the weights of this step,
        which add up to 1). None weighs all alike.
      domain_input: (features, logits) -> what the discriminator sees.
      scale: step -> factor of the whole loss. None is 1.
      mix: (key, {labelled domain: (inputs, labels, mask)}) -> the same of mixed rows. None mixes nothing.
      players: the sides of a game by name, whose gradients are taken at once. They replace the loss.
      turns: the sides of a game by name that move one after the other within a step (`adaptation_step`).
      frozen: whether the network that training starts from is kept as a frozen copy.
      least_domains: that a batch needs.
      needs_norm: whether the network must have batch normalisation.
      wrap: task -> task, for methods that change where the loss is evaluated.
      resolve: (params, frozen variables) -> parameters of the network. None is the identity.
    """

    align: Objective | None = None
    weigh: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    domain_input: Callable[[jax.Array, jax.Array], jax.Array] = lambda features, logits: features
    scale: Callable[[jax.Array], jax.Array] | None = None
    mix: Callable[[jax.Array, Mapping[str, tuple]], Mapping[str, tuple]] | None = None
    players: Mapping[str, Player] = {}
    turns: Mapping[str, Player] = {}
    frozen: bool = False
    least_domains: int = 1
    needs_norm: bool = False
    wrap: Callable[[Task], Task] | None = None
    resolve: Callable[[Any, Any], Any] | None = None


def source_only() -> Method:
    """Trains on the labelled domains alone: the baseline of adaptation, and ERM of generalisation."""
    return Method()


def measure_risk(logits: jax.Array, outputs: DomainOutputs) -> metrics.Mean:
    """Returns the mean cross entropy of logits [B, C] on the rows of a labelled domain, times their weights."""
    labels = outputs.labels
    if isinstance(labels, MixedLabels):
        first, second = (losses.softmax_cross_entropy(logits, own) for own in labels[:2])
        rows = labels.share * first + (1 - labels.share) * second
    else:
        rows = losses.softmax_cross_entropy(logits, labels)
    # The weight of the mean is the number of rows and not the sum of their ratios: an unbiased estimate per batch.
    return metrics.Mean.of(rows if outputs.weight is None else outputs.weight * rows, outputs.mask)


def list_labelled(domains: Mapping[str, DomainOutputs]) -> list[DomainOutputs]:
    """Returns the outputs of the labelled domains."""
    return [d for d in domains.values() if d.labels is not None]


def require_labelled(evaluation: Evaluation, least: int, method: str) -> list[DomainOutputs]:
    """Returns the outputs of the labelled domains; raises UsageError if they are fewer than `least`."""
    domains = list_labelled(evaluation.domains)
    if len(domains) < least:
        raise UsageError(f'method.name={method!r} needs {least} labelled domains, and the batch has {len(domains)}')
    return domains


def require_unlabelled(evaluation: Evaluation, method: str) -> list[DomainOutputs]:
    """Returns the outputs of the unlabelled domains; raises UsageError if there are none."""
    domains = [d for d in evaluation.domains.values() if d.labels is None]
    if not domains:
        raise UsageError(f'method.name={method!r} needs an unlabelled domain, and every domain of the batch has labels')
    return domains


def number_domains(names: Iterable[str]) -> dict[str, int]:
    """Returns the class that a discriminator gives each domain; the shown examples are of the target's domain."""
    listed = list(names)
    numbers = {name: number for number, name in enumerate(name for name in listed if name != SHOWN)}
    if SHOWN in listed:
        numbers[SHOWN] = numbers.get(TARGET, len(numbers))
    return numbers


def list_pairs(domains: Mapping[str, DomainOutputs]) -> list[tuple[DomainOutputs, DomainOutputs]]:
    """Returns the pairs to align: each labelled with each unlabelled domain, or all pairs where none is unlabelled.

    Raises UsageError for a single domain.
    """
    labelled = list_labelled(domains)
    unlabelled = [d for d in domains.values() if d.labels is None]
    pairs = list(itertools.product(labelled, unlabelled) if unlabelled else itertools.combinations(labelled, 2))
    if not pairs:
        raise UsageError(f'alignment needs two domains, and the batch has one: {", ".join(domains)}')
    return pairs
