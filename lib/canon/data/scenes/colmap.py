"""COLMAP's sparse reconstructions, binary and text: cameras, pictures and the points that were triangulated.

COLMAP keeps world to camera, as a quaternion (w, x, y, z) and a translation, in axes with y down that look along z.
Pixel centres are at 0.5, as here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from canon.camera import Camera
from canon.data.images.image_files import path_within
from canon.data.scenes.captures import fit_camera, pictures
from canon.data.scenes.framing import look_at_frame
from canon.data.scenes.views import Views, hold_out, join_cameras
from canon.errors import CanonError, UsageError

# name, parameters in the file; how they give (fx, fy, cx, cy, k1, k2, p1, p2), by their place, None for 0
_MODELS = {
    0: ('SIMPLE_PINHOLE', 3, (0, 0, 1, 2, None, None, None, None)),
    1: ('PINHOLE', 4, (0, 1, 2, 3, None, None, None, None)),
    2: ('SIMPLE_RADIAL', 4, (0, 0, 1, 2, 3, None, None, None)),
    3: ('RADIAL', 5, (0, 0, 1, 2, 3, 4, None, None)),
    4: ('OPENCV', 8, (0, 1, 2, 3, 4, 5, 6, 7)),
}
_NUMBERS = {name: number for number, (name, _, _) in _MODELS.items()}
_FEW, _MARGIN = 0.1, 0.1  # percent of the nearest and farthest points that are taken for errors; room around the rest


class Shot(NamedTuple):
    """A picture: its name, its camera's number, world to camera [4, 4] in COLMAP's axes, the numbers of its points."""

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
    """`<path>/<model>` (cameras, images, points3D, as .bin or .txt) with the pictures of `<path>/<images>`.

    Views are in the order of their pictures' names, each `hold`-th held out for 'val' and 'test'; `images_<factor>/` is
    read where there is one. Each picture may have a camera of its own. near and far, unless given, are 0.9 and 1.1
    times the 0.1th and 99.9th percentile of the depths, along a camera's axis, of the points it saw.

    Raises CanonError for lenses other than SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL and OPENCV, for pictures of
    different sizes, or of another shape than their camera, and for files that are missing or cut short.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    cameras, shots, points = read(root / model)
    shots.sort(key=lambda shot: shot.name)
    if not shots:
        raise CanonError(f'{root / model} has no pictures; register some, then export the model again')
    for shot in shots:
        if shot.camera not in cameras:
            raise CanonError(f'{root / model}: {shot.name} was taken by camera {shot.camera}, which is not listed')
    if near is None or far is None:
        nearest, farthest = _bounds(shots, points, root / model)
        near, far = nearest if near is None else near, farthest if far is None else far
    poses = np.stack([np.linalg.inv(shot.pose) @ np.diag([1.0, -1, -1, 1]) for shot in shots]).astype(np.float32)
    held = hold_out(len(shots), split, hold)
    chosen = [shots[i] for i in held]
    small = root / f'{images}_{factor}'
    below = small if factor > 1 and small.is_dir() else root / images
    paths = [path_within(below, shot.name, str(root / model)) for shot in chosen]
    pixels, size = pictures(paths, 1 if below == small else factor)
    fitted = [
        fit_camera(cameras[shot.camera], size, file).resized(pixels.shape[1:3])
        for shot, file in zip(chosen, paths, strict=True)
    ]
    camera, intrinsics = join_cameras(fitted)
    names, frame = tuple(shot.name for shot in chosen), look_at_frame(poses, near, far)
    return Views(pixels, poses[held], camera, near, far, names=names, intrinsics=intrinsics, frame=frame)


def read(folder: Path) -> tuple[dict[int, Camera], list[Shot], dict[int, np.ndarray]]:
    """Cameras by number, pictures, and points [3] by number, of a model's folder; no points without their file."""
    for suffix, cameras, shots, points in (
        ('.bin', _cameras_bin, _shots_bin, _points_bin),
        ('.txt', _cameras_txt, _shots_txt, _points_txt),
    ):
        of = {name: folder / f'{name}{suffix}' for name in ('cameras', 'images', 'points3D')}
        if of['cameras'].is_file() and of['images'].is_file():
            return (
                _whole(cameras, of['cameras']),
                _whole(shots, of['images']),
                _whole(points, of['points3D']) if of['points3D'].is_file() else {},
            )
    raise CanonError(f'{folder} holds no cameras and images, neither .bin nor .txt; is model= its name?')


def _whole(reader, file: Path):
    try:
        return reader(file)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        if isinstance(error, CanonError):
            raise
        raise CanonError(f'{file} is cut short or no file of COLMAP ({error}); export it again') from error


def _bounds(shots: list[Shot], points: dict[int, np.ndarray], folder: Path) -> tuple[float, float]:
    depths = [
        np.stack(seen) @ shot.pose[2, :3] + shot.pose[2, 3]
        for shot in shots
        if (seen := [points[i] for i in shot.points.tolist() if i in points])
    ]
    depths = np.concatenate(depths) if depths else np.zeros(0)
    depths = depths[depths > 0]  # a point behind its camera was triangulated wrongly
    if not len(depths):
        raise CanonError(f'{folder} has no points that a camera saw, so near and far must be given')
    near, far = np.percentile(depths, (_FEW, 100 - _FEW))
    return float(near * (1 - _MARGIN)), float(far * (1 + _MARGIN))


def _camera(number: int, width: int, height: int, values: list[float], file: Path) -> Camera:
    if number not in _MODELS:
        known = ', '.join(_NUMBERS)
        raise CanonError(f'{file}: lens {number} is not read, only {known}; run `colmap image_undistorter` first')
    name, count, places = _MODELS[number]
    if len(values) != count or not np.isfinite(values).all() or min(width, height) < 1:
        given = ' '.join(f'{value:g}' for value in values)
        raise CanonError(
            f'{file}: a camera {name} has a width, a height and {count} finite numbers, not {width} {height} {given}'
        )
    fx, fy, cx, cy, *lens = (0.0 if place is None else float(values[place]) for place in places)
    return Camera((fx, fy), (cx, cy), (height, width), tuple(lens) if any(lens) else ())


def _pose(quaternion: Sequence[float], place: Sequence[float], name: str, file: Path) -> np.ndarray:
    """World to camera [4, 4]. Raises CanonError for a quaternion that is not a rotation: of another length than 1."""
    length = np.linalg.norm(quaternion)
    if not abs(length - 1) < 1e-3 or not np.isfinite(place).all():
        raise CanonError(
            f'{file}: {name} has a quaternion of length {length:g} and a translation {tuple(place)}; 1 and finite '
            'numbers are expected: export the model again'
        )
    w, x, y, z = np.asarray(quaternion) / length
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = place
    return pose


# --- binary: little endian, without padding -------------------------------------------------------------------------


class _Bytes:
    """A file read from its beginning on."""

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
        count = _MODELS[model][1] if model in _MODELS else 0  # an unknown one ends the reading
        cameras[number] = _camera(model, width, height, list(data.take(f'{count}d')), file)
    return cameras


def _shots_bin(file: Path) -> list[Shot]:
    data, shots = _Bytes(file), []
    row = np.dtype([('at', '<f8', 2), ('point', '<i8')])
    for _ in range(data.take('Q')[0]):
        _, *pose, camera = data.take('i7di')
        name = data.name()
        seen = data.rows(row, data.take('Q')[0])
        shots.append(Shot(name, camera, _pose(pose[:4], pose[4:], name, file), seen['point']))
    return shots


def _points_bin(file: Path) -> dict[int, np.ndarray]:
    data, points = _Bytes(file), {}
    for _ in range(data.take('Q')[0]):
        number, *place = data.take('Q3d')
        *_, length = data.take('3BdQ')  # colour, error, how many views
        data.rows(np.dtype('<i4'), 2 * length)
        points[number] = _point(place, number, file)
    return points


# --- text -----------------------------------------------------------------------------------------------------------


def _lines(file: Path) -> Iterator[list[str]]:
    """The words of each line; a picture without points has an empty one."""
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
            seen = np.array(next(lines, [])[2::3], np.int64)
            values = tuple(float(v) for v in pose)
            shots.append(Shot(name, int(camera), _pose(values[:4], values[4:], name, file), seen))
    return shots


def _points_txt(file: Path) -> dict[int, np.ndarray]:
    return {int(words[0]): _point(words[1:4], words[0], file) for words in filter(None, _lines(file))}


def _point(place, number: int | str, file: Path) -> np.ndarray:
    point = np.array(place, float)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise CanonError(f'{file}: point {number} is not at three finite numbers; export the model again')
    return point
