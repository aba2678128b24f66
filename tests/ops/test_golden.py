"""Layers against torch's in float64, gradients too: tests/ops/golden/torch.npz, by tools/golden/layers_torch.py."""

import json
from collections import defaultdict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend, ops
from canon.nn import BatchNorm

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'torch.npz')
CASES = defaultdict(list)
for number, (name, keywords) in enumerate(json.loads(str(GOLDEN['cases']))):
    CASES[name].append((number, {k: tuple(v) if isinstance(v, list) else v for k, v in keywords.items()}))


def with_gradients(function, inputs):
    """The output, and the gradients of sum(y cos(0, 1, 2, ..))."""
    y, pull = jax.vjp(function, *inputs)
    return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


@pytest.mark.parametrize('form', ['cpu', 'plain'])
@pytest.mark.parametrize('name', CASES)
def test_equals_torch(name, form):
    function, cases = getattr(ops, name), CASES[name]
    inputs = [
        [GOLDEN[f'{i}/{quantity}'] for quantity in ('x', 'kernel') if f'{i}/{quantity}' in GOLDEN] for i, _ in cases
    ]

    def every(inputs):
        return [
            with_gradients(lambda *v, k=keywords: function(*v, **k), v)
            for v, (_, keywords) in zip(inputs, cases, strict=True)
        ]

    with jax.enable_x64(True), backend.forms(form):
        results = jax.jit(every)(inputs)
    for (i, keywords), actual in zip(cases, results, strict=True):
        for quantity, value in zip(('y', 'dx', 'dkernel'), actual, strict=False):
            expected = GOLDEN[f'{i}/{quantity}']
            np.testing.assert_allclose(
                value, expected, rtol=1e-10, atol=1e-10, err_msg=f'{name}, {keywords}, {quantity}'
            )


def test_batch_norm_in_training_and_frozen():
    """Output, gradients and running statistics of three training steps; then with the statistics kept."""
    layer = BatchNorm(decay=0.8, eps=1e-3)
    with jax.enable_x64(True):
        params = {'scale': GOLDEN['bn/scale'], 'bias': GOLDEN['bn/bias']}
        stats = {'mean': jnp.zeros(3), 'var': jnp.ones(3)}
        for step in range(4):
            frozen = step == 3

            def forward(x, params, stats=stats, frozen=frozen):
                variables = {'params': params, 'batch_stats': stats}
                return layer.clone(frozen=frozen).apply(variables, x, train=True, mutable=['batch_stats'])

            x = jnp.asarray(GOLDEN[f'bn/{step}/x'])
            y, pull, mutated = jax.vjp(forward, x, params, has_aux=True)
            dx, dparams = pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))
            stats = mutated['batch_stats']
            actual = {'y': y, 'dx': dx, 'dscale': dparams['scale'], 'dbias': dparams['bias'], **stats}
            for quantity, value in actual.items():
                expected = GOLDEN[f'bn/{step}/{quantity}']
                np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-10, err_msg=f'step {step}: {quantity}')
