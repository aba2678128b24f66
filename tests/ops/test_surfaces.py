"""First crossings and their implicit gradients: a sphere in closed form, finite differences in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import surfaces

rng = np.random.default_rng(0)
CENTRE, RADIUS = np.array([0.1, -0.2, 0.3]), 0.9


def ball(params, points):
    """Positive inside."""
    return params['radius'] - jnp.linalg.norm(points - params['centre'], axis=-1)


def params():
    return {'radius': jnp.asarray(RADIUS), 'centre': jnp.asarray(CENTRE)}


def make_rays(count=40):
    """From a distance of 4, at points about the ball's middle: about half of them hit."""
    origins = rng.normal(size=(count, 3))
    origins *= 4 / np.linalg.norm(origins, axis=-1, keepdims=True)
    directions = (CENTRE + rng.uniform(-1.2, 1.2, (count, 3)) - origins) * rng.uniform(0.2, 0.5, (count, 1))
    return origins, directions


def closed_form(origins, directions):
    """(t of the nearer root, d t / d radius, d t / d centre, d t / d origin), NaN for rays that miss."""
    offset = origins - CENTRE
    a, b, c = (directions**2).sum(-1), (offset * directions).sum(-1), (offset**2).sum(-1) - RADIUS**2
    root = np.sqrt(np.where(b * b > a * c, b * b - a * c, np.nan))
    t = (-b - root) / a
    # |o + t w - c|^2 = r^2, differentiated: with q = o + t w - c, q.w dt = r dr + q.dc - q.do.
    q = offset + t[:, None] * directions
    along = (q * directions).sum(-1)
    return t, RADIUS / along, q / along[:, None], -q / along[:, None], -t[:, None] * q / along[:, None]


def test_crossings_of_a_sphere_and_their_gradients_solve_the_quadratic():
    origins, directions = make_rays()
    t, by_radius, by_centre, by_origin, by_way = closed_form(origins, directions)
    met = np.isfinite(t)
    assert 5 < met.sum() < 35
    with jax.enable_x64(True):

        def depth(p, origins, directions):
            result = surfaces.find_first_crossing(ball, p, origins, directions, 0.0, 12.0, 400, secant=12)
            return result.t, result

        depth = jax.jit(depth)
        actual, result = depth(params(), jnp.asarray(origins), jnp.asarray(directions))
        np.testing.assert_array_equal(result.hit, met)
        assert not result.inside.any()
        np.testing.assert_allclose(actual[met], t[met], rtol=1e-12)
        np.testing.assert_array_equal(actual[~met], 12.0)
        # One pull for all rays: of parameters it is the sum over them.
        weight = rng.normal(size=len(t))
        _, pull = jax.vjp(lambda *given: depth(*given)[0], params(), jnp.asarray(origins), jnp.asarray(directions))
        of_params, of_origins, of_ways = pull(jnp.asarray(weight))
    np.testing.assert_allclose(of_params['radius'], (weight * by_radius)[met].sum(), rtol=1e-9)
    np.testing.assert_allclose(of_params['centre'], (weight[:, None] * by_centre)[met].sum(0), rtol=1e-9)
    np.testing.assert_allclose(of_origins[met], (weight[:, None] * by_origin)[met], rtol=1e-9)
    np.testing.assert_allclose(of_ways[met], (weight[:, None] * by_way)[met], rtol=1e-9)
    np.testing.assert_array_equal(of_origins[~met], 0)


def test_straight_at_a_sphere():
    """t = 4 - r: d t / d radius = -1, and the centre moves it by as much as it moves itself along the ray."""
    origin, direction = jnp.array([[0.0, 0.0, 4.0]]), jnp.array([[0.0, 0.0, -1.0]])

    def depth(p):
        return surfaces.find_first_crossing(ball, p, origin, direction, 2.0, 6.0, 32).t[0]

    p = {'radius': jnp.array(0.9), 'centre': jnp.zeros(3)}
    np.testing.assert_allclose(depth(p), 3.1, rtol=1e-6)
    grads = jax.jit(jax.grad(depth))(p)
    np.testing.assert_allclose(grads['radius'], -1, rtol=1e-5)
    np.testing.assert_allclose(grads['centre'], [0, 0, -1], atol=1e-5)


def network(params, points):
    """Curved, and not a distance."""
    h = jnp.tanh(points @ params['a'] + params['b'])
    return h @ params['c'] + 0.8 - (points**2).sum(-1)


def test_gradients_are_finite_differences():
    origins, directions = make_rays(24)
    p = {'a': rng.normal(size=(3, 8)), 'b': rng.normal(size=8), 'c': 0.1 * rng.normal(size=8)}
    given = (p, origins, directions)
    with jax.enable_x64(True):

        def value(p, origins, directions):
            result = surfaces.find_first_crossing(network, p, origins, directions, 0.0, 12.0, 300, secant=12)
            return jnp.where(result.hit, jnp.sin(result.t), 0).sum()

        value = jax.jit(value)
        grads = jax.jit(jax.grad(value, (0, 1, 2)))(*jax.tree.map(jnp.asarray, given))
        flat, shape = jax.tree.flatten(given)
        for i, grad in enumerate(jax.tree.leaves(grads)):
            direction = np.random.default_rng(i).normal(size=grad.shape)
            ahead, back = (
                value(*shape.unflatten([x + h * direction if i == j else x for j, x in enumerate(flat)]))
                for h in (1e-6, -1e-6)
            )
            np.testing.assert_allclose((grad * direction).sum(), (ahead - back) / 2e-6, rtol=1e-6)


def test_blocks_do_not_change_the_crossings():
    def find(block):
        return surfaces.find_first_crossing(ball, params(), *map(jnp.asarray, rays), 0.0, 12.0, 64, block=block)

    rays = make_rays()
    reference, *others = jax.jit(lambda: [find(block) for block in (64, 7, 1000)])()
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), other, reference)


def test_the_search_ends_when_all_have_hit():
    """Of 64 intervals from 2 to 6 the surface at 3.1 is in the 18th: two blocks of 16 are evaluated, and not four."""
    calls = []

    def counted(p, points):
        if points.ndim == 3:
            jax.debug.callback(lambda: calls.append(1))
        return ball(p, points)

    origin, direction = jnp.array([[0.0, 0.0, 4.0]] * 3), jnp.array([[0.0, 0.0, -1.0]] * 3)
    surfaces.find_first_crossing(
        counted, {'radius': 0.9, 'centre': jnp.zeros(3)}, origin, direction, 2.0, 6.0, 64
    ).t.block_until_ready()
    jax.effects_barrier()
    assert len(calls) == 2


def test_rays_that_begin_inside():
    origin, direction = jnp.array([[0.0, 0.0, 0.0]]), jnp.array([[0.0, 0.0, -1.0]])
    p = {'radius': jnp.array(0.9), 'centre': jnp.zeros(3)}

    @partial(jax.jit, static_argnums=1)
    def find(near, either):
        return surfaces.find_first_crossing(ball, p, origin, direction, near, 2.0, 16, either=either)

    closed = find(0.0, False)
    assert closed.inside[0]
    assert not closed.hit[0]
    out = find(0.0, True)
    assert out.hit[0]
    np.testing.assert_allclose(out.t, 0.9, rtol=1e-6)
    assert not find(2.0, True).hit[0]  # near = far: no ray at all


def test_gradients_of_grazing_rays_are_bounded():
    """f = z - 0.5 along a ray that comes nearer to it by 1e-6 a length: the slope is taken to be 1e-3."""
    origin, direction = jnp.array([[0.0, 0.0, 0.5 - 1e-6]]), jnp.array([[1.0, 0.0, 1e-6]])

    def depth(shift):
        return surfaces.find_first_crossing(lambda p, x: x[..., 2] - p, shift, origin, direction, 0.0, 2.0, 16).t[0]

    assert 900 < abs(jax.jit(jax.grad(depth))(jnp.array(0.5))) <= 1e3 * (1 + 1e-5)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match='count=0 >= 1'):
        surfaces.find_first_crossing(ball, params(), jnp.zeros((1, 3)), jnp.ones((1, 3)), 0.0, 1.0, 0)
