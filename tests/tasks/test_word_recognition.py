"""Tasks that read a word at once: lookups against Python's sets, losses and decoders against loops over words."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, log_softmax, logsumexp

from canon import models
from canon.data import Alphabet
from canon.data.text.words import count_ngrams, encode_words
from canon.errors import UsageError
from canon.losses.words import ngram_loss, position_loss
from canon.models import mjsynth
from canon.ops.words import find_words, mark_ngrams, nearest_ngram_bag, read_positions, score_ngram_bags
from canon.tasks.text import word_recognition as tasks
from canon.train import At
from tests.models.goldens import count, shapes_of
from tests.quick import quick_jit

ALPHABET = Alphabet('abc')
WORDS = ['cab', 'abba', 'b', 'aaaa', 'ab', 'cab', 'bacb', 'Ab', 'abcab']


def encode(texts, length) -> Any:
    rows = np.zeros((len(texts), length), np.int32)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = ['abc'.index(c) + 1 for c in text]
    return rows


def grams_of(text, order):
    return {text[i : i + n] for n in range(1, order + 1) for i in range(len(text) - n + 1)}


def test_word_lists():
    texts, labels = encode_words(WORDS, ALPHABET, 4)
    assert texts == ('aaaa', 'ab', 'abba', 'b', 'bacb', 'cab')  # 'Ab' is 'b' without its capital; 'abcab' is too long
    np.testing.assert_array_equal(labels, encode(texts, 4))
    everything = [''.join(p) for n in range(6) for p in itertools.product('abc', repeat=n)]
    found = np.asarray(quick_jit(find_words)(encode(everything, 5), labels))
    assert found.tolist() == [texts.index(text) if text in texts else -1 for text in everything]
    with pytest.raises(UsageError, match=r"none of 2 words has 1 to 2 characters of 'abc'"):
        encode_words(['abc', '?'], ALPHABET, 2)


def test_ngrams():
    table = count_ngrams(WORDS, ALPHABET, 9, order=3)
    held = {gram: sum(gram in word for word in WORDS) for gram in {g for word in WORDS for g in grams_of(word, 3)}}
    held.pop('A', None)
    held = {gram: n for gram, n in held.items() if 'A' not in gram}
    best = sorted(held, key=lambda gram: (-held[gram], gram))[:9]
    assert sorted(table.texts) == sorted(best)
    assert [held[gram] for gram in table.texts] == table.counts.tolist()
    assert (np.diff(table.codes) > 0).all()
    np.testing.assert_allclose(table.inverse_frequencies * table.counts, table.inverse_frequencies[0] * table.counts[0])
    assert table.inverse_frequencies.mean() == pytest.approx(1)
    texts = ['', 'a', 'cab', 'abcab', 'ccccc']
    marks = quick_jit(mark_ngrams, static_argnums=(2, 3))(encode(texts, 5), table.codes, table.base, table.order)
    assert marks.tolist() == [[gram in grams_of(text, 3) for gram in table.texts] for text in texts]
    assert len(count_ngrams(['ab'], ALPHABET, 100).texts) == 3
    with pytest.raises(UsageError, match=r'order=20 over 3 characters'):
        count_ngrams(WORDS, ALPHABET, order=20)


def test_losses():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(3, 5, 4)), encode(['cab', '', 'abca'], 4)
    log_p = log_softmax(logits, -1)
    expected = [-sum(log_p[b, i, labels[b, i] if i < 4 else 0] for i in range(5)) for b in range(3)]
    np.testing.assert_allclose(position_loss(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=1e-5)
    with pytest.raises(UsageError, match='labels of 4 characters do not fit 3 positions'):
        position_loss(jnp.asarray(logits[:, :3]), jnp.asarray(labels))
    logits: Any = 3 * rng.normal(size=(2, 6))
    bags, weights = rng.random((2, 6)) < 0.5, rng.uniform(0.5, 2, 6)
    p = expit(logits)
    expected = -(weights * np.where(bags, np.log(p), np.log1p(-p))).sum(1)
    arguments = jnp.asarray(bags), jnp.asarray(weights)
    np.testing.assert_allclose(ngram_loss(jnp.asarray(logits), *arguments), expected, rtol=1e-5)
    gradient = jax.grad(lambda z: ngram_loss(z, *arguments).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(gradient, weights * (p - bags), atol=1e-6)


def test_decoders():
    rng: Any = np.random.default_rng(1)
    texts, labels = encode_words(WORDS, ALPHABET, 4)
    table = count_ngrams(WORDS, ALPHABET, 9, order=2)
    log_p = log_softmax(2 * rng.normal(size=(6, 5, 4)), -1).astype(np.float32)
    logits: Any = 2 * rng.normal(size=(6, 9)).astype(np.float32)
    read, listed, likely, near = quick_jit(
        lambda p, z: (
            read_positions(p),
            tasks.read_listed_positions(p, labels),
            tasks.read_ngrams(z, labels, table),
            tasks.read_ngrams(z, labels, table, nearest=True),
        )
    )(log_p, logits)
    bags: Any = np.array([[gram in grams_of(text, 2) for gram in table.texts] for text in texts])
    for row in range(6):
        best = log_p[row].argmax(-1)
        assert ALPHABET.decode(read.labels[row]) == ''.join('abc'[c - 1] for c in best if c)
        assert read.lengths[row] == (best > 0).sum()
        assert float(read.log_probs[row]) == pytest.approx(log_p[row].max(-1).sum(), abs=1e-5)
        scores = [sum(log_p[row, i, c] for i, c in enumerate([*label, 0])) for label in labels]
        assert ALPHABET.decode(listed.labels[row]) == texts[int(np.argmax(scores))]
        assert listed.lengths[row] == len(texts[int(np.argmax(scores))])
        assert float(listed.log_probs[row]) == pytest.approx(max(scores), abs=1e-5)
        p = expit(logits[row].astype(np.float64))
        scores = np.where(bags, np.log(p), np.log1p(-p)).sum(1)
        assert ALPHABET.decode(likely.labels[row]) == texts[scores.argmax()]
        assert float(likely.log_probs[row]) == pytest.approx(scores.max() - logsumexp(scores), abs=1e-4)
        np.testing.assert_allclose(score_ngram_bags(logits[row : row + 1], bags)[0], scores, rtol=1e-4)
        distances = np.square(p - bags).sum(1)
        assert ALPHABET.decode(near.labels[row]) == texts[distances.argmin()]
        np.testing.assert_allclose(nearest_ngram_bag(logits[row : row + 1], bags)[0], -distances, rtol=1e-4)


def test_attention_targets_and_readings():
    targets = tasks.attention_targets(jnp.asarray(encode(['cab', ''], 4)), jnp.array([3, 0]))
    assert targets.tolist() == [[4, 2, 3, 1, -1], [1, -1, -1, -1, -1]]
    steps = np.array([[4, 2, 0, 1, 3], [1, 3, 3, 3, 1], [2, 2, 2, 2, 2]])  # 0, the start, is never read
    log_p = log_softmax(3 * np.eye(5)[steps] + np.linspace(0, 0.5, 5), -1)
    readings = tasks.read_attention(jnp.asarray(log_p))
    assert [ALPHABET.decode(row) for row in readings.labels] == ['cac', '', 'aaaa']
    assert readings.lengths.tolist() == [3, 0, 4]
    read = [[4, 2, 4, 1], [1], [2, 2, 2, 2, 2]]
    expected = [sum(log_p[b, i, c] for i, c in enumerate(row)) for b, row in enumerate(read)]
    np.testing.assert_allclose(readings.log_probs, expected, rtol=1e-5)


def test_parameter_counts():
    """The layers of the paper one by one; 490 M parameters are published for DICT (Shi et al. 2015, Table 2)."""
    convolutions = sum(k * k * i * o + o for k, i, o in
                       ((5, 1, 64), (5, 64, 128), (3, 128, 256), (3, 256, 512), (3, 512, 512)))  # fmt: skip
    body = convolutions + (4 * 13 * 512 * 4096 + 4096) + (4096 * 4096 + 4096)
    for name, outputs in (('dict_net', 88_172), ('char_net', 23 * 37), ('ngram_net', 10_000)):
        params = shapes_of(models.make_model(f'mjsynth.{name}'), (1, 32, 100, 1))['params']
        assert count(params) == body + 4096 * outputs + outputs
    assert round((body + 4097 * 88_172) / 1e6) == 491
    model = models.make_model(
        'mjsynth.char_net', positions=5, num_classes=3, features=(2,), kernels=(3,), pools=(), units=()
    )
    assert jax.eval_shape(model.apply, shapes_of(model, (1, 8, 8, 1)), np.zeros((2, 8, 8, 1))).shape == (2, 5, 4)
    with pytest.raises(UsageError, match=r'model\.kernels=\(4,\) must be odd'):
        models.make_model('mjsynth.dict_net', features=(2,), kernels=(4,))


SMALL: dict[str, Any] = dict(features=(4, 4), kernels=(5, 3), pools=(1, 2), units=(8,), dropout=0.5)


def make_batch() -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 1)).astype(np.uint8)
    labels, lengths = encode(['cab', 'ccc', 'b'], 4), np.array([3, 3, 1], np.int32)
    return dict(image=images, label=labels, label_length=lengths, mask=np.array([True, True, False]))


def test_added_words_leave_the_logits_of_the_others():
    """Words are added at the end, and between the old ones, where the order of the longer dictionary puts them."""
    old_words, _ = encode_words(['b', 'cab', 'ab'], ALPHABET, 4)
    words, _ = encode_words([*old_words, 'a', 'abba', 'bc', 'ccc'], ALPHABET, 4)
    places = [words.index(word) for word in old_words]
    model, wider = (mjsynth.dict_net(len(w), **SMALL) for w in (old_words, words))
    x = jnp.asarray(make_batch()['image'], jnp.float32)

    @quick_jit
    def run(key):
        variables = model.init(key, x)
        forms = [mjsynth.add_classes(variables, 7, key), mjsynth.add_classes(variables, 7, key, places)]
        return variables['params'], model.apply(variables, x), *(wider.apply(form, x) for form in forms)

    params, old, appended, inserted = run(jax.random.key(0))
    np.testing.assert_allclose(appended[:, :3], old, atol=1e-6)
    np.testing.assert_allclose(inserted[:, places], old, atol=1e-6)
    assert np.abs(np.delete(np.asarray(inserted), places, 1)).min() > 0
    stored = {f'{layer}/{kind}': np.asarray(x) + 1 for layer, arrays in params.items() for kind, x in arrays.items()}
    extended = tasks.extend_dictionary(stored, old_words, words, jax.random.key(0))
    assert extended.keys() == stored.keys()
    for name, array in stored.items():
        kept = extended[name][..., places] if name.startswith('fc4') else extended[name]
        np.testing.assert_array_equal(kept, array)
    assert not np.delete(extended['fc4/bias'], places).any()
    with pytest.raises(UsageError, match=r"the dictionary lacks 1 of 3 words that were trained, such as 'cab'"):
        tasks.extend_dictionary(stored, old_words, [word for word in words if word != 'cab'], jax.random.key(0))
    last = {'params': {'fc4': {'kernel': jnp.zeros((8, 3)), 'bias': jnp.zeros(3)}}}
    with pytest.raises(UsageError, match=r'num_classes=3 must be more than the 3 that fc4 has'):
        mjsynth.add_classes(last, 3, jax.random.key(1))
    for wrong in ([0, 1], [0, 1, 1], [0, 1, 7]):
        with pytest.raises(UsageError, match='places must give each of 3 classes one of its own among 7'):
            mjsynth.add_classes(last, 7, jax.random.key(1), wrong)


def test_tasks_and_their_evaluator():
    """Losses are those of the task's own predictions; words outside the dictionary have no weight but are counted."""
    batch, key = make_batch(), jax.random.key(0)
    texts, labels = encode_words(WORDS, ALPHABET, 4)
    table = count_ngrams(WORDS, ALPHABET, 7, order=2)
    make_input = tasks.make_standardised_input()
    free: dict[str, Any] = {**SMALL, 'dropout': 0.0}  # so that training and prediction agree
    built = {
        'char': tasks.char_task(mjsynth.char_net(3, 4, **free), make_input),
        'dict': tasks.dict_task(mjsynth.dict_net(len(texts), **free), make_input, labels),
        'ngram': tasks.ngram_task(mjsynth.ngram_net(7, **free), make_input, table),
    }

    @quick_jit
    def run(batch):
        results = {}
        for name, task in built.items():
            params = task.init(key, batch)['params']
            mean, (_, extra) = task.loss(params, {}, batch, At(key, jnp.array(0)))
            results[name] = task.predict(params, {}, batch), mean, extra
        return results, make_input(batch)

    results, inputs = run(batch)
    np.testing.assert_allclose(inputs.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std((1, 2, 3)), 1, atol=1e-2)
    outputs, mean, _ = results['char']
    expected = -sum(float(outputs[b, i, batch['label'][b, i]]) for b in range(2) for i in range(4))
    assert (float(mean.total), float(mean.weight)) == (pytest.approx(expected, rel=1e-5), 2)
    outputs, mean, extra = results['dict']
    assert (float(mean.total), float(mean.weight)) == (
        pytest.approx(-float(outputs[0, texts.index('cab')]), rel=1e-5),
        1,
    )
    assert float(extra['impossible'].value) == 0.5  # 'ccc' of two words
    outputs, mean, _ = results['ngram']
    bags = np.array([[gram in grams_of(text, 2) for gram in table.texts] for text in ('cab', 'ccc')])
    expected = ngram_loss(outputs[:2], jnp.asarray(bags), jnp.asarray(table.inverse_frequencies)).sum()
    assert (float(mean.total), float(mean.weight)) == (pytest.approx(float(expected), rel=1e-5), 2)
    decode = partial(tasks.read_listed_words, labels=labels)
    fixed = built['dict']._replace(predict=lambda params, mutable, batch: results['dict'][0])
    evaluator = tasks.word_evaluator(fixed, decode, None, ALPHABET)
    metrics = evaluator.finish(evaluator.measure({}, {}, batch))
    read = [texts[i] for i in np.asarray(results['dict'][0]).argmax(1)]
    assert float(metrics['word_accuracy']) == np.mean([a == b for a, b in zip(read[:2], ('cab', 'ccc'), strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['char', 'dict', 'ngram', 'attention'])
def test_each_task_learns(kind):
    """Eight words as noisy patterns: within 200 steps of Adam all are read, from noise that training has not shown."""
    texts = ('a', 'ab', 'abba', 'b', 'ba', 'cab', 'cc', 'ccc')
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 255, (8, 32 if kind == 'attention' else 16, 24, 1))

    def make(seed):
        noise = np.random.default_rng(seed).normal(scale=20, size=patterns.shape)
        lengths = np.array([len(text) for text in texts], np.int32)
        image = np.clip(patterns + noise, 0, 255).astype(np.uint8)
        return dict(image=image, label=encode(texts, 4), label_length=lengths, mask=np.ones(8, bool))

    widths: dict[str, Any] = dict(features=(8, 8), kernels=(3, 3), pools=(1, 2), units=(32,), dropout=0.1)

    def make_model(**sizes):
        if kind == 'attention':
            return models.make_model('attention_reader.attention_reader', width=16, hidden=32, **sizes)
        return models.make_model(f'mjsynth.{kind}_net', **widths, **sizes)

    settings = tasks.ReaderSettings(kind, words=texts, num_ngrams=30)
    task, decode = tasks.make_reader(settings, make_model, tasks.make_standardised_input(), ALPHABET, 4)
    steps = 200 if kind == 'attention' else 60
    tx = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    @quick_jit
    def step(params, mutable, state, batch, number):
        def loss(params):
            mean, (changed, _) = task.loss(params, mutable, batch, At(jax.random.key(number), number))
            return mean.value, changed

        (_, mutable), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), mutable, state

    mutable = dict(quick_jit(task.init)(jax.random.key(0), make(0)))
    params = mutable.pop('params')
    state = tx.init(params)
    for number in range(steps):
        params, mutable, state = step(params, mutable, state, make(number), number)
    readings = quick_jit(lambda p, m, b: decode(task.predict(p, m, b)))(params, mutable, make(1000))
    assert tuple(ALPHABET.decode(row) for row in readings.labels) == texts
