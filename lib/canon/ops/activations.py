"""Activation functions of arrays; `activation(name)` looks one up. At a kink the gradient is that of the flat side."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.named import suggest


def sigmoid(z: jax.Array) -> jax.Array:
    """1 / (1 + exp(-z)), whose derivative is a (1 - a)."""
    return jax.nn.sigmoid(z)


def tanh(z: jax.Array) -> jax.Array:
    """(exp(z) - exp(-z)) / (exp(z) + exp(-z)), whose derivative is 1 - a^2."""
    return jnp.tanh(z)


def scaled_tanh(z: jax.Array) -> jax.Array:
    """1.7159 tanh(2 z / 3): LeCun et al. 1998, appendix A. It maps +-1 to +-1, with a gain near 1 there."""
    # 1.7159 is 1 / tanh(2 / 3).
    return 1.7159 * jnp.tanh(2 / 3 * z)


def relu(z: jax.Array) -> jax.Array:
    """max(z, 0); the derivative at 0 is 0."""
    return jax.nn.relu(z)


def leaky_relu(z: jax.Array, slope: float = 0.01) -> jax.Array:
    """z for z > 0, slope * z otherwise."""
    return jnp.where(z > 0, z, slope * z)


def elu(z: jax.Array, alpha: float = 1.0) -> jax.Array:
    """z for z > 0, alpha (exp(z) - 1) otherwise: Clevert et al. 2016."""
    return jax.nn.elu(z, alpha)


# `jnp.clip` alone would pass half of the gradient at 0 and at 6.
@jax.custom_jvp
def relu6(z: jax.Array) -> jax.Array:
    """min(max(z, 0), 6), the MobileNets' activation. The derivative is 1 strictly between 0 and 6, as in torch."""
    return jnp.clip(z, 0, 6)


@relu6.defjvp
def _relu6_jvp(primals, tangents):
    (z,), (dz,) = primals, tangents
    return relu6(z), jnp.where((z > 0) & (z < 6), dz, 0)


def linear(z: jax.Array) -> jax.Array:
    """z."""
    return z


# By name, for configs; a function may be given in its place.
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    f.__name__: f for f in (sigmoid, tanh, scaled_tanh, relu, leaky_relu, elu, relu6, linear)
}


def activation(name: str | Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Returns the function of that name, or `name` itself if it is a function. Raises UsageError with similar names."""
    if not isinstance(name, str):
        return name
    if name not in ACTIVATIONS:
        raise UsageError(f'no activation is called {name!r}{suggest(name, ACTIVATIONS)}')
    return ACTIVATIONS[name]
