"""SRN and DVR against counts and their equations in float64 numpy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models.srn import clip_gradient
from tests.quick import quick_jit

rng = np.random.default_rng(0)


def count(variables) -> int:
    return sum(x.size for x in jax.tree.leaves(variables['params']))


def test_parameters():
    """By hand from the authors' code: SRN's field, LSTM (one bias of 64 less), step, generator; DVR's blocks."""
    layer = 256 * 256 + 256 + 2 * 256
    field, generator = 3 * 256 + 256 + 512 + 3 * layer, 5 * layer + 256 * 3 + 3
    lstm = 4 * 16 * (256 + 16) + 64
    rays = jnp.ones((2, 3)), jnp.ones((2, 3))
    srn = jax.eval_shape(models.make_model('srn.srn').init, jax.random.key(0), *rays)
    assert count(srn) == field + lstm + 17 + generator == 550_228
    dvr = jax.eval_shape(models.make_model('dvr.dvr').init, jax.random.key(0), jnp.ones((2, 3)))
    assert count(dvr) == 3 * 512 + 512 + 10 * (512 * 512 + 512) + 512 * 4 + 4 == 2_630_660


def drawn(model, *given):
    """Its variables in float64, moved away from their special starts."""
    variables = quick_jit(model.init)(jax.random.key(0), *given)
    return jax.tree.map(lambda x: np.asarray(x, np.float64) + 0.1 * rng.normal(size=x.shape), variables)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_srns_equations():
    model = models.make_model('srn.srn', width=6, layers=3, generator_layers=2, hidden=4, steps=2, start=1.5)
    origins, directions = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    with jax.enable_x64(True):
        variables = drawn(model, jnp.asarray(origins), jnp.asarray(directions))
        colours, distances = quick_jit(model.apply)(variables, jnp.asarray(origins), jnp.asarray(directions))
    p = variables['params']

    def stack(x, name, layers):
        for layer in range(layers):
            dense, norm = p[name][f'layer_{layer}'], p[name][f'norm_{layer}']
            x = x @ dense['kernel'] + dense['bias']
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5) * norm['scale'] + norm['bias']
            x = np.maximum(x, 0)
        return x

    cell = p['marcher']['forward_0']
    for i in range(5):
        t, h, c = 1.5, np.zeros(4), np.zeros(4)
        for _ in range(2):
            v = stack(origins[i] + t * directions[i], 'field', 3)
            gates = np.split(v @ cell['kernel'] + h @ cell['recurrent'] + cell['bias'], 4)
            c = sigmoid(gates[1]) * c + sigmoid(gates[0]) * np.tanh(gates[2])
            h = sigmoid(gates[3]) * np.tanh(c)
            t += (h @ p['length']['kernel'] + p['length']['bias'])[0] / np.linalg.norm(directions[i])
        v = stack(stack(origins[i] + t * directions[i], 'field', 3), 'generator', 2)
        np.testing.assert_allclose(distances[i], t, rtol=1e-9)
        np.testing.assert_allclose(colours[i], (v @ p['colour']['kernel'] + p['colour']['bias']) / 2 + 0.5, rtol=1e-9)


def test_srns_marching_starts_at_random_distances():
    model = models.make_model('srn.srn', width=6, layers=1, generator_layers=1, steps=1, start=2.0, spread=0.1)
    rays = jnp.ones((2000, 3)), jnp.ones((2000, 3))
    variables = quick_jit(model.init)(jax.random.key(0), *rays)
    bias = variables['params']['marcher']['forward_0']['bias']
    np.testing.assert_array_equal(bias, [0] * 16 + [1] * 16 + [0] * 32)
    still = dict(variables['params'], length=jax.tree.map(jnp.zeros_like, variables['params']['length']))
    t = quick_jit(model.apply)({'params': still}, *rays, jax.random.key(1))[1]
    np.testing.assert_allclose((t.mean(), t.std()), (2, 0.1), atol=0.01)


def test_the_gradient_of_the_marcher_is_clipped():
    h = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(clip_gradient(h), h)
    np.testing.assert_array_equal(
        jax.grad(lambda h: (clip_gradient(h) * jnp.array([3.0, -50, 20])).sum())(h), [3, -10, 10]
    )


def test_dvrs_equations():
    model = models.make_model('dvr.dvr', width=7, blocks=2)
    points = rng.normal(size=(4, 5, 3))
    with jax.enable_x64(True):
        variables = drawn(model, jnp.asarray(points))
        logits, colours = quick_jit(model.apply)(variables, jnp.asarray(points))
    p = variables['params']

    def dense(x, name):
        return x @ p[name]['kernel'] + p[name]['bias']

    for i in np.ndindex(4, 5):
        h = dense(points[i], 'point')
        for block in range(2):
            inner = dense(np.maximum(h, 0), f'block_{block}_0')
            h = h + dense(np.maximum(inner, 0), f'block_{block}_1')
        out = dense(np.maximum(h, 0), 'out')
        np.testing.assert_allclose(logits[i], out[0], rtol=1e-9)
        np.testing.assert_allclose(colours[i], sigmoid(out[1:]), rtol=1e-9)


def test_dvr_starts_as_torch_does():
    """Blocks add a constant at first; weights are even in +-1 / sqrt(inputs)."""
    p = quick_jit(models.make_model('dvr.dvr', width=128, blocks=1).init)(jax.random.key(0), jnp.ones((1, 3)))['params']
    np.testing.assert_array_equal(p['block_0_1']['kernel'], 0)
    for name, inputs in (('point', 3), ('block_0_0', 128), ('out', 128)):
        kernel = p[name]['kernel']
        assert 0.95 * inputs**-0.5 < jnp.abs(kernel).max() <= inputs**-0.5
        np.testing.assert_allclose(kernel.std(), (3 * inputs) ** -0.5, rtol=0.1)


@pytest.mark.parametrize(
    ('name', 'arguments'), [('srn.srn', {'steps': 0}), ('srn.srn', {'width': 0}), ('dvr.dvr', {'blocks': 0})]
)
def test_bad_arguments_are_refused(name, arguments):
    ((key, value),) = arguments.items()
    with pytest.raises(UsageError, match=rf'model\.{key}={value} must be at least 1'):
        models.make_model(name, **arguments)
