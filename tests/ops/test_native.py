"""The kernels in C++ against their twins in float64: values and gradients; and that Canon does without a compiler."""

import shutil
import subprocess
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend, native, ops
from canon.ops import recurrence
from tests.needs import skip_unless_needed


@pytest.fixture(autouse=True)
def kernels():
    skip_unless_needed('CANON_KERNELS', '' if native.is_available() else 'there is no C++ compiler')


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def count_kernels(function, *arrays):
    """The calls of kernels in the program of a function and its gradient."""
    return str(jax.make_jaxpr(lambda *a: jax.vjp(function, *a))(*arrays)).count('canon_')


def check(function, *shapes, kernels=True, tolerance=2e-6):
    """The values and gradients of the kernels in float32, against those of the twin in float64."""
    arrays = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]

    def run(dtype):
        y, pull = jax.vjp(function, *(jnp.asarray(a, dtype) for a in arrays))
        upstream = jax.tree.map(lambda leaf: jnp.asarray(draw(*leaf.shape, seed=9), leaf.dtype), y)
        return jax.tree.map(np.asarray, (y, pull(upstream)))

    assert bool(count_kernels(function, *(jnp.asarray(a, jnp.float32) for a in arrays))) == kernels
    measured = run(jnp.float32)
    with jax.enable_x64(True), backend.forms('cpu'):
        expected = run(jnp.float64)
    for a, b in zip(jax.tree.leaves(measured), jax.tree.leaves(expected), strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, np.abs(b).max(initial=0)))


# --- recurrences ----------------------------------------------------------------------------------------------------


def run_cell(kind, *arrays, lengths=None, reverse=False):
    """x, kernel, recurrent, bias and the states, then what else the cell has."""
    x, kernel, recurrent, bias, *rest = arrays
    recurrent = recurrent / np.sqrt(len(recurrent))
    more = {'lengths': lengths, 'reverse': reverse}
    if kind == 'lstm':
        return recurrence.lstm(x, kernel, recurrent, bias, tuple(rest), **more)
    if kind == 'gru':
        return recurrence.gru(x, kernel, recurrent, bias, rest[1], rest[0], **more)
    return recurrence.rnn(x, kernel, recurrent, bias, rest[0], **more)


def list_shapes(kind, rows, steps, hidden, inputs=3):
    gates = {'lstm': 4, 'gru': 3, 'rnn': 1}[kind]
    rest = {'lstm': [(rows, hidden)] * 2, 'gru': [(rows, hidden), (hidden,)], 'rnn': [(rows, hidden)]}[kind]
    width = gates * hidden
    return [(rows, steps, inputs), (inputs, width), (hidden, width), (width,), *rest]


@pytest.mark.parametrize('kind', ['lstm', 'gru', 'rnn'])
@pytest.mark.parametrize(('rows', 'steps', 'hidden'), [(1, 1, 1), (3, 7, 5), (33, 4, 17), (101, 3, 48), (2, 30, 70)])
def test_recurrences(kind, rows, steps, hidden):
    check(partial(run_cell, kind), *list_shapes(kind, rows, steps, hidden), tolerance=1e-5)


@pytest.mark.parametrize('kind', ['lstm', 'gru', 'rnn'])
@pytest.mark.parametrize('reverse', [False, True])
def test_recurrences_with_lengths(kind, reverse):
    lengths = [5, 0, 3, 1, 5]
    cell = partial(run_cell, kind, lengths=lengths, reverse=reverse)
    check(cell, *list_shapes(kind, 5, 5, 19), tolerance=1e-5)


@pytest.mark.parametrize('kind', ['lstm', 'gru', 'rnn'])
def test_recurrences_of_no_steps_or_no_rows(kind):
    check(partial(run_cell, kind), *list_shapes(kind, 2, 0, 4))
    check(partial(run_cell, kind), *list_shapes(kind, 0, 3, 4))


def test_activations_to_a_unit_in_the_last_place():
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-6, -1e-6, 1e-20, 50, -50, 90, -90, 1e30, -1e30, np.inf]])
    x = x.astype(np.float32)
    zero = jnp.zeros
    # A step of the vanilla RNN without weights is tanh; r of the GRU is a sigmoid, seen through n = tanh(r q).
    y, _ = recurrence.rnn(jnp.asarray(x)[:, None, None], jnp.ones((1, 1)), zero((1, 1)))
    np.testing.assert_allclose(y[:, 0, 0], np.tanh(x.astype(np.float64)), rtol=3e-7)
    x = x[np.isfinite(x)]  # times the zeros below
    y, _ = recurrence.gru(
        jnp.asarray(x)[:, None, None], jnp.array([[0.0, 1, 0]]), zero((1, 3)), initial=zero((len(x), 1)) + 1
    )
    np.testing.assert_allclose(
        y[:, 0, 0], 1 / (1 + np.exp(-np.maximum(x, -700).astype(np.float64))), rtol=4e-7, atol=1e-37
    )
    nan, _ = recurrence.rnn(jnp.full((1, 1, 1), np.nan), jnp.ones((1, 1)), zero((1, 1)))
    assert np.isnan(nan).all()


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('channels', [1, 3, 4])
@pytest.mark.parametrize(
    ('size', 'window', 'stride', 'padding', 'filters'),
    [
        ((7, 6), (3, 3), 1, 1, 6),
        ((33, 21), (7, 7), 2, 3, 64),
        ((23, 24), (11, 11), 4, 0, 96),
        ((5, 40), (5, 2), (1, 3), ((0, 4), (1, 0)), 131),
        ((9, 1), (1, 1 + 1), 2, 'same', 16),
        ((8, 9), (4, 4), 3, 'valid', 1),
    ],
)
def test_convolution_of_a_few_channels(channels, size, window, stride, padding, filters):
    shapes = (3, *size, channels), (*window, channels, filters)
    check(lambda images, kernel: ops.conv(images, kernel, stride, padding), *shapes, tolerance=1e-5)


def test_convolution_of_no_images():
    check(lambda images, kernel: ops.conv(images, kernel, 1, 1), (0, 5, 6, 3), (3, 3, 3, 8))


def test_the_kernel_convolves_what_it_is_faster_at():
    def count(images, kernel, **options):
        return count_kernels(lambda *a: ops.conv(*a, **options), jnp.ones(images), jnp.ones(kernel))

    assert count((2, 9, 9, 3), (3, 3, 3, 8)) == 1
    assert not count((2, 9, 9, 5), (3, 3, 5, 8))
    assert not count((2, 9, 9, 3), (3, 3, 3, 8), dilation=2)


@pytest.mark.filterwarnings('ignore:invalid value')
@pytest.mark.parametrize('shape', [(0, 5, 3), (2, 7, 6, 3), (1, 1, 1, 1), (3, 33, 21, 70), (5, 64), (2, 4, 5, 131)])
def test_batch_norm(shape):
    check(lambda *a: ops.batch_norm_train(*a, 1e-3), shape, shape[-1:], shape[-1:], tolerance=1e-5)


def test_the_variance_of_values_far_from_zero():
    x = (draw(5000, 20) + 1e4).astype(np.float32)
    _, mean, var = ops.batch_norm_train(jnp.asarray(x), jnp.ones(20), jnp.zeros(20), 1e-5)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-5)  # E[x^2] - mean^2 is off by 6


POOLS = {
    'overlapping': (3, 2, 1),
    'apart': ((2, 3), (4, 5), 0),
    'one': (1, 1, 0),
    'same': ((3, 2), 1, 'same'),
    'large': (7, 3, 3),
}


@pytest.mark.parametrize('channels', [1, 16, 35])
@pytest.mark.parametrize('name', POOLS)
def test_max_pool(name, channels):
    window, stride, padding = POOLS[name]
    check(lambda x: ops.max_pool(x, window, stride, padding), (2, 11, 9, channels))


def test_max_pool_of_ties_and_what_is_not_a_number():
    x = np.random.default_rng(0).integers(0, 3, (2, 9, 8, 5)).astype(np.float32)
    x[0, 2, 2, 1], x[0, 4:, :, 2], x[1, 0, 0] = np.nan, -np.inf, np.inf
    pool = partial(ops.max_pool, window=3, stride=2, padding=1)

    def run():
        y, pull = jax.vjp(pool, jnp.asarray(x))
        return y, *pull(jnp.arange(y.size, dtype=jnp.float32).reshape(y.shape))

    measured = run()
    with backend.forms('cpu'):
        expected = run()
    for a, b in zip(measured, expected, strict=True):
        np.testing.assert_array_equal(a, b)


CONVOLUTIONS = {
    'same': {'padding': 1},
    'stride 2': {'padding': 1, 'stride': 2},
    'dilated': {'padding': 2, 'dilation': (2, 3), 'stride': (3, 2)},
    'without padding': {},
    'cropped': {'padding': ((-1, 2), (3, -1))},
}


@pytest.mark.parametrize('window', [3, 5])
@pytest.mark.parametrize('channels', [1, 17, 70])
@pytest.mark.parametrize('name', CONVOLUTIONS)
def test_depthwise(name, channels, window):
    convolve = partial(ops.conv, groups=channels, **CONVOLUTIONS[name])
    kernels = channels > 1 or name not in ('dilated', 'cropped')  # one channel is convolved as a few are
    check(convolve, (2, 13, 12, channels), (window, window, 1, channels), kernels=kernels, tolerance=1e-5)


def square_gradient(function):
    """The sum of the squares of a function's gradient: its own gradient is of second order."""

    def value(*arrays):
        def total(*arrays):
            return sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(function(*arrays)))

        gradient = jax.grad(total, tuple(range(len(arrays))))(*arrays)
        return sum(jnp.square(leaf).sum() for leaf in gradient)

    return value


SECOND = {
    'max pool': (partial(ops.max_pool, window=3, stride=2, padding=1), (2, 7, 6, 3)),
    'batch norm': (lambda *a: ops.batch_norm_train(*a, 1e-3), (3, 4, 5, 2), (2,), (2,)),
    'convolution': (partial(ops.conv, stride=2, padding=1), (2, 7, 6, 3), (3, 3, 3, 4)),
    'depthwise': (partial(ops.conv, stride=2, padding=1, groups=4), (2, 7, 6, 4), (3, 3, 1, 4)),
    **{kind: (partial(run_cell, kind), *list_shapes(kind, 2, 4, 3)) for kind in ('lstm', 'gru', 'rnn')},
    **{
        f'{kind}, lengths': (partial(run_cell, kind, lengths=[4, 2], reverse=True), *list_shapes(kind, 2, 4, 3))
        for kind in ('lstm', 'gru', 'rnn')
    },
}


@pytest.mark.parametrize('name', SECOND)
def test_gradients_of_gradients(name):
    function, *shapes = SECOND[name]
    check(square_gradient(function), *shapes, tolerance=2e-5)


@pytest.mark.parametrize('name', SECOND)
def test_forward_over_reverse(name):
    function, *shapes = SECOND[name]
    arrays = [jnp.asarray(draw(*shape, seed=i), jnp.float32) for i, shape in enumerate(shapes)]
    gradient = jax.grad(lambda *a: sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(function(*a))))
    _, tangent = jax.jvp(lambda x: gradient(x, *arrays[1:]), arrays[:1], arrays[:1])
    with jax.enable_x64(True), backend.forms('cpu'):
        wide = [jnp.asarray(np.asarray(a), jnp.float64) for a in arrays]
        _, expected = jax.jvp(lambda x: gradient(x, *wide[1:]), wide[:1], wide[:1])
    np.testing.assert_allclose(tangent, expected, atol=2e-5 * max(1, np.abs(expected).max()))


def test_the_mean_beside_an_outlier():
    x = draw(20000, 3).astype(np.float32)
    x[0] = 1e4
    _, mean, var = ops.batch_norm_train(jnp.asarray(x), jnp.ones(3), jnp.zeros(3), 1e-5)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), atol=1e-4)
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=3e-4)


def test_under_vmap_and_in_a_loop():
    x, w = jnp.asarray(draw(3, 2, 7, 6, 4), jnp.float32), jnp.asarray(draw(3, 3, 1, 4), jnp.float32)
    convolve = partial(ops.conv, padding=1, groups=4)
    expected = np.stack([convolve(one, w) for one in x])
    np.testing.assert_array_equal(jax.vmap(convolve, (0, None))(x, w), expected)
    np.testing.assert_array_equal(jax.lax.map(lambda one: convolve(one, w), x), expected)


# --- where there are none -------------------------------------------------------------------------------------------


def test_other_types_and_several_devices_do_without(monkeypatch):
    x = jnp.ones((1, 4, 4, 2))
    pool = partial(ops.max_pool, window=2)
    assert count_kernels(pool, x)
    assert not count_kernels(pool, x.astype(jnp.bfloat16))
    with backend.forms('plain'):
        assert not count_kernels(lambda x: pool(x), x)
    monkeypatch.setattr(jax, 'device_count', lambda: 2)
    assert not count_kernels(lambda x: pool(x), x)


def test_a_library_is_built_once_and_one_line_says_why_not(tmp_path, monkeypatch, caplog):
    library = native.build(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [library.name]  # and nothing half built
    monkeypatch.setattr(subprocess, 'run', None)
    assert native.build(tmp_path) == library
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(OSError, match=r'there is no C\+\+ compiler; install g\+\+'):
        native.build(tmp_path)
    native._register.cache_clear()
    assert not native.is_available()
    assert caplog.messages[-1].startswith('the kernels in C++ cannot be built, so slower forms are used: there is no')
    native._register.cache_clear()
