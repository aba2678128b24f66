"""A capture in whatever layout it is kept, recognised from its files and moved to where a field in a box expects it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from canon import named
from canon.data.images import image_files
from canon.data.scenes import captures
from canon.data.scenes.colmap import colmap
from canon.data.scenes.framing import Frame
from canon.data.scenes.views import Views
from canon.errors import CanonError, UsageError

_LONGEST = 256  # pixels of a side: pictures are made smaller by the least whole factor that gives them so many
_UNBOUNDED = 100.0  # far, in units of the normalised scene, for pictures without alpha: they show what is behind, too
_NEAR = 0.25  # share of the least depth of what the cameras look at, where a layout knows nothing of what is near
_ROOM = 1.25  # radii about the centre in which an object with alpha lies
_LAYOUTS: dict[str, Callable[..., Views]] = {
    'blender': captures.blender,
    'ngp': captures.ngp,
    'llff': captures.llff,
    'colmap': colmap,
}


def capture(
    path: str,
    split: str = 'train',
    layout: str | None = None,
    factor: int | None = None,
    hold: int = 8,
    near: float | None = None,
    far: float | None = None,
    images: str = 'images',
) -> Views:
    """The views of a capture in one of four layouts, its scene about the origin with z up (`normalise`).

    Args:
      path: its folder, or a transforms.json.
      split: 'train', 'val' or 'test'.
      layout: 'blender', 'ngp', 'colmap' or 'llff'; None takes the first of them whose files are there.
      factor: pictures are made that many times smaller; None chooses, so that their longer side has 256 pixels or less.
      hold: each `hold`-th view is held out, where the layout has no splits of its own.
      near, far: in the units of the capture; None derives them from its points, its bounds or what its cameras look at.
      images: COLMAP's folder of pictures.

    Raises CanonError where no layout is recognised, and what the layout's reader raises.
    """
    name, file = recognise(path) if layout is None else (layout, None)
    if name not in _LAYOUTS:
        raise UsageError(f'layout={name!r}{named.suggest(name, _LAYOUTS)}; there are {", ".join(_LAYOUTS)}')
    if name == 'llff' and (near is not None or far is not None):
        raise UsageError("near and far of LLFF's captures are those of their poses_bounds.npy; leave them out")
    chosen = factor or _choose_factor(path, name, images)
    logging.getLogger('canon').info('%s is read as %s, pictures %d times smaller', path, name, chosen)
    given = {key: value for key, value in (('near', near), ('far', far)) if value is not None}
    more: dict[str, dict[str, Any]] = {
        'blender': given,
        'ngp': dict(hold=hold, **given),
        'llff': dict(hold=hold),
        'colmap': dict(hold=hold, images=images, **given) | ({'model': file} if file else {}),
    }
    views = _LAYOUTS[name](str(path), split, factor=chosen, **more[name])
    measured = name in ('llff', 'colmap') or near is not None
    return normalise(views, views.near if measured else None, None if far is None else views.far)


def recognise(path: str | Path) -> tuple[str, str | None]:
    """Returns the layout of a capture, and where below it COLMAP's model is."""
    root = Path(path).expanduser()
    if root.suffix == '.json' and root.is_file():
        return 'ngp', None
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    if (root / 'transforms_train.json').is_file():
        return 'blender', None
    if (root / 'transforms.json').is_file():
        return 'ngp', None
    for model in ('sparse/0', 'sparse', 'colmap/sparse/0'):  # it has the lens and the points, which LLFF's file has not
        if any((root / model / f'cameras{suffix}').is_file() for suffix in ('.bin', '.txt')):
            return 'colmap', model
    if (root / 'poses_bounds.npy').is_file():
        return 'llff', None
    raise CanonError(
        f'{root} has none of transforms_train.json, transforms.json, sparse/0/cameras.bin and poses_bounds.npy: '
        "run COLMAP on its pictures first, or instant-ngp's colmap2nerf.py"
    )


def normalise(views: Views, near: float | None = None, far: float | None = None) -> Views:
    """Returns the same views of a scene that is moved, turned and scaled: a similarity, which no picture shows.

    What the cameras look at is at the origin, and up is z. For pictures without alpha 1 is the mean depth of the
    origin, and far has no bound (`rays.contract` is for what is beyond 1). For those with alpha 1 is the radius of the
    ball that a camera at that depth sees. near, far: in units of `views`, of a scene for which they are known.
    """
    frame = views.frame
    if frame is None:
        raise UsageError('these views have no frame, which readers of captures give')
    alpha = views.images.shape[-1] == 4
    height, width = views.camera.size
    reach = min(height / views.camera.focal[1], width / views.camera.focal[0]) / 2
    scale = 1 / (frame.mean * reach if alpha else frame.mean)
    turn = _turn_upright(frame.up)
    poses = views.poses.astype(np.float64)
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] = scale * (poses[:, :3, 3] - frame.centre) @ turn.T
    nearest, farthest = scale * frame.nearest, scale * frame.farthest
    guesses = (max(nearest - _ROOM, _NEAR * nearest), farthest + _ROOM) if alpha else (_NEAR * nearest, _UNBOUNDED)
    near, far = (guess if given is None else scale * given for given, guess in zip((near, far), guesses, strict=True))
    moved = Frame(np.zeros(3), np.array([0.0, 0, 1]), nearest, scale * frame.mean, farthest, frame.parallel)
    depths = None if views.depths is None else views.depths * np.float32(scale)
    return views._replace(poses=poses.astype(np.float32), near=near, far=far, depths=depths, frame=moved)


def _turn_upright(up: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] that brings `up` to z by the shortest way."""
    z = np.array([0.0, 0, 1])
    axis, cosine = np.cross(up, z), float(up @ z)
    if cosine < -1 + 1e-9:
        return np.diag([1.0, -1, -1])
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)  # Rodrigues' formula


def _choose_factor(path: str | Path, layout: str, images: str) -> int:
    root = Path(path).expanduser()
    if layout in ('blender', 'ngp'):
        name = 'transforms_train.json' if layout == 'blender' else 'transforms.json'
        paths = captures.picture_paths(root if root.suffix == '.json' else root / name)
    else:
        paths = sorted(p for p in image_files.images_below(root / images))
    first = next((p for p in paths if p.is_file()), None)
    if first is None:
        return 1  # the reader says what is missing
    head = image_files.head(image_files.read_encoded(first))
    return math.ceil(max(head.height, head.width) / _LONGEST)
