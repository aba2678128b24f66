"""Recurrent encoder-decoders against their papers' equations in float64, and their published count."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import expit, softmax

from canon import models
from canon.errors import UsageError
from canon.models.seq2seq import _reverse
from canon.ops import decoding
from tests.quick import quick_jit

VOCAB, SOURCE = 13, 11
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, SOURCE, (3, 7))
LENGTHS = np.array([7, 4, 2])
TARGET = RNG.integers(0, VOCAB, (3, 5))
FORMS = {
    'sutskever': dict(layers=2),
    'sutskever gru': dict(layers=1, cell='gru', reverse=False),
    'luong general': dict(layers=2),
    'luong dot': dict(layers=1, score='dot'),
    'luong concat, unfed': dict(layers=1, score='concat', feed=False),
    'bahdanau': dict(align=5, maxout=4),
    'bahdanau lstm': dict(align=5, maxout=4, cell='lstm', layers=2),
}


def draw_model(name, **arguments):
    """Returns a model of 8 units with random parameters: zeros would hide missing terms."""
    sizes = dict(vocab=VOCAB, source_vocab=SOURCE, embed=6, hidden=8, start='glorot')
    model = models.make_model(f'seq2seq.{name.split()[0]}', **sizes | arguments)
    shapes = jax.eval_shape(model.init, jax.random.key(0), TOKENS, LENGTHS, TARGET)
    rng = np.random.default_rng(1)
    return model, jax.tree.map(lambda x: np.float32(0.55 * rng.normal(size=x.shape)), shapes)


def compiled(model, method=None, **options):
    return quick_jit(lambda variables, *inputs: model.apply(variables, *inputs, method=method, **options))


def widen(variables):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), variables['params'])


@pytest.mark.parametrize('form', FORMS)
def test_steps_equal_all_positions_at_once_and_padding_changes_nothing(form):
    model, variables = draw_model(form, **FORMS[form])
    full, stored = compiled(model, mutable=['attention'])(variables, TOKENS, LENGTHS, TARGET)
    memory, state = compiled(model, 'start')(variables, TOKENS, LENGTHS, 9)
    logits, step = [], compiled(model, 'step')
    for t in range(TARGET.shape[1]):
        row, state = step(variables, memory, state, TARGET[:, t])
        logits.append(row)
    np.testing.assert_allclose(jnp.stack(logits, 1), full, atol=5e-6)
    apply = compiled(model)
    other = np.where(np.arange(7) < LENGTHS[:, None], TOKENS, 1)
    longer = np.pad(other, ((0, 0), (0, 3)), constant_values=5)
    np.testing.assert_allclose(apply(variables, longer, LENGTHS, TARGET), full, atol=5e-6)
    alone = apply(variables, TOKENS[1:2, :4], LENGTHS[1:2], TARGET[1:2])
    np.testing.assert_allclose(alone[0], full[1], atol=5e-6)
    if not form.startswith('sutskever'):
        weights = stored['attention']['cross']
        assert weights.shape == (3, 1, 5, 7)
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(weights[1, :, :, 4:], 0)
    else:
        assert not stored.get('attention')


@pytest.mark.parametrize('form', ['sutskever', 'luong general', 'bahdanau'])
def test_several_hypotheses_share_one_source(form):
    model, variables = draw_model(form, **FORMS[form])
    memory, state = compiled(model, 'start')(variables, TOKENS, LENGTHS, 9)
    twice = jax.tree.map(lambda x: np.repeat(x, 2, 0), state)
    tokens, apply = np.array([1, 2, 3, 4, 5, 6]), compiled(model, 'step')
    logits, _ = apply(variables, memory, twice, tokens)
    for k in (0, 1):
        row, _ = apply(variables, memory, state, tokens[k::2])
        np.testing.assert_allclose(logits[k::2], row, atol=2e-6)

    @quick_jit
    def search(memory, state):
        step = lambda state, tokens: model.apply(variables, memory, state, tokens, method='step')  # noqa: E731
        first = jnp.zeros(3, jnp.int32)
        greedy = decoding.greedy(step, state, first, 6, end=2)
        return greedy, decoding.beam_search(step, state, first, 6, end=2, beams=1)

    greedy, beam = search(memory, state)
    np.testing.assert_array_equal(beam.tokens[:, 0], greedy.tokens)


def gru(p, x, h):
    """Cho et al. 2014: the reset ahead of the product."""
    n = len(h)
    zx = x @ p['kernel'] + p['bias']
    r, u = (expit(zx[i * n : (i + 1) * n] + h @ p['recurrent'][:, i * n : (i + 1) * n]) for i in (0, 1))
    new = np.tanh(zx[2 * n :] + (r * h) @ p['recurrent'][:, 2 * n :])
    return (1 - u) * new + u * h


def lstm(p, x, h, c):
    i, f, g, o = np.split(x @ p['kernel'] + h @ p['recurrent'] + p['bias'], 4)
    c = expit(f) * c + expit(i) * np.tanh(g)
    return expit(o) * np.tanh(c), c


def dense(p, x):
    return x @ p['kernel'] + p.get('bias', 0)


def test_bahdanau_word_by_word():
    """Bahdanau et al. 2015, A.1.1 and A.1.2, with s_i in the output."""
    model, variables = draw_model('bahdanau', align=5, maxout=4)
    p = widen(variables)
    logits = np.asarray(compiled(model)(variables, TOKENS, LENGTHS, TARGET))
    for row in range(3):
        xs = p['source_embedding']['embedding'][TOKENS[row, : LENGTHS[row]]]
        forward, backward, h = [], [], np.zeros(8)
        for x in xs:
            forward.append(h := gru(p['encoder']['forward_0'], x, h))
        h = np.zeros(8)
        for x in xs[::-1]:
            backward.insert(0, h := gru(p['encoder']['backward_0'], x, h))
        memory = np.concatenate([forward, backward], 1)
        s, a = np.tanh(dense(p['bridge'], backward[0])), p['attention']
        for t, word in enumerate(TARGET[row]):
            y = p['embedding']['embedding'][word]
            e = np.tanh(s @ a['query']['kernel'] + memory @ a['memory']['kernel']) @ a['v']
            c = softmax(e) @ memory
            s = gru(p['decoder']['forward_0'], np.concatenate([y, c]), s)
            pieces = dense(p['deep'], np.concatenate([s, y, c])).reshape(4, 2)
            np.testing.assert_allclose(logits[row, t], dense(p['output'], pieces.max(1)), atol=2e-5)


def test_luong_word_by_word():
    """Luong et al. 2015, eq. 5 to 8 with 'general' scores and input feeding, the source read backwards."""
    model, variables = draw_model('luong', layers=1)
    p = widen(variables)
    logits = np.asarray(compiled(model)(variables, TOKENS, LENGTHS, TARGET))
    for row in range(3):
        h, c, memory = np.zeros(8), np.zeros(8), []
        for x in p['source_embedding']['embedding'][TOKENS[row, : LENGTHS[row]]][::-1]:
            h, c = lstm(p['encoder']['forward_0'], x, h, c)
            memory.append(h)
        memory, fed = np.array(memory), np.zeros(8)
        for t, word in enumerate(TARGET[row]):
            x = np.concatenate([p['embedding']['embedding'][word], fed])
            h, c = lstm(p['decoder']['forward_0'], x, h, c)
            context = softmax(h @ p['attention']['kernel'] @ memory.T) @ memory
            fed = np.tanh(dense(p['combine'], np.concatenate([context, h])))
            np.testing.assert_allclose(logits[row, t], dense(p['output'], fed), atol=2e-5)


def test_a_reversed_source_keeps_its_padding_at_the_end():
    actual = _reverse(jnp.array([[1, 2, 3, 0], [4, 0, 0, 0]]), jnp.array([3, 1]))
    np.testing.assert_array_equal(actual, [[3, 2, 1, 0], [4, 0, 0, 0]])


def test_published_counts():
    """Sutskever et al. 2014, section 3.4: 384 M parameters, of which 64 M recurrent; and RNNsearch by hand."""

    def count(tree):
        return sum(x.size for x in jax.tree.leaves(tree))

    def shapes(model):
        token = jax.ShapeDtypeStruct((1, 3), np.int32)
        length = jax.ShapeDtypeStruct((1,), np.int32)
        return jax.eval_shape(model.init, jax.random.key(0), token, length, token)['params']

    p = shapes(models.make_model('seq2seq.sutskever', vocab=80_000, source_vocab=160_000))
    assert round(count(p) / 1e6) == 384
    assert round(count([p['encoder'], p['decoder']]) / 1e6) == 64
    n, m, half, v = 1000, 620, 500, 30_000
    units = 3 * (m * n + n * n + n)
    by_hand = (
        2 * v * m  # embeddings
        + 2 * units  # both directions of the encoder
        + units + 3 * 2 * n * n  # the decoder also sees c_i
        + n * n + n  # s_0
        + n * n + 2 * n * n + n  # alignment
        + 2 * half * (n + m + 2 * n) + 2 * half + half * v + v  # the output
    )  # fmt: skip
    assert count(shapes(models.make_model('seq2seq.bahdanau', vocab=v, source_vocab=v))) == by_hand


def test_bad_arguments_name_their_key():
    with pytest.raises(UsageError, match=r"model.score='generl' is not a score of attention; did you mean 'general'"):
        models.make_model('seq2seq.luong', vocab=5, score='generl')
    with pytest.raises(UsageError, match=r'model.hidden=0 must be at least 1'):
        models.make_model('seq2seq.sutskever', vocab=5, hidden=0)
    with pytest.raises(UsageError, match=r"model.start='he' is not an initialisation"):
        models.make_model('seq2seq.bahdanau', vocab=5, start='he')
    model, variables = draw_model('bahdanau')
    with pytest.raises(UsageError, match=r'takes source \[B, S\] and lengths \[B\], not \(3, 7\) and \(2,\)'):
        jax.eval_shape(model.apply, variables, TOKENS, LENGTHS[:2], TARGET)


def copies(rows=64, words=60, longest=10, seed=0):
    """Yields sentences of words from 3 on that end with 2, their lengths, and decoder inputs that begin with 1."""
    rng = np.random.default_rng(seed)
    while True:
        lengths = rng.integers(4, longest + 1, rows)
        source = np.where(np.arange(longest) < lengths[:, None], rng.integers(3, words, (rows, longest)), 0)
        source = np.pad(source, ((0, 0), (0, 1)))
        source[np.arange(rows), lengths] = 2
        yield source, lengths + 1, np.pad(source[:, :-1], ((0, 0), (1, 0)), constant_values=1)


@pytest.mark.slow
def test_luongs_form_learns_to_attend_to_the_word_it_copies():
    sizes = dict(vocab=60, source_vocab=60, embed=96, hidden=128, layers=1, dropout=0.0, start='glorot')
    model = models.make_model('seq2seq.luong', **sizes, cell='gru', reverse=False)
    batches = copies()
    params = model.init(jax.random.key(0), *next(batches))['params']
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(4e-3))

    def loss(params, source, lengths, inputs):
        logits, stored = model.apply({'params': params}, source, lengths, inputs, mutable=['attention'])
        mask = jnp.arange(source.shape[1]) < lengths[:, None]
        nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), source[..., None], -1)[..., 0]
        own = jnp.diagonal(stored['attention']['cross'][:, 0], axis1=1, axis2=2)
        return (nats * mask).sum() / mask.sum(), (own * mask).sum() / mask.sum()

    @jax.jit
    def step(params, state, batch):
        (value, own), grads = jax.value_and_grad(loss, has_aux=True)(params, *batch)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value, own

    state = tx.init(params)
    for _ in range(250):
        params, state, value, own = step(params, state, next(batches))
    assert value < 0.5
    assert own > 0.7  # a random word's share is 0.14
