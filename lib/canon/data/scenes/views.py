"""Pictures of one scene from known places: what view synthesis learns from, whatever format they came in.

A pose is camera to world in OpenGL's axes (x to the right, y up, the camera looks along -z), as in `canon.ops.rays`.
Pixels have a straight alpha where they have one: their colour is that of what is seen, not mixed with a background.
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

    images: uint8 [N, H, W, 3 or 4], straight alpha. poses: float32 [N, 4, 4]. near, far: depths along a camera's axis
    between which the scene is, in the units of the poses. times: float32 [N] in [0, 1] of a scene that moves. depths:
    float32 [N, H, W], the Euclidean distance from the camera through the middle of each pixel, inf where nothing is hit
    (`axial` gives the depth along the axis). names: of the pictures' files, or what they show.

    camera: of all pictures, or where each has its own a typical one; theirs are `intrinsics`, float32 [N, 4 or 8], as
    in `Camera.with_intrinsics`. frame: where the cameras of all splits look, None for scenes about the origin.
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
    lambda function: named.returns(function) is Views and named.accepts(function, 'split'),
)


def load(name: str, split: str = 'train', **source: Any) -> Views:
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
    return check(named.call(reader, {'split': split, **source}, f'views {name!r}'), f'views {name!r}')


def check(views: Views, what: str) -> Views:
    """Returns `views` if they can be learnt from. Raises CanonError with one line that begins with `what`."""
    images, poses, camera = views.images, views.poses, views.camera
    count, size = len(images), images.shape[1:3]
    if size != tuple(camera.size):
        raise CanonError(f'{what}: pictures are {_size(size)}, the camera says {_size(camera.size)}')
    shapes = {'poses': (count, 4, 4), 'times': (count,), 'depths': (count, *size)}
    for field, shape in shapes.items():
        values = getattr(views, field)
        if values is not None and values.shape != shape:
            raise CanonError(f'{what}: {count} pictures need {field} of {list(shape)}, not {list(values.shape)}')
    for i in np.flatnonzero(~_rigid(poses))[:1]:
        name = views.names[i] if views.names else i
        raise CanonError(
            f'{what}: the pose of {name} is no rotation with a place (R^T R = 1, det R = 1); mend the file'
        )
    if views.times is not None and not ((views.times >= 0) & (views.times <= 1)).all():
        raise CanonError(f'{what}: times must be in [0, 1], got {views.times.min():g} to {views.times.max():g}')
    if views.depths is not None and not (views.depths > 0).all():
        raise CanonError(f'{what}: depths must be above 0, and inf where nothing is hit')
    if not 0 <= views.near < views.far < np.inf:
        raise UsageError(f'{what}: 0 <= near < far is wanted, not near={views.near:g} and far={views.far:g}')
    _check_lenses(views, what)
    return views


def _check_lenses(views: Views, what: str) -> None:
    """Raises CanonError for intrinsics that are not finite, and for lenses that cannot be undone over the picture."""
    each = np.asarray([views.camera.intrinsics] if views.intrinsics is None else views.intrinsics, np.float64)
    if views.intrinsics is not None and (len(each) != len(views.images) or each.shape[1:] not in ((4,), (8,))):
        raise CanonError(f'{what}: {len(views.images)} pictures need intrinsics of [N, 4 or 8], not {each.shape}')
    for i in np.flatnonzero(~np.isfinite(each).all(1) | (each[:, :2] <= 0).any(1))[:1]:
        fx, fy, cx, cy = each[i, :4]
        raise CanonError(
            f'{what}: a focal length is positive and a principal point finite, not {fx:g}, {fy:g} and ({cx:g}, {cy:g})'
        )
    if not each[:, 4:].any():
        return
    from canon.ops import rays  # needs JAX, which pictures without distortion do not

    height, width = views.camera.size
    x, y = np.linspace(0, width, 33), np.linspace(0, height, 33)
    edge = np.concatenate([np.stack(np.broadcast_arrays(*at), -1) for at in ((x, 0), (x, height), (0, y), (width, y))])
    ways = np.asarray(rays.unproject(views.camera.with_intrinsics(each[:, None]), edge.astype(np.float32)))
    for i in np.flatnonzero(~np.isfinite(ways).all((1, 2)))[:1]:
        lens = ', '.join(f'{value:g}' for value in each[i, 4:])
        raise CanonError(
            f'{what}: the lens k1, k2, p1, p2 = {lens} folds the picture over before its edge, so pixels there have no '
            'ray; undistort the pictures, or calibrate again'
        )


def join_cameras(cameras: Sequence[Camera]) -> tuple[Camera, np.ndarray | None]:
    """Returns one camera for all pictures and None, or where they differ a median one and intrinsics [N, 4 or 8].

    Cameras have one size. The median, component by component, serves for new views.
    """
    if len(set(cameras)) == 1:
        return cameras[0], None
    each = np.array([camera.intrinsics for camera in cameras], np.float64)
    each = each if each[:, 4:].any() else each[:, :4]
    fx, fy, cx, cy, *lens = np.median(each, 0).tolist()
    return Camera((fx, fy), (cx, cy), cameras[0].size, tuple(lens)), each.astype(np.float32)


def take(views: Views, which: Sequence[int] | np.ndarray | slice) -> Views:
    """Some of the views: a split, or the few that a few-view run may see."""
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


def colours(views: Views, background: str | Sequence[int] | None = None) -> np.ndarray:
    """uint8 [N, H, W, 3]: the pictures on a background of one colour.

    background: 'white', 'black' or three numbers of 0..255, for pictures with alpha; None for pictures without.
    Raises UsageError where one is asked for and there is no alpha to see it through, or the other way round.
    """
    alpha = views.images.shape[-1] == 4
    if background is None:
        if alpha:
            raise UsageError("these pictures have alpha: say the background to put them on, 'white' or 'black'")
        return views.images
    if isinstance(background, str) and background not in _BACKGROUNDS:
        raise UsageError(f"a background is 'white', 'black' or three numbers of 0..255, not {background!r}")
    if not alpha:
        raise UsageError(f'a background ({background}) is asked for, and these pictures have no alpha; set it to None')
    behind = np.broadcast_to(_BACKGROUNDS[background] if isinstance(background, str) else background, 3)
    mixed = np.empty((*views.images.shape[:3], 3), np.uint8)
    for out, image in zip(mixed, views.images, strict=True):  # one at a time: floats take four times the memory
        opaque = image[..., 3:].astype(np.float32) / 255
        out[...] = np.rint(image[..., :3] * opaque + behind.astype(np.float32) * (1 - opaque))
    return mixed


def axial(depths: np.ndarray, camera: Camera) -> np.ndarray:
    """Depths [.., H, W] along the camera's axis, of those along the rays; without distortion only."""
    if any(camera.distortion):
        raise UsageError('depths along the axis are made for cameras without distortion only')
    x, y = (np.arange(n) + 0.5 for n in camera.size[::-1])
    x, y = (x - camera.centre[0]) / camera.focal[0], (y - camera.centre[1]) / camera.focal[1]
    return (depths / np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)).astype(np.float32)


def hold_out(count: int, split: str, every: int) -> np.ndarray:
    """The numbers of the views of `split`: each `every`-th is held out for 'val' and 'test', 'train' has the rest."""
    if every < 2:
        raise UsageError(f'hold={every}: each 2nd view or fewer can be held out; 8 is usual')
    ids = np.arange(count)
    return ids[ids % every != 0] if split == 'train' else ids[::every]


def _rigid(poses: np.ndarray) -> np.ndarray:
    """Whether each of [N, 4, 4] is a rotation and a translation, to the digits that files keep of them."""
    turn = poses[:, :3, :3].astype(np.float64)
    square = np.abs(turn.swapaxes(1, 2) @ turn - np.eye(3)).max((1, 2)) < 1e-3
    proper = np.abs(np.linalg.det(np.nan_to_num(turn)) - 1) < 1e-2
    return square & proper & np.isfinite(poses).all((1, 2)) & (np.abs(poses[:, 3] - (0, 0, 0, 1)).max(1) < 1e-6)


def _size(size: tuple[int, ...]) -> str:
    return f'{size[1]}x{size[0]}'
