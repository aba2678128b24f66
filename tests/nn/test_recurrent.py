"""Recurrent layers against torch's (tests/nn/golden/recurrent.npz, by tools/golden/recurrence_torch.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.nn import GRU, LSTM, RNN
from canon.weights import recurrent
from tests.models.drawn import draw_parameter

GOLDEN = np.load(Path(__file__).parent / 'golden/recurrent.npz')
LAYERS = {
    'rnn': RNN(3, 2, bidirectional=True),
    'rnn_relu': RNN(3, 2, bidirectional=True, activation='relu'),
    'lstm': LSTM(3, 2, bidirectional=True),
    'gru': GRU(3, 2, bidirectional=True),
}
LENGTHS = np.array([2, 5, 1])
X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)


def weigh(v):
    return (v * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)).sum()


@pytest.mark.parametrize('case', LAYERS)
def test_equals_torch(case):
    """Outputs, last states and all gradients of two layers in two directions, with padding."""
    keys = [key.split()[1] for key in GOLDEN if key.startswith(f'{case}/d ') and key != f'{case}/d x']
    with jax.enable_x64(True):
        tensors = {key: np.float64(draw_parameter(key, GOLDEN[f'{case}/d {key}'].shape)) for key in keys}
        params, x = recurrent.layer_from_torch(tensors), np.float64(draw_parameter('x', GOLDEN[f'{case}/d x'].shape))

        def loss(params, x):
            y, state = LAYERS[case].apply({'params': params}, x, LENGTHS)
            state = jnp.stack(jax.tree.leaves(list(zip(*state, strict=True)) if case == 'lstm' else state))
            return weigh(y) + weigh(state), (y, state)

        (dparams, dx), (y, state) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, x)
    results = {'y': y, 'state': state, 'd x': dx}
    for place in ('l0', 'l0_reverse', 'l1', 'l1_reverse'):
        own = dparams[f'{"backward" if "reverse" in place else "forward"}_{place[1]}']
        results |= {f'd weight_ih_{place}': own['kernel'].T, f'd weight_hh_{place}': own['recurrent'].T}
        biases = f'd bias_ih_{place}', f'd bias_hh_{place}'
        results |= dict.fromkeys(biases, own['bias'])
        if case == 'gru':
            results[biases[1]] = np.concatenate([own['bias'][:6], own['candidate_bias']])
    assert {f'{case}/{quantity}' for quantity in results} == {key for key in GOLDEN if key.startswith(f'{case}/')}
    for quantity, value in results.items():
        np.testing.assert_allclose(value, GOLDEN[f'{case}/{quantity}'], rtol=1e-10, atol=1e-12, err_msg=quantity)


@pytest.mark.parametrize(
    'layer', [RNN(3, 2, features=2), LSTM(3, 2, cell_map=True), GRU(3, 2), GRU(3, 2, reset_after=False)]
)
def test_windows_and_steps_equal_the_whole_sequence(layer):
    """With carried state: one window, two, and step by step."""

    @jax.jit
    def run(x):
        variables = layer.init(jax.random.key(0), x)
        full = layer.apply(variables, x)
        parts, state = [], layer.start(3)
        for part in (x[:, :2], x[:, 2:]):
            outputs, state = layer.apply(variables, part, initial=state)
            parts.append(outputs)

        def step(state, x):
            outputs, state = layer.apply(variables, state, x, method='step')
            return state, outputs

        last, steps = jax.lax.scan(step, layer.start(3), x.swapaxes(0, 1))
        return full, (jnp.concatenate(parts, 1), state), (steps.swapaxes(0, 1), last)

    full, windows, steps = run(X)
    for results in (windows, steps):
        assert jax.tree.structure(results) == jax.tree.structure(full)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), results, full)


def test_output_map():
    """o_t = f(V s_t), of both directions, and zero beyond the end even where f(0) is not."""
    layer = RNN(3, bidirectional=True, activation='sigmoid', features=2)

    @jax.jit
    def run(x):
        variables = layer.init(jax.random.key(0), x)
        inner = {key: value for key, value in variables['params'].items() if key != 'output'}
        states, _ = layer.clone(features=None).apply({'params': inner}, x, LENGTHS)
        return layer.apply(variables, x, LENGTHS)[0], states, variables['params']['output']['kernel']

    outputs, states, kernel = run(X)
    expected = 1 / (1 + np.exp(-(np.asarray(states, np.float64) @ kernel)))
    expected[np.arange(5) >= LENGTHS[:, None]] = 0
    np.testing.assert_allclose(outputs, expected, rtol=1e-6)


def test_initialisation():
    params, default = jax.jit(
        lambda key: [layer.init(key, X)['params']['forward_0'] for layer in (LSTM(6, forget_bias=0.5), LSTM(6))]
    )(jax.random.key(0))
    np.testing.assert_array_equal(params['bias'], np.repeat([0, 0.5, 0, 0], 6).astype(np.float32))
    for gate in np.split(np.asarray(params['recurrent']), 4, 1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(6), atol=1e-6)
    limit = np.sqrt(6 / (4 + 6))  # Glorot & Bengio 2010, eq. 16, of one gate
    assert 0.8 * limit < np.abs(params['kernel']).max() <= limit
    gates = np.split(np.asarray(params['kernel']), 4, 1)
    assert len({gate.tobytes() for gate in gates}) == 4
    assert default['bias'][6:12].tolist() == [1] * 6


@pytest.mark.parametrize('locked', [False, True])
def test_dropout_is_applied_between_layers(locked):
    """The first layer's outputs lose half; one layer loses nothing; without `train` none does."""
    layer = RNN(64, 2, dropout=0.5, locked=locked, activation='linear', use_bias=False)
    x, rng = np.ones((2, 6, 4), np.float32), np.random.default_rng(0)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), x)['params']['forward_1']
    eye = {'kernel': np.eye(64, dtype=np.float32), 'recurrent': np.zeros((64, 64), np.float32)}
    assert shapes.keys() == eye.keys()
    first = eye | {'kernel': rng.normal(size=(4, 64)).astype(np.float32)}
    variables = {'params': {'forward_0': first, 'forward_1': eye}}
    single = RNN(4, dropout=0.5)

    @jax.jit
    def run(variables, x):
        own = single.init(jax.random.key(0), x)
        return (
            layer.apply(variables, x)[0],
            layer.apply(variables, x, train=True, rngs={'dropout': jax.random.key(1)})[0],
            single.apply(own, x)[0],
            single.apply(own, x, train=True)[0],
        )

    full, dropped, evaluated, trained = map(np.asarray, run(variables, x))
    remaining = dropped != 0
    np.testing.assert_allclose(dropped, np.where(remaining, 2 * full, 0), rtol=1e-6)
    assert 0.3 < remaining.mean() < 0.7
    assert (remaining == remaining[:, :1]).all() == locked
    np.testing.assert_array_equal(evaluated, trained)


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
        (RNN(3, dropout=1.0), r'dropout=1\.0 must be at least 0 and below 1'),
        (RNN(3, features=0), 'features=0 must be at least 1'),
        (RNN(3, activation='tahn'), "'tahn'; did you mean 'tanh'"),
    ],
)
def test_bad_settings_are_refused(layer, message):
    with pytest.raises(UsageError, match=message):
        layer.init(jax.random.key(0), X)


def test_calls_that_are_refused():
    layer = LSTM(3, 2)
    variables = jax.eval_shape(layer.init, jax.random.key(0), X)
    for message, arguments, options in (
        (r'LSTM takes sequences \[B, T, I\], not \(5, 4\)', (X[0],), {}),
        ('initial holds 1 states, not one for each of 2', (X,), dict(initial=layer.start(3)[:1])),
        (r'a step takes \[B, I\], not \(3, 5, 4\)', (layer.start(3), X), dict(method='step')),
    ):
        with pytest.raises(UsageError, match=message):
            jax.eval_shape(lambda v, a=arguments, o=options: layer.apply(v, *a, **o), variables)
    two = layer.clone(bidirectional=True)
    with pytest.raises(UsageError, match='it has no step'):
        two.init(jax.random.key(0), two.start(3), X[:, 0], method='step')
