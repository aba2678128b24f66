"""Methods of adaptation by games: discriminators of domains (DANN, CDAN, ADDA) and two classifiers (MCD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from canon import losses, named, ops
from canon.errors import UsageError
from canon.tasks.adaptation.methods import (
    SHOWN,
    Evaluation,
    Method,
    Metrics,
    NonNegative,
    Player,
    measure_risk,
    number_domains,
    require_labelled,
    require_unlabelled,
)

_EXTRACTOR, _CLASSIFIERS, _DISCRIMINATOR = '^extractor/', '^(second_)?classifier/', '^discriminator/'


def dann(weight: NonNegative = 1.0, alpha: named.Positive = 10.0, ramp_steps: named.Count = 1000) -> Method:
    """Reverses the gradient of a discriminator of domains: Ganin et al. 2016 (DANN).

    Args:
      weight: of the reversed gradient after the ramp. The discriminator's own gradient has the weight 1.
      alpha: of the ramp, see `ops.reversal_weight`.
      ramp_steps: over which it rises.
    """

    def align(evaluation):
        reversal = _ramp(evaluation.step, weight, alpha, ramp_steps)
        rows = {name: ops.reverse_gradient(d.features, reversal) for name, d in evaluation.domains.items()}
        added, values = _discriminate(evaluation, rows, number_domains(rows))
        return added, {**values, 'reversal': reversal}

    return Method(align, least_domains=2)


def cdan(
    weight: NonNegative = 1.0,
    alpha: named.Positive = 10.0,
    ramp_steps: named.Count = 1000,
    entropy_conditioning: bool = True,
    random_dimensions: named.Count | None = None,
) -> Method:
    """Conditions the discriminator on the predictions, by their outer product with the features: Long et al. 2018.

    Args:
      weight: as of `dann`.
      alpha: as of `dann`.
      ramp_steps: as of `dann`.
      entropy_conditioning: whether certain rows count more, CDAN+E.
      random_dimensions: of a fixed random map that stands for the outer product where it is too wide; the paper takes
        1,024 where the product has more than 4,096.
    """

    def join(features, logits):
        if random_dimensions is None:
            return losses.multilinear_map(features, logits)
        # A function of the widths alone: the same map in every step and in a resumed run.
        rng = np.random.default_rng((features.shape[1], logits.shape[1]))
        matrices = (rng.standard_normal((x.shape[1], random_dimensions), np.float32) for x in (features, logits))
        return losses.random_multilinear_map(features, logits, *map(jnp.asarray, matrices))

    def align(evaluation):
        reversal = _ramp(evaluation.step, weight, alpha, ramp_steps)
        rows, row_weights = {}, {}
        for name, d in evaluation.domains.items():
            rows[name] = ops.reverse_gradient(join(d.features, d.logits), reversal)
            row_weights[name] = losses.entropy_weights(d.logits) if entropy_conditioning else jnp.ones(len(d.logits))
        added, values = _discriminate(evaluation, rows, number_domains(rows), row_weights)
        return added, {**values, 'reversal': reversal}

    return Method(align, domain_input=join, least_domains=2)


def adda() -> Method:
    """Fits the features of the target to frozen ones of the source, with inverted labels: Tzeng et al. 2017 (ADDA).

    The second stage of the paper. The source encoder and the classifiers are frozen and known: the stage starts from a
    run on the source, of which the collection `frozen` keeps a copy (`run.init_from` with the rules of
    `docs/transfer.md`). The discriminator tells its source features from the target's; the target encoder, whose
    gradient is that of the same loss with the labels inverted in place of reversed, descends its own loss. Both
    gradients are taken at once, as the authors' code runs both updates at once. Several sources are one class.
    """

    def tell_apart(evaluation):
        require_unlabelled(evaluation, 'adda')
        sources = {name: d.features for name, d in evaluation.frozen.items() if name != SHOWN}
        targets = {name: d.features for name, d in evaluation.domains.items() if d.labels is None}
        return _discriminate(
            evaluation, {**sources, **targets}, {**dict.fromkeys(sources, 0), **dict.fromkeys(targets, 1)}
        )

    def pretend(evaluation):
        unlabelled = {name: d.features for name, d in evaluation.domains.items() if d.labels is None}
        value, _ = _discriminate(evaluation, unlabelled, dict.fromkeys(unlabelled, 0))
        return value, {}

    players = {
        'discriminator': Player(_DISCRIMINATOR, tell_apart),
        'encoder': Player(_EXTRACTOR, pretend, domains='unlabelled'),
        # No gradient; a decay of the optimizer would still move them: freeze them there.
        'classifiers': Player(_CLASSIFIERS, lambda evaluation: (jnp.zeros(()), {}), domains='unlabelled'),
    }
    return Method(players=players, frozen=True, least_domains=2)


def _ramp(step, weight: float, alpha: float, ramp_steps: int) -> jax.Array:
    return ops.reversal_weight(jnp.minimum(step / ramp_steps, 1.0), alpha, weight)


def _discriminate(
    evaluation: Evaluation,
    rows: Mapping[str, jax.Array],
    numbers: Mapping[str, int],
    row_weights: Mapping | None = None,
) -> tuple[jax.Array, Metrics]:
    """Returns the mean loss of the discriminator, in which every domain counts alike, and its accuracy.

    Args:
      evaluation: has the discriminator.
      rows: its input by domain, [B, D].
      numbers: the class of each domain.
      row_weights: [B] by domain; None weighs rows alike.
    """
    risks, accuracies = [], []
    for name, x in rows.items():
        number, logits = numbers[name], evaluation.discriminate(x)
        if logits.shape[-1] <= max(numbers.values()):
            count = max(numbers.values()) + 1
            raise UsageError(
                f'model.domains={logits.shape[-1]}, but batches have {count} domains; set model.domains={count}'
            )
        labels = jnp.full(len(x), number, jnp.int32)
        w = jnp.ones(len(x)) if row_weights is None else row_weights[name]
        risks.append((w * losses.softmax_cross_entropy(logits, labels)).sum() / w.sum())
        accuracies.append((logits.argmax(-1) == number).mean())
    return jnp.stack(risks).mean(), {'domain_accuracy': jnp.stack(accuracies).mean()}


# --- two classifiers -------------------------------------------------------------------------------------------------


def mcd(weight: NonNegative = 1.0, steps: Annotated[int, named.Range(0)] = 4) -> Method:
    """Maximises the discrepancy of two classifiers on the target and minimises it by the features: Saito et al. 2018.

    With `steps` the three training steps of the paper, A to C, each an update of its own on the same batch, which need
    `adaptation_step` in place of the plain step of training:

    A. extractor and classifiers descend the source risks of both classifiers;
    B. the classifiers descend the same risks minus `weight` times the discrepancy, with the extractor fixed;
    C. the extractor descends the discrepancy, `steps` times, with the classifiers fixed.

    With `steps=0` one gradient serves all: the classifiers ascend the discrepancy on unlabelled rows while the features
    behind a gradient reversal descend it.

    Args:
      weight: of the discrepancy, 1 in the authors' code.
      steps: n, updates of the extractor in C; 4 is the default of the authors' code. 0 is the form with a gradient
        reversal, their `--one_step`.
    """

    def reverse(evaluation):
        gap = _measure_discrepancy(evaluation, reverse=True)
        # The mean risk of the task is that of the first classifier.
        return _second_risk(evaluation) - weight * gap, {'discrepancy': gap}

    def fit_source(evaluation):
        second = _second_risk(evaluation)
        return evaluation.risk + second, {'risk': evaluation.risk, 'second_risk': second}

    def disagree(evaluation):
        gap = _measure_discrepancy(evaluation)
        return fit_source(evaluation)[0] - weight * gap, {'discrepancy_before': gap}

    def agree(evaluation):
        gap = _measure_discrepancy(evaluation)
        return weight * gap, {'discrepancy': gap}

    if not steps:
        return Method(reverse, least_domains=2)
    turns = {
        'source': Player(f'{_EXTRACTOR}|{_CLASSIFIERS}', fit_source, domains='labelled'),
        'classifiers': Player(_CLASSIFIERS, disagree),
        'extractor': Player(_EXTRACTOR, agree, steps, domains='unlabelled'),
    }
    return Method(turns=turns, least_domains=2)


def _second_risk(evaluation: Evaluation) -> jax.Array:
    domains = require_labelled(evaluation, 1, 'mcd')
    return jnp.stack([measure_risk(d.second_logits, d).value for d in domains]).mean()


def _measure_discrepancy(evaluation: Evaluation, reverse: bool = False) -> jax.Array:
    gaps = []
    for d in require_unlabelled(evaluation, 'mcd'):
        logits = (d.logits, d.second_logits)
        if reverse:
            logits = evaluation.classify(ops.reverse_gradient(d.features))
        gaps.append(losses.classifier_discrepancy(*logits).mean())
    return jnp.stack(gaps).mean()
