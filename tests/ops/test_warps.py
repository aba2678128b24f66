"""Warps against the papers' formulas in loops, scipy's thin-plate spline and interpolation, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import interpolate, ndimage

from canon.errors import UsageError
from canon.ops import warps

rng = np.random.default_rng(0)
SOURCES = np.array([[x, y] for y in (0, 32) for x in (0, 33, 67, 100)], float)
TARGETS = SOURCES + rng.uniform(-8, 8, SOURCES.shape)
POINTS = np.concatenate([rng.uniform((-20, -20), (120, 52), (30, 2)), SOURCES])
# Compiled whole, which takes less time than operation by operation.
least_squares = jax.jit(warps.moving_least_squares, static_argnums=(3, 4))
spline = jax.jit(warps.thin_plate_spline)
warp_images = jax.jit(warps.warp_images, static_argnums=(3, 4, 5))
pull_back = jax.jit(warps.pull_back, static_argnums=(0, 3, 4, 5))
sample = jax.jit(warps.sample_bilinear)


def literal(v, p, q, rigid, alpha):
    """Schaefer et al. 2006, eq. 7 (similarity) and 8 (rigid), point by point with the 2x2 matrices A_i."""
    distances = np.square(p - v).sum(1)
    if not distances.all():
        return q[distances.argmin()]
    w = distances**-alpha
    p_mean, q_mean = w @ p / w.sum(), w @ q / w.sum()

    def orthogonal(x):
        return np.array([-x[1], x[0]])

    moved, mu = np.zeros(2), 0.0
    for weight, a, b in zip(w, p - p_mean, q - q_mean, strict=True):
        left = np.stack([a, -orthogonal(a)])
        right = np.stack([v - p_mean, -orthogonal(v - p_mean)]).T
        moved += b @ (weight * left @ right)
        mu += weight * a @ a
    if rigid:
        return np.linalg.norm(v - p_mean) * moved / np.linalg.norm(moved) + q_mean
    return moved / mu + q_mean


@pytest.mark.parametrize(('rigid', 'alpha'), [(False, 1.0), (True, 1.0), (False, 1.7), (True, 2.0)])
def test_moving_least_squares_are_the_formula_of_the_paper(rigid, alpha):
    expected = [literal(v, SOURCES, TARGETS, rigid, alpha) for v in POINTS]
    with jax.enable_x64(True):
        actual = least_squares(POINTS, SOURCES, TARGETS, rigid, alpha)
        np.testing.assert_allclose(actual, expected, atol=1e-9)
    single = least_squares(POINTS.astype(np.float32), SOURCES, TARGETS, rigid, alpha)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, expected, atol=2e-4)
    np.testing.assert_allclose(single[30:], TARGETS, atol=2e-5)  # sources reach their targets


@pytest.mark.parametrize('rigid', [False, True])
def test_similarities_and_rigid_motions_are_reproduced(rigid):
    turn = (1 if rigid else 1.3) * np.exp(0.4j)

    def move(points):
        z = turn * (points[:, 0] + 1j * points[:, 1]) + 3 - 5j
        return np.stack([z.real, z.imag], 1)

    with jax.enable_x64(True):
        np.testing.assert_allclose(least_squares(POINTS, SOURCES, move(SOURCES), rigid), move(POINTS), atol=1e-9)
        np.testing.assert_allclose(least_squares(POINTS, SOURCES, SOURCES, rigid), POINTS, atol=1e-9)
        # A single source, or several in one place, have no direction: they translate.
        for count in (1, 3):
            p, q = np.full((count, 2), 7.0), np.full((count, 2), [9.0, 4.0])
            np.testing.assert_allclose(least_squares(POINTS, p, q, rigid), POINTS + np.array([2, -3]), atol=1e-9)


def test_the_thin_plate_spline_is_scipys():
    expected = interpolate.RBFInterpolator(SOURCES, TARGETS, kernel='thin_plate_spline')(POINTS)
    single = spline(POINTS.astype(np.float32), SOURCES, TARGETS)
    np.testing.assert_allclose(single, expected, atol=2e-4)
    affine = np.array([[1.2, 0.3], [-0.1, 0.8]])
    with jax.enable_x64(True):
        np.testing.assert_allclose(spline(POINTS, SOURCES, TARGETS), expected, atol=1e-9)
        np.testing.assert_allclose(spline(POINTS, SOURCES, SOURCES @ affine + 4), POINTS @ affine + 4, atol=1e-9)


@pytest.mark.parametrize(
    'warp',
    [
        least_squares,
        lambda *a: least_squares(*a, True, 1.5),
        spline,
    ],
)
def test_gradients_are_finite_differences(warp):
    """In points, sources and targets, also at points that are sources."""
    chosen = [0, 3, 5, 6]  # the compiled gradient grows with the sources
    arguments = np.concatenate([POINTS[25:30], SOURCES[chosen]]), SOURCES[chosen], TARGETS[chosen]
    with jax.enable_x64(True):
        value_and_gradients = jax.jit(jax.value_and_grad(lambda *a: jnp.sin(warp(*a) / 9).sum(), (0, 1, 2)))
        for i, gradient in enumerate(value_and_gradients(*arguments)[1]):
            direction = np.random.default_rng(i).normal(size=gradient.shape)
            ahead, back = (
                value_and_gradients(*[a + h * direction if i == j else a for j, a in enumerate(arguments)])[0]
                for h in (1e-5, -1e-5)
            )
            np.testing.assert_allclose((gradient * direction).sum(), (ahead - back) / 2e-5, rtol=2e-6, atol=2e-6)


def test_a_spline_of_fixed_sources_is_solved_for_every_row_of_targets():
    targets = SOURCES + rng.uniform(-5, 5, (3, *SOURCES.shape))
    together = spline(POINTS, SOURCES, targets)
    expected = [interpolate.RBFInterpolator(SOURCES, t, kernel='thin_plate_spline')(POINTS) for t in targets]
    np.testing.assert_allclose(together, expected, atol=2e-4)


@pytest.mark.parametrize('method', warps.METHODS)
def test_an_image_is_interpolated_where_each_pixel_comes_from(method):
    """Against scipy's interpolation at the places of float64 loops (or of scipy's spline)."""
    height, width = 33, 101
    images = rng.integers(0, 256, (2, height, width, 2), np.uint8)
    targets = np.stack([TARGETS, SOURCES])
    warped = np.asarray(warp_images(jnp.asarray(images), SOURCES, targets, method))
    np.testing.assert_array_equal(warped[1], images[1])
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1).reshape(-1, 2)
    if method == 'thin_plate':
        places = interpolate.RBFInterpolator(TARGETS, SOURCES, kernel='thin_plate_spline')(centres)
    else:
        places = np.array([literal(v, TARGETS, SOURCES, method == 'rigid', 1.0) for v in centres])
    for channel in range(2):
        plane = images[0, ..., channel].astype(float)
        expected = ndimage.map_coordinates(plane, (places[:, ::-1] - 0.5).T, order=1, mode='nearest')
        assert abs(warped[0, ..., channel].ravel() - expected).max() < 0.55  # half of it is the rounding to bytes


def test_what_is_at_a_source_is_at_its_target_afterwards():
    image = np.zeros((1, 32, 100, 1), np.float32)
    image[0, 14:18, 48:52] = 1  # centred on (50, 16)
    sources = np.array([[50, 16], [0, 0], [100, 0], [0, 32], [100, 32]], np.float32)
    targets = sources + np.array([[7, -3], [0, 0], [0, 0], [0, 0], [0, 0]], np.float32)
    rows, columns = np.mgrid[:32, :100] + 0.5
    for method in warps.METHODS:
        ink = np.asarray(warp_images(image, sources, targets, method))[0, ..., 0]
        centre = np.array([(ink * columns).sum(), (ink * rows).sum()]) / ink.sum()
        np.testing.assert_allclose(centre, [57, 13], atol=0.3)


def test_a_coarse_grid_is_near_the_exact_warp():
    moves = rng.uniform(-10, 10, (20, *SOURCES.shape))
    exact, coarse = (pull_back((32, 100), SOURCES, SOURCES + moves, 'similarity', 1.0, s) for s in (1, 4))
    assert coarse.shape == exact.shape == (20, 32, 100, 2)
    assert abs(exact - coarse).mean() < 0.04
    assert abs(exact - coarse).max() < 1.2
    for size in ((1, 1), (31, 98), (5, 4)):  # sizes that the spacing does not divide
        places = pull_back(size, SOURCES[:1], SOURCES[:1] + np.array([2.0, -1.0]), 'similarity', 1.0, 4)
        expected = np.stack(np.meshgrid(np.arange(size[1]) - 1.5, np.arange(size[0]) + 1.5), -1)
        np.testing.assert_allclose(places, expected, atol=1e-4)


def test_points_outside_take_the_border_and_their_gradient_is_zero():
    image = jnp.asarray(rng.normal(size=(1, 2, 3, 1)), jnp.float32)
    points = jnp.array([[[-5.0, -5.0], [9.0, 9.0], [1.5, 0.5], [1.0, 1.0]]])
    values = sample(image, points)[0, :, 0]
    expected = [image[0, 0, 0, 0], image[0, 1, 2, 0], image[0, 0, 1, 0], image[0, :, :2, 0].mean()]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda p: sample(image, p).sum()))(points)[0]
    np.testing.assert_array_equal(gradient[:2], 0)
    assert abs(gradient[3]).min() > 0
    one = jnp.full((1, 1, 1, 3), 7, jnp.uint8)  # one pixel: every place is it
    np.testing.assert_array_equal(warp_images(one, SOURCES[:2], TARGETS[:2]), one)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: warps.moving_least_squares(POINTS, SOURCES, TARGETS[1:]), r'sources and targets \[..., N, 2\], not'),
        (lambda: warps.moving_least_squares(POINTS, SOURCES, TARGETS, alpha=0), 'alpha=0 must be positive'),
        (lambda: warps.thin_plate_spline(POINTS, SOURCES[:2], TARGETS[:2]), '2 control points are too few'),
        (lambda: warps.pull_back((4, 4), SOURCES, TARGETS, 'affine'), "method='affine' is unknown"),
        (lambda: warps.pull_back((4, 4), SOURCES, TARGETS, spacing=0), 'spacing=0 must be at least 1'),
        (lambda: warps.sample_bilinear(jnp.ones((2, 3, 3, 1)), jnp.ones((1, 4, 2))), '2 images are sampled'),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
