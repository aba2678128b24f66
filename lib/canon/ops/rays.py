"""Generates camera rays and samples distances along them.

Conventions:
- A pose is the camera-to-world transform, [..., 4, 4] or [..., 3, 4], in OpenGL axes: x right, y up, and the camera
  looks along -z.
- Pixel coordinates are (x, y) with x right and y down; pixel (column i, row j) covers [i, i + 1) x [j, j + 1).
- A ray is the set of points origin + t direction. Directions are *not* normalised: their component along the camera's
  axis is 1, so t is the depth along that axis.
- Sampled distances t are [..., N] in ascending order.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.camera import Camera
from canon.errors import UsageError

_BISECTIONS = 32  # iterations that invert the radial distortion: float32 has 24 bits, the bracket may be 100 wide
_NEWTON = 6  # iterations after that, which add the tangential distortion


# --- cameras ------------------------------------------------------------------------------------------------------


def pixel_grid(camera: Camera, pixel_center: float = 0.5) -> np.ndarray:
    """Returns the coordinates (x, y) of every pixel, float32 [H, W, 2].

    pixel_center: the offset of the ray within its pixel. 0.5 is the centre; 0.0 is the corner, through which the code
    of the original NeRF casts its rays.
    """
    if not 0 <= pixel_center <= 1:
        raise UsageError(f'pixel_center={pixel_center} is not in [0, 1]; use 0.5 for the centre, 0.0 for the corner')
    height, width = camera.size
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32) + np.float32(pixel_center)


def unproject(camera: Camera, pixels: jax.Array | np.ndarray) -> jax.Array:
    """Returns the directions [..., 3] in camera axes, with z = -1, of the rays through `pixels` [..., 2].

    A camera whose intrinsics are arrays describes one camera per ray. Directions are NaN where the lens distortion has
    no inverse.
    """
    pixels = jnp.asarray(pixels)
    plane = (pixels - jnp.asarray(camera.centre, pixels.dtype)) / jnp.asarray(camera.focal, pixels.dtype)
    plane = undistort(plane, camera.distortion)
    return jnp.stack((plane[..., 0], -plane[..., 1], -jnp.ones_like(plane[..., 0])), -1)


def generate_rays(camera: Camera, pose: jax.Array, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (origins, directions), each [..., 3] in world axes, of the rays through `pixels` [..., 2].

    Leading axes of `pose` [..., 3 or 4, 4] broadcast: one pose per image, or one per ray.

    Raises:
      UsageError: `pose` has another shape.
    """
    if pose.ndim < 2 or pose.shape[-1] != 4 or pose.shape[-2] not in (3, 4):
        raise UsageError(f'a pose is camera to world, [..., 3, 4] or [..., 4, 4]; got {tuple(pose.shape)}')
    # A sum of products instead of a matrix product, which TPUs compute in bfloat16 by default.
    directions = (pose[..., :3, :3] * unproject(camera, pixels)[..., None, :]).sum(-1)
    return jnp.broadcast_to(pose[..., :3, 3], directions.shape), directions


def project(camera: Camera, pose: jax.Array, world: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Projects world points [..., 3] to (pixels [..., 2], depth along the camera's axis [...]).

    The inverse of `generate_rays`. Points behind the camera have a negative depth and meaningless pixels.
    """
    local = ((world - pose[..., :3, 3])[..., :, None] * pose[..., :3, :3]).sum(-2)
    depth = -local[..., 2]
    plane = jnp.stack((local[..., 0], -local[..., 1]), -1) / depth[..., None]
    return distort(plane, camera.distortion) * jnp.asarray(camera.focal) + jnp.asarray(camera.centre), depth


def normalise_directions(directions: jax.Array) -> jax.Array:
    """Scales directions [..., 3] to unit length; a direction of length 0 gives NaN."""
    return directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)


def cone_radii(camera: Camera, pixels: jax.Array) -> jax.Array:
    """Returns the radius [..., 1] at t = 1 of the cone through each pixel: Barron et al. 2021 (mip-NeRF), section 3.1.

    It is 2 / sqrt(12) of the distance between neighbouring rays, so that the disc has the pixel's variance in x and y.
    """
    step = unproject(camera, pixels + jnp.asarray([1.0, 0.0], pixels.dtype)) - unproject(camera, pixels)
    return jnp.linalg.norm(step, axis=-1, keepdims=True) * (2 / 12**0.5)


def distort(plane: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    """Applies OpenCV's lens distortion k1, k2, p1, p2 to points [..., 2] of the image plane at depth 1, y down."""
    if not coefficients:
        return plane
    k1, k2, p1, p2 = _pad_coefficients(coefficients)
    x, y = plane[..., 0], plane[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + k2 * r2)
    return jnp.stack(
        (
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
        ),
        -1,
    )


def undistort(plane: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    """Inverts `distort`; NaN where no inverse exists, such as beyond the radius at which a lens folds the image over.

    The radial polynomial r (1 + k1 r^2 + k2 r^4) increases up to that radius, so bisection inverts it for lenses of
    any strength, where Newton's method started at the distorted point may diverge. A few Newton steps from there
    account for the tangential terms p1 and p2.
    """
    if not coefficients:
        return plane
    k1, k2, p1, p2 = _pad_coefficients(coefficients)
    distance = jnp.linalg.norm(plane, axis=-1)
    fold = _fold_radius(jnp.asarray(k1, plane.dtype), jnp.asarray(k2, plane.dtype))

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        square = middle * middle
        below = middle * (1 + square * (k1 + k2 * square)) < distance
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    def step(_, guess):
        x, y = guess[..., 0], guess[..., 1]
        error = distort(guess, coefficients) - plane
        xx, xy, yy, det = _distortion_jacobian(x, y, k1, k2, p1, p2)
        solved = jnp.stack((yy * error[..., 0] - xy * error[..., 1], xx * error[..., 1] - xy * error[..., 0]), -1)
        return guess - solved / jnp.where(jnp.abs(det) < 1e-6, 1e-6, det)[..., None]

    # A lens that never folds the image has an infinite fold radius; no sensible lens maps a hundred times that far.
    high = jnp.minimum(jnp.broadcast_to(fold, distance.shape), 100 * (1 + distance))
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(distance), high))
    scale = jnp.where(distance > 0, (low + high) / 2 / jnp.where(distance > 0, distance, 1), 1)
    solved = jax.lax.fori_loop(0, _NEWTON, step, plane * scale[..., None])
    error = jnp.linalg.norm(distort(solved, coefficients) - plane, axis=-1)
    det = _distortion_jacobian(solved[..., 0], solved[..., 1], k1, k2, p1, p2)[-1]
    # Tangential distortion moves the fold a little, so its exact place is where the determinant is 0.
    valid = (error < jnp.finfo(plane.dtype).eps ** 0.5 * (1 + distance)) & (det > 0)
    valid = valid & (jnp.linalg.norm(solved, axis=-1) < 1.1 * fold)
    return jnp.where(valid[..., None], solved, jnp.nan)


def _distortion_jacobian(x, y, k1, k2, p1, p2) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns the entries (xx, xy, yy) and the determinant of d distort / d (x, y), which is symmetric."""
    r2 = x * x + y * y
    radial, slope = 1 + r2 * (k1 + k2 * r2), 2 * k1 + 4 * k2 * r2  # d radial / d x = x slope
    xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
    xy = x * y * slope + 2 * p1 * x + 2 * p2 * y
    yy = radial + y * y * slope + 2 * p2 * x + 6 * p1 * y
    return xx, xy, yy, xx * yy - xy * xy


def _fold_radius(k1: jax.Array, k2: jax.Array) -> jax.Array:
    """Returns the radius up to which r (1 + k1 r^2 + k2 r^4) grows: its derivative's smallest root, s = r^2, of
    1 + 3 k1 s + 5 k2 s^2."""
    square = 9 * k1 * k1 - 20 * k2
    # 2 / (-b + sqrt(b^2 - 4 a)) is the smallest positive root of 1 + b s + a s^2 for either sign of a, and for a = 0.
    below = -3 * k1 + jnp.sqrt(jnp.maximum(square, 0))
    folds = (square >= 0) & (below > 0)
    return jnp.where(folds, jnp.sqrt(2 / jnp.where(folds, below, 1)), jnp.inf)


def _pad_coefficients(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    if len(coefficients) > 4:
        raise UsageError(f'distortion has at most the coefficients k1, k2, p1, p2; got {len(coefficients)}')
    return (*coefficients, *(0.0,) * (4 - len(coefficients)))


# --- where a ray begins and ends ----------------------------------------------------------------------------------


def to_ndc(camera: Camera, origins: jax.Array, directions: jax.Array, near: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Maps rays to normalised device coordinates: Mildenhall et al. 2020 (NeRF), appendix C, eq. 25 and 26.

    Origins move to the plane z = -near first, so t runs over [0, 1] and t = 1 is infinity. Applies to forward-facing
    captures: cameras that look along -z of the world (recentred). Assumes a centred principal point, as the paper does.
    """
    origins = origins + (-(near + origins[..., 2]) / directions[..., 2])[..., None] * directions
    (ox, oy, oz), (dx, dy, dz) = jnp.moveaxis(origins, -1, 0), jnp.moveaxis(directions, -1, 0)
    focal = jnp.asarray(camera.focal, directions.dtype)
    x, y = (-2 * focal[..., i] / n for i, n in enumerate(camera.size[::-1]))
    start = jnp.stack((x * ox / oz, y * oy / oz, 1 + 2 * near / oz), -1)
    return start, jnp.stack((x * (dx / dz - ox / oz), y * (dy / dz - oy / oz), -2 * near / oz), -1)


def intersect_box(origins: jax.Array, directions: jax.Array, low, high) -> tuple[jax.Array, jax.Array]:
    """Returns the distances (near, far) [...] at which rays enter and leave the axis-aligned box [low, high].

    near >= 0: rays that start inside enter at 0. near = far for rays that miss.
    """
    low, high = jnp.asarray(low, directions.dtype), jnp.asarray(high, directions.dtype)
    parallel = directions == 0
    inverse = 1 / jnp.where(parallel, 1, directions)  # 1 / 0 would make gradients NaN, though not values
    a, b = (low - origins) * inverse, (high - origins) * inverse
    # A ray parallel to a pair of faces lies between them for all t or for none.
    inside = (origins >= low) & (origins <= high)
    enter = jnp.where(parallel, jnp.where(inside, -jnp.inf, jnp.inf), jnp.minimum(a, b)).max(-1)
    leave = jnp.where(parallel, jnp.where(inside, jnp.inf, -jnp.inf), jnp.maximum(a, b)).min(-1)
    return _clip_interval(enter, leave)


def intersect_sphere(origins: jax.Array, directions: jax.Array, centre=0.0, radius=1.0) -> tuple[jax.Array, jax.Array]:
    """Returns the distances (near, far) [...] at which rays enter and leave a sphere; as `intersect_box`."""
    offset = origins - jnp.asarray(centre, directions.dtype)
    a, b = (directions * directions).sum(-1), (directions * offset).sum(-1)
    # The discriminant via the point nearest to the centre: b b - a c cancels for a distant camera.
    nearest = offset - (b / a)[..., None] * directions
    square = radius**2 - (nearest * nearest).sum(-1)
    hit = square > 0
    half = jnp.where(hit, jnp.sqrt(jnp.where(hit, square, 1) / a), 0)
    enter, leave = _clip_interval(-b / a - half, -b / a + half)
    return enter, jnp.where(hit, leave, enter)


def _clip_interval(enter: jax.Array, leave: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Clips to t >= 0, and to an empty interval where the ray leaves before it enters."""
    hit = (leave > enter) & (leave > 0)
    near = jnp.where(hit, jnp.maximum(enter, 0), 0)
    return near, jnp.where(hit, leave, near)


# --- sampling along a ray -----------------------------------------------------------------------------------------


def contract(points: jax.Array) -> jax.Array:
    """Maps unbounded space into the ball of radius 2: x for |x| <= 1, else (2 - 1 / |x|) x / |x|. points [..., 3].

    Barron et al. 2022 (mip-NeRF 360), eq. 10. A field in a box can then represent an unbounded scene, with resolution
    that falls off with distance.
    """
    square = (points * points).sum(-1, keepdims=True)
    outside = square > 1
    length = jnp.sqrt(jnp.where(outside, square, 1))  # 1 inside keeps the gradient at the origin finite
    return jnp.where(outside, (2 - 1 / length) / length * points, points)


def sample_stratified(key: jax.Array | None, near, far, count: int, inverse: bool = False, knee=None) -> jax.Array:
    """Samples one distance in each of `count` bins between near and far: Mildenhall et al. 2020 (NeRF), eq. 2.

    As in the authors' code, bin edges are the midpoints between evenly spaced distances, so the first and the last bin
    are half as wide as the others.

    Args:
      key: None returns the evenly spaced distances themselves.
      near, far: limits of each ray [...].
      count: samples per ray, at least 2.
      inverse: spaces samples evenly in 1 / t (disparity) instead of t; needs near > 0.
      knee: distance [...] up to which samples are even in t, and beyond which in 1 / t; suits `contract`.

    Returns:
      distances [..., count].
    """
    if count < 2:
        raise UsageError(f'a ray needs at least 2 samples, got {count}')
    near, far = jnp.asarray(near)[..., None], jnp.asarray(far)[..., None]
    fraction = jnp.linspace(0.0, 1.0, count, dtype=jnp.result_type(near, far, jnp.float32))
    if knee is not None:
        knee = jnp.asarray(knee)[..., None]
        s = _knee_coordinate(near, knee) * (1 - fraction) + _knee_coordinate(far, knee) * fraction
        t = jnp.where(s < 0.5, 2 * s, 0.5 / jnp.maximum(1 - s, 1e-6)) * knee  # inverts `_knee_coordinate`
    elif inverse:
        t = 1 / (1 / near * (1 - fraction) + 1 / far * fraction)
    else:
        t = near * (1 - fraction) + far * fraction
    if key is None:
        return t
    # Bins that touch: the samples of a ray cover it without gaps, and keep their order without a sort.
    midpoints = (t[..., 1:] + t[..., :-1]) / 2
    low = jnp.concatenate((t[..., :1], midpoints), -1)
    high = jnp.concatenate((midpoints, t[..., -1:]), -1)
    return low + (high - low) * jax.random.uniform(key, t.shape, t.dtype)


def _knee_coordinate(t: jax.Array, knee: jax.Array) -> jax.Array:
    """Maps t to s in [0, 1): t / (2 knee) up to the knee, 1 - knee / (2 t) beyond; continuous with its derivative."""
    ratio = t / knee
    return jnp.where(ratio < 1, ratio / 2, 1 - 0.5 / jnp.maximum(ratio, 1))


def sample_pdf(
    key: jax.Array | None,
    edges: jax.Array,
    weights: jax.Array,
    count: int,
    stratify: bool = False,
    padding: float = 1e-5,
) -> jax.Array:
    """Samples distances from the piecewise constant density that `weights` define: Mildenhall et al. 2020, section 5.2.

    Inverts the cumulative distribution. The samples carry no gradient.

    Args:
      key: None inverts linspace(0, 1) instead of random numbers.
      edges: bin edges [..., n + 1].
      weights: bin weights [..., n], not necessarily normalised.
      count: samples per ray.
      stratify: draws one number in each of `count` equal parts of [0, 1], as mip-NeRF does, instead of i.i.d. numbers.
      padding: is added to all weights, so that a ray through empty space still has a distribution.

    Returns:
      distances [..., count] in ascending order.
    """
    edges, weights = jax.lax.stop_gradient((edges, weights))
    if edges.shape[-1] != weights.shape[-1] + 1:
        raise UsageError(f'{weights.shape[-1]} bins need {weights.shape[-1] + 1} edges, got {edges.shape[-1]}')
    weights = weights + padding  # before normalising, or an empty ray would divide 0 by 0
    cdf = jnp.minimum(jnp.cumsum(weights / weights.sum(-1, keepdims=True), -1)[..., :-1], 1)
    zero = jnp.zeros_like(weights[..., :1])
    cdf = jnp.concatenate((zero, cdf, zero + 1), -1)
    u = _draw_sorted(key, (*weights.shape[:-1], count), stratify, cdf.dtype)
    # Comparing with all edges is as fast as a binary search for the few bins of a ray, and vectorises.
    bins = jnp.clip((u[..., None, :] >= cdf[..., :, None]).sum(-2) - 1, 0, weights.shape[-1] - 1)
    low, high = jnp.take_along_axis(cdf, bins, -1), jnp.take_along_axis(cdf, bins + 1, -1)
    start, stop = jnp.take_along_axis(edges, bins, -1), jnp.take_along_axis(edges, bins + 1, -1)
    # Bins of weight 0 have no width in u; rounding may still select one, which then yields its start.
    fraction = jnp.clip((u - low) / jnp.where(high > low, high - low, 1), 0, 1)
    return start + fraction * (stop - start)


def _draw_sorted(key: jax.Array | None, shape: tuple[int, ...], stratify: bool, dtype) -> jax.Array:
    """Draws numbers in [0, 1] that ascend along the last axis."""
    count = shape[-1]
    if key is None:
        return jnp.broadcast_to(jnp.linspace(0.0, 1.0, count, dtype=dtype), shape)
    uniform = jax.random.uniform(key, shape, dtype)
    if stratify:
        return (jnp.arange(count, dtype=dtype) + uniform) / count
    return jnp.sort(uniform, -1)


def blur_weights(weights: jax.Array, padding: float = 0.01) -> jax.Array:
    """Blurs weights [..., n] with a 2-tap max filter and a 2-tap mean filter, and adds `padding`.

    Barron et al. 2021 (mip-NeRF), eq. 18: an upper envelope, since coarse intervals can miss an edge by one bin.
    """
    padded = jnp.concatenate((weights[..., :1], weights, weights[..., -1:]), -1)
    maxima = jnp.maximum(padded[..., :-1], padded[..., 1:])
    return (maxima[..., :-1] + maxima[..., 1:]) / 2 + padding
