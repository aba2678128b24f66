"""Cameras and the rays through their pixels: where a ray goes, and where on it a scene is asked.

A pose is [.., 4, 4] or [.., 3, 4], camera to world, in OpenGL's convention: x to the right, y up, the camera looks
along -z. A point of the picture is (x, y) in pixels, x to the right and y down, and pixel (column i, row j) covers
[i, i + 1) x [j, j + 1). A ray is origin + t direction with directions that are *not* normalised: their component along
the camera's axis is 1, so that t is the depth along the axis. Distances t are [.., N], sorted.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from canon.camera import Camera
from canon.errors import UsageError

_BISECTIONS, _NEWTON = 32, 6  # steps of undistortion: to the radius, and from there to the point


# --- cameras ------------------------------------------------------------------------------------------------------


def points(camera: Camera, pixel_center: float = 0.5) -> np.ndarray:
    """Where the ray of each pixel goes through the picture: float32 [H, W, 2], as (x, y).

    pixel_center: 0.5 is the pixel's middle; 0.0 its corner, which the code of the original NeRF shoots through.
    """
    if not 0 <= pixel_center <= 1:
        raise UsageError(f'pixel_center={pixel_center} is not in [0, 1]; 0.5 is the middle, 0.0 the original NeRF')
    height, width = camera.size
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32) + np.float32(pixel_center)


def directions(camera: Camera, at: jax.Array | np.ndarray) -> jax.Array:
    """Directions [.., 3] in the camera's own axes, z = -1, of the rays through `at` [.., 2] of its picture.

    A camera with arrays for numbers is one for each ray. NaN where its distortion has no inverse.
    """
    at = jnp.asarray(at)
    plane = (at - jnp.asarray(camera.centre, at.dtype)) / jnp.asarray(camera.focal, at.dtype)
    plane = undistort(plane, camera.distortion)
    return jnp.stack((plane[..., 0], -plane[..., 1], -jnp.ones_like(plane[..., 0])), -1)


def through(camera: Camera, pose: jax.Array, at: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(origins, directions), each [.., 3] in the world, of the rays through `at` [.., 2] seen from `pose` [.., 3|4, 4].

    Leading axes broadcast: one pose for a picture, or one for each ray. Raises UsageError for poses of another shape.
    """
    if pose.ndim < 2 or pose.shape[-1] != 4 or pose.shape[-2] not in (3, 4):
        raise UsageError(f'a pose is [.., 3, 4] or [.., 4, 4], camera to world, not {tuple(pose.shape)}')
    # Sums of products instead of a matrix product: TPUs multiply those in bfloat16.
    way = (pose[..., :3, :3] * directions(camera, at)[..., None, :]).sum(-1)
    return jnp.broadcast_to(pose[..., :3, 3], way.shape), way


def project(camera: Camera, pose: jax.Array, world: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(where in the picture [.., 2], depth along the camera's axis [..]) of world points [.., 3]: undoes `through`.

    A point behind the camera has a negative depth, and its place in the picture means nothing.
    """
    own = ((world - pose[..., :3, 3])[..., :, None] * pose[..., :3, :3]).sum(-2)
    depth = -own[..., 2]
    plane = jnp.stack((own[..., 0], -own[..., 1]), -1) / depth[..., None]
    return distort(plane, camera.distortion) * jnp.asarray(camera.focal) + jnp.asarray(camera.centre), depth


def unit(ways: jax.Array) -> jax.Array:
    """Directions of length 1: what a colour that depends on the view sees of a ray."""
    return ways / jnp.linalg.norm(ways, axis=-1, keepdims=True)


def radii(camera: Camera, at: jax.Array) -> jax.Array:
    """The radius [.., 1] at t = 1 of the cone through a pixel: Barron et al. 2021 (mip-NeRF), section 3.1.

    2 / sqrt(12) of the distance to the next pixel's ray: the variance in x and y of a disc equals that of the pixel.
    """
    step = directions(camera, at + jnp.asarray([1.0, 0.0], at.dtype)) - directions(camera, at)
    return jnp.linalg.norm(step, axis=-1, keepdims=True) * (2 / 12**0.5)


def distort(plane: jax.Array, coefficients: tuple[float, ...]) -> jax.Array:
    """Where a lens with OpenCV's k1, k2, p1, p2 shows `plane` [.., 2], y down, at distance 1 of a pinhole."""
    if not coefficients:
        return plane
    k1, k2, p1, p2 = _four(coefficients)
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
    """Inverts `distort`; NaN where it has no inverse, as beyond the radius at which a lens begins to fold the picture.

    The radial polynomial r (1 + k1 r^2 + k2 r^4) grows up to that radius, so bisection finds its inverse for lenses
    of any strength, where Newton's method from the distorted point may diverge. Newton's method then adds p1 and p2.
    """
    if not coefficients:
        return plane
    k1, k2, p1, p2 = _four(coefficients)
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

    # Where the picture is not folded at all, a hundred times the distorted radius is beyond any sensible lens.
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
    """d distort / d (x, y), which is symmetric, at points [..]: (xx, xy, yy, the determinant)."""
    r2 = x * x + y * y
    radial, slope = 1 + r2 * (k1 + k2 * r2), 2 * k1 + 4 * k2 * r2  # d radial / d x = x slope
    xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
    xy = x * y * slope + 2 * p1 * x + 2 * p2 * y
    yy = radial + y * y * slope + 2 * p2 * x + 6 * p1 * y
    return xx, xy, yy, xx * yy - xy * xy


def _fold_radius(k1: jax.Array, k2: jax.Array) -> jax.Array:
    """The radius up to which r (1 + k1 r^2 + k2 r^4) grows: the smallest root of 1 + 3 k1 s + 5 k2 s^2, s = r^2."""
    square = 9 * k1 * k1 - 20 * k2
    # 2 / (-b + sqrt(b^2 - 4 a)) is the smallest positive root of 1 + b s + a s^2 for a of either sign, and for a = 0.
    below = -3 * k1 + jnp.sqrt(jnp.maximum(square, 0))
    folds = (square >= 0) & (below > 0)
    return jnp.where(folds, jnp.sqrt(2 / jnp.where(folds, below, 1)), jnp.inf)


def _four(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    if len(coefficients) > 4:
        raise UsageError(f'a camera has at most the distortion k1, k2, p1, p2, not {len(coefficients)} numbers')
    return (*coefficients, *(0.0,) * (4 - len(coefficients)))


# --- where a ray begins and ends ----------------------------------------------------------------------------------


def ndc(camera: Camera, origins: jax.Array, ways: jax.Array, near: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Rays in normalised device coordinates: Mildenhall et al. 2020, appendix C, eq. 25 and 26. t = 1 is infinity.

    For cameras that look along -z of the world (forward-facing captures, recentred). Origins are moved to the plane
    z = -near first, so that t runs over [0, 1]. It supposes the principal point in the middle, as the paper does.
    """
    origins = origins + (-(near + origins[..., 2]) / ways[..., 2])[..., None] * ways
    (ox, oy, oz), (dx, dy, dz) = jnp.moveaxis(origins, -1, 0), jnp.moveaxis(ways, -1, 0)
    focal = jnp.asarray(camera.focal, ways.dtype)
    x, y = (-2 * focal[..., i] / n for i, n in enumerate(camera.size[::-1]))
    start = jnp.stack((x * ox / oz, y * oy / oz, 1 + 2 * near / oz), -1)
    return start, jnp.stack((x * (dx / dz - ox / oz), y * (dy / dz - oy / oz), -2 * near / oz), -1)


def box_interval(origins: jax.Array, ways: jax.Array, low, high) -> tuple[jax.Array, jax.Array]:
    """(near, far) [..] in t where rays are inside the box [low, high]: near >= 0, and near = far where they miss."""
    low, high = jnp.asarray(low, ways.dtype), jnp.asarray(high, ways.dtype)
    flat = ways == 0
    slope = 1 / jnp.where(flat, 1, ways)
    a, b = (low - origins) * slope, (high - origins) * slope
    # Along a wall a ray is between it and the opposite one always or never.
    inside = (origins >= low) & (origins <= high)
    enter = jnp.where(flat, jnp.where(inside, -jnp.inf, jnp.inf), jnp.minimum(a, b)).max(-1)
    leave = jnp.where(flat, jnp.where(inside, jnp.inf, -jnp.inf), jnp.maximum(a, b)).min(-1)
    return _between(enter, leave)


def sphere_interval(origins: jax.Array, ways: jax.Array, centre=0.0, radius=1.0) -> tuple[jax.Array, jax.Array]:
    """(near, far) [..] in t where rays are inside a sphere: near >= 0, and near = far where they miss."""
    offset = origins - jnp.asarray(centre, ways.dtype)
    a, b = (ways * ways).sum(-1), (ways * offset).sum(-1)
    # The discriminant by the nearest point: b b - a c cancels for a camera far away.
    nearest = offset - (b / a)[..., None] * ways
    square = radius**2 - (nearest * nearest).sum(-1)
    hit = square > 0
    half = jnp.where(hit, jnp.sqrt(jnp.where(hit, square, 1) / a), 0)
    enter, leave = _between(-b / a - half, -b / a + half)
    return enter, jnp.where(hit, leave, enter)


def _between(enter: jax.Array, leave: jax.Array) -> tuple[jax.Array, jax.Array]:
    met = (leave > enter) & (leave > 0)
    near = jnp.where(met, jnp.maximum(enter, 0), 0)
    return near, jnp.where(met, leave, near)


# --- where a scene is asked ---------------------------------------------------------------------------------------


def contract(points: jax.Array) -> jax.Array:
    """Points [.., 3] beyond the unit ball are drawn into the ball of radius 2: (2 - 1 / |x|) x / |x|.

    Barron et al. 2022 (mip-NeRF 360), eq. 10: a field in a box sees a scene without bounds, far things coarsely.
    """
    square = (points * points).sum(-1, keepdims=True)
    outside = square > 1
    length = jnp.sqrt(jnp.where(outside, square, 1))
    return jnp.where(outside, (2 - 1 / length) / length * points, points)


def stratified(key: jax.Array | None, near, far, count: int, inverse: bool = False, knee=None) -> jax.Array:
    """Distances [.., count] from near to far [..]: one in each bin about evenly spaced ones; without a key those.

    Mildenhall et al. 2020, eq. 2, as their code has it: the bins' edges are the middles between evenly spaced
    distances, so that the first and the last bin are half as wide. inverse: evenly spaced in 1/t (near > 0). knee [..]:
    evenly spaced in t up to there, and in 1/t from there on, as fits `contract`.
    """
    if count < 2:
        raise UsageError(f'{count} samples on a ray are too few; it takes 2 at least')
    near, far = jnp.asarray(near)[..., None], jnp.asarray(far)[..., None]
    way = jnp.linspace(0.0, 1.0, count, dtype=jnp.result_type(near, far, jnp.float32))
    if knee is not None:
        knee = jnp.asarray(knee)[..., None]
        place = _knee_place(near, knee) * (1 - way) + _knee_place(far, knee) * way
        t = jnp.where(place < 0.5, 2 * place, 0.5 / jnp.maximum(1 - place, 1e-6)) * knee
    else:
        t = 1 / (1 / near * (1 - way) + 1 / far * way) if inverse else near * (1 - way) + far * way
    if key is None:
        return t
    middle = (t[..., 1:] + t[..., :-1]) / 2
    low = jnp.concatenate((t[..., :1], middle), -1)
    high = jnp.concatenate((middle, t[..., -1:]), -1)
    return low + (high - low) * jax.random.uniform(key, t.shape, t.dtype)


def _knee_place(t: jax.Array, knee: jax.Array) -> jax.Array:
    """t / (2 knee) up to the knee, 1 - knee / (2 t) from there on: it grows without a break, from 0 to 1."""
    ratio = t / knee
    return jnp.where(ratio < 1, ratio / 2, 1 - 0.5 / jnp.maximum(ratio, 1))


def resample(
    key: jax.Array | None,
    edges: jax.Array,
    weights: jax.Array,
    count: int,
    even: bool = False,
    padding: float = 1e-5,
) -> jax.Array:
    """Distances [.., count], sorted, drawn from the histogram of `weights` [.., n] over bins between edges [.., n + 1].

    By the inverse of its piecewise linear distribution: Mildenhall et al. 2020, section 5.2. Nothing is differentiated
    through it. Without a key the distribution is cut in equal parts: linspace(0, 1) is inverted.

    Args:
      even: one draw in each of `count` equal parts, as mip-NeRF has it, instead of independent ones.
      padding: added to all weights, so that no bin is impossible and a ray through nothing has a distribution.
    """
    edges, weights = jax.lax.stop_gradient((edges, weights))
    if edges.shape[-1] != weights.shape[-1] + 1:
        raise UsageError(f'{weights.shape[-1]} bins have one more edge, not {edges.shape[-1]}')
    weights = weights + padding
    share = jnp.minimum(jnp.cumsum(weights / weights.sum(-1, keepdims=True), -1)[..., :-1], 1)
    ends = jnp.zeros_like(weights[..., :1])
    share = jnp.concatenate((ends, share, ends + 1), -1)
    where = _places(key, (*weights.shape[:-1], count), even, share.dtype)
    bins = jnp.clip((where[..., None, :] >= share[..., :, None]).sum(-2) - 1, 0, weights.shape[-1] - 1)
    low, high = jnp.take_along_axis(share, bins, -1), jnp.take_along_axis(share, bins + 1, -1)
    start, stop = jnp.take_along_axis(edges, bins, -1), jnp.take_along_axis(edges, bins + 1, -1)
    part = jnp.clip((where - low) / jnp.where(high > low, high - low, 1), 0, 1)
    return start + part * (stop - start)


def _places(key: jax.Array | None, shape: tuple[int, ...], even: bool, dtype) -> jax.Array:
    """Sorted numbers in [0, 1], along the last axis."""
    count = shape[-1]
    if key is None:
        return jnp.broadcast_to(jnp.linspace(0.0, 1.0, count, dtype=dtype), shape)
    drawn = jax.random.uniform(key, shape, dtype)
    if even:
        return (jnp.arange(count, dtype=dtype) + drawn) / count
    return jnp.sort(drawn, -1)


def blurred(weights: jax.Array, padding: float = 0.01) -> jax.Array:
    """Weights [.., n] as mip-NeRF resamples them: the mean of the two maxima with each neighbour, and `padding`.

    Barron et al. 2021, eq. 18: an envelope that is never below what it covers by much, as coarse bins miss edges.
    """
    wide = jnp.concatenate((weights[..., :1], weights, weights[..., -1:]), -1)
    top = jnp.maximum(wide[..., :-1], wide[..., 1:])
    return (top[..., :-1] + top[..., 1:]) / 2 + padding
