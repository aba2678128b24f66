"""The forward pass that all methods share: domains go through the network one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from canon import metrics, nn
from canon.errors import UsageError
from canon.models.domain_adversarial import AdaptationNetwork
from canon.tasks.adaptation.methods import (
    DomainOutputs,
    Evaluation,
    Method,
    MixedLabels,
    Objective,
    list_labelled,
    measure_risk,
)
from canon.tasks.adaptation.tuning import FROZEN

GROUPS = 'groups'  # the collection of the weights of GroupDRO
STATISTICS = 'batch_stats'
SOURCE_STATISTICS = 'source_batch_stats'  # of labelled domains, where unlabelled ones have STATISTICS
MakeInput = Callable[[Any], jax.Array]
_MIX = 0xFFFF  # folded into the key of mixing; no index of a domain reaches it


def list_labelled_names(batch: Mapping[str, Any]) -> list[str]:
    """Returns the names of the labelled domains of a batch, sorted."""
    return [name for name in sorted(batch) if 'label' in batch[name]]


def split_mutable(mutable: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the collections of the network, and those of methods."""
    own = {name: value for name, value in mutable.items() if name in (GROUPS, FROZEN, SOURCE_STATISTICS)}
    return {name: value for name, value in mutable.items() if name not in own}, own


def resolve_params(method: Method, params: Any, mutable: Mapping[str, Any]) -> Any:
    """Returns the parameters of the network, which a method may train by way of others."""
    return params if method.resolve is None else method.resolve(params, mutable[FROZEN])


def make_encoder(
    network: AdaptationNetwork, make_input: MakeInput, method: Method | None = None, of_source: bool = False
) -> Callable[[Any, Any, Any], tuple[jax.Array, jax.Array]]:
    """Makes (params, mutable, batch of one domain) -> (features [B, D], logits [B, C]), as in evaluation.

    Args:
      network: the parts.
      make_input: from a batch of one domain to the network's input.
      method: that trains the network; None if its parameters are those of the network.
      of_source: whether the batch is of a labelled domain, which may have batch statistics of its own.
    """

    def encode(params, mutable, batch):
        variables = {'params': resolve_params(method or Method(), params, mutable), **split_mutable(mutable)[0]}
        if of_source and SOURCE_STATISTICS in mutable:
            variables[STATISTICS] = mutable[SOURCE_STATISTICS]
        features = network.apply(variables, make_input(batch), method='encode')
        return features, network.apply(variables, features, method='classify')[0]

    return encode


def make_loss(
    network: AdaptationNetwork, make_input: MakeInput, method: Method, objective: Objective, domains: str = 'all'
) -> Callable:
    """Makes the loss of an objective: (params, mutable, batch, at) -> (Mean, (mutable, metrics)).

    Args:
      network: the parts.
      make_input: from a batch of one domain to the network's input.
      method: of which the objective is.
      objective: of the evaluation of a batch.
      domains: 'all', 'labelled' or 'unlabelled': those that the objective reads.
    """

    def loss(params, mutable, batch, at):
        params = resolve_params(method, params, mutable)
        names = _choose_domains(batch, domains)
        outputs, state = _evaluate_domains(network, make_input, method, params, mutable, batch, names, at.key)
        risk, count, groups = _weigh_risks(method, mutable, outputs)
        frozen = _evaluate_frozen(network, make_input, mutable, batch) if method.frozen else {}
        total, values = objective(_make_evaluation(network, params, outputs, risk, at.step, frozen))
        if method.scale is not None:
            total = total * method.scale(at.step)
        reported = {name: metrics.Mean(value * count, count) for name, value in values.items()}
        correct = [_measure_accuracy(d) for d in list_labelled(outputs)]
        if correct:
            reported['accuracy'] = metrics.Mean(sum(c.total for c in correct), sum(c.weight for c in correct))
        return metrics.Mean(total * count, count), ({**state, **groups}, reported)

    return loss


def _choose_domains(batch: Mapping[str, Any], domains: str) -> list[str]:
    labelled = list_labelled_names(batch)
    return labelled if domains == 'labelled' else [n for n in sorted(batch) if n not in labelled or domains == 'all']


def _weigh_risks(
    method: Method, mutable: Mapping[str, Any], outputs: Mapping[str, DomainOutputs]
) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    """Returns the weighted mean of the labelled domains' risks, the number of their rows, and what GroupDRO carries."""
    risks = [measure_risk(d.logits, d) for d in list_labelled(outputs)]
    if not risks:  # an objective of unlabelled rows alone counts these
        return jnp.zeros(()), jnp.asarray(sum(d.mask.sum() for d in outputs.values()), jnp.float32), {}
    stacked, groups = jnp.stack([risk.value for risk in risks]), {}
    weights = jnp.full(len(risks), 1 / len(risks))
    if method.weigh is not None:
        weights = method.weigh(stacked, mutable[GROUPS]['weights'])
        groups = {GROUPS: {'weights': weights}}
    return (weights * stacked).sum(), jnp.asarray(sum(risk.weight for risk in risks), jnp.float32), groups


def _evaluate_domains(network, make_input, method, params, mutable, batch, names, key):
    """Returns {domain: its outputs} and the mutable afterwards."""
    state, own = split_mutable(mutable)
    rows = {
        name: (make_input(batch[name]), batch[name].get('label'), batch[name]['mask'], batch[name].get('weight'))
        for name in names
    }
    if method.mix is not None:
        labelled = {name: row for name, row in rows.items() if row[1] is not None}
        rows |= method.mix(jax.random.fold_in(key, _MIX), labelled)
    outputs = {}
    for index, (name, (inputs, labels, mask, weight)) in enumerate(rows.items()):
        # Evaluation is on the target, so labelled domains have statistics of their own next to those of the target.
        apart = labels is not None and SOURCE_STATISTICS in own
        variables = {'params': params, **state, **({STATISTICS: own[SOURCE_STATISTICS]} if apart else {})}
        options = dict(rngs={'dropout': jax.random.fold_in(key, index)}, mutable=list(state))
        features, changed = network.apply(variables, inputs, True, method='encode', **options)
        logits, second = network.apply(variables, features, method='classify')
        outputs[name] = DomainOutputs(features, logits, second, labels, mask, weight)
        if apart:
            own[SOURCE_STATISTICS] = changed.pop(STATISTICS)
        state = {**state, **changed}
    return outputs, {**state, **own}


def _evaluate_frozen(network, make_input, mutable, batch) -> dict[str, DomainOutputs]:
    """Returns the outputs of the frozen copy for the labelled domains, as in evaluation."""
    outputs = {}
    for name in list_labelled_names(batch):
        features = network.apply(mutable[FROZEN], make_input(batch[name]), method='encode')
        logits, second = network.apply(mutable[FROZEN], features, method='classify')
        outputs[name] = DomainOutputs(features, logits, second, batch[name]['label'], batch[name]['mask'])
    return outputs


def _measure_accuracy(outputs: DomainOutputs) -> metrics.Mean:
    if not isinstance(outputs.labels, MixedLabels):
        return metrics.accuracy(outputs.logits, outputs.labels, outputs.mask)
    first, second = (metrics.accuracy(outputs.logits, labels, outputs.mask) for labels in outputs.labels[:2])
    share = outputs.labels.share
    return metrics.Mean(share * first.total + (1 - share) * second.total, first.weight)


def _make_evaluation(network, params, outputs, risk, step, frozen) -> Evaluation:
    variables = {'params': params}
    return Evaluation(
        outputs,
        risk,
        lambda x: network.apply(variables, x, method='discriminate'),
        lambda x: network.apply(variables, x, method='classify'),
        step,
        params,
        frozen,
    )


def adapt_statistics(
    network: AdaptationNetwork, make_input: MakeInput, params: Any, mutable: Mapping[str, Any], batches: Iterable[Any]
) -> dict[str, Any]:
    """Returns `mutable` with the statistics of BatchNorm measured over batches of the target: Li et al. 2016 (AdaBN).

    Means and variances are averaged over the batches (`nn.reestimate`), which should be full: padding would count.

    Args:
      network: the parts.
      make_input: from a batch of one domain to the network's input.
      params: of the network.
      mutable: with 'batch_stats', whose values do not matter.
      batches: of the target, whose labels are not read.

    Raises:
      UsageError: the network has no BatchNorm, or there are no batches.
    """
    if STATISTICS not in mutable:
        raise UsageError('AdaBN needs a network with batch normalisation, such as digit_network with model.norm=batch')

    @jax.jit
    def forward(statistics, batch):
        variables = {'params': params, **split_mutable(mutable)[0], STATISTICS: statistics}
        return network.apply(variables, make_input(batch), True, method='encode', mutable=[STATISTICS])[1][STATISTICS]

    return {**mutable, STATISTICS: nn.reestimate(forward, mutable[STATISTICS], batches)}
