"""Losses of embeddings: the triplet loss with the hardest examples of a batch, for identities seen several times."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.ops.norms import safe_norm


def find_hardest(
    embeddings: jax.Array, identities: jax.Array, valid: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds the hardest positive and the hardest negative of every row: Hermans et al. 2017, eq. 5.

    Args:
      embeddings: f, [B, E].
      identities: integers [B].
      valid: bool [B], False for padding, which is nobody's positive and nobody's negative. None: all rows count.

    Returns:
      (max_p |f_a - f_p| over the other rows p of the same identity, [B]; min_n |f_a - f_n| over the rows n of other
      identities, [B]; bool [B], the rows that have both). The distances of the other rows are 0.
    """
    count = len(embeddings)
    valid = jnp.ones(count, bool) if valid is None else valid
    # Differences instead of the Gram matrix: |a|^2 + |b|^2 - 2 a.b loses all digits where embeddings are close.
    distances = safe_norm(embeddings[:, None] - embeddings[None])
    same = identities[:, None] == identities
    pairs = valid[:, None] & valid
    positives, negatives = pairs & same & ~jnp.eye(count, dtype=bool), pairs & ~same
    complete = positives.any(1) & negatives.any(1)
    furthest = jnp.where(positives, distances, -jnp.inf).max(1)
    nearest = jnp.where(negatives, distances, jnp.inf).min(1)
    return jnp.where(complete, furthest, 0), jnp.where(complete, nearest, 0), complete


def batch_hard_triplet(
    embeddings: jax.Array, identities: jax.Array, margin: float | None = None, valid: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Computes the batch-hard triplet loss of every row as the anchor: Hermans et al. 2017, eq. 5.

    With d+ the distance of the hardest positive and d- that of the hardest negative: max(0, margin + d+ - d-), or with
    the soft margin log(1 + exp(d+ - d-)), which keeps pulling together what is already far enough from the others.

    Args:
      embeddings: [B, E].
      identities: integers [B].
      margin: in the units of the embeddings; None is the soft margin.
      valid: bool [B], False for padding.

    Returns:
      (losses [B], bool [B], the anchors that have a positive and a negative; the losses of the others are 0).
    """
    positive, negative, complete = find_hardest(embeddings, identities, valid)
    gap = positive - negative
    losses = jax.nn.softplus(gap) if margin is None else jnp.maximum(margin + gap, 0)
    return jnp.where(complete, losses, 0), complete
