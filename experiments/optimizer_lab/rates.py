"""What a gradient is really multiplied with, where the optimizer chooses it for each parameter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from canon import optim


def effective_rate(spec: Mapping[str, Any], state) -> jax.Array | None:
    """The geometric mean of epsilon / (delta + sqrt r), the factor on the gradient in the last update.

    For `adagrad`, `rmsprop` and `adadelta` (epsilon (delta + sqrt t) / (delta + sqrt r), t after the update, in the
    form of the spec), whose state holds r; None for other optimizers. Over the parameters with r > 0: the weight of a
    pixel that is always black has no gradient.
    """
    function = getattr(optim, str(spec.get('name')), None)
    kind, gradients, updates = _KINDS.get(str(spec.get('name')), (None, '', ''))
    if kind is None or function is None:
        return None
    given = {key: p.default for key, p in inspect.signature(function).parameters.items()} | dict(spec)
    eps, inside = given['eps'], given.get('eps_in_sqrt', False)
    root = (lambda x: jnp.sqrt(x + eps)) if inside else (lambda x: jnp.sqrt(x) + eps)
    found = optim.find(state, kind)
    r = _flat(getattr(found, gradients))
    top = jnp.log(root(_flat(getattr(found, updates)))) if updates else 0.0
    alive = r > 0
    mean = jnp.sum(jnp.where(alive, top - jnp.log(root(r)), 0)) / jnp.maximum(alive.sum(), 1)
    return optim.find(state, optim.LearningRateState).learning_rate * jnp.exp(mean)


_KINDS = {
    'adagrad': (optim.RssState, 'sum_of_squares', ''),
    'rmsprop': (optim.RmsState, 'mean_square', ''),
    'adadelta': (optim.AdadeltaState, 'mean_square', 'mean_square_update'),
}


def _flat(tree) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])
