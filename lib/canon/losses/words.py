"""Losses of networks that read a word at once: characters at fixed positions, and bags of n-grams."""

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.losses.classification import softmax_cross_entropy


def position_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes -log p(word) = -sum_i log p_i(character i) per word, in nats [B] (Jaderberg et al. 2014, CHAR).

    Args:
      logits: of the classes at each position, [B, P, C]; class 0 is no character.
      labels: [B, L], characters, then 0, with L up to P; positions beyond L have no character.

    Raises:
      UsageError: labels may be longer than the positions.
    """
    positions = logits.shape[1]
    if labels.shape[1] > positions:
        raise UsageError(f'labels of {labels.shape[1]} characters do not fit {positions} positions; cut max_length')
    labels = jnp.pad(labels, ((0, 0), (0, positions - labels.shape[1])))
    return softmax_cross_entropy(logits, labels).sum(1)


def ngram_loss(logits: jax.Array, bags: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Computes sum_n w_n [log(1 + e^z_n) - y_n z_n] per word, in nats [B]: a logistic regression per n-gram.

    Its gradient is w_n (sigmoid(z_n) - y_n): weights scale the gradient of each n-gram, in Jaderberg et al. 2014
    (NGRAM) by the inverse of its frequency, since most n-grams are rare.

    Args:
      logits: z, [B, N].
      bags: y, whether n-gram n occurs in the word, [B, N].
      weights: w, [N]; all 1 if None.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = jax.nn.softplus(logits) - jnp.where(bags, logits, 0)
    return (losses if weights is None else losses * weights).sum(1)
