"""Where torch and optax went with the same gradients (tools/golden/optim_*.py wrote it down), in float64."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

FOLDER = Path(__file__).parent / 'golden'
TORCH = {
    'sgd': lambda o, r: o.sgd(r),
    'sgd, decay': lambda o, r: optax.chain(o.add_decayed_weights(0.05), o.sgd(r)),
    'momentum': lambda o, r: o.momentum(r, rate_inside=False),
    'nesterov': lambda o, r: o.nesterov(r, rate_inside=False),
    'adagrad': lambda o, r: o.adagrad(r),
    'adagrad, start': lambda o, r: o.adagrad(r, eps=1e-10, initial_accumulator=0.1),
    'rmsprop': lambda o, r: o.rmsprop(r),
    'adadelta': lambda o, r: o.adadelta(r, 0.95, eps_in_sqrt=True),
    'adam': lambda o, r: o.adam(r),
    'adam, decay': lambda o, r: optax.chain(o.add_decayed_weights(0.05), o.adam(r)),
    'adamw': lambda o, r: o.adamw(r, weight_decay=0.05),
}
OPTAX = {
    'momentum, rate inside': lambda o, r: o.momentum(r),
    'momentum, rate outside': lambda o, r: o.momentum(r, rate_inside=False),
    'nesterov, rate inside': lambda o, r: o.nesterov(r),
    'nesterov, rate outside': lambda o, r: o.nesterov(r, rate_inside=False),
    'rmsprop': lambda o, r: o.rmsprop(r),
    'rmsprop, eps in sqrt': lambda o, r: o.rmsprop(r, eps_in_sqrt=True),
    'adadelta': lambda o, r: o.adadelta(r, 0.95, eps_in_sqrt=True),
    'adam': lambda o, r: o.adam(r),
    'adamw': lambda o, r: o.adamw(r, weight_decay=0.05),
    'nadam': lambda o, r: o.nadam(r, momentum_decay=None),
    'lion': lambda o, r: o.lion(r, weight_decay=0.05),
    'lamb': lambda o, r: o.lamb(r, weight_decay=0.05),
    'lars': lambda o, r: o.lars(r),
    'schedule-free': lambda o, r: o.schedule_free(o.sgd(0.1)),
}


def path(tx, golden):
    params = jnp.asarray(golden['start'])
    state, points = tx.init(params), []
    for g in golden['grads']:
        updates, state = tx.update(jnp.asarray(g), state, params)
        params = optax.apply_updates(params, updates)
        points.append(np.asarray(params))
    return np.array(points)


@pytest.mark.parametrize('drop', [False, True])
@pytest.mark.parametrize('name', TORCH)
def test_torch(optim, name, drop):
    golden = np.load(FOLDER / 'torch.npz')
    init = 0.5 if name == 'adadelta' else 0.1
    with jax.enable_x64(True):
        ours = path(TORCH[name](optim, optim.step_decay(init, (12,) if drop else (1000,))), golden)
    theirs = golden[f'{name}, drop' if drop else name]
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize('name', OPTAX)
def test_optax(optim, name):
    golden = np.load(FOLDER / 'optax.npz')
    with jax.enable_x64(True):
        ours = path(OPTAX[name](optim, optim.step_decay(0.1, (12,))), golden)
    np.testing.assert_allclose(ours, golden[name], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ('file', 'name', 'make', 'rtol'),
    [
        ('torch', 'linear_decay', lambda o: o.linear_decay(0.1, 0.001, 20), 1e-13),
        ('torch', 'step_decay', lambda o: o.step_decay(0.1, (5, 12, 20)), 1e-13),
        ('torch', 'cosine', lambda o: o.cosine(0.1, steps=29), 1e-11),
        ('torch', 'exponential', lambda o: o.exponential(0.1, decay=0.94, steps=1), 1e-13),
        ('optax', 'linear_decay', lambda o: o.linear_decay(0.1, 0.001, 20), 1e-6),  # float32 under x64 there
        ('optax', 'cosine', lambda o: o.cosine(0.1, steps=20), 1e-6),
        ('optax', 'warmup', lambda o: o.warmup(7, o.constant(0.1)), 1e-6),
    ],
)
def test_schedules(optim, file, name, make, rtol):
    expected = np.load(FOLDER / f'{file}.npz')[f'rate {name}']
    with jax.enable_x64(True):
        ours = [float(make(optim)(jnp.int32(k))) for k in range(len(expected))]
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=1e-15)
