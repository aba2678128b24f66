"""Pictures with their cameras as others keep them: Blender's and instant-ngp's transforms, LLFF's poses_bounds.npy.

Each reader takes a folder and gives one split of it. Where the format has no splits, each `hold`-th view is held out
for 'val' and 'test'. factor: pictures and camera that many times smaller. near, far: of the scene, None as it says.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from canon.camera import Camera
from canon.data import files
from canon.data.views import Views, hold_out
from canon.errors import CanonError, UsageError

_LENS = ('k1', 'k2', 'p1', 'p2')
_FLAT = ('OPENCV', 'PINHOLE', 'SIMPLE_PINHOLE', 'SIMPLE_RADIAL', 'RADIAL')  # camera_model, as nerfstudio names it
_OPENED = (OSError, ValueError, SyntaxError)


def blender(path: str, split: str = 'train', near: float = 2.0, far: float = 6.0, factor: int = 1) -> Views:
    """transforms_{split}.json of the NeRF paper's synthetic scenes: RGBA pictures, one angle of view for all.

    A frame may have a 'time', as D-NeRF's scenes do; a file `<picture>_depth.npy` is its depth, as `traced.write`
    leaves it. Raises CanonError for a missing file and pictures of different sizes.
    """
    root = _folder(path)
    said = _json(root / f'transforms_{split}.json')
    frames = _frames(said, root / f'transforms_{split}.json')
    paths = [_picture(root, frame) for frame in frames]
    images, (height, width) = pictures(paths, factor)
    angle = float(_entry(said, 'camera_angle_x', root / f'transforms_{split}.json'))
    focal = 0.5 * width / math.tan(0.5 * angle)
    camera = Camera((focal, focal), (width / 2, height / 2), (height, width)).resized(images.shape[1:3])
    times = np.asarray([frame['time'] for frame in frames], np.float32) if all('time' in f for f in frames) else None
    depths = [p.with_name(f'{p.stem}_depth.npy') for p in paths]
    known = factor == 1 and all(p.exists() for p in depths)  # a mean over an edge is the depth of nothing
    return Views(
        images, _matrices(frames), camera, near, far, times,
        np.stack([np.load(p) for p in depths]).astype(np.float32) if known else None,
        tuple(str(p.relative_to(root)) if p.is_relative_to(root) else str(p) for p in paths),
    )  # fmt: skip


def ngp(
    path: str,
    split: str = 'train',
    near: float | None = None,
    far: float | None = None,
    factor: int = 1,
    hold: int = 8,
) -> Views:
    """transforms.json of instant-ngp and nerfstudio: `fl_x fl_y cx cy w h k1 k2 p1 p2`, or camera_angle_x alone.

    path: its folder, or the file itself. Frames without a picture are left out with a warning that counts them, as the
    format wants it. near and far are 0.1 and 2 times the cameras' mean distance from their middle unless given.
    Raises CanonError for frames with cameras of their own, and for distortion beyond k1, k2, p1, p2.
    """
    file = Path(path).expanduser()
    file = file if file.suffix == '.json' else _folder(path) / 'transforms.json'
    said = _json(file)
    frames = _frames(said, file)
    found = [frame for frame in frames if _picture(file.parent, frame).is_file()]
    if not found:
        raise CanonError(f'{file} names {len(frames)} pictures, and none of them exists; mend its file_path entries')
    if len(found) < len(frames):
        logging.getLogger('canon').warning(
            '%d of %d frames of %s have no picture: left out', len(frames) - len(found), len(frames), file
        )
    own = sorted({key for frame in found for key in ('fl_x', 'fl_y', 'cx', 'cy', *_LENS) if key in frame})
    if own:
        raise CanonError(f'{file}: frames have a camera each ({", ".join(own)}); one camera for all is what is read')
    found.sort(key=lambda frame: frame['file_path'])
    poses, chosen = _matrices(found), hold_out(len(found), split, hold)
    paths = [_picture(file.parent, found[i]) for i in chosen]
    images, size = pictures(paths, factor)
    camera = _ngp_camera(said, size, file).resized(images.shape[1:3])
    apart = float(np.linalg.norm(poses[:, :3, 3] - poses[:, :3, 3].mean(0), axis=1).mean())
    near, far = 0.1 * apart if near is None else near, 2 * apart if far is None else far
    return Views(images, poses[chosen], camera, near, far, names=tuple(found[i]['file_path'] for i in chosen))


def llff(
    path: str,
    split: str = 'train',
    factor: int = 4,
    hold: int = 8,
    bound: float = 0.75,
    recentre: bool = True,
) -> Views:
    """poses_bounds.npy of LLFF's forward-facing scenes, as NeRF's code reads it.

    The scene is scaled by 1 / (nearest bound * `bound`) and turned so that the mean camera stands at the origin and
    looks along -z, which normalised device coordinates need. near and far are 0.9 and 1 times the scaled bounds (in
    device coordinates: 0 and 1, with the near plane at 1). Pictures are those of `images_<factor>/`, or of `images/`,
    made smaller here.
    """
    root = _folder(path)
    file = root / 'poses_bounds.npy'
    if not file.is_file():
        raise CanonError(f"there is no {file}; LLFF's imgs2poses.py makes it")
    rows = np.load(file)
    if rows.ndim != 2 or rows.shape[1] != 17:
        raise CanonError(f'{file} is [N, 17] (a 3x5 matrix and two bounds for each picture), not {list(rows.shape)}')
    matrices, bounds = rows[:, :15].reshape(-1, 3, 5).astype(np.float64), rows[:, 15:]
    small = root / f'images_{factor}'
    below = small if factor > 1 and small.is_dir() else root / 'images'
    paths = sorted(p for p in files.images_below(_folder(below)) if p.parent == below)
    if len(paths) != len(rows):
        raise CanonError(f'{file} has {len(rows)} poses, and {below} {len(paths)} pictures; they are matched in order')
    if not 0 < bounds.min() < bounds.max():
        raise CanonError(f'{file}: 0 < near < far is wanted, not {bounds.min():g} and {bounds.max():g}')
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    down, right, back, place = (matrices[:, :, i] for i in range(4))
    poses[:, :3] = np.stack((right, -down, back, place), -1)
    scale = 1 / (bounds.min() * bound)
    poses[:, :3, 3] *= scale
    poses = recentred(poses) if recentre else poses
    chosen = hold_out(len(rows), split, hold)
    images, _ = pictures([paths[i] for i in chosen], 1 if below == small else factor)
    focal, size = float(matrices[0, 2, 4]) / factor, images.shape[1:3]
    camera = Camera((focal, focal), (size[1] / 2, size[0] / 2), size)
    near, far = 0.9 * scale * bounds.min(), scale * bounds.max()
    return Views(
        images,
        poses[chosen].astype(np.float32),
        camera,
        float(near),
        float(far),
        names=tuple(paths[i].name for i in chosen),
    )


def recentred(poses: np.ndarray) -> np.ndarray:
    """Poses [N, 4, 4] seen from their mean: its axes are the mean view, a right angle to the mean up, and the third."""
    back = poses[:, :3, 2].sum(0)
    back /= np.linalg.norm(back)
    right = np.cross(poses[:, :3, 1].sum(0), back)
    right /= np.linalg.norm(right)
    mean = np.eye(4)
    mean[:3] = np.stack((right, np.cross(back, right), back, poses[:, :3, 3].mean(0)), 1)
    return np.linalg.inv(mean) @ poses


# --- files ----------------------------------------------------------------------------------------------------------


def pictures(paths: Sequence[Path], factor: int = 1) -> tuple[np.ndarray, tuple[int, int]]:
    """uint8 [N, H, W, 3 or 4] of the files, `factor` times smaller, and their size (H, W) on disk.

    Alpha is kept where all have it.
    Raises CanonError without any, and naming a file that is missing or of another size than the first.
    """
    if factor < 1:
        raise UsageError(f'factor={factor}: pictures are made 1, 2, 3.. times smaller')
    if not paths:
        raise CanonError('no picture is left in this split: name some in its file, or hold fewer out')
    read = [_pixels(path) for path in paths]
    for path, image in zip(paths, read, strict=True):
        if image.shape[:2] != read[0].shape[:2]:
            a, b = (f'{i.shape[1]}x{i.shape[0]}' for i in (read[0], image))
            raise CanonError(f'{path} is {b} and {paths[0].name} is {a}; views of one camera have one size')
    channels = min(image.shape[2] for image in read)
    height, width = read[0].shape[:2]
    return np.stack([_smaller(image[..., :channels], factor) for image in read]), (height, width)


def _pixels(path: Path) -> np.ndarray:
    """uint8 [H, W, 3], or 4 where the file has alpha. Not turned as EXIF says: cameras are those of the pixels."""
    if not path.is_file():
        raise CanonError(f'there is no picture {path}, which the cameras name; restore it, or take its entry out')
    encoded = files.read_encoded(path)
    encoded.turn = False
    with suppress(*_OPENED), Image.open(io.BytesIO(encoded)) as opened:
        if opened.has_transparency_data:
            return np.asarray(opened.convert('RGBA'))
    return files.decode(encoded)  # raises for what cannot be read


def _smaller(image: np.ndarray, factor: int) -> np.ndarray:
    """Means of areas; a colour weighs as much as it is opaque."""
    if factor == 1:
        return image
    size = image.shape[1] // factor, image.shape[0] // factor
    if image.shape[2] == 3:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    pixels = image.astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    pixels[..., :3] *= 255 / np.maximum(pixels[..., 3:], 1e-6)
    return np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


def _folder(path: str | Path) -> Path:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    return root


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CanonError(f'there is no {file}')
    try:
        said = json.loads(file.read_text())
    except ValueError as error:
        raise CanonError(f'{file} is no JSON ({error})') from error
    if not isinstance(said, dict):
        raise CanonError(f'{file}: an object with frames is wanted')
    return said


def _entry(said: dict[str, Any], key: str, file: Path) -> Any:
    if key not in said:
        raise CanonError(f'{file} has no {key!r}')
    return said[key]


def _frames(said: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    frames = _entry(said, 'frames', file)
    for i, frame in enumerate(frames):
        if 'file_path' not in frame or np.shape(frame.get('transform_matrix')) not in ((4, 4), (3, 4)):
            raise CanonError(f'{file}: frame {i} needs a file_path and a transform_matrix of 4 x 4')
    return frames


def _matrices(frames: list[dict[str, Any]]) -> np.ndarray:
    poses = np.tile(np.eye(4, dtype=np.float32), (len(frames), 1, 1))
    for pose, frame in zip(poses, frames, strict=True):
        given = np.asarray(frame['transform_matrix'], np.float32)
        pose[: len(given)] = given
    return poses


def _picture(root: Path, frame: dict[str, Any]) -> Path:
    """The file of a frame, whose path may be without its .png."""
    path = root / frame['file_path']
    return path if path.suffix.lower() in {'.png', '.jpg', '.jpeg', '.webp'} else path.with_name(path.name + '.png')


def _ngp_camera(said: dict[str, Any], size: tuple[int, int], file: Path) -> Camera:
    """The camera of the pictures on disk, which may be smaller than the `w` and `h` that it was measured at."""
    model = str(said.get('camera_model', 'OPENCV'))
    if said.get('k3') or said.get('k4') or said.get('is_fisheye') or model not in _FLAT:
        raise CanonError(
            f'{file}: k3, k4 and lenses other than {", ".join(_FLAT)} are not read; undistort the pictures'
        )
    height, width = int(said.get('h', size[0])), int(said.get('w', size[1]))
    if 'fl_x' in said:
        x = float(said['fl_x'])
    else:
        x = 0.5 * width / math.tan(0.5 * float(_entry(said, 'camera_angle_x', file)))
    if 'fl_y' in said:
        y = float(said['fl_y'])
    else:
        y = 0.5 * height / math.tan(0.5 * float(said['camera_angle_y'])) if 'camera_angle_y' in said else x
    lens = tuple(float(said.get(key, 0)) for key in _LENS)
    centre = float(said.get('cx', width / 2)), float(said.get('cy', height / 2))
    return Camera((x, y), centre, (height, width), lens if any(lens) else ()).resized(size)
