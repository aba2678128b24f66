"""Volumes: voxels of scanners and simulations from files, and two that are made, with nothing to download.

`.npy`, NIfTI (`.nii`, `.nii.gz`), and raw voxels whose shape and type are told. A volume is [X, Y, Z] with its spacing.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from canon import named
from canon.data.pipeline.arrays import read_npy
from canon.errors import CanonError, UsageError, first_line
from canon.named import Count, NonNegative, Positive, Range


class Volume(NamedTuple):
    """values: numbers [X, Y, Z], as they are stored. spacing: from one voxel's middle to the next along each axis, in
    any one unit.

    limits: the values that stand for 0 and 1 where it is drawn; the least and the largest without.
    integrals: (origins, ways) [.., 3] -> [..], exact along whole lines in the box [-half, half], where they are known.
    """

    values: np.ndarray
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    name: str = ''
    limits: tuple[float, float] | None = None
    integrals: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @property
    def half(self) -> np.ndarray:
        """Half of the sides of the box between the outermost voxels' middles, float64 [3], the longest of them 1."""
        sides = (np.array(self.values.shape) - 1) * np.array(self.spacing)
        return sides / sides.max()

    @property
    def scaled(self) -> np.ndarray:
        """Its values from 0 to 1, float32. Raises CanonError where all are the same."""
        low, high = self.limits or (self.values.min(), self.values.max())
        if low == high:
            raise CanonError(f'{self.name}: all voxels are {low:g}; there is nothing to see')
        if not np.isfinite(float(high) - float(low)):
            raise CanonError(f'{self.name}: values from {low:g} to {high:g} are too far apart to be scaled')
        above = self.values
        if above.dtype.kind in 'iu' and self.limits is None:
            # Whole numbers are subtracted as such, modulo 2^bits: float32 has 24 bits of them, float64 has 53.
            above = (above - low).view(f'u{above.dtype.itemsize}')
            low, high = 0, int(high) - int(low)
        scaled = np.subtract(above, low, dtype=np.float64)
        return np.divide(scaled, float(high) - float(low), out=scaled).astype(np.float32)


VOLUMES = named.Catalogue('volume', ('canon.data.scenes',), lambda function: named.returns(function) is Volume)


def load(name: str, **source: Any) -> Volume:
    """Loads or makes a volume.

    Args:
      name: of a public function of `canon.data.scenes` that returns a `Volume`: 'shepp_logan' or 'marschner_lobb' with
        size=, or 'file' with path=. 'package.module:function' is such a function of any other module.
      source: arguments of the function.

    Raises UsageError for a name or an argument that does not exist, and as the function does.
    """
    return named.call(VOLUMES.find(name), source, f'volume {name!r}')


# --- files --------------------------------------------------------------------------------------------------------


def file(
    path: str | Path,
    shape: Sequence[Count] | None = None,
    dtype: str = 'uint8',
    spacing: Sequence[Positive] | None = None,
    frame: int | None = None,
    fill: float | None = None,
) -> Volume:
    """A volume from `.npy`, NIfTI, or from raw voxels, x running fastest, whose `shape` (X, Y, Z) is told.

    Args:
      shape, dtype: of raw voxels; '>u2' and the like say the order of bytes. Other files know both.
      spacing: of voxels; 1 each by default, and in NIfTI that of its affine. NIfTI's axes are turned to right,
        anterior, superior, and its values scaled as it says.
      frame: which one of a file with a fourth axis.
      fill: a number in place of voxels that are none (NaN, infinite).
    Raises CanonError for a file that is not what it should be, UsageError for arguments that do not fit it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f'no volume at {path}: give a .npy, .nii or .nii.gz, or raw voxels with their shape')
    known = None
    name = path.name.lower()
    if name.endswith(('.nii', '.nii.gz')):
        values, known = _nifti(path)
    elif name.endswith('.npy'):
        values = read_npy(path)
    else:
        values = _raw(path, shape, dtype)
    values = _one(values, path, frame)
    step = tuple(float(s) for s in (spacing if spacing is not None else known or (1.0, 1.0, 1.0)))
    if len(step) != 3 or not all(s > 0 and math.isfinite(s) for s in step):
        raise UsageError(f'{path}: spacing={step} is no three positive numbers, one for each of x, y, z')
    return Volume(_finite(values, path, fill), step, path.name)


def _nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Values with axes to right, anterior and superior, and the spacing.

    Both are those of one affine: the sform where its code is set, else the qform, else the plain spacing (the order of
    the NIfTI-1 standard's methods 3, 2 and 1).
    """
    import nibabel
    from nibabel.affines import voxel_sizes

    try:
        length = _length(path)
        stored: Any = nibabel.load(path)
        _check_header(stored, length)
        image: Any = nibabel.as_closest_canonical(stored)
        return np.asarray(image.dataobj), tuple(voxel_sizes(image.affine).tolist())
    except Exception as error:  # a header can be wrong in any way
        raise CanonError(f'{path} is no NIfTI file that can be read: {first_line(error)}') from error


def _length(path: Path) -> int:
    """Bytes of a file, or of what a gzip file packs, read up to its checksum, so that a damaged one raises an error."""
    if path.suffix.lower() != '.gz':
        return path.stat().st_size
    length = 0
    with gzip.open(path) as stream:
        while part := stream.read(1 << 22):
            length += len(part)
    return length


def _check_header(image: Any, length: int) -> None:
    """Raises ValueError for a header whose voxels do not lie within the file, or without a place in space."""
    shape, start = image.shape, image.dataobj.offset
    size = math.prod(int(n) for n in shape) * image.dataobj.dtype.itemsize
    if len(shape) < 3 or min(shape) < 1:
        raise ValueError(f'its voxels are {"x".join(map(str, shape))}, not X x Y x Z')
    if start < 0 or start + size > length:
        raise ValueError(f'its voxels take bytes {start:,} to {start + size:,}, and it has {length:,}')
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(image.affine[:3, :3]) < 3:
        raise ValueError(f'its affine {image.affine[:3].tolist()} is no orientation and spacing of three axes')


def _raw(path: Path, shape: Sequence[int] | None, dtype: str) -> np.ndarray:
    if shape is None:
        raise UsageError(f'{path} does not say its shape: give shape=(X, Y, Z), and dtype where voxels are not uint8')
    shape = tuple(int(n) for n in shape)
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"dtype={dtype!r} is no type of voxels; 'uint8', 'int16', '>u2', 'float32' are") from error
    if len(shape) not in (3, 4) or min(shape) < 1 or kind.kind not in 'uif':
        raise UsageError(
            f'{path}: shape={shape} of {dtype} is no volume; three positive numbers, and a type of numbers'
        )
    wanted, found = math.prod(shape) * kind.itemsize, path.stat().st_size
    if wanted != found:
        raise CanonError(
            f'{path} has {found:,} bytes, and {"x".join(map(str, shape))} voxels of {kind.name} are {wanted:,}; '
            'mend shape or dtype'
        )
    return np.fromfile(path, kind).reshape(shape[::-1]).T


def _one(values: np.ndarray, path: Path, frame: int | None) -> np.ndarray:
    """One frame [X, Y, Z] of what may have several along a last axis."""
    if values.dtype.kind not in 'uifb':
        raise CanonError(f'{path} holds {values.dtype} voxels, not numbers; save one channel of it as numbers')
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    size = 'x'.join(map(str, values.shape))
    if values.ndim == 4:
        if frame is None:
            raise UsageError(f'{path} has four axes, {size}: say which frame of 0..{values.shape[-1] - 1} it shall be')
        if not 0 <= frame < values.shape[-1]:
            raise UsageError(f'{path} has frames 0..{values.shape[-1] - 1}, not {frame}')
        values = values[..., frame]
    if values.ndim != 3 or min(values.shape) < 2:
        raise CanonError(f'{path} is {size}; a volume is X x Y x Z with at least two voxels along each')
    return values


def _finite(values: np.ndarray, path: Path, fill: float | None) -> np.ndarray:
    """Numbers in the machine's order of bytes, with `fill` in place of those that are NaN or infinite."""
    if values.dtype.kind in 'iub':
        kind = np.dtype(np.uint8) if values.dtype.kind == 'b' else values.dtype.newbyteorder('=')
        return np.ascontiguousarray(values, kind)
    values = np.ascontiguousarray(values, np.float32 if values.dtype.itemsize <= 4 else np.float64)
    bad = ~np.isfinite(values)
    if not bad.any():
        return values
    if fill is None:
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise CanonError(
            f'{path}: {bad.sum():,} of {bad.size:,} voxels are NaN or infinite, the first at {first}; '
            'set fill=0, or what they shall be'
        )
    return np.where(bad, values.dtype.type(fill), values)


# --- volumes that are made ----------------------------------------------------------------------------------------

# Value, half axes, middle, and the Euler angles phi, theta, psi in degrees about z, x, z of each ellipsoid: the head of
# Shepp & Logan 1974 with the contrast of Toft 1996 (p. 199), in three dimensions by Schabel 2006 (phantom3d), in whose
# code the space turns about its origin before the middle is taken off.
SHEPP_LOGAN = np.array([
    [1.0, 0.6900, 0.920, 0.810, 0.00, 0.0000, 0.00, 0, 0, 0],
    [-0.8, 0.6624, 0.874, 0.780, 0.00, -0.0184, 0.00, 0, 0, 0],
    [-0.2, 0.1100, 0.310, 0.220, 0.22, 0.0000, 0.00, -18, 0, 10],
    [-0.2, 0.1600, 0.410, 0.280, -0.22, 0.0000, 0.00, 18, 0, 10],
    [0.1, 0.2100, 0.250, 0.410, 0.00, 0.3500, -0.15, 0, 0, 0],
    [0.1, 0.0460, 0.046, 0.050, 0.00, 0.1000, 0.25, 0, 0, 0],
    [0.1, 0.0460, 0.046, 0.050, 0.00, -0.1000, 0.25, 0, 0, 0],
    [0.1, 0.0460, 0.023, 0.050, -0.08, -0.6050, 0.00, 0, 0, 0],
    [0.1, 0.0230, 0.023, 0.020, 0.00, -0.6060, 0.00, 0, 0, 0],
    [0.1, 0.0230, 0.046, 0.020, 0.06, -0.6050, 0.00, 0, 0, 0],
])  # fmt: skip


def shepp_logan(size: Annotated[int, Range(2, 1024)] = 64, samples: Count = 2) -> Volume:
    """The head phantom in the cube [-1, 1]^3: 0 outside, 1 the skull, 0.2 the brain; each voxel a mean of samples^3."""
    axis, voxel = np.linspace(-1, 1, size), 2 / (size - 1)
    total = np.zeros((size,) * 3)
    for inside in np.ndindex(samples, samples, samples):
        x, y, z = (axis + voxel * ((i + 0.5) / samples - 0.5) for i in inside)
        total += phantom_at(np.stack(np.meshgrid(x, y, z, indexing='ij'), -1))
    return Volume(
        (total / samples**3).astype(np.float32),
        (voxel, voxel, voxel),
        f'Shepp and Logan, {size}^3',
        (0, 1),
        phantom_integrals,
    )


def phantom_at(points: np.ndarray) -> np.ndarray:
    """The phantom at points [.., 3] -> float64 [..]: the sum of the ellipsoids that a point is in."""
    total = np.zeros(points.shape[:-1])
    for row in SHEPP_LOGAN:
        total += row[0] * ((_own(row, points, row[4:7]) ** 2).sum(-1) <= 1)
    return total


def phantom_integrals(origins: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Its exact integrals along whole lines [.., 3] -> float64 [..]: the value times the chord of each ellipsoid."""
    origins, ways = np.asarray(origins, np.float64), np.asarray(ways, np.float64)
    total = np.zeros(ways.shape[:-1])
    for row in SHEPP_LOGAN:
        start, way = _own(row, origins, row[4:7]), _own(row, ways, 0)
        square = (way**2).sum(-1)
        nearest = start - ((start * way).sum(-1) / square)[..., None] * way
        half = np.sqrt(np.maximum(1 - (nearest**2).sum(-1), 0) / square)
        total += row[0] * 2 * half * np.linalg.norm(ways, axis=-1)
    return total


def _own(row: np.ndarray, vectors: np.ndarray, middle: np.ndarray | int) -> np.ndarray:
    """Vectors [.., 3] in the axes of an ellipsoid, where it is the unit ball."""
    phi, theta, psi = np.radians(row[7:])

    def about_z(angle):
        return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    about_x = np.array([[1, 0, 0], [0, np.cos(theta), np.sin(theta)], [0, -np.sin(theta), np.cos(theta)]])
    return (vectors @ (about_z(psi) @ about_x @ about_z(phi)).T - middle) / row[1:4]


def marschner_lobb(
    size: Annotated[int, Range(2, 1024)] = 41, frequency: float = 6.0, alpha: NonNegative = 0.25
) -> Volume:
    """The test signal of Marschner & Lobb 1994, eq. 4 in [-1, 1]^3: rings of all values in 0..1, hard to sample well.

    (1 - sin(pi z / 2) + alpha (1 + cos(2 pi frequency cos(pi r / 2)))) / (2 (1 + alpha)).
    """
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size),) * 3, indexing='ij')
    rings = np.cos(2 * np.pi * frequency * np.cos(np.pi / 2 * np.hypot(x, y)))
    values = (1 - np.sin(np.pi * z / 2) + alpha * (1 + rings)) / (2 * (1 + alpha))
    voxel = 2 / (size - 1)
    return Volume(values.astype(np.float32), (voxel, voxel, voxel), f'Marschner and Lobb, {size}^3', (0, 1))
