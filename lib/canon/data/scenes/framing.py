"""Estimates where a capture's cameras look, from the poses alone: a point, the direction up and distances.

Readers derive near and far from it where a format has none, `canon.data.scenes.layouts` moves scenes by it, and
predictions fly about it. Poses are camera to world, [N, 4, 4], as in `canon.data.scenes.views`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_SPREADS = 5.0  # expected distance in standard deviations of the cameras' places, where nothing is known
_MISS = 0.5  # axes that pass the centre by more than this share of that deviation have no common point
_TURNED = 0.02  # mean square of the sine of the turns about up, below which horizontal axes do not tell what is up


class Frame(NamedTuple):
    """centre [3]: the point that the cameras look at. up [3]: a unit vector. nearest, mean, farthest: depths of the
    centre along the cameras' axes. parallel: the axes have no common point, and the depth is a guess."""

    centre: np.ndarray
    up: np.ndarray
    nearest: float
    mean: float
    farthest: float
    parallel: bool


def look_at_frame(poses: np.ndarray, near: float | None = None, far: float | None = None) -> Frame:
    """Returns where cameras look: the point nearest to all of their axes, in the sense of least squares.

    Cameras that look in parallel, or apart, have none. Theirs lies before their mean place, at the harmonic mean of
    near and far if they are given, else at five times the spread of the cameras.
    """
    places, axes = poses[:, :3, 3].astype(float), -poses[:, :3, 2].astype(float)
    spread = float(np.sqrt(places.var(0).sum()))
    across = np.eye(3) - axes[:, :, None] * axes[:, None]  # onto the plane at right angles to each axis
    centre = np.linalg.lstsq(across.sum(0), (across @ places[..., None]).sum(0)[:, 0], rcond=None)[0]
    depths = ((centre - places) * axes).sum(-1)
    misses = np.linalg.norm((across @ (centre - places)[..., None])[..., 0], axis=-1)
    parallel = bool(np.sqrt((misses**2).mean()) >= _MISS * spread or (depths <= 0).any())
    if parallel:
        expected = 2 / (1 / near + 1 / far) if near and far else _SPREADS * (spread or 1.0)
        forward = axes.mean(0) / max(np.linalg.norm(axes.mean(0)), 1e-9)
        centre, depths = places.mean(0) + expected * forward, np.full(len(places), expected)
    return Frame(centre, world_up(poses), float(depths.min()), float(depths.mean()), float(depths.max()), parallel)


def world_up(poses: np.ndarray) -> np.ndarray:
    """Returns the unit vector [3] that is at right angles to the cameras' horizontal axes, as they are held level.

    Where those axes do not tell, as all cameras face one way, it is the mean of the cameras' own up.
    """
    right, up = poses[:, :3, 0].astype(float), poses[:, :3, 1].astype(float).mean(0)
    squares, axes = np.linalg.eigh((right[:, :, None] * right[:, None]).mean(0))
    level = axes[:, 0] if squares[1] > _TURNED else up - (up @ axes[:, 2]) * axes[:, 2]
    length = np.linalg.norm(level)
    level = level / length if length > 1e-6 else axes[:, 0]
    return level if level @ up >= 0 else -level


def look_at(eye: np.ndarray, target: ArrayLike = (0, 0, 0), up: ArrayLike = (0, 0, 1)) -> np.ndarray:
    """Returns the pose float64 [4, 4] of a camera at `eye` [3] that looks at `target`, `up` upright in its picture."""
    back = np.asarray(eye, float) - target
    back /= np.linalg.norm(back)
    right = np.cross(np.asarray(up, float), back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack((right, np.cross(back, right), back, np.asarray(eye, float)), 1)
    return pose


def orbit_poses(poses: np.ndarray, frames: int, frame: Frame | None = None) -> np.ndarray:
    """Returns poses float32 [frames, 4, 4] on a loop about what `poses` look at, as far and as high as those are.

    A circle where the cameras stand all around. Where they leave out more than a third of it, the loop swings to and
    fro over the part from which pictures were taken: the rest has been seen by none. frame: of `look_at_frame`.
    """
    frame = frame or look_at_frame(poses)
    arms = poses[:, :3, 3].astype(float) - frame.centre
    heights = arms @ frame.up
    level = arms - heights[:, None] * frame.up
    first = level.mean(0) if np.linalg.norm(level.mean(0)) > 1e-6 else level[0]
    if np.linalg.norm(first) < 1e-6:  # cameras above the centre: any direction is level
        first = np.cross(frame.up, np.eye(3)[np.abs(frame.up).argmin()])
    first = first / np.linalg.norm(first)
    second = np.cross(frame.up, first)
    angles = np.sort(np.arctan2(level @ second, level @ first))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    widest = gaps.argmax()
    turns = np.arange(frames) * (2 * np.pi / frames)
    if gaps[widest] > 2 * np.pi / 3:
        covered = 2 * np.pi - gaps[widest]
        middle = angles[(widest + 1) % len(angles)] + covered / 2
        turns = middle + covered / 2 * np.sin(turns)
    radius, height = np.linalg.norm(level, axis=-1).mean(), heights.mean()
    around = np.cos(turns)[:, None] * first + np.sin(turns)[:, None] * second
    eyes = frame.centre + radius * around + height * frame.up
    return np.stack([look_at(eye, frame.centre, frame.up) for eye in eyes]).astype(np.float32)
