"""Layer-wise learning rates from the norms of weights and updates, for large batches: LARS and LAMB."""

from __future__ import annotations

import jax.numpy as jnp
from optax import EmptyState, GradientTransformation, chain

from canon.optim.adam import scale_by_adam
from canon.optim.core import (
    cast,
    check_params,
    explain_names,
    per_leaf,
    refuse_buckets,
    require_params,
    to_number,
    wide,
)
from canon.optim.descent import trace
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.schedules import Schedule


@explain_names
def lars(
    learning_rate: float | Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    vectors: bool = False,
) -> GradientTransformation:
    """lambda = trust_coefficient ||theta|| / (||g|| + weight_decay ||theta|| + eps);
    v <- momentum v - epsilon_k lambda (g + weight_decay theta); theta <- theta + v.

    You, Gitman & Ginsburg 2017, algorithm 1, with the rate inside the velocity. Vectors (biases and norms) get plain
    momentum without decay, as in every later recipe; `vectors=True` treats them as layers, as the paper and optax do.
    optax divides by the norm of the sum, ||g + weight_decay theta||.
    """
    ratio = scale_by_trust_ratio(
        weight_decay=weight_decay,
        trust_coefficient=trust_coefficient,
        eps=eps,
        vectors=vectors,
        separate_norms=True,
    )
    # The rate comes before the velocity, as in algorithm 1: v accumulates steps.
    return chain(ratio, scale_by_learning_rate(learning_rate), trace(momentum))


@explain_names
def lamb(
    learning_rate: float | Schedule = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    *,
    weight_decay: float = 0.01,
    vectors: bool = False,
) -> GradientTransformation:
    """u = mu_hat / (eps + sqrt nu_hat) + weight_decay theta; theta <- theta - epsilon_k u ||theta|| / ||u||.

    You et al. 2020, algorithm 2, with the identity for phi. Vectors get Adam's step without ratio and decay, as in
    BERT's recipe; `vectors=True` includes them, as `optax.lamb` does. A ratio with a norm of zero is 1.
    """
    ratio = scale_by_trust_ratio(weight_decay=weight_decay, vectors=vectors)
    # The ratio comes after Adam's division: it compares the norm of the step, decay included, with the weights'.
    return chain(scale_by_adam(b1, b2, eps), ratio, scale_by_learning_rate(learning_rate))


def scale_by_trust_ratio(
    *,
    weight_decay: float = 0.0,
    trust_coefficient: float = 1.0,
    eps: float = 0.0,
    vectors: bool = False,
    separate_norms: bool = False,
) -> GradientTransformation:
    """u <- u' trust_coefficient ||theta|| / (||u'|| + eps) with u' = u + weight_decay theta, per leaf.

    If ||theta|| or the divisor is 0, the ratio is 1.

    Args:
      weight_decay: coefficient of the decay.
      trust_coefficient: factor of the ratio.
      eps: added to the divisor.
      vectors: scales leaves of fewer than two dimensions too; otherwise these are not changed.
      separate_norms: divides by ||u|| + weight_decay ||theta|| + eps, as LARS does.
    """
    weight_decay, eps = to_number('weight_decay', weight_decay), to_number('eps', eps)
    trust_coefficient = to_number('trust_coefficient', trust_coefficient)

    def init(params):
        check_params(params)
        refuse_buckets(params, 'a trust ratio')
        return EmptyState()

    def kernel(u, p):
        u, p = wide(u), wide(p)
        if p.ndim < 2 and not vectors:  # biases and norms: the ratio of a vector near 0 would stop it
            return (u,)
        decay, coefficient = cast(weight_decay, u), cast(trust_coefficient, u)
        size, decayed = _norm(p), u + decay * p
        divisor = (_norm(u) + decay * size if separate_norms else _norm(decayed)) + cast(eps, u)
        defined = (size > 0) & (divisor > 0)
        # The inner `where` avoids 0 / 0, also in a derivative through the update.
        ratio = jnp.where(defined, coefficient * size / jnp.where(defined, divisor, 1), 1)
        return (ratio * decayed,)

    def update(updates, state, params=None):
        return per_leaf(kernel, updates, given=(require_params(params, 'a trust ratio'),))[0], state

    return GradientTransformation(init, update)


def _norm(x):
    return jnp.sqrt(jnp.sum(x * x))
