"""Dividing the rate when a measurement stops improving: what AlexNet, VGG and ResNet did by hand (notes 2.5)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from optax import GradientTransformation

from canon.optim.average import LateAverageState
from canon.optim.core import check_params, per_leaf, scalar, times, to_integer, to_mode, to_number, wide, zero_count
from canon.optim.state import find_all


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlateauState:
    rate_factor: jax.Array  # what every update is multiplied by
    best: jax.Array
    bad: jax.Array  # int32: evaluations in a row without improvement
    by: jax.Array
    min_delta: jax.Array
    metric: str = dataclasses.field(metadata=dict(static=True))
    patience: int = dataclasses.field(metadata=dict(static=True))
    mode: str = dataclasses.field(metadata=dict(static=True))

    def observe(self, value: jax.Array) -> PlateauState:
        """After an evaluation that measured `value`."""
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


_WATCHING = (PlateauState, LateAverageState)


def divide_on_plateau(
    metric: str, patience: int, by: float = 10.0, min_delta: float = 0.0, mode: str | None = None
) -> GradientTransformation:
    """u <- u rate_factor; the factor is divided by `by` at the `patience`-th evaluation in a row without improvement.

    Krizhevsky et al. 2012, section 5, and VGG and ResNet after it, by hand. An evaluation improves if metric
    < best - min_delta (mode 'max': metric > best + min_delta), a difference and not a ratio, so that
    negative metrics are right; NaN never improves. The count starts anew after a division, the best value
    stays. Fed by `observe` once per evaluation; an update reads no metric. Stands before the velocity
    (`chain(divide_on_plateau(...), momentum(...))`): it divides the rate, not the velocity gathered so far.

    metric: the key of `observe`'s mapping, such as 'test/loss'. Evaluations without it pass unseen.
    mode: 'min' where less is better, or 'max'; it has no default.

    torch's `ReduceLROnPlateau` divides after patience + 1 of them; `optax.contrib.reduce_on_plateau` wants
    the metric at every update and divides at every improvement for patience=0. Here patience is at least 1.
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
        return updates, PlateauState(state.rate_factor, state.best, state.bad, *settings())  # the arguments decide

    return GradientTransformation(init, update)


def observe(opt_state, metrics: Mapping[str, float]):
    """The state after an evaluation that measured {name: value}: call it once per evaluation.

    Feeds every `divide_on_plateau` and `average_on_plateau`, however nested, and leaves any other state as it is.
    """
    if not find_watched_metrics(opt_state):
        return opt_state
    watches = lambda node: isinstance(node, _WATCHING)  # noqa: E731
    seen = lambda x: x.observe(metrics[x.metric]) if watches(x) and x.metric in metrics else x  # noqa: E731
    return jax.tree.map(seen, opt_state, is_leaf=watches)


def find_watched_metrics(opt_state) -> set[str]:
    """The names of the metrics that `observe` waits for."""
    return {state.metric for kind in _WATCHING for state in find_all(opt_state, kind)}
