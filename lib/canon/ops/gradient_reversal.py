"""The gradient reversal layer of domain-adversarial training, and the ramp of its weight."""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_vjp
def reverse_gradient(x: jax.Array, weight: float | jax.Array = 1.0) -> jax.Array:
    """Returns x; its gradient is multiplied by -weight: Ganin et al. 2016, section 4.2.

    A discriminator after this layer descends its own loss, while the features before it ascend that loss: one gradient
    of one sum serves both players. `weight` itself has the gradient 0.

    Args:
      x: any shape.
      weight: lambda, a scalar; a schedule reads the step (`reversal_weight`). 0 stops the gradient.
    """
    del weight
    return x


def _forward(x, weight):
    return x, jnp.asarray(weight)


def _backward(weight, gradient):
    return -weight.astype(gradient.dtype) * gradient, jnp.zeros_like(weight)


reverse_gradient.defvjp(_forward, _backward)


def reversal_weight(progress: float | jax.Array, alpha: float = 10.0, high: float = 1.0) -> jax.Array:
    """Computes high (2 / (1 + exp(-alpha p)) - 1): Ganin et al. 2016, section 5.2.2.

    It rises from 0 to nearly `high`: the discriminator is noise at first, and would only disturb the features.

    Args:
      progress: p, the share of training that is done, in [0, 1].
      alpha: 10 in the paper; the library tllib takes 1 over its first 1,000 steps.
      high: the weight that is approached.
    """
    return high * jnp.tanh(alpha * jnp.asarray(progress, jnp.float32) / 2)  # the same function, without cancellation
