"""Ray casting of volumes against closed forms, float64 loops and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.ops import rays, volumes
from canon.ops import volume_rendering as vr
from canon.ops.volumes import RaySegments

rng = np.random.default_rng(0)
LOW, HIGH = np.array([-1.0, -0.5, -0.8]), np.array([1.0, 0.5, 0.8])


def make_segments(count=12, low=LOW, high=HIGH):
    """Rays from all around towards points of the box, of unequal length; two more miss it."""
    origins = rng.normal(size=(count + 2, 3))
    origins *= 4 / np.linalg.norm(origins, axis=-1, keepdims=True)
    directions = (rng.uniform(low, high, (count + 2, 3)) - origins) * rng.uniform(0.3, 1.5, (count + 2, 1))
    directions[-2:] *= -1
    origins, directions = jnp.asarray(origins), jnp.asarray(directions)
    return RaySegments(origins, directions, *rays.intersect_box(origins, directions, low, high))


def lattice(shape=(9, 6, 8), low=LOW, high=HIGH):
    """World coordinates [X, Y, Z, 3] of the voxels."""
    axes = (
        np.linspace(a, segments, n)
        for a, segments, n in zip(np.broadcast_to(low, 3), np.broadcast_to(high, 3), shape, strict=True)
    )
    return np.stack(np.meshgrid(*axes, indexing='ij'), -1)


def lengths(segments):
    return np.asarray((segments.far - segments.near) * jnp.linalg.norm(segments.directions, axis=-1))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


# --- closed forms -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures('x64')
def test_a_slab_absorbs_by_its_thickness():
    """A volume of one value: T = exp(-sigma L), however many intervals; rays that miss see the background."""
    segments, volume = make_segments(), jnp.full((4, 5, 6), 0.5)
    table = jnp.asarray([[0.2, 0.6, 1.0, 0.3]] * 2)
    sigma, length = -np.log(1 - 0.3) / 0.05, lengths(segments)
    assert (length[-2:] == 0).all()
    assert (length[:-2] > 0).all()
    for count in (1, 13):
        rendered, through = jax.jit(
            lambda n=count: (
                volumes.render_emission(
                    volumes.make_shader(volume, table, 0.05, LOW, HIGH), segments, n, background=0.25
                ),
                volumes.transmittance(volumes.integrate_along_rays(volume, segments, n, LOW, HIGH)),
            )
        )()
        np.testing.assert_allclose(rendered.opacity, 1 - np.exp(-sigma * length), rtol=1e-12)
        expected = (
            np.array([0.2, 0.6, 1.0]) * np.asarray(rendered.opacity)[:, None] + 0.25 * np.exp(-sigma * length)[:, None]
        )
        np.testing.assert_allclose(rendered.colour, expected, rtol=1e-12)
        np.testing.assert_allclose(through, np.exp(-0.5 * length), rtol=1e-12)


@pytest.mark.usefixtures('x64')
def test_the_x_ray_of_a_linear_ramp_is_the_mean_of_its_ends():
    """The integral of a + g.p along a ray is its length times the value in the middle."""
    g, points = np.array([0.7, -0.4, 1.1]), lattice()
    segments, volume = make_segments(), jnp.asarray(2 + points @ g)
    ends = [np.asarray(segments.origins + t[:, None] * segments.directions) for t in (segments.near, segments.far)]
    expected = lengths(segments) * (2 + (ends[0] + ends[1]) / 2 @ g)
    integral = jax.jit(volumes.integrate_along_rays, static_argnums=2)
    for count in (1, 6):
        np.testing.assert_allclose(integral(volume, segments, count, LOW, HIGH), expected, rtol=1e-11)
    slope = jax.jit(volumes.estimate_gradient)(volume, rng.uniform(LOW, HIGH, (20, 3)), LOW, HIGH)
    np.testing.assert_allclose(slope, np.broadcast_to(g, (20, 3)), rtol=1e-11)


@pytest.mark.usefixtures('x64')
def test_emission_of_a_ramp_of_density_falls_with_the_square_of_the_step():
    """Density 3 u along a ray of length 2 through u in 0..1 (value u, length 2 u): opacity = 1 - exp(-3)."""
    volume = jnp.broadcast_to(jnp.linspace(0.0, 1.0, 5)[:, None, None], (5, 2, 2))
    segments = RaySegments(jnp.array([[-3.0, 0, 0]]), jnp.array([[1.0, 0, 0]]), jnp.array([2.0]), jnp.array([4.0]))
    # No table is linear in density, so the shader is written by hand.
    shade = lambda x: (3 * volumes.sample_volume(volume, x), volumes.sample_volume(volume, x)[..., None])  # noqa: E731
    errors, u = [], np.linspace(0, 1, 200001)
    curve = 6 * u * np.exp(-3 * u**2) * u  # d(opacity) times the colour u
    expected = ((curve[1:] + curve[:-1]) / 2).sum() * (u[1] - u[0])
    for count in (16, 32, 64):
        rendered = jax.jit(lambda n=count: volumes.render_emission(shade, segments, n))()
        np.testing.assert_allclose(rendered.opacity, 1 - np.exp(-3), rtol=1e-12)  # midpoints integrate a ramp exactly
        errors.append(abs(float(rendered.colour[0, 0]) - expected))
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.05)


@pytest.mark.usefixtures('x64')
def test_hits_and_normals_of_a_sphere():
    """Voxels of r - |p|: errors of depth and of normal fall with the square of the voxel."""
    radius, segments, errors = 0.6, make_segments(60, -0.4, 0.4), []
    a = np.asarray((segments.directions**2).sum(-1))
    half = np.asarray((segments.origins * segments.directions).sum(-1))
    root = half**2 - a * (np.asarray((segments.origins**2).sum(-1)) - radius**2)
    t = (-half - np.sqrt(np.maximum(root, 0))) / a
    segments = segments._replace(
        near=jnp.full(62, 0.0), far=jnp.where(segments.far > segments.near, 6 / jnp.sqrt(a), 0)
    )
    met = (root > 0.1 * a * radius**2) & np.asarray(segments.far > 0)  # not grazed
    assert met.sum() > 20
    points = np.asarray(segments.origins + t[:, None] * segments.directions)
    for side in (24, 48):
        volume = jnp.asarray(radius - np.linalg.norm(lattice((side,) * 3, -1, 1), axis=-1))
        rendered = jax.jit(lambda volume: volumes.intersect_iso_surface(volume, 0.0, segments, 200))(volume)
        assert rendered.hit[met].all()
        angles = np.arccos(np.clip((np.asarray(rendered.normals)[met] * points[met] / radius).sum(-1), -1, 1))
        errors.append((np.abs(rendered.t - t)[met].max(), angles.max()))
    assert (np.array(errors[1]) < (2e-3, 0.02)).all(), errors
    assert (np.array(errors[0]) / errors[1] > 3).all(), errors
    assert not rendered.hit[-2:].any()
    np.testing.assert_array_equal(rendered.normals[-2:], 0)


@pytest.mark.usefixtures('x64')
def test_a_level_that_rises_moves_the_surface_as_it_should():
    """Of r - |p|, straight on, the surface at level c is at distance 4 - (r - c)."""
    volume = jnp.asarray(0.6 - np.linalg.norm(lattice((33,) * 3, -1, 1), axis=-1))
    segments = RaySegments(jnp.array([[0.0, 0, 4]]), jnp.array([[0.0, 0, -1]]), jnp.array([3.0]), jnp.array([5.0]))

    depth = jax.jit(
        jax.value_and_grad(lambda level: volumes.intersect_iso_surface(volume, level, segments, 64, secant=12).t[0])
    )
    for level in (0.0, 0.13):
        # Along an axis voxels are exact, but for its own kink, which the surface is not near to.
        np.testing.assert_allclose(depth(level), (4 - (0.6 - level), 1), rtol=1e-10)


def test_the_light_of_a_surface_is_phongs():
    normal = np.array([[0.0, 0.6, 0.8], [0.0, 0.0, 1.0], [0.0, 0.6, -0.8]])
    direction, light = np.array([[0.0, 0.0, -3.0]]), np.array([0.0, 2.0, 0.0])
    actual = volumes.shade_phong(
        jnp.asarray(normal), jnp.asarray(direction), light, (0.5, 1.0, 0.0), 0.1, 0.7, 0.4, 3.0
    )
    eye, to = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    for n, colour in zip(normal, actual, strict=True):
        facing = n @ to
        shine = max((2 * facing * n - to) @ eye, 0) ** 3 if facing > 0 else 0
        np.testing.assert_allclose(
            colour, (0.1 + 0.7 * max(facing, 0)) * np.array([0.5, 1, 0]) + 0.4 * shine, atol=1e-6
        )
    head = volumes.shade_phong(jnp.asarray(normal), jnp.asarray(direction), None, specular=0.0)
    np.testing.assert_allclose(head[:, 0], 0.15 + 0.75 * np.maximum(normal @ eye, 0), atol=1e-6)


def test_the_total_variation_of_a_box_is_its_surface():
    """A box of 4 x 3 x 2 voxels, 5 high: each face has its area in steps; along edges two or three are one."""
    volume = np.zeros((10, 9, 8), np.float32)
    volume[3:7, 2:5, 4:6] = 5
    total = 0.0
    for x, y, z in np.ndindex(9, 8, 7):
        here = volume[x, y, z]
        steps = volume[x + 1, y, z] - here, volume[x, y + 1, z] - here, volume[x, y, z + 1] - here
        total += np.linalg.norm(steps)
    assert 5 * 40 < total < 5 * 52
    np.testing.assert_allclose(volumes.total_variation(jnp.asarray(volume), 1e-6), total / (9 * 8 * 7), rtol=1e-5)
    assert np.isfinite(jax.grad(volumes.total_variation)(jnp.zeros((3, 3, 3)))).all()


# --- loops --------------------------------------------------------------------------------------------------------


def loop_over_rays(volume, table, segments, count, reference):
    """(colour, depth, opacity, largest, integral) of each ray in plain Python, by products of what is let through."""
    rows_of_rays = []
    for origin, direction, near, far in zip(*map(np.asarray, segments), strict=True):
        through, colour, depth, largest, integral = 1.0, np.zeros(3), 0.0, -np.inf, 0.0
        for i in range(count):
            t = near + (far - near) * (i + 0.5) / count
            place = np.clip((origin + t * direction - LOW) / (HIGH - LOW), 0, 1) * (np.array(volume.shape) - 1)
            cell = np.minimum(np.floor(place).astype(int), np.array(volume.shape) - 2)
            part, value = place - cell, 0.0
            for corner in np.ndindex(2, 2, 2):
                share = np.prod([p if c else 1 - p for c, p in zip(corner, part, strict=True)])
                value += share * volume[tuple(cell + corner)]
            rows = np.arange(len(table)) / (len(table) - 1)
            red, green, blue, alpha = (np.interp((value - 0.1) / (0.9 - 0.1), rows, column) for column in table.T)
            length = (far - near) / count * np.linalg.norm(direction)
            alpha = 1 - (1 - alpha) ** (length / reference)
            colour = colour + through * alpha * np.array([red, green, blue])
            depth += through * alpha * t
            through *= 1 - alpha
            largest, integral = max(largest, value), integral + value * length
        rows_of_rays.append((colour, depth, 1 - through, largest, integral))
    return [np.array(x) for x in zip(*rows_of_rays, strict=True)]


@pytest.mark.usefixtures('x64')
def test_rays_agree_with_loops():
    volume, table, segments = rng.uniform(size=(5, 4, 6)), rng.uniform(0, 0.9, (7, 4)), make_segments()
    colour, depth, opacity, largest, integral = loop_over_rays(volume, table, segments, 20, 0.3)
    shade = volumes.make_shader(jnp.asarray(volume), jnp.asarray(table), 0.3, LOW, HIGH, (0.1, 0.9))
    rendered, (value, t), along = jax.jit(
        lambda volume: (
            volumes.render_emission(shade, segments, 20),
            volumes.project_maximum(volume, segments, 20, LOW, HIGH),
            volumes.integrate_along_rays(volume, segments, 20, LOW, HIGH),
        )
    )(volume)
    for actual, expected in ((rendered.colour, colour), (rendered.depth, depth), (rendered.opacity, opacity)):
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(value, largest, rtol=1e-12)
    there = volumes.sample_volume(jnp.asarray(volume), segments.origins + t[:, None] * segments.directions, LOW, HIGH)
    np.testing.assert_allclose(there, value, rtol=1e-12)
    np.testing.assert_allclose(along, integral, atol=1e-12)


def test_extinction_is_the_step_corrected_opacity():
    opacity = jnp.array([0.0, 0.2, 0.999, 1.0])
    for length in (0.01, 0.1, 0.7):
        hidden = 1 - jnp.exp(-vr.optical_depths(volumes.opacity_to_density(opacity, 0.1), jnp.full(4, length)))
        np.testing.assert_allclose(hidden, vr.correct_opacity(opacity, length, 0.1), atol=1e-6)


# --- early termination --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures('x64')
def test_ending_early_changes_only_hidden_samples():
    volume, table, segments = rng.uniform(size=(5, 4, 6)), rng.uniform(0.2, 0.9, (7, 4)), make_segments()
    shader = volumes.make_shader(jnp.asarray(volume), jnp.asarray(table), 0.1, LOW, HIGH)
    full = jax.jit(lambda: volumes.render_emission(shader, segments, 40, background=0.5))()
    for block in (8, 7, 100):
        render = jax.jit(
            lambda stop, block=block: volumes.render_emission(
                shader, segments, 40, stop=stop, block=block, background=0.5
            )
        )
        same = render(0.0)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-14), same, full)
        near = render(1e-2)
        assert np.abs(near.colour - full.colour).max() <= 1e-2
        assert np.abs(near.opacity - full.opacity).max() <= 1e-2


def test_it_ends_when_all_rays_are_opaque():
    """64 intervals of 2 / 64, in blocks of 8: T = (1 - opacity)^(8 b) < 0.05 after b of them.

    A ray that misses keeps no block going.
    """
    evaluated = []
    segments = RaySegments(
        jnp.array([[0.0, 0, 4], [9, 9, 9]]), jnp.array([[0.0, 0, -1]] * 2), jnp.array([3.0, 0]), jnp.array([5.0, 0])
    )

    @jax.jit
    def render(opacity):
        shader = volumes.make_shader(jnp.zeros((2, 2, 2)), jnp.full((2, 4), opacity), 2 / 64)

        def counted(points):
            jax.debug.callback(lambda: evaluated.append(1))
            return shader(points)

        return volumes.render_emission(counted, segments, 64, stop=0.05, block=8)

    for opacity, blocks in ((0.0, 8), (0.9, 1), (0.1, next(n for n in range(9) if 0.9 ** (8 * n) < 0.05))):
        evaluated.clear()
        rendered = jax.block_until_ready(render(opacity))
        jax.effects_barrier()
        assert len(evaluated) == blocks
        np.testing.assert_allclose(rendered.opacity, [1 - (1 - opacity) ** (8 * blocks), 0], atol=1e-5)


# --- gradients ----------------------------------------------------------------------------------------------------


def summarise(kind, volume, table, segments):
    """A scalar of one kind of picture."""
    if kind == 'emission':
        shader = volumes.make_shader(volume, table, 0.3, LOW, HIGH, light=jnp.array([0.6, 0.0, 0.8]))
        rendered = volumes.render_emission(shader, segments, 24, background=1.0)
        return jnp.sin(rendered.colour).sum() + rendered.distance.sum()
    if kind == 'maximum':
        return jnp.sin(volumes.project_maximum(volume, segments, 24, LOW, HIGH)[0]).sum()
    if kind == 'x-ray':
        integral = volumes.integrate_along_rays(volume, segments, 24, LOW, HIGH)
        return jnp.sin(volumes.transmittance(integral)).sum()
    surface = volumes.intersect_iso_surface(volume, 0.5, segments, 40, LOW, HIGH, secant=14)
    lit = volumes.shade_phong(surface.normals, segments.directions) * surface.hit[:, None]
    return jnp.sin(surface.t).sum() + lit.sum()


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('kind', ['emission', 'maximum', 'x-ray', 'surface'])
def test_gradients_are_finite_differences(kind):
    arrays = rng.uniform(size=(5, 4, 6)), rng.uniform(0.1, 0.9, (7, 4))
    segments = make_segments(8)
    # One compiled function gives the gradients and, at shifted arrays, the differences.
    run = jax.jit(jax.value_and_grad(lambda *arrays: summarise(kind, *arrays, segments), (0, 1)))
    _, gradients = run(*arrays)
    for i, gradient in enumerate(gradients):
        direction = rng.normal(size=gradient.shape)
        above, below = (
            run(*(x + h * direction if i == j else x for j, x in enumerate(arrays)))[0] for h in (1e-7, -1e-7)
        )
        np.testing.assert_allclose((gradient * direction).sum(), (above - below) / 2e-7, rtol=2e-5, atol=1e-7)
    assert np.abs(gradients[0]).max() > 1e-3
    assert (np.abs(gradients[1]).max() > 1e-3) == (kind == 'emission')


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: volumes.sample_volume(jnp.ones((2, 2)), jnp.zeros((1, 3))), r'expected a volume \[X, Y, Z\]'),
        (lambda: volumes.apply_transfer_function(jnp.ones((1, 4)), jnp.zeros(3)), 'with at least two rows'),
        (lambda: volumes.integrate_along_rays(jnp.ones((2, 2, 2)), make_segments(1), 0), 'got count=0'),
        (lambda: volumes.render_emission(lambda x: x, make_segments(1), 4, stop=0.1, block=0), 'block=0'),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
