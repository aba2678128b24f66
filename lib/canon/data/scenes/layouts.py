"""Reads a capture in any known layout, recognised by its files, and normalises its scene for a field in a box."""

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

_LONGEST_SIDE = 256  # pixels: the default factor is the smallest that brings pictures within it
_UNBOUNDED = 100.0  # far of a normalised scene whose pictures have no alpha and so show the surroundings
_NEAR = 0.25  # near in least depths of what the cameras look at, if a layout does not determine it
_OBJECT_RADIUS = 1.25  # of an object with alpha, about the centre; the cameras see a ball of radius 1
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
    """Reads a capture in one of four layouts and normalises its scene: about the origin, with z up (`normalise_scene`).

    Args:
      path: its folder, or a transforms.json.
      split: 'train', 'val' or 'test'.
      layout: 'blender', 'ngp', 'colmap' or 'llff'; None takes the first of them whose files exist.
      factor: divides the size of the pictures; None brings the longer side to 256 pixels or fewer.
      hold: every `hold`-th view is held out, if the layout has no splits of its own.
      near, far: in the units of the capture; None derives them from its points, its bounds or what its cameras look at.
      images: the folder of pictures of a COLMAP capture.

    Raises:
      CanonError: no layout is recognised, or the layout's reader fails.
    """
    name, file = recognise(path) if layout is None else (layout, None)
    if name not in _LAYOUTS:
        raise UsageError(f'layout={name!r}{named.suggest(name, _LAYOUTS)}; there are {", ".join(_LAYOUTS)}')
    if name == 'llff' and (near is not None or far is not None):
        raise UsageError("near and far of LLFF's captures are those of their poses_bounds.npy; do not set them")
    chosen = factor or _choose_factor(path, name, images)
    logging.getLogger('canon').info('reading %s as %s, pictures %d times smaller', path, name, chosen)
    limits = {key: value for key, value in (('near', near), ('far', far)) if value is not None}
    arguments: dict[str, dict[str, Any]] = {
        'blender': limits,
        'ngp': dict(hold=hold, **limits),
        'llff': dict(hold=hold),
        'colmap': dict(hold=hold, images=images, **limits) | ({'model': file} if file else {}),
    }
    views = _LAYOUTS[name](str(path), split, factor=chosen, **arguments[name])
    # A default of the reader is not a measurement: it is replaced by a guess from the normalised frame.
    near_is_known = name in ('llff', 'colmap') or near is not None
    return normalise_scene(views, views.near if near_is_known else None, None if far is None else views.far)


def recognise(path: str | Path) -> tuple[str, str | None]:
    """Returns the layout of a capture, and the path of COLMAP's model within it.

    Raises:
      UsageError: the folder does not exist.
      CanonError: no known layout fits.
    """
    root = Path(path).expanduser()
    if root.suffix == '.json' and root.is_file():
        return 'ngp', None
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    if (root / 'transforms_train.json').is_file():
        return 'blender', None
    if (root / 'transforms.json').is_file():
        return 'ngp', None
    for model in ('sparse/0', 'sparse', 'colmap/sparse/0'):  # before LLFF's file, which has neither lens nor points
        if any((root / model / f'cameras{suffix}').is_file() for suffix in ('.bin', '.txt')):
            return 'colmap', model
    if (root / 'poses_bounds.npy').is_file():
        return 'llff', None
    raise CanonError(
        f'{root} has none of transforms_train.json, transforms.json, sparse/0/cameras.bin and poses_bounds.npy: '
        "run COLMAP or instant-ngp's colmap2nerf.py on its pictures first"
    )


def normalise_scene(views: Views, near: float | None = None, far: float | None = None) -> Views:
    """Moves, rotates and scales a scene: a similarity, which leaves the pictures as they are.

    What the cameras look at becomes the origin, and up becomes z. If pictures have no alpha, the unit is the mean depth
    of the origin, and far is unbounded in practice: use `canon.ops.rays.contract`. If they have alpha, the unit is the
    radius of the ball around the origin that a camera at the mean depth sees.

    Args:
      views: of a capture, with a `frame`.
      near, far: limits in the units of `views`; None derives them.
    """
    frame = views.frame
    if frame is None:
        raise UsageError('these views have no frame; normalise views from a reader of captures')
    alpha = views.images.shape[-1] == 4
    height, width = views.camera.size
    # The tangent of half the smaller angle of view: what a camera sees at depth 1.
    reach = min(height / views.camera.focal[1], width / views.camera.focal[0]) / 2
    scale = 1 / (frame.mean * reach if alpha else frame.mean)
    rotation = _rotate_to_z(frame.up)
    poses = views.poses.astype(np.float64)
    poses[:, :3, :3] = rotation @ poses[:, :3, :3]
    poses[:, :3, 3] = scale * (poses[:, :3, 3] - frame.centre) @ rotation.T
    nearest, farthest = scale * frame.nearest, scale * frame.farthest
    guesses = (
        (max(nearest - _OBJECT_RADIUS, _NEAR * nearest), farthest + _OBJECT_RADIUS)
        if alpha
        else (_NEAR * nearest, _UNBOUNDED)
    )
    near, far = (guess if given is None else scale * given for given, guess in zip((near, far), guesses, strict=True))
    normalised = Frame(np.zeros(3), np.array([0.0, 0, 1]), nearest, scale * frame.mean, farthest, frame.parallel)
    depths = None if views.depths is None else views.depths * np.float32(scale)
    return views._replace(poses=poses.astype(np.float32), near=near, far=far, depths=depths, frame=normalised)


def _rotate_to_z(up: np.ndarray) -> np.ndarray:
    """Returns the smallest rotation [3, 3] that maps the unit vector `up` to z."""
    z = np.array([0.0, 0, 1])
    axis, cosine = np.cross(up, z), float(up @ z)
    # The formula divides by 1 + cosine; a half turn about x is one of many answers.
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
        paths = sorted(p for p in image_files.find_images(root / images))
    first = next((p for p in paths if p.is_file()), None)
    if first is None:
        return 1  # the reader reports what is missing
    head = image_files.read_head(image_files.read_encoded(first))
    return math.ceil(max(head.height, head.width) / _LONGEST_SIDE)
