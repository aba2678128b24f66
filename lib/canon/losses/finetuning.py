"""Losses that keep a fine-tuned network near what it knew: batch spectral shrinkage and learning without forgetting."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.named import Count


def spectral_shrinkage(features: jax.Array, count: Count = 1) -> jax.Array:
    """Computes the sum of the k smallest squared singular values of features [B, D]: Chen et al. 2019 (BSS).

    Features of small singular values transfer badly, and the penalty suppresses them. The squared singular values are
    the eigenvalues of the smaller Gram matrix, whose gradient is finite where singular values are equal or 0.

    Args:
      features: F, [B, D].
      count: k, 1 in the paper.

    Raises:
      UsageError: k is more than min(B, D).
    """
    smaller = min(features.shape)
    if not 1 <= count <= smaller:
        raise UsageError(
            f'spectral_shrinkage: count={count} must be in 1..{smaller} for features {list(features.shape)}'
        )
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    gram = wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide
    # The sum of eigenvalues is tr(U^T G U): with U held constant its gradient is exact wherever the k-th and the next
    # eigenvalue differ, and never divides by a difference of two of the k.
    vectors = jax.lax.stop_gradient(jnp.linalg.eigh(jax.lax.stop_gradient(gram))[1][:, :count])
    return jnp.einsum('ik,ij,jk->', vectors, gram, vectors)


def distillation(logits: jax.Array, teacher: jax.Array, temperature: float = 2.0) -> jax.Array:
    """Computes the cross entropy between softened predictions, per row [N]: Li & Hoiem 2016 (LwF).

    -sum_c p'_c log q'_c, with p' of the old network's outputs and q' of the new one's, both p^(1/T) normalised:
    softmax(logits / T).

    Args:
      logits: of the network that is learning, [N, C].
      teacher: logits of the old network on the same rows, [N, C]; constants of the gradient.
      temperature: T, 2 in the paper.
    """
    targets = jax.nn.softmax(jax.lax.stop_gradient(teacher) / temperature)
    return -(targets * jax.nn.log_softmax(logits / temperature)).sum(-1)
