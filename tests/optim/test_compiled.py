"""XLA's own count of what one donated update moves: a test of speed that a noisy machine cannot disturb.

The figures are those of jax 0.10 on the CPU: bytes a parameter, of temporary memory, copies of whole leaves. Beside
each stands optax's, measured in the same run, which it must not exceed.
"""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from tests.optim.everything import some_fast

BF16 = jnp.bfloat16

# name: (ours, optax's or None, bytes, bytes of temporary memory, copies)
LIMITS = {
    'sgd': (lambda o: o.sgd(0.1), lambda: optax.sgd(0.1), 12, 0, 0),
    'momentum': (lambda o: o.momentum(0.1), lambda: optax.sgd(0.1, 0.9), 24, 0, 0),
    'momentum, drops': (lambda o: o.momentum(o.step_decay(0.1, (3, 5))), lambda: optax.sgd(0.1, 0.9), 24, 0, 0),
    'nesterov': (lambda o: o.nesterov(0.1), lambda: optax.sgd(0.1, 0.9, nesterov=True), 28, 0, 0),
    'momentum, bf16': (
        lambda o: o.momentum(0.1, state_dtype=BF16),
        lambda: optax.sgd(0.1, 0.9, accumulator_dtype=BF16),
        18,
        0,
        0,
    ),
    'adagrad': (lambda o: o.adagrad(), lambda: optax.adagrad(0.1), 28, 0, 0),
    'rmsprop': (lambda o: o.rmsprop(), lambda: optax.rmsprop(0.1), 28, 0, 0),
    'adadelta': (lambda o: o.adadelta(), lambda: optax.adadelta(1.0), 56, 4, 0),
    'adadelta, Zeiler': (lambda o: o.adadelta(eps_in_sqrt=True), lambda: optax.adadelta(1.0), 48, 0, 0),
    'adam': (lambda o: o.adam(), lambda: optax.adam(0.1), 40, 0, 0),
    'adam, bf16': (lambda o: o.adam(state_dtype=BF16), lambda: optax.adam(0.1, mu_dtype=BF16), 28, 0, 0),
    'adamw': (lambda o: o.adamw(), lambda: optax.adamw(0.1), 40, 0, 0),
    'clip, adamw': (
        lambda o: optax.chain(o.clip_by_global_norm(1.0), o.adamw()),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)),
        44,
        0,
        0,
    ),
    'nadam': (lambda o: o.nadam(), lambda: optax.nadam(0.1), 44, 0, 0),
    'lion': (lambda o: o.lion(), lambda: optax.lion(0.1), 28, 0, 0),
    'lamb': (lambda o: o.lamb(), lambda: optax.lamb(0.1), 60, 4, 0),
    'lars': (lambda o: o.lars(0.1), lambda: optax.lars(0.1), 36, 0, 0),
    'schedule-free': (
        lambda o: o.schedule_free(o.sgd(0.1)),
        lambda: optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
        28,
        0,
        0,
    ),
    'skip': (
        lambda o: o.skip_nonfinite(o.adam()),
        lambda: optax.apply_if_finite(optax.adam(0.1), 5),
        54,
        4,
        2,
    ),
    'master': (lambda o: o.master_weights(o.adam()), None, 52, 0, 0),
    'ema': (lambda o: optax.chain(o.sgd(0.1), o.ema(0.9)), None, 24, 0, 0),
    'plateau': (lambda o: optax.chain(o.divide_on_plateau('loss', 3, mode='min'), o.momentum(0.1)), None, 24, 0, 0),
}


def cost(tx, leaves=3, shape=(512, 512)):
    params = {f'leaf{i}': jnp.ones(shape, jnp.float32) for i in range(leaves)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, params)
    compiled = lowered.compile(
        compiler_options={'xla_cpu_use_fusion_emitters': True}
    )  # as users do: the fast tests fuse otherwise
    size = leaves * shape[0] * shape[1]
    memory = compiled.memory_analysis()
    copied = [shape for shape in re.findall(r'= \w+\[([\d,]*)\]\S* copy\(', compiled.as_text()) if shape]
    kept = memory.argument_size_in_bytes - 4 * size  # all but the gradients is written in place
    assert memory.alias_size_in_bytes == kept
    return compiled.cost_analysis()['bytes accessed'] / size, memory.temp_size_in_bytes / size, len(copied)


@pytest.mark.parametrize('name', some_fast(LIMITS, ('sgd', 'momentum, drops', 'adam', 'clip, adamw', 'skip')))
def test_bytes_temporaries_and_copies(optim, name):
    ours, theirs, moved, temporary, copies = LIMITS[name]
    measured = cost(ours(optim))
    slack = 0.05  # scalars: counts, rates, norms
    assert measured[0] <= moved + slack
    assert measured[1] <= temporary + slack
    assert measured[2] <= copies
    if theirs is not None:
        assert measured[0] <= cost(theirs())[0] + slack
