"""Writes tests/optim/golden/optax.npz: the parameters of optax's optimizers under recorded gradients, in float64.

python tools/golden/optim_optax.py tests/optim/golden/optax.npz      (needs optax, nothing of Canon)
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

STEPS, DROP = 30, 12
RATE = optax.piecewise_constant_schedule(0.1, {DROP: 0.1})
CASES = {
    'momentum, rate inside': optax.chain(optax.scale_by_learning_rate(RATE), optax.trace(0.9)),
    'momentum, rate outside': optax.sgd(RATE, 0.9),
    'nesterov, rate inside': optax.chain(optax.scale_by_learning_rate(RATE), optax.trace(0.9, nesterov=True)),
    'nesterov, rate outside': optax.sgd(RATE, 0.9, nesterov=True),
    'rmsprop': optax.rmsprop(RATE, 0.9, 1e-6, eps_in_sqrt=False),
    'rmsprop, eps in sqrt': optax.rmsprop(RATE, 0.9, 1e-6),
    'adadelta': optax.adadelta(RATE, 0.95),
    'adam': optax.adam(RATE),
    'adamw': optax.adamw(RATE, weight_decay=0.05),
    'nadam': optax.nadam(RATE),
    'lion': optax.lion(RATE, weight_decay=0.05),
    'lamb': optax.lamb(RATE, weight_decay=0.05),
    'lars': optax.lars(RATE),
    'schedule-free': optax.contrib.schedule_free(optax.sgd(0.1), 0.1),
}
SCHEDULES = {
    'linear_decay': optax.linear_schedule(0.1, 0.001, 20),
    'cosine': optax.cosine_decay_schedule(0.1, 20),
    'warmup': optax.join_schedules([optax.linear_schedule(0.0, 0.1, 7), optax.constant_schedule(0.1)], [7]),
}


def recorded():
    rng = np.random.default_rng(4)
    shape = (4, 3)
    return rng.normal(size=shape), rng.normal(size=(STEPS, *shape)) * 10.0 ** rng.uniform(-4, 2, (STEPS, *shape))


def path(tx):
    start, grads = recorded()
    params = jnp.asarray(start)
    state, trajectory = tx.init(params), []
    for g in grads:
        updates, state = tx.update(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
        trajectory.append(np.asarray(params))
    return np.array(trajectory)


if __name__ == '__main__':
    jax.config.update('jax_enable_x64', True)
    start, grads = recorded()
    out = {'start': start, 'grads': grads, 'version': optax.__version__}
    out |= {name: path(tx) for name, tx in CASES.items()}
    out |= {f'rate {name}': np.array([rate(k) for k in range(STEPS)]) for name, rate in SCHEDULES.items()}
    np.savez_compressed(sys.argv[1], **out)
