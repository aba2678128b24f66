"""Encodings against float64 loops, Monte Carlo, and the orthonormality of harmonics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import frequencies as fq

rng = np.random.default_rng(0)


def test_frequencies_number_by_number():
    x = rng.normal(size=(4, 3))
    expected = [[*row, *(f(2.0**level * v) for level in range(10) for f in (np.sin, np.cos) for v in row)] for row in x]
    with jax.enable_x64(True):
        encode = jax.jit(fq.positional_encoding, static_argnums=1)
        np.testing.assert_allclose(encode(jnp.asarray(x), 10), expected, atol=1e-12)
    for levels, size in ((10, 63), (4, 27)):
        assert jax.eval_shape(lambda x, n=levels: fq.positional_encoding(x, n), jnp.ones((2, 3))).shape == (2, size)
    with pytest.raises(UsageError, match='levels >= 0, got -1'):
        fq.positional_encoding(jnp.ones(3), -1)


def test_the_free_mask_lets_bands_in_from_the_lowest():
    frequency_mask = jax.jit(lambda progress: fq.frequency_mask(progress, 2))
    for progress, expected in ((0, [1, 0, 0, 0, 0]), (0.1, [1, 0.5, 0, 0, 0]), (0.5, [1, 1, 1, 0.5, 0]), (1, [1] * 5)):
        np.testing.assert_allclose(frequency_mask(float(progress)), np.repeat(expected, 3), atol=1e-6)
    np.testing.assert_allclose(frequency_mask(3.0), 1)


def test_frustums_have_the_moments_of_points_drawn_in_them():
    """Points uniform in the piece of a cone: t with density t^2, then uniform in the disc of radius r t."""
    origin, direction, radius = np.array([0.3, -0.2, 1.0]), np.array([0.2, 0.5, -1.0]), 0.3
    t0, t1, n = 1.0, 2.5, 400_000
    t = rng.uniform(t0**3, t1**3, n) ** (1 / 3)
    across = np.linalg.svd(direction[None])[2][1:]
    angle, r = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(size=n)) * radius * t
    points = (
        origin
        + t[:, None] * direction
        + (r * np.cos(angle))[:, None] * across[0]
        + (r * np.sin(angle))[:, None] * across[1]
    )
    mean, variance = jax.jit(fq.conical_frustum_gaussians)(*map(jnp.asarray, ([t0, t1], origin, direction, [radius])))
    np.testing.assert_allclose(mean[0], points.mean(0), atol=2e-3)
    np.testing.assert_allclose(variance[0], points.var(0), rtol=0.01)


def test_integrated_encoding_is_the_mean_of_encodings():
    mean, variance = np.array([0.3, -0.7, 1.1]), np.array([0.5, 0.02, 0.1])
    drawn = rng.normal(size=(400_000, 3)) * np.sqrt(variance) + mean
    phases = np.concatenate([drawn * 2.0**level for level in range(4)], -1)
    expected = np.concatenate((np.sin(phases).mean(0), np.cos(phases).mean(0)))
    np.testing.assert_allclose(
        jax.jit(lambda *x: fq.integrated_positional_encoding(*x, 4))(mean, variance), expected, atol=5e-3
    )


def test_harmonics_are_orthonormal_and_the_first_are_known():
    """Gauss-Legendre in z and equal angles integrate polynomials of degree 6 exactly."""
    z, weight = np.polynomial.legendre.leggauss(8)
    angle = np.arange(16) * (2 * np.pi / 16)
    r = np.sqrt(1 - z**2)
    directions = np.stack((np.outer(r, np.cos(angle)), np.outer(r, np.sin(angle)), np.tile(z[:, None], 16)), -1)
    with jax.enable_x64(True):
        y = np.asarray(jax.jit(fq.spherical_harmonics)(jnp.asarray(directions)))
    products = np.einsum('zap,zaq,z->pq', y, y, weight * 2 * np.pi / 16)
    np.testing.assert_allclose(products, np.eye(16), atol=1e-12)
    # instant-ngp's constants, as printed there.
    first = jax.jit(fq.spherical_harmonics)(jnp.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(first[jnp.array([0, 2, 6, 12])], [0.2820948, 0.4886025, 0.6307831, 0.7463527], rtol=1e-5)
    np.testing.assert_allclose(jax.jit(fq.spherical_harmonics)(jnp.array([1.0, 0.0, 0.0]))[jnp.array([3, 13, 15])],
                               [-0.4886025, 0.4570458, -0.5900436], rtol=1e-5)  # fmt: skip
