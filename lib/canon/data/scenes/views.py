"""Posed pictures of one scene, the training data of view synthesis, whatever format they come from.

A pose is camera to world in OpenGL axes (x right, y up, the camera looks along -z), as in `canon.ops.rays`. Alpha is
straight: the colour of a pixel is that of the object, not blended with a background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from canon import named
from canon.camera import Camera
from canon.data.scenes.framing import Frame
from canon.errors import CanonError, UsageError

_BACKGROUNDS = {'white': 255, 'black': 0}
SPLITS = ('train', 'val', 'test')


class Views(NamedTuple):
    """N pictures of a scene.

    Attributes:
      images: uint8 [N, H, W, 3 or 4], with straight alpha.
      poses: float32 [N, 4, 4], camera to world.
      camera: of all pictures; if they differ, a typical one.
      near, far: limits of the scene along a camera's axis, in the units of the poses.
      times: float32 [N] in [0, 1], for a scene that moves.
      depths: float32 [N, H, W], the Euclidean distance from the camera along the ray of each pixel's centre; inf where
        the ray hits nothing. `axial_depth` converts it to the depth along the axis.
      names: of the pictures' files, or of what they show.
      intrinsics: float32 [N, 4 or 8] as in `Camera.with_intrinsics`, if pictures have cameras of their own.
      frame: what the cameras of all splits look at; None for scenes around the origin.
    """

    images: np.ndarray
    poses: np.ndarray
    camera: Camera
    near: float
    far: float
    times: np.ndarray | None = None
    depths: np.ndarray | None = None
    names: tuple[str, ...] = ()
    intrinsics: np.ndarray | None = None
    frame: Frame | None = None


VIEWS = named.Catalogue(
    'set of views',
    ('canon.data.scenes',),
    lambda function: named.get_return_type(function) is Views and named.accepts(function, 'split'),
)


def load_views(name: str, split: str = 'train', **source: Any) -> Views:
    """Loads the views of one split of a scene.

    Args:
      name: of a public function of `canon.data.scenes` that takes `split` and returns `Views`: 'traced' (embedded),
        'blender', 'ngp', 'llff', 'colmap', or 'capture', any of those four; all but the first take path=.
        'package.module:function' is such a function of any other module.
      split: 'train', 'val' or 'test'.
      source: further arguments of the function.

    Raises:
      UsageError: there is no such name, split or argument.
      CanonError: files do not fit together.
    """
    reader = VIEWS.find(name)
    if split not in SPLITS:
        raise UsageError(f'there is no split {split!r} of views; there are {", ".join(SPLITS)}')
    return check_views(named.call(reader, {'split': split, **source}, f'views {name!r}'), f'views {name!r}')


def check_views(views: Views, what: str) -> Views:
    """Returns `views` if a model can be trained on them.

    Raises:
      CanonError: arrays do not fit together, a pose is not rigid, or a lens cannot be inverted. The line starts with
        `what`.
    """
    images, poses, camera = views.images, views.poses, views.camera
    count, size = len(images), images.shape[1:3]
    if size != tuple(camera.size):
        raise CanonError(f'{what}: pictures are {_size(size)}, but the camera is for {_size(camera.size)}')
    shapes = {'poses': (count, 4, 4), 'times': (count,), 'depths': (count, *size)}
    for field, shape in shapes.items():
        values = getattr(views, field)
        if values is not None and values.shape != shape:
            raise CanonError(f'{what}: {count} pictures need {field} of shape {list(shape)}, got {list(values.shape)}')
    for i in np.flatnonzero(~_are_rigid(poses))[:1]:  # one line for the first is enough to fix the file
        name = views.names[i] if views.names else i
        raise CanonError(
            f'{what}: the pose of {name} is not a rotation and a translation (R^T R = 1, det R = 1); fix the file'
        )
    if views.times is not None and not ((views.times >= 0) & (views.times <= 1)).all():
        raise CanonError(f'{what}: times must be in [0, 1], got {views.times.min():g} to {views.times.max():g}')
    if views.depths is not None and not (views.depths > 0).all():
        raise CanonError(f'{what}: depths must be positive, and inf where a ray hits nothing')
    if not 0 <= views.near < views.far < np.inf:
        raise UsageError(f'{what}: expected 0 <= near < far, got near={views.near:g} and far={views.far:g}')
    _check_lenses(views, what)
    return views


def _check_lenses(views: Views, what: str) -> None:
    """Raises CanonError for intrinsics that are not finite, and for lenses that fold the picture over."""
    each = np.asarray([views.camera.intrinsics] if views.intrinsics is None else views.intrinsics, np.float64)
    if views.intrinsics is not None and (len(each) != len(views.images) or each.shape[1:] not in ((4,), (8,))):
        raise CanonError(f'{what}: {len(views.images)} pictures need intrinsics of [N, 4 or 8], got {each.shape}')
    for i in np.flatnonzero(~np.isfinite(each).all(1) | (each[:, :2] <= 0).any(1))[:1]:
        fx, fy, cx, cy = each[i, :4]
        raise CanonError(
            f'{what}: a focal length is positive and a principal point finite, got {fx:g}, {fy:g} and ({cx:g}, {cy:g})'
        )
    if not each[:, 4:].any():
        return
    height, width = views.camera.size
    # A lens folds from the outside in, so the edge of the picture is where it shows.
    x, y = np.linspace(0, width, 33), np.linspace(0, height, 33)
    edge = np.concatenate([np.stack(np.broadcast_arrays(*at), -1) for at in ((x, 0), (x, height), (0, y), (width, y))])
    plane = (edge - each[:, None, 2:4]) / each[:, None, :2]
    for i in np.flatnonzero(~_is_invertible(plane, each[:, None, 4:]).all(1))[:1]:
        lens = ', '.join(f'{value:g}' for value in each[i, 4:])
        raise CanonError(
            f'{what}: the lens k1, k2, p1, p2 = {lens} folds the picture over before its edge, so pixels there have no '
            'ray; undistort the pictures, or calibrate again'
        )


def _is_invertible(plane: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Returns whether OpenCV's distortion k1, k2, p1, p2 [..., 4] has an inverse from the centre to points [..., 2].

    Follows the inverse along the straight line from the centre by Newton's method. Where a lens folds the picture over,
    the Jacobian of the distortion has a determinant of 0. (`canon.ops.rays.undistort` computes the inverse, in JAX.)
    """
    k1, k2, p1, p2 = np.moveaxis(lens, -1, 0)
    x, y = np.zeros((2, *plane.shape[:-1]))
    invertible = np.ones(plane.shape[:-1], bool)
    # Small steps from the centre outwards keep Newton's method on the branch of the inverse that a lens has.
    for fraction in np.linspace(0, 1, 65)[1:]:
        target_x, target_y = fraction * plane[..., 0], fraction * plane[..., 1]
        for _ in range(4):
            r2 = x * x + y * y
            radial, slope = 1 + r2 * (k1 + k2 * r2), 2 * k1 + 4 * k2 * r2
            error_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) - target_x
            error_y = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y) - target_y
            xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
            xy = x * y * slope + 2 * p1 * x + 2 * p2 * y
            yy = radial + y * y * slope + 2 * p2 * x + 6 * p1 * y
            determinant = xx * yy - xy * xy
            invertible &= determinant > 1e-6
            safe = np.where(invertible, determinant, 1)
            # Points that have met a fold stay where they are: beyond it Newton's method may diverge.
            x = x - np.where(invertible, (yy * error_x - xy * error_y) / safe, 0)
            y = y - np.where(invertible, (xx * error_y - xy * error_x) / safe, 0)
    return invertible


def join_cameras(cameras: Sequence[Camera]) -> tuple[Camera, np.ndarray | None]:
    """Returns one camera and None if all are equal, else a median camera and intrinsics [N, 4 or 8].

    Cameras have one size. The median, component by component, serves for new views.
    """
    if len(set(cameras)) == 1:  # exactly equal: then batches need not carry intrinsics
        return cameras[0], None
    each = np.array([camera.intrinsics for camera in cameras], np.float64)
    # Without distortion, four numbers per ray are sent to the device instead of eight.
    each = each if each[:, 4:].any() else each[:, :4]
    fx, fy, cx, cy, *lens = np.median(each, 0).tolist()
    return Camera((fx, fy), (cx, cy), cameras[0].size, tuple(lens)), each.astype(np.float32)


def take(views: Views, which: Sequence[int] | np.ndarray | slice) -> Views:
    """Returns some of the views, such as a split, or the few views of a few-view run."""
    ids = np.arange(len(views.images))[which]
    rows = {
        name: value[ids]
        for name in ('images', 'poses', 'times', 'depths', 'intrinsics')
        if (value := getattr(views, name)) is not None
    }
    return views._replace(**rows, names=tuple(views.names[i] for i in ids) if views.names else ())


def take_evenly(views: Views, count: int) -> Views:
    """Returns `count` of the views, evenly spaced in their order; all of them if there are not more."""
    if count >= len(views.images):
        return views
    return take(views, np.unique(np.linspace(0, len(views.images) - 1, count).round().astype(int)))


def blend_background(views: Views, background: str | Sequence[int] | None = None) -> np.ndarray:
    """Returns the pictures on a background of one colour, uint8 [N, H, W, 3].

    Args:
      views: the pictures.
      background: 'white', 'black' or three numbers in 0..255, for pictures with alpha; None for pictures without.

    Raises:
      UsageError: a background is given for pictures without alpha, or none for pictures with it.
    """
    alpha = views.images.shape[-1] == 4
    if background is None:
        if alpha:
            raise UsageError("these pictures have alpha: choose the background to put them on, 'white' or 'black'")
        return views.images
    if isinstance(background, str) and background not in _BACKGROUNDS:
        raise UsageError(f"background={background!r} must be 'white', 'black' or three numbers in 0..255")
    if not alpha:
        raise UsageError(f'background={background} needs pictures with alpha, and these have no alpha; set it to None')
    colour = np.broadcast_to(_BACKGROUNDS[background] if isinstance(background, str) else background, 3)
    blended = np.empty((*views.images.shape[:3], 3), np.uint8)
    for out, image in zip(blended, views.images, strict=True):  # one at a time: floats take four times the memory
        opacity = image[..., 3:].astype(np.float32) / 255
        out[...] = np.rint(image[..., :3] * opacity + colour.astype(np.float32) * (1 - opacity))
    return blended


def axial_depth(depths: np.ndarray, camera: Camera) -> np.ndarray:
    """Converts distances along rays [..., H, W] to depths along the camera's axis, float32."""
    if any(camera.distortion):
        raise UsageError('depths along the axis need a camera without distortion; undistort the pictures')
    x, y = (np.arange(n) + 0.5 for n in camera.size[::-1])
    x, y = (x - camera.centre[0]) / camera.focal[0], (y - camera.centre[1]) / camera.focal[1]
    return (depths / np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)).astype(np.float32)


def hold_out(count: int, split: str, every: int) -> np.ndarray:
    """Returns the indices of the views of a split: every `every`-th is held out for 'val' and 'test'."""
    if every < 2:
        raise UsageError(f'hold={every} must be at least 2: 1 of `hold` views is held out; 8 is usual')
    ids = np.arange(count)
    # 'val' and 'test' are the same views, as in NeRF's code for LLFF: a capture has none to spare for both.
    return ids[ids % every != 0] if split == 'train' else ids[::every]


def _are_rigid(poses: np.ndarray) -> np.ndarray:
    """Returns whether each pose [N, 4, 4] is a rotation and a translation, within the precision of text files."""
    rotation = poses[:, :3, :3].astype(np.float64)
    orthogonal = np.abs(rotation.swapaxes(1, 2) @ rotation - np.eye(3)).max((1, 2)) < 1e-3
    proper = np.abs(np.linalg.det(np.nan_to_num(rotation)) - 1) < 1e-2
    return orthogonal & proper & np.isfinite(poses).all((1, 2)) & (np.abs(poses[:, 3] - (0, 0, 0, 1)).max(1) < 1e-6)


def _size(size: tuple[int, ...]) -> str:
    return f'{size[1]}x{size[0]}'
