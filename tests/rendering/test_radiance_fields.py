"""Radiance fields rendered along rays: coarse to fine, in cones, contracted, and in occupied cells alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import models
from canon.data.scenes import views as sources
from canon.data.scenes.ray_batches import sample_rays, view_rays
from canon.data.scenes.traced import Box, scene_objects
from canon.errors import UsageError
from canon.ops import rays as ray_ops
from canon.rendering import Rays, RenderSettings, cast_rays, init_occupancy, render_rays
from canon.tasks.view_synthesis import radiance_field_task


@pytest.fixture(scope='module')
def views():
    return sources.load_views('traced', 'train', size=16, views=4)


def test_rays_hit_the_scene_at_its_depth(views):
    """The traced depths are distances along rays; t is along the camera's axis: points of both must agree."""
    camera = views.camera
    batch = view_rays(views, 1)
    rays = cast_rays(camera, RenderSettings(), views.near, views.far, jax.tree.map(jnp.asarray, batch))
    if views.depths is None:
        pytest.skip('these views come without depths')
    depth = views.depths[1].ravel()
    hit = np.isfinite(depth)
    world = np.asarray(rays.origins + ray_ops.normalise_directions(rays.directions) * np.where(hit, depth, 1)[:, None])[
        hit
    ]
    floor = scene_objects()[0]
    assert isinstance(floor, Box)
    half, top = floor.half[0], floor.centre[2] + floor.half[2]
    below = world[world[:, 2] < top + 1e-3]
    assert len(below) > 20
    on_a_wall = np.abs(np.stack((below[:, 2] - top, np.abs(below[:, 0]) - half, np.abs(below[:, 1]) - half)))
    np.testing.assert_allclose(on_a_wall.min(0), 0, atol=2e-3)


class Ball:
    """A field: a ball of radius 1 about the origin, thick, of one colour."""

    @staticmethod
    def density(raw):
        return raw

    @staticmethod
    def apply(variables, samples):
        inside = jnp.linalg.norm(samples.positions, axis=-1) < 1
        return jnp.where(inside, 200.0, 0.0), jnp.broadcast_to(jnp.array([0.2, 0.5, 0.9]), samples.positions.shape)


@pytest.mark.parametrize('casting', ['points', pytest.param('intervals', marks=pytest.mark.slow), 'cones'])
def test_the_fine_level_resolves_a_surface_near_which_the_coarse_one_sampled(casting):
    """From distance 4 straight at a ball of radius 1: the surface is at 3, the first sample inside is visible."""
    points = casting == 'points'
    directions = jnp.array([[0.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    origins, near, far = jnp.array([[0.0, 0.0, 4.0]] * 2), jnp.full(2, 2.0), jnp.full(2, 6.0)
    rays = Rays(origins, directions, near, far, jnp.full((2, 1), 1e-3))
    settings = RenderSettings(coarse=16, fine=64, casting=casting, shared=True)
    render = jax.jit(lambda key: render_rays(Ball, {'coarse': {}}, rays, settings, key))
    for key in (None, *(jax.random.key(i) for i in range(3))):
        coarse, fine = jax.device_get(render(key))
        np.testing.assert_allclose(fine.colour, [[0.2, 0.5, 0.9], [0, 0, 0]], atol=1e-4)
        gap = 4 / 15 if points else 4 / 16  # between the coarse ones; of neighbouring draws at most twice that
        late = coarse.distance[0] - 3
        assert -1e-3 <= late <= (gap if key is None else 2 * gap)
        # Points: the fine ones are drawn from half-way to the coarse one before, so they begin at most half as late. 64
        # independent draws leave a hole of 0.15 of their range in 3 of 100,000 cases, even ones none above a 64th.
        # Intervals: blurred weights give the bin before a quarter of the draws, which are even: two of its 15 parts.
        if points:
            bound = gap / 64 if key is None else late / 2 + 0.15 * 2 * gap
        else:
            bound = gap / 15 if key is None else 2 * gap * 2 / 15
        depth = 3 / 200  # how deep one sees into the ball
        assert -1e-3 <= fine.distance[0] - 3 <= bound + depth
        assert len(fine.weights[0]) == (80 if points else 64)


def test_in_a_full_grid_packed_samples_are_all_samples(views):
    """With room for all of them and an occupancy grid that leaves nothing out; gradients too."""
    box = dict(casting='intervals', coarse=8, fine=0, shared=True, box=(-1.5, 1.5), jitter=False)
    plain, packed = RenderSettings(**box), RenderSettings(**box, cells=4, budget=8)
    field = models.make_model('nerf.nerf', layers=2, width=16, levels=3)
    batch = jax.tree.map(jnp.asarray, view_rays(views, 0))
    rays = cast_rays(views.camera, plain, views.near, views.far, batch)
    params = jax.jit(radiance_field_task(field, views, plain).init)(jax.random.key(0), batch)['params']

    def colours(params, settings, key, grid):
        level = render_rays(field, params, rays, settings, key, grid)[0]
        return (level.colour * jnp.arange(1, 4)).sum(), level

    value = jax.jit(jax.value_and_grad(colours, has_aux=True), static_argnums=1)
    expected = value(params, plain, jax.random.key(1), None)
    result = value(params, packed, jax.random.key(1), init_occupancy(packed))
    assert result[0][1].complete.all()
    result = (result[0][0], result[0][1]._replace(complete=None)), result[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4), expected, result)
    # For pictures, in rounds: the smallest budget gives the same picture.
    small = RenderSettings(**box, cells=4, budget=1)
    picture = jax.jit(lambda: render_rays(field, params, rays, small, None, init_occupancy(small))[0].colour)()
    np.testing.assert_allclose(picture, expected[0][1].colour, atol=1e-5)


def test_each_ray_has_the_camera_of_its_picture(views):
    """In batches for training and in whole pictures; predictions take the typical camera."""
    cameras = [views.camera._replace(focal=(20.0 + i, 21.0), distortion=(0.01 * i,)) for i in range(4)]
    typical, intrinsics = sources.join_cameras(cameras)
    own = sources.check_views(views._replace(camera=typical, intrinsics=intrinsics), 'these')
    cast = jax.jit(lambda batch: cast_rays(own.camera, RenderSettings(), 2, 6, batch).directions)

    @jax.jit
    def alone(focal, distortion, batch):
        camera = views.camera._replace(focal=focal, distortion=(distortion,))
        return ray_ops.generate_rays(camera, batch['pose'], batch['pixel'])[1]

    for batch, number in ((sample_rays(own, 0, 3, 40), None), (view_rays(own, 2), 2)):
        directions = cast(batch)
        expected = [np.asarray(alone(camera.focal, camera.distortion[0], batch)) for camera in cameras]
        for ray in range(0, 40, 7):
            view = number or next(i for i, pose in enumerate(views.poses) if (pose[:3] == batch['pose'][ray]).all())
            np.testing.assert_allclose(directions[ray], expected[view][ray], rtol=1e-5, atol=1e-6)


def test_a_contracted_scene_is_rendered_to_its_far_end(views):
    """A field with a wall 50 away: packed samples and all samples agree on where it is."""
    box = dict(casting='intervals', coarse=64, fine=0, shared=True, contract=True, jitter=False, background='black')

    class Wall:
        density = staticmethod(lambda raw: raw)

        @staticmethod
        def apply(_, samples):
            beyond = jnp.linalg.norm(samples.positions, axis=-1) > 2 - 1 / 50
            return jnp.where(beyond, 1e5, 0.0), jnp.ones(samples.positions.shape)

    batch = jax.tree.map(jnp.asarray, view_rays(views, 0))
    for settings in (RenderSettings(**box), RenderSettings(**box, box=(-2.0, 2.0), cells=4, budget=64)):
        rays = cast_rays(views.camera, settings, 0.5, 100.0, batch)
        grid = init_occupancy(settings) if settings.cells else None
        level = jax.jit(
            lambda settings=settings, rays=rays, grid=grid: render_rays(
                Wall, {'coarse': {}}, rays, settings, None, grid
            )
        )()
        np.testing.assert_allclose(level[0].opacity, 1, atol=1e-3)
        points_ = rays.origins + level[0].distance[:, None] * rays.directions
        assert (np.linalg.norm(points_, axis=-1) > 45).all()
        assert (np.linalg.norm(points_, axis=-1) < 75).all()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(casting='cones', ndc=True), "render.casting='cones' .* render.ndc"),
        (dict(casting='cones', contract=True), "render.casting='cones' .* render.contract"),
        (dict(ndc=True, contract=True), 'render.ndc and render.contract'),
        (dict(contract=True, box=(-1.3, 1.3)), r'render.contract needs render.box=\(-2, 2\)'),
    ],
)
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(UsageError, match=message):
        RenderSettings(**settings)
