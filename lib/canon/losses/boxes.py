"""Losses of regressed boxes, shared by the detectors."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def smooth_l1(errors: jax.Array, beta: float = 1.0) -> jax.Array:
    """Computes e^2 / (2 beta) where |e| < beta and |e| - beta / 2 elsewhere, per element: Girshick 2015, eq. 3.

    At least float32, whatever the dtype of the errors.

    Args:
      errors: predictions minus targets, any shape.
      beta: where the quadratic part ends: 1 / sigma^2 of py-faster-rcnn; 1 in Fast R-CNN and SSD. 0 gives |e|.
    """
    errors = errors.astype(jnp.promote_types(errors.dtype, jnp.float32))
    magnitude = jnp.abs(errors)
    if beta == 0:
        return magnitude
    # The quadratic branch is clamped: the gradient of an infinite branch that is not taken would be NaN.
    inner = jnp.minimum(magnitude, beta)
    return jnp.where(magnitude < beta, 0.5 * inner**2 / beta, magnitude - 0.5 * beta)
