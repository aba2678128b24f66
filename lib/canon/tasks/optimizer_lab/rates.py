"""The learning rate in effect, of optimizers that adapt it per parameter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from canon import optim

# Optimizer: its state, the field with the squared gradients r, and the field with the squared updates t.
_ACCUMULATORS = {
    'adagrad': (optim.RssState, 'sum_of_squares', ''),
    'rmsprop': (optim.RmsState, 'mean_square', ''),
    'adadelta': (optim.AdadeltaState, 'mean_square', 'mean_square_update'),
}


def effective_rate(spec: Mapping[str, Any], state: Any) -> jax.Array | None:
    """Returns the geometric mean over the parameters of the factor on the gradient in the last update.

    The factor is epsilon / (delta + sqrt r) for `adagrad` and `rmsprop`, and for `adadelta` epsilon (delta + sqrt t) /
    (delta + sqrt r), with t after the update; `eps_in_sqrt` puts delta inside the roots. Only parameters with r > 0
    count: the weight of a pixel that is always black has no gradient.

    Args:
      spec: of the optimizer, as `optim.make_optimizer` takes it.
      state: of the optimizer.

    Returns:
      a scalar, or None for other optimizers.
    """
    name = str(spec.get('name'))
    if name not in _ACCUMULATORS:
        return None
    kind, squared_gradients, squared_updates = _ACCUMULATORS[name]
    defaults = {key: p.default for key, p in inspect.signature(getattr(optim, name)).parameters.items()}
    arguments = defaults | dict(spec)
    eps, inside = arguments['eps'], arguments.get('eps_in_sqrt', False)

    def root(x):
        return jnp.sqrt(x + eps) if inside else jnp.sqrt(x) + eps

    accumulators = optim.find_state(state, kind)
    r = _flatten(getattr(accumulators, squared_gradients))
    log_numerator = jnp.log(root(_flatten(getattr(accumulators, squared_updates)))) if squared_updates else 0.0
    positive = r > 0
    # In logarithms: the product of many small factors underflows.
    log_factors = jnp.where(positive, log_numerator - jnp.log(root(r)), 0)
    mean = jnp.sum(log_factors) / jnp.maximum(positive.sum(), 1)
    return optim.find_state(state, optim.LearningRateState).learning_rate * jnp.exp(mean)


def _flatten(tree: Any) -> jax.Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])
