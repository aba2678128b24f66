"""Scenes that are looked at from any side: their frames against other renderers, and the order in which they come."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from canon.camera import Camera
from canon.data.scenes import traced
from canon.data.scenes.framing import look_at
from canon.data.scenes.ray_batches import pose_rays
from canon.data.scenes.views import Views
from canon.rendering import RenderSettings
from canon.rendering.interactive import (
    CHUNK,
    FrameLoop,
    Look,
    Scene,
    interpolate_looks,
    radiance_scene,
    render_frame,
    task_scene,
    volume_scene,
)
from canon.rendering.volumes import GENERIC, make_transfer_table, render_picture, table_to_points
from canon.tasks.view_synthesis import radiance_field_task

SETTINGS = RenderSettings(coarse=16, fine=0, casting='intervals')


class Ball:
    """A dense ball of radius 1/2 at the origin, red on the side of +x and blue on the other."""

    def apply(self, variables, samples):
        inside = jnp.linalg.norm(samples.positions, axis=-1) < variables['params']['radius']
        red = samples.positions[..., :1] > 0
        return 50.0 * inside, jnp.where(red, jnp.array([1.0, 0, 0]), jnp.array([0, 0, 1.0]))

    def density(self, raw):
        return raw


@pytest.fixture(scope='module')
def views():
    poses = np.stack([look_at(3 * np.array([np.cos(a), np.sin(a), 0.2])) for a in (0.0, 1.0, 2.0, 4.0)])
    camera = Camera((30.0, 30.0), (12.0, 10.0), (20, 24))
    return Views(np.zeros((4, 20, 24, 4), np.uint8), np.float32(poses), camera, 2.0, 4.5)


@pytest.fixture(scope='module')
def ball(views):
    return radiance_scene(Ball(), {'coarse': {'radius': 0.5}}, SETTINGS, views)


def look_at_views(views, scene, view=0, **settings):
    return render_frame(scene, Look(views.poses[view], scene.field_of_view, **settings), views.camera.size)


def test_a_frame_of_a_field_is_what_its_task_predicts(views, ball):
    params = {'coarse': {'radius': 0.5}}
    outputs = radiance_field_task(Ball(), views, SETTINGS).predict(params, {}, pose_rays(views.camera, views.poses[1]))
    expected = np.clip(np.asarray(outputs['colour']), 0, 1).reshape(20, 24, 3) * 255
    assert len(np.unique(expected.round().reshape(-1, 3), axis=0)) == 3  # red, blue and the background
    np.testing.assert_allclose(look_at_views(views, ball, 1), expected, atol=0.51)


def test_depth_is_that_of_the_ball_between_the_limits(views, ball):
    frame = look_at_views(views, ball, mode='depth', near=2.0, far=4.0)
    middle = frame[10, 12] / 255
    distance = 3 * math.sqrt(1.04) - 0.5
    np.testing.assert_allclose(middle, 1 - (distance - 2) / 2, atol=0.08)  # one of 16 intervals is 0.08 of the range
    assert frame[0, 0].tolist() == [0, 0, 0]


def test_a_crop_box_leaves_the_other_half(views, ball):
    """From +x the nearer half is red; without it, the blue half is seen."""
    assert look_at_views(views, ball)[10, 12].tolist() == [255, 0, 0]
    assert look_at_views(views, ball, crop=((-1, -1, -1), (-0.1, 1, 1)))[10, 12].tolist() == [0, 0, 255]
    assert look_at_views(views, ball, far=2.1)[10, 12].tolist() == [255, 255, 255]  # the background


def test_exposure_is_in_stops(views):
    def predict(params, mutable, batch):
        one = jnp.ones(len(batch['pixel']))
        return {'colour': one[:, None] * jnp.array([0.1, 0.2, 0.4]), 'distance': one, 'opacity': one}

    scene = task_scene(predict, {}, {}, views)
    frame = look_at_views(views, scene, exposure=1.0)
    np.testing.assert_allclose(frame[3, 3] / 255, [0.2, 0.4, 0.8], atol=0.003)
    assert (look_at_views(views, scene, mode='opacity') == 255).all()


@pytest.fixture(scope='module')
def blob():
    x = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 10, 8)), indexing='ij'))
    return np.float32(np.exp(-3 * (x**2).sum(0))), np.array([1.0, 0.9, 0.7])


@pytest.fixture(scope='module')
def volume(blob):
    return volume_scene(*blob, GENERIC, samples=3)


@pytest.mark.parametrize('mode', ['emission', pytest.param('surface', marks=pytest.mark.slow)])
def test_a_frame_of_a_volume_is_its_picture(blob, volume, mode):
    values, half = blob
    angle, size = 0.7, 24
    expected = render_picture(values, make_transfer_table(GENERIC), half, mode, size, angle, 0.5)
    eye = traced.RADIUS * np.array([np.cos(angle) * np.cos(0.35), np.sin(angle) * np.cos(0.35), np.sin(0.35)])
    fov = 2 * math.atan(size / 2 / traced.pinhole_camera(size).focal[0])
    frame = render_frame(volume, Look(look_at(eye), fov, mode), (size, size))
    np.testing.assert_allclose(frame, 255 * np.clip(expected, 0, 1), atol=0.6)


def test_a_transfer_function_and_a_crop_change_a_volume(volume):
    look = Look(volume.pose)
    plain = render_frame(volume, look, (16, 16))
    clear = np.tile(np.float32([1, 0, 0, 0]), (256, 1))  # opacity 0 everywhere: the white background
    assert plain[8, 8].min() < 250
    assert (render_frame(volume, look._replace(table=clear), (16, 16)) == 255).all()
    assert (render_frame(volume, look._replace(crop=((0.9, 0.8, 0.6), (1, 0.9, 0.7))), (16, 16))[8, 8] == 255).all()


def test_control_points_of_a_table_draw_it_again():
    table = make_transfer_table(table_to_points(make_transfer_table(GENERIC), most=256))
    np.testing.assert_allclose(table, make_transfer_table(GENERIC), atol=1e-6)


def flat_scene(trace=lambda rays, shown, mode: np.full((CHUNK, 3), 0.5)):
    return Scene(trace, ('colour',), look_at(np.array([3.0, 0, 0])), np.zeros(3), np.array([0, 0, 1.0]), (1.0, 5.0))


def make_loop(scene, **options):
    shown = []
    loop = FrameLoop(scene, lambda: (Look(scene.pose), 2.0), lambda frame: shown.append(frame.shape[:2]), **options)
    return loop, shown


def test_frames_become_finer_until_the_last():
    loop, shown = make_loop(flat_scene(), finest=200)
    sizes = loop.render_once()
    assert sizes == shown
    assert sizes[-1] == (100, 200)
    assert [w for _, w in sizes] == sorted({w for _, w in sizes})
    assert sizes[0][1] < 100


def test_a_slow_model_begins_with_coarser_frames():
    loop, _ = make_loop(flat_scene(), finest=400)
    coarsest = []
    for rate in (1e3, 1e5, 1e9):
        loop._rate = rate
        coarsest.append(loop._choose_sizes(1.0)[0][1])
    assert coarsest == [32, 100, 400]


def test_a_moving_camera_gives_up_fine_frames_but_never_the_coarse_one():
    calls = []

    def trace(rays, shown, mode):
        calls.append(1)
        loop.change()  # the camera moves all the time
        return np.zeros((CHUNK, 3))

    loop, shown = make_loop(flat_scene(trace), finest=512)
    assert len(loop.render_once()) == 1
    assert len(shown) == 1
    assert len(calls) == math.ceil(shown[0][0] * shown[0][1] / CHUNK)


def test_a_path_passes_its_keys_smoothly():
    eyes = np.array([[3.0, 0, 0], [0, 3, 0], [-3, 0, 1]])
    keys = [Look(look_at(eye), fov, exposure=e) for eye, fov, e in zip(eyes, (0.5, 0.7, 0.9), (0, 1, 0), strict=True)]
    path = interpolate_looks(keys, 21)
    for at, key in zip((0, 10, 20), keys, strict=True):
        np.testing.assert_allclose(path[at].pose, key.pose, atol=1e-9)
        assert (path[at].field_of_view, path[at].exposure) == pytest.approx((key.field_of_view, key.exposure))
    turns = np.stack([look.pose[:3, :3] for look in path])
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.broadcast_to(np.eye(3), turns.shape), atol=1e-9)
    steps = np.diff([look.pose[:3, 3] for look in path], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert lengths.max() < 2 * lengths.min()  # no jump and no stop at the middle key
    assert path[5].exposure == pytest.approx(0.5)
