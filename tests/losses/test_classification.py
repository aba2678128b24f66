"""Cross entropy against float64 numpy, scipy's numbers and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from canon.losses import softmax_cross_entropy


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 1.0])
def test_against_the_definition(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=30, size=(50, 7))
    labels = rng.integers(7, size=50)
    target = (1 - smoothing) * np.eye(7)[labels] + smoothing / 7
    wanted = -(target * log_softmax(logits, axis=-1)).sum(-1)
    found = softmax_cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-5)
    of_distributions = softmax_cross_entropy(
        jnp.asarray(logits, jnp.float32), jnp.asarray(np.eye(7)[labels]), smoothing
    )
    np.testing.assert_allclose(of_distributions, wanted, rtol=1e-6, atol=1e-5)


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
