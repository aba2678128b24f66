"""The task of adaptation: the risk of the labelled domains, and what a method adds to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from canon import losses, metrics
from canon.errors import UsageError
from canon.models.domain_adversarial import AdaptationNetwork
from canon.tasks.adaptation.methods import DomainOutputs, Evaluation, Method
from canon.train import Task

GROUPS = 'groups'  # the collection of the weights of GroupDRO


def adaptation_task(network: AdaptationNetwork, make_input: Callable[[Any], jax.Array], method: Method) -> Task:
    """Makes the task of training on some domains for another one.

    A batch is {domain: {'image' uint8 [B, H, W, C], 'label' integers [B] of labelled domains, 'mask'}}
    (`canon.data.domains.make_domain_batches`). Domains pass through the network one after the other, so that they may
    differ in size and do not mix in batch statistics. `predict` takes batches of one domain and gives logits.

    Args:
      network: the parts.
      make_input: from a batch of one domain to the network's input (`make_image_input`).
      method: of `make_method`.
    """

    def init(key, batch):
        _check_domains(batch, method)
        # The same example whatever the method: source-only and adapted networks start from the same parameters.
        name = _list_labelled(batch)[0]
        images = make_input({**batch[name], 'image': batch[name]['image'][:1]})
        variables = dict(network.init(key, images, method.domain_input, method='initialise'))
        if method.weigh is not None:
            count = len(_list_labelled(batch))
            variables[GROUPS] = {'weights': jnp.full(count, 1 / count)}
        return variables

    def loss(params, mutable, batch, at):
        groups = mutable.get(GROUPS)
        state = {name: value for name, value in mutable.items() if name != GROUPS}
        names = list(_list_labelled(batch) if method.align is None else sorted(batch))
        outputs = {}
        for index, name in enumerate(names):
            key = jax.random.fold_in(at.key, index)
            outputs[name], state = _evaluate_domain(network, make_input, params, state, batch[name], key)
        labelled = {name: d for name, d in outputs.items() if d.labels is not None}
        risks = [_mean_risk(d, batch[name]['mask']) for name, d in labelled.items()]
        stacked = jnp.stack([risk.value for risk in risks])
        weights = jnp.full(len(risks), 1 / len(risks))
        if method.weigh is not None:
            weights = method.weigh(stacked, groups['weights'])
            state[GROUPS] = {'weights': weights}
        total = (weights * stacked).sum()
        values = {'risk': total}
        if method.align is not None:
            added, own = method.align(_make_evaluation(network, params, outputs, at.step))
            total, values = total + added, {**values, **own}
        count = sum(risk.weight for risk in risks)
        correct = [metrics.accuracy(d.logits, d.labels, batch[name]['mask']) for name, d in labelled.items()]
        reported = {name: metrics.Mean(value * count, count) for name, value in values.items()}
        reported['accuracy'] = metrics.Mean(sum(c.total for c in correct), sum(c.weight for c in correct))
        return metrics.Mean(total * count, count), (state, reported)

    def predict(params, mutable, batch):
        state = {name: value for name, value in mutable.items() if name != GROUPS}
        logits = network.apply({'params': params, **state}, make_input(batch))
        return jnp.asarray(logits, jnp.float32)

    return Task(init, loss, predict)


def _list_labelled(batch: Any) -> list[str]:
    return [name for name in sorted(batch) if 'label' in batch[name]]


def _check_domains(batch: Any, method: Method) -> None:
    if not _list_labelled(batch):
        raise UsageError(f'no domain of the batch is labelled: {", ".join(sorted(batch))}')
    if method.align is not None and len(batch) < 2:
        raise UsageError(f'adaptation needs at least two domains, and the batch has one: {", ".join(batch)}')


def _evaluate_domain(network, make_input, params, state, batch, key) -> tuple[DomainOutputs, dict]:
    variables = {'params': params, **state}
    options = dict(rngs={'dropout': key}, mutable=list(state))
    features, changed = network.apply(variables, make_input(batch), True, method='encode', **options)
    logits, second = network.apply(variables, features, method='classify')
    return DomainOutputs(features, logits, second, batch.get('label')), {**state, **changed}


def _mean_risk(outputs: DomainOutputs, mask: jax.Array) -> metrics.Mean:
    return metrics.Mean.of(losses.softmax_cross_entropy(outputs.logits, outputs.labels), mask)


def _make_evaluation(network, params, outputs, step) -> Evaluation:
    variables = {'params': params}
    return Evaluation(
        outputs,
        lambda x: network.apply(variables, x, method='discriminate'),
        lambda x: network.apply(variables, x, method='classify'),
        step,
    )
