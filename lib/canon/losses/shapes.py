"""Losses of shapes as networks: distances that are known, distances that only a gradient tells, sides of a surface."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.ops.norms import safe_norm


def clamped_l1(found: jax.Array, truth: jax.Array, delta: float = 0.1) -> jax.Array:
    """|clamp(f, delta) - clamp(s, delta)| a point, clamp(x, d) = min(d, max(-d, x)): Park et al. 2019, eq. 4."""
    return jnp.abs(jnp.clip(found, -delta, delta) - jnp.clip(truth, -delta, delta))


def eikonal(gradients: jax.Array) -> jax.Array:
    """(|grad f| - 1)^2 a point, from gradients [.., 3]: the second term of Gropp et al. 2020, eq. 2."""
    return jnp.square(safe_norm(gradients) - 1)


def on_surface(values: jax.Array, gradients: jax.Array, normals: jax.Array | None, tau: float = 1.0) -> jax.Array:
    """|f| + tau |grad f - n| at points of the surface: Gropp et al. 2020, eq. 2; without normals [.., 3], |f|."""
    if normals is None or not tau:
        return jnp.abs(values)
    return jnp.abs(values) + tau * safe_norm(gradients - normals)


def code_prior(codes: jax.Array, squared: bool = True) -> jax.Array:
    """|z|^2 of each code [.., C], the prior of Park et al. 2019, eq. 9; or |z|, which their code has in its place."""
    return jnp.square(codes).sum(-1) if squared else safe_norm(codes)


def binary_cross_entropy(logits: jax.Array, truth: jax.Array) -> jax.Array:
    """-t log sigmoid(l) - (1 - t) log(1 - sigmoid(l)), in its stable form; truth is 0 or 1, or between."""
    return jax.nn.softplus(logits) - logits * truth
