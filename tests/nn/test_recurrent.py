"""Recurrent layers against torch's (tests/nn/golden/recurrent.npz, by tools/golden/recurrence_torch.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.nn import GRU, LSTM, RNN
from canon.weights import recurrent
from tests.models.drawn import drawn

GOLDEN = np.load(Path(__file__).parent / 'golden/recurrent.npz')
LAYERS = {
    'rnn': RNN(3, 2, bidirectional=True),
    'rnn_relu': RNN(3, 2, bidirectional=True, activation='relu'),
    'lstm': LSTM(3, 2, bidirectional=True),
    'gru': GRU(3, 2, bidirectional=True),
}
LENGTHS = np.array([2, 5, 1])
X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


def weighed(v):
    return (v * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)).sum()


@pytest.mark.parametrize('case', LAYERS)
def test_equals_torch(case):
    """Outputs, last states and all gradients of two layers in two directions, with padding."""
    keys = [key.split()[1] for key in GOLDEN if key.startswith(f'{case}/d ') and key != f'{case}/d x']
    with jax.enable_x64(True):
        tensors = {key: np.float64(drawn(key, GOLDEN[f'{case}/d {key}'].shape)) for key in keys}
        params, x = recurrent.from_torch(tensors), np.float64(drawn('x', GOLDEN[f'{case}/d x'].shape))

        def loss(params, x):
            y, state = LAYERS[case].apply({'params': params}, x, LENGTHS)
            state = jnp.stack(jax.tree.leaves(list(zip(*state, strict=True)) if case == 'lstm' else state))
            return weighed(y) + weighed(state), (y, state)

        (dparams, dx), (y, state) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    found = {'y': y, 'state': state, 'd x': dx}
    for place in ('l0', 'l0_reverse', 'l1', 'l1_reverse'):
        own = dparams[f'{"backward" if "reverse" in place else "forward"}_{place[1]}']
        found |= {f'd weight_ih_{place}': own['kernel'].T, f'd weight_hh_{place}': own['recurrent'].T}
        both = f'd bias_ih_{place}', f'd bias_hh_{place}'
        found |= dict.fromkeys(both, own['bias'])
        if case == 'gru':
            found[both[1]] = np.concatenate([own['bias'][:6], own['candidate_bias']])
    assert {f'{case}/{what}' for what in found} == {key for key in GOLDEN if key.startswith(f'{case}/')}
    for what, value in found.items():
        np.testing.assert_allclose(value, GOLDEN[f'{case}/{what}'], rtol=1e-10, atol=1e-12, err_msg=what)


@pytest.mark.parametrize(
    'layer', [RNN(3, 2, features=2), LSTM(3, 2, cell_map=True), GRU(3, 2), GRU(3, 2, reset_after=False)]
)
def test_steps_and_windows_are_the_whole(layer):
    """With carried state: one window, two, and step by step."""
    variables = layer.init(jax.random.key(0), X)
    whole, last = layer.apply(variables, X)
    state = layer.start(3)
    parts = []
    for part in (X[:, :2], X[:, 2:]):
        outputs, state = layer.apply(variables, part, initial=state)
        parts.append(outputs)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, last)

    step = jax.jit(lambda state, x: layer.apply(variables, state, x, method='step'))
    state, steps = layer.start(3), []
    for t in range(X.shape[1]):
        outputs, state = step(state, X[:, t])
        steps.append(outputs)
    np.testing.assert_allclose(np.stack(steps, 1), whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, last)


def test_output_map():
    """o_t = f(V s_t), of both directions, and zero beyond the end even where f(0) is not."""
    layer = RNN(3, bidirectional=True, activation='sigmoid', features=2)
    variables = layer.init(jax.random.key(0), X)
    found, _ = layer.apply(variables, X, LENGTHS)
    inner = {key: value for key, value in variables['params'].items() if key != 'output'}
    states, _ = layer.clone(features=None).apply({'params': inner}, X, LENGTHS)
    wanted = 1 / (1 + np.exp(-(np.asarray(states, np.float64) @ variables['params']['output']['kernel'])))
    wanted[np.arange(5) >= LENGTHS[:, None]] = 0
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_how_parameters_start():
    params = LSTM(6, forget_bias=0.5).init(jax.random.key(0), X)['params']['forward_0']
    np.testing.assert_array_equal(params['bias'], np.repeat([0, 0.5, 0, 0], 6).astype(np.float32))
    for gate in np.split(params['recurrent'], 4, 1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(6), atol=1e-6)
    limit = np.sqrt(6 / (4 + 6))  # Glorot & Bengio 2010, eq. 16, of one gate
    assert 0.8 * limit < np.abs(params['kernel']).max() <= limit
    gates = np.split(np.asarray(params['kernel']), 4, 1)
    assert len({gate.tobytes() for gate in gates}) == 4
    assert LSTM(6).init(jax.random.key(0), X)['params']['forward_0']['bias'][6:12].tolist() == [1] * 6


@pytest.mark.parametrize('locked', [False, True])
def test_dropout_stands_between_layers(locked):
    """The first layer's outputs lose half; one layer loses nothing; without `train` none does."""
    layer = RNN(64, 2, dropout=0.5, locked=locked, activation='linear', use_bias=False)
    x = jnp.ones((2, 6, 4))
    variables = layer.init(jax.random.key(0), x)
    first, second = (variables['params'][f'forward_{k}'] for k in (0, 1))
    eye = {'kernel': jnp.eye(64), 'recurrent': jnp.zeros((64, 64))}
    variables = {'params': {'forward_0': first | {'recurrent': jnp.zeros((64, 64))}, 'forward_1': eye}}
    assert second.keys() == eye.keys()
    sure, _ = layer.apply(variables, x)
    found, _ = layer.apply(variables, x, train=True, rngs={'dropout': jax.random.key(1)})
    kept = np.asarray(found != 0)
    np.testing.assert_allclose(found, np.where(kept, 2 * sure, 0), rtol=1e-6)
    assert 0.3 < kept.mean() < 0.7
    assert (kept == kept[:, :1]).all() == locked
    single = RNN(4, dropout=0.5)
    variables = single.init(jax.random.key(0), x)
    np.testing.assert_array_equal(single.apply(variables, x)[0], single.apply(variables, x, train=True)[0])


@pytest.mark.parametrize('layer', [RNN(3, 2, features=2), LSTM(3, 2, bidirectional=True, cell_map=True), GRU(3)])
def test_bfloat16(layer):
    """Parameters and states stay in float32."""
    layer = layer.clone(dtype=jnp.bfloat16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), X)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    outputs, state = jax.eval_shape(layer.apply, variables, X)
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype(np.float32)}
    start = jax.eval_shape(lambda: layer.start(3))
    assert start == state


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        (LSTM(0), 'hidden=0 and layers=1 must be at least 1'),
        (GRU(3, 0), 'hidden=3 and layers=0 must be at least 1'),
        (RNN(3, dropout=1.0), r'dropout=1.0 is no share in \[0, 1\)'),
        (RNN(3, features=0), 'features=0 must be at least 1'),
        (RNN(3, activation='tahn'), "'tahn'; did you mean 'tanh'"),
    ],
)
def test_what_is_refused(layer, message):
    with pytest.raises(UsageError, match=message):
        layer.init(jax.random.key(0), X)


def test_calls_that_are_refused():
    layer = LSTM(3, 2)
    variables = layer.init(jax.random.key(0), X)
    with pytest.raises(UsageError, match=r'LSTM takes sequences \[B, T, I\], not \(5, 4\)'):
        layer.apply(variables, X[0])
    with pytest.raises(UsageError, match='initial holds 1 states, not one for each of 2'):
        layer.apply(variables, X, initial=layer.start(3)[:1])
    with pytest.raises(UsageError, match=r'a step takes \[B, I\], not \(3, 5, 4\)'):
        layer.apply(variables, layer.start(3), X, method='step')
    both = layer.clone(bidirectional=True)
    with pytest.raises(UsageError, match='it has no step'):
        both.init(jax.random.key(0), both.start(3), X[:, 0], method='step')
