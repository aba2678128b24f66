"""Reading texts: the loss's weights, what an evaluator counts, and a model that can read runs through all modes."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from canon import data, losses
from canon.errors import UsageError
from canon.train import At
from experiments import configs, text_recognition

ALPHABET = data.Alphabet('abc')


class Told:
    """A model whose logits stand in the image: [B, T, C, 1] in 0..255 -> 20 * [B, T, C]."""

    def init(self, key, images, train):
        return {'params': {'scale': jnp.float32(20)}}

    def apply(self, variables, images, train, mutable=None):
        logits = variables['params']['scale'] * images[..., 0]
        return (logits, {}) if train else logits


def batch(*pairs, frames=6, masked=0):
    """Rows of (path, text): a frame a character of the path, '-' the blank."""
    image = np.zeros((len(pairs), frames, 4, 1), np.uint8)
    for row, (path, _) in zip(image, pairs, strict=True):
        row[np.arange(frames), ['-abc'.index(c) for c in path]] = 255
    texts = [ALPHABET.encode(text, 4) for _, text in pairs]
    return {
        'image': image,
        'label': np.stack([t['label'] for t in texts]),
        'label_length': np.stack([t['label_length'] for t in texts]),
        'mask': np.arange(len(pairs)) < len(pairs) - masked,
    }


@pytest.fixture
def task():
    return text_recognition.recognition_task(Told(), text_recognition.grey_images(mean=0.0, std=1.0))


def test_the_loss_is_ctcs_over_real_rows_that_can_be_read(task):
    rows = batch(('--a-b-', 'ab'), ('aa-a--', 'ab'), ('abcabc', 'aaaa'), ('cccccc', 'cc'), masked=1)
    params = {'scale': jnp.float32(3)}
    loss, (_, told) = task.loss(params, {}, rows, At(None, 0))
    wanted = losses.ctc(3.0 * rows['image'][..., 0] / 255, np.full(4, 6), rows['label'], rows['label_length'])
    assert np.isinf(wanted[2])
    assert float(loss.total) == pytest.approx(float(wanted[0] + wanted[1]), rel=1e-5)
    assert float(loss.weight) == 2
    assert (float(told['impossible'].total), float(told['impossible'].weight)) == (1, 3)
    grad = jax.grad(lambda p: task.loss(p, {}, rows, At(None, 0))[0].total)(params)
    assert np.isfinite(grad['scale'])


@pytest.mark.parametrize('beam', [0, 4])
def test_what_an_evaluator_counts(task, beam):
    rows = [
        batch(('--a-b-', 'ab'), ('aa-a--', 'aa'), ('a-----', 'ab'), ('------', '')),
        batch(('cc-c-c', 'ccb'), ('a-b-cc', 'abc'), ('a-a-a-', 'b'), masked=1),
    ]
    batches = data.Generated(lambda i: rows[i], 4, 6, 2)
    evaluator = text_recognition.recognition_evaluator(task, batches, ALPHABET, beam)
    params = {'scale': jnp.float32(20)}
    a, b = (evaluator.measure(params, {}, row) for row in rows)
    found = evaluator.finish({name: a[name] + b[name] for name in a})
    assert float(found['word_accuracy']) == pytest.approx(4 / 6)
    assert float(found['character_error_rate']) == pytest.approx(2 / (2 + 2 + 2 + 0 + 3 + 3))
    assert float(found['loss']) > 1
    figures = evaluator.draw(params, {}, None)
    assert set(figures) == {'right', 'wrong', 'frames'}
    titles = {name: [axes.get_title() for axes in figure.axes] for name, figure in figures.items()}
    assert titles['right'] == ['ab 1.00', 'aa 1.00', ' 1.00', 'abc 1.00']
    assert sorted(titles['wrong']) == ['ab → a 1.00', 'ccb → ccc 1.00']
    assert titles['frames'][1] == 'ab is read as ab'


@pytest.mark.parametrize('beam', [0, 2])
def test_a_reading_has_the_probability_of_all_its_paths(beam):
    """Two frames, 'a' with 0.6 in each: the path aa has 0.36, the text 0.84."""
    log_probs = jnp.log(jnp.array([[[0.4, 0.6], [0.4, 0.6]]]))
    labels, lengths, chance = text_recognition._read(log_probs, beam)
    assert (labels[0, 0], lengths[0]) == (1, 1)
    assert float(jnp.exp(chance[0])) == pytest.approx(0.84)


def test_colour_is_read_as_its_luma():
    images = text_recognition.grey_images(mean=0.5, std=0.5)
    pixel = np.array([[[[255, 0, 0]]], [[[0, 255, 0]]], [[[0, 0, 255]]], [[[128, 128, 128]]]], np.uint8)
    wanted = np.array([0.299, 0.587, 0.114, 128 / 255]) * 2 - 1
    np.testing.assert_allclose(images({'image': pixel}).ravel(), wanted, atol=1e-6)


def config(**source):
    config = configs.load(f'{configs.ROOT}/configs/text_recognition/crnn_digits.py:smoke')
    with config.unlocked():
        config.data.source = dict(num_examples=64, **source)
        config.data.train.split = 'train'
        config.data.evals = {name: dict(split='test') for name in config.data.evals}
        config.data.batch_size = 4
        config.model.update(features=(2, 2, 2, 2, 2, 2, 2), hidden=2)
    return config


def test_reading_a_folder(tmp_path):
    made = config()
    experiment = text_recognition.make(made)
    lines = data.load('digit_lines', 'test', num_examples=5)
    (tmp_path / 'images').mkdir()
    for i in range(5):
        Image.fromarray(lines[i]['image'][..., 0]).save(tmp_path / 'images' / f'{i}.png')
    batch = {name: jnp.asarray(x) for name, x in experiment.train[0].items()}
    variables = dict(jax.jit(experiment.task.init)(jax.random.key(0), batch))
    params = variables.pop('params')
    without = text_recognition.without_data(made, experiment.about)
    told = text_recognition.predict(made, without, params, variables, str(tmp_path / 'images'), tmp_path / 'out')
    assert told.startswith('5 images read: ')
    with (tmp_path / 'out' / 'predictions.csv').open() as file:
        head, *rows = csv.reader(file)
    assert head == ['file', 'text', 'probability']
    assert [row[0] for row in rows] == [str(tmp_path / 'images' / f'{i}.png') for i in range(5)]
    assert all(0 <= float(chance) <= 1 and set(text) <= set('0123456789') for _, text, chance in rows)
    assert (tmp_path / 'out' / 'predictions.png').stat().st_size > 1000
    images = np.stack([lines[i]['image'] for i in range(3)])
    chances = text_recognition.served(made, without).function(params, variables, images)
    assert chances.shape == (3, 26, 11)
    np.testing.assert_allclose(chances.sum(-1), 1, rtol=1e-5)


def test_what_is_refused():
    name = next(iter(config().data.evals))
    for key, value in (('text.max_length', 'abc'), ('data.batch_size', 0), (f'data.evals.{name}.beam', 1.5)):
        wrong = config()
        with wrong.ignore_type():
            wrong.update_from_flattened_dict({key: value})
        with pytest.raises(UsageError, match=f'{key}={value!r} must be a whole number'):
            text_recognition.make(wrong)
    wrong = config()
    wrong.model.num_classes = 9
    with pytest.raises(UsageError, match=r'model\.num_classes=9, but text\.characters has 10; set it to that'):
        text_recognition.make(wrong)
    wrong = config()
    wrong.data.name = 'digits'
    with pytest.raises(UsageError, match=r"data\.name='digits' has no texts; there are 'digit_lines' and 'words'"):
        text_recognition.make(wrong)
    wrong.data.name = 'words'
    with pytest.raises(UsageError, match=r'words need --config\.data\.source\.path=FOLDER'):
        text_recognition.make(wrong)
    with pytest.raises(UsageError, match=r'input\.std=0 must be positive'):
        text_recognition.grey_images(std=0)
