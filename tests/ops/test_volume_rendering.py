"""The compositor against closed forms of the integral, float64 loops and finite differences; nothing and walls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import volume_rendering as vr

rng = np.random.default_rng(0)


@jax.jit
def render(density, delta, colours, t, background=None):
    return vr.accumulate_along_rays(vr.weights(density, delta), colours, t, background)


@pytest.mark.parametrize('cuts', [1, 7, 200])
def test_a_constant_slab_is_exact_however_it_is_cut(cuts):
    """C = c (1 - exp(-sigma L)), T = exp(-sigma L)."""
    sigma, length, colour = 0.7, 3.0, np.array([0.2, 0.5, 0.9])
    with jax.enable_x64(True):
        edges = np.sort(np.concatenate(([0, length], rng.uniform(0, length, cuts - 1))))
        actual = render(jnp.full(cuts, sigma), jnp.diff(edges), jnp.tile(colour, (cuts, 1)), jnp.asarray(edges[:-1]))
        np.testing.assert_allclose(actual.opacity, 1 - np.exp(-sigma * length), rtol=1e-13)
        np.testing.assert_allclose(actual.colour, colour * (1 - np.exp(-sigma * length)), rtol=1e-13)


def test_the_quadratures_error_falls_with_the_square_of_the_step():
    """sigma = t, c = t on [0, 2] by midpoints: C = int t^2 exp(-t^2 / 2) dt = sqrt(pi / 2) erf(sqrt 2) - 2 e^-2."""
    from math import erf, exp, pi, sqrt

    expected = sqrt(pi / 2) * erf(sqrt(2)) - 2 * exp(-2)

    def colour(n):
        t = (jnp.arange(n) + 0.5) * (2 / n)
        return render(t, jnp.full(n, 2 / n), t[:, None], t).colour[0]

    with jax.enable_x64(True):
        colours = jax.jit(lambda: jnp.stack([colour(n) for n in (16, 32, 64, 128)]))()
    errors = np.abs(colours - expected)
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.05)


def test_weights_equal_products_of_transmittances():
    density, delta = rng.uniform(0, 3, (4, 9)), rng.uniform(0, 1, (4, 9))
    colours, t = rng.uniform(size=(4, 9, 3)), np.sort(rng.uniform(2, 6, (4, 9)))
    with jax.enable_x64(True):
        actual = render(jnp.asarray(density), jnp.asarray(delta), colours, t, background=1.0)
        disparity, distance = np.asarray(actual.disparity), np.asarray(actual.distance)
    for r in range(4):
        through, colour, depth = 1.0, np.zeros(3), 0.0
        for i in range(9):
            alpha = 1 - np.exp(-density[r, i] * delta[r, i])
            np.testing.assert_allclose(actual.weights[r, i], through * alpha, rtol=1e-12)
            colour += through * alpha * colours[r, i]
            depth += through * alpha * t[r, i]
            through *= 1 - alpha
        np.testing.assert_allclose(actual.colour[r], colour + through, rtol=1e-12)
        np.testing.assert_allclose(actual.depth[r], depth, rtol=1e-12)
        np.testing.assert_allclose(actual.opacity[r], 1 - through, rtol=1e-12)
        np.testing.assert_allclose(disparity[r], 1 / (depth / (1 - through)), rtol=1e-12)
        np.testing.assert_allclose(distance[r], depth / (1 - through), rtol=1e-12)
    same = vr.alpha_weights(jnp.asarray(1 - np.exp(-density * delta), jnp.float32))
    np.testing.assert_allclose(same, actual.weights, atol=1e-6)


def test_gradients_are_finite_differences():
    inputs = [
        rng.uniform(0.1, 3, (3, 6)),
        rng.uniform(0.1, 1, (3, 6)),
        rng.uniform(size=(3, 6, 3)),
        rng.uniform(2, 6, (3, 6)),
    ]
    with jax.enable_x64(True):

        @jax.jit
        def value(density, delta, colours, t):
            rendered = render(density, delta, colours, t, background=0.3)
            return (
                jnp.sin(rendered.colour).sum()
                + rendered.distance.sum()
                + rendered.disparity.sum()
                + (rendered.weights**2).sum()
            )

        for i, grad in enumerate(jax.jit(jax.grad(value, (0, 1, 2, 3)))(*inputs)):
            direction = np.random.default_rng(i).normal(size=grad.shape)
            ahead, back = ([x + h * direction if i == j else x for j, x in enumerate(inputs)] for h in (1e-6, -1e-6))
            numeric = (value(*ahead) - value(*back)) / 2e-6
            np.testing.assert_allclose((grad * direction).sum(), numeric, rtol=1e-7, atol=1e-8)  # rounding over h


@pytest.mark.parametrize('last', [1e10, 0.0])
def test_nothing_and_walls_give_no_nan(last):
    """Densities 0, huge and infinite, one behind another, intervals of no length; values and gradients."""
    inf = np.inf
    density = jnp.array([[0.0, 0, 0, 0], [0, inf, 1, inf], [3e38, 3e38, 0, 1], [inf, 0, 0, 0], [1, 1, inf, 0]])
    t = jnp.array([[2.0, 3, 3, 4]] * 5)
    delta = vr.intervals(t, jnp.array([[0.0, 0, -1]] * 5), last)
    colours = jnp.asarray(rng.uniform(size=(5, 4, 3)), jnp.float32)

    def value(density, delta, colours):
        rendered = render(density, delta, colours, t, background=1.0)
        return rendered.colour.sum() + rendered.disparity.sum() + rendered.distance.sum(), rendered

    grads, rendered = jax.jit(jax.grad(value, (0, 1, 2), has_aux=True))(density, delta, colours)
    for array in (*grads, *rendered, rendered.disparity, rendered.distance):
        assert np.isfinite(array).all()
    np.testing.assert_array_equal(rendered.colour[0], 1)
    assert rendered.opacity[0] == rendered.disparity[0] == rendered.distance[0] == 0
    np.testing.assert_array_equal(rendered.weights[3], [1, 0, 0, 0])
    np.testing.assert_array_equal(rendered.colour[3], colours[3, 0])
    np.testing.assert_array_equal(rendered.weights[1, 1], 0)  # its interval has no length


def test_intervals_are_lengths_in_the_world():
    delta = vr.intervals(jnp.array([1.0, 2.0, 4.0]), jnp.array([3.0, 0.0, -4.0]))
    np.testing.assert_allclose(delta, [5, 10, 5e10])


def test_the_last_interval_makes_any_density_opaque():
    t = jnp.array([1.0, 2.0])
    direction = jnp.array([0.0, 0.0, -1.0])
    assert vr.weights(jnp.array([0.0, 0.01]), vr.intervals(t, direction)).sum() == 1
    assert vr.weights(jnp.array([0.0, 0.01]), vr.intervals(t, direction, 0.0)).sum() == 0


def test_opacity_follows_the_step():
    """Two steps of half the length hide as much as one."""
    alpha = jnp.array([0.0, 0.3, 0.999, 1.0])
    half = vr.correct_opacity(alpha, 0.5, 1.0)
    np.testing.assert_allclose(1 - (1 - half) ** 2, alpha, atol=1e-6)
    assert np.isfinite(jax.grad(lambda a: vr.correct_opacity(a, 0.5, 1.0).sum())(alpha)).all()


def test_backgrounds():
    key, shape = jax.random.key(0), (1000, 3)
    assert vr.background_colour(key, 'black', shape) is None
    np.testing.assert_array_equal(vr.background_colour(key, 'white', shape), 1)
    drawn = vr.background_colour(key, 'random', shape)
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.05)
    np.testing.assert_array_equal(vr.background_colour(None, 'random', shape), 1)
    with pytest.raises(UsageError, match="background='grey' is not one of"):
        vr.background_colour(key, 'grey', shape)


def test_intervals_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match='5 densities need as many interval lengths, got 4'):
        vr.weights(jnp.ones(5), jnp.ones(4))


def test_a_last_interval_without_end_costs_no_digits():
    """64 equal samples of optical depth .01, the last without end: the weights are a closed form and add to one."""
    t = jnp.linspace(2.0, 8.3, 64)
    delta = vr.intervals(t, jnp.array([0.0, 0.0, 1.0]))
    weights = np.asarray(vr.weights(jnp.full(64, 0.1), delta), np.float64)
    expected = np.exp(-0.01 * np.arange(64)) * np.append(np.full(63, -np.expm1(-0.01)), 1.0)
    np.testing.assert_allclose(weights, expected, rtol=2e-5)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_empty_space_in_an_infinite_interval_absorbs_nothing():
    delta = jnp.array([1.0, 1.0, jnp.inf])
    np.testing.assert_array_equal(vr.weights(jnp.zeros(3), delta), np.zeros(3))
    for density in (jnp.zeros(3), jnp.array([0.0, 0.5, 2.0])):
        assert np.isfinite(jax.grad(lambda d: (vr.weights(d, delta) * jnp.arange(3.0)).sum())(density)).all()
