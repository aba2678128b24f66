"""Estimates from poses alone what the cameras of a capture look at: a point, the up direction and depths.

Readers derive near and far from it if a format has neither, `canon.data.scenes.layouts` normalises scenes by it, and
orbits circle around it. Poses are camera to world, [N, 4, 4], as in `canon.data.scenes.views`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_SPREADS = 5.0  # assumed distance of the scene in standard deviations of the camera positions, if nothing is known
_MISS = 0.5  # axes that miss the centre by more than this fraction of that deviation have no common point
_MIN_TURN = 0.02  # mean squared sine of turns about up, below which horizontal axes do not determine up
_OPEN_GAP = 2 * np.pi / 3  # a gap between cameras, as an angle on their circle, that an orbit does not cross


class Frame(NamedTuple):
    """The region that cameras look at: its centre, the up direction, and depths.

    Attributes:
      centre: [3], the point closest to all optical axes.
      up: [3], a unit vector.
      nearest, mean, farthest: depths of the centre along the optical axes.
      parallel: the axes have no common point, and the depths are a guess.
    """

    centre: np.ndarray
    up: np.ndarray
    nearest: float
    mean: float
    farthest: float
    parallel: bool


def look_at_frame(poses: np.ndarray, near: float | None = None, far: float | None = None) -> Frame:
    """Estimates what cameras look at: the point closest to all optical axes, in the sense of least squares.

    Cameras with parallel or diverging axes have none. Their centre is put in front of their mean position, at the
    harmonic mean of near and far if those are given, else at five times the spread of the cameras.
    """
    positions, axes = poses[:, :3, 3].astype(float), -poses[:, :3, 2].astype(float)
    spread = float(np.sqrt(positions.var(0).sum()))
    across = np.eye(3) - axes[:, :, None] * axes[:, None]  # projections onto the plane perpendicular to each axis
    # The squared distance of a point to an axis is a quadratic form of that projection: the normal equations of their
    # sum.
    centre = np.linalg.lstsq(across.sum(0), (across @ positions[..., None]).sum(0)[:, 0], rcond=None)[0]
    depths = ((centre - positions) * axes).sum(-1)
    misses = np.linalg.norm((across @ (centre - positions)[..., None])[..., 0], axis=-1)
    parallel = bool(np.sqrt((misses**2).mean()) >= _MISS * spread or (depths <= 0).any())
    if parallel:
        expected = 2 / (1 / near + 1 / far) if near and far else _SPREADS * (spread or 1.0)
        forward = axes.mean(0) / max(np.linalg.norm(axes.mean(0)), 1e-9)
        centre, depths = positions.mean(0) + expected * forward, np.full(len(positions), expected)
    return Frame(centre, world_up(poses), float(depths.min()), float(depths.mean()), float(depths.max()), parallel)


def world_up(poses: np.ndarray) -> np.ndarray:
    """Returns the unit vector [3] that is most perpendicular to the cameras' horizontal axes: cameras are held level.

    If those axes do not determine it, since all cameras face one way, it is the mean of the cameras' own up.
    """
    right, up = poses[:, :3, 0].astype(float), poses[:, :3, 1].astype(float).mean(0)
    # The least eigenvalue belongs to the direction that all right axes avoid: the vertical.
    squares, axes = np.linalg.eigh((right[:, :, None] * right[:, None]).mean(0))
    level = axes[:, 0] if squares[1] > _MIN_TURN else up - (up @ axes[:, 2]) * axes[:, 2]
    length = np.linalg.norm(level)
    level = level / length if length > 1e-6 else axes[:, 0]
    return level if level @ up >= 0 else -level


def make_pose(back: np.ndarray, up: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Returns the pose float64 [4, 4] of a camera at `position` [3] that looks against `back` [3].

    up: [3], vertical in the picture; neither it nor `back` need be normalised or perpendicular to the other.
    """
    back = back / np.linalg.norm(back)
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack((right, np.cross(back, right), back, position), 1)
    return pose


def look_at(eye: np.ndarray, target: ArrayLike = (0, 0, 0), up: ArrayLike = (0, 0, 1)) -> np.ndarray:
    """Returns the pose float64 [4, 4] of a camera at `eye` [3] that looks at `target`, with `up` vertical."""
    eye = np.asarray(eye, float)
    return make_pose(eye - target, np.asarray(up, float), eye)


def orbit_poses(poses: np.ndarray, frames: int, frame: Frame | None = None) -> np.ndarray:
    """Returns poses float32 [frames, 4, 4] on a loop around what `poses` look at, at their mean distance and height.

    The loop is a circle if the cameras stand all around. If they leave more than a third of it empty, the loop swings
    back and forth over the covered part: no picture shows the rest.

    Args:
      poses: of the pictures, [N, 4, 4].
      frames: poses of the loop.
      frame: that of `look_at_frame`, which is estimated from `poses` if None.
    """
    frame = frame or look_at_frame(poses)
    offsets = poses[:, :3, 3].astype(float) - frame.centre
    heights = offsets @ frame.up
    level = offsets - heights[:, None] * frame.up
    first = level.mean(0) if np.linalg.norm(level.mean(0)) > 1e-6 else level[0]
    if np.linalg.norm(first) < 1e-6:  # cameras straight above the centre: any horizontal direction will do
        first = np.cross(frame.up, np.eye(3)[np.abs(frame.up).argmin()])
    first = first / np.linalg.norm(first)
    second = np.cross(frame.up, first)
    angles = np.sort(np.arctan2(level @ second, level @ first))
    gaps = np.diff(angles, append=angles[0] + 2 * np.pi)
    widest = gaps.argmax()
    turns = np.arange(frames) * (2 * np.pi / frames)
    if gaps[widest] > _OPEN_GAP:
        covered = 2 * np.pi - gaps[widest]
        middle = angles[(widest + 1) % len(angles)] + covered / 2
        # The swing slows down at its ends, and the loop closes without a jump.
        turns = middle + covered / 2 * np.sin(turns)
    radius, height = np.linalg.norm(level, axis=-1).mean(), heights.mean()
    circle = np.cos(turns)[:, None] * first + np.sin(turns)[:, None] * second
    eyes = frame.centre + radius * circle + height * frame.up
    return np.stack([look_at(eye, frame.centre, frame.up) for eye in eyes]).astype(np.float32)
