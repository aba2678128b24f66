"""Best path, prefix beam search and scores of labels against every path of small cases, and against the loss."""

import itertools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from canon import losses
from canon.errors import UsageError
from canon.ops import ctc as ctc_module
from canon.ops.ctc import best_path as plain_best_path
from canon.ops.ctc import prefix_beam_search, score_labels
from tests.quick import quick_jit

best_path = jax.jit(plain_best_path, static_argnames=('blank',))
search = jax.jit(prefix_beam_search, static_argnames=('width', 'blank', 'max_length'))


def collapse(path, blank=0):
    return tuple(int(c) for c, before in zip(path, (None, *path), strict=False) if c != before and c != blank)


def likelihoods(log_p, blank=0):
    """{label: probability}, summed over all C^T paths, float64."""
    sums = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        label = collapse(path, blank)
        sums[label] = sums.get(label, 0) + np.exp(sum(log_p[t, c] for t, c in enumerate(path)))
    return sums


def texts(readings):
    flat = np.asarray(readings.labels).reshape(-1, readings.labels.shape[-1])
    for row, n in zip(flat, np.ravel(readings.lengths), strict=True):
        assert (row[n:] == -1).all()
    return [tuple(row[:n].tolist()) for row, n in zip(flat, np.ravel(readings.lengths), strict=True)]


def draw(*shape, seed=0, scale=2.0):
    return log_softmax(np.random.default_rng(seed).normal(scale=scale, size=shape), axis=-1)


@pytest.mark.parametrize('blank', [0, 3])
def test_best_path_is_the_likeliest_path_collapse(blank):
    log_p, lengths = draw(40, 9, 4), np.arange(40) % 10
    readings = best_path(jnp.asarray(log_p), jnp.asarray(lengths), blank)
    paths = [row[:n].argmax(-1) for row, n in zip(log_p, lengths, strict=True)]
    assert texts(readings) == [collapse(path, blank) for path in paths]
    expected = [row[:n].max(-1).sum() for row, n in zip(log_p, lengths, strict=True)]
    np.testing.assert_allclose(readings.log_probs, expected, rtol=1e-5, atol=1e-6)


def test_a_blank_separates_equal_characters():
    path = np.array([[1, 1, 0, 1, 2, 2, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0], [1, 2, 1, 1, 2, 1, 1, 1]])
    readings = best_path(jnp.asarray(np.eye(3)[path]), jnp.array([8, 8, 6]))
    assert texts(readings) == [(1, 1, 2), (), (1, 2, 1, 2, 1)]


@pytest.mark.parametrize(('frames', 'classes', 'blank'), [(1, 3, 0), (4, 3, 0), (4, 3, 2), (5, 3, 1), (4, 4, 0)])
def test_a_beam_that_holds_all_labels_gives_their_exact_order(frames, classes, blank):
    for seed in range(3):
        log_p = draw(frames, classes, seed=seed)
        expected = sorted(likelihoods(log_p, blank).items(), key=lambda pair: -pair[1])
        readings = search(jnp.asarray(log_p)[None], jnp.array([frames]), width=128, blank=blank)
        assert len(expected) < 128
        assert texts(readings)[: len(expected)] == [label for label, _ in expected]
        np.testing.assert_allclose(readings.log_probs[0, : len(expected)], np.log([p for _, p in expected]), atol=1e-5)
        assert (readings.log_probs[0, len(expected) :] == -np.inf).all()
        assert not np.asarray(readings.lengths)[0, len(expected) :].any()


def test_the_best_label_need_not_be_the_best_path():
    """Figure 2 of Graves et al. 2006: the path of blanks is the most probable, a label of one character more so."""
    log_p = np.log([[[0.6, 0.4], [0.6, 0.4]]])
    assert texts(best_path(log_p, jnp.array([2]))) == [()]
    readings = search(log_p, jnp.array([2]), width=2)
    assert texts(readings) == [(1,), ()]
    np.testing.assert_allclose(np.exp(readings.log_probs[0]), [0.64, 0.36], rtol=1e-5)


def test_a_beam_of_usual_width_on_longer_rows():
    """Its labels differ, are in order, no more probable than by the loss, and the best is at least the best path's."""
    log_p, lengths = jnp.asarray(draw(8, 20, 6, seed=5), jnp.float32), jnp.array([20, 20, 15, 9, 3, 1, 0, 20])
    readings = search(log_p, lengths, width=16)
    read = texts(readings)
    for row in range(8):
        mine = [t for t, p in zip(read[16 * row : 16 * row + 16], readings.log_probs[row], strict=True) if p > -np.inf]
        assert len(set(mine)) == len(mine)
    assert (np.diff(np.nan_to_num(np.asarray(readings.log_probs), neginf=-1e9), axis=1) <= 0).all()

    def likelihood(labels, n):
        return -jax.jit(losses.ctc)(log_p, lengths, labels, n)

    exact = likelihood(readings.labels[:, 0], readings.lengths[:, 0])
    assert (readings.log_probs[:, 0] <= exact + 1e-4).all()
    greedy = best_path(log_p, lengths)
    assert (exact >= likelihood(greedy.labels, greedy.lengths) - 1e-4).all()
    assert read[16 * 6] == ()
    assert float(readings.log_probs[6, 0]) == 0


def test_labels_are_no_longer_than_max_length():
    log_p = jnp.asarray(draw(5, 6, 4, seed=6))
    readings = search(log_p, jnp.full(5, 6), width=64, max_length=2)
    assert readings.labels.shape == (5, 64, 2)
    for row in range(5):
        expected = {k: v for k, v in likelihoods(np.asarray(log_p)[row]).items() if len(k) <= 2}
        best = max(expected, key=expected.__getitem__)
        assert texts(readings)[64 * row] == best
        assert float(readings.log_probs[row, 0]) == pytest.approx(np.log(expected[best]), abs=1e-5)


def test_a_width_of_0_is_refused():
    with pytest.raises(UsageError, match='width=0'):
        prefix_beam_search(jnp.zeros((1, 2, 3)), jnp.array([2]), width=0)


def label_probabilities(log_p, table, weight, bonus):
    """{label: log p(label | frames) + weight log p_LM(label and its end) + bonus |label|}, over all paths."""
    order = round(np.log(len(table)) / np.log(table.shape[1])) + 1
    scores = {}
    for label, probability in likelihoods(log_p).items():
        text = (0,) * (order - 1) + label + (0,)
        language = 0.0
        for end in range(order - 1, len(text)):
            row = 0
            for character in text[end - order + 1 : end]:
                row = row * table.shape[1] + character
            language += table[row, text[end]]
        scores[label] = np.log(probability) + weight * language + bonus * len(label)
    return scores


@pytest.mark.parametrize('order', [1, 3])
def test_a_language_model_in_a_beam_that_holds_all_labels(order):
    search_with = quick_jit(prefix_beam_search, static_argnames=('width',))
    table = draw(3 ** (order - 1), 3, seed=20 + order)
    for seed in range(3):
        log_p = draw(4, 3, seed=seed)
        expected = sorted(label_probabilities(log_p, table, 0.7, 0.3).items(), key=lambda pair: -pair[1])
        readings = search_with(
            jnp.asarray(log_p)[None], jnp.array([4]), width=64, language_model=table, weight=0.7, insertion_bonus=0.3
        )
        assert texts(readings)[: len(expected)] == [label for label, _ in expected]
        np.testing.assert_allclose(readings.log_probs[0, : len(expected)], [p for _, p in expected], atol=1e-5)
        assert (readings.log_probs[0, len(expected) :] == -np.inf).all()


def test_a_language_model_decides_between_labels_that_look_alike():
    """Characters 1 and 2 are equally likely in the second frame; after a 1 the model knows only a 2."""
    log_p = jnp.log(jnp.array([[[0.01, 0.98, 0.01], [0.02, 0.5, 0.48]]]))
    table = np.log(np.array([[0.1, 0.8, 0.1], [0.2, 0.01, 0.79], [0.9, 0.05, 0.05]]))
    assert texts(best_path(log_p, jnp.array([2])))[0] == (1,)
    assert texts(quick_jit(prefix_beam_search, static_argnums=2)(log_p, jnp.array([2]), 8, language_model=table))[
        0
    ] == (1, 2)
    with pytest.raises(UsageError, match=r'a language model of 3 classes is \[3\^\(n-1\), 3\], not \(4, 3\)'):
        prefix_beam_search(log_p, jnp.array([2]), 8, language_model=jnp.zeros((4, 3)))


def test_scores_of_labels():
    """All labels of small cases by their paths; labels of their own per row, chunks, and impossible ones."""
    score = quick_jit(score_labels, static_argnames=('blank',))
    log_p, lengths = jnp.asarray(draw(3, 5, 4, seed=9)), jnp.array([5, 3, 0])
    labels: list[tuple[int, ...]] = [label for n in range(5) for label in itertools.product([1, 2, 3], repeat=n)]
    padded = np.full((len(labels), 4), 7)
    for row, label in zip(padded, labels, strict=True):
        row[: len(label)] = label
    sizes = np.array([len(label) for label in labels])
    shared = score(log_p, lengths, padded, sizes)
    for row, n in enumerate(lengths):
        exact = likelihoods(np.asarray(log_p)[row, : int(n)])
        expected = np.log([max(exact.get(label, 0), 1e-300) for label in labels])
        possible = np.array([label in exact for label in labels])
        np.testing.assert_allclose(np.asarray(shared)[row, possible], expected[possible], atol=1e-5)
        assert (np.asarray(shared)[row, ~possible] == -np.inf).all()
    own = score(log_p, lengths, np.stack([padded, padded[::-1], padded]), np.stack([sizes, sizes[::-1], sizes]))
    np.testing.assert_allclose(own[1], shared[1, ::-1])
    with mock.patch.object(ctc_module, '_STATE_SIZE', 1):  # a row at a time
        np.testing.assert_allclose(
            score_labels(log_p, lengths, jnp.asarray(padded), jnp.asarray(sizes)), shared, atol=1e-6
        )
    other = score(jnp.roll(log_p, 3, -1), lengths, padded - 1, sizes, blank=3)  # the blank is the last class
    np.testing.assert_allclose(other, shared, atol=1e-6)
