"""The embedded scene: balls and boxes on a checkered floor, rendered by a small ray tracer, with exact depths.

Shading: Lambert's law under a sun and a sky, shadows, Blinn's highlight, and a reflection of the sky that grows at
grazing angles (Schlick 1994). The last two depend on the viewing direction, so a field that ignores it cannot learn
them. z is up, and all objects lie within 1.6 of the origin. Cameras look at it from a hemisphere of radius 4, as in
NeRF's synthetic scenes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from canon.camera import Camera
from canon.data.scenes.framing import look_at
from canon.data.scenes.views import SPLITS, Views
from canon.errors import UsageError
from canon.named import suggest

ANGLE = 0.6911112070083618  # horizontal angle of view in radians, that of NeRF's synthetic scenes
RADIUS, NEAR, FAR = 4.0, 2.0, 6.0  # of the hemisphere of cameras; depths that enclose the scene
_SUN = np.array([0.52, -0.36, 0.77]) / math.hypot(0.52, 0.36, 0.77)  # direction towards it
_SUNLIGHT, _SKYLIGHT = np.array([1.5, 1.4, 1.22]), np.array([0.3, 0.36, 0.45])
_LOW, _HIGH = math.sin(math.radians(8)), math.sin(math.radians(70))  # sines of the least and greatest elevation
_FACING_ANGLE, _FACING_SINE = -1.2, 0.4  # azimuth and sine of the elevation of a forward-facing capture


class Ball(NamedTuple):
    """A sphere."""

    centre: tuple[float, float, float]
    radius: float
    colour: tuple[float, float, float]  # linear
    gloss: float = 0.5  # strength of the highlight: 0 is matt, 1 as bright as the sun
    sharp: float = 60.0  # Blinn's exponent


class Box(NamedTuple):
    """A box, possibly rotated about z."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: tuple[float, float, float]
    gloss: float = 0.1
    sharp: float = 30.0
    turn: float = 0.0  # rotation about z in radians
    other: tuple[float, float, float] | None = None  # second colour of a checkered box


def scene_objects(time: float = 0.0, only: tuple[int, ...] | None = None) -> tuple[Ball | Box, ...]:
    """Returns the objects at a time in [0, 1]: a ball hops along an edge and back, a box turns by 90 degrees.

    only: indices of the objects to keep: 0 the floor, 1 the red ball, 2 the blue box, 3 the orange ball on it, 4 the
    green ball, 5 the purple box.
    """
    angle = 2 * math.pi * time
    position = (0.8 * math.cos(angle), -0.84, -0.35 + 0.3 * abs(math.sin(2 * angle)))
    objects = (
        Box((0, 0, -0.56), (1.04, 1.04, 0.06), (0.72, 0.69, 0.62), 0.05, other=(0.08, 0.10, 0.14)),
        Ball((-0.3, -0.18, -0.02), 0.48, (0.62, 0.06, 0.05), 0.9, 90),
        Box((0.42, 0.45, -0.08), (0.27, 0.27, 0.42), (0.06, 0.22, 0.5), 0.3, 40, 0.45 + angle / 4),
        Ball((0.42, 0.45, 0.56), 0.22, (0.8, 0.46, 0.08), 1.0, 120),
        Ball(position, 0.15, (0.1, 0.45, 0.16), 0.6, 70),
        Box((-0.72, 0.62, -0.32), (0.2, 0.2, 0.18), (0.55, 0.3, 0.5), 0.1, 30, -0.3),
    )
    return objects if only is None else tuple(objects[i] for i in only)


def traced(
    split: str = 'train',
    views: int = 100,
    size: int = 100,
    seed: int = 0,
    motion: bool = False,
    samples: int = 2,
    facing: bool = False,
    only: Sequence[int] | None = None,
) -> Views:
    """Renders views of the embedded scene. A function of its arguments; results are cached and read-only.

    Args:
      split: 'train', 'val' or 'test', which differ in their poses.
      views: their number. The first n are the same for any number, and already spread over the hemisphere.
      size: pictures are size x size.
      seed: of the poses.
      motion: gives view i a time of its own in [0, 1].
      samples: squared, the rays per pixel.
      facing: a forward-facing capture (`recentre_capture`) instead of one from all sides.
      only: indices of the objects to keep (`scene_objects`).

    Raises:
      UsageError: a size is out of range, or `only` names no objects.
    """
    if views < 1 or size < 4 or samples < 1:
        raise UsageError(f'traced: expected views >= 1, size >= 4 and samples >= 1; got {views}, {size} and {samples}')
    count = len(scene_objects())
    if only is not None and not (only and set(only) <= set(range(count))):
        raise UsageError(f'traced: only={tuple(only)} must hold indices of objects, 0..{count - 1}')
    only = None if only is None else tuple(int(i) for i in only)
    return _render_views(split, int(views), int(size), int(seed), bool(motion), int(samples), bool(facing), only)


@cache
def _render_views(
    split: str,
    views: int,
    size: int,
    seed: int,
    motion: bool,
    samples: int,
    facing: bool,
    only: tuple[int, ...] | None,
) -> Views:
    poses, times = sample_poses(split, views, seed, facing)
    times = times if motion else np.zeros_like(times)
    camera = pinhole_camera(size)
    pictures = [trace_picture(camera, pose, float(t), samples, only) for pose, t in zip(poses, times, strict=True)]
    depths = np.stack([trace_depths(camera, pose, float(t), only) for pose, t in zip(poses, times, strict=True)])
    images = np.stack(pictures)
    names = tuple(f'{split}/r_{i}' for i in range(views))
    result = Views(images, poses, camera, NEAR, FAR, times if motion else None, depths, names)
    result = recentre_capture(result) if facing else result
    for array in (result.images, result.poses, times, result.depths):  # the cache hands the same arrays to all callers
        np.asarray(array).setflags(write=False)
    return result


def recentre_capture(views: Views) -> Views:
    """Returns views relative to the middle camera, scaled as `captures.llff` scales a forward-facing capture.

    The middle camera is at the origin and looks along -z, as normalised device coordinates need, and the unit is 0.75
    of the distance to the nearest object.
    """
    poses = np.linalg.inv(look_at(_eye(_FACING_ANGLE, _FACING_SINE))) @ views.poses.astype(float)
    nearest = RADIUS - 1.6
    scale = 1 / (0.75 * nearest)
    poses[:, :3, 3] *= scale
    depths = np.asarray(views.depths) * np.float32(scale)
    return views._replace(
        poses=poses.astype(np.float32), near=0.9 * scale * nearest, far=scale * (RADIUS + 1.6), depths=depths
    )


def pinhole_camera(size: int) -> Camera:
    """Returns the camera of pictures of size x size."""
    focal = 0.5 * size / math.tan(0.5 * ANGLE)
    return Camera((focal, focal), (size / 2, size / 2), (size, size))


def sample_poses(split: str, count: int, seed: int = 0, facing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Samples poses float32 [count, 4, 4] and times float32 [count] from a low-discrepancy sequence.

    Args:
      split: 'train', 'val' or 'test': the sequence starts elsewhere in each.
      count: of the poses.
      seed: of the start.
      facing: samples a patch of the hemisphere, 0.5 wide and 0.2 high in units of its radius.
    """
    if split not in SPLITS:
        raise UsageError(f'there is no split {split!r}{suggest(split, SPLITS)}')
    start = np.random.default_rng((seed, SPLITS.index(split))).uniform(size=3)
    root = 1.2207440846057596  # of x^4 = x + 1: powers of its inverse fill the cube evenly (Roberts 2018)
    azimuth, height, times = ((start + np.arange(1, count + 1)[:, None] / root ** np.arange(1, 4)) % 1).T
    if facing:
        angles, sines = _FACING_ANGLE + 0.5 * (azimuth - 0.5), _FACING_SINE + 0.2 * (height - 0.5)
    else:  # uniform in the sine is uniform on the sphere (Archimedes)
        angles, sines = 2 * np.pi * azimuth, _LOW + (_HIGH - _LOW) * height
    poses = [look_at(_eye(angle, sine)) for angle, sine in zip(angles, sines, strict=True)]
    return np.stack(poses).astype(np.float32), times.astype(np.float32)


def _eye(angle: float, sine: float) -> np.ndarray:
    cosine = math.sqrt(1 - sine**2)
    return RADIUS * np.array((cosine * math.cos(angle), cosine * math.sin(angle), sine))


def write_scene(
    folder: str | Path, views: int = 100, held_out: int = 25, size: int = 100, seed: int = 0, motion: bool = False
) -> None:
    """Writes the scene in Blender's layout: transforms_{train,val,test}.json, PNG pictures, and depths as .npy.

    Args:
      folder: where to.
      views, held_out: pictures of the training split, and of each of the others.
      size, seed, motion: as in `traced`.
    """
    folder = Path(folder)
    for split in SPLITS:
        result = traced(split, views if split == 'train' else held_out, size, seed, motion)
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames, depths = [], np.asarray(result.depths)
        for i, name in enumerate(result.names):
            Image.fromarray(result.images[i]).save(folder / f'{name}.png')
            np.save(folder / f'{name}_depth.npy', depths[i])
            frame = {'file_path': f'./{name}', 'transform_matrix': result.poses[i].tolist()}
            frames.append(frame | ({} if result.times is None else {'time': float(result.times[i])}))
        content = {'camera_angle_x': ANGLE, 'frames': frames}
        (folder / f'transforms_{split}.json').write_text(json.dumps(content, indent=1))


# --- tracing: positions and directions are [3, P] -------------------------------------------------------------------


def trace_picture(
    camera: Camera, pose: np.ndarray, time: float = 0.0, samples: int = 2, only: tuple[int, ...] | None = None
) -> np.ndarray:
    """Traces samples^2 rays per pixel: uint8 [H, W, 4], straight alpha, the fraction of rays that hit an object."""
    eye, directions = _rays(camera, pose, samples)
    colour, hit = _shade(scene_objects(time, only), eye, directions)
    (height, width), rays = camera.size, samples * samples
    hit = hit.reshape(rays, height, width).sum(0)
    colour = colour.reshape(3, rays, height, width).sum(1) / np.maximum(hit, 1)  # rays that miss have colour 0
    return np.rint(255 * np.concatenate((colour, hit[None] / rays))).astype(np.uint8).transpose(1, 2, 0)


def trace_depths(
    camera: Camera, pose: np.ndarray, time: float = 0.0, only: tuple[int, ...] | None = None
) -> np.ndarray:
    """Traces the ray through each pixel's centre: its distance to the first object, float32 [H, W], or inf."""
    # In float64, since these depths are compared with learnt ones as exact.
    eye, directions = _rays(camera, pose, 1, np.float64)
    return _nearest(scene_objects(time, only), eye, directions)[0].reshape(camera.size).astype(np.float32)


def _rays(camera: Camera, pose: np.ndarray, samples: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Returns the camera's position [3, 1] and unit directions [3, samples^2 H W], pixels varying fastest."""
    height, width = camera.size
    inside = (np.arange(samples) + 0.5) / samples
    y, x = np.meshgrid(inside, inside, indexing='ij')
    x = x.reshape(-1, 1, 1) + np.arange(width)[None, None, :]
    y = y.reshape(-1, 1, 1) + np.arange(height)[None, :, None]
    x, y = np.broadcast_arrays((x - camera.centre[0]) / camera.focal[0], -(y - camera.centre[1]) / camera.focal[1])
    local = np.stack((x.ravel(), y.ravel(), -np.ones(x.size)))
    directions = pose[:3, :3].astype(np.float64) @ local
    return pose[:3, 3:].astype(dtype), (directions / np.linalg.norm(directions, axis=0)).astype(dtype)


def _nearest(
    objects: tuple[Ball | Box, ...], origin: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance [P] to the first object hit, inf for none, and its index in `objects` [P]."""
    if not objects:
        return np.full(np.broadcast_shapes(origin.shape, directions.shape)[1], np.inf), np.zeros(1, int)
    distances = np.stack([_intersect(obj, origin, directions) for obj in objects])
    first = distances.argmin(0)
    return np.take_along_axis(distances, first[None], 0)[0], first


def _intersect(obj: Ball | Box, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Returns the distance [P] at which rays from outside (origin [3, 1 or P]) enter an object; inf if they miss it."""
    if isinstance(obj, Ball):
        offset = origin - np.asarray(obj.centre, origin.dtype)[:, None]
        along = (offset * directions).sum(0)
        square = along**2 - (offset**2).sum(0) + obj.radius**2
        enter = -along - np.sqrt(np.maximum(square, 0))
        return np.where((square > 0) & (enter > 0), enter, np.inf)
    enter, leave = _slabs(obj, origin, directions)
    enter, leave = enter.max(0), leave.min(0)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def _slabs(box: Box, origin: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distances [3, P] at which rays enter and leave the slab between each pair of the box's faces."""
    rotation = _rotation(box).astype(directions.dtype)
    origin, directions = rotation @ (origin - np.asarray(box.centre, directions.dtype)[:, None]), rotation @ directions
    # A ray parallel to a slab gets a huge but finite inverse: infinity times 0 would be NaN.
    inverse = 1 / np.where(directions == 0, np.finfo(directions.dtype).tiny * 4, directions)
    middle, half = -origin * inverse, np.asarray(box.half, directions.dtype)[:, None] * np.abs(inverse)
    return middle - half, middle + half


def _rotation(box: Box) -> np.ndarray:
    """Returns the rotation [3, 3] from world axes to those of the box."""
    c, s = math.cos(box.turn), math.sin(box.turn)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


# --- light ----------------------------------------------------------------------------------------------------------


def _shade(objects: tuple[Ball | Box, ...], eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns display colours [3, P] in [0, 1], 0 for rays that miss, and whether each ray hits, [P]."""
    distance, first = _nearest(objects, eye, directions)
    hit = np.isfinite(distance)
    colour = np.zeros_like(directions)
    for number, obj in enumerate(objects):
        rays = np.flatnonzero(hit & (first == number))
        if rays.size:
            points = eye + distance[rays] * directions[:, rays]
            others = objects[:number] + objects[number + 1 :]  # convex objects do not shade themselves
            colour[:, rays] = _light(obj, others, points, directions[:, rays])
    return colour, hit


def _light(obj: Ball | Box, others: tuple[Ball | Box, ...], points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Returns the colours [3, P] of `points` [3, P] on an object, seen along `directions`."""
    sun = _SUN.astype(points.dtype)[:, None]
    normal, albedo = _surface(obj, points, directions)
    lit = np.maximum((normal * sun).sum(0), 0)
    # Shadow rays start on the surface itself, which is not among `others`, so no offset is needed.
    lit[lit > 0] *= np.isinf(_nearest(others, points[:, lit > 0], sun)[0])
    half = sun - directions
    half /= np.linalg.norm(half, axis=0)
    shine = obj.gloss * np.maximum((normal * half).sum(0), 0) ** obj.sharp * (lit > 0)
    sky = _SKYLIGHT[:, None] * (0.65 + 0.35 * normal[2]) * _sky_visibility(others, points, normal)
    reflection = obj.gloss * (0.04 + 0.5 * np.clip(1 + (normal * directions).sum(0), 0, 1) ** 5)
    light = albedo * (lit * _SUNLIGHT[:, None] + sky) + shine + reflection * sky
    # From linear light to display values, by a plain gamma.
    return np.clip(light, 0, 1) ** (1 / 2.2)


def _sky_visibility(others: tuple[Ball | Box, ...], points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Returns the fraction [P] of the sky that balls leave visible; each hides cos(angle) (radius / distance)^2."""
    visible = np.ones(points.shape[1], points.dtype)
    for ball in (obj for obj in others if isinstance(obj, Ball)):
        offset = np.asarray(ball.centre, points.dtype)[:, None] - points
        square = (offset**2).sum(0)
        visible *= 1 - np.clip((offset * normal).sum(0) / np.sqrt(square), 0, 1) * np.minimum(
            ball.radius**2 / square, 1
        )
    return visible


def _surface(obj: Ball | Box, points: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns outward unit normals [3, P] and albedos [3, P]."""
    colour = np.asarray(obj.colour, points.dtype)[:, None]
    centre = np.asarray(obj.centre, points.dtype)[:, None]
    if isinstance(obj, Ball):
        return (points - centre) / obj.radius, colour
    rotation = _rotation(obj).astype(points.dtype)
    local = rotation @ (points - centre)
    face = np.abs(local / np.asarray(obj.half, points.dtype)[:, None]).argmax(0)
    normal = np.zeros_like(local)
    columns = np.arange(points.shape[1])
    normal[face, columns] = np.sign(local[face, columns])
    if obj.other is not None:
        # A hair's breadth into the box, so that a face of it is on one side of its local edge for every ray.
        odd = np.floor(4 * (local - 1e-3 * normal)[:2] / obj.half[0]).sum(0) % 2 == 1
        colour = np.where(odd, np.asarray(obj.other, points.dtype)[:, None], colour)
    return rotation.T @ normal, colour
