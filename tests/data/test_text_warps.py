"""Deformations of text on the host: against the device's warp, their own inverse, and the ranges of the draws."""

import jax
import numpy as np
import pytest

from canon.data import Key, transforms
from canon.data.images import deformation
from canon.data.transforms import text_warps
from canon.errors import UsageError
from canon.ops import warps

rng = np.random.default_rng(0)
SOURCES = np.array([[x, y] for y in (0, 32) for x in (0, 25, 50, 75, 100)], float)
TARGETS = SOURCES + rng.uniform(-6, 6, SOURCES.shape)


def test_the_host_warps_as_the_device():
    points = np.concatenate([rng.uniform((-9, -9), (109, 41), (50, 2)), SOURCES])
    expected = jax.jit(warps.moving_least_squares)(points, SOURCES, TARGETS)
    np.testing.assert_allclose(deformation.deform_points(points, SOURCES, TARGETS), expected, atol=2e-4)
    image = rng.integers(0, 256, (32, 100, 5), np.uint8)  # OpenCV takes four channels at once
    warped = deformation.Deformation.between(SOURCES, TARGETS, (32, 100)).warp(image)
    expected = jax.jit(warps.warp_images, static_argnames='spacing')(image[None], SOURCES, TARGETS, spacing=2)[0]
    assert warped.dtype == np.uint8
    # OpenCV interpolates between 32 places per pixel.
    assert abs(warped.astype(int) - expected).max() <= 5


def test_points_go_where_their_pixels_go():
    """`move_points` inverts the map that says where pixels come from, also outside the image."""
    for _ in range(20):
        moved = SOURCES + rng.uniform(-8, 8, SOURCES.shape)
        warp = deformation.Deformation.between(SOURCES, moved, (32, 100))
        points = rng.uniform((-5, -5), (105, 37), (40, 2))
        there = warp.move_points(points)
        np.testing.assert_allclose(deformation.deform_points(there, moved, SOURCES), points, atol=2e-3)
        np.testing.assert_allclose(warp.move_points(SOURCES), moved, atol=2e-3)
    still = deformation.Deformation.between(SOURCES, SOURCES, (32, 100))
    np.testing.assert_allclose(still.move_boxes([[3, 4, 20, 30]]), [[3, 4, 20, 30]], atol=1e-6)
    assert still.move_boxes(np.zeros((0, 4))).shape == (0, 4)


def draw_moves(make, monkeypatch, **arguments):
    """The moves of the control points in 300 visits of an image of 40x120, [300, N, 2]."""
    moves = []

    def between(sources, targets, size):
        moves.append(targets - sources)
        return deformation.Deformation(sources, targets, np.zeros((*size, 2)))

    monkeypatch.setattr(text_warps.Deformation, 'between', between)
    transform = make(**arguments)
    for visit in range(300):
        transform.apply({'image': np.zeros((40, 120, 1), np.uint8)}, Key(0, visit, 1))
    return np.array(moves)


def test_moves_are_within_the_ranges_of_the_authors_tool(monkeypatch):
    distorted = draw_moves(transforms.text_distort, monkeypatch)  # segments of 30: moves of 10, or 5 either way
    assert distorted.shape == (300, 10, 2)
    inwards = distorted[:, [0, 4, 5, 9]] * [[1, 1], [-1, 1], [1, -1], [-1, -1]]
    inner = distorted[:, [1, 2, 3, 6, 7, 8]]
    assert 0 <= inwards.min() < 0.1
    assert 9.9 < inwards.max() < 10
    assert -5 <= inner.min() < -4.9
    assert 4.9 < inner.max() < 5
    stretched = draw_moves(transforms.text_stretch, monkeypatch)  # 24: 12 either way
    assert not stretched[..., 1].any()
    assert not stretched[:, [0, 4, 5, 9]].any()
    np.testing.assert_array_equal(stretched[:, 1:4], stretched[:, 6:9])
    assert 11.8 < abs(stretched).max() <= 12
    tilted = draw_moves(transforms.text_perspective, monkeypatch)  # 20
    assert not tilted[..., 0].any()
    assert (tilted[..., 1] * [1, 1, -1, -1] >= 0).all()
    assert 19.8 < abs(tilted).max() < 20


def test_an_image_is_a_function_of_its_key_and_p_is_the_share_that_is_warped():
    image = rng.integers(0, 256, (32, 100, 1), np.uint8)
    for make in (transforms.text_distort, transforms.text_stretch, transforms.text_perspective):
        always, sometimes = make(), make(p=0.3)
        changed = 0
        for visit in range(60):
            out = sometimes.apply({'image': image}, Key(0, visit, 1))['image']
            if out is not image:
                changed += 1
                # The draws are those of the transform that always warps.
                np.testing.assert_array_equal(out, always.apply({'image': image}, Key(0, visit, 1))['image'])
        assert 8 < changed < 30
    tiny = np.full((1, 1, 3), 7, np.uint8)
    np.testing.assert_array_equal(transforms.text_distort().apply({'image': tiny}, Key(0, 0, 0))['image'], tiny)
    with pytest.raises(UsageError, match=r'text_distort.along'):
        transforms.text_distort(along=dict(boxs='b'))
