"""Learning rate schedules: functions from the number of updates made (int32) to a rate.

The first update has count 0. Lengths are called `steps`. The count is clamped as an integer before it becomes a float,
so that ends are exact and counts beyond 2^24 are harmless. The rate is of the default float type.

    >>> rate = linear_decay(0.1, 0.001, steps=100)
    >>> float(rate(100)) == float(rate(10**9)) == float(jnp.float32(0.001))
    True
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.optim.core import accept_names, log, scalar, to_integer, to_number

Schedule = Callable[[jax.Array], jax.Array]


def constant(value: float) -> Schedule:
    """epsilon_k = value.

    Args:
      value: the rate.
    """
    value = to_number('value', value)
    return lambda count: scalar(value)


@accept_names(init_value='init', end_value='final', transition_steps='steps')
def linear_decay(init: float, final: float, steps: int) -> Schedule:
    """epsilon_k = (1 - a) init + a final with a = min(k, steps) / steps: linear, then constant.

    Goodfellow et al., Deep Learning, eq. 8.14 (final about 1 % of init). `optax.linear_schedule` is the same
    in float32 even under x64; torch's `LinearLR(1, final/init, steps)` is the same.
    """
    init, final = to_number('init', init), to_number('final', final)
    to_integer('steps', steps)

    def rate(count):
        a, b = _fractions(count, steps)
        # A weighted sum of the ends reaches both exactly; init + a (final - init) need not.
        return b * init + a * final

    return rate


def step_decay(init: float, steps: Sequence[int], by: float = 10.0) -> Schedule:
    """epsilon_k = init / by^n, where n is the number of `steps` that are at most k.

    He et al. 2015 (divide by 10 at 32k and 48k). torch: `MultiStepLR(milestones=steps, gamma=1/by)`.

    Args:
      init: the rate at step 0.
      steps: updates after which the rate is divided.
      by: the divisor.
    """
    init, by = to_number('init', init), to_number('by', by, above=0)
    steps = tuple(steps) if isinstance(steps, Sequence) else (steps,)
    for length in steps:
        to_integer('steps', length)
    if list(steps) != sorted(set(steps)):
        raise UsageError(f'steps={steps} must increase')

    def rate(count):
        drops = sum((jnp.asarray(count) >= length).astype(jnp.int32) for length in steps)
        table = [init / by**n for n in range(len(steps) + 1)]  # in double precision, so that errors do not accumulate
        return scalar(table)[drops]

    return rate


@accept_names(init_value='init', decay_steps='steps')
def cosine(init: float, *, final: float = 0.0, steps: int) -> Schedule:
    """epsilon_k = final + (init - final) (1 + cos(pi k / steps)) / 2, then final.

    Loshchilov & Hutter 2017 (SGDR), eq. 5 without restarts. Computed as sin^2 of the remaining fraction, which is exact
    at both ends and keeps its relative precision near the last. torch's `CosineAnnealingLR` rises again after `steps`.

    Args:
      init: the rate at step 0.
      final: the rate from `steps` on.
      steps: length of the half period.
    """
    init, final = to_number('init', init), to_number('final', final)
    to_integer('steps', steps)

    def rate(count):
        _, remaining = _fractions(count, steps)
        # The same as (1 + cos) / 2, which cancels near the last step.
        weight = jnp.sin(remaining * (np.pi / 2)) ** 2
        return weight * init + (1 - weight) * final

    return rate


@accept_names(init_value='init', warmup_steps='steps')
def warmup(steps: int, then: Schedule, init: float = 0.0) -> Schedule:
    """Rises linearly from init to `then(0)` over `steps` updates, then follows `then`, which counts from there.

    Goyal et al. 2017, section 2.2. With init=0 the first update does not change the parameters.

    Args:
      steps: updates of the rise.
      init: the rate at step 0.
      then: the schedule that follows.
    """
    init = to_number('init', init)
    to_integer('steps', steps, least=0)
    if not callable(then):
        raise UsageError(f'then={then!r} is not a schedule; write constant({then!r})')
    if steps == 0:
        return then

    def rate(count):
        a, b = _fractions(count, steps)
        rising = b * init + a * then(jnp.zeros((), jnp.int32))
        # Both branches are evaluated at every count: `maximum` keeps that of `then` valid during the warm-up.
        return jnp.where(jnp.asarray(count) < steps, rising, then(jnp.maximum(count - steps, 0)))

    return rate


def inverse_sqrt(init: float, steps: int) -> Schedule:
    """epsilon_k = init sqrt(steps / (steps + k)): after a warm-up of the same length, that of the Transformer.

    Vaswani et al. 2017, eq. 3: d^-0.5 min(n^-0.5, n w^-1.5) is `warmup(w, inverse_sqrt((d w)^-0.5, w))`.

    Args:
      init: the rate at step 0.
      steps: length of the warm-up that comes before.
    """
    init = to_number('init', init)
    to_integer('steps', steps)

    def rate(count):
        k = jnp.minimum(count, np.iinfo(np.int32).max - steps)  # k + steps must not overflow
        return init * jnp.sqrt(steps / scalar(k + steps))

    return rate


@accept_names(init_value='init', decay_rate='decay', transition_steps='steps')
def exponential(init: float, *, decay: float, steps: int, staircase: bool = False) -> Schedule:
    """epsilon_k = init decay^(k / steps); with `staircase` the exponent is rounded down.

    Recipes of Inception multiply by 0.94 every two epochs. torch: `ExponentialLR(gamma=decay)` for steps=1.

    Args:
      init: the rate at step 0.
      decay: the factor that `steps` updates multiply the rate by.
      steps: updates per factor.
      staircase: multiplies at once after each `steps` updates.
    """
    init, decay = to_number('init', init), to_number('decay', decay, above=0)
    to_integer('steps', steps)

    def rate(count):
        count = jnp.asarray(count)
        # In integers: count / steps in float32 would lose the fraction of large counts.
        whole, rest = count // steps, 0 if staircase else scalar(count % steps) / steps
        return init * jnp.exp((scalar(whole) + rest) * log(decay))

    return rate


def _fractions(count, steps: int) -> tuple[jax.Array, jax.Array]:
    """Returns the completed and the remaining fraction, each computed from integers and exact at 0 and 1."""
    k = jnp.clip(count, 0, steps)
    return scalar(k) / steps, scalar(steps - k) / steps
