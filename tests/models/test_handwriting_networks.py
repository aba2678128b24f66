"""Networks of handwriting: parameters of the layers that the papers list, and forward passes written out."""

import itertools

import jax
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit

from canon import models
from canon.errors import UsageError
from tests.quick import quick_jit


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def draw_variables(model, images):
    """Variables from a seed, without compiling the initialisation: about normal, and variances and scales near 1."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        near_one = path[-1].key in ('var', 'scale')
        values = rng.uniform(0.5, 1.5, leaf.shape) if near_one else rng.normal(size=leaf.shape) * 0.4
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), images))


def shape_of(name, size, **arguments):
    """(abstract variables, abstract logits) of a batch of two grey images."""
    model, images = models.make_model(name, **arguments), np.zeros((2, *size, 1), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return variables, jax.eval_shape(model.apply, variables, images)


def test_the_layers_of_laia():
    variables, logits = shape_of('laia.laia', (128, 1001))
    sizes = {name: count(layer) for name, layer in variables['params'].items()}
    widths = (1, 16, 32, 48, 64, 80)
    for number in range(1, 6):
        assert sizes.pop(f'conv{number}') == 9 * widths[number - 1] * widths[number]
        assert sizes.pop(f'bn{number}') == 2 * widths[number]
    inputs = (16 * 80, 512, 512, 512, 512)  # 128 rows become 16
    assert [sizes.pop(f'lstm{n}') for n in range(1, 6)] == [2 * 4 * 256 * (i + 256 + 1) for i in inputs]
    assert sizes == {'output': 512 * 96 + 96}
    assert count(variables['params']) == 9_589_456
    assert logits.shape == (2, 125, 96)
    assert shape_of('laia.laia', (32, 203), pools=((2, 2), (2, 2), (2, 1)), layers=1)[1].shape == (2, 50, 96)


def test_the_layers_of_hccr():
    """The paper's 41.5 MB are 4 bytes of each weight, in units of 2^20."""
    variables, logits = shape_of('hccr.hccr_cnn9', (96, 96))
    widths = (1, 96, 128, 160, 256, 256, 384, 384)
    convolutions = sum(9 * a * b for a, b in itertools.pairwise(widths))
    linear = 3 * 3 * 384 * 1024 + 1024 * 3755 + 3755
    per_channel = 3 * (sum(widths[1:]) + 1024)  # scales, biases and slopes
    assert count(variables['params']) == convolutions + linear + per_channel
    assert 4 * count(variables['params']) / 2**20 == pytest.approx(41.5, abs=0.1)
    assert logits.shape == (2, 3755)
    model = models.make_model('hccr.hccr_cnn9', width=0.25)
    stages = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, features=True)[0], np.zeros((1, 64, 64, 1))
    )
    assert [stages[f'conv{n}'].shape[1:] for n in (1, 4, 7)] == [(64, 64, 24), (8, 8, 64), (4, 4, 96)]


def to_float64(variables):
    """The parameters and the batch statistics, so that a reference in numpy is exact."""
    double = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
    return double['params'], double['batch_stats']


def convolve(x, kernel):
    windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), axis=(1, 2))
    return np.einsum('bhwcij,ijco->bhwo', windows, kernel)


def normalise(x, params, stats, name):
    p, s = params[name], stats[name]
    return (x - s['mean']) / np.sqrt(s['var'] + 1e-5) * p['scale'] + p['bias']


def run_lstm(p, x):
    """The equations of the LSTM step by step: x [B, T, I] -> [B, T, H], gates in the order i, f, g, o."""
    h = c = np.zeros((len(x), p['recurrent'].shape[0]))
    outputs = []
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ p['kernel'] + h @ p['recurrent'] + p['bias'], 4, axis=1)
        c = expit(f) * c + expit(i) * np.tanh(g)
        h = expit(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1)


def test_laia_is_its_layers_written_out():
    model = models.make_model(
        'laia.laia', num_classes=4, features=(2, 3, 3), pools=((2, 2), (2, 1)), hidden=3, layers=2
    )
    images = np.random.default_rng(0).normal(size=(2, 13, 11, 1)).astype(np.float32)
    variables = draw_variables(model, images)
    logits = quick_jit(model.apply)(variables, images)
    params, stats = to_float64(variables)
    x = images.astype(np.float64)
    for number, window in ((1, (2, 2)), (2, (2, 1)), (3, None)):
        x = normalise(convolve(x, params[f'conv{number}']['kernel']), params, stats, f'bn{number}')
        x = np.where(x > 0, x, 0.01 * x)
        if window:
            h, w = (n // s for n, s in zip(x.shape[1:3], window, strict=True))
            x = x[:, : h * window[0], : w * window[1]].reshape(2, h, window[0], w, window[1], -1).max((2, 4))
    # A frame has the channels of all rows, row by row.
    x = np.stack([x[:, :, t].reshape(2, -1) for t in range(x.shape[2])], 1)
    for name in ('lstm1', 'lstm2'):
        ahead = run_lstm(params[name]['forward_0'], x)
        behind = run_lstm(params[name]['backward_0'], x[:, ::-1])[:, ::-1]
        x = np.concatenate([ahead, behind], -1)
    expected = x @ params['output']['kernel'] + params['output']['bias']
    assert logits.shape == (2, 5, 5)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_hccr_is_its_layers_written_out():
    model = models.make_model('hccr.hccr_cnn9', num_classes=5, width=1 / 32)
    images = np.random.default_rng(1).normal(size=(2, 33, 36, 1)).astype(np.float32)
    variables = draw_variables(model, images)
    logits = quick_jit(model.apply)(variables, images)
    params, stats = to_float64(variables)

    def activate(x, number):
        x = normalise(x, params, stats, f'bn{number}')
        return np.maximum(x, 0) + params[f'prelu{number}']['slopes'] * np.minimum(x, 0)

    x = images.astype(np.float64)
    for number in range(1, 8):
        x = activate(convolve(x, params[f'conv{number}']['kernel']), number)
        if number in (1, 2, 3, 5, 7):
            # Windows of three from every second pixel; one that begins within the map and ends beyond it counts.
            rows, columns = (range(0, max(n - 2, 1) + (n % 2 == 0), 2) for n in x.shape[1:3])
            x = np.stack([np.stack([x[:, i : i + 3, j : j + 3].max((1, 2)) for j in columns], 1) for i in rows], 1)
    x = activate(x.reshape(2, -1) @ params['fc1']['kernel'], 8)
    expected = x @ params['fc2']['kernel'] + params['fc2']['bias']
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_pools_that_do_not_fit():
    for pools in (((2, 2),) * 6, ((2, 2, 1),)):
        with pytest.raises(UsageError, match=r'model\.pools=.* must be pairs \(height, width\), at most one'):
            models.make_model('laia.laia', pools=pools)
