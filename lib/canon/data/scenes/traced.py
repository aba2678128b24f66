"""The embedded scene: balls and boxes on a checkered floor, by a ray tracer of our own, with exact depth.

Lambert's law under a sun and a sky, shadows, Blinn's highlight and a reflection of the sky that grows at grazing angles
(Schlick 1994): the last two depend on the view, so a field without view directions cannot learn them. The world has z
up, and lies within 1.6 of its origin. Cameras look at it from a half sphere of radius 4, as Blender's set has them.
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

ANGLE = 0.6911112070083618  # of view from left to right: that of Blender's set
RADIUS, NEAR, FAR = 4.0, 2.0, 6.0
_SUN = np.array([0.52, -0.36, 0.77]) / math.hypot(0.52, 0.36, 0.77)  # towards it
_SUNLIGHT, _SKYLIGHT = np.array([1.5, 1.4, 1.22]), np.array([0.3, 0.36, 0.45])
_LOW, _HIGH = math.sin(math.radians(8)), math.sin(math.radians(70))  # sines of the cameras' elevation
_FACED, _FACED_SINE = -1.2, 0.4  # where a forward-facing capture stands


class Ball(NamedTuple):
    centre: tuple[float, float, float]
    radius: float
    colour: tuple[float, float, float]  # linear
    gloss: float = 0.5  # 0 is matt, 1 as bright as the sun
    sharp: float = 60.0  # Blinn's exponent


class Box(NamedTuple):
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    colour: tuple[float, float, float]
    gloss: float = 0.1
    sharp: float = 30.0
    turn: float = 0.0  # about z, radians
    other: tuple[float, float, float] | None = None  # the other colour of a checkered box


def scene(time: float = 0.0, only: tuple[int, ...] | None = None) -> tuple[Ball | Box, ...]:
    """What there is to see. With time in 0..1 a ball hops along an edge and back, and a box turns by 90 degrees.

    only: the numbers of those that are there, of 0 the floor, 1 the red ball, 2 the blue box, 3 the orange ball on it,
    4 the green ball, 5 the purple box.
    """
    angle = 2 * math.pi * time
    walk = (0.8 * math.cos(angle), -0.84, -0.35 + 0.3 * abs(math.sin(2 * angle)))
    things = (
        Box((0, 0, -0.56), (1.04, 1.04, 0.06), (0.72, 0.69, 0.62), 0.05, other=(0.08, 0.10, 0.14)),
        Ball((-0.3, -0.18, -0.02), 0.48, (0.62, 0.06, 0.05), 0.9, 90),
        Box((0.42, 0.45, -0.08), (0.27, 0.27, 0.42), (0.06, 0.22, 0.5), 0.3, 40, 0.45 + angle / 4),
        Ball((0.42, 0.45, 0.56), 0.22, (0.8, 0.46, 0.08), 1.0, 120),
        Ball(walk, 0.15, (0.1, 0.45, 0.16), 0.6, 70),
        Box((-0.72, 0.62, -0.32), (0.2, 0.2, 0.18), (0.55, 0.3, 0.5), 0.1, 30, -0.3),
    )
    return things if only is None else tuple(things[i] for i in only)


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
    """`views` pictures of size x size. The first n are the same whatever `views`, and spread over the half sphere.

    samples: squared, the rays through a pixel. motion: view i has a time of its own in 0..1. facing: a forward-facing
    capture (`forward`) instead of one from all sides. only: some of the things (`scene`). A function of its arguments;
    kept while the process lives, and not to be written to.
    """
    if views < 1 or size < 4 or samples < 1:
        raise UsageError(f'traced: views={views} >= 1, size={size} >= 4 and samples={samples} >= 1 are wanted')
    if only is not None and not (only and set(only) <= set(range(len(scene())))):
        raise UsageError(f'traced: only={tuple(only)} names no things of 0..{len(scene()) - 1}')
    only = None if only is None else tuple(int(i) for i in only)
    return _traced(split, int(views), int(size), int(seed), bool(motion), int(samples), bool(facing), only)


@cache
def _traced(
    split: str,
    views: int,
    size: int,
    seed: int,
    motion: bool,
    samples: int,
    facing: bool,
    only: tuple[int, ...] | None,
) -> Views:
    poses, times = places(split, views, seed, facing)
    times = times if motion else np.zeros_like(times)
    camera = pinhole(size)
    pictures = [picture(camera, pose, float(t), samples, only) for pose, t in zip(poses, times, strict=True)]
    depths = np.stack([depth(camera, pose, float(t), only) for pose, t in zip(poses, times, strict=True)])
    images = np.stack(pictures)
    names = tuple(f'{split}/r_{i}' for i in range(views))
    found = Views(images, poses, camera, NEAR, FAR, times if motion else None, depths, names)
    found = forward(found) if facing else found
    for kept in (found.images, found.poses, times, found.depths):
        np.asarray(kept).setflags(write=False)
    return found


def forward(views: Views) -> Views:
    """As `captures.llff` leaves a forward-facing capture: seen from the middle camera, which stands at the origin and
    looks along -z, and scaled so that 1 is 0.75 of the distance to what is nearest. Device coordinates need that."""
    poses = np.linalg.inv(look_at(_eye(_FACED, _FACED_SINE))) @ views.poses.astype(float)
    nearest = RADIUS - 1.6
    scale = 1 / (0.75 * nearest)
    poses[:, :3, 3] *= scale
    depths = np.asarray(views.depths) * np.float32(scale)
    return views._replace(
        poses=poses.astype(np.float32), near=0.9 * scale * nearest, far=scale * (RADIUS + 1.6), depths=depths
    )


def pinhole(size: int) -> Camera:
    focal = 0.5 * size / math.tan(0.5 * ANGLE)
    return Camera((focal, focal), (size / 2, size / 2), (size, size))


def places(split: str, count: int, seed: int = 0, facing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Poses float32 [count, 4, 4] and times float32 [count] of a split: a low-discrepancy sequence, begun at random.

    On the half sphere, or with `facing` on a patch of it that is 0.5 wide and 0.2 high, in parts of its radius.
    """
    if split not in SPLITS:
        raise UsageError(f'there is no split {split!r}{suggest(split, SPLITS)}')
    start = np.random.default_rng((seed, SPLITS.index(split))).uniform(size=3)
    root = 1.2207440846057596  # x^4 = x + 1: powers of its inverse fill the cube evenly (Roberts 2018)
    around, high, times = ((start + np.arange(1, count + 1)[:, None] / root ** np.arange(1, 4)) % 1).T
    if facing:
        angles, sines = _FACED + 0.5 * (around - 0.5), _FACED_SINE + 0.2 * (high - 0.5)
    else:
        angles, sines = 2 * np.pi * around, _LOW + (_HIGH - _LOW) * high  # even in the sine is even on the sphere
    poses = [look_at(_eye(angle, sine)) for angle, sine in zip(angles, sines, strict=True)]
    return np.stack(poses).astype(np.float32), times.astype(np.float32)


def _eye(angle: float, sine: float) -> np.ndarray:
    cosine = math.sqrt(1 - sine**2)
    return RADIUS * np.array((cosine * math.cos(angle), cosine * math.sin(angle), sine))


def write(
    folder: str | Path, views: int = 100, held_out: int = 25, size: int = 100, seed: int = 0, motion: bool = False
) -> None:
    """Blender's layout: transforms_{train,val,test}.json, pictures as PNG, and beside each its depth as .npy."""
    folder = Path(folder)
    for split in SPLITS:
        told = traced(split, views if split == 'train' else held_out, size, seed, motion)
        (folder / split).mkdir(parents=True, exist_ok=True)
        frames, depths = [], np.asarray(told.depths)
        for i, name in enumerate(told.names):
            Image.fromarray(told.images[i]).save(folder / f'{name}.png')
            np.save(folder / f'{name}_depth.npy', depths[i])
            frame = {'file_path': f'./{name}', 'transform_matrix': told.poses[i].tolist()}
            frames.append(frame | ({} if told.times is None else {'time': float(told.times[i])}))
        content = {'camera_angle_x': ANGLE, 'frames': frames}
        (folder / f'transforms_{split}.json').write_text(json.dumps(content, indent=1))


# --- rays: positions and directions are [3, P], component by component ---------------------------------------------


def picture(
    camera: Camera, pose: np.ndarray, time: float = 0.0, samples: int = 2, only: tuple[int, ...] | None = None
) -> np.ndarray:
    """uint8 [H, W, 4], straight alpha: the mean of samples^2 rays a pixel, alpha the share of them that hit."""
    eye, ways = _rays(camera, pose, samples)
    colour, hit = _shade(scene(time, only), eye, ways)
    (height, width), rays = camera.size, samples * samples
    hit = hit.reshape(rays, height, width).sum(0)
    colour = colour.reshape(3, rays, height, width).sum(1) / np.maximum(hit, 1)  # of the rays that miss it is 0
    return np.rint(255 * np.concatenate((colour, hit[None] / rays))).astype(np.uint8).transpose(1, 2, 0)


def depth(camera: Camera, pose: np.ndarray, time: float = 0.0, only: tuple[int, ...] | None = None) -> np.ndarray:
    """float32 [H, W]: distance along the ray through each pixel's middle, inf where it hits nothing."""
    eye, ways = _rays(camera, pose, 1, np.float64)
    return _nearest(scene(time, only), eye, ways)[0].reshape(camera.size).astype(np.float32)


def _rays(camera: Camera, pose: np.ndarray, samples: int, dtype: type = np.float32) -> tuple[np.ndarray, np.ndarray]:
    """The camera's place [3, 1] and unit directions [3, samples^2 H W], all pixels for one place in them at a time."""
    height, width = camera.size
    inside = (np.arange(samples) + 0.5) / samples
    y, x = np.meshgrid(inside, inside, indexing='ij')
    x = x.reshape(-1, 1, 1) + np.arange(width)[None, None, :]
    y = y.reshape(-1, 1, 1) + np.arange(height)[None, :, None]
    x, y = np.broadcast_arrays((x - camera.centre[0]) / camera.focal[0], -(y - camera.centre[1]) / camera.focal[1])
    own = np.stack((x.ravel(), y.ravel(), -np.ones(x.size)))
    ways = pose[:3, :3].astype(np.float64) @ own
    return pose[:3, 3:].astype(dtype), (ways / np.linalg.norm(ways, axis=0)).astype(dtype)


def _nearest(things: tuple[Ball | Box, ...], origin: np.ndarray, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance [P] to what is hit first, inf for nothing, and its number in `things` [P]."""
    if not things:
        return np.full(np.broadcast_shapes(origin.shape, ways.shape)[1], np.inf), np.zeros(1, int)
    distances = np.stack([_meet(thing, origin, ways) for thing in things])
    first = distances.argmin(0)
    return np.take_along_axis(distances, first[None], 0)[0], first


def _meet(thing: Ball | Box, origin: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Distance [P] at which rays from outside (origin [3, 1 or P]) enter, inf where they do not."""
    if isinstance(thing, Ball):
        apart = origin - np.asarray(thing.centre, origin.dtype)[:, None]
        along = (apart * ways).sum(0)
        square = along**2 - (apart**2).sum(0) + thing.radius**2
        enter = -along - np.sqrt(np.maximum(square, 0))
        return np.where((square > 0) & (enter > 0), enter, np.inf)
    enter, leave = _slabs(thing, origin, ways)
    enter, leave = enter.max(0), leave.min(0)
    return np.where((enter < leave) & (enter > 0), enter, np.inf)


def _slabs(box: Box, origin: np.ndarray, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays enter and leave the space between each pair of the box's faces, both [3, P]."""
    turn = _turn(box).astype(ways.dtype)
    origin, ways = turn @ (origin - np.asarray(box.centre, ways.dtype)[:, None]), turn @ ways
    inverse = 1 / np.where(ways == 0, np.finfo(ways.dtype).tiny * 4, ways)
    middle, half = -origin * inverse, np.asarray(box.half, ways.dtype)[:, None] * np.abs(inverse)
    return middle - half, middle + half


def _turn(box: Box) -> np.ndarray:
    """World to the box's own axes, [3, 3]."""
    c, s = math.cos(box.turn), math.sin(box.turn)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


# --- light ----------------------------------------------------------------------------------------------------------


def _shade(things: tuple[Ball | Box, ...], eye: np.ndarray, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours [3, P] in 0..1 as a screen shows them, 0 where nothing is hit; and whether something is, [P]."""
    distance, first = _nearest(things, eye, ways)
    hit = np.isfinite(distance)
    colour = np.zeros_like(ways)
    for number, thing in enumerate(things):
        mine = np.flatnonzero(hit & (first == number))
        if mine.size:
            at = eye + distance[mine] * ways[:, mine]
            others = things[:number] + things[number + 1 :]  # all are convex: nothing shades itself
            colour[:, mine] = _light(thing, others, at, ways[:, mine])
    return colour, hit


def _light(thing: Ball | Box, others: tuple[Ball | Box, ...], at: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Colours [3, P] of the points `at` [3, P] of a thing, seen along `ways`."""
    sun = _SUN.astype(at.dtype)[:, None]
    normal, albedo = _surface(thing, at, ways)
    lit = np.maximum((normal * sun).sum(0), 0)
    lit[lit > 0] *= np.isinf(_nearest(others, at[:, lit > 0], sun)[0])
    half = sun - ways
    half /= np.linalg.norm(half, axis=0)
    shine = thing.gloss * np.maximum((normal * half).sum(0), 0) ** thing.sharp * (lit > 0)
    sky = _SKYLIGHT[:, None] * (0.65 + 0.35 * normal[2]) * _open(others, at, normal)
    edge = thing.gloss * (0.04 + 0.5 * np.clip(1 + (normal * ways).sum(0), 0, 1) ** 5)
    light = albedo * (lit * _SUNLIGHT[:, None] + sky) + shine + edge * sky
    return np.clip(light, 0, 1) ** (1 / 2.2)


def _open(others: tuple[Ball | Box, ...], at: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """The share [P] of the sky that balls leave free: each hides cos(angle) (radius / distance)^2 of it."""
    free = np.ones(at.shape[1], at.dtype)
    for ball in (thing for thing in others if isinstance(thing, Ball)):
        apart = np.asarray(ball.centre, at.dtype)[:, None] - at
        square = (apart**2).sum(0)
        free *= 1 - np.clip((apart * normal).sum(0) / np.sqrt(square), 0, 1) * np.minimum(ball.radius**2 / square, 1)
    return free


def _surface(thing: Ball | Box, at: np.ndarray, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals [3, P] outwards, and albedo [3, P]."""
    colour = np.asarray(thing.colour, at.dtype)[:, None]
    centre = np.asarray(thing.centre, at.dtype)[:, None]
    if isinstance(thing, Ball):
        return (at - centre) / thing.radius, colour
    turn = _turn(thing).astype(at.dtype)
    own = turn @ (at - centre)
    face = np.abs(own / np.asarray(thing.half, at.dtype)[:, None]).argmax(0)
    normal = np.zeros_like(own)
    columns = np.arange(at.shape[1])
    normal[face, columns] = np.sign(own[face, columns])
    if thing.other is not None:
        # A hair's breadth into the box, so that a face of it is on one side of its own edge for every ray.
        odd = np.floor(4 * (own - 1e-3 * normal)[:2] / thing.half[0]).sum(0) % 2 == 1
        colour = np.where(odd, np.asarray(thing.other, at.dtype)[:, None], colour)
    return turn.T @ normal, colour
