"""Games between networks: each player descends its own loss, in its own parameters."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping

import jax
from jax.tree_util import tree_flatten_with_path

from canon.errors import UsageError
from canon.metrics import Mean
from canon.named import compile_pattern
from canon.optim.core import path_name
from canon.train.types import At, Batch, Mutable, Params

Loss = Callable[[Params, Mutable, Batch, At], tuple[Mean, tuple[Mutable, Mapping[str, Mean]]]]


def game(players: Mapping[str, tuple[str, Loss]]) -> Callable:
    """Makes the gradient of a game, for `Task.gradient`: d loss_k / d params_k for every player k.

    All gradients are taken at the same parameters (simultaneous gradient descent: Mescheder, Nowozin & Geiger 2017,
    "The Numerics of GANs", eq. 3). To give players different optimizers, use `optim.partition`.

    >>> def loss(sign):  # min over x, max over y, of x y
    ...     return lambda params, mutable, batch, at: (Mean(sign * params['x'] * params['y'], 1.0), (mutable, {}))
    >>> gradient = game({'minimiser': ('^x$', loss(1)), 'maximiser': ('^y$', loss(-1))})
    >>> grads, _, _, metrics = gradient({'x': 2.0, 'y': 3.0}, {}, None, None)
    >>> {name: float(g.value) for name, g in grads.items()}
    {'x': 3.0, 'y': -2.0}
    >>> sorted(metrics)
    ['maximiser_loss', 'minimiser_loss']

    Args:
      players: {name: (regex of the names of its parameters, its loss)}. A loss is a function like `Task.loss` of all
        parameters. Losses are evaluated in this order, each with the mutable that the one before returned, and all with
        the same key: fold a number into it for noise that players do not share.

    Returns:
      (params, mutable, batch, at) -> (grads, loss, mutable, metrics). Each gradient is a `Mean` with the weight of its
      player's loss. 'loss' pools the losses of all players; 'NAME_loss' is that of a player, and its other metrics are
      'NAME_METRIC', too.

    Raises:
      UsageError: when the gradient is taken, for a parameter that belongs to no player or to several.
    """
    patterns = {name: compile_pattern(pattern, name) for name, (pattern, _) in players.items()}

    def gradient(params, mutable, batch, at):
        paths, treedef = tree_flatten_with_path(params)
        owners = [_find_owner(path_name(path), patterns) for path, _ in paths]
        leaves = [leaf for _, leaf in paths]
        grads, losses, metrics = list(leaves), [], {}
        for name, (_, loss) in players.items():
            places = [i for i, owner in enumerate(owners) if owner == name]

            # The arguments with defaults hold the values of this turn of the loop.
            def total(own, loss=loss, places=places, mutable=mutable):
                # The other players' parameters are constants of this gradient.
                merged = list(leaves)
                for i, leaf in zip(places, own, strict=True):
                    merged[i] = leaf
                mean, (new, values) = loss(treedef.unflatten(merged), mutable, batch, at)
                return mean.total, (mean, new, values)

            own, (mean, mutable, values) = jax.grad(total, has_aux=True)([leaves[i] for i in places])
            for i, leaf in zip(places, own, strict=True):
                grads[i] = Mean(leaf, mean.weight)
            losses.append(mean)
            metrics |= {f'{name}_{key}': value for key, value in {'loss': mean, **values}.items()}
        return treedef.unflatten(grads), functools.reduce(operator.add, losses), mutable, metrics

    return gradient


def _find_owner(name: str, patterns: Mapping[str, re.Pattern]) -> str:
    owners = [player for player, pattern in patterns.items() if pattern.search(name)]
    if len(owners) != 1:
        belongs = f'to several players ({", ".join(owners)})' if owners else 'to no player'
        raise UsageError(f'the parameter {name} belongs {belongs} of the game; change the regular expressions')
    return owners[0]
