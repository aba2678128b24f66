"""Rays against closed forms and float64 loops; resampling against the distribution that it inverts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.camera import Camera
from canon.errors import UsageError
from canon.ops import rays

LENS = (0.12, -0.03, 0.002, -0.004)
CAMERA = Camera((70.0, 64.0), (30.0, 21.0), (40, 60), LENS)


def pose(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = turn * np.sign(np.linalg.det(turn)), rng.normal(size=3)
    return result


def test_a_pinhole_by_hand():
    """The pixel in the middle looks along -z; the one to the right goes right, the one below goes down."""
    camera = Camera((10.0, 20.0), (1.5, 1.5), (3, 3))
    origins, directions = rays.generate_rays(camera, jnp.eye(4), jnp.asarray(rays.pixel_grid(camera)))
    np.testing.assert_allclose(directions[1, 1], [0, 0, -1], atol=1e-7)
    np.testing.assert_allclose(directions[1, 2], [0.1, 0, -1], atol=1e-7)
    np.testing.assert_allclose(directions[2, 1], [0, -0.05, -1], atol=1e-7)
    np.testing.assert_array_equal(origins, 0)
    # The original NeRF's get_rays: (i - W / 2) / f, through corners.
    np.testing.assert_allclose(
        rays.unproject(camera, jnp.asarray(rays.pixel_grid(camera, 0.0)))[0, 0], [-0.15, 0.075, -1]
    )


def test_points_on_rays_project_to_their_pixels():
    with jax.enable_x64(True):
        pixels = np.float64(rays.pixel_grid(CAMERA))
        origins, directions = jax.jit(rays.generate_rays, static_argnums=0)(CAMERA, jnp.asarray(pose()), pixels)
        t = np.random.default_rng(1).uniform(0.5, 9, pixels.shape[:2])
        project = jax.jit(rays.project, static_argnums=0)
        positions, depth = project(CAMERA, jnp.asarray(pose()), origins + t[..., None] * directions)
        np.testing.assert_allclose(positions, pixels, atol=1e-9)
        np.testing.assert_allclose(depth, t, rtol=1e-12)  # t is the depth along the axis


def test_distortion_is_opencvs_polynomial_and_is_inverted():
    rng = np.random.default_rng(2)
    plane = rng.uniform(-0.6, 0.6, (50, 2))
    k1, k2, p1, p2 = LENS
    expected = []
    for x, y in plane:
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2
        expected.append(
            (
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2),
                y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y,
            )
        )
    with jax.enable_x64(True):
        np.testing.assert_allclose(rays.distort(jnp.asarray(plane), LENS), expected, rtol=1e-12)
        np.testing.assert_allclose(rays.undistort(jnp.asarray(expected), LENS), plane, atol=1e-12)
        np.testing.assert_allclose(
            rays.distort(jnp.asarray(plane), LENS[:1])[0], plane[0] * (1 + k1 * plane[0] @ plane[0])
        )


@jax.jit
def invert_lens(plane, beyond, lens):
    """The points distorted, undistorted again, with the slopes of both at one of them; and points beyond the fold."""
    lens = tuple(lens)
    distorted = rays.distort(plane, lens)
    forward = jax.jacobian(lambda p: rays.distort(p, lens))(plane[30])
    slope = jax.jacobian(lambda p: rays.undistort(p, lens))(distorted[30])
    return rays.undistort(distorted, lens), slope @ forward, rays.undistort(beyond, lens)


@pytest.mark.parametrize('lens', [(0.33, -0.065), (-0.3, 0.1), (-0.2,), (0.0, -0.05), (0.3, 0.2, 0.004, -0.006)])
def test_strong_lenses_are_inverted_up_to_where_they_fold(lens):
    """Newton's method from the distorted point diverges for the first at a radius of 1.4."""
    k1, k2 = (*lens, 0.0)[:2]
    roots = np.roots([5 * k2, 0, 3 * k1, 0, 1])  # where d/dr of r (1 + k1 r^2 + k2 r^4) is 0
    fold = min(roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)], default=np.inf)
    radius, angle = np.linspace(0, min(0.98 * fold, 3), 60), np.linspace(0, 40, 60)
    plane = np.stack((radius * np.cos(angle), radius * np.sin(angle)), -1)
    edge = 1.05 * fold * (1 + k1 * fold**2 + k2 * fold**4) if np.isfinite(fold) else 0
    padded = np.array([*lens, 0, 0, 0][:4])
    inverse, product, beyond = invert_lens(plane, np.array([[edge, 0.0], [0.0, -2 * edge]]), padded)
    np.testing.assert_allclose(inverse, plane, atol=5e-6)
    assert not np.isfinite(fold) or np.isnan(beyond).all()
    # The derivative is that of the inverse, although bisection has none.
    np.testing.assert_allclose(product, np.eye(2), atol=1e-3)


def test_a_camera_for_each_ray():
    cameras = [CAMERA, CAMERA._replace(focal=(50.0, 55.0), centre=(28.0, 22.0), distortion=(0.05, 0, 0, 0.001))]
    pixels = jnp.asarray([[7.0, 9.0], [40.0, 30.0]])
    together = CAMERA.with_intrinsics(np.array([camera.intrinsics for camera in cameras], np.float32))
    for function in map(jax.jit, (rays.unproject, rays.cone_radii)):
        result = function(together, pixels)
        for i, camera in enumerate(cameras):
            np.testing.assert_allclose(result[i], function(camera, pixels[i]), rtol=1e-5, atol=1e-6)
    directions = rays.unproject(together, pixels)
    for i, camera in enumerate(cameras):
        for result, alone in zip(
            rays.to_ndc(together, jnp.zeros((2, 3)), directions),
            rays.to_ndc(camera, jnp.zeros(3), directions[i]),
            strict=True,
        ):
            np.testing.assert_allclose(result[i], alone, rtol=1e-6, atol=1e-6)


def test_a_smaller_picture_sees_the_same():
    half = CAMERA.scale(0.5)
    assert half.size == (20, 30)
    at = jnp.asarray([[7.0, 9.0]])
    np.testing.assert_allclose(rays.unproject(half, at / 2), rays.unproject(CAMERA, at), atol=1e-6)


def test_the_cone_of_a_pixel_has_its_variance():
    """Of the pixel's square in x: w^2 / 12; of a disc of radius r: r^2 / 4. mip-NeRF, section 3.1: r = w 2/sqrt 12."""
    camera = Camera((50.0, 50.0), (8.0, 8.0), (16, 16))
    radius = rays.cone_radii(camera, jnp.asarray([[3.5, 9.5]]))[0, 0]
    np.testing.assert_allclose(radius, 2 / 12**0.5 / 50, rtol=1e-5)
    np.testing.assert_allclose(radius**2 / 4, (1 / 50) ** 2 / 12, rtol=1e-5)


def test_ndc_is_the_perspective_projection_of_the_points():
    """Appendix C: the point at t' = 1 - oz/(oz + t dz) of the new ray is the projection of that at t of the old one."""
    camera = Camera((40.0, 44.0), (30.0, 20.0), (40, 60))
    rng = np.random.default_rng(3)
    origins = rng.normal(size=(20, 3)) * 0.1
    directions = np.stack((*rng.uniform(-0.5, 0.5, (2, 20)), np.full(20, -1.0)), -1)
    with jax.enable_x64(True):
        start, direction = rays.to_ndc(camera, jnp.asarray(origins), jnp.asarray(directions), near=1.0)
        for z in (-1.0, -3.0, -1e9):
            t = (z - origins[:, 2]) / directions[:, 2]
            x, y, _ = (origins + t[:, None] * directions).T
            expected = np.stack((-40 / 30 * x / z, -44 / 20 * y / z, np.full(20, 1 + 2 / z)), -1)
            np.testing.assert_allclose(start + (1 + 1 / z) * direction, expected, atol=1e-9)


def test_intervals_in_a_box():
    origins = np.array([[0, 0, 3.0], [0, 0, 0], [0, 2, 3], [1.5, 0, 3], [0, 0, -3], [3, 3, 3]])
    directions = np.array([[0, 0, -1.0], [0, 0, -2], [0, 0, -1], [-0.25, 0, -1], [0, 0, -1], [-1, -1, -1]])
    origins, directions = jnp.asarray(origins), jnp.asarray(directions)
    near, far = rays.intersect_box(origins, directions, -1.0, 1.0)
    np.testing.assert_allclose(near, [2, 0, 0, 2, 0, 2], atol=1e-6)
    np.testing.assert_allclose(far, [4, 0.5, 0, 4, 0, 4], atol=1e-6)
    for grad in jax.grad(lambda o, w: sum(x.sum() for x in rays.intersect_box(o, w, -1.0, 1.0)), (0, 1))(
        origins, directions
    ):
        assert np.isfinite(grad).all()


def test_intervals_in_a_sphere():
    origins = np.array([[0, 0, 3.0], [0, 0, 0], [0, 1.5, 3], [0, 0.6, 3], [0, 0, -3]])
    directions = np.array([[0, 0, -1.0], [0, 0, -2], [0, 0, -1], [0, 0, -2], [0, 0, -1]])
    origins, directions = jnp.asarray(origins), jnp.asarray(directions)
    near, far = rays.intersect_sphere(origins, directions)
    np.testing.assert_allclose(near, [2, 0, near[2], 1.1, 0], atol=1e-6)
    np.testing.assert_allclose(far, [4, 0.5, near[2], 1.9, 0], atol=1e-6)
    for grad in jax.grad(lambda o: sum(x.sum() for x in rays.intersect_sphere(o, directions)))(origins):
        assert np.isfinite(grad).all()


def test_stratified_samples_are_uniform_in_bins_between_middles():
    near, far = np.array([2.0, 1.0]), np.array([6.0, 5.0])
    regular = np.asarray(rays.sample_stratified(None, near, far, 5))
    np.testing.assert_allclose(regular, [[2, 3, 4, 5, 6], [1, 2, 3, 4, 5]])
    samples = np.stack([rays.sample_stratified(jax.random.key(i), near, far, 5) for i in range(400)])
    low, high = [2, 2.5, 3.5, 4.5, 5.5], [2.5, 3.5, 4.5, 5.5, 6]
    assert (samples[:, 0] >= low).all()
    assert (samples[:, 0] <= high).all()
    np.testing.assert_allclose(samples[:, 0].mean(0), np.add(low, high) / 2, atol=0.06)
    np.testing.assert_allclose(
        1 / rays.sample_stratified(None, 1.0, 4.0, 4, inverse=True), [1, 0.75, 0.5, 0.25], rtol=1e-6
    )


def test_contraction_is_that_of_mip_nerf_360():
    points = np.random.default_rng(5).normal(size=(50, 3)) * np.geomspace(0.1, 1000, 50)[:, None]
    length = np.linalg.norm(points, axis=-1, keepdims=True)
    expected = np.where(length <= 1, points, (2 - 1 / length) * points / length)
    np.testing.assert_allclose(rays.contract(jnp.asarray(points, jnp.float32)), expected, rtol=1e-5, atol=1e-6)
    slope = jax.jacobian(rays.contract)
    np.testing.assert_allclose(slope(jnp.zeros(3)), np.eye(3))
    # At distance r it shrinks by 1 / r^2 along the ray, and by (2 - 1/r) / r across.
    np.testing.assert_allclose(slope(jnp.array([4.0, 0, 0])), np.diag([1 / 16, 1.75 / 4, 1.75 / 4]), rtol=1e-5)


def test_distances_are_even_up_to_the_knee_and_in_disparity_from_there_on():
    near, far, knee = np.array([0.5, 1.0]), np.array([100.0, 2.0]), np.array([2.0, 3.0])
    t = np.asarray(rays.sample_stratified(None, near, far, 101, knee=knee))
    np.testing.assert_allclose(t[:, 0], near, rtol=1e-6)
    np.testing.assert_allclose(t[:, -1], far, rtol=1e-4)
    np.testing.assert_allclose(t[1], np.linspace(1, 2, 101), rtol=1e-6)  # wholly before the knee
    low, high = t[0][t[0] < 2], t[0][t[0] > 2]
    np.testing.assert_allclose(np.diff(low), low[1] - low[0], rtol=1e-4)
    np.testing.assert_allclose(np.diff(1 / high), 1 / high[1] - 1 / high[0], rtol=1e-3)
    assert 0.9 < (low[-1] - low[-2]) / (high[1] - high[0]) < 1  # without a break


def inverse(edges, weights, positions):
    """Place by place in float64."""
    share = np.concatenate(([0], np.cumsum(weights / weights.sum())))
    result = []
    for u in positions:
        i = next(i for i in range(len(weights)) if u <= share[i + 1] + 1e-15)
        result.append(edges[i] + (u - share[i]) / (share[i + 1] - share[i]) * (edges[i + 1] - edges[i]))
    return result


def test_resampling_inverts_the_distribution():
    rng = np.random.default_rng(4)
    edges, weights = np.sort(rng.uniform(2, 6, (3, 9))), rng.uniform(0, 1, (3, 8)) ** 4
    with jax.enable_x64(True):
        actual = rays.sample_pdf(None, jnp.asarray(edges), jnp.asarray(weights), 33)
        for row, e, w in zip(actual, edges, weights, strict=True):
            np.testing.assert_allclose(row, inverse(e, w + 1e-5, np.linspace(0, 1, 33)), atol=1e-12)


@pytest.mark.parametrize('even', [False, True])
def test_random_resampling_has_the_histograms_shares(even):
    edges, weights = jnp.linspace(0.0, 4.0, 5), jnp.array([0.1, 0.0, 0.6, 0.3])
    samples = rays.sample_pdf(jax.random.key(0), edges, weights, 40000, stratify=even)
    assert (np.diff(samples) >= 0).all()
    share = np.histogram(samples, edges)[0] / 40000
    np.testing.assert_allclose(share, weights, atol=1e-3 if even else 1e-2)
    inside = np.asarray(samples)[(samples > 2) & (samples < 3)]
    np.testing.assert_allclose(np.histogram(inside, 4, (2, 3))[0] / len(inside), 0.25, atol=0.01)


def test_resampling_of_nothing_is_uniform_and_carries_no_gradient():
    edges = jnp.linspace(1.0, 5.0, 5)
    np.testing.assert_allclose(rays.sample_pdf(None, edges, jnp.zeros(4), 5), edges, atol=1e-6)
    grads = jax.grad(lambda e, w: rays.sample_pdf(jax.random.key(0), e, w, 7).sum(), (0, 1))(edges, jnp.ones(4))
    for grad in grads:
        np.testing.assert_array_equal(grad, 0)


def test_one_bin_with_all_of_the_weight_gets_all_samples():
    weights = np.zeros(64, np.float32)
    weights[40] = 1e6
    drawn = rays.sample_pdf(jax.random.key(1), jnp.linspace(0.0, 64.0, 65), jnp.asarray(weights), 128)
    assert ((drawn >= 40) & (drawn <= 41)).all()


def test_blurred_weights_are_the_means_of_the_maxima():
    np.testing.assert_allclose(rays.blur_weights(jnp.array([0.0, 0, 1, 0, 0, 0.5]), 0.0), [0, 0.5, 1, 0.5, 0.25, 0.5])


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: rays.pixel_grid(CAMERA, 2.0), r'pixel_center=2.0 is not in \[0, 1\]'),
        (lambda: rays.generate_rays(CAMERA, jnp.eye(3), jnp.ones(2)), r'a pose is .* got \(3, 3\)'),
        (lambda: rays.sample_stratified(None, 0.0, 1.0, 1), 'at least 2 samples, got 1'),
        (lambda: rays.sample_pdf(None, jnp.ones(4), jnp.ones(4), 3), '4 bins need 5 edges, got 4'),
        (lambda: rays.distort(jnp.ones(2), (0.1,) * 6), 'at most the coefficients k1, k2, p1, p2; got 6'),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
