"""Layers of attention against torch's in float64 (tools/golden/attention_torch.py), and a cache against one go."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.models.transformer import BlockSettings, TransformerBlock
from canon.nn import AdditiveAttention, DotProductAttention, GeneralAttention, MultiHeadAttention
from canon.nn.attention import KeyValueCache
from canon.ops import attention
from tests.models.drawn import draw_parameter
from tests.nn.attended import BATCH, FF, HEADS, LENGTHS, D, S, T, inputs

GOLDEN = np.load(Path(__file__).parent / 'golden' / 'attention_torch.npz')


def heads(name=''):
    """Our parameters of the attention that torch calls `name`: kernels [d, h, d_k] and [h, d_v, d]."""
    weight, bias = draw_parameter(f'{name}in_proj_weight', (3 * D, D)), draw_parameter(f'{name}in_proj_bias', (3 * D,))
    params = {
        key: {'kernel': w.T.reshape(D, HEADS, D // HEADS), 'bias': b.reshape(HEADS, D // HEADS)}
        for key, w, b in zip(('query', 'key', 'value'), np.split(weight, 3), np.split(bias, 3), strict=True)
    }
    out = draw_parameter(f'{name}out_proj.weight', (D, D)), draw_parameter(f'{name}out_proj.bias', (D,))
    return params | {'output': {'kernel': out[0].T.reshape(HEADS, D // HEADS, D), 'bias': out[1]}}


def block(cross):
    def dense(name, i, o):
        return {'kernel': draw_parameter(f'{name}.weight', (o, i)).T, 'bias': draw_parameter(f'{name}.bias', (o,))}

    def norm(number):
        return {
            'scale': draw_parameter(f'norm{number}.weight', (D,)),
            'bias': draw_parameter(f'norm{number}.bias', (D,)),
        }

    params = {
        'attention': heads('self_attn.'),
        'attention_norm': norm(1),
        'wide': dense('linear1', D, FF),
        'narrow': dense('linear2', FF, D),
        'feed_norm': norm(3 if cross else 2),
    }
    return params | ({'cross_attention': heads('multihead_attn.'), 'cross_norm': norm(2)} if cross else {})


def check(name, function, *arrays):
    """The output and gradients by the inputs, in float64, against the golden."""

    def evaluate(*arrays):
        y, pull = jax.vjp(function, *arrays)
        return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    outputs = jax.jit(evaluate)(*arrays)
    for value, key in zip(outputs, ('y', 'd0', 'd1'), strict=False):
        np.testing.assert_allclose(value, GOLDEN[f'{name}/{key}'], rtol=1e-9, atol=1e-9, err_msg=key)


def double(tree):
    return jax.tree.map(np.float64, tree)


def test_multi_head_attention_equals_torch():
    layer = MultiHeadAttention(HEADS, D // HEADS, D // HEADS, use_bias=True)
    with jax.enable_x64(True):
        params, mask = {'params': double(heads())}, attention.padding_mask(jnp.array(LENGTHS), S)
        check('attention', lambda x, m: layer.apply(params, x, m, mask), *inputs())
        _, weights = layer.apply(params, *inputs(), mask, weights=True)
        np.testing.assert_allclose(weights, GOLDEN['attention/weights'], atol=1e-12)


@pytest.mark.parametrize('norm', ['post', 'pre'])
def test_transformer_layers_equal_torch(norm):
    settings = BlockSettings(D, FF, HEADS, D // HEADS, D // HEADS, 0.0, 0.0, norm, True, 'relu', None)
    with jax.enable_x64(True):
        mask = attention.padding_mask(jnp.array(LENGTHS), S)
        x, memory = inputs()
        encoder, decoder = ({'params': double(block(cross))} for cross in (False, True))
        check(f'encoder_{norm}', lambda m: TransformerBlock(settings).apply(encoder, m, mask), memory)
        check(
            f'decoder_{norm}',
            lambda x, m: TransformerBlock(settings, cross=True).apply(decoder, x, attention.causal_mask(T), m, mask),
            x,
            memory,
        )


def draw_variables(layer, *inputs, seed=0, **keywords):
    """Variables of a layer with normal parameters, so that nothing is zero."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *inputs, **keywords))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: 0.5 * rng.normal(size=p.shape).astype(np.float32), shapes)


CACHED = MultiHeadAttention(2, 3, 5, features=7)
extend = jax.jit(lambda params, *arguments: CACHED.apply(params, *arguments, method='extend'))


@pytest.mark.parametrize('sizes', [(1,) * T, (3, 1), (T,), (1, 3)])
def test_steps_with_a_cache_equal_all_positions_at_once(sizes):
    layer, x = CACHED, np.float32(inputs()[0])
    params = draw_variables(layer, x)
    expected = jax.jit(layer.apply)(params, x, mask=attention.causal_mask(T))
    cache, position, outputs = KeyValueCache.empty(BATCH, 2, 6, 3, 5), 0, []
    for size in sizes:
        part, cache = extend(params, x[:, position : position + size], cache, position)
        outputs, position = [*outputs, part], position + size
    assert cache.keys.shape == (BATCH, 2, 6, 3)
    assert cache.values.shape == (BATCH, 2, 6, 5)
    np.testing.assert_allclose(np.concatenate(outputs, 1), expected, atol=2e-6)
    with pytest.raises(UsageError, match='4 positions do not fit into a cache of 3'):
        layer.apply(params, x, KeyValueCache.empty(BATCH, 2, 3, 3, 5), 0, method='extend')


def test_multi_head_attention_by_default_is_the_papers():
    x = np.zeros((1, 2, 512), np.float32)
    shapes = jax.eval_shape(MultiHeadAttention().init, jax.random.key(0), x)['params']
    inward, outward = (512, 8, 64), (8, 64, 512)
    expected = {'query': inward, 'key': inward, 'value': inward, 'output': outward}
    assert jax.tree.map(lambda p: p.shape, shapes) == {k: {'kernel': v} for k, v in expected.items()}


def test_additive_attention_is_bahdanaus():
    """One query and one memory in loops; and U h computed ahead gives the same."""
    x, memory = map(np.float32, inputs())
    memory = np.concatenate([memory, memory[..., :3]], -1)
    layer = AdditiveAttention(6)
    params = draw_variables(layer, x, memory)
    mask = attention.padding_mask(jnp.array(LENGTHS), S)
    context, weights = layer.apply(params, x, memory, mask, weights=True)
    p = jax.tree.map(np.float64, params['params'])
    w, u, v = p['query']['kernel'], p['memory']['kernel'], p['v']
    for b, t in np.ndindex(BATCH, T):
        e = np.array([v @ np.tanh(x[b, t] @ w + memory[b, s] @ u) for s in range(LENGTHS[b])])
        weights_of_row = np.exp(e - e.max()) / np.exp(e - e.max()).sum()
        np.testing.assert_allclose(weights[b, t], np.pad(weights_of_row, (0, S - LENGTHS[b])), atol=1e-6)
        np.testing.assert_allclose(context[b, t], weights_of_row @ memory[b, : LENGTHS[b]], atol=1e-5)
    projected = layer.apply(params, memory, method='project')
    step = layer.apply(params, x[:, 1:2], memory, mask, projected=projected)
    np.testing.assert_allclose(step, context[:, 1:2], atol=1e-6)


def test_additive_attention_starts_uniform():
    x, memory = map(np.float32, inputs())
    layer = AdditiveAttention(6)
    _, weights = layer.apply(layer.init(jax.random.key(0), x, memory), x, memory, weights=True)
    np.testing.assert_allclose(weights, 1 / S, atol=1e-7)


def test_luongs_layers():
    x, memory = map(np.float32, inputs())
    for layer, scores in (
        (DotProductAttention(), lambda p: np.einsum('btd,bsd->bts', x, memory)),
        (DotProductAttention(scaled=True), lambda p: np.einsum('btd,bsd->bts', x, memory) / np.sqrt(D)),
        (GeneralAttention(), lambda p: np.einsum('btd,de,bse->bts', x, p['params']['kernel'], memory)),
    ):
        params = draw_variables(layer, x, memory) or {}
        context, weights = jax.jit(lambda p, layer=layer: layer.apply(p, x, memory, weights=True))(params)
        e = np.exp(scores(params).astype(np.float64))
        expected = e / e.sum(-1, keepdims=True)
        np.testing.assert_allclose(weights, expected, atol=2e-6)
        np.testing.assert_allclose(context, expected @ memory, atol=1e-5)
        np.testing.assert_allclose(layer.apply(params, x, memory), expected @ memory, atol=1e-5)


def test_dropout_of_weights_keeps_the_mean():
    """Averaged over 4000 draws the context is that without dropout; what is drawn is the weights, in training only."""
    x, memory = (np.float32(v[:1]) for v in inputs())
    layer = MultiHeadAttention(2, 4, 4, dropout=0.4)
    params = draw_variables(layer, x, memory)
    draw = jax.jit(jax.vmap(lambda k: layer.apply(params, x, memory, train=True, rngs={'dropout': k})))
    contexts = np.asarray(draw(jax.random.split(jax.random.key(1), 4000)), np.float64)
    plain = layer.apply(params, x, memory)
    spread = contexts.std(0)
    assert spread.min() > 0.01
    assert (np.abs(contexts.mean(0) - plain) / spread * np.sqrt(4000)).max() < 5


def test_bfloat16():
    x, memory = map(np.float32, inputs())
    for layer in (MultiHeadAttention(2, 4, 4, dtype='bfloat16'), AdditiveAttention(6, dtype='bfloat16')):
        params = layer.init(jax.random.key(0), x, memory)
        assert {p.dtype for p in jax.tree.leaves(params)} == {np.dtype(np.float32)}
        wide = layer.clone(dtype=None).apply(params, x, memory)
        context, weights = layer.apply(params, x, memory, weights=True)
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(np.float32(context), wide, atol=0.03 * np.abs(wide).max())
