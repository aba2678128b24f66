"""CRNN against the counts of table 1, the published total, and a float64 numpy forward pass in loops."""

import jax
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from tests.quick import quick_jit

SMALL = dict(num_classes=3, features=(3, 4, 5, 4, 6, 5, 4), hidden=5)


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def shapes(width=100, **kwargs):
    """(abstract variables, abstract logits)."""
    model, images = models.make_model('crnn.crnn', **kwargs), np.zeros((2, 32, width, 1), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return variables, jax.eval_shape(model.apply, variables, images)


def test_parameters():
    """The convolutions of table 1; LSTMs of 4 (n (in + n) + n) per direction; a linear layer over both directions."""
    variables, _ = shapes()
    sizes = {name: count(layer) for name, layer in variables['params'].items()}
    widths = (1, 64, 128, 256, 256, 512, 512, 512)
    for i, size in enumerate((3, 3, 3, 3, 3, 3, 2)):
        assert sizes.pop(f'conv{i + 1}') == size**2 * widths[i] * widths[i + 1] + widths[i + 1]
    assert sizes == {
        'bn5': 2 * 512,
        'bn6': 2 * 512,
        'lstm1': 2 * 4 * (256 * (512 + 256) + 256) + 512 * 256 + 256,
        'lstm2': 2 * 4 * (256 * (256 + 256) + 256) + 512 * 37 + 37,
    }
    assert count(variables['params']) == 8_326_693
    assert round(count(variables['params']) / 1e6, 1) == 8.3  # as published


@pytest.mark.parametrize(
    ('width', 'frames', 'pooling'), [(96, 25, 'code'), (281, 71, 'code'), (100, 24, 'paper'), (281, 69, 'paper')]
)
def test_frames(width, frames, pooling):
    """100 columns give 26 frames as in the authors' code, 24 with the windows of the paper's table."""
    _, logits = shapes(width, pooling=pooling)
    assert (logits.shape, logits.dtype) == ((2, frames, 37), np.float32)


def forward(variables, images, batch_norm):
    """The network in loops, float64; `images` [H, W, C]."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])
    stats = jax.tree.map(lambda x: np.asarray(x, np.float64), variables['batch_stats'])

    def windows(x, size, stride=(1, 1)):
        rows, columns = ((n - size) // s + 1 for n, s in zip(x.shape[:2], stride, strict=True))
        out = np.empty((rows, columns, size, size, x.shape[2]))
        for i, j in np.ndindex(rows, columns):
            y, z = i * stride[0], j * stride[1]
            out[i, j] = x[y : y + size, z : z + size]
        return out

    x = images
    for n in range(1, 8):
        kernel, bias = p[f'conv{n}']['kernel'], p[f'conv{n}']['bias']
        x = x if n == 7 else np.pad(x, ((1, 1), (1, 1), (0, 0)))
        x = np.tensordot(windows(x, len(kernel)), kernel, 3) + bias
        if n in batch_norm:
            normal = (x - stats[f'bn{n}']['mean']) / np.sqrt(stats[f'bn{n}']['var'] + 1e-5)
            x = normal * p[f'bn{n}']['scale'] + p[f'bn{n}']['bias']
        x = np.maximum(x, 0)
        if n in (1, 2):
            x = windows(x, 2, (2, 2)).max((2, 3))
        if n in (4, 6):
            x = windows(np.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=-np.inf), 2, (2, 1)).max((2, 3))
    (x,) = x
    for name in ('lstm1', 'lstm2'):
        ahead, behind = lstm(p[name]['lstm']['forward_0'], x), lstm(p[name]['lstm']['backward_0'], x[::-1])[::-1]
        x = np.concatenate([ahead, behind], 1) @ p[name]['output']['kernel'] + p[name]['output']['bias']
    return x


def lstm(p, frames):
    """Gates i, f, g, o of the input and the last output; c = f c + i g, h = o tanh c."""
    size = len(p['recurrent'])
    c, h, out = np.zeros(size), np.zeros(size), []
    for x in frames:
        i, f, g, o = np.split(x @ p['kernel'] + h @ p['recurrent'] + p['bias'], 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize('batch_norm', [(5, 6), (3, 5, 7)])
def test_forward(batch_norm):
    model = models.make_model('crnn.crnn', **SMALL, batch_norm=batch_norm)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 32, 40, 1)).astype(np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda x: rng.uniform(0.2, 0.4, x.shape) * rng.choice((-1, 1), x.shape), variables)
    variables = {**variables, 'batch_stats': jax.tree.map(np.abs, variables['batch_stats'])}
    variables = jax.tree.map(np.float32, variables)
    logits = np.asarray(quick_jit(model.apply)(variables, images), np.float64)
    expected = np.stack([forward(variables, image.astype(np.float64), batch_norm) for image in images])
    assert logits.shape == (2, 11, 4)
    np.testing.assert_allclose(logits, expected, atol=3e-6 * np.abs(expected).max())


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    variables, logits = shapes(**SMALL, dtype='bfloat16')
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(variables))
    assert logits.dtype == np.float32


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match=r'model\.features=\(1, 2\) has 2 widths; CRNN has seven convolutions'):
        models.make_model('crnn.crnn', features=(1, 2))
    with pytest.raises(UsageError, match=r'model\.batch_norm=\(5, 8\)'):
        models.make_model('crnn.crnn', batch_norm=(5, 8))
    model = models.make_model('crnn.crnn', **SMALL)
    with pytest.raises(UsageError, match='32 pixels high, not 48; resize them'):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 48, 100, 1)))
