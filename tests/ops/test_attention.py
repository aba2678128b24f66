"""Attention against float64 loops over what each query may see, both forms; masks that leave nothing; gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend
from canon.errors import UsageError
from canon.ops import attention

B, H, T, S, D, V = 2, 3, 4, 5, 6, 6
# Some of a row, all of it, and none of it: row 2 of every sequence may look nowhere.
MASK = np.random.default_rng(1).random((B, 1, T, S)) < 0.6
MASK[:, :, 2] = False
MASK[:, :, 3] = True
assert MASK[:, :, :2].any(-1).all()
rng = np.random.default_rng(0)
Q, K, X = rng.normal(size=(B, H, T, D)), rng.normal(size=(B, H, S, D)), rng.normal(size=(B, H, S, V))
KERNEL, SCORE = rng.normal(size=(D, D)), rng.normal(size=D)

KINDS = {
    'dot': (lambda q, k, x, m, **a: attention.dot_product(q, k, x, m, **a), lambda q, k: q @ k),
    'scaled': (lambda q, k, x, m, **a: attention.scaled_dot_product(q, k, x, m, **a), lambda q, k: q @ k / D**0.5),
    'general': (
        lambda q, k, x, m, **a: attention.attend(attention.general_scores(q, k, KERNEL), x, m, **a),
        lambda q, k: q @ KERNEL @ k,
    ),
    'additive': (
        lambda q, k, x, m, **a: attention.attend(attention.additive_scores(q, k, SCORE), x, m, **a),
        lambda q, k: SCORE @ np.tanh(q + k),
    ),
}


def loops(score, mask):
    """(context, weights) in float64, key by key."""
    context, weights = np.zeros((B, H, T, V)), np.zeros((B, H, T, S))
    for b, h, t in np.ndindex(B, H, T):
        visible = np.flatnonzero(mask[b, 0, t]) if mask is not None else np.arange(S)
        e = np.array([score(Q[b, h, t], K[b, h, s]) for s in visible])
        for s, share in zip(visible, np.exp(e) / np.exp(e).sum(), strict=True):
            weights[b, h, t, s] = share
            context[b, h, t] += share * X[b, h, s]
    return context, weights


@pytest.mark.parametrize('mask', [MASK, None], ids=['masked', 'all'])
@pytest.mark.parametrize('kind', KINDS)
def test_equals_loops(kind, mask):
    function, score = KINDS[kind]
    expected, wanted_weights = loops(score, mask)
    with jax.enable_x64(True):
        context, weights = function(Q, K, X, mask, weights=True)
        np.testing.assert_allclose(weights, wanted_weights, atol=1e-14)
        np.testing.assert_allclose(context, expected, atol=1e-13)
        np.testing.assert_allclose(function(Q, K, X, mask), expected, atol=1e-13)
    single = [np.float32(v) for v in (Q, K, X)]
    for form in ('cpu', 'plain'):
        with backend.forms(form):
            np.testing.assert_allclose(function(*single, mask), expected, atol=2e-5)


@pytest.mark.parametrize('weights', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_gradients_are_finite_differences(kind, weights):
    """In float64, over inputs of which some queries may look nowhere."""
    function, _ = KINDS[kind]
    with jax.enable_x64(True):

        def value(q, k, x):
            y = function(q, k, x, MASK, weights=weights)
            return jnp.sin(y[0]).sum() + jnp.square(y[1]).sum() if weights else jnp.sin(y).sum()

        grads = jax.jit(jax.grad(value, (0, 1, 2)))(Q, K, X)
        value = jax.jit(value)
        for i, grad in enumerate(grads):
            assert np.isfinite(grad).all()
            direction = np.random.default_rng(i).normal(size=grad.shape)
            ahead, back = ([v + h * direction if i == j else v for j, v in enumerate((Q, K, X))] for h in (1e-6, -1e-6))
            numeric = (value(*ahead) - value(*back)) / 2e-6
            np.testing.assert_allclose((grad * direction).sum(), numeric, rtol=1e-6)
        np.testing.assert_array_equal(grads[0][:, :, 2], 0)


@pytest.mark.parametrize('form', ['cpu', 'plain'])
@pytest.mark.parametrize('kind', [np.float32, jnp.bfloat16])
def test_fully_masked_queries_have_zero_context_and_gradients(form, kind):
    inputs = [jnp.asarray(v, kind) * 100 for v in (Q, K, X)]
    nothing = np.zeros((B, 1, T, S), bool)
    with backend.forms(form):
        context, pull = jax.vjp(lambda *a: attention.scaled_dot_product(*a, mask=nothing), *inputs)
        np.testing.assert_array_equal(np.float32(context), 0)
        for grad in pull(jnp.ones_like(context)):
            np.testing.assert_array_equal(np.float32(grad), 0)
    context, weights = attention.scaled_dot_product(*inputs, mask=nothing, weights=True)
    np.testing.assert_array_equal(weights, 0)
    np.testing.assert_array_equal(np.float32(context), 0)


def test_both_forms_have_the_same_gradients():
    actual = {}
    single = [np.float32(v) for v in (Q, K, X)]
    for shape in ('heads', 'none'):
        inputs, mask = (single, MASK) if shape == 'heads' else ([v[:, 0] for v in single], MASK[:, 0])
        for form in ('cpu', 'plain'):
            with backend.forms(form):
                actual[form] = jax.grad(lambda *a, m=mask: jnp.sin(attention.dot_product(*a, m)).sum(), (0, 1, 2))(
                    *inputs
                )
        for a, b in zip(actual['cpu'], actual['plain'], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_softmax_of_bfloat16_is_of_float32():
    """In bfloat16 257 equal shares would add up to 256, and the large score's neighbours would be rounded away."""
    scores = jnp.zeros((1, 257), jnp.bfloat16)
    weights = attention.softmax(scores)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights, 1 / 257, rtol=1e-6)
    query = np.float32(rng.normal(size=(1, 1, 64)))
    keys = np.float32(rng.normal(size=(1, 9, 64)))
    wide, narrow = (
        attention.dot_scores(jnp.asarray(query, t), jnp.asarray(keys, t)) for t in (np.float32, jnp.bfloat16)
    )
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, wide, atol=0.1)
    assert attention.dot_product(*(jnp.asarray(v, jnp.bfloat16) for v in (query, keys, keys))).dtype == jnp.bfloat16


def test_large_scores_do_not_overflow():
    scores = jnp.array([[1e30, -1e30, 1e30], [-3e38, -3e38, -3e38], [3e38, 0, 0]])
    np.testing.assert_allclose(attention.softmax(scores), [[0.5, 0, 0.5], [1 / 3] * 3, [1, 0, 0]], rtol=1e-6)


def test_masks():
    """Key by key: what is padding, what lies ahead, both, and a query that goes on at a place."""
    lengths = np.array([3, 0, 5])
    padding = attention.padding_mask(lengths, 5)
    assert padding.shape == (3, 1, 5)
    combined = padding & attention.causal_mask(4, 5, 1)
    for b, t, s in np.ndindex(3, 4, 5):
        assert padding[b, 0, s] == (s < lengths[b])
        assert combined[b, t, s] == (s < lengths[b] and s <= t + 1)
    np.testing.assert_array_equal(attention.causal_mask(4), np.tril(np.ones((4, 4), bool)))


def test_masked_keys_change_nothing():
    mask = attention.padding_mask(jnp.array([2, 4]), S)[:, None] & attention.causal_mask(T, S)
    other_k, other_x = K.copy(), X.copy()
    for b, length in enumerate((2, 4)):
        other_k[b, :, length:], other_x[b, :, length:] = 1e4, -1e4
    a = attention.scaled_dot_product(*map(np.float32, (Q, K, X)), mask=mask)
    np.testing.assert_array_equal(a, attention.scaled_dot_product(*map(np.float32, (Q, other_k, other_x)), mask=mask))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((np.zeros((2, 3)), np.zeros((4, 5)), np.zeros((4, 5))), r'queries \[\.\.\., T, d\] and keys .* \(2, 3\) and'),
        ((np.zeros((2, 3)), np.zeros((4, 3)), np.zeros((5, 3))), r'4 keys take as many values .*, not \(5, 3\)'),
        ((np.zeros((2, 3)), np.zeros((4, 3)), np.zeros((4, 3)), np.ones((2, 4))), 'a mask is boolean, .* not float64'),
        (
            (np.zeros((2, 3)), np.zeros((4, 3)), np.zeros((4, 3)), np.ones((4, 2), bool)),
            r'a mask \(4, 2\) does not broadcast to scores \(2, 4\)',
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        attention.dot_product(*arguments)


def test_kernels_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r'a kernel \(2, 2\) does not fit'):
        attention.general_scores(np.zeros((2, 3)), np.zeros((4, 3)), np.zeros((2, 2)))
    with pytest.raises(UsageError, match=r'v must be \(3,\) .*not \(2,\)'):
        attention.additive_scores(np.zeros((2, 3)), np.zeros((4, 3)), np.zeros(2))
