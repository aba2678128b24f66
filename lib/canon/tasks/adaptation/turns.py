"""Steps in which the parts of a network move one after the other, each by an update of the same optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path, tree_map_with_path

from canon.errors import UsageError
from canon.models.domain_adversarial import AdaptationNetwork
from canon.named import compile_pattern
from canon.optim.core import BUCKETS, path_name
from canon.tasks.adaptation.forward import MakeInput, make_loss
from canon.tasks.adaptation.methods import Method, Player
from canon.train import State, Task, make_step

_SEPARATOR = '/'


def adaptation_step(network: AdaptationNetwork, make_input: MakeInput, method: Method) -> Callable | None:
    """Makes `Experiment.make_step` of a method with turns; None for a method without.

    In each step every player of `method.turns` moves in order, on the same batch: it takes the gradient of its own
    objective at the parameters that the player before has left, and one update of the optimizer moves its parameters
    and their moments alone. Counts of the optimizer advance once per step, so that schedules are in steps of training
    and all turns have the rate of their step; bias corrections of Adam are those of the step, too.

    Args:
      network: the parts.
      make_input: from a batch of one domain to the network's input.
      method: of `make_method`.
    """
    if not method.turns:
        return None
    losses = {
        name: make_loss(network, make_input, method, player.objective, player.domains)
        for name, player in method.turns.items()
    }

    def make(task: Task, tx: Any, seed: int):
        moves = [
            (player, make_step(task._replace(gradient=_make_gradient(losses[name], player.pattern, number)), tx, seed))
            for number, (name, player) in enumerate(method.turns.items())
        ]

        def step(state: State, batch: Any):
            first, began, reported = None, state, {}
            for player, move in moves:
                moved, metrics = _take_turn(state, began, player, move, batch)
                # What all turns measure (the loss, the norm of the gradient, the rate) is that of the first one.
                reported = {**metrics, **reported}
                first = moved if first is None else first
                state = moved
            assert first is not None
            opt = select_owned('', began.params, state.opt, first.opt)
            return state._replace(step=began.step + 1, opt=opt), reported

        return step

    return make


def _take_turn(state: State, began: State, player: Player, move: Callable, batch: Any) -> tuple[State, Mapping]:
    """Returns the state after the updates of one player, and the metrics of the last one."""

    def update(state):
        # Counts and steps of every update are those before the first turn.
        opt = select_owned('', began.params, state.opt, began.opt)
        moved, metrics = move(state._replace(step=began.step, opt=opt), batch)
        params = select_owned(player.pattern, began.params, moved.params, state.params)
        opt = select_owned(player.pattern, began.params, moved.opt, state.opt, counts=True)
        return moved._replace(params=params, opt=opt), metrics

    metrics = {}
    for _ in range(player.repeats):  # not a scan: within one, convolutions of XLA:CPU took ten times as long
        state, metrics = update(state)
    return state, metrics


def _make_gradient(loss: Callable, pattern: str, number: int) -> Callable:
    """Makes `Task.gradient` of one player: 0 for the parameters of others."""

    def gradient(params, mutable, batch, at):
        at = at._replace(key=jax.random.fold_in(at.key, number))

        def total(params):
            mean, (new, values) = loss(params, mutable, batch, at)
            return mean.total, (mean, new, values)

        grads, (mean, new, values) = jax.grad(total, has_aux=True)(params)
        # Zeros and not masks, so that a clipped norm is that of the player alone; XLA removes what nothing reads.
        return select_owned(pattern, params, grads, jax.tree.map(jnp.zeros_like, grads)), mean, new, values

    return gradient


def select_owned(pattern: str, params: Any, chosen: Any, others: Any, counts: bool = False) -> Any:
    """Returns a tree with the leaves of `chosen` for the parameters that match, and those of `others` for the rest.

    The trees are like the parameters, or an optimizer's state: a leaf belongs to the parameter whose path is part of
    its own.

    Args:
      pattern: regex of paths.
      params: the parameters.
      chosen: a tree.
      others: a tree of the same structure.
      counts: whether leaves that belong to no parameter, such as the count of updates, are those of `chosen`.

    Raises:
      UsageError: the state joins parameters of several players in one leaf.
    """
    paths = {tuple(path_name(path).split(_SEPARATOR)) for path, _ in tree_flatten_with_path(params)[0]}
    matches = compile_pattern(pattern, 'pattern').search

    def select(path, own, other):
        owner = _find_owner(tuple(path_name(path).split(_SEPARATOR)), paths)
        return own if (counts if owner is None else matches(_SEPARATOR.join(owner))) else other

    return tree_map_with_path(select, chosen, others)


def _find_owner(words: tuple[str, ...], paths: set[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Returns the path of a parameter that is part of another path, None if there is none."""
    if BUCKETS in words:
        raise UsageError('tx: bucket_leaves joins parameters that move in different turns; remove it')
    # Of several the longest: a parameter `kernel` may be next to `layer/kernel`.
    windows = (words[a:b] for size in range(len(words), 0, -1) for a, b in _list_windows(len(words), size))
    return next((window for window in windows if window in paths), None)


def _list_windows(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, start + size) for start in range(count - size + 1)]
