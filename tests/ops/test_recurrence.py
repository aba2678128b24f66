"""Recurrences against float64 loops of numpy, against JAX's own gradient of a plain scan, and by finite differences."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from canon import backend
from canon.errors import UsageError
from canon.ops import recurrence

FORMS = {'whole': recurrence._Whole(), 'gates': recurrence._Gates(), 'columns': recurrence._Columns()}
CELLS = {  # function, gates, {further weight: its axes}
    'rnn': (recurrence.rnn, 1, {}),
    'rnn relu': (partial(recurrence.rnn, activation='relu'), 1, {}),
    'rnn sigmoid': (partial(recurrence.rnn, activation='sigmoid'), 1, {}),
    'rnn linear': (partial(recurrence.rnn, activation='linear'), 1, {}),
    'lstm': (recurrence.lstm, 4, {}),
    'lstm, mapped': (recurrence.lstm, 4, {'cell_kernel': 2, 'cell_bias': 1}),
    'lstm, mapped without bias': (recurrence.lstm, 4, {'cell_kernel': 2}),
    'gru': (recurrence.gru, 3, {'candidate_bias': 1}),
    'gru, reset before': (partial(recurrence.gru, reset_after=False), 3, {}),
}
MAIN = ('rnn', 'rnn relu', 'lstm', 'lstm, mapped', 'gru', 'gru, reset before')
B, T, WIDTH, H = 4, 5, 3, 4
LENGTHS = np.array([5, 0, 3, 1])


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Every way to lay a step out, whatever the backend and the size."""
    monkeypatch.setattr(recurrence, '_form', lambda hidden: FORMS[request.param])


def drawn(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape)


def given(name, steps=T, rows=B):
    """x, {weight: value}, initial."""
    _, gates, more = CELLS[name]
    shapes = {'kernel': (WIDTH, gates * H), 'recurrent': (H, gates * H), 'bias': (gates * H,)}
    shapes |= {key: (H,) * axes for key, axes in more.items()}
    weights = {key: 0.5 * drawn(*shape, seed=i) for i, (key, shape) in enumerate(shapes.items())}
    initial = (drawn(rows, H, seed=7), drawn(rows, H, seed=8)) if 'lstm' in name else drawn(rows, H, seed=7)
    return drawn(rows, steps, WIDTH, seed=9), weights, initial


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


def compare(found, wanted, **tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), found, wanted)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('name', MAIN)
def test_equals_loops(name, reverse, form):
    x, w, initial = given(name)
    with jax.enable_x64(True):
        run = jax.jit(lambda x, w, s, n: CELLS[name][0](x, **w, initial=s, lengths=n, reverse=reverse))
        found = run(x, w, initial, LENGTHS)
    compare(found, numpy_loop(name, x, w, initial, LENGTHS, reverse), rtol=1e-12, atol=1e-12)


def scanned(name, x, w, initial, lengths):
    """The same by a scan that JAX differentiates itself."""

    def step(state, now):
        x, t = now
        h = state[0]
        outer, inner = x @ w['kernel'] + w['bias'], h @ w['recurrent']
        if 'rnn' in name:
            f = {'rnn': jnp.tanh, 'rnn relu': jax.nn.relu, 'rnn sigmoid': jax.nn.sigmoid, 'rnn linear': lambda z: z}
            new = (f[name](outer + inner),)
        elif 'lstm' in name:
            i, f, g, o = jnp.split(outer + inner, 4, -1)
            c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
            mapped = c @ w['cell_kernel'] + w.get('cell_bias', 0) if 'cell_kernel' in w else c
            new = (jax.nn.sigmoid(o) * jnp.tanh(mapped), c)
        else:
            (xr, xz, xn), (hr, hz, hn) = jnp.split(outer, 3, -1), jnp.split(inner, 3, -1)
            r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
            hn = (r * h) @ w['recurrent'][:, 2 * H :] if 'before' in name else r * (hn + w['candidate_bias'])
            new = ((1 - z) * jnp.tanh(xn + hn) + z * h,)
        inside = (t < lengths)[:, None]
        new = tuple(jnp.where(inside, n, s) for n, s in zip(new, state, strict=True))
        return new, jnp.where(inside, new[0], 0)

    state = initial if isinstance(initial, tuple) else (initial,)
    last, outputs = jax.lax.scan(step, state, (x.swapaxes(0, 1), jnp.arange(x.shape[1])))
    return outputs.swapaxes(0, 1), last if isinstance(initial, tuple) else last[0]


def weighed(results):
    """A number that every output and every state has its own part in."""
    return sum((v * cosines(v)).sum() for v in jax.tree.leaves(results))


def cosines(v):
    return jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)


@cache
def peer(name, kind):
    """The value and the gradients of the plain scan."""
    call = jax.jit(jax.value_and_grad(lambda *a: weighed(scanned(name, *a, LENGTHS)), (0, 1, 2)))
    return call(*jax.tree.map(kind, given(name)))


def check_gradients(name, kind, tolerance):
    def ours(x, w, initial):
        return weighed(CELLS[name][0](x, **w, initial=initial, lengths=jnp.asarray(LENGTHS)))

    with jax.enable_x64(kind is np.float64):
        found = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(*jax.tree.map(kind, given(name)))
        wanted = peer(name, kind)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == kind
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize('name', MAIN)
def test_gradients_equal_those_of_a_plain_scan(name, form):
    """Relative to the largest entry, in float32."""
    check_gradients(name, np.float32, 1e-5)


@pytest.mark.parametrize('name', CELLS)
def test_values_and_gradients_equal_those_of_a_plain_scan_in_float64(name):
    check_gradients(name, np.float64, 1e-13)


@pytest.mark.parametrize('name', [n for n in MAIN if n != 'rnn relu'])
def test_gradients_by_finite_differences(name, form):
    with jax.enable_x64(True):

        def call(x, w, initial):
            return CELLS[name][0](x, **w, initial=initial, lengths=jnp.asarray(LENGTHS), reverse=True)

        check_grads(jax.jit(call), jax.tree.map(jnp.asarray, given(name)), 1, ['rev'], atol=1e-7, rtol=1e-7, eps=1e-5)


@pytest.mark.parametrize('reverse', [False, True])
@pytest.mark.parametrize('name', ['rnn relu', 'lstm, mapped', 'gru'])
def test_padding_does_not_leak(name, reverse, form):
    """Not even what is no number."""
    x, w, initial = jax.tree.map(np.float32, given(name))
    outside = np.arange(T) >= LENGTHS[:, None]

    @jax.jit
    def run(x, w, initial):
        found, pull = jax.vjp(
            lambda *a: CELLS[name][0](a[0], **a[1], initial=a[2], lengths=jnp.asarray(LENGTHS), reverse=reverse),
            x,
            w,
            initial,
        )
        return found, pull(jax.tree.map(cosines, found))

    clean, dirty = run(x, w, initial), run(np.where(outside[..., None], np.nan, x), w, initial)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    (outputs, state), (dx, *_) = dirty
    assert not np.asarray(outputs)[outside].any()
    assert not np.asarray(dx)[outside].any()
    assert np.asarray(dx)[~outside].all() or name == 'rnn relu'
    jax.tree.map(lambda s, s0: np.testing.assert_array_equal(s[1], s0[1]), state, initial)  # a sequence of length 0


@pytest.mark.parametrize('name', ['rnn', 'lstm, mapped', 'gru', 'gru, reset before'])
def test_a_carried_state_goes_on(name):
    """Two windows are the whole, in one row too; no step at all leaves the state, and gradients, as they are."""
    x, w, initial = jax.tree.map(np.float32, given(name, rows=1))
    call = CELLS[name][0]
    whole, last = call(x, **w, initial=initial)
    parts, state = [], initial
    for start, stop in ((0, 1), (1, 1), (1, T)):
        outputs, state = call(x[:, start:stop], **w, initial=state)
        assert outputs.shape == (1, stop - start, H)
        parts.append(outputs)
    compare((np.concatenate(parts, 1), state), (whole, last), rtol=1e-6, atol=1e-6)
    gradients = jax.grad(lambda w, s: weighed(call(x[:, :0], **w, initial=s)), (0, 1))(w, initial)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradients[0]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients[1]))


@pytest.mark.parametrize('name', ['rnn', 'lstm, mapped', 'gru', 'gru, reset before'])
def test_bfloat16(name, form):
    """Products in bfloat16, the state in float32: within some units of the last place of float64's."""
    x, w, initial = given(name)
    call, half = CELLS[name][0], partial(jax.tree.map, lambda v: jnp.asarray(v, jnp.bfloat16))

    def value(x, w):
        return weighed(call(x, **w, initial=jax.tree.map(jnp.float32, initial))[0].astype(jnp.float32))

    outputs, state = jax.jit(call)(half(x), **half(w), initial=jax.tree.map(jnp.float32, initial))
    assert outputs.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} == {np.dtype('float32')}
    wanted, _ = numpy_loop(name, x, w, initial, np.full(B, T), False)
    assert np.abs(np.asarray(outputs, np.float64) - wanted).max() < 4 * 2**-8
    found = jax.jit(jax.grad(value, 1))(half(x), half(w))
    exact = jax.jit(jax.grad(value, 1))(*jax.tree.map(jnp.float32, (x, w)))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert a.dtype == jnp.bfloat16
        assert np.abs(np.asarray(a, np.float32) - b).max() < 16 * 2**-8 * np.abs(b).max()


def test_weights_gradients_stand_outside_the_loop():
    """No loop of the gradient's program makes, or carries, anything as large as a kernel, but for reading one."""
    x, w, initial = jax.tree.map(jnp.float32, given('lstm', rows=2))
    program = jax.make_jaxpr(jax.grad(lambda w: weighed(recurrence.lstm(x, **w, initial=initial))))(w)
    loops = [e for e in program.eqns if e.primitive.name == 'scan']
    assert len(loops) == 2
    for loop in loops:
        constants, carried = loop.params['num_consts'], loop.params['num_carry']
        assert all(v.aval.size == 2 * H for v in loop.invars[constants : constants + carried])
        inner = loop.params['jaxpr'].jaxpr
        assert all(v.aval.size < H * 4 * H for e in inner.eqns for v in e.outvars if e.primitive.name == 'dot_general')


@pytest.mark.parametrize('hidden', [8, 600])
def test_forms_of_backends(hidden):
    with backend.forms('plain'):
        assert recurrence._form(hidden) == FORMS['whole']
    with backend.forms('cpu'):
        assert recurrence._form(hidden) == FORMS['gates' if hidden == 8 else 'columns']


def test_under_vmap():
    x, w, initial = jax.tree.map(np.float32, given('gru'))
    both = np.stack([x, -x])
    mapped = jax.vmap(jax.grad(lambda x: weighed(recurrence.gru(x, **w, initial=initial))))(both)
    rows = [jax.grad(lambda x: weighed(recurrence.gru(x, **w, initial=initial)))(each) for each in both]
    np.testing.assert_allclose(mapped, np.stack(rows), rtol=1e-5, atol=1e-6)


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
def test_what_is_refused(change, message):
    x, w, initial = given('gru')
    with pytest.raises(UsageError, match=message):
        recurrence.gru(**{'x': x, **w, 'initial': initial, **change})


def test_what_else_is_refused():
    x, w, initial = given('lstm')
    with pytest.raises(UsageError, match='should be 2 of'):
        recurrence.lstm(x, **w, initial=initial[:1])
    with pytest.raises(UsageError, match=r'cell_kernel \(3, 3\) should be \(4, 4\)'):
        recurrence.lstm(x, **w, cell_kernel=np.zeros((3, 3)))
    with pytest.raises(UsageError, match="no recurrence has the activation 'tahn'"):
        recurrence.rnn(x, np.zeros((WIDTH, H)), np.zeros((H, H)), activation='tahn')
