"""One update, as a pure function of (state, batch): unsharded, unjitted, the same for every task."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax

from canon import optim
from canon.metrics import Mean
from canon.train.types import CARRY, At, Batch, State, Task

SKIPPED = 'skipped'  # the metric of a step, 1 where `optim.skip_nonfinite` skipped it: the loop goes on then
_INIT = 0xFFFFFFFF  # the fold of the initialisation's key; no step reaches it


def step_key(seed: int, step) -> jax.Array:
    """The key of a step: everything random in it comes from here."""
    return jax.random.fold_in(jax.random.key(seed), step)


def init_state(task: Task, tx: optax.GradientTransformation, seed: int, batch: Batch) -> State:
    """The state before the first step. `batch` is the first batch: data-dependent initialisations may look at it."""
    variables = dict(task.init(step_key(seed, _INIT), batch))
    params = variables.pop('params')
    return State(jnp.zeros((), jnp.int32), params, variables, tx.init(params))


def make_step(
    task: Task, tx: optax.GradientTransformation, seed: int, accumulate: int = 1
) -> Callable[[State, Batch], tuple[State, Mapping[str, Mean]]]:
    """`step(state, batch) -> (state, {name: Mean})` with the metrics of the task, 'loss', 'grad_norm', the rate.

    With `accumulate` = n the batch is cut into n microbatches that are worked through one after the other, their
    gradients and weights added, and one update made: the same update as without, in less memory (BatchNorm, whose
    statistics are those of a microbatch, is the exception).
    """

    def step(state: State, batch: Batch):
        at = At(step_key(seed, state.step), state.step)
        point = optim.lookahead_params(state.params, state.opt)
        if accumulate == 1:
            grads, loss, mutable, metrics = gradient(task, point, state.mutable, batch, at)
        else:
            grads, loss, mutable, metrics = _accumulated(task, point, state.mutable, batch, at, accumulate)
        scale = jnp.where(loss.weight > 0, 1 / jnp.maximum(loss.weight, 1e-30), 0)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        updates, opt = tx.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        hyperparams = optim.hyperparams(opt)
        skipped = _is_skipped(state.opt, opt)
        if skipped is not None:  # the statistics of a bad batch would stay
            mutable = jax.tree.map(lambda old, new: jnp.where(skipped, old, new), state.mutable, mutable)
        metrics = {'loss': loss, **metrics, 'grad_norm': _one(optim.global_norm(grads))}
        metrics |= {name: _one(value) for name, value in hyperparams.items()}
        metrics |= {} if skipped is None else {SKIPPED: _one(skipped)}
        return State(state.step + 1, params, mutable, opt), metrics

    return step


def gradient(task: Task, params, mutable, batch, at: At):
    """Gradient of the loss's *sum*, with the loss, the new mutable and the metrics."""

    def total(params):
        loss, (new, metrics) = task.loss(params, mutable, batch, at)
        return loss.total, (loss, new, metrics)

    grads, (loss, new, metrics) = jax.grad(total, has_aux=True)(params)
    return grads, loss, new, dict(metrics)


def _accumulated(task: Task, params, mutable, batch, at: At, parts: int):
    """The same over `parts` microbatches in turn; `mutable` flows on but for what each row carries."""

    # Microbatch i takes rows i, i + parts, ...: with rows laid out over devices each device cuts its own.
    def cut(x):
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    def whole(x):
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    def apart(mutable):
        return {k: v for k, v in mutable.items() if k != CARRY}, {k: v for k, v in mutable.items() if k == CARRY}

    def body(flowing, item):
        grads, mutable = flowing
        index, part, carry = item
        at_part = at._replace(key=jax.random.fold_in(at.key, index))
        new_grads, loss, mutable, metrics = gradient(task, params, {**mutable, **carry}, part, at_part)
        mutable, carry = apart(mutable)
        grads = jax.tree.map(lambda total, g: total + g.astype(total.dtype), grads, new_grads)
        return (grads, mutable), (loss, metrics, carry)

    mutable, carry = apart(mutable)
    start = (jax.tree.map(lambda p: jnp.zeros(p.shape, _sum_dtype(p)), params), mutable)
    items = (jnp.arange(parts), *jax.tree.map(cut, (batch, carry)))
    (grads, mutable), (losses, metrics, carry) = jax.lax.scan(body, start, items)
    grads = jax.tree.map(lambda g, p: g.astype(p.dtype), grads, params)
    loss, metrics = jax.tree.map(lambda x: x.sum(0), (losses, metrics))
    return grads, loss, {**mutable, **jax.tree.map(whole, carry)}, metrics


def _sum_dtype(x):
    """The type in which gradients are added: a sum of many in bfloat16 stops growing at 256 times its terms."""
    return jnp.promote_types(x.dtype, jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype


def _is_skipped(before, after):
    """Whether an `optim.skip_nonfinite`, wherever it stands, skipped this update; None where there is none."""
    counts = [[s.skipped_updates for s in optim.find_all(opt, optim.SkipState)] for opt in (before, after)]
    if not counts[0]:
        return None
    return jnp.any(jnp.array([jnp.any(new > old) for old, new in zip(*counts, strict=True)]))


def _one(value) -> Mean:
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))
