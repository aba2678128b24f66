"""SRN and DVR as tasks: gradients that move a surface, masks in the losses, and what is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.data.scenes import views as sources
from canon.data.scenes.ray_batches import view_rays
from canon.data.scenes.views import axial_depth
from canon.tasks.surfaces import (
    DVRLoss,
    SRNLoss,
    SurfaceSettings,
    dvr_task,
    normal_change,
    srn_task,
    surface_evaluator,
)
from canon.train import At

RADIUS = 0.48  # of the red ball
CENTRE = np.array([-0.3, -0.18, -0.02])


@pytest.fixture(scope='module')
def ball():
    return sources.load_views('traced', 'train', size=24, views=3, only=(1,))


class Ball:
    """A network: a ball that is red at its top, and bluer below."""

    @staticmethod
    def init(key, points):
        return {'params': {'radius': jnp.float32(RADIUS), 'centre': jnp.asarray(CENTRE, jnp.float32)}}

    @staticmethod
    def apply(variables, points):
        p = variables['params']
        logit = p['radius'] - jnp.linalg.norm(points - p['centre'], axis=-1)
        return logit, jnp.stack((points[..., 2], 0 * points[..., 2], -0.5 * points[..., 2]), -1)


def dvr(ball, **weights):
    settings = SurfaceSettings('dvr', count=40, box=(-1.0, 1.0))
    return dvr_task(Ball, ball, settings, DVRLoss(**{'normal': 0.0, **weights}))


def test_the_true_ball_is_rendered_where_it_is(ball):
    """Depth and mask are the tracer's; the mask's edge is between a pixel's four rays."""
    task = dvr(ball)
    params = Ball.init(None, None)['params']
    batch = view_rays(ball, 1)
    result = jax.jit(task.predict)(params, {}, batch)
    depth = axial_depth(ball.depths[1], ball.camera).ravel()
    met = np.isfinite(depth)
    np.testing.assert_array_equal(np.asarray(result['opacity']) > 0.5, met)
    np.testing.assert_allclose(result['distance'][met], depth[met], rtol=1e-5)
    np.testing.assert_array_equal(result['colour'][~met], 1)  # the white background
    evaluator = surface_evaluator(task, ball, SurfaceSettings('dvr'))
    metrics = evaluator.finish(jax.device_get(jax.jit(evaluator.measure)(params, {}, evaluator.data[1])))
    assert metrics['mask_iou'] > 0.85
    assert metrics['depth_error'] < 1e-4


def test_the_losses_are_those_of_their_pixels(ball):
    """A ball that is too small: cross-entropy with 1 where it is not hit and should be, with 0 where a ray misses."""
    params = Ball.init(None, None)['params'] | {'radius': jnp.float32(0.3)}
    batch = view_rays(ball, 0)
    task = dvr(ball, colour=1.0, free=2.0, occupied=3.0)
    loss, (_, metrics) = jax.jit(task.loss)(params, {}, batch, At(jax.random.key(0), 0))
    inside = batch['colour'][:, 3] > 127
    hit = np.asarray(jax.jit(task.predict)(params, {}, batch)['opacity']) > 0.5
    assert 0 < hit.sum() < inside.sum()
    assert (inside | ~hit).all()
    parts = {name: float(metrics[name].total) for name in ('colour', 'free', 'occupied')}
    np.testing.assert_allclose(loss.total, parts['colour'] + 2 * parts['free'] + 3 * parts['occupied'], rtol=1e-5)
    assert loss.weight == len(hit)
    # log(1 + e^f) for logits f = r - |p - c| of places within 6 of the ball: between the loss at -6 and at 0.3.
    low, high = np.log1p(np.exp(-6)), np.log1p(np.exp(0.3))
    assert low * (~inside).sum() < parts['free'] < high * (~inside).sum()
    low, high = np.log1p(np.exp(-0.3)), np.log1p(np.exp(6))
    assert low * (inside & ~hit).sum() < parts['occupied'] < high * (inside & ~hit).sum()
    np.testing.assert_allclose(metrics['mask'].value, (hit == inside).mean(), rtol=1e-6)


def test_colours_move_the_surface(ball):
    """d loss / d radius through the implicit depth, against differences: the texture is not the radius'."""
    cast = view_rays(ball, 0)
    params = Ball.init(None, None)['params']
    task = dvr(ball, free=0.0, occupied=0.0)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        # Rays well within the ball, so that a small change makes none miss.
        depth = ball.depths[0].ravel()
        keep = depth < np.nanquantile(np.where(np.isfinite(depth), depth, np.nan), 0.6)
        part = {name: np.asarray(x[keep], np.float64 if x.dtype == np.float32 else x.dtype) for name, x in cast.items()}

        @jax.jit
        def value(radius):
            return task.loss(wide | {'radius': radius}, {}, part, At(jax.random.key(0), 0))[0].total

        ahead, back = value(RADIUS + 1e-4), value(RADIUS - 1e-4)
        actual = jax.jit(jax.grad(value))(RADIUS)
    assert abs(actual) > 0.1
    np.testing.assert_allclose(actual, (ahead - back) / 2e-4, rtol=1e-3)


def test_a_sphere_bends_by_its_curvature_and_a_plane_not_at_all():
    """Two places h apart on a sphere of radius r have normals h / r apart; off it, normals are of what is across."""
    points = CENTRE + np.array([[0.0, 0, 0.5], [0.3, 0.4, 0.0]])
    params = {'centre': jnp.asarray(CENTRE)}
    key = jax.random.key(3)
    with jax.enable_x64(True):
        ball = lambda p, x: -jnp.linalg.norm(x - p['centre'], axis=-1)  # noqa: E731
        actual = normal_change(ball, params, jnp.asarray(points), 1e-3, key)
        moved = np.asarray(1e-3 * (jax.random.uniform(key, points.shape) - 0.5))
        outward = (points - CENTRE) / 0.5
        across = moved - (moved * outward).sum(-1, keepdims=True) * outward
        np.testing.assert_allclose(actual, np.linalg.norm(across, axis=-1) / 0.5, rtol=5e-3)
        flat = normal_change(lambda p, x: x @ p, jnp.array([1.0, 2, 3]), jnp.asarray(points), 1e-3, key)
        assert flat.max() < 1e-12


def test_srn_is_scored_in_minus_1_to_1_and_kept_before_the_camera(ball):
    """200 mean (2 d)^2 + 10 min(t, 0)^2, on white."""

    class Fixed:
        @staticmethod
        def apply(variables, origins, directions, key=None):
            return jnp.full((len(directions), 3), 0.25), jnp.where(jnp.arange(len(directions)) == 0, -0.5, 3.0)

    task = srn_task(Fixed, ball, SurfaceSettings('srn'), SRNLoss())
    batch = view_rays(ball, 0)
    loss = task.loss({}, {}, batch, At(jax.random.key(0), 0))[0]
    rgba = batch['colour'] / 255
    truth = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    expected = 200 * ((2 * (0.25 - truth)) ** 2).mean(-1).sum() + 10 * 0.25
    np.testing.assert_allclose(loss.total, expected, rtol=1e-5)
    assert loss.weight == len(truth)
