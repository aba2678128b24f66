"""Methods that learn from several labelled domains for one that is never seen: IRM, V-REx, GroupDRO, Mixup and MLDG."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from canon import losses, metrics, named
from canon.errors import UsageError
from canon.tasks.adaptation.methods import Method, MixedLabels, NonNegative, measure_risk, require_labelled
from canon.train import Task

_EPS = 1e-8  # of Adam


def irm(
    weight: NonNegative = 100.0,
    anneal_steps: Annotated[int, named.Range(0)] = 500,
    halves: bool = False,
    l2: NonNegative = 0.0,
    rescale: bool = False,
) -> Method:
    """Adds IRM's penalty of each labelled domain: Arjovsky et al. 2019 (IRMv1).

    DomainBed's form has `halves=True` and makes a new Adam at the end of the annealing (`optim.restart`). The authors'
    code for coloured MNIST has `l2=1.1e-3` and `rescale=True`.

    Args:
      weight: of the penalty after `anneal_steps`; before, it is 1. DomainBed's default is 100.
      anneal_steps: DomainBed's default is 500.
      halves: whether the penalty is estimated without bias, from the halves of the batch, as in DomainBed.
      l2: of the sum of squares of all parameters within the loss.
      rescale: whether the whole loss is divided by the weight after the annealing if the weight is more than 1, so that
        its scale stays, as in the authors' code.
    """
    penalty = losses.irm_penalty_of_halves if halves else losses.irm_penalty

    def align(evaluation):
        labelled = require_labelled(evaluation, 1, 'irm')
        value = jnp.stack([penalty(d.logits, d.labels) for d in labelled]).mean()
        added = _anneal(evaluation.step, weight, anneal_steps) * value
        if l2:
            added += l2 * sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(evaluation.params))
        return added, {'penalty': value}

    def scale(step):
        return 1 / jnp.maximum(_anneal(step, weight, anneal_steps), 1.0)

    return Method(align, scale=scale if rescale else None)


def v_rex(weight: NonNegative = 10.0, anneal_steps: Annotated[int, named.Range(0)] = 500) -> Method:
    """Adds the variance of the risks of the labelled domains: Krueger et al. 2021 (V-REx).

    Args:
      weight: of the variance after `anneal_steps`; before, it is 1. DomainBed's default is 10.
      anneal_steps: DomainBed's default is 500, where it makes a new Adam (`optim.restart`).
    """

    def align(evaluation):
        labelled = require_labelled(evaluation, 2, 'v_rex')
        value = losses.risk_variance(jnp.stack([measure_risk(d.logits, d).value for d in labelled]))
        return _anneal(evaluation.step, weight, anneal_steps) * value, {'penalty': value}

    return Method(align, least_domains=2)


def _anneal(step: jax.Array, weight: float, anneal_steps: int) -> jax.Array:
    return jnp.where(step >= anneal_steps, weight, 1.0)


def group_dro(step_size: NonNegative = 1e-2) -> Method:
    """Weighs the labelled domains by exponentiated ascent of their risks: Sagawa et al. 2020 (GroupDRO), algorithm 1.

    Args:
      step_size: eta, 0.01 in DomainBed; 0 is ERM with the mean of the domains' risks.
    """
    return Method(weigh=lambda risks, weights: losses.update_group_weights(weights, risks, step_size))


# --- mixed rows ------------------------------------------------------------------------------------------------------


def mixup(alpha: named.Positive = 0.2) -> Method:
    """Mixes the rows of pairs of labelled domains: Zhang et al. 2018 (mixup), between domains as in DomainBed.

    The domains stand in a random circle; x = share x_i + (1 - share) x_j of each domain i and the next one j, with one
    share ~ Beta(alpha, alpha) per pair and step, has the risk share R(y_i) + (1 - share) R(y_j).

    Args:
      alpha: of the Beta distribution, 0.2 in DomainBed.
    """

    def mix(key, domains):
        if len(domains) < 2:
            raise UsageError(f"method.name='mixup' needs 2 labelled domains, and the batch has {len(domains)}")
        order_key, share_key = jax.random.split(key)
        inputs, labels, masks, weights = _stack_domains(domains, 'mixup')
        first = jax.random.permutation(order_key, len(domains))
        second = jnp.roll(first, -1)
        shares = jax.random.beta(share_key, alpha, alpha, (len(domains),))
        mixed = {}
        for place, name in enumerate(domains):
            i, j, share = first[place], second[place], shares[place]
            weight = None if weights is None else share * weights[i] + (1 - share) * weights[j]
            own = MixedLabels(labels[i], labels[j], share)
            mixed[name] = share * inputs[i] + (1 - share) * inputs[j], own, masks[i] & masks[j], weight
        return mixed

    return Method(mix=mix, least_domains=2)


def _stack_domains(domains: Any, method: str) -> Any:
    """Stacks the trees of all domains along a new first axis. Raises UsageError if their shapes differ."""
    trees = list(domains.values())
    shapes = {tuple(x.shape for x in jax.tree.leaves(tree)) for tree in trees}
    if len(shapes) > 1:
        raise UsageError(f'method.name={method!r} needs domains of one shape and batch size: {", ".join(domains)}')
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


# --- meta-learning ---------------------------------------------------------------------------------------------------


def mldg(
    beta: NonNegative = 1.0,
    meta_test: named.Count = 2,
    inner_rate: named.Positive = 1e-3,
    inner: Literal['adam', 'sgd'] = 'adam',
    second_order: bool = False,
) -> Method:
    """Learns so that a step on some domains lowers the risk of others: Li et al. 2018 (MLDG), algorithm 1.

    sum F(theta) + beta G(theta - rate u(F'(theta))) over random pairs of a meta-train domain, of the risk F, and a
    meta-test domain, of the risk G, divided by the number of domains as in DomainBed.

    Args:
      beta: of the risks after the inner step.
      meta_test: meta-test domains per step, paired in turn with the others. 2 in DomainBed.
      inner_rate: of the inner step.
      inner: u, 'sgd' the gradient itself (the paper); 'adam' the first step of a new Adam, g / (|g| + eps) (DomainBed).
      second_order: whether the inner step is differentiated, as in the paper; otherwise it is a constant of the
        gradient, as in DomainBed.
    """

    def move(gradient):
        return gradient / (jnp.abs(gradient) + _EPS) if inner == 'adam' else gradient

    def wrap(task):
        return task._replace(loss=_make_meta_loss(task, beta, meta_test, inner_rate, move, second_order))

    return Method(wrap=wrap, least_domains=2)


def _make_meta_loss(task: Task, beta: float, meta_test: int, rate: float, move: Any, second_order: bool) -> Any:
    def loss(params, mutable, batch, at):
        labelled = {name: part for name, part in sorted(batch.items()) if 'label' in part}
        if len(labelled) <= meta_test:
            raise UsageError(f'method.meta_test={meta_test} leaves no meta-train domain of {len(labelled)}; take fewer')
        stacked = _stack_domains(labelled, 'mldg')
        order = jax.random.permutation(at.key, len(labelled))
        total, reported = 0.0, {}
        for place in range(len(labelled) - meta_test):
            test = order[len(labelled) - meta_test + place % meta_test]
            parts = [jax.tree.map(lambda x, i=i: x[i], stacked) for i in (order[place], test)]

            def train_risk(params, part=parts[0], mutable=mutable):
                mean, (state, values) = task.loss(params, mutable, {'source': part}, at)
                return mean.value, (mean.weight, state, values)

            gradient, (weight, mutable, reported) = jax.grad(train_risk, has_aux=True)(params)
            step = jax.tree.map(lambda g: -rate * move(g), gradient)
            step = step if second_order else jax.lax.stop_gradient(step)
            moved = jax.tree.map(jnp.add, params, step)
            after, (mutable, _) = task.loss(moved, mutable, {'source': parts[1]}, at)
            total += train_risk(params)[0] + beta * after.value
        mean = metrics.Mean(total / len(labelled) * weight, weight)
        return mean, (mutable, {**reported, 'meta_test_risk': metrics.Mean(after.value * weight, weight)})

    return loss
