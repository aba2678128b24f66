"""Averages the parameters over the flat part of a validation loss: SWAD."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.optim.average import advance_parameter
from canon.optim.core import (
    Tree,
    check_params,
    next_count,
    per_leaf,
    require_params,
    scalar,
    times,
    to_integer,
    to_number,
    wide_copy,
    zero_count,
)

SEARCHING, AVERAGING, ENDED = 0, 1, 2


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ValleyState:
    """Holds the averages of `average_in_valley` (SWAD), and the losses that it has observed."""

    average: Tree  # what is evaluated
    segment: Tree  # the mean since the last evaluation
    count: jax.Array  # int32: parameters in it
    recent: tuple[Tree, ...]  # the means between the last evaluations, oldest first
    counts: jax.Array  # int32 [Q]: parameters in each of them
    pending: jax.Array  # bool [Q]: whether each belongs to the average
    losses: jax.Array  # [Q]: at the end of each; inf before the first evaluation
    settled: Tree  # the mean of the parameters of the average that are older
    settled_count: jax.Array
    valley: Tree  # the mean of `settled` and of what is pending
    valley_count: jax.Array
    phase: jax.Array  # int32
    threshold: jax.Array  # l
    ratio: jax.Array
    metric: str = dataclasses.field(metadata=dict(static=True))
    start_patience: int = dataclasses.field(metadata=dict(static=True))
    end_patience: int = dataclasses.field(metadata=dict(static=True))

    def observe(self, value: jax.Array) -> ValleyState:
        """Returns the state after an evaluation that measured `value`."""
        state = self._shift(jnp.asarray(value, self.losses.dtype))
        state = state._start_or_end()
        valley, count = state.settled, state.settled_count
        for index, mean in enumerate(state.recent):
            valley, count = _join(valley, count, mean, jnp.where(state.pending[index], state.counts[index], 0))
        state = dataclasses.replace(state, valley=valley, valley_count=count)
        # Nothing was trained since the last evaluation, or the average is complete.
        idle = (self.count == 0) | (self.phase == ENDED)
        return jax.tree.map(lambda old, new: jnp.where(idle, old, new), self, state)

    def _shift(self, value: jax.Array) -> ValleyState:
        """Appends the segment that ends with this evaluation."""
        oldest = jnp.where(self.pending[0], self.counts[0], 0)
        settled, settled_count = _join(self.settled, self.settled_count, self.recent[0], oldest)
        return dataclasses.replace(
            self,
            recent=(*self.recent[1:], self.segment),
            counts=jnp.append(self.counts[1:], self.count),
            pending=jnp.append(self.pending[1:], self.phase == AVERAGING),
            losses=jnp.append(self.losses[1:], value),
            settled=settled,
            settled_count=settled_count,
            count=jnp.zeros_like(self.count),
        )

    def _start_or_end(self) -> ValleyState:
        first, last = self.losses[-self.start_patience :], self.losses[-self.end_patience :]
        # Comparisons with NaN are false, and an inf is an evaluation that has not been.
        starts = (self.phase == SEARCHING) & (first[0] < jnp.inf) & (first[0] <= first.min())
        ends = (self.phase == AVERAGING) & (last.min() > self.threshold)
        age = jnp.arange(len(self.losses), 0, -1)
        pending = self.pending | (starts & (age <= self.start_patience))
        return dataclasses.replace(
            self,
            pending=pending & ~(ends & (age <= self.end_patience)),
            threshold=jnp.where(starts, self.ratio * first.mean(), self.threshold),
            phase=jnp.where(starts, AVERAGING, jnp.where(ends, ENDED, self.phase)).astype(jnp.int32),
        )


def _join(mean: Tree, count: jax.Array, other: Tree, other_count: jax.Array) -> tuple[Tree, jax.Array]:
    """Returns the mean of two means, and its count."""
    total = count + other_count
    share = scalar(other_count) / jnp.maximum(scalar(total), 1)
    return jax.tree.map(lambda a, b: a + times(share, b - a), mean, other), total


def average_in_valley(
    metric: str, start_patience: int = 3, end_patience: int = 6, ratio: float = 1.3
) -> GradientTransformation:
    """Averages the parameters from the least validation loss on until it rises: Cha et al. 2021 (SWAD), algorithm 1.

    With E(i) the loss of evaluation i, the average begins with evaluation s = i - N_s + 1 once E(s) is the least of the
    last N_s, and l = r / N_s times their sum; it ends before the last N_e evaluations once all of them exceed l. It
    holds the parameters after every update between (dense), with equal weights. It must be last in a chain.
    `eval_params(params, opt_state)` returns the mean so far, and before it begins the parameters. An end takes effect
    with the next update. The state has about max(N_s, N_e) + 5 copies of the parameters, as the authors' queues have.

    At the end of training the authors' code also drops the last evaluations if all of them exceed l; the algorithm, as
    here, does not.

    Args:
      metric: the key of `observe`'s mapping, better when lower: the loss on held-out examples of the training domains,
        such as 'source/loss'. Evaluations without it are ignored; NaN neither begins nor ends the average.
      start_patience: N_s, 3 in the authors' configuration.
      end_patience: N_e, 6 in the authors' configuration.
      ratio: r, 1.3 in the authors' configuration.
    """
    first, last = to_integer('start_patience', start_patience), to_integer('end_patience', end_patience)
    ratio = to_number('ratio', ratio, low=1.0)
    size = max(first, last)

    def init(params):
        check_params(params)
        numbers = dict(counts=jnp.zeros(size, jnp.int32), pending=jnp.zeros(size, bool))
        return ValleyState(
            average=wide_copy(params),
            segment=wide_copy(params),
            count=zero_count(),
            recent=tuple(wide_copy(params) for _ in range(size)),
            losses=jnp.full(size, scalar(float('inf'))),
            settled=wide_copy(params),
            settled_count=zero_count(),
            valley=wide_copy(params),
            valley_count=zero_count(),
            phase=zero_count(),
            threshold=scalar(float('inf')),
            ratio=scalar(ratio),
            metric=metric,
            start_patience=first,
            end_patience=last,
            **numbers,
        )

    def update(updates, state, params=None):
        params = require_params(params, 'average_in_valley')
        count = next_count(state.count)
        weight = 1 / scalar(count)
        own = jnp.where(state.phase == AVERAGING, count, 0)
        share = scalar(own) / jnp.maximum(scalar(own + state.valley_count), 1)

        def kernel(u, segment, valley, p):
            new = advance_parameter(p, u)
            segment = segment + times(weight, new - segment)
            mean = valley + times(share, segment - valley)
            return u, segment, jnp.where(state.phase == SEARCHING, new, mean)

        updates, segment, average = per_leaf(kernel, updates, state.segment, state.valley, given=(params,))
        return updates, dataclasses.replace(state, segment=segment, count=count, average=average)

    return GradientTransformation(init, update)
