"""Orbits: around what the cameras look at, upright, and where pictures were taken."""

import numpy as np
import pytest

from canon.data.scenes import framing
from canon.data.scenes import views as sources


def level_cameras(angles, target, radius, height, up=(0, 0, 1)):
    """Cameras on an arc about `target` that look at it."""
    turn = np.linalg.svd(np.asarray([up], float))[2][::-1]  # its last row is up, or down
    turn[2] = up
    turn[1] = np.cross(turn[2], turn[0])
    arms = np.stack((radius * np.cos(angles), radius * np.sin(angles), np.full(len(angles), height)), -1) @ turn
    return np.stack([framing.look_at(target + arm, target, up) for arm in arms]).astype(np.float32)


@pytest.mark.parametrize('up', [(0, 0, 1), (0, 1, 0), (0.6, 0, -0.8)])
@pytest.mark.parametrize('arc', [0.9, 4.0, 2 * np.pi])
def test_orbits_look_at_the_scene_upright(up, arc):
    """From cameras' own distance and height; all around, or to and fro where pictures were taken from one side."""
    target, angles = np.array([1.0, 2, 0]), np.linspace(0, arc, 12, endpoint=False)
    result = framing.orbit_poses(level_cameras(angles, target, 3, 1.5, up), 16)
    arms = result[:, :3, 3] - target
    heights = arms @ up
    np.testing.assert_allclose(heights, 1.5, rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(arms - heights[:, None] * up, axis=-1), 3, rtol=1e-4)
    np.testing.assert_allclose(result[:, :3, 2], arms / np.linalg.norm(arms, axis=-1, keepdims=True), atol=1e-4)
    np.testing.assert_allclose(np.linalg.det(result[:, :3, :3]), 1, rtol=1e-5)
    assert (result[:, :3, 1] @ up > 0.5).all()
    assert np.abs(result[:, :3, 0] @ up).max() < 1e-4
    directions = arms - heights[:, None] * up
    widest = np.degrees(np.arccos(np.clip((directions @ directions.T) / 9, -1, 1)).max())
    covered = np.degrees(angles[-1])
    assert widest == pytest.approx(covered if arc < 2 else 180, abs=2)


def test_an_orbit_of_a_forward_facing_capture_stays_before_it():
    scene = sources.load_views('traced', size=8, views=12, facing=True)
    result = framing.orbit_poses(scene.poses, 20)
    up, axis = scene.poses[:, :3, 1].mean(0), -scene.poses[:, :3, 2].mean(0)
    assert (result[:, :3, 1] @ up > 0.9).all()
    assert (-result[:, :3, 2] @ axis > 0.8).all()
    low, high = scene.poses[:, :3, 3].min(0), scene.poses[:, :3, 3].max(0)
    assert (result[:, :3, 3] > low - 0.2 * (high - low)).all()
    assert (result[:, :3, 3] < high + 0.2 * (high - low)).all()
