"""Reads posed pictures: transforms.json of Blender, instant-ngp and nerfstudio, and poses_bounds.npy of LLFF.

Each reader returns one split of a folder. Formats without splits hold out every `hold`-th view for 'val' and 'test'.
"""

from __future__ import annotations

import io
import json
import logging
import math
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from canon.camera import Camera
from canon.data.images import image_files
from canon.data.pipeline.arrays import BROKEN, map_npy
from canon.data.scenes.framing import look_at_frame, make_pose
from canon.data.scenes.views import Views, hold_out, join_cameras
from canon.errors import CanonError, UsageError, first_line
from canon.progress import show_progress

_LENS = ('k1', 'k2', 'p1', 'p2')
_PINHOLE_MODELS = ('OPENCV', 'PINHOLE', 'SIMPLE_PINHOLE', 'SIMPLE_RADIAL', 'RADIAL')  # nerfstudio's camera_model
_INTRINSICS = ('fl_x', 'fl_y', 'cx', 'cy', 'w', 'h', 'camera_angle_x', 'camera_angle_y', *_LENS)
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError)
_NEAR, _FAR = 0.25, 2.0  # near and far in depths of what cameras look at, if a format has neither bounds nor points


def blender(path: str, split: str = 'train', near: float = 2.0, far: float = 6.0, factor: int = 1) -> Views:
    """Reads transforms_{split}.json of the NeRF paper's synthetic scenes: RGBA pictures with a common angle of view.

    Intrinsics in the file (`fl_x`, `cx`, `k1`, ...) take precedence over its angle of view, as in `ngp`. A frame may
    have a 'time', as in D-NeRF's scenes. A file `<picture>_depth.npy` holds its depth (`traced.write_scene`).

    Args:
      path: the folder.
      split: 'train', 'val' or 'test'.
      near, far: limits of the scene along a camera's axis.
      factor: divides the size of the pictures.

    Raises:
      CanonError: a file is missing, or pictures differ in size.
    """
    root = _folder(path)
    file = root / f'transforms_{split}.json'
    content = _json(file)
    frames = _frames(content, file)
    paths = [_picture(root, frame) for frame in frames]
    images, size = read_pictures(paths, factor)
    camera, intrinsics = _cameras(content, frames, size, images.shape[1:3], file)
    times = [_number(frame, 'time', file) for frame in frames if 'time' in frame]
    depths = [p.with_name(f'{p.stem}_depth.npy') for p in paths]
    has_depths = factor == 1 and all(p.exists() for p in depths)  # averaging depths over an edge gives neither side
    # All splits share the frame of the training views, or predictions and normalised scenes would differ between them.
    first = file if split == 'train' else root / 'transforms_train.json'
    all_frames = _frames(_json(first), first) if first.is_file() else frames
    return Views(
        images, _matrices(frames, file), camera, near, far,
        np.asarray(times, np.float32) if len(times) == len(frames) else None,
        np.stack([load_array(p, size) for p in depths]).astype(np.float32) if has_depths else None,
        tuple(str(p.relative_to(root)) if p.is_relative_to(root) else str(p) for p in paths),
        intrinsics,
        look_at_frame(_matrices(all_frames, first), near, far),
    )  # fmt: skip


def ngp(
    path: str,
    split: str = 'train',
    near: float | None = None,
    far: float | None = None,
    factor: int = 1,
    hold: int = 8,
) -> Views:
    """Reads transforms.json of instant-ngp and nerfstudio: `fl_x fl_y cx cy w h k1 k2 p1 p2`, or camera_angle_x alone.

    A frame may have intrinsics of its own. Frames whose picture is missing are skipped with a warning that counts them,
    as the format demands.

    Args:
      path: the folder, or the file itself.
      split: 'train', 'val' or 'test'.
      near, far: limits of the scene. None takes a quarter of the least depth, and twice the greatest, of what the
        cameras of all splits look at (`canon.data.scenes.framing`).
      factor: divides the size of the pictures.
      hold: every `hold`-th view is held out.

    Raises:
      CanonError: the lens has more than k1, k2, p1 and p2, or pictures have another shape than their camera.
    """
    file = Path(path).expanduser()
    file = file if file.suffix == '.json' else _folder(path) / 'transforms.json'
    content = _json(file)
    frames = _frames(content, file)
    present = [frame for frame in frames if _picture(file.parent, frame).is_file()]
    if not present:
        raise CanonError(f'{file} names {len(frames)} pictures, and none of them exists; fix its file_path entries')
    if len(present) < len(frames):
        logging.getLogger('canon').warning(
            '%d of %d frames of %s have no picture and are skipped', len(frames) - len(present), len(frames), file
        )
    present.sort(key=lambda frame: frame['file_path'])  # the file's order is that of registration, which is arbitrary
    poses, chosen = _matrices(present, file), hold_out(len(present), split, hold)
    paths = [_picture(file.parent, present[i]) for i in chosen]
    images, size = read_pictures(paths, factor)
    camera, intrinsics = _cameras(content, [present[i] for i in chosen], size, images.shape[1:3], file)
    frame = look_at_frame(poses, near, far)
    if frame.parallel and (near is None or far is None):
        logging.getLogger('canon').warning(
            '%s: the cameras look at no common point, so near and far are guesses; set data.source.near and .far', file
        )
    near, far = _NEAR * frame.nearest if near is None else near, _FAR * frame.farthest if far is None else far
    names = tuple(present[i]['file_path'] for i in chosen)
    return Views(images, poses[chosen], camera, near, far, names=names, intrinsics=intrinsics, frame=frame)


def llff(
    path: str,
    split: str = 'train',
    factor: int = 4,
    hold: int = 8,
    bound: float = 0.75,
    recentre: bool = True,
) -> Views:
    """Reads poses_bounds.npy of LLFF's forward-facing scenes, as NeRF's code does.

    near and far are 0.9 and 1 times the scaled bounds (in normalised device coordinates 0 and 1, with the near plane at
    1). Pictures are those of `images_<factor>/` if it exists, else those of `images/`, resized here.

    Args:
      path: the folder.
      split: 'train', 'val' or 'test'.
      factor: divides the size of the pictures.
      hold: every `hold`-th view is held out.
      bound: the scene is scaled by 1 / (nearest bound * `bound`).
      recentre: moves the mean camera to the origin, looking along -z, which normalised device coordinates need.

    Raises:
      CanonError: poses_bounds.npy is missing or malformed, or has another number of poses than there are pictures.
    """
    root = _folder(path)
    file = root / 'poses_bounds.npy'
    if not file.is_file():
        raise CanonError(f"there is no {file}; LLFF's imgs2poses.py writes it")
    rows = load_array(file)
    if rows.ndim != 2 or rows.shape[1] != 17 or not len(rows):
        raise CanonError(f'{file} must be [N, 17] (a 3x5 matrix and two bounds per picture), got {list(rows.shape)}')
    if not np.isfinite(rows).all():
        raise CanonError(f'{file}: row {np.flatnonzero(~np.isfinite(rows).all(1))[0]} has numbers that are not finite')
    # Of the five columns of a pose three are axes, the fourth is the position and the fifth (height, width, focal).
    matrices, bounds = rows[:, :15].reshape(-1, 3, 5).astype(np.float64), rows[:, 15:]
    small = root / f'images_{factor}'
    images_folder = small if factor > 1 and small.is_dir() else root / 'images'
    paths = sorted(p for p in image_files.find_images(_folder(images_folder)) if p.parent == images_folder)
    if len(paths) != len(rows):
        raise CanonError(
            f'{file} has {len(rows)} poses, but {images_folder} has {len(paths)} pictures; they are matched in order'
        )
    if not 0 < bounds.min() < bounds.max():
        raise CanonError(f'{file}: expected 0 < near < far, got {bounds.min():g} and {bounds.max():g}')
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    down, right, back, position = (matrices[:, :, i] for i in range(4))
    poses[:, :3] = np.stack((right, -down, back, position), -1)  # LLFF's axes are down, right, back
    scale = 1 / (bounds.min() * bound)
    poses[:, :3, 3] *= scale
    poses = recentre_poses(poses) if recentre else poses
    chosen = hold_out(len(rows), split, hold)
    images, size = read_pictures([paths[i] for i in chosen], 1 if images_folder == small else factor)
    cameras = []
    for height, width, focal in matrices[chosen, :, 4]:
        camera = Camera((focal, focal), (width / 2, height / 2), (int(height), int(width)))
        cameras.append(fit_camera(camera, size, file).resize(images.shape[1:3]))
    camera, intrinsics = join_cameras(cameras)
    # The bounds are percentiles of the depths of sparse points; NeRF's code leaves a margin in front of them.
    near, far = 0.9 * scale * bounds.min(), scale * bounds.max()
    return Views(
        images,
        poses[chosen].astype(np.float32),
        camera,
        float(near),
        float(far),
        names=tuple(paths[i].name for i in chosen),
        intrinsics=intrinsics,
        frame=look_at_frame(poses, near, far),
    )


def recentre_poses(poses: np.ndarray) -> np.ndarray:
    """Returns poses [N, 4, 4] relative to the mean camera: mean position and viewing direction, mean up vertical."""
    # Sums instead of means: only their directions matter.
    mean = make_pose(poses[:, :3, 2].sum(0), poses[:, :3, 1].sum(0), poses[:, :3, 3].mean(0))
    return np.linalg.inv(mean) @ poses


# --- files ----------------------------------------------------------------------------------------------------------


def read_pictures(paths: Sequence[Path], factor: int = 1) -> tuple[np.ndarray, tuple[int, int]]:
    """Reads pictures of one size, `factor` times smaller: uint8 [N, H, W, 3 or 4], and their size (H, W) on disk.

    Alpha is kept if all pictures have it.

    Raises:
      CanonError: there are no pictures, one is missing, or one differs in size from the first.
    """
    if factor < 1:
        raise UsageError(f'factor={factor} must be a whole number at least 1: it divides the size of pictures')
    if not paths:
        raise CanonError('this split has no pictures: list some in its file, or hold fewer out')
    images, (height, width) = [], _pixels(paths[0]).shape[:2]
    for path in show_progress(paths, 'pictures', 'picture'):
        # Resized one at a time: a phone's pictures take 36 MB each.
        image = _pixels(path)
        if image.shape[:2] != (height, width):
            raise CanonError(
                f'{path} is {_size(image.shape)} and {paths[0].name} is {_size((height, width))}; '
                'pictures of one capture must have one size'
            )
        images.append(_downscale(image, factor))
    channels = min(image.shape[2] for image in images)  # one opaque file among transparent ones: alpha is dropped
    return np.stack([image[..., :channels] for image in images]), (height, width)


def fit_camera(camera: Camera, size: tuple[int, int], file: Path) -> Camera:
    """Rescales a camera to pictures of size (H, W) on disk, which may be smaller than those it was calibrated on.

    Raises:
      CanonError: no scale maps one size to the other within a pixel, as for pictures that were rotated.
    """
    # Sizes of reduced pictures are rounded, up or down: a scale is an interval.
    scales = [((n - 1) / m, (n + 1) / m) for n, m in zip(size, camera.size, strict=True)]
    low, high = max(low for low, _ in scales), min(high for _, high in scales)
    if low > high:
        turned = size[::-1] == tuple(camera.size) or (size[0] > size[1]) != (camera.size[0] > camera.size[1])
        raise CanonError(
            f'{file}: the camera is calibrated for pictures of {_size(camera.size)}, those on disk are {_size(size)}'
            + (', turned by 90 degrees (EXIF orientation is not applied)' if turned else '')
            + '; export pictures and cameras again, together'
        )
    return camera.resize(size)


def load_array(file: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Reads real numbers from an .npy file; raises CanonError for anything else, and for another shape than `shape`."""
    try:
        values = map_npy(file)
    except BROKEN as error:
        raise CanonError(f'{file} is not a NumPy array ({first_line(error)}); write it with numpy.save') from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in 'fiu':
        kind = getattr(values, 'dtype', 'an archive')
        raise CanonError(f'{file} must be one array of real numbers, got {kind}; write it with numpy.save')
    if shape is not None and values.shape != tuple(shape):
        raise CanonError(f'{file} must be {list(shape)} like its picture, got {list(values.shape)}')
    return np.array(values)  # a copy: the map would keep the file open


def _size(shape: Sequence[int]) -> str:
    return f'{shape[1]}x{shape[0]}'


def _pixels(path: Path) -> np.ndarray:
    """Reads uint8 [H, W, 3], or 4 with alpha. EXIF orientation is ignored: cameras belong to the stored pixels."""
    if not path.is_file():
        raise CanonError(f'there is no picture {path}, which the cameras name; restore it, or remove its entry')
    encoded = image_files.read_encoded(path)
    encoded.rotate = False
    with suppress(*_PILLOW_ERRORS), Image.open(io.BytesIO(encoded)) as opened:
        if opened.has_transparency_data:
            return np.asarray(opened.convert('RGBA'))
    return image_files.decode_image(encoded)  # raises for files that cannot be read


def _downscale(image: np.ndarray, factor: int) -> np.ndarray:
    """Averages areas of pixels, with colours weighted by their alpha."""
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
        content = json.loads(file.read_text())
    except (ValueError, RecursionError) as error:
        raise CanonError(f'{file} is not valid JSON ({first_line(error)})') from error
    if not isinstance(content, dict):
        raise CanonError(f'{file}: expected an object with frames')
    return content


def _number(entries: dict[str, Any], key: str, file: Path) -> float:
    if key not in entries:
        raise CanonError(f'{file} has no {key!r}')
    return _finite(entries[key], f'{file}: {key}')


def _finite(value: Any, what: str) -> float:
    # JSON integers have any size, and those beyond 1e308 overflow a float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise CanonError(f'{what} must be a finite number, got {reprlib.repr(value)}')
    return float(value)


def _frames(content: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    frames = content.get('frames')
    if not isinstance(frames, list):
        raise CanonError(f'{file} needs a list of frames')
    for i, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get('file_path'), str):
            raise CanonError(f'{file}: frame {i} needs a file_path and a transform_matrix of 4 x 4')
        _matrix(frame, i, file)
    return frames


def picture_paths(file: Path) -> list[Path]:
    """Returns the picture files that a transforms.json names, whether or not they exist."""
    return [_picture(file.parent, frame) for frame in _frames(_json(file), file)]


def _matrix(frame: dict[str, Any], i: int, file: Path) -> np.ndarray:
    """Returns the frame's transform_matrix [4, 4]; its last row may be missing from the file."""
    rows = frame.get('transform_matrix')
    proper = isinstance(rows, list) and len(rows) in (3, 4)
    if not proper or any(not isinstance(row, list) or len(row) != 4 for row in rows):
        raise CanonError(f'{file}: frame {i} needs a file_path and a transform_matrix of 4 x 4')
    matrix = np.eye(4, dtype=np.float32)
    for r, row in enumerate(rows):
        matrix[r] = [_finite(value, f'{file}: frame {i}: a number of its transform_matrix') for value in row]
    return matrix


def _matrices(frames: list[dict[str, Any]], file: Path) -> np.ndarray:
    return np.array([_matrix(frame, i, file) for i, frame in enumerate(frames)], np.float32).reshape(-1, 4, 4)


def _picture(root: Path, frame: dict[str, Any]) -> Path:
    """Returns the picture file of a frame; '.png' may be missing from its path."""
    path = image_files.path_within(root, frame['file_path'], 'file_path')
    return path if path.suffix.lower() in {'.png', '.jpg', '.jpeg', '.webp'} else path.with_name(path.name + '.png')


def _cameras(content, frames, size: tuple[int, int], small: tuple[int, int], file: Path):
    """Returns `join_cameras` of the frames for pictures of size `small`; a frame's entries override the file's.

    size: (H, W) of the pictures on disk, which may be smaller than the `w` and `h` of the calibration.
    """
    shared = {key: value for key, value in content.items() if key != 'frames'}
    cameras: dict[str, Camera] = {}  # keyed by the frames' own intrinsics: mostly none, hence one camera for all
    keys = [json.dumps(_frame_intrinsics(frame), sort_keys=True) for frame in frames]
    for key, frame in zip(keys, frames, strict=True):
        if key not in cameras:
            cameras[key] = _camera({**shared, **_frame_intrinsics(frame)}, size, file).resize(small)
    return join_cameras([cameras[key] for key in keys])


def _frame_intrinsics(frame: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in frame.items() if key in _INTRINSICS or key in ('k3', 'k4', 'camera_model')}


def _camera(entries: dict[str, Any], size: tuple[int, int], file: Path) -> Camera:
    model = str(entries.get('camera_model', 'OPENCV'))
    if entries.get('k3') or entries.get('k4') or entries.get('is_fisheye') or model not in _PINHOLE_MODELS:
        raise CanonError(
            f'{file}: k3, k4 and lenses other than {", ".join(_PINHOLE_MODELS)} are not read; undistort the pictures'
        )

    def number(key: str, default: float) -> float:
        return _number(entries, key, file) if key in entries else default

    def focal(key: str, angle: str, side: float) -> float:
        """Returns the focal length, from the file or from the angle of view over `side`."""
        if key in entries:
            return _number(entries, key, file)
        value = _number(entries, angle, file)
        if not 0 < value < math.pi:
            raise CanonError(f'{file}: {angle} must be in radians, above 0 and below pi, got {value:g}')
        return 0.5 * side / math.tan(0.5 * value)

    # w and h are the size of the calibration; pictures on disk may be smaller.
    height, width = int(number('h', size[0])), int(number('w', size[1]))
    if min(height, width) < 1:
        raise CanonError(f'{file}: w and h must be at least 1, got {width} and {height}')
    x = focal('fl_x', 'camera_angle_x', width)
    y = focal('fl_y', 'camera_angle_y', height) if 'fl_y' in entries or 'camera_angle_y' in entries else x
    lens = tuple(number(key, 0.0) for key in _LENS)
    centre = number('cx', width / 2), number('cy', height / 2)
    camera = Camera((x, y), centre, (height, width), lens if any(lens) else ())
    return fit_camera(camera, size, file)
