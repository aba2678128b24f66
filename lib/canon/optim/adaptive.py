"""Per-parameter learning rates from squared gradients: AdaGrad, RMSProp and Adadelta."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from optax import GradientTransformation, chain

from canon.optim.core import Tree, accept_names, cast, explain_names, lerp, per_leaf, ratio, to_number, wide, zeros
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.schedules import Schedule


class RssState(NamedTuple):
    """Holds the sum of squared gradients of `scale_by_rss` (AdaGrad)."""

    sum_of_squares: Tree


class RmsState(NamedTuple):
    """Holds the mean of squared gradients of `scale_by_rms` (RMSProp)."""

    mean_square: Tree


class AdadeltaState(NamedTuple):
    """Holds the mean squares of gradients and of updates of `scale_by_adadelta`."""

    mean_square: Tree  # of the gradients
    mean_square_update: Tree


@accept_names(initial_accumulator_value='initial_accumulator')
def adagrad(
    learning_rate: float | Schedule = 0.01, *, eps: float = 1e-7, initial_accumulator: float = 0.0
) -> GradientTransformation:
    """r <- r + g^2; theta <- theta - epsilon_k g / (eps + sqrt r).

    Duchi et al. 2011, figure 1; Goodfellow et al. 2016, algorithm 8.4.
    `torch.optim.Adagrad(eps=1e-7)` is the same (its default eps is 1e-10). `optax.adagrad` starts r at 0.1
    and puts eps inside the root.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      eps: keeps the divisor above 0.
      initial_accumulator: the value that r starts from.
    """
    return chain(scale_by_rss(eps=eps, initial_accumulator=initial_accumulator), scale_by_learning_rate(learning_rate))


@explain_names
def rmsprop(
    learning_rate: float | Schedule = 0.001, decay: float = 0.9, eps: float = 1e-6, *, eps_in_sqrt: bool = False
) -> GradientTransformation:
    """r <- decay r + (1 - decay) g^2; theta <- theta - epsilon_k g / (eps + sqrt r).

    Hinton's lecture 6e, which has no eps. Here it is outside of the root, as in
    `torch.optim.RMSprop(alpha=0.9, eps=1e-6)` (whose own defaults are 0.99 and 1e-8). With `eps_in_sqrt` the divisor is
    sqrt(r + eps): Goodfellow et al. 2016, algorithm 8.5, and optax's default with eps=1e-8.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      decay: of the average r.
      eps: keeps the divisor above 0.
      eps_in_sqrt: adds eps inside of the root.
    """
    return chain(scale_by_rms(decay, eps, eps_in_sqrt=eps_in_sqrt), scale_by_learning_rate(learning_rate))


@accept_names(rho='decay')
def adadelta(
    learning_rate: float | Schedule = 1.0, decay: float = 0.9, eps: float = 1e-6, *, eps_in_sqrt: bool = False
) -> GradientTransformation:
    """r <- decay r + (1 - decay) g^2; u = g (eps + sqrt t) / (eps + sqrt r); t <- decay t + (1 - decay) u^2;
    theta <- theta - epsilon_k u.

    Zeiler 2012, algorithm 1 (his decay is 0.95), but with eps outside of the roots. With `eps_in_sqrt` it is Zeiler's
    own u = g sqrt((t + eps) / (r + eps)), the form of torch and optax. With eps outside, the start is a thousand times
    slower: the first step is about eps, Zeiler's about sqrt(eps); choose eps near 1e-3 for it.
    epsilon_k, the `learning_rate`, scales the step but not t, as in torch.
    `optax.adadelta()` with its own defaults ascends (its rate of None drops the sign).

    Args:
      learning_rate: epsilon_k, a number or a schedule; Zeiler's method has none, which is 1.
      decay: of the averages r and t.
      eps: keeps the roots above 0.
      eps_in_sqrt: adds eps inside of the roots, as Zeiler's paper, torch and optax do.
    """
    return chain(scale_by_adadelta(decay, eps, eps_in_sqrt=eps_in_sqrt), scale_by_learning_rate(learning_rate))


@accept_names(initial_accumulator_value='initial_accumulator')
def scale_by_rss(*, eps: float = 1e-7, initial_accumulator: float = 0.0) -> GradientTransformation:
    """r <- r + u^2; u <- u / (eps + sqrt r). See `adagrad`."""
    eps, start = to_number('eps', eps), to_number('initial_accumulator', initial_accumulator)

    def init(params):
        return RssState(per_leaf(lambda r: (r + cast(start, r),), zeros(params))[0])

    def update(updates, state, params=None):
        def kernel(u, r):
            u = wide(u)
            r = r + u * u  # of this gradient too: the divisor is 0 only where every gradient was
            return ratio(u, jnp.sqrt(r) + cast(eps, u)), r

        updates, sum_of_squares = per_leaf(kernel, updates, state.sum_of_squares)
        return updates, RssState(sum_of_squares)

    return GradientTransformation(init, update)


def scale_by_rms(
    decay: float = 0.9, eps: float = 1e-6, *, eps_in_sqrt: bool = False, state_dtype=None
) -> GradientTransformation:
    """r <- decay r + (1 - decay) u^2; u <- u / (eps + sqrt r), or u / sqrt(r + eps). See `rmsprop`.

    Args:
      decay: of the average r.
      eps: keeps the divisor above 0.
      eps_in_sqrt: adds eps inside of the root.
      state_dtype: a narrower type for r, such as bfloat16.
    """
    decay, eps = to_number('decay', decay, below=1.0), to_number('eps', eps)

    def update(updates, state, params=None):
        def kernel(u, r):
            u, delta = wide(u), cast(eps, wide(u))
            r = lerp(wide(r), u * u, decay).astype(r.dtype)
            return ratio(u, jnp.sqrt(wide(r) + delta) if eps_in_sqrt else jnp.sqrt(wide(r)) + delta), r

        updates, mean_square = per_leaf(kernel, updates, state.mean_square)
        return updates, RmsState(mean_square)

    return GradientTransformation(lambda params: RmsState(zeros(params, state_dtype)), update)


@accept_names(rho='decay')
def scale_by_adadelta(decay: float = 0.9, eps: float = 1e-6, *, eps_in_sqrt: bool = False) -> GradientTransformation:
    """u <- u (eps + sqrt t) / (eps + sqrt r), with r updated before the step and t after it. See `adadelta`.

    In Zeiler's form the step is computed from the new t: by t' = decay t + (1 - decay) u^2 and the equation of the
    step, (t + eps) / (r + eps) = (t' + decay eps) / (decay (r + eps) + (1 - decay) g^2), in which all terms are
    positive. So the old t need not be kept while the new one is written in place: 48 bytes per parameter are moved,
    without temporary memory. With eps outside of the roots there is no such simple inverse, and 56 bytes are moved;
    optax moves 68 for Zeiler's form.
    """
    decay = to_number('decay', decay, below=1.0, above=0)  # with 0, as with eps=0, the rule degenerates
    eps = to_number('eps', eps, above=0)

    # Roots and quotients are taken before numerator and denominator are combined: eps / g^2 underflows from g = 1e17
    # on.
    def step_eps_inside(u, r, t, rho, delta):
        g, r = u * u, lerp(r, u * u, rho)
        # Where r has overflowed the quotient would be inf / inf; it counts as 0.
        t = lerp(t, (t + delta) * jnp.where(jnp.isinf(r), 0, g / (r + delta)), rho)
        return jnp.sqrt(t + rho * delta) * (u / jnp.sqrt(rho * (r + delta) + (1 - rho) * g)), r, t

    def step_eps_outside(u, r, t, rho, delta):
        r = lerp(r, u * u, rho)
        u = (jnp.sqrt(t) + delta) / (jnp.sqrt(r) + delta) * u
        return u, r, lerp(t, u * u, rho)

    def update(updates, state, params=None):
        step = step_eps_inside if eps_in_sqrt else step_eps_outside

        def kernel(u, r, t):
            return step(wide(u), r, t, cast(decay, r), cast(eps, r))

        updates, r, t = per_leaf(kernel, updates, state.mean_square, state.mean_square_update)
        return updates, AdadeltaState(r, t)

    return GradientTransformation(lambda params: AdadeltaState(zeros(params), zeros(params)), update)
