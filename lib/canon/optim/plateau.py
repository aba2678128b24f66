"""Divides the learning rate when a metric stops improving, as done by hand for AlexNet, VGG and ResNet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.optim.average import LateAverageState
from canon.optim.core import check_params, per_leaf, scalar, times, to_integer, to_mode, to_number, wide, zero_count
from canon.optim.state import find_states
from canon.optim.valley import ValleyState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlateauState:
    """Holds what `divide_on_plateau` has observed, and the factor of the rate."""

    HYPERPARAMETERS = ('rate_factor',)

    rate_factor: jax.Array  # multiplies every update
    best: jax.Array
    bad: jax.Array  # int32: consecutive evaluations without improvement
    by: jax.Array
    min_delta: jax.Array
    metric: str = dataclasses.field(metadata=dict(static=True))
    patience: int = dataclasses.field(metadata=dict(static=True))
    mode: str = dataclasses.field(metadata=dict(static=True))

    def observe(self, value: jax.Array) -> PlateauState:
        """Returns the state after an evaluation that measured `value`."""
        value = jnp.asarray(value, self.best.dtype)
        sign = 1 if self.mode == 'min' else -1
        improved = sign * value < sign * self.best - self.min_delta  # False for NaN
        bad = jnp.where(improved, 0, self.bad + 1)
        divide = bad >= self.patience
        return dataclasses.replace(
            self,
            rate_factor=jnp.where(divide, self.rate_factor / self.by, self.rate_factor),
            best=jnp.where(improved, value, self.best),
            bad=jnp.where(divide, 0, bad),
        )


_OBSERVERS = (PlateauState, LateAverageState, ValleyState)


def divide_on_plateau(
    metric: str, patience: int, by: float = 10.0, min_delta: float = 0.0, mode: str | None = None
) -> GradientTransformation:
    """u <- u rate_factor; the factor is divided by `by` after `patience` consecutive evaluations without improvement.

    Krizhevsky et al. 2012, section 5, and after it VGG and ResNet, by hand. An evaluation improves if metric < best -
    min_delta (mode 'max': metric > best + min_delta): a difference and not a ratio, so that negative metrics are
    handled; NaN never improves. After a division the count restarts and the best value is kept. `observe` must be
    called once per evaluation; an update reads no metric. Put it before the velocity (`chain(divide_on_plateau(...),
    momentum(...))`), so that it divides the rate and not the accumulated velocity.

    torch's `ReduceLROnPlateau` divides after patience + 1 evaluations; `optax.contrib.reduce_on_plateau` needs the
    metric at every update and divides at every improvement for patience=0. Here patience is at least 1.

    Args:
      metric: the key of `observe`'s mapping, such as 'test/loss'. Evaluations without it are ignored.
      patience: consecutive evaluations without improvement.
      by: divides the factor.
      min_delta: the least improvement.
      mode: 'min' if less is better, or 'max'; it has no default.
    """
    min_delta, by = to_number('min_delta', min_delta), to_number('by', by, above=1)
    patience = to_integer('patience', patience)
    direction = to_mode(mode, metric)

    def settings():
        return scalar(by), scalar(min_delta), metric, patience, direction

    def init(params):
        check_params(params)
        worst = float('inf') if direction == 'min' else float('-inf')
        return PlateauState(scalar(1.0), scalar(worst), zero_count(), *settings())

    def update(updates, state, params=None):
        (updates,) = per_leaf(lambda u: (times(state.rate_factor, wide(u)),), updates)
        return updates, PlateauState(state.rate_factor, state.best, state.bad, *settings())  # of the arguments

    return GradientTransformation(init, update)


def observe(opt_state, metrics: Mapping[str, float]):
    """Returns the optimizer's state after an evaluation with metrics {name: value}; call it once per evaluation.

    It updates every `divide_on_plateau`, `average_on_plateau` and `average_in_valley`, however nested, and no other
    state.
    """
    if not find_watched_metrics(opt_state):
        return opt_state
    is_observer = lambda node: isinstance(node, _OBSERVERS)  # noqa: E731
    update = lambda x: x.observe(metrics[x.metric]) if is_observer(x) and x.metric in metrics else x  # noqa: E731
    return jax.tree.map(update, opt_state, is_leaf=is_observer)


def find_watched_metrics(opt_state) -> set[str]:
    """Returns the names of the metrics that `observe` needs."""
    return {state.metric for kind in _OBSERVERS for state in find_states(opt_state, kind)}
