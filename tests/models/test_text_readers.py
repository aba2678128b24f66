"""CRNN's forms, the rectifier and the attention reader against deep-text-recognition-benchmark's networks in torch."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from canon import models, weights
from canon.errors import UsageError
from canon.nn import rectifier
from canon.weights.crnn import CRNN_PYTORCH, DTRB, recogniser_reader
from tests.models.drawn import draw_parameter, images
from tests.models.goldens import count, shapes_of
from tests.quick import quick_jit

GOLDEN = dict(np.load(Path(__file__).parent / 'golden/text_recognition.npz'))
WIDTH, HIDDEN, FIDUCIALS = 32, 6, 8
PYTORCH: dict[str, Any] = dict(features=(4, 8, 16, 16, 32, 32, 32), hidden=HIDDEN, batch_norm=(3, 5, 7))


def keys_of(name):
    """{torch's key: shape}."""
    rows = zip(GOLDEN[f'{name}/keys'], GOLDEN[f'{name}/shapes'], strict=True)
    return {str(key): tuple(map(int, shape.split(','))) for key, shape in rows}


def draw(key, shape):
    """The rule of tools/golden/crnn_torch.py: the rectifier's points stay near the borders."""
    value = draw_parameter(key, shape)
    if key.endswith('localization_fc2.weight'):
        return value * np.float32(0.02)
    if key.endswith('localization_fc2.bias'):
        across = np.linspace(-0.9, 0.8, shape[0] // 4)
        return np.array([(a, y + 0.2 * a) for y in (-0.7, 0.6) for a in across], np.float32).ravel()
    return value


def tensors_of(name):
    return {key: draw(key, shape) for key, shape in keys_of(name).items()}


def reader_shapes(model, height=32):
    return jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, height, 100, 1)), np.zeros((1, 4), np.int32))


def relative(ours, golden):
    return np.abs(np.asarray(ours) - golden).max() / np.abs(golden).max()


@pytest.mark.parametrize(
    ('name', 'model', 'height', 'frames'),
    [
        ('dtrb32', models.make_model('crnn.dtrb', num_classes=36, width=WIDTH, hidden=HIDDEN), 32, 24),
        pytest.param(
            *('dtrb64', models.make_model('crnn.dtrb', num_classes=96, width=WIDTH, hidden=HIDDEN, height=64), 64, 24),
            marks=pytest.mark.slow,
        ),
        pytest.param(*('crnn_pytorch', models.make_model('crnn.crnn', **PYTORCH), 32, 26), marks=pytest.mark.slow),
    ],
)
def test_crnn_against_torch(name, model, height, frames, tmp_path):
    """Heights of 32 and 64, 37 and 97 classes; the file is found by the name of the constructor alone."""
    weights.write(tmp_path / 'a.safetensors', tensors_of(name))
    variables = weights.load_variables(tmp_path / 'a.safetensors', 'crnn.crnn', shapes_of(model, (1, height, 100, 1)))
    logits = quick_jit(model.apply)(variables, images(2, height, 100, 1))
    assert logits.shape == (2, frames, keys_of(name).get('Prediction.weight', (37,))[0])
    assert relative(logits, GOLDEN[f'{name}/logits']) < 1e-5
    back = weights.to_torch(variables, DTRB['crnn.dtrb'] if height == 64 or frames == 24 else CRNN_PYTORCH['crnn.crnn'])
    assert {key: value.shape for key, value in back.items()} == keys_of(name)
    for key, value in tensors_of(name).items():  # torch's two biases only count as their sum
        inner = key.replace('.bias_ih', '.bias_hh')
        expected = value + tensors_of(name)[inner] if inner != key else value * ('.bias_hh' not in key)
        np.testing.assert_array_equal(back[key], expected)


def test_a_recogniser_is_read_next_to_an_agent(tmp_path):
    """What trains along keeps its initialisation; a folder is a run's, and is not read."""
    weights.write(tmp_path / 'a.safetensors', tensors_of('dtrb32'))
    model = models.make_model('crnn.dtrb', width=WIDTH, hidden=HIDDEN)
    like = flatten_dict(shapes_of(model, (1, 32, 100, 1)), sep='/')
    own = {name.removeprefix('params/'): np.zeros(leaf.shape, np.float32) for name, leaf in like.items()}
    agent = {'agent/conv1/kernel': np.ones(3), 'batch_stats/agent/bn/mean': np.ones(2)}
    read = recogniser_reader('crnn.crnn')
    leaves = read(str(tmp_path / 'a.safetensors'), own | agent)
    assert leaves is not None
    assert leaves.keys() == own.keys() | agent.keys()
    assert all(leaves[name] is leaf for name, leaf in agent.items())
    expected = tensors_of('dtrb32')['SequenceModeling.1.rnn.weight_hh_l0_reverse'].T
    np.testing.assert_array_equal(leaves['lstm2/lstm/backward_0/recurrent'], expected)
    assert read(str(tmp_path), own) is None


def test_attention_against_torch():
    """Teacher forcing by torch's tokens, and reading by its own: given labels of the alphabet's numbering."""
    model = models.make_model('attention_reader.attention_reader', width=WIDTH, hidden=HIDDEN)
    names = DTRB['attention_reader.attention_reader']
    variables = weights.from_torch(tensors_of('attention'), reader_shapes(model), names)
    tokens = GOLDEN['tokens']
    labels = np.where(tokens[:, 1:] > 0, tokens[:, 1:] - 1, 0)  # torch's 0 is the start, 1 the end
    x = images(2, 32, 100, 1)
    forced, read = quick_jit(
        lambda v, x, y: (model.apply(v, x, y), model.apply(v, x, 6, method='read')),
    )(variables, x, labels)
    assert relative(read, GOLDEN['attention/read']) < 1e-5
    # The second row has the end before the start's padding, which labels cannot state: up to it both are given alike.
    assert relative(forced[0], GOLDEN['attention/logits'][0]) < 1e-5
    assert relative(forced[1, :3], GOLDEN['attention/logits'][1, :3]) < 1e-5


@pytest.mark.slow
def test_the_rectifier_against_torch():
    """Its images, and what the reader reads of them. The benchmark adds 1e-6 to the logarithm's argument, we do not."""
    model = models.make_model('attention_reader.attention_reader', width=WIDTH, hidden=HIDDEN, fiducials=FIDUCIALS)
    names = DTRB['attention_reader.attention_reader']
    tensors = tensors_of('rectified') | {'Transformation.GridGenerator.P_hat': np.zeros((3200, 11), np.float32)}
    variables = weights.from_torch(tensors, reader_shapes(model), names)
    x = images(2, 32, 100, 1)
    inside = {kind: variables[kind]['encoder']['rectifier'] for kind in ('params', 'batch_stats')}
    image, read = quick_jit(
        lambda v, r, x: (rectifier.Rectifier(FIDUCIALS).apply(r, x), model.apply(v, x, 6, method='read'))
    )(variables, inside, x)
    assert relative(image[..., 0], GOLDEN['rectified/image']) < 1e-4
    assert relative(read, GOLDEN['rectified/read']) < 1e-4


def test_keys_of_full_size():
    """Every key of the networks as published is read, and every parameter of ours comes from one of them."""
    for name, model, height in (
        ('dtrb_full', models.make_model('crnn.dtrb'), 32),
        ('easyocr_full', models.make_model('crnn.dtrb', num_classes=96, width=256, height=64), 64),
    ):
        like = shapes_of(model, (1, height, 100, 1))
        tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in keys_of(name).items()}
        variables = weights.from_torch(tensors, like, DTRB['crnn.dtrb'])
        assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, like)
        stored = sum(np.prod(s) for key, s in keys_of(name).items() if 'running' not in key and 'bias_hh' not in key)
        assert count(like['params']) == stored


def test_the_rectifier_starts_from_the_papers_points():
    """Figure 6 (a): the same points for all images; on the border points themselves it would be the identity."""
    points = rectifier.init_points(6)
    np.testing.assert_allclose(points, [[-1, 0], [0, -0.5], [1, -1], [-1, 1], [0, 0.5], [1, 0]])
    module = rectifier.Rectifier(6, channels=(4, 4), hidden=8)
    x = jnp.broadcast_to(jnp.arange(24.0)[None, None, :, None], (2, 16, 24, 1))

    @quick_jit
    def run(key, x):
        variables = module.init(key, x)
        located = module.apply(variables, x, method='locate')
        fc2 = variables['params']['fc2'] | {'bias': jnp.asarray(rectifier.border_points(6)).ravel()}
        return located, module.apply({**variables, 'params': variables['params'] | {'fc2': fc2}}, x)

    located, straight = run(jax.random.key(0), x)
    np.testing.assert_allclose(located, np.broadcast_to(points, (2, 6, 2)))
    # Fiducial points on the borders: pixel i of n is taken from (n - 1) (i + 1/2) / n, between torch's two grids.
    np.testing.assert_allclose(straight[0, 3, :, 0], 23 * (np.arange(24) + 0.5) / 24, atol=1e-4)


def test_bad_arguments_are_refused():
    model = models.make_model('crnn.dtrb', fiducials=5)
    with pytest.raises(UsageError, match=r'fiducials=5 must be an even number'):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 100, 1)))
    with pytest.raises(UsageError, match=r'model\.height=16 leaves no row'):
        models.make_model('crnn.crnn', height=16)
