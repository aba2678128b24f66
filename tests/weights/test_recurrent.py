"""Recurrent weights to and from flax's cells, which compute the same, and torch's names; torch itself: tests/nn."""

import flax.linen as linen
import jax
import numpy as np
import pytest

from canon.errors import UsageError
from canon.nn import GRU, LSTM, RNN
from canon.weights import recurrent

X = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
LENGTHS = np.array([4, 2])
CELLS = {
    'simple': (linen.SimpleCell(5), RNN(5)),
    'lstm': (linen.LSTMCell(5), LSTM(5)),
    'optimized lstm': (linen.OptimizedLSTMCell(5), LSTM(5)),
    'gru': (linen.GRUCell(5), GRU(5)),
}


def drawn(like, seed=0):
    leaves, treedef = jax.tree.flatten(like)
    rng = np.random.default_rng(seed)
    return treedef.unflatten([rng.normal(0, 0.5, leaf.shape).astype(np.float32) for leaf in leaves])


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('name', CELLS)
def test_flax(name, reverse):
    """The cell's outputs within the lengths, and there and back again."""
    cell, layer = CELLS[name]
    peer = linen.RNN(cell, reverse=reverse, keep_order=True)
    variables = drawn(jax.eval_shape(peer.init, jax.random.key(0), X))
    ((_, params),) = variables['params'].items()
    ours = recurrent.cell_from_flax(params)
    same(recurrent.cell_to_flax(ours), params)
    tree = {'forward_0': ours}
    layer = layer.clone(bidirectional=reverse)
    if reverse:
        tree['backward_0'] = ours
    actual = layer.apply({'params': tree}, X, LENGTHS)[0][..., -5:]
    expected = peer.apply(variables, X, seq_lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        np.testing.assert_allclose(actual[row, :length], expected[row, :length], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('layer', [RNN(5, 2), LSTM(5, 2, bidirectional=True), GRU(5, use_bias=False), GRU(5, 3)])
def test_round_trip(layer):
    params = drawn(jax.eval_shape(layer.init, jax.random.key(0), X))['params']
    tensors = recurrent.layer_to_torch(params, 'encoder.')
    assert all(key.startswith('encoder.') for key in tensors)
    assert tensors['encoder.weight_ih_l0'].shape == params['forward_0']['kernel'].shape[::-1]
    same(recurrent.layer_from_torch({**tensors, 'decoder.weight': np.zeros(3)}, 'encoder.'), params)


def test_bad_input_is_refused():
    def params(layer):
        return drawn(jax.eval_shape(layer.init, jax.random.key(0), X))['params']

    for layer, message in (
        (RNN(5, features=2), 'output: recurrent layers of torch have no such parameters'),
        (LSTM(5, cell_map=True), 'forward_0: the cells of torch and flax have no cell_bias, cell_kernel'),
        (
            GRU(5, reset_after=False),
            r'forward_0: torch and flax have no GRU without candidate_bias \(reset_after=False\)',
        ),
    ):
        with pytest.raises(UsageError, match=message):
            recurrent.layer_to_torch(params(layer))
    tensors = recurrent.layer_to_torch(params(LSTM(5, 2)))
    with pytest.raises(UsageError, match=r'there is no rnn\.weight_ih_l0'):
        recurrent.layer_from_torch(tensors, 'rnn.')
    with pytest.raises(UsageError, match='proj_size'):
        recurrent.layer_from_torch({**tensors, 'weight_hr_l0': np.zeros((2, 5))})
    del tensors['weight_hh_l1']
    with pytest.raises(UsageError, match='weight_hh_l1 is missing'):
        recurrent.layer_from_torch(tensors)
    with pytest.raises(UsageError, match='not those of an LSTM, GRU or simple cell of flax'):
        recurrent.cell_from_flax({'hi': {}, 'ii': {}})
