"""Losses of unlabelled predictions: entropy, class confusion, information maximisation, and the map of CDAN."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def entropy(logits: jax.Array) -> jax.Array:
    """Computes -sum_c p_c log p_c of softmax(logits) [..., C], in nats: [...]."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def entropy_weights(logits: jax.Array) -> jax.Array:
    """Computes w = 1 + exp(-H(p)) per row [N]: Long et al. 2018 (CDAN+E).

    The weights are constants of the gradient, as in tllib: rows that are easy to transfer count more, and none is made
    easy by it. The authors' code passes the gradient of the entropy on, reversed.
    """
    return 1 + jnp.exp(-jax.lax.stop_gradient(entropy(logits)))


def class_confusion(logits: jax.Array, temperature: float = 2.5) -> jax.Array:
    """Computes minimum class confusion: Jin et al. 2020 (MCC).

    Predictions are softened by the temperature, rows are weighted by their certainty W_i = B (1 + e^-H_i) / sum, the
    confusion C_jk = sum_i W_i p_ij p_ik is normalised by class, and the mean of what is off its diagonal is the loss.

    Args:
      logits: of unlabelled rows, [B, C].
      temperature: T, 2.5 in the paper.
    """
    softened = logits / temperature
    p = jax.nn.softmax(softened)
    # The authors' code detaches the weights, too.
    weights = entropy_weights(softened)
    weights = len(p) * weights / weights.sum()
    confusion = (p * weights[:, None]).T @ p
    # A class that no row predicts has an empty row: it confuses nothing.
    confusion = confusion / jnp.maximum(confusion.sum(1, keepdims=True), jnp.finfo(p.dtype).tiny)
    return (confusion.sum() - jnp.trace(confusion)) / logits.shape[-1]


def information_loss(logits: jax.Array) -> jax.Array:
    """Computes the mean of H(p_i) minus H(mean p_i), the mutual information times -1: Krause et al. 2010.

    Liang et al. 2020 (SHOT) adapt by it. It is least, -log C, where each row [B, C] is certain and classes occur alike.
    """
    mean = jax.nn.softmax(logits).mean(0)
    # 0 log 0 is 0, and its gradient stays finite.
    diversity = -(mean * jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))).sum()
    return entropy(logits).mean() - diversity


def multilinear_map(features: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the outer products f (x) softmax(logits), [B, D C]: Long et al. 2018 (CDAN).

    The probabilities are constants of the gradient, as in the authors' code: the discriminator moves the features.
    """
    p = jax.lax.stop_gradient(jax.nn.softmax(logits))
    return (p[:, :, None] * features[:, None, :]).reshape(len(features), -1)


def random_multilinear_map(
    features: jax.Array, logits: jax.Array, feature_matrix: jax.Array, class_matrix: jax.Array
) -> jax.Array:
    """Returns (f R_f) * (softmax(logits) R_g) / sqrt(d), [B, d]: Long et al. 2018 (CDAN).

    Its inner products estimate those of `multilinear_map`, where D C is too wide (over 4096 in the paper).

    Args:
      features: [B, D].
      logits: [B, C].
      feature_matrix: R_f, [D, d], of entries with mean 0 and variance 1, fixed during training.
      class_matrix: R_g, [C, d].
    """
    p = jax.lax.stop_gradient(jax.nn.softmax(logits))
    return (features @ feature_matrix) * (p @ class_matrix) / jnp.sqrt(feature_matrix.shape[1])
