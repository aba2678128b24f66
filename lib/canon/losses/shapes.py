"""Losses of neural shapes: clamped signed distances, the eikonal equation, points of a surface, and occupancy."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.ops.norms import safe_norm


def clamped_l1(predictions: jax.Array, targets: jax.Array, delta: float = 0.1) -> jax.Array:
    """|clamp(f, delta) - clamp(s, delta)| per point, clamp(x, d) = min(d, max(-d, x)): Park et al. 2019, eq. 4.

    Args:
      predictions: signed distances f, [...].
      targets: true signed distances s, [...].
      delta: distance from the surface beyond which errors do not count.
    """
    return jnp.abs(jnp.clip(predictions, -delta, delta) - jnp.clip(targets, -delta, delta))


def eikonal_loss(gradients: jax.Array) -> jax.Array:
    """(|grad f| - 1)^2 per point, from gradients [..., 3]: the regulariser of Gropp et al. 2020, eq. 2."""
    return jnp.square(safe_norm(gradients) - 1)


def surface_loss(values: jax.Array, gradients: jax.Array, normals: jax.Array | None, tau: float = 1.0) -> jax.Array:
    """|f| + tau |grad f - n| per point of the surface: Gropp et al. 2020, eq. 2.

    Args:
      values: of the field, f, [...].
      gradients: of the field, [..., 3].
      normals: of the surface, n, [..., 3]; None leaves the loss |f|.
      tau: weight of the normals.
    """
    # With tau = 0 the derivative of the gradients is not needed, so it is not traced either.
    if normals is None or not tau:
        return jnp.abs(values)
    return jnp.abs(values) + tau * safe_norm(gradients - normals)


def code_prior(codes: jax.Array, squared: bool = True) -> jax.Array:
    """|z|^2 per code [..., C], the prior of Park et al. 2019, eq. 9; |z|, as in their code, if not `squared`."""
    return jnp.square(codes).sum(-1) if squared else safe_norm(codes)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-t log sigmoid(l) - (1 - t) log(1 - sigmoid(l)) per element, for targets t in [0, 1]."""
    return jax.nn.softplus(logits) - logits * targets  # the same, without overflow for large |l|
