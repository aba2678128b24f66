"""The forms for XLA's CPU compiler against the plain ones and against finite differences: outputs and gradients."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from canon import backend, ops


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# name: (function of its arrays, shapes)
CASES = {
    'depthwise': (partial(ops.conv, padding=1, groups=4), (2, 7, 6, 4), (3, 3, 1, 4)),
    'depthwise, stride 2': (partial(ops.conv, stride=2, padding=1, groups=4), (2, 8, 7, 4), (3, 3, 1, 4)),
    'depthwise, two filters a channel': (
        partial(ops.conv, stride=2, padding='same', groups=3),
        (2, 7, 5, 3),
        (3, 3, 1, 6),
    ),
    'depthwise, stride 3, dilation 2': (
        partial(ops.conv, stride=(3, 2), padding=2, dilation=(2, 3), groups=2),
        (1, 11, 12, 2),
        (3, 4, 1, 2),
    ),
    'depthwise, stride 4 beyond the kernel': (partial(ops.conv, stride=4, groups=2), (1, 11, 9, 2), (2, 3, 1, 2)),
    'grouped': (partial(ops.conv, stride=2, padding=2, groups=2), (2, 7, 7, 6), (5, 5, 3, 4)),
    'pointwise': (ops.conv, (2, 5, 4, 3), (1, 1, 3, 5)),
    'pointwise, stride 2': (partial(ops.conv, stride=2), (2, 6, 5, 3), (1, 1, 3, 4)),
    'pointwise, padded': (partial(ops.conv, stride=(3, 2), padding=1), (2, 6, 5, 3), (1, 1, 3, 4)),
    'three by three': (partial(ops.conv, padding=1), (1, 14, 14, 64), (3, 3, 64, 96)),
    'three by three, many channels': (partial(ops.conv, padding=1), (1, 14, 14, 96), (3, 3, 96, 96)),
    'max': (partial(ops.max_pool, window=3, stride=2, padding=1), (2, 9, 8, 3)),
    'max, ceil': (partial(ops.max_pool, window=3, stride=2, ceil_mode=True), (2, 8, 8, 2)),
    'max, far apart': (partial(ops.max_pool, window=(2, 3), stride=(4, 5)), (1, 11, 12, 2)),
    'average': (partial(ops.avg_pool, window=3, stride=2, padding=1, count_include_pad=False), (2, 8, 7, 3)),
    'average, same': (partial(ops.avg_pool, window=(2, 3), stride=1, padding='same'), (2, 5, 6, 3)),
    'lrn': (partial(ops.lrn, alpha=0.3), (2, 3, 4, 7)),
    'lrn, even': (partial(ops.lrn, size=4, alpha=0.3, beta=0.6, k=1.0), (2, 3, 2, 6)),
    'lrn within': (partial(ops.lrn_within, alpha=0.4), (2, 5, 4, 3)),
    'lrn within, even': (partial(ops.lrn_within, size=2, alpha=0.4, divide_by_n=True), (1, 5, 4, 2)),
    'batch norm': (lambda x, a, b: ops.batch_norm_train(x, a, b, 1e-3), (3, 4, 5, 2), (2,), (2,)),
}


def both(name, dtype, wrap=lambda f: f):
    """{form: (outputs, gradients)}"""
    function, *shapes = CASES[name]
    arrays = [jnp.asarray(drawn(*s, seed=i), dtype) for i, s in enumerate(shapes)]

    def run(*arrays):
        y, pull = jax.vjp(wrap(function), *arrays)
        return y, pull(jax.tree.map(lambda v: jnp.cos(jnp.arange(v.size)).reshape(v.shape).astype(v.dtype), y))

    results = {}
    for form in ('cpu', 'plain'):
        with backend.forms(form):
            results[form] = jax.jit(lambda *a: run(*a))(*arrays)
    return results


@pytest.mark.parametrize('name', [n for n in CASES if n != 'batch norm'])
def test_forms_are_equal(name):
    with jax.enable_x64(True):
        actual = both(name, jnp.float64)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), actual['cpu'], actual['plain'])


def some_fast(*names, fast):
    """The names as parameters, of which those that are not in `fast` are slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize(
    'name',
    some_fast(
        'depthwise, stride 2', 'grouped', 'pointwise', 'max', 'average', 'lrn', fast=('depthwise, stride 2', 'max')
    ),
)
def test_forms_are_equal_in_bfloat16(name):
    """Each form rounds sums once: they differ by no more than a unit of bfloat16's last place or two."""
    actual = both(name, jnp.bfloat16)
    for a, b in zip(jax.tree.leaves(actual['cpu']), jax.tree.leaves(actual['plain']), strict=True):
        assert a.dtype == b.dtype == jnp.bfloat16
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() <= 2**-6 * np.abs(b).max()


@pytest.mark.parametrize(
    'name',
    some_fast(
        'depthwise, stride 2',
        'pointwise, stride 2',
        'three by three, many channels',
        'max',
        'average',
        'lrn',
        'batch norm',
        fast=('depthwise, stride 2', 'three by three, many channels', 'batch norm'),
    ),
)
def test_under_vmap(name):
    """A function of one more axis is the function of each of its rows."""
    function, *shapes = CASES[name]
    with jax.enable_x64(True), backend.forms('cpu'):
        arrays = [jnp.asarray(drawn(2, *s, seed=i)) for i, s in enumerate(shapes)]

        def gradient(*arrays):
            return jax.grad(
                lambda *a: sum(jnp.sin(y).sum() for y in jax.tree.leaves(function(*a))), range(len(shapes))
            )(*arrays)

        mapped = jax.jit(jax.vmap(gradient))(*arrays)
        of_a_row = jax.jit(lambda *a: gradient(*a))
        rows = [of_a_row(*(a[i] for a in arrays)) for i in range(2)]
    for m, *r in zip(mapped, *rows, strict=True):
        np.testing.assert_allclose(m, np.stack(r), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    'name',
    some_fast(*CASES, fast=('depthwise, stride 2', 'grouped', 'three by three', 'max', 'average', 'lrn', 'batch norm')),
)
def test_gradients_by_finite_differences(name):
    function, *shapes = CASES[name]
    with jax.enable_x64(True), backend.forms('cpu'):
        arrays = [jnp.asarray(drawn(*s, seed=i)) for i, s in enumerate(shapes)]
        if name.startswith('max'):  # far from ties
            arrays = [jnp.asarray(np.random.default_rng(0).permutation(arrays[0].size).reshape(arrays[0].shape) / 10.0)]
        check_grads(jax.jit(lambda *a: function(*a)), arrays, 1, ['rev'], atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize('form', ['cpu', 'plain'])
def test_not_a_number_gets_through_max_pooling(form):
    x = np.zeros((1, 6, 6, 1), np.float32)
    x[0, 2, 3] = np.nan
    with backend.forms(form):
        pooled = jax.jit(lambda x: ops.max_pool(x, 2))(x)
        value = jax.jit(lambda x: jax.vjp(lambda x: ops.max_pool(x, 2), x)[0])(x)
    expected = np.zeros((3, 3), bool)
    expected[1, 1] = True
    np.testing.assert_array_equal(np.isnan(pooled)[0, :, :, 0], expected)
    np.testing.assert_array_equal(np.isnan(value)[0, :, :, 0], expected)


def test_integers_are_pooled():
    x = np.random.default_rng(0).integers(-100, 100, (1, 6, 6, 2), np.int32)
    for form in ('cpu', 'plain'):
        with backend.forms(form):
            np.testing.assert_array_equal(
                jax.jit(lambda x: ops.max_pool(x, 2))(x), x.reshape(1, 3, 2, 3, 2, 2).max((2, 4))
            )


def test_a_backend_has_one_form():
    assert backend.cpu_form() == (jax.default_backend() == 'cpu')
    with backend.forms('plain'):
        assert not backend.cpu_form()
        with backend.forms('cpu'):
            assert backend.cpu_form()
        assert not backend.cpu_form()
    with pytest.raises(ValueError, match='not'):
        backend.forms('gpu').__enter__()


EIGHT = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from canon import backend, ops
from canon.nn import BatchNorm
from tests.ops.test_forms import CASES, drawn

assert len(jax.devices()) == 8
jax.config.update('jax_enable_x64', True)
mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
rows, everywhere = NamedSharding(mesh, P('data')), NamedSharding(mesh, P())
for name in ('depthwise, stride 2', 'pointwise, stride 2', 'three by three, many channels', 'grouped', 'max',
             'average', 'lrn', 'batch norm'):
    function, (_, *image), *shapes = CASES[name]
    arrays = [drawn(16, *image), *(drawn(*s, seed=i) for i, s in enumerate(shapes, 1))]
    gradient = lambda *a: jax.value_and_grad(
        lambda *a: sum(jnp.sin(y).sum() for y in jax.tree.leaves(function(*a))), range(len(a)))(*a)
    laid = [jax.device_put(a, rows if i == 0 else everywhere) for i, a in enumerate(arrays)]
    step = jax.jit(gradient, out_shardings=(everywhere, (rows, *(everywhere,) * len(shapes))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11, err_msg=name),
                 step(*laid), jax.jit(gradient)(*arrays))
    print(name)

# running statistics of a batch over eight devices are those of one: a device's two rows alone would give others
layer = BatchNorm()
x = drawn(16, 3, 3, 4) * np.arange(1, 17).reshape(-1, 1, 1, 1)
variables = layer.init(jax.random.key(0), x)
step = jax.jit(lambda v, x: layer.apply(v, x, train=True, mutable=['batch_stats']))
one, eight = step(variables, x), step(jax.device_put(variables, everywhere), jax.device_put(x, rows))
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), one, eight)
np.testing.assert_allclose(eight[1]['batch_stats']['var'], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-6)
"""


@pytest.mark.slow
def test_eight_devices_are_one():
    environment = {**os.environ, 'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', EIGHT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(done.stdout.splitlines()) == 8
