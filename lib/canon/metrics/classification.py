"""Metrics of classifiers. Logits are [B, C], labels integers [B], masks booleans [B]."""

import jax
import jax.numpy as jnp

from canon.metrics.mean import Mean


def accuracy(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> Mean:
    """The share of rows whose largest logit is the label's."""
    return Mean.of(logits.argmax(-1) == labels, mask)


def top_k(logits: jax.Array, labels: jax.Array, k: int, mask: jax.Array | None = None) -> Mean:
    """The share of rows whose label is among the k largest logits; a tie counts against the label.

    Counting against it keeps a network whose logits are all equal at 0, not at 1.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    others = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
    above = ((logits >= own) & ~others).sum(-1)
    return Mean.of(above < k, mask)


def confusion(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Counts [C, C] of (label, prediction) pairs; int32, adds over batches."""
    classes = logits.shape[-1]
    shown = jnp.ones(labels.shape, jnp.int32) if mask is None else mask.astype(jnp.int32)
    return jnp.zeros((classes, classes), jnp.int32).at[labels, logits.argmax(-1)].add(shown)
