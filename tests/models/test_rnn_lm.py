"""Recurrent language models: counts, truncated reading, dropout masks, and steps against whole windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.errors import UsageError
from canon.models.rnn_lm import weight_drop
from tests.quick import quick_jit


def count(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def make_model(seed=0, **kwargs):
    model = models.make_model('rnn_lm.language_model', vocab=11, **{'embed': 6, 'hidden': 8, **kwargs})
    tokens = np.random.default_rng(seed).integers(11, size=(3, 12))
    return model, quick_jit(model.init)(jax.random.key(seed), tokens[:1]), tokens


def test_parameters():
    """Zaremba et al.'s small model in closed form; AWD-LSTM's published count less cuDNN's second biases."""
    small = jax.eval_shape(
        models.make_model('rnn_lm.language_model', vocab=10_000).init, jax.random.key(0), jnp.zeros((1, 2), int)
    )
    assert count(small['params']) == 10_000 * 200 + 2 * (4 * 200 * 400 + 4 * 200) + 10_000 * 201
    awd = jax.eval_shape(
        models.make_model('rnn_lm.awd_lstm', vocab=10_000).init, jax.random.key(0), jnp.zeros((1, 2), int)
    )
    assert count(awd['params']) == 24_221_600 - 4 * (1150 + 1150 + 400)


@pytest.mark.parametrize('cell', ['lstm', 'gru', 'rnn'])
@pytest.mark.parametrize('tied', [False, True])
def test_windows_and_steps_equal_the_full_text(cell, tied):
    model, variables, tokens = make_model(cell=cell, tied=tied, layers=2)
    apply = quick_jit(model.apply)
    step = quick_jit(lambda state, token: model.apply(variables, state, token, method='step'))
    full = apply(variables, tokens)
    state, windows = model.start(3), []
    for begin in (0, 4, 8):
        output = apply(variables, tokens[:, begin : begin + 4], state)
        state, windows = output.state, [*windows, output.logits]
    np.testing.assert_allclose(np.concatenate(windows, 1), full.logits, atol=1e-6)
    state, rows = model.start(3), []
    for token in tokens.T:
        logits, state = step(state, token)
        rows.append(logits)
    np.testing.assert_allclose(np.stack(rows, 1), full.logits, atol=1e-6)
    ends = zip(jax.tree.leaves(state), jax.tree.leaves(full.state), strict=True)
    for a, b in ends:
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_logits_do_not_depend_on_later_tokens():
    model, variables, tokens = make_model()
    other = tokens.copy()
    other[:, 7] = (other[:, 7] + 1) % 11
    apply = quick_jit(model.apply)
    a, b = (np.asarray(apply(variables, t).logits) for t in (tokens, other))
    np.testing.assert_array_equal(a[:, :7], b[:, :7])
    assert (np.abs(a[:, 7:] - b[:, 7:]).max(-1) > 0).all()


def test_a_tied_output_is_the_embedding():
    model, variables, tokens = make_model(tied=True, layers=1)
    output = quick_jit(model.apply)(variables, tokens)
    p = variables['params']
    expected = np.asarray(output.outputs, np.float64) @ np.asarray(p['embedding'], np.float64).T + p['bias']
    np.testing.assert_allclose(output.logits, expected, atol=1e-5)


def train(model, variables, tokens, seed):
    rngs = {'dropout': jax.random.key(seed)}
    return quick_jit(lambda variables: model.apply(variables, tokens, train=True, rngs=rngs))(variables)


def test_dropout_is_locked_over_time_and_drops_whole_words():
    model, variables, tokens = make_model(dropout=0.5, layers=1, hidden=64)
    output = train(model, variables, tokens, 1)
    ratio = np.asarray(output.dropped) / np.asarray(output.outputs)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-5, atol=1e-5)
    assert set(ratio.round(4).ravel()) == {0.0, 2.0}
    assert 0.35 < (ratio == 0).mean() < 0.65
    model, variables, _ = make_model(dropout_embedding=0.5)
    words = np.tile(np.arange(11)[:, None], 2)
    bare = np.asarray(train(model, variables, words, 3).logits)[:, 0]
    alone = np.asarray(quick_jit(model.apply)(variables, words).logits)
    silent = np.isclose(bare[:, None], bare[None], atol=1e-6).all(-1).sum(1)  # words without a vector are all alike
    assert 2 <= silent.max() <= 9
    assert not np.allclose(bare, alone[:, 0])


def test_weight_drop_touches_recurrent_matrices_alone():
    _, variables, _ = make_model(hidden=64)
    params = variables['params']
    thin = weight_drop(params, 0.25, jax.random.key(0))
    dropped = 0
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(thin), strict=True):
        if path[-1].key == 'recurrent':
            dropped += 1
            remaining = np.asarray(b) != 0
            np.testing.assert_allclose(np.asarray(b)[remaining], np.asarray(a)[remaining] / 0.75, rtol=1e-6)
            assert 0.2 < 1 - remaining.mean() < 0.3
        else:
            np.testing.assert_array_equal(a, b)
    assert dropped == 2
    assert weight_drop(params, 0.0, jax.random.key(0))['embedding'] is params['embedding']


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'cell': 'ltsm'}, "model.cell='ltsm' is unknown; did you mean 'lstm'"),
        ({'hidden': 0}, 'model.hidden=0 must be at least 1'),
        ({'dropout_input': 1.0}, r'model.dropout_input=1.0 must be a number at least 0 and below 1'),
    ],
)
def test_bad_arguments_are_refused(kwargs, message):
    with pytest.raises(UsageError, match=message):
        models.make_model('rnn_lm.language_model', vocab=11, **kwargs)


def test_tokens_of_one_axis_are_refused():
    model, variables, _ = make_model()
    with pytest.raises(UsageError, match=r'tokens \[B, T\]'):
        model.apply(variables, np.zeros(3, int))
