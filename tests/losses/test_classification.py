"""Cross entropy and the MAP criterion against float64 numpy, scipy's numbers and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from canon import metrics
from canon.errors import UsageError
from canon.losses import maximum_a_posteriori, softmax_cross_entropy


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 1.0])
def test_against_the_definition(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=30, size=(50, 7))
    labels = rng.integers(7, size=50)
    target = (1 - smoothing) * np.eye(7)[labels] + smoothing / 7
    expected = -(target * log_softmax(logits, axis=-1)).sum(-1)
    actual = softmax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-5)
    of_distributions = softmax_cross_entropy(
        jnp.asarray(logits, jnp.float32), jnp.asarray(np.eye(7)[labels]), smoothing, soft_labels=True
    )
    np.testing.assert_allclose(of_distributions, expected, rtol=1e-6, atol=1e-5)


def test_huge_logits_and_bf16_stay_finite():
    logits = jnp.array([[1e4, -1e4], [-1e30, 1e30]], jnp.bfloat16)
    loss = softmax_cross_entropy(logits, jnp.array([0, 1]))
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, [0, 0])


def test_gradient_is_softmax_minus_target():
    logits = jnp.array([[0.3, -1.0, 2.0]])
    gradient = jax.grad(lambda z: softmax_cross_entropy(z, jnp.array([2]), 0.3).sum())(logits)
    target = 0.7 * np.eye(3)[[2]] + 0.1
    np.testing.assert_allclose(gradient, jax.nn.softmax(logits) - target, atol=1e-6)


def map_criterion(penalties, labels, j):
    """LeCun et al. 1998, eq. 9, as it is printed, float64."""
    return penalties[np.arange(len(labels)), labels] + np.log(np.exp(-j) + np.exp(-penalties).sum(-1))


@pytest.mark.parametrize('j', [0.1, 5.0])
def test_map_against_the_equation(j):
    rng = np.random.default_rng(1)
    penalties, labels = rng.uniform(0, 20, (50, 10)), rng.integers(10, size=50)
    actual = maximum_a_posteriori(jnp.asarray(-penalties, jnp.float32), jnp.asarray(labels), j)
    np.testing.assert_allclose(actual, map_criterion(penalties, labels, j), rtol=2e-6, atol=2e-6)


def test_map_gradient_by_finite_differences():
    rng = np.random.default_rng(2)
    penalties, labels = rng.uniform(0, 5, (4, 6)), rng.integers(6, size=4)
    gradient = -jax.grad(lambda z: maximum_a_posteriori(z, jnp.asarray(labels)).sum())(jnp.asarray(-penalties))
    for index in np.ndindex(penalties.shape):
        step = np.zeros_like(penalties)
        step[index] = 1e-6
        up, down = (map_criterion(penalties + s, labels, 0.1).sum() for s in (step, -step))
        assert abs(gradient[index] - (up - down) / 2e-6) < 1e-5


def test_map_leaves_distant_classes_alone():
    """Without the rubbish class a wrong class is pushed away as long as it is the nearest of the wrong ones."""
    logits, labels = jnp.array([[-300.0, -30.0]]), jnp.array([0])
    pushed = jax.grad(lambda z: softmax_cross_entropy(z, labels).sum())(logits)
    left = jax.grad(lambda z: maximum_a_posteriori(z, labels).sum())(logits)
    np.testing.assert_allclose(pushed, [[-1, 1]])
    np.testing.assert_allclose(left, [[-1, 0]], atol=1e-12)
    huge = maximum_a_posteriori(jnp.array([[-1e4, -1e4]], jnp.bfloat16), labels)
    np.testing.assert_allclose(huge, [9983.9], rtol=1e-6)  # bfloat16 rounds 1e4 to 9984
    assert huge.dtype == jnp.float32


def test_masked_classes_of_minus_infinity_have_a_finite_loss():
    logits = jnp.array([[1.0, 2.0, -jnp.inf]])
    expected = np.log(np.exp(1) + np.exp(2)) - 1
    for labels in (jnp.array([0]), jnp.array([[1.0, 0.0, 0.0]])):
        loss, gradient = jax.value_and_grad(lambda x, y=labels: softmax_cross_entropy(x, y, soft_labels=True).sum())(
            logits
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.zeros((4, 1), np.int32), r'labels \[4, 1\] of int32 do not fit logits \[4, 3\]: .* drop their last axis'),
        (np.full((4, 3), 1 / 3, np.float32), r'expected integers \[4\]; set soft_labels=True'),
        (np.zeros((4, 2), np.float32), r'expected integers \[4\]$'),
        (np.zeros(4, np.float32), 'of float32 do not fit'),
        (np.zeros(4, bool), 'of bool do not fit'),
        (np.zeros(3, np.int32), r'labels \[3\]'),
    ],
)
def test_labels_that_do_not_fit_the_logits_are_refused(labels, message):
    """Labels [N, 1] broadcast against [N, C]: they would pass for distributions and train a model at chance."""
    logits = jnp.zeros((4, 3))
    functions = [
        softmax_cross_entropy,
        maximum_a_posteriori,
        metrics.accuracy,
        metrics.confusion,
        metrics.Reliability.of,
        metrics.brier,
        lambda logits, labels: metrics.top_k(logits, labels, 2),
    ]
    for function in functions:
        with pytest.raises(UsageError, match=message):
            function(logits, labels)
    if labels.shape != logits.shape:
        with pytest.raises(UsageError, match='do not fit'):
            softmax_cross_entropy(logits, labels, soft_labels=True)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_ignored_labels_have_no_loss_and_no_gradient(smoothing):
    """Whatever their logits hold; the others are as without them. Label maps [B, H, W] of five classes and void."""
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(2, 3, 2, 5)).astype(np.float32)
    labels = rng.integers(5, size=(2, 3, 2))
    void = rng.random((2, 3, 2)) < 0.4
    spoilt = np.where(void[..., None], np.array([np.inf, -np.inf, np.nan, 0, 1], np.float32), logits)

    def total(logits, labels, ignore_label):
        losses = softmax_cross_entropy(logits, labels, smoothing, ignore_label=ignore_label)
        return losses.sum(), losses

    gradient = jax.jit(jax.value_and_grad(total, has_aux=True), static_argnums=2)
    (_, plain), by_logits = gradient(logits, labels, None)
    for label in (255, -1):
        (_, actual), by_spoilt = gradient(spoilt, np.where(void, label, labels), label)
        np.testing.assert_allclose(actual, np.where(void, 0, plain), rtol=1e-6)
        np.testing.assert_allclose(by_spoilt, np.where(void[..., None], 0, by_logits), rtol=1e-5, atol=1e-7)
    everywhere = softmax_cross_entropy(logits, np.full((2, 3, 2), 255), smoothing, ignore_label=255)
    np.testing.assert_array_equal(everywhere, 0)


@pytest.mark.parametrize('smoothing', [2, -0.1])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(UsageError, match=f'label_smoothing={smoothing} must be at least 0 and at most 1'):
        softmax_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2, int), label_smoothing=smoothing)
