"""CTC against the sum over every alignment, its readable reference, optax, finite differences, and edge cases."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from canon.errors import UsageError
from canon.losses import ctc as plain_ctc
from canon.losses.ctc import ctc_of_row

ctc = jax.jit(plain_ctc, static_argnames=('blank', 'zero_infinity'))


def collapse(path, blank):
    """B of the paper: removes repetitions, then blanks."""
    return tuple(c for c, before in zip(path, (None, *path), strict=False) if c != before and c != blank)


def likelihoods(logits, blank=0):
    """{label: probability} by eq. 3, summing eq. 2 over all C^T paths, float64."""
    log_p = log_softmax(np.asarray(logits, np.float64), axis=-1)
    sums = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        label = collapse(path, blank)
        sums[label] = sums.get(label, 0) + np.exp(sum(log_p[t, c] for t, c in enumerate(path)))
    return sums


def loss_of_row(logits, label, length=None, width=None, **kwargs):
    """The loss of one row, with its label padded to `width` by values that must not matter."""
    length = len(logits) if length is None else length
    padded = np.full((1, max(width or 0, len(label))), -7)
    padded[0, : len(label)] = label
    return ctc(jnp.asarray(logits)[None], jnp.array([length]), jnp.asarray(padded), jnp.array([len(label)]), **kwargs)[
        0
    ]


@pytest.mark.parametrize('blank', [0, 2])
@pytest.mark.parametrize(('frames', 'classes'), [(1, 3), (4, 3), (5, 4), (7, 3)])
def test_every_label_against_the_sum_over_all_alignments(frames, classes, blank):
    rng = np.random.default_rng((frames, classes, blank))
    logits = rng.normal(scale=2, size=(frames, classes)).astype(np.float32)
    expected = likelihoods(logits, blank)
    assert sum(expected.values()) == pytest.approx(1)
    labels = sorted(expected, key=lambda label: (len(label), label))
    padded = np.full((len(labels), frames + 1), blank)
    for row, label in zip(padded, labels, strict=True):
        row[: len(label)] = label
    values = ctc(
        jnp.broadcast_to(logits, (len(labels), *logits.shape)),
        jnp.full(len(labels), frames),
        jnp.asarray(padded),
        jnp.array([len(label) for label in labels]),
        blank,
    )
    np.testing.assert_allclose(values, [-np.log(expected[label]) for label in labels], rtol=2e-6, atol=2e-6)


def test_float64_is_kept():
    logits = np.random.default_rng(0).normal(scale=3, size=(6, 3))
    expected = -np.log(likelihoods(logits)[(1, 1, 2)])
    with jax.enable_x64(True):
        assert float(loss_of_row(logits, (1, 1, 2))) == pytest.approx(expected, rel=1e-13)


def draw(rows, frames, classes, most, seed, blank=0):
    """Logits and labels that hold repetitions, of many lengths, all of them possible."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=(rows, frames, classes)).astype(np.float32)
    lengths = rng.integers(0, most + 1, rows)
    characters = np.delete(np.arange(classes), blank)
    labels = rng.choice(characters, (rows, most))
    repeats = [(labels[i, 1:n] == labels[i, : n - 1]).sum() if n else 0 for i, n in enumerate(lengths)]
    logit_lengths = np.array([rng.integers(max(n + r, 1), frames + 1) for n, r in zip(lengths, repeats, strict=True)])
    return jnp.asarray(logits), jnp.asarray(logit_lengths), jnp.asarray(labels), jnp.asarray(lengths)


def test_values_and_gradients_equal_those_of_the_reference():
    """Rows of equal lengths, which the reference takes; labels with repetitions and without."""
    rng = np.random.default_rng(9)
    labels = jnp.array([[1, 1, 2], [3, 1, 3], [2, 2, 2], [1, 2, 3]])
    weights = jnp.array([1.0, -2.0, 0.5, 1.0])

    def ours(z):
        return plain_ctc(z, jnp.full(4, 9), labels, jnp.full(4, 3))

    with jax.enable_x64(True):
        logits = jnp.asarray(rng.normal(scale=2, size=(4, 9, 4)))
        (values, grad), (expected, expected_grad) = jax.jit(
            lambda z: [
                (losses, pull(weights.astype(z.dtype))[0])
                for losses, pull in (jax.vjp(ours, z), jax.vjp(lambda z: jax.vmap(ctc_of_row)(z, labels), z))
            ]
        )(logits)
    np.testing.assert_allclose(values, expected, rtol=1e-13)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-11, atol=1e-14)


def test_values_and_gradients_against_optax():
    logits, frames, labels, lengths = draw(rows=32, frames=30, classes=11, most=9, seed=1)

    def ours(z):
        return ctc(z, frames, labels, lengths)

    def peer(z):
        beyond = (jnp.arange(30) >= frames[:, None]).astype(jnp.float32)
        padding = (jnp.arange(9) >= lengths[:, None]).astype(jnp.float32)
        return optax.ctc_loss(z, beyond, labels, padding)

    def value_and_gradient(function):
        def weigh(z):
            values = function(z)
            return (values * jnp.arange(1.0, 33.0)).sum(), values

        (_, values), grad = jax.jit(jax.value_and_grad(weigh, has_aux=True))(logits)
        return values, grad

    (values, grad), (expected, expected_grad) = value_and_gradient(ours), value_and_gradient(peer)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(
        grad, expected_grad, rtol=1e-3, atol=2e-4
    )  # optax's log 0 is -1e5, its gradient in float32


def test_gradient_against_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)
        logits = rng.normal(size=(3, 6, 4))
        labels, lengths = jnp.array([[1, 1, 3], [2, 0, 0], [3, 1, 2]]), jnp.array([3, 1, 3])
        frames = jnp.array([6, 4, 3])

        def total(z):
            return (ctc(z, frames, labels, lengths) * jnp.array([1.0, -2.0, 0.5])).sum()

        values = jax.jit(jax.grad(total))(jnp.asarray(logits))
        steps = 1e-5 * np.eye(logits.size).reshape(-1, *logits.shape)
        totals = jax.jit(jax.vmap(total))
        slopes = (totals(logits + steps) - totals(logits - steps)) / 2e-5
        np.testing.assert_allclose(values.ravel(), slopes, atol=1e-9)


def test_gradient_adds_up_to_nothing_in_each_frame_and_is_zero_beyond_the_length():
    logits, frames, labels, lengths = draw(rows=16, frames=12, classes=5, most=5, seed=3)
    grad = jax.jit(jax.grad(lambda z: ctc(z, frames, labels, lengths).sum()))(logits)
    np.testing.assert_allclose(grad.sum(-1), 0, atol=2e-5)
    beyond = np.arange(12) >= np.asarray(frames)[:, None]
    assert beyond.any()
    assert not np.asarray(grad)[beyond].any()
    assert np.abs(np.asarray(grad)[~beyond]).max() > 0.1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), extra=st.sampled_from([0, 3]))
def test_padding_does_not_matter(seed, extra):
    rng = np.random.default_rng(seed)
    label, frames = rng.integers(1, 4, 3), 7
    logits = rng.normal(size=(frames, 4)).astype(np.float32)
    alone = float(loss_of_row(logits, label))
    padded = np.concatenate([logits, np.full((3, 4), np.nan, np.float32)])
    assert float(loss_of_row(padded, label, frames, 3 + extra)) == alone


def test_the_empty_label_is_all_blanks():
    logits = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
    expected = -log_softmax(logits.astype(np.float64), axis=-1)[:, 0].sum()
    assert float(loss_of_row(logits, ())) == pytest.approx(expected, rel=1e-6)
    assert float(loss_of_row(logits, (), width=4)) == pytest.approx(expected, rel=1e-6)


def test_no_frames():
    logits = np.zeros((3, 3), np.float32)
    assert float(loss_of_row(logits, (), 0, 2)) == 0
    assert float(loss_of_row(logits, (1,), 0, 2)) == np.inf
    assert float(loss_of_row(np.zeros((0, 3), np.float32), (), width=2)) == 0


def test_labels_that_do_not_fit_their_frames():
    cases = [((1, 2), 2, True), ((1, 1), 2, False), ((1, 1), 3, True), ((1, 2, 1), 2, False), ((1, 1, 1), 5, True)]
    labels = jnp.array([[*label, *[0] * (3 - len(label))] for label, _, _ in cases])
    frames, lengths = jnp.array([n for _, n, _ in cases]), jnp.array([len(label) for label, _, _ in cases])
    possible = np.array([p for _, _, p in cases])

    def loss(z, zero_infinity):
        return ctc(z, frames, labels, lengths, zero_infinity=zero_infinity)

    logits = jnp.asarray(np.random.default_rng(8).normal(size=(5, 5, 3)), jnp.float32)
    for zero_infinity, elsewhere in ((False, np.inf), (True, 0)):

        def loss_and_gradient(z, zero=zero_infinity):
            values, pull = jax.vjp(lambda z: loss(z, zero), z)
            return values, pull(jnp.ones(5))[0]

        values, grads = map(np.asarray, jax.jit(loss_and_gradient)(logits))
        assert (values[~possible] == elsewhere).all()
        assert np.isfinite(values[possible]).all()
        assert np.isfinite(grads).all()
        assert (np.abs(grads).max((1, 2)) > 0.01).tolist() == possible.tolist()


def test_only_path_possible():
    """As many frames as characters: the loss is the cross entropy of that one path."""
    logits = np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32)
    expected = -log_softmax(logits.astype(np.float64), axis=-1)[[0, 1, 2], [3, 1, 2]].sum()
    assert float(loss_of_row(logits, (3, 1, 2))) == pytest.approx(expected, rel=1e-6)


def test_huge_logits_long_sequences_and_bf16_stay_finite():
    rng = np.random.default_rng(6)
    logits = jnp.asarray(rng.normal(scale=1e4, size=(2, 200, 5)), jnp.bfloat16)
    labels = jnp.asarray(rng.integers(1, 5, (2, 60)))

    def loss(z):
        return ctc(z, jnp.array([200, 190]), labels, jnp.array([60, 50]))

    value, grad = loss(logits), jax.jit(jax.grad(lambda z: loss(z).sum()))(logits)
    assert value.dtype == jnp.float32
    assert grad.dtype == jnp.bfloat16
    assert bool(jnp.isfinite(value).all())
    assert bool(jnp.isfinite(grad).all())
    assert float(value.min()) > 1e4


def test_a_certain_reading_has_no_loss():
    path = np.array([0, 1, 1, 0, 1, 2])
    logits = 50 * np.eye(3, dtype=np.float32)[path]
    assert 0 <= float(loss_of_row(logits, (1, 1, 2))) < 1e-6


def test_it_runs_under_jit_and_vmap():
    logits, frames, labels, lengths = draw(rows=6, frames=8, classes=4, most=3, seed=7)
    expected = plain_ctc(logits, frames, labels, lengths)
    np.testing.assert_allclose(ctc(logits, frames, labels, lengths), expected, rtol=1e-6)
    halves = [x.reshape(2, 3, *x.shape[1:]) for x in (logits, frames, labels, lengths)]
    np.testing.assert_allclose(jax.vmap(ctc)(*halves).reshape(-1), expected, rtol=1e-6)


def test_shapes_that_do_not_fit_and_blanks_that_are_not_a_class_are_refused():
    logits, n = jnp.zeros((2, 4, 3)), jnp.array([4, 4])
    with pytest.raises(UsageError, match=r'labels \[B, N\].*not \(2, 4, 3\), \(2,\), \(2,\)'):
        ctc(logits, n, jnp.zeros(2, int), n)
    with pytest.raises(UsageError, match='blank=3 must be one of the 3 classes'):
        ctc(logits, n, jnp.zeros((2, 2), int), n, blank=3)
