"""Ends a run whose loss, gradient or parameters are not finite, with the step's number and what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path

from canon.errors import CanonError
from canon.optim.core import path_name
from canon.train.step import SKIPPED
from canon.train.types import State

_MOST_SKIPPED = 100  # updates in a row that may be skipped; more of them are not a few bad batches


class NonFinite(CanonError):
    """The loss, its gradient or the parameters are not finite."""


class FiniteGuard:
    """Checks the metrics of every step, and the parameters before they are saved."""

    def __init__(self, workdir: Path, names: tuple[str, ...], limit: int, list_saved: Callable[[], list[int]]):
        """Makes a guard.

        Args:
          workdir: the folder of the run, for the advice in errors.
          names: the metrics of a step, in order.
          limit: the last step.
          list_saved: returns the steps with a checkpoint.
        """
        self._workdir, self._names, self._limit, self._list_saved = workdir, names, limit, list_saved
        self.skipped = 0  # updates in a row, up to now

    def check_metrics(self, step: int, values: np.ndarray) -> np.ndarray:
        """Returns a step's metrics [2, names] as they are logged; of a skipped update that is nothing but the skip.

        Raises NonFinite for a loss or gradient that is not finite and was not skipped, or for many skips in a row.
        """
        named = dict(zip(self._names, values.T, strict=True))
        if all(math.isfinite(named[n][0]) for n in ('loss', 'grad_norm') if n in named):
            self.skipped = 0
            return values
        if SKIPPED in named and named[SKIPPED][0] > 0:
            self._count_skip(step)
            # A weight of 0 leaves the step out of the means of the log row.
            return np.where(np.array(self._names) == SKIPPED, values, 0)
        raise NonFinite(self._describe(step, named))

    def check_params(self, state: State) -> None:
        """Raises NonFinite for parameters from which no run could be resumed; loss and gradient may be finite."""
        leaves = tree_flatten_with_path(state.params)[0]
        finite = _are_finite(state.params)
        bad = [path_name(path) for (path, _), is_finite in zip(leaves, finite, strict=True) if not is_finite]
        if bad:
            step, more = int(state.step), f' and {len(bad) - 1} more' if len(bad) > 1 else ''
            raise NonFinite(
                f'step {step} is not finite: its update made {bad[0]}{more} so, from a finite loss and gradient; '
                f'{self._advise(step)}'
            )

    def _count_skip(self, step: int) -> None:
        """Raises NonFinite once skipping cannot be the answer to a few bad batches."""
        self.skipped += 1
        # A short run in which every single update was skipped has learnt nothing either.
        if self.skipped >= _MOST_SKIPPED or self.skipped == step >= self._limit:
            raise NonFinite(
                f'all of the last {self.skipped} updates were skipped, up to step {step}: their loss or gradient was '
                f'not finite, and nothing is learnt. {self._name_replay(step)}'
            )

    def _describe(self, step: int, values: Mapping[str, Any]) -> str:
        shown = ', '.join(f'{n} {values[n][0] / values[n][1]:g}' for n in ('loss', 'grad_norm') if n in values)
        return f'step {step} is not finite: {shown}; {self._advise(step)}'

    def _advise(self, step: int) -> str:
        saved = self._list_saved()
        kept = f'the newest checkpoint is of step {saved[-1]}' if saved else 'nothing was saved yet'
        return f'{kept}. {self._name_replay(step)}'

    def _name_replay(self, step: int) -> str:
        command = f'./launch.sh replay --workdir={self._workdir} --step={step}'
        return f'Look at step {step} with: {command} (in Python: canon.train.replay_step)'


@jax.jit
def _are_finite(tree: Any) -> list[jax.Array]:
    """Whether each leaf is finite, as one function: it is compiled once for all saves."""
    return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
