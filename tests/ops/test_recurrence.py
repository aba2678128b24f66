"""Recurrences against their readable reference: values against float64 loops of numpy, gradients by JAX and by finite
differences, in every layout."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend
from canon.errors import UsageError
from canon.ops import recurrence
from canon.ops.recurrence import layouts, reference, scan

LAYOUTS = {
    'joint gates': layouts.JointGates(),
    'split gates': layouts.SplitGates(),
    'column states': layouts.ColumnStates(),
}
CELLS = {  # function, gates, {further weight: its axes}, reference
    'rnn': (recurrence.rnn, 1, {}, reference.step_rnn),
    'rnn relu': (
        partial(recurrence.rnn, activation='relu'),
        1,
        {},
        partial(reference.step_rnn, activation=jax.nn.relu),
    ),
    'rnn sigmoid': (
        partial(recurrence.rnn, activation='sigmoid'),
        1,
        {},
        partial(reference.step_rnn, activation=jax.nn.sigmoid),
    ),
    'rnn linear': (
        partial(recurrence.rnn, activation='linear'),
        1,
        {},
        partial(reference.step_rnn, activation=lambda z: z),
    ),
    'lstm': (recurrence.lstm, 4, {}, reference.step_lstm),
    'lstm, mapped': (recurrence.lstm, 4, {'cell_kernel': 2, 'cell_bias': 1}, reference.step_lstm),
    'lstm, mapped without bias': (recurrence.lstm, 4, {'cell_kernel': 2}, reference.step_lstm),
    'gru': (recurrence.gru, 3, {'candidate_bias': 1}, reference.step_gru),
    'gru, reset before': (
        partial(recurrence.gru, reset_after=False),
        3,
        {},
        reference.step_gru_reset_before,
    ),
}
MAIN = ('rnn', 'rnn relu', 'lstm', 'lstm, mapped', 'gru', 'gru, reset before')
B, T, WIDTH, H = 4, 5, 3, 4
LENGTHS = np.array([5, 0, 3, 1])


@pytest.fixture
def layout(request, monkeypatch):
    """Every layout, whatever the backend and the size."""
    monkeypatch.setattr(scan, 'choose_layout', lambda hidden: LAYOUTS[request.param])


def in_every_layout(names, fast):
    """Parametrises by cell and layout; but for the cases of `fast`, {layout: cells}, they are slow."""
    cases = [(name, layout) for layout in LAYOUTS for name in names]
    marks = {case: () if case[0] in fast[case[1]] else pytest.mark.slow for case in cases}
    parameters = [pytest.param(*case, marks=marks[case], id=f'{case[1]}-{case[0]}') for case in cases]
    return pytest.mark.parametrize(('name', 'layout'), parameters, indirect=['layout'])


def draw(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def draw_arguments(name, steps=T, rows=B):
    """x, {weight: value}, initial."""
    _, gates, more, _ = CELLS[name]
    shapes = {'kernel': (WIDTH, gates * H), 'recurrent': (H, gates * H), 'bias': (gates * H,)}
    shapes |= {key: (H,) * axes for key, axes in more.items()}
    weights = {key: 0.5 * draw(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
    initial = (draw(rows, H, seed=7), draw(rows, H, seed=8)) if 'lstm' in name else draw(rows, H, seed=7)
    return draw(rows, steps, WIDTH, seed=9), weights, initial


def sigma(z):
    return 1 / (1 + np.exp(-z))


def numpy_step(name, w, x, state):
    """One step of one sequence, as the papers write it."""
    h = state[0]
    outer, inner = x @ w['kernel'] + w['bias'], h @ w['recurrent']
    if 'rnn' in name:
        f = {'rnn': np.tanh, 'rnn relu': lambda z: np.maximum(z, 0), 'rnn sigmoid': sigma, 'rnn linear': lambda z: z}
        return (f[name](outer + inner),)
    if 'lstm' in name:
        i, f, g, o = np.split(outer + inner, 4)
        c = sigma(f) * state[1] + sigma(i) * np.tanh(g)
        mapped = c @ w['cell_kernel'] + w.get('cell_bias', 0) if 'cell_kernel' in w else c
        return sigma(o) * np.tanh(mapped), c
    (xr, xz, xn), (hr, hz, hn) = np.split(outer, 3), np.split(inner, 3)
    r, z = sigma(xr + hr), sigma(xz + hz)
    if 'before' in name:
        n = np.tanh(xn + (r * h) @ w['recurrent'][:, 2 * H :])
    else:
        n = np.tanh(xn + r * (hn + w['candidate_bias']))
    return ((1 - z) * n + z * h,)


def numpy_loop(name, x, w, initial, lengths, reverse):
    outputs, last = np.zeros((len(x), x.shape[1], H)), []
    for row, length in enumerate(lengths):
        state = tuple(s[row] for s in (initial if isinstance(initial, tuple) else (initial,)))
        for t in range(length)[:: -1 if reverse else 1]:
            state = numpy_step(name, w, x[row, t], state)
            outputs[row, t] = state[0]
        last.append(state)
    last = tuple(np.stack(s) for s in zip(*last, strict=True))
    return outputs, last if isinstance(initial, tuple) else last[0]


def compare(results, expected, **tolerance):
    assert jax.tree.structure(results) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), results, expected)


def weigh(results):
    """A number in which every output and every state has a weight of its own."""
    return sum((v * cosines(v)).sum() for v in jax.tree.leaves(results))


def cosines(v):
    return jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)


def run_reference(name, x, w, initial, reverse=False):
    state = initial if isinstance(initial, tuple) else (initial,)
    outputs, last = reference.scan_cell(CELLS[name][3], w, x, state, jnp.asarray(LENGTHS), reverse)
    return outputs, last if isinstance(initial, tuple) else last[0]


def run_function(name, x, w, initial, reverse=False):
    return CELLS[name][0](x, **w, initial=initial, lengths=jnp.asarray(LENGTHS), reverse=reverse)


def differentiate_both_directions(run, name):
    """Compiles arguments -> {reverse: ((weighed number, results), gradients)}."""

    def value(x, w, initial, reverse):
        results = run(name, x, w, initial, reverse)
        return weigh(results), results

    def directions(*arguments):
        return {
            reverse: jax.value_and_grad(partial(value, reverse=reverse), (0, 1, 2), has_aux=True)(*arguments)
            for reverse in (False, True)
        }

    return jax.jit(directions)


@cache
def reference_results(name, dtype):
    with jax.enable_x64(dtype is np.float64):
        return differentiate_both_directions(run_reference, name)(*jax.tree.map(dtype, draw_arguments(name)))


def check_gradients(results, expected, dtype, tolerance):
    """Relative to the largest entry."""
    for a, b in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        assert a.dtype == dtype
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def check_in_float64(name):
    """Values against the loops, gradients against those that JAX derives of the reference and finite differences."""
    arguments = jax.tree.map(np.float64, draw_arguments(name))
    expected = reference_results(name, np.float64)
    with jax.enable_x64(True):
        run = differentiate_both_directions(run_function, name)
        results = run(*arguments)
        for reverse, ((number, values), gradients) in results.items():
            (expected_number, _), expected_gradients = expected[reverse]
            compare(values, numpy_loop(name, *arguments, LENGTHS, reverse), rtol=1e-12, atol=1e-12)
            check_gradients((number, gradients), (expected_number, expected_gradients), np.float64, 1e-13)
        if name == 'rnn relu':  # not differentiable at 0
            return
        leaves, treedef = jax.tree.flatten(arguments)
        direction = [draw(*leaf.shape, seed=50 + i) for i, leaf in enumerate(leaves)]
        ahead, behind = (
            run(*treedef.unflatten([a + s * d for a, d in zip(leaves, direction, strict=True)])) for s in (1e-5, -1e-5)
        )
        for reverse, (_, gradients) in results.items():
            slope = float(ahead[reverse][0][0] - behind[reverse][0][0]) / 2e-5
            product = sum(float((g * d).sum()) for g, d in zip(jax.tree.leaves(gradients), direction, strict=True))
            assert slope == pytest.approx(product, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize('name', CELLS)
def test_the_reference_equals_loops(name):
    arguments = jax.tree.map(np.float64, draw_arguments(name))
    for reverse, ((_, values), _) in reference_results(name, np.float64).items():
        compare(values, numpy_loop(name, *arguments, LENGTHS, reverse), rtol=1e-12, atol=1e-12)


@in_every_layout(
    MAIN,
    {'joint gates': ('lstm, mapped', 'gru'), 'split gates': ('lstm', 'rnn'), 'column states': ('gru, reset before',)},
)
def test_every_layout_equals_loops_and_has_the_gradients_of_the_reference(name, layout):
    check_in_float64(name)


@pytest.mark.parametrize('name', [name for name in CELLS if name not in MAIN])
def test_further_cells_equal_loops_and_have_the_gradients_of_the_reference(name):
    check_in_float64(name)


@in_every_layout(MAIN, {'joint gates': ('rnn',), 'split gates': ('gru',), 'column states': ('lstm, mapped',)})
def test_gradients_in_float32_and_padding_that_is_not_a_number(name, layout):
    """Gradients are those of the reference; nothing of the padding reaches an output, a state or a gradient."""
    x, w, initial = jax.tree.map(np.float32, draw_arguments(name))
    outside = np.arange(T) >= LENGTHS[:, None]
    run = differentiate_both_directions(run_function, name)
    clean, dirty = run(x, w, initial), run(np.where(outside[..., None], np.float32(np.nan), x), w, initial)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    for reverse, ((_, (outputs, state)), gradients) in dirty.items():
        check_gradients(gradients, reference_results(name, np.float32)[reverse][1], np.float32, 1e-5)
        assert not np.asarray(outputs)[outside].any()
        assert not np.asarray(gradients[0])[outside].any()
        assert np.asarray(gradients[0])[~outside].all() or name == 'rnn relu'
        compare(jax.tree.map(lambda s: s[1], state), jax.tree.map(lambda s: s[1], initial), rtol=0)  # of length 0


@pytest.mark.parametrize('name', ['rnn', 'lstm, mapped', 'gru', 'gru, reset before'])
def test_windows_with_a_carried_state_equal_the_full_sequence(name):
    """Two windows equal the whole sequence, of one row too; no step at all leaves state and gradients as they are."""
    x, w, initial = jax.tree.map(np.float32, draw_arguments(name, rows=1))
    call = CELLS[name][0]

    @jax.jit
    def run(x, w, initial):
        full = call(x, **w, initial=initial)
        parts, state = [], initial
        for start, stop in ((0, 1), (1, 1), (1, T)):
            outputs, state = call(x[:, start:stop], **w, initial=state)
            assert outputs.shape == (1, stop - start, H)
            parts.append(outputs)
        gradients = jax.grad(lambda w, s: weigh(call(x[:, :0], **w, initial=s)), (0, 1))(w, initial)
        return full, (jnp.concatenate(parts, 1), state), gradients

    full, windows, gradients = run(x, w, initial)
    compare(windows, full, rtol=1e-6, atol=1e-6)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients[0]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients[1]))


@cache
def full_length_gradient(name):
    """The gradient of the reference by the weights in float32, of sequences of full length."""
    x, w, initial = jax.tree.map(jnp.float32, draw_arguments(name))
    state = initial if isinstance(initial, tuple) else (initial,)
    full = jnp.full(B, T)
    return jax.jit(jax.grad(lambda w: weigh(reference.scan_cell(CELLS[name][3], w, x, state, full)[0])))(w)


@in_every_layout(
    ['rnn', 'lstm, mapped', 'gru', 'gru, reset before'],
    {'joint gates': ('lstm, mapped',), 'split gates': ('rnn',), 'column states': ('gru',)},
)
def test_bfloat16(name, layout):
    """Products in bfloat16, the state in float32: within a few units of the last place of float64's."""
    x, w, initial = draw_arguments(name)
    half = partial(jax.tree.map, lambda v: jnp.asarray(v, jnp.bfloat16))

    def value(w, x, initial):
        outputs, state = CELLS[name][0](x, **w, initial=initial)
        return weigh(outputs.astype(jnp.float32)), (outputs, state)

    run = jax.jit(jax.value_and_grad(value, has_aux=True))
    (_, (outputs, state)), gradient = run(half(w), half(x), jax.tree.map(jnp.float32, initial))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype('float32')}
    expected, _ = numpy_loop(name, x, w, initial, np.full(B, T), False)
    assert np.abs(np.asarray(outputs, np.float64) - expected).max() < 4 * 2**-8
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(full_length_gradient(name)), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(np.asarray(a, np.float32) - b).max() < 16 * 2**-8 * np.abs(b).max()


def test_the_gradient_of_the_weights_is_outside_the_loop():
    """No loop of the gradient's program makes, or carries, anything as large as a kernel, but for reading one."""
    x, w, initial = jax.tree.map(jnp.float32, draw_arguments('lstm', rows=2))
    with backend.forms('cpu'):
        program = jax.make_jaxpr(jax.grad(lambda w: weigh(recurrence.lstm(x, **w, initial=initial))))(w)
    loops = [e for e in program.eqns if e.primitive.name == 'scan']
    assert len(loops) == 2
    for loop in loops:
        constants, carried = loop.params['num_consts'], loop.params['num_carry']
        assert all(v.aval.size == 2 * H for v in loop.invars[constants : constants + carried])
        inner = loop.params['jaxpr'].jaxpr
        assert all(v.aval.size < H * 4 * H for e in inner.eqns for v in e.outvars if e.primitive.name == 'dot_general')


@pytest.mark.parametrize('hidden', [8, 600])
def test_backends_choose_their_layout(hidden):
    with backend.forms('plain'):
        assert layouts.choose_layout(hidden) == LAYOUTS['joint gates']
    with backend.forms('cpu'):
        assert layouts.choose_layout(hidden) == LAYOUTS['split gates' if hidden == 8 else 'column states']


def test_under_vmap():
    x, w, initial = jax.tree.map(np.float32, draw_arguments('gru'))
    gradient = jax.jit(jax.grad(lambda x: weigh(recurrence.gru(x, **w, initial=initial))))
    pair = np.stack([x, -x])
    rows = [gradient(row) for row in pair]
    np.testing.assert_allclose(jax.jit(jax.vmap(gradient))(pair), np.stack(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(x=np.zeros((B, WIDTH))), r'takes sequences \[B, T, I\], not \(4, 3\)'),
        (dict(kernel=np.zeros((WIDTH, 4 * H))), r'kernel \(3, 16\) should be \(3, 12\)'),
        (dict(recurrent=np.zeros((H, 4 * H))), r'recurrent \(4, 16\) should be \[H, 3 H\]'),
        (dict(recurrent=np.zeros((0, 0)), candidate_bias=None), r'recurrent \(0, 0\) should be \[H, 3 H\]'),
        (dict(bias=np.zeros(H)), r'bias \(4,\) should be \(12,\)'),
        (dict(candidate_bias=np.zeros(3 * H)), r'candidate_bias \(12,\) should be \(4,\)'),
        (dict(reset_after=False), 'leave it out'),
        (dict(initial=np.zeros((1, H))), r'should be 1 of \(4, 4\)'),
        (dict(lengths=[1, 2, 3, 6]), 'lengths from 1 to 6 should be within the 5 steps'),
        (dict(lengths=[1, 2, 3, -1]), 'lengths from -1 to 3'),
        (dict(lengths=[1, 2]), 'one for each of 4'),
        (dict(lengths=[1.0, 2, 3, 4]), 'should be integers'),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    x, w, initial = draw_arguments('gru')
    with pytest.raises(UsageError, match=message):
        recurrence.gru(**{'x': x, **w, 'initial': initial, **change})


def test_bad_arguments_are_refused():
    x, w, initial = draw_arguments('lstm')
    with pytest.raises(UsageError, match='should be 2 of'):
        recurrence.lstm(x, **w, initial=initial[:1])
    with pytest.raises(UsageError, match=r'cell_kernel \(3, 3\) should be \(4, 4\)'):
        recurrence.lstm(x, **w, cell_kernel=np.zeros((3, 3)))
    with pytest.raises(UsageError, match="no recurrence has the activation 'tahn'"):
        recurrence.rnn(x, np.zeros((WIDTH, H)), np.zeros((H, H)), activation='tahn')
