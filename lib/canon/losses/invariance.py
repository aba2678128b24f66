"""Penalties over the risks of several domains: IRM, V-REx and the weights of GroupDRO."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from canon.errors import UsageError
from canon.losses.classification import softmax_cross_entropy


def irm_penalty(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Computes |d/dw R(w f) at w = 1|^2 of the mean cross entropy R: Arjovsky et al. 2019 (IRMv1).

    Args:
      logits: f, [N, C], or [N] of a binary classifier, whose loss is the logistic one.
      labels: integers [N].
    """
    return jnp.square(_scale_gradient(logits, labels))


def irm_penalty_of_halves(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Estimates IRM's penalty without bias, by the product of the gradients of two halves of the batch.

    The squared gradient of one sample exceeds that of the distribution by its variance: Arjovsky et al. 2019, section
    3.2. The halves are every second row, as in the code of their appendix D and in DomainBed. The estimate may be
    negative. Raises UsageError for less than two rows.
    """
    if len(logits) < 2:
        raise UsageError(f'irm_penalty_of_halves needs at least two rows, not {len(logits)}')
    return _scale_gradient(logits[::2], labels[::2]) * _scale_gradient(logits[1::2], labels[1::2])


def _scale_gradient(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.grad(lambda scale: _mean_risk(scale * logits, labels))(jnp.ones((), logits.dtype))


def _mean_risk(logits: jax.Array, labels: jax.Array) -> jax.Array:
    if logits.ndim == 1:
        return (jax.nn.softplus(logits) - labels * logits).mean()
    return softmax_cross_entropy(logits, labels).mean()


def risk_variance(risks: jax.Array) -> jax.Array:
    """Computes the variance of the domains' risks [E], divided by E: Krueger et al. 2021 (V-REx).

    DomainBed divides by E, too. The authors' code for two coloured domains has (R_1 - R_2)^2, four times as much.

    Raises UsageError for fewer than two domains.
    """
    if len(risks) < 2:
        raise UsageError('V-REx compares the risks of at least two domains, not of one')
    return jnp.square(risks - risks.mean()).mean()


def update_group_weights(weights: jax.Array, risks: jax.Array, step_size: float = 1e-2) -> jax.Array:
    """Returns q_g exp(eta R_g), normalised: Sagawa et al. 2020 (GroupDRO), algorithm 1.

    The weights are constants of the gradient; with eta = 0 they stay what they are, and the weighted risk of equal
    weights is the mean, that of ERM.

    Args:
      weights: q, [E], which add up to 1.
      risks: R, [E].
      step_size: eta.
    """
    # In logarithms: exp(eta R) of a diverging risk overflows.
    scores = jnp.log(weights) + step_size * jax.lax.stop_gradient(risks)
    # With eta = 0 it is exactly the old weights, bit for bit, which a softmax would round.
    return jnp.where(step_size == 0, weights, jax.nn.softmax(scores))
