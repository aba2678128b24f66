"""Adam, AdamW and NAdam. Their moments are called mu and nu, as in optax; the papers have m and v."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, chain

from canon.optim.core import (
    Tree,
    cast,
    explain_names,
    lerp,
    next_count,
    one_minus_power,
    per_leaf,
    ratio,
    scalar,
    times,
    to_number,
    wide,
    zero_count,
    zeros,
)
from canon.optim.decay import add_decayed_weights
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.schedules import Schedule


class NadamState(NamedTuple):
    """Holds the moments of `scale_by_nadam`, and the product of its momenta."""

    count: jax.Array
    log_product: jax.Array  # of all momenta beta_1 .. beta_k
    mu: Tree
    nu: Tree


class AdamState(NamedTuple):
    """Holds the moments of `scale_by_adam`, and the number of updates."""

    count: jax.Array
    mu: Tree  # first moment: the average of the gradients, m of the paper
    nu: Tree  # second moment: the average of their squares, v of the paper


@explain_names
def adam(
    learning_rate: float | Schedule = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    state_dtype=None,
    mu_dtype=None,
) -> GradientTransformation:
    """mu <- b1 mu + (1 - b1) g; nu <- b2 nu + (1 - b2) g^2;
    theta <- theta - epsilon_k mu_hat / (eps + sqrt nu_hat), with mu_hat = mu / (1 - b1^k), nu_hat = nu / (1 - b2^k).

    Kingma & Ba 2015, algorithm 1. The equation of `optax.adam` and `torch.optim.Adam`, with a tenth of
    their error in float32: see `scale_by_adam`.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      b1: decay of mu, beta_1.
      b2: decay of nu, beta_2.
      eps: keeps the divisor above 0.
      state_dtype: a narrower type for mu and nu, such as bfloat16; None is that of the parameters.
      mu_dtype: the type of mu alone, as in optax; `state_dtype` if None.
    """
    return chain(
        scale_by_adam(b1, b2, eps, state_dtype=state_dtype, mu_dtype=mu_dtype), scale_by_learning_rate(learning_rate)
    )


@explain_names
def adamw(
    learning_rate: float | Schedule = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.01,
    where: str | None = None,
    base_learning_rate: float | None = None,
    state_dtype=None,
    mu_dtype=None,
    mask: Tree | Callable[[Tree], Tree] | None = None,
) -> GradientTransformation:
    """theta <- theta - epsilon_k (mu_hat / (eps + sqrt nu_hat) + weight_decay theta).

    Loshchilov & Hutter 2019, algorithm 2, in the convention of torch and optax: the decay is multiplied by the rate. In
    the paper it is multiplied by the schedule alone, epsilon_k / base. The default decay of 0.01 is torch's; optax has
    1e-4.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      weight_decay: coefficient of the decay.
      where: regex of the names of the parameters to decay, such as 'kernel$'; all if None.
      base_learning_rate: the rate that the schedule multiplies, usually its peak, for the convention of the paper.
      state_dtype: type of both moments; at least float32 if None.
      mu_dtype: type of the first moment; `state_dtype` if None.
      mask: the parameters to decay, as optax takes them, in place of `where`.
    """
    if base_learning_rate is not None:
        # The chain multiplies the decay by epsilon_k: divided by the base, the factor of the schedule remains.
        base_learning_rate = to_number('base_learning_rate', base_learning_rate, above=0)
        weight_decay = to_number('weight_decay', weight_decay) / base_learning_rate
    # After Adam's division, which would rescale the decay (that would be the L2 term), and before the rate.
    return chain(
        scale_by_adam(b1, b2, eps, state_dtype=state_dtype, mu_dtype=mu_dtype),
        add_decayed_weights(weight_decay, where=where, mask=mask),
        scale_by_learning_rate(learning_rate),
    )


@explain_names
def nadam(
    learning_rate: float | Schedule = 0.002,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    *,
    momentum_decay: float | None = 4e-3,
) -> GradientTransformation:
    """mu_hat = beta_{k+1} mu / (1 - beta_1 .. beta_{k+1}) + (1 - beta_k) g / (1 - beta_1 .. beta_k) in Adam's step.

    Adam with Nesterov's look-ahead: Dozat 2016, algorithm 2, with his momenta
    beta_k = b1 (1 - 0.96^(momentum_decay k) / 2), which are also the decay of mu. `torch.optim.NAdam` has the same
    weights but decays mu by b1, so that its first steps differ. `momentum_decay=None` keeps beta_k = b1, as
    `optax.nadam` does.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      b1: the limit of the momenta beta_k.
      b2: decay of nu.
      eps: keeps the divisor above 0.
      momentum_decay: how fast beta_k rises to b1; None keeps it there.
    """
    return chain(scale_by_nadam(b1, b2, eps, momentum_decay=momentum_decay), scale_by_learning_rate(learning_rate))


def scale_by_adam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, state_dtype=None, mu_dtype=None
) -> GradientTransformation:
    """u <- mu_hat / (eps + sqrt nu_hat). See `adam`.

    The averages are computed by `lerp` and the corrections by expm1: the median error of float32 against float64 is
    4e-7, where the textbook form (optax's) has 7e-6, because 1 - float32(0.999) has an error of 1e-5 and 1 - b2^k
    cancels.

    state_dtype: a narrower type for both averages; the step uses the rounded values. In bfloat16 an average moves
        only while (1 - b2) |g^2 - nu| is above nu / 512: with b2=0.999 nu stalls near half of g^2; choose b2 <= 0.95.
    mu_dtype: the type of mu alone, as in optax; `state_dtype` if None.
    """
    b1, b2 = to_number('b1', b1, below=1.0), to_number('b2', b2, below=1.0)
    eps = to_number('eps', eps)

    def init(params):
        return AdamState(zero_count(), zeros(params, mu_dtype or state_dtype), zeros(params, state_dtype))

    def update(updates, state, params=None):
        count = next_count(state.count)
        # Reciprocals of scalars, so that an element is multiplied and not divided.
        correct_mu, correct_nu = 1 / one_minus_power(b1, count), 1 / one_minus_power(b2, count)

        def kernel(u, mu, nu):
            u = wide(u)
            # Rounded to the stored type before they are used: the step is a function of the new state.
            mu = lerp(wide(mu), u, b1).astype(mu.dtype)
            nu = lerp(wide(nu), u * u, b2).astype(nu.dtype)
            divisor = jnp.sqrt(times(correct_nu, wide(nu))) + cast(eps, u)
            return ratio(times(correct_mu, wide(mu)), divisor), mu, nu

        updates, mu, nu = per_leaf(kernel, updates, state.mu, state.nu)
        return updates, AdamState(count, mu, nu)

    return GradientTransformation(init, update)


def scale_by_nadam(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, *, momentum_decay: float | None = 4e-3
) -> GradientTransformation:
    """u <- the direction of `nadam`, in which mu decays by beta_k too."""
    b1, b2 = to_number('b1', b1, below=1.0), to_number('b2', b2, below=1.0)
    eps = to_number('eps', eps)

    if momentum_decay is not None:
        momentum_decay = to_number('momentum_decay', momentum_decay)

    def momentum_at(count):
        if momentum_decay is None:
            return scalar(b1)
        # 0.96^x as exp(x log 0.96), with the logarithm in double precision.
        return b1 * (1 - 0.5 * jnp.exp(scalar(count) * (momentum_decay * math.log(0.96))))

    def init(params):
        return NadamState(zero_count(), scalar(0.0), zeros(params), zeros(params))

    def update(updates, state, params=None):
        count = next_count(state.count)
        momentum, next_momentum = momentum_at(count), momentum_at(next_count(count))
        # The product is kept as its logarithm: expm1 of it is 1 - product without cancellation.
        log_product = state.log_product + jnp.log(momentum)
        of_mu = next_momentum / -jnp.expm1(log_product + jnp.log(next_momentum))
        of_update = (1 - momentum) / -jnp.expm1(log_product)
        correct_nu = 1 / one_minus_power(b2, count)

        def kernel(u, mu, nu):
            u = wide(u)
            mu = mu + times(1 - momentum, u - mu)
            nu = lerp(nu, u * u, b2)
            divisor = jnp.sqrt(times(correct_nu, nu)) + cast(eps, u)
            return ratio(times(of_mu, mu) + times(of_update, u), divisor), mu, nu

        updates, mu, nu = per_leaf(kernel, updates, state.mu, state.nu)
        return updates, NadamState(count, log_product, mu, nu)

    return GradientTransformation(init, update)
