"""Losses of shapes in closed form, their gradients where they turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import losses


def test_clamped_distances():
    """Beyond delta on the same side nothing is left to learn; on the other side the error is 2 delta."""
    predictions, truth = np.array([0.03, 0.5, 0.5, -0.5, 0.2]), np.array([-0.01, 0.2, -0.3, 0.05, 0.04])
    np.testing.assert_allclose(losses.clamped_l1(predictions, truth, 0.1), [0.04, 0, 0.2, 0.15, 0.06], atol=1e-7)
    slope = jax.grad(lambda f: losses.clamped_l1(f, truth, 0.1).sum())(jnp.asarray(predictions))
    np.testing.assert_array_equal(slope, [1, 0, 0, 0, 0])


def test_a_signed_distance_has_no_eikonal_loss():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3))
    slopes = jax.vmap(jax.grad(lambda x: jnp.linalg.norm(x) - 0.7))(points)
    np.testing.assert_allclose(losses.eikonal_loss(slopes), 0, atol=1e-12)
    np.testing.assert_allclose(losses.eikonal_loss(3 * slopes), 4, rtol=1e-5)
    normals = points / np.linalg.norm(points, axis=-1, keepdims=True)
    np.testing.assert_allclose(losses.surface_loss(jnp.full(20, -0.2), slopes, normals, 1.0), 0.2, atol=1e-5)
    np.testing.assert_allclose(losses.surface_loss(jnp.full(20, 0.2), slopes, -normals, 0.5), 0.2 + 0.5 * 2, rtol=1e-5)
    np.testing.assert_allclose(losses.surface_loss(jnp.full(20, -0.2), slopes, None), 0.2, rtol=1e-6)


def test_gradients_at_zero_are_finite():
    for value in (losses.eikonal_loss, lambda g: losses.surface_loss(g[..., 0], g, g), losses.code_prior):
        slope = jax.grad(lambda g, value=value: value(g).sum())(jnp.zeros((2, 3)))
        assert np.isfinite(slope).all()
    assert np.isfinite(jax.grad(lambda z: losses.code_prior(z, squared=False).sum())(jnp.zeros((2, 3)))).all()


def test_the_prior_of_codes():
    codes = np.array([[3.0, 4.0], [0.0, 2.0]])
    np.testing.assert_allclose(losses.code_prior(codes), [25, 4])
    np.testing.assert_allclose(losses.code_prior(codes, squared=False), [5, 2])


def test_binary_cross_entropy():
    logits, truth = np.array([-2.0, 0.5, 3.0, 90.0, -90.0]), np.array([0, 1, 0, 0, 1])
    p = 1 / (1 + np.exp(-logits[:3]))
    expected = -np.where(truth[:3] == 1, np.log(p), np.log1p(-p))
    nats = losses.binary_cross_entropy(logits, truth.astype(bool))
    np.testing.assert_allclose(nats[:3], expected, rtol=1e-6)
    np.testing.assert_allclose(nats[3:], 90, rtol=1e-6)
    assert losses.binary_cross_entropy(0.0, 0.3) == pytest.approx(np.log(2))
