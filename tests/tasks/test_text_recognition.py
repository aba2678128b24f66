"""Text recognition: the weights of the loss, what the evaluator counts, and the probability of a reading."""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import data, losses
from canon.errors import UsageError
from canon.tasks.text import lexicon_reading, recognition
from canon.train import At

ALPHABET = data.Alphabet('abc')


class PixelLogits:
    """A model whose logits are the pixels: [B, T, C, 1] in 0..255 -> 20 * [B, T, C]."""

    def init(self, key, images, train):
        return {'params': {'scale': jnp.float32(20)}}

    def apply(self, variables, images, train, mutable=None, rngs=None):
        logits = variables['params']['scale'] * images[..., 0]
        return (logits, {}) if train else logits


def batch(*pairs, frames=6, masked=0):
    """A batch of rows (path, text): the path has one character per frame, '-' is the blank."""
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
    return recognition.recognition_task(PixelLogits(), recognition.make_grey_input(mean=0.0, std=1.0))


def test_the_loss_is_that_of_ctc_over_unmasked_possible_texts(task):
    rows = batch(('--a-b-', 'ab'), ('aa-a--', 'ab'), ('abcabc', 'aaaa'), ('cccccc', 'cc'), masked=1)
    params = {'scale': jnp.float32(3)}
    loss, (_, more) = task.loss(params, {}, rows, At(None, 0))
    expected = losses.ctc(3.0 * rows['image'][..., 0] / 255, np.full(4, 6), rows['label'], rows['label_length'])
    assert np.isinf(expected[2])
    assert float(loss.total) == pytest.approx(float(expected[0] + expected[1]), rel=1e-5)
    assert float(loss.weight) == 2
    assert (float(more['impossible'].total), float(more['impossible'].weight)) == (1, 3)
    grad = jax.grad(lambda p: task.loss(p, {}, rows, At(None, 0))[0].total)(params)
    assert np.isfinite(grad['scale'])


@pytest.mark.parametrize('beam', [0, 4])
def test_the_evaluator_counts_correct_words_and_edits(task, beam):
    rows = [
        batch(('--a-b-', 'ab'), ('aa-a--', 'aa'), ('a-----', 'ab'), ('------', '')),
        batch(('cc-c-c', 'ccb'), ('a-b-cc', 'abc'), ('a-a-a-', 'b'), masked=1),
    ]
    batches = data.Generated(lambda i: rows[i], 4, 6, 2)
    evaluator = recognition.recognition_evaluator(task, batches, ALPHABET, beam)
    params = {'scale': jnp.float32(20)}
    measure = jax.jit(evaluator.measure)
    a, b = (measure(params, {}, row) for row in rows)
    metrics = evaluator.finish({name: a[name] + b[name] for name in a})
    assert float(metrics['word_accuracy']) == pytest.approx(4 / 6)
    assert float(metrics['character_error_rate']) == pytest.approx(2 / (2 + 2 + 2 + 0 + 3 + 3))
    assert float(metrics['loss']) > 1
    figures = evaluator.draw(params, {}, None)
    assert set(figures) == {'right', 'wrong', 'frames'}
    titles = {name: [axes.get_title() for axes in figure.axes] for name, figure in figures.items()}
    assert titles['right'] == ['ab 1.00', 'aa 1.00', ' 1.00', 'abc 1.00']
    assert sorted(titles['wrong']) == ['ab → a 1.00', 'ccb → ccc 1.00']
    assert titles['frames'][1] == 'ab is read as ab'


@pytest.mark.parametrize('beam', [0, 2])
def test_the_probability_of_a_reading_sums_over_all_its_paths(beam):
    """Two frames, 'a' with 0.6 in each: the path aa has 0.36, the text 0.84."""
    log_probs = jnp.log(jnp.array([[[0.4, 0.6], [0.4, 0.6]]]))
    labels, lengths, log_prob = recognition.decode_labels(log_probs, beam)
    assert (labels[0, 0], lengths[0]) == (1, 1)
    assert float(jnp.exp(log_prob[0])) == pytest.approx(0.84)


def test_colour_images_become_luma():
    grey_input = recognition.make_grey_input(mean=0.5, std=0.5)
    pixel = np.array([[[[255, 0, 0]]], [[[0, 255, 0]]], [[[0, 0, 255]]], [[[128, 128, 128]]]], np.uint8)
    expected = np.array([0.299, 0.587, 0.114, 128 / 255]) * 2 - 1
    np.testing.assert_allclose(grey_input({'image': pixel}).ravel(), expected, atol=1e-6)


def test_a_standard_deviation_of_0_is_refused():
    with pytest.raises(UsageError, match=r'input\.std=0 must be positive'):
        recognition.make_grey_input(std=0)


def test_lines_have_words():
    """With a space among the characters, the words of a line are counted, too."""
    alphabet = data.Alphabet('ab ')
    rows = batch(('a-cb--', 'acb'), ('acb-ca', 'acb'), ('-----a', 'b'), masked=1)  # 'c' stands for the space
    task = recognition.recognition_task(PixelLogits(), recognition.make_grey_input(mean=0.0, std=1.0))
    evaluator = recognition.recognition_evaluator(task, data.Generated(lambda i: rows, 3, 2, 1), alphabet)
    values = evaluator.finish(jax.jit(evaluator.measure)({'scale': jnp.float32(20)}, {}, rows))
    assert float(values['word_error_rate']) == pytest.approx(1 / 4)
    assert float(values['word_accuracy']) == pytest.approx(1 / 2)
    assert float(values['character_error_rate']) == pytest.approx(2 / 6)


def test_dropout_is_drawn_by_the_key_of_the_step():
    class Dropped(linen.Module):
        @linen.compact
        def __call__(self, images, train):
            scale = self.param('scale', linen.initializers.constant(3.0), ())
            return scale * linen.Dropout(0.5, deterministic=not train)(images[..., 0])

    task, rows = recognition.recognition_task(Dropped(), recognition.make_grey_input()), batch(('--a-b-', 'ab'))
    params = {'scale': jnp.float32(3)}
    first, again, other = (float(task.loss(params, {}, rows, At(jax.random.key(k), 0))[0].total) for k in (0, 0, 1))
    assert first == again != other


def test_an_evaluator_reads_with_a_lexicon(task):
    """The best paths are ab, aab, c and bb."""
    rows = batch(('--a-b-', 'ab'), ('aa-aab', 'ab'), ('c-----', 'cab'), ('bb-b--', 'b'), masked=1)
    params = {'scale': jnp.float32(3)}

    class Rows(list):
        info = None

        def iterate(self):
            return iter(self)

    batches = Rows([rows | {'index': np.array([3, 2, 1, 0], np.int32)}])
    free = recognition.recognition_evaluator(task, batches, ALPHABET)
    measured = {'free': free.measure(params, {}, rows)}
    lexica = [('bb',), ('cab', 'ba'), ('ab', 'ba'), ('ba', 'bb')]
    for name, lexicon in (
        ('near', lexicon_reading.LexiconReader(['ab', 'cab'], ALPHABET, 1)),
        ('own', lexicon_reading.OwnLexiconReader(lexica, ALPHABET)),
    ):
        evaluator = recognition.recognition_evaluator(task, batches, ALPHABET, lexicon=lexicon)
        assert evaluator.on_host
        measured[name] = evaluator.measure(params, {}, batches[0])
    accuracy = {name: float(means['word_accuracy'].value) for name, means in measured.items()}
    # Near: c has no word within an edit. Own: bb for ab; ab for aab; cab for c.
    assert accuracy == pytest.approx({'free': 1 / 3, 'near': 2 / 3, 'own': 2 / 3})
    edits = {name: float(means['character_error_rate'].total) for name, means in measured.items()}
    assert edits == {'free': 3, 'near': 2, 'own': 1}
    assert len({float(means['loss'].value) for means in measured.values()}) == 1
    readings = next(recognition.read_batches(task, params, {}, batches, ALPHABET, None, lexicon))
    assert [(target, text) for _, target, text, _ in readings] == [('ab', 'bb'), ('ab', 'ab'), ('cab', 'cab')]
