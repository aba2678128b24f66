"""Reads COLMAP's sparse reconstructions, binary or text: cameras, registered pictures and triangulated points.

COLMAP stores world to camera, as a quaternion (w, x, y, z) and a translation, in axes with y down and z forward. Pixel
centres are at 0.5, as here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from canon.camera import Camera
from canon.data.images.image_files import path_within
from canon.data.scenes.captures import fit_camera, read_pictures
from canon.data.scenes.framing import look_at_frame
from canon.data.scenes.views import Views, hold_out, join_cameras
from canon.errors import CanonError, UsageError

# {number: (name, parameters in the file, the index of fx, fy, cx, cy, k1, k2, p1, p2 among them; None for 0)}
_MODELS = {
    0: ('SIMPLE_PINHOLE', 3, (0, 0, 1, 2, None, None, None, None)),
    1: ('PINHOLE', 4, (0, 1, 2, 3, None, None, None, None)),
    2: ('SIMPLE_RADIAL', 4, (0, 0, 1, 2, 3, None, None, None)),
    3: ('RADIAL', 5, (0, 0, 1, 2, 3, 4, None, None)),
    4: ('OPENCV', 8, (0, 1, 2, 3, 4, 5, 6, 7)),
}
_NUMBERS = {name: number for number, (name, _, _) in _MODELS.items()}
_OUTLIERS = 0.1  # percent of the nearest and of the farthest points, which are taken for errors
_MARGIN = 0.1  # added on both sides of the others, as a fraction


class Shot(NamedTuple):
    """A registered picture.

    Attributes:
      name: of its file.
      camera: id of its camera.
      pose: world to camera [4, 4], in COLMAP's axes.
      points: ids of the points it observes; -1 for features without one.
    """

    name: str
    camera: int
    pose: np.ndarray
    points: np.ndarray


def colmap(
    path: str,
    split: str = 'train',
    near: float | None = None,
    far: float | None = None,
    factor: int = 1,
    hold: int = 8,
    images: str = 'images',
    model: str = 'sparse/0',
) -> Views:
    """Reads `<path>/<model>` (cameras, images, points3D, as .bin or .txt) with the pictures of `<path>/<images>`.

    Views are sorted by the names of their pictures. Each picture may have a camera of its own.

    Args:
      path: the folder.
      split: 'train', 'val' or 'test'.
      near, far: limits of the scene. None takes 0.9 and 1.1 times the 0.1th and the 99.9th percentile of the depths,
        along a camera's axis, of the points it observes.
      factor: divides the size of the pictures; `<images>_<factor>/` is read if it exists.
      hold: every `hold`-th view is held out for 'val' and 'test'.
      images: the folder of the pictures.
      model: the folder of the reconstruction.

    Raises:
      CanonError: a lens other than SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL or OPENCV; pictures of different
        sizes or of another shape than their camera; missing or truncated files.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    cameras, shots, points = read_reconstruction(root / model)
    shots.sort(key=lambda shot: shot.name)  # COLMAP lists them in the order of registration, which varies
    if not shots:
        raise CanonError(f'{root / model} has no registered pictures; register some, then export the model again')
    for shot in shots:
        if shot.camera not in cameras:
            raise CanonError(f'{root / model}: {shot.name} was taken by camera {shot.camera}, which is not listed')
    if near is None or far is None:
        nearest, farthest = _bounds(shots, points, root / model)
        near, far = nearest if near is None else near, farthest if far is None else far
    # The inverse is camera to world; y and z change their signs from COLMAP's axes to OpenGL's.
    poses = np.stack([np.linalg.inv(shot.pose) @ np.diag([1.0, -1, -1, 1]) for shot in shots]).astype(np.float32)
    ids = hold_out(len(shots), split, hold)
    chosen = [shots[i] for i in ids]
    small = root / f'{images}_{factor}'
    images_folder = small if factor > 1 and small.is_dir() else root / images
    paths = [path_within(images_folder, shot.name, str(root / model)) for shot in chosen]
    pixels, size = read_pictures(paths, 1 if images_folder == small else factor)
    fitted = [
        fit_camera(cameras[shot.camera], size, file).resize(pixels.shape[1:3])
        for shot, file in zip(chosen, paths, strict=True)
    ]
    camera, intrinsics = join_cameras(fitted)
    names, frame = tuple(shot.name for shot in chosen), look_at_frame(poses, near, far)
    return Views(pixels, poses[ids], camera, near, far, names=names, intrinsics=intrinsics, frame=frame)


def read_reconstruction(folder: Path) -> tuple[dict[int, Camera], list[Shot], dict[int, np.ndarray]]:
    """Reads a model's folder: cameras by id, pictures, and points [3] by id ({} if points3D is missing)."""
    for suffix, cameras, shots, points in (
        ('.bin', _cameras_bin, _shots_bin, _points_bin),
        ('.txt', _cameras_txt, _shots_txt, _points_txt),
    ):
        files = {name: folder / f'{name}{suffix}' for name in ('cameras', 'images', 'points3D')}
        if files['cameras'].is_file() and files['images'].is_file():
            return (
                _read_checked(cameras, files['cameras']),
                _read_checked(shots, files['images']),
                _read_checked(points, files['points3D']) if files['points3D'].is_file() else {},
            )
    raise CanonError(f'{folder} holds no cameras and images, as .bin or .txt; set model= to the reconstruction')


def _read_checked(reader, file: Path):
    """Calls `reader(file)`; a file that it cannot parse is a CanonError."""
    try:
        return reader(file)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, CanonError):
            raise
        raise CanonError(f'{file} is cut short or not a COLMAP file ({error}); export it again') from error


def _bounds(shots: list[Shot], points: dict[int, np.ndarray], folder: Path) -> tuple[float, float]:
    """Returns (near, far) from the depths of observed points."""
    depths = [
        np.stack(observed) @ shot.pose[2, :3] + shot.pose[2, 3]
        for shot in shots
        if (observed := [points[i] for i in shot.points.tolist() if i in points])
    ]
    depths = np.concatenate(depths) if depths else np.zeros(0)
    depths = depths[depths > 0]  # points behind their camera are wrong triangulations
    if not len(depths):
        raise CanonError(f'{folder} has no points that a camera observes, so near and far must be given')
    # A single wrong match would otherwise stretch the range that rays are sampled over.
    near, far = np.percentile(depths, (_OUTLIERS, 100 - _OUTLIERS))
    return float(near * (1 - _MARGIN)), float(far * (1 + _MARGIN))


def _camera(number: int, width: int, height: int, values: list[float], file: Path) -> Camera:
    if number not in _MODELS:
        known = ', '.join(_NUMBERS)
        raise CanonError(f'{file}: lens {number} is not read, only {known}; run `colmap image_undistorter` first')
    name, count, indices = _MODELS[number]
    if len(values) != count or not np.isfinite(values).all() or min(width, height) < 1:
        given = ' '.join(f'{value:g}' for value in values)
        raise CanonError(
            f'{file}: a {name} camera has a width, a height and {count} finite numbers, got {width} {height} {given}'
        )
    fx, fy, cx, cy, *lens = (0.0 if index is None else float(values[index]) for index in indices)
    return Camera((fx, fy), (cx, cy), (height, width), tuple(lens) if any(lens) else ())


def _pose(quaternion: Sequence[float], translation: Sequence[float], name: str, file: Path) -> np.ndarray:
    """Returns world to camera [4, 4]. Raises CanonError unless the quaternion is a rotation: its length is 1."""
    length = np.linalg.norm(quaternion)
    if not abs(length - 1) < 1e-3 or not np.isfinite(translation).all():
        raise CanonError(
            f'{file}: {name} has a quaternion of length {length:g} and a translation {tuple(translation)}; '
            'expected length 1 and finite numbers: export the model again'
        )
    w, x, y, z = np.asarray(quaternion) / length  # text files keep few digits
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose


# --- binary: little endian, without padding -------------------------------------------------------------------------


class _Bytes:
    """A cursor over the bytes of a file."""

    def __init__(self, file: Path):
        self.data, self.at = file.read_bytes(), 0

    def take(self, form: str) -> tuple:
        values = struct.unpack_from('<' + form, self.data, self.at)
        self.at += struct.calcsize('<' + form)
        return values

    def name(self) -> str:
        end = self.data.index(b'\0', self.at)
        name, self.at = self.data[self.at : end].decode(), end + 1
        return name

    def rows(self, dtype: np.dtype, count: int) -> np.ndarray:
        rows = np.frombuffer(self.data, dtype, count, self.at)
        self.at += rows.nbytes
        return rows


def _cameras_bin(file: Path) -> dict[int, Camera]:
    data, cameras = _Bytes(file), {}
    for _ in range(data.take('Q')[0]):
        number, model, width, height = data.take('iiQQ')
        count = _MODELS[model][1] if model in _MODELS else 0  # an unknown model is refused by `_camera`
        cameras[number] = _camera(model, width, height, list(data.take(f'{count}d')), file)
    return cameras


def _shots_bin(file: Path) -> list[Shot]:
    data, shots = _Bytes(file), []
    row = np.dtype([('at', '<f8', 2), ('point', '<i8')])
    for _ in range(data.take('Q')[0]):
        _, *pose, camera = data.take('i7di')
        name = data.name()
        features = data.rows(row, data.take('Q')[0])
        shots.append(Shot(name, camera, _pose(pose[:4], pose[4:], name, file), features['point']))
    return shots


def _points_bin(file: Path) -> dict[int, np.ndarray]:
    data, points = _Bytes(file), {}
    for _ in range(data.take('Q')[0]):
        number, *position = data.take('Q3d')
        *_, length = data.take('3BdQ')  # colour, reprojection error, length of the track
        # The track, pairs of a picture and a feature, is only skipped.
        data.rows(np.dtype('<i4'), 2 * length)
        points[number] = _point(position, number, file)
    return points


# --- text -----------------------------------------------------------------------------------------------------------


def _lines(file: Path) -> Iterator[list[str]]:
    """Yields the words of each line; the second line of a picture without points is empty."""
    return (line.split() for line in file.read_text().splitlines() if not line.startswith('#'))


def _cameras_txt(file: Path) -> dict[int, Camera]:
    cameras = {}
    for number, model, width, height, *values in filter(None, _lines(file)):
        if model not in _NUMBERS:
            raise CanonError(f'{file}: lens {model} is not read, only {", ".join(_NUMBERS)}; undistort the pictures')
        cameras[int(number)] = _camera(_NUMBERS[model], int(width), int(height), [float(v) for v in values], file)
    return cameras


def _shots_txt(file: Path) -> list[Shot]:
    lines, shots = _lines(file), []
    for head in lines:
        if head:
            _, *pose, camera, name = (*head[:9], ' '.join(head[9:]))
            # The second line of a picture has x, y and the point of each feature.
            points = np.array(next(lines, [])[2::3], np.int64)
            values = tuple(float(v) for v in pose)
            shots.append(Shot(name, int(camera), _pose(values[:4], values[4:], name, file), points))
    return shots


def _points_txt(file: Path) -> dict[int, np.ndarray]:
    return {int(words[0]): _point(words[1:4], words[0], file) for words in filter(None, _lines(file))}


def _point(position, number: int | str, file: Path) -> np.ndarray:
    point = np.array(position, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise CanonError(f'{file}: point {number} needs three finite coordinates; export the model again')
    return point
