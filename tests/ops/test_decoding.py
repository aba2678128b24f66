"""Decoding from a model that is a table: greedy and sampling against loops, beams against all sequences.

Its logits depend on all preceding tokens through a state with rows, so a wrongly gathered state changes the scores.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import decoding

V, END, FIRST = 3, 2, 1
rng = np.random.default_rng(0)
MIX, SPREAD = rng.normal(size=(V, 4, 4)), 2 * rng.normal(size=(4, V))
STARTS = rng.normal(size=(6, 4))


def step(state, tokens):
    """Each token transforms the vector of its row; the scalar `count` is shared by all rows."""
    vector, count = state
    vector = jnp.tanh(jnp.einsum('rij,rj->ri', jnp.asarray(MIX, vector.dtype)[tokens], vector) + 0.1 * count)
    return vector @ SPREAD.astype(vector.dtype), (vector, count + 1)


def start(rows=6):
    return jnp.asarray(STARTS[:rows], jnp.float32), jnp.zeros((), jnp.int32)


FIRSTS = jnp.full(6, FIRST)
greedy_search = jax.jit(decoding.greedy, static_argnames=('step', 'length', 'end'))
beam_search = jax.jit(decoding.beam_search, static_argnames=('step', 'length', 'end', 'beams', 'alpha'))
sample = jax.jit(decoding.sample, static_argnames=('step', 'length', 'end', 'temperature', 'top_k', 'top_p'))


def log_p(row, tokens):
    """Returns log p of each token, float64, step by step."""
    vector, last, decoded = STARTS[row], FIRST, []
    for i, token in enumerate(tokens):
        vector = np.tanh(MIX[last] @ vector + 0.1 * i)
        logits = vector @ SPREAD
        decoded.append(logits[token] - np.log(np.exp(logits).sum()))
        last = token
    return decoded


def every(length):
    """Returns all sequences that end within `length`, and all that are truncated there."""
    ended = [(*s, END) for n in range(length) for s in itertools.product([t for t in range(V) if t != END], repeat=n)]
    return ended, list(itertools.product([t for t in range(V) if t != END], repeat=length))


def ranked(row, sequences, alpha):
    scored = [(sum(log_p(row, s)) / ((5 + len(s)) / 6) ** alpha, s) for s in sequences]
    return sorted(scored, reverse=True)


def sequences(decoded, row):
    return [tuple(map(int, t[:n])) for t, n in zip(decoded.tokens[row], decoded.lengths[row], strict=True)]


def decode_greedily(row, length):
    """Decodes greedily in a loop."""
    sequence = []
    while len(sequence) < length and (not sequence or sequence[-1] != END):
        sequence.append(int(np.argmax([log_p(row, [*sequence, t])[-1] for t in range(V)])))
    return tuple(sequence)


@pytest.mark.parametrize('length', [1, 4, 9])
def test_greedy_equals_a_loop(length):
    decoded = greedy_search(step, start(), FIRSTS, length, END)
    expected = [decode_greedily(row, length) for row in range(6)]
    assert [tuple(map(int, t[:n])) for t, n in zip(decoded.tokens, decoded.lengths, strict=True)] == expected
    if length == 9:  # rows that end at once, later and never
        lengths = {len(w) for w in expected}
        assert min(lengths) < max(lengths)
    for row, sequence in enumerate(expected):
        np.testing.assert_array_equal(decoded.tokens[row, len(sequence) :], END)
        np.testing.assert_allclose(decoded.scores[row], sum(log_p(row, sequence)), rtol=1e-5)


@pytest.mark.parametrize('length', [1, 4, 9])
@pytest.mark.parametrize('alpha', [0.0, 0.6])
def test_a_beam_of_one_is_greedy(length, alpha):
    greedy = greedy_search(step, start(), FIRSTS, length, END)
    beam = beam_search(step, start(), FIRSTS, length, END, 1, alpha)
    np.testing.assert_array_equal(beam.tokens[:, 0], greedy.tokens)
    np.testing.assert_array_equal(beam.lengths[:, 0], greedy.lengths)
    penalty = ((5 + np.asarray(greedy.lengths)) / 6) ** alpha
    np.testing.assert_allclose(beam.scores[:, 0], greedy.scores / penalty, rtol=1e-5)


@pytest.mark.parametrize('alpha', [0.0, 0.6, 2.0])
def test_a_wide_beam_is_exhaustive_search(alpha):
    """A beam of 40 finds all 15 sequences that end within 4 tokens and all 16 that are truncated, in order."""
    ended, cut = every(4)
    assert (len(ended), len(cut)) == (15, 16)
    decoded = beam_search(step, start(), FIRSTS, 4, END, 40, alpha)
    for row in range(6):
        expected = ranked(row, ended, alpha) + ranked(row, cut, alpha)
        assert sequences(decoded, row)[:31] == [s for _, s in expected]
        np.testing.assert_allclose(decoded.scores[row, :31], [score for score, _ in expected], rtol=1e-5)
        np.testing.assert_array_equal(decoded.lengths[row, 31:], 0)
        np.testing.assert_array_equal(decoded.tokens[row, 31:], END)
        assert (decoded.scores[row, 31:] < -1e29).all()


def search_in_lists(row, length, beams, alpha):
    """The algorithm of the docstring of `beam_search`, with lists."""
    live, ended = [((), 0.0)], []
    for _ in range(length):
        every = [((*s, t), score + log_p(row, [*s, t])[-1]) for s, score in live for t in range(V)]
        every.sort(key=lambda pair: -pair[1])
        over = [(s, score / ((5 + len(s)) / 6) ** alpha) for s, score in every[:beams] if s[-1] == END]
        ended = sorted(ended + over, key=lambda pair: -pair[1])[:beams]
        live = [pair for pair in every if pair[0][-1] != END][:beams]
        if len(ended) == beams:
            return ended
    live = [(s, score / ((5 + length) / 6) ** alpha) for s, score in live]
    return (ended + live)[:beams]


@pytest.mark.parametrize('beams', [2, 3, 5])
@pytest.mark.parametrize('length', [3, 8])
def test_beams_equal_a_search_in_lists(beams, length):
    decoded = beam_search(step, start(), FIRSTS, length, END, beams, 0.6)
    for row in range(6):
        expected = search_in_lists(row, length, beams, 0.6)
        assert sequences(decoded, row)[: len(expected)] == [s for s, _ in expected]
        np.testing.assert_allclose(decoded.scores[row, : len(expected)], [score for _, score in expected], rtol=1e-5)


def test_rows_do_not_depend_on_each_other():
    """A row decoded alone equals the same row in a batch whose rows end at different steps."""
    together = beam_search(step, start(), FIRSTS, 8, END, 3, 0.6)
    for row in range(6):
        state = jnp.asarray(STARTS[row : row + 1], jnp.float32), jnp.zeros((), jnp.int32)
        alone = beam_search(step, state, FIRSTS[:1], 8, END, 3, 0.6)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-5)


def test_each_row_has_the_limit_that_is_its_own():
    """With different limits in one batch, each row equals a search of its own length."""
    limits = [1, 4, 9, 3, 7, 2]
    greedy = greedy_search(step, start(), FIRSTS, 9, END, jnp.array(limits))
    beam = beam_search(step, start(), FIRSTS, 9, END, 3, 0.6, jnp.array(limits))
    cut = 0
    for row, limit in enumerate(limits):
        sequence = decode_greedily(row, limit)
        assert tuple(map(int, greedy.tokens[row, : greedy.lengths[row]])) == sequence
        np.testing.assert_allclose(greedy.scores[row], sum(log_p(row, sequence)), rtol=1e-5)
        expected = search_in_lists(row, limit, 3, 0.6)
        assert sequences(beam, row)[: len(expected)] == [s for s, _ in expected]
        np.testing.assert_allclose(beam.scores[row, : len(expected)], [score for _, score in expected], rtol=1e-5)
        cut += sum(s[-1] != END for s, _ in expected)
    assert cut > 2


def always(logits):
    """Returns a step with the same logits [V] for every state."""
    return lambda state, tokens: (jnp.tile(jnp.asarray(logits), (len(tokens), 1)), state)


def test_ties_go_to_the_lowest_token():
    step, nothing = always([0.0, 1.0, 1.0, -9.0]), ()
    firsts = jnp.zeros(2, jnp.int32)
    for decoded in (
        decoding.greedy(step, nothing, firsts, 3, 3).tokens,
        decoding.beam_search(step, nothing, firsts, 3, 3, 1).tokens[:, 0],
    ):
        np.testing.assert_array_equal(decoded, 1)


def count_evaluations(search):
    """Returns how often `search(step)` evaluates the model."""
    evaluations = []

    def step(state, tokens):
        jax.debug.callback(lambda: evaluations.append(1))
        return jnp.tile(jnp.array([0.0, 0.0, 9.0]), (len(tokens), 1)), state

    jax.block_until_ready(jax.jit(lambda: search(step))())
    jax.effects_barrier()
    return len(evaluations)


def test_end_at_once_stops_the_loop():
    firsts = jnp.zeros(2, jnp.int32)
    assert count_evaluations(lambda step: decoding.greedy(step, (), firsts, 50, 2)) == 1
    assert count_evaluations(lambda step: decoding.beam_search(step, (), firsts, 50, 2, 1)) == 1
    assert (
        count_evaluations(lambda step: decoding.beam_search(step, (), firsts, 50, 2, 3)) == 2
    )  # (end), then (0, end), (1, end)
    assert count_evaluations(lambda step: decoding.greedy(step, (), firsts, 5)) == 5
    decoded = decoding.greedy(always([0.0, 0.0, 9.0]), (), firsts, 50, 2)
    np.testing.assert_array_equal(decoded.lengths, 1)
    np.testing.assert_array_equal(decoded.tokens, 2)


def test_impossible_tokens():
    """Logits of -inf are not continuations: a beam wider than the number of sequences has empty slots."""
    decoded = decoding.beam_search(always([-np.inf, 0.0, 0.0]), (), jnp.zeros(1, jnp.int32), 2, 2, 5, 0.0)
    assert sequences(decoded, 0) == [(2,), (1, 2), (1, 1), (), ()]
    np.testing.assert_allclose(decoded.scores[0, :3], [np.log(0.5), np.log(0.25), np.log(0.25)], rtol=1e-6)


@pytest.mark.parametrize(
    'keywords', [{}, dict(temperature=0.5), dict(top_k=2), dict(top_p=0.7), dict(top_k=3, top_p=0.8)]
)
def test_restricted_logits(keywords):
    """Against a loop over the sorted tokens; tokens that are left out have -inf."""
    logits = np.random.default_rng(3).normal(size=(20, 7)) * 2
    restricted, tokens = decoding.restrict_logits(jnp.asarray(logits, jnp.float32), **keywords)
    for row, (values, names) in zip(
        logits / keywords.get('temperature', 1), zip(restricted, tokens, strict=True), strict=True
    ):
        ranked_ids = sorted(range(7), key=lambda t: -row[t])[: keywords.get('top_k', 7)]
        p = np.exp(row[ranked_ids]) / np.exp(row[ranked_ids]).sum()
        enough = next((n for n in range(1, len(p)) if p[:n].sum() >= keywords.get('top_p', 2)), len(p))
        finite = np.isfinite(values)
        assert set(map(int, names[finite])) == set(ranked_ids[:enough])
        np.testing.assert_allclose(values[finite], row[np.asarray(names)[finite]], rtol=1e-6)


def test_top_k_of_equals_and_top_p_of_one():
    restricted, tokens = decoding.restrict_logits(jnp.zeros((1, 5)), top_k=2)
    np.testing.assert_array_equal(tokens, [[0, 1]])
    restricted, tokens = decoding.restrict_logits(jnp.array([[9.0, 0.0, 0.0]]), top_p=1e-6)
    np.testing.assert_array_equal(np.isfinite(restricted), [[True, False, False]])
    assert np.isfinite(decoding.restrict_logits(jnp.zeros((1, 5)), top_p=1.0)[0]).all()


def test_samples_come_as_often_as_they_should():
    """20,000 rows of two tokens against the products of their probabilities: chi-squared below its 1e-6 quantile."""
    rows = 20_000
    state = jnp.tile(jnp.asarray(STARTS[:1], jnp.float32), (rows, 1)), jnp.zeros((), jnp.int32)
    decoded = sample(step, state, jnp.full(rows, FIRST), 2, jax.random.key(0))
    tokens = np.asarray(decoded.tokens)
    expected = {s: np.exp(sum(log_p(0, s))) for s in itertools.product(range(V), repeat=2)}
    squares = [((tokens == s).all(1).sum() - rows * p) ** 2 / (rows * p) for s, p in expected.items()]
    assert sum(squares) < 43.8  # of 8 degrees of freedom: 6e-7
    for row in range(10):
        np.testing.assert_allclose(decoded.scores[row], sum(log_p(0, tokens[row])), rtol=1e-5)


def test_sampling_of_one_token_is_greedy():
    greedy = greedy_search(step, start(), FIRSTS, 6, END)
    for keywords in (dict(top_k=1), dict(top_p=1e-9), dict(temperature=1e-6)):
        decoded = sample(step, start(), FIRSTS, 6, jax.random.key(1), END, **keywords)
        np.testing.assert_array_equal(decoded.tokens, greedy.tokens)
        np.testing.assert_allclose(decoded.scores, greedy.scores, rtol=1e-6)


def test_the_length_penalty():
    """Wu et al. 2016, eq. 14: 1 for a single token, (5 + 7)^a / 6^a for seven."""
    np.testing.assert_allclose(decoding.length_penalty(jnp.array([1, 7]), 0.6), [1, 2**0.6], rtol=1e-6)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: decoding.greedy(step, start(), FIRSTS, 0), 'length=0 must be at least 1'),
        (
            lambda: decoding.greedy(step, start(), FIRSTS[:, None], 3),
            r'first must be one token per row, \[B\], not \(6, 1\)',
        ),
        (
            lambda: decoding.greedy(step, start(), FIRSTS, 3, END, jnp.ones(6)),
            r'limits float32\[6\] must be integers',
        ),
        (lambda: decoding.beam_search(step, start(), FIRSTS, 3, END, 0), 'beams=0 must be at least 1'),
        (lambda: decoding.beam_search(step, start(), FIRSTS, 3, END, 2, -1), 'alpha=-1 must not be negative'),
        (lambda: decoding.restrict_logits(jnp.zeros((1, 3)), 0), 'temperature=0 must be positive; greedy'),
        (lambda: decoding.restrict_logits(jnp.zeros((1, 3)), top_k=0), 'top_k=0 leaves no token'),
        (lambda: decoding.restrict_logits(jnp.zeros((1, 3)), top_p=1.5), r'top_p=1\.5 must be above 0'),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
