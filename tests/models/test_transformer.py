"""The Transformer against a float64 numpy pass in loops, its counts in closed form, and its cache against one go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import losses, models, ops, optim
from canon.errors import UsageError
from canon.ops import decoding
from tests.quick import quick_jit

SMALL = dict(vocab=11, layers=2, d_model=8, d_ff=12, heads=2)
rng = np.random.default_rng(0)
SOURCE, TARGET = rng.integers(0, 11, (3, 5)), rng.integers(0, 11, (3, 6))
LENGTHS = np.array([5, 2, 0])  # an empty source: all keys are masked
FORMS = [dict(norm='post'), dict(norm='pre'), dict(tied=False, source_vocab=13, d_k=3, d_v=5, bias=True)]


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


def draw_variables(model, *inputs):
    """Draws all parameters at random, so that none is zero or one."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda p: (0.5 * rng.normal(size=p.shape)).astype(np.float32), shapes)


# --- counts -------------------------------------------------------------------------------------------------------


def parameters(vocab, d, ff):
    """4 d^2 an attention, 2 d ff + ff + d a feed-forward network, 2 d a normalisation; one matrix of embeddings."""
    attention, feed, norm = 4 * d * d, 2 * d * ff + ff + d, 2 * d
    return vocab * d + 6 * (attention + feed + 2 * norm) + 6 * (2 * attention + feed + 3 * norm)


@pytest.mark.parametrize(
    ('name', 'd', 'ff', 'total', 'published'),
    [('base', 512, 2048, 63_045_632, 65e6), ('big', 1024, 4096, 214_171_648, 213e6)],
)
def test_parameters(name, d, ff, total, published):
    """The paper's numbers are of a vocabulary of about 37,000: 3 % and 0.6 % from ours of just that."""
    model = models.make_model(f'transformer.{name}', vocab=37_000)
    shapes = jax.eval_shape(model.init, jax.random.key(0), SOURCE, LENGTHS, TARGET)['params']
    assert count(shapes) == parameters(37_000, d, ff) == total
    assert abs(total / published - 1) < 0.031
    assert not any('bias' in shapes['encoder1']['attention'][k] for k in ('query', 'key', 'value', 'output'))


def test_parameters_of_a_language_model():
    model = models.make_model(
        'transformer.causal_transformer', vocab=256, layers=3, d_model=64, d_ff=100, heads=4, norm='post'
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), TARGET)['params']
    assert count(shapes) == 256 * 64 + 3 * (4 * 64**2 + 2 * 64 * 100 + 164 + 2 * 2 * 64)


# --- the equations ------------------------------------------------------------------------------------------------


def norm(p, x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * p['scale'] + p['bias']


def attend(p, x, memory, visible):
    """Attention head by head and query by query; visible(t) are the positions that query t attends to."""
    y = np.zeros_like(x)
    for h in range(p['query']['kernel'].shape[1]):
        q, k, v = (
            inputs @ p[name]['kernel'][:, h] + (p[name]['bias'][h] if 'bias' in p[name] else 0)
            for name, inputs in (('query', x), ('key', memory), ('value', memory))
        )
        for t in range(len(x)):
            if places := list(visible(t)):
                e = np.exp(q[t] @ k[places].T / np.sqrt(q.shape[-1]))
                y[t] += e / e.sum() @ v[places] @ p['output']['kernel'][h]
    return y + p['output'].get('bias', 0)


def block(p, x, visible, memory=None, valid=(), pre=False):
    def residual(name, x, f):
        return x + f(norm(p[name], x)) if pre else norm(p[name], x + f(x))

    x = residual('attention_norm', x, lambda y: attend(p['attention'], y, y, visible))
    if memory is not None:
        x = residual('cross_norm', x, lambda y: attend(p['cross_attention'], y, memory, lambda t: valid))
    wide, narrow = p['wide'], p['narrow']
    return residual(
        'feed_norm',
        x,
        lambda y: np.maximum(y @ wide['kernel'] + wide['bias'], 0) @ narrow['kernel'] + narrow['bias'],
    )


def embed(table, tokens):
    d = table.shape[1]
    places = [
        [(np.cos if i % 2 else np.sin)(p / 10000 ** ((i - i % 2) / d)) for i in range(d)] for p in range(len(tokens))
    ]
    return table[tokens] * np.sqrt(d) + places


def decode(p, table, tokens, memory=None, valid=(), pre=False):
    x = embed(table, tokens)
    for i in (1, 2):
        x = block(p[f'block{i}'], x, lambda t: range(t + 1), memory, valid, pre)
    x = norm(p['norm'], x) if pre else x
    return x @ p['output']['kernel'] + p['output']['bias'] if 'output' in p else x @ table.T


def forward(p, source, length, target, pre):
    memory = embed(p.get('source_embedding', p['embedding'])['embedding'], source)
    for i in (1, 2):
        memory = block(p[f'encoder{i}'], memory, lambda t: range(length), pre=pre)
    memory = norm(p['encoder_norm'], memory) if pre else memory
    return decode(p['decoder'], p['embedding']['embedding'], target, memory, range(length), pre)


@pytest.mark.parametrize('form', FORMS)
def test_equals_numpy(form):
    model = models.make_model('transformer.transformer', **SMALL, **form)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)
    actual = quick_jit(model.apply)(variables, SOURCE, LENGTHS, TARGET)
    p = jax.tree.map(np.float64, variables['params'])
    pre = form.get('norm') == 'pre'
    expected = np.stack([forward(p, *row, pre) for row in zip(SOURCE, LENGTHS, TARGET, strict=True)])
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('form', [dict(norm='post'), dict(norm='pre', tied=False)])
def test_a_language_model_equals_numpy(form):
    model = models.make_model('transformer.causal_transformer', **SMALL, **form)
    variables = draw_variables(model, TARGET)
    actual = quick_jit(model.apply)(variables, TARGET).logits
    p = jax.tree.map(np.float64, variables['params'])
    pre = form['norm'] == 'pre'
    expected = np.stack([decode(p['decoder'], p['embedding']['embedding'], row, pre=pre) for row in TARGET])
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())


# --- step by step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('form', FORMS)
def test_steps_with_a_cache_equal_all_positions_at_once(form):
    """A token at a time under `scan`, in a cache with room to spare; and a prompt of four, then two more."""
    model = models.make_model('transformer.transformer', **SMALL, **form)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)

    @quick_jit
    def each(variables):
        memory, state = model.apply(variables, SOURCE, LENGTHS, 9, method='start')

        def step(state, tokens):
            return model.apply(variables, memory, state, tokens, method='step')[::-1]

        parts, two = [], state
        for part in (TARGET[:, :4], TARGET[:, 4:]):
            logits, two = model.apply(variables, memory, two, part, method='extend')
            parts.append(logits)
        state, logits = jax.lax.scan(step, state, TARGET.T)
        return logits.swapaxes(0, 1), jnp.concatenate(parts, 1), state, two

    expected = quick_jit(model.apply)(variables, SOURCE, LENGTHS, TARGET)
    steps, parts, state, two = each(variables)
    for actual in (steps, parts):
        np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max())
    assert int(state.position) == int(two.position) == 6
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(two), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_steps_of_a_language_model_equal_all_positions_at_once():
    model = models.make_model('transformer.causal_transformer', **SMALL)
    variables = draw_variables(model, TARGET)
    state = model.start(3, 6)
    _, actual = quick_jit(
        lambda state, targets: jax.lax.scan(
            lambda state, tokens: model.apply(variables, state, tokens, method='step')[::-1], state, targets
        )
    )(state, TARGET.T)
    expected = quick_jit(model.apply)(variables, TARGET).logits
    np.testing.assert_allclose(actual.swapaxes(0, 1), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('form', FORMS[:2])
def test_search_with_and_without_a_cache_agree(form):
    """Against evaluating all positions again at each step: greedy, and the scores of a beam's hypotheses."""
    model = models.make_model('transformer.transformer', **{**SMALL, 'layers': 1}, **form)
    variables = jax.tree.map(lambda p: 0.7 * p, draw_variables(model, SOURCE, LENGTHS, TARGET))
    one_go = quick_jit(lambda target: jax.nn.log_softmax(model.apply(variables, SOURCE, LENGTHS, target)))

    @quick_jit
    def search(variables):
        memory, state = model.apply(variables, SOURCE, LENGTHS, 5, method='start')
        step = lambda state, tokens: model.apply(variables, memory, state, tokens, method='step')  # noqa: E731
        first = jnp.ones(3, jnp.int32)
        return decoding.greedy(step, state, first, 5, 2), decoding.beam_search(step, state, first, 5, 2, 3)

    greedy, beam = search(variables)
    sequence = np.ones((3, 6), np.int32)
    for i in range(5):
        sequence[:, i + 1] = one_go(sequence)[:, i].argmax(-1)
    for row in range(3):
        n = int(greedy.lengths[row])
        np.testing.assert_array_equal(greedy.tokens[row, :n], sequence[row, 1 : n + 1])
    for k in range(3):
        given = np.concatenate([np.ones((3, 1), np.int32), beam.tokens[:, k]], 1)
        log_p = np.take_along_axis(np.asarray(one_go(given))[:, :5], given[:, 1:, None], -1)[..., 0]
        for row in range(3):
            n = int(beam.lengths[row, k])
            assert n > 0
            expected = log_p[row, :n].sum() / ((5 + n) / 6) ** 0.6
            np.testing.assert_allclose(beam.scores[row, k], expected, rtol=2e-5)


# --- what else it promises ----------------------------------------------------------------------------------------


def test_padding_and_later_tokens_change_nothing():
    model = models.make_model('transformer.transformer', **SMALL)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)
    apply = quick_jit(model.apply)
    logits = apply(variables, SOURCE, LENGTHS, TARGET)
    other, later = SOURCE.copy(), TARGET.copy()
    other[1, 2:], other[2], later[:, 4:] = 7, 3, 5
    np.testing.assert_array_equal(apply(variables, other, LENGTHS, TARGET), logits)
    actual = apply(variables, SOURCE, LENGTHS, later)
    np.testing.assert_array_equal(actual[:, :4], logits[:, :4])
    assert (np.abs(actual[:, 4:] - logits[:, 4:]).max(-1) > 1e-3).all()


def test_gradients_are_finite_with_an_empty_source():
    model = models.make_model('transformer.transformer', **SMALL)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)

    @quick_jit
    @jax.grad
    def gradient(variables):
        logits = model.apply(variables, SOURCE, LENGTHS, TARGET)
        return losses.softmax_cross_entropy(logits, TARGET, 0.1).sum()

    grads = jax.tree.leaves(gradient(variables))
    assert all(np.isfinite(g).all() for g in grads)
    assert all(np.abs(g).max() > 0 for g in grads)


def test_positions_of_dropout_are_the_papers():
    """On the sums of embeddings and positions, and on each sub-layer's output.

    All outputs of dropped sub-layers are zero with a rate near 1, so what is left of a block is its normalisations.
    """
    model = models.make_model('transformer.transformer', **{**SMALL, 'layers': 1}, dropout=1 - 1e-7)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)

    def train(model):
        def apply(variables, key):
            return model.apply(variables, SOURCE, LENGTHS, TARGET, train=True, rngs={'dropout': key})

        return quick_jit(apply)

    logits = train(model)(variables, jax.random.key(0))
    p = jax.tree.map(np.float64, variables['params'])
    x = np.zeros(8)
    for name in ('attention_norm', 'cross_norm', 'feed_norm'):
        x = norm(p['decoder']['block1'][name], x)
    expected = np.broadcast_to(x @ p['embedding']['embedding'].T, logits.shape)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    model = models.make_model('transformer.transformer', **{**SMALL, 'layers': 1}, dropout=0.3)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)
    apply = train(model)
    a, b = (apply(variables, jax.random.key(i)) for i in (0, 1))
    assert np.abs(a - b).max() > 1e-3


def test_weights_for_drawing():
    model = models.make_model('transformer.transformer', **SMALL)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)
    logits, actual = quick_jit(lambda v: model.apply(v, SOURCE, LENGTHS, TARGET, mutable=['attention']))(variables)
    np.testing.assert_allclose(logits, quick_jit(model.apply)(variables, SOURCE, LENGTHS, TARGET), atol=1e-4)
    cross = actual['attention']['decoder']['block2']['cross']
    assert cross.shape == (3, 2, 6, 5)
    np.testing.assert_allclose(cross.sum(-1), np.broadcast_to([[[1]], [[1]], [[0]]], (3, 2, 6)), atol=1e-6)
    np.testing.assert_array_equal(cross[1, :, :, 2:], 0)
    assert 'attention' not in jax.eval_shape(model.init, jax.random.key(0), SOURCE, LENGTHS, TARGET)


def test_bfloat16():
    small = {**SMALL, 'layers': 1}
    model = models.make_model('transformer.transformer', **small, dtype='bfloat16')
    variables = quick_jit(model.init)(jax.random.key(0), SOURCE, LENGTHS, TARGET)
    assert {p.dtype for p in jax.tree.leaves(variables)} == {np.dtype(np.float32)}

    @quick_jit
    def decode(variables):
        memory, state = model.apply(variables, SOURCE, LENGTHS, 6, method='start')
        steps, _ = model.apply(variables, memory, state, TARGET, method='extend')
        return model.apply(variables, SOURCE, LENGTHS, TARGET), memory, state, steps

    logits, memory, state, steps = decode(variables)
    assert logits.dtype == np.float32
    wide = quick_jit(models.make_model('transformer.transformer', **small).apply)(variables, SOURCE, LENGTHS, TARGET)
    np.testing.assert_allclose(logits, wide, atol=0.05 * np.abs(wide).max())
    assert {x.dtype for x in jax.tree.leaves((memory.layers, state.layers))} == {np.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(steps, logits, atol=0.05 * np.abs(wide).max())


def test_a_token_outside_of_the_vocabulary_makes_its_row_nan():
    model = models.make_model('transformer.causal_transformer', **SMALL)
    logits = quick_jit(model.apply)(draw_variables(model, TARGET), np.array([[3, 11, 2], [3, 10, 2]])).logits
    assert np.isnan(logits[0]).all()
    assert np.isfinite(logits[1]).all()


def test_sinusoids():
    """Section 3.5, place by place; a shift is a rotation of each pair, the same wherever one stands."""
    table = ops.sinusoids(50, 6)
    for p, i in np.ndindex(50, 3):
        angle = p / 10000 ** (2 * i / 6)
        np.testing.assert_allclose(table[p, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-7)
    with pytest.raises(UsageError, match='5 features are not pairs'):
        ops.sinusoids(3, 5)


# --- its recipe ---------------------------------------------------------------------------------------------------


def test_the_papers_schedule():
    """Eq. 3, d^-0.5 min(n^-0.5, n 4000^-1.5), from warmup and inverse_sqrt; its peak at base is 6.99e-4."""
    d, steps = 512, 4000
    rate = optim.warmup(steps, optim.inverse_sqrt((d * steps) ** -0.5, steps))
    for n in (1, 2, 1000, 3999, 4000, 4001, 10_000, 100_000, 300_000):
        np.testing.assert_allclose(rate(n), d**-0.5 * min(n**-0.5, n * steps**-1.5), rtol=2e-6)
    assert f'{rate(steps):.2e}' == '6.99e-04'
    # A config writes the same.
    schedule = dict(name='warmup', steps=steps, then=dict(name='inverse_sqrt', init=(d * steps) ** -0.5, steps=steps))
    tx = optim.make_optimizer(dict(name='sgd', learning_rate=schedule))
    state, unit = tx.init(jnp.zeros(())), jnp.ones(())
    moved = []
    for _ in range(4):
        update, state = tx.update(unit, state, jnp.zeros(()))
        moved.append(-float(update))
    np.testing.assert_allclose(moved, [n * (d * steps**3) ** -0.5 for n in range(4)], rtol=1e-6)


def test_fairseqs_label_smoothing_is_ours_of_another_rate():
    """fairseq: (1 - e - e / (V - 1)) nll + e / (V - 1) sum_c nll_c, which is ours with e V / (V - 1) for e."""
    logits, labels, e, v = rng.normal(size=(5, 7)), rng.integers(0, 7, 5), 0.1, 7
    nll = np.log(np.exp(logits).sum(-1, keepdims=True)) - logits
    theirs = (1 - e - e / (v - 1)) * nll[np.arange(5), labels] + e / (v - 1) * nll.sum(-1)
    ours = losses.softmax_cross_entropy(jnp.asarray(logits, jnp.float32), labels, e * v / (v - 1))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(heads=3), r'model\.heads=3 does not divide model\.d_model=8; give d_k and d_v'),
        (dict(d_model=7, heads=7), r'model\.d_model=7 must be even'),
        (dict(norm='both'), r"model\.norm='both' is neither 'post' nor 'pre'"),
        (dict(dropout=1.0), r'model\.dropout=1\.0 must be a number at least 0 and below 1'),
        (dict(layers=0), r'model\.layers=0 must be at least 1'),
        (dict(activation='gleu'), 'no activation is called'),
        (dict(head=2), r'model\.head: transformer takes no such key; did you mean'),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        models.make_model('transformer.transformer', **{**SMALL, **arguments})


def test_inputs_that_do_not_fit_are_refused():
    model = models.make_model('transformer.transformer', **SMALL)
    variables = draw_variables(model, SOURCE, LENGTHS, TARGET)

    def apply(*arguments, method=None):
        return jax.eval_shape(lambda variables: model.apply(variables, *arguments, method=method), variables)

    with pytest.raises(UsageError, match=r'source \[B, S\] and lengths \[B\], not \(3, 5\) and \(2,\)'):
        apply(SOURCE, LENGTHS[:2], TARGET)
    with pytest.raises(UsageError, match=r'a target for 3 sources is \[3, T\], not \(2, 6\)'):
        apply(SOURCE, LENGTHS, TARGET[:2])
    with pytest.raises(UsageError, match='size=0 holds no token'):
        apply(SOURCE, LENGTHS, 0, method='start')
    shapes = apply(SOURCE, LENGTHS, 4, method='start')
    memory, state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    with pytest.raises(UsageError, match=r'tokens \(2, 1\) do not continue 3 rows over 3 sources'):
        apply(memory, state, TARGET[:2, 0], method='step')
    with pytest.raises(UsageError, match='6 tokens do not fit into a cache of 4'):
        apply(memory, state, TARGET, method='extend')
