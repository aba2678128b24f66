"""Volumes: voxels of scanners and simulations from files, and synthetic ones in closed form.

Files are `.npy`, NIfTI (`.nii`, `.nii.gz`), or raw voxels of a given shape and type. A volume is [X, Y, Z] with its
spacing.
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
    """A scalar volume.

    Attributes:
      values: numbers [X, Y, Z], in the type in which they are stored.
      spacing: between the centres of neighbouring voxels along each axis, in any one unit.
      name: for titles and errors.
      limits: the values that are displayed as 0 and 1; None takes the minimum and the maximum.
      integrals: exact line integrals, (origins, directions) [..., 3] -> [...], along whole lines in the box
        [-half, half]; None where they are not known.
    """

    values: np.ndarray
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    name: str = ''
    limits: tuple[float, float] | None = None
    integrals: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None

    @property
    def half(self) -> np.ndarray:
        """Half sides float64 [3] of the box between the centres of the outermost voxels, the longest of them 1."""
        sides = (np.array(self.values.shape) - 1) * np.array(self.spacing)
        return sides / sides.max()

    @property
    def scaled(self) -> np.ndarray:
        """Values scaled to 0..1, float32. Raises CanonError where all are the same."""
        low, high = self.limits or (self.values.min(), self.values.max())
        if low == high:
            raise CanonError(f'{self.name}: all voxels are {low:g}; there is nothing to display')
        if not np.isfinite(float(high) - float(low)):
            raise CanonError(f'{self.name}: values from {low:g} to {high:g} are too far apart to be scaled')
        above = self.values
        if above.dtype.kind in 'iu' and self.limits is None:
            # Integers are subtracted modulo 2^bits, which is exact; float64 holds only 53 bits of them.
            above = (above - low).view(f'u{above.dtype.itemsize}')
            low, high = 0, int(high) - int(low)
        scaled = np.subtract(above, low, dtype=np.float64)
        return np.divide(scaled, float(high) - float(low), out=scaled).astype(np.float32)


VOLUMES = named.Catalogue('volume', ('canon.data.scenes',), lambda function: named.get_return_type(function) is Volume)


def load_volume(name: str, **source: Any) -> Volume:
    """Loads or makes a `Volume`.

    Args:
      name: of a public function of `canon.data.scenes` that returns a `Volume`: 'shepp_logan' or 'marschner_lobb' with
        size=, or 'read_volume' with path=. 'package.module:function' is such a function of any other module.
      source: arguments of the function.

    Raises:
      UsageError: the name or an argument does not exist; further errors are those of the function.
    """
    return named.call(VOLUMES.find(name), source, f'volume {name!r}')


# --- files --------------------------------------------------------------------------------------------------------


def read_volume(
    path: str | Path,
    shape: Sequence[Count] | None = None,
    dtype: str = 'uint8',
    spacing: Sequence[Positive] | None = None,
    frame: int | None = None,
    fill: float | None = None,
) -> Volume:
    """Reads a volume from `.npy`, NIfTI, or raw voxels with x varying fastest.

    NIfTI volumes are reoriented to right, anterior, superior, and their values scaled as the header says.

    Args:
      path: the file.
      shape: (X, Y, Z) of raw voxels; other files have their own.
      dtype: of raw voxels, with their byte order: 'int16', '>u2'.
      spacing: of voxels; None takes that of NIfTI's affine, 1 elsewhere.
      frame: index along the fourth axis, for files that have one.
      fill: replaces voxels that are NaN or infinite; None raises an error for them.

    Raises:
      CanonError: the file is damaged or not what it should be.
      UsageError: an argument does not fit the file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f'no volume at {path}: give a .npy, .nii or .nii.gz, or raw voxels with their shape')
    own_spacing = None
    name = path.name.lower()
    if name.endswith(('.nii', '.nii.gz')):
        values, own_spacing = _read_nifti(path)
    elif name.endswith('.npy'):
        values = read_npy(path)
    else:
        values = _read_raw(path, shape, dtype)
    values = _select_frame(values, path, frame)
    step = tuple(float(s) for s in (spacing if spacing is not None else own_spacing or (1.0, 1.0, 1.0)))
    if len(step) != 3 or not all(s > 0 and math.isfinite(s) for s in step):
        raise UsageError(f'{path}: spacing={step} must be three positive numbers, one for each of x, y, z')
    return Volume(_fill_invalid(values, path, fill), step, path.name)


def _read_nifti(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the values along right, anterior and superior, and their spacing.

    Both follow one affine: the sform if its code is set, else the qform, else the plain spacing (methods 3, 2 and 1 of
    the NIfTI-1 standard, in this order).
    """
    import nibabel
    from nibabel.affines import voxel_sizes

    try:
        length = _unpacked_length(path)
        stored: Any = nibabel.load(path)
        _check_header(stored, length)
        image: Any = nibabel.as_closest_canonical(stored)
        return np.asarray(image.dataobj), tuple(voxel_sizes(image.affine).tolist())
    except Exception as error:  # damaged headers raise all kinds of errors
        raise CanonError(f'{path} cannot be read as NIfTI: {first_line(error)}') from error


def _unpacked_length(path: Path) -> int:
    """Returns the bytes of a file, unpacked if it is gzip; reading up to its checksum raises an error for damage."""
    if path.suffix.lower() != '.gz':
        return path.stat().st_size
    length = 0
    with gzip.open(path) as stream:
        while part := stream.read(1 << 22):
            length += len(part)
    return length


def _check_header(image: Any, length: int) -> None:
    """Raises ValueError for a header whose voxels exceed the file, or without an orientation."""
    shape, start = image.shape, image.dataobj.offset
    size = math.prod(int(n) for n in shape) * image.dataobj.dtype.itemsize
    if len(shape) < 3 or min(shape) < 1:
        raise ValueError(f'its voxels are {"x".join(map(str, shape))}, not X x Y x Z')
    if start < 0 or start + size > length:
        raise ValueError(f'its voxels take bytes {start:,} to {start + size:,}, and it has {length:,}')
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(image.affine[:3, :3]) < 3:
        raise ValueError(f'its affine {image.affine[:3].tolist()} is not an orientation and spacing of three axes')


def _read_raw(path: Path, shape: Sequence[int] | None, dtype: str) -> np.ndarray:
    if shape is None:
        raise UsageError(f'{path} does not state its shape: give shape=(X, Y, Z), and dtype if voxels are not uint8')
    shape = tuple(int(n) for n in shape)
    try:
        kind = np.dtype(dtype)
    except TypeError as error:
        raise UsageError(f"dtype={dtype!r} is not a type of voxels; 'uint8', 'int16', '>u2', 'float32' are") from error
    if len(shape) not in (3, 4) or min(shape) < 1 or kind.kind not in 'uif':
        raise UsageError(f'{path}: expected three positive numbers and a numeric type, got {shape=}, {dtype=}')
    expected, size = math.prod(shape) * kind.itemsize, path.stat().st_size
    if expected != size:
        raise CanonError(
            f'{path} has {size:,} bytes, and {"x".join(map(str, shape))} voxels of {kind.name} are {expected:,}; '
            'correct shape or dtype'
        )
    # x varies fastest in the file: the last axis of numpy's order, hence reversed and transposed.
    return np.fromfile(path, kind).reshape(shape[::-1]).T


def _select_frame(values: np.ndarray, path: Path, frame: int | None) -> np.ndarray:
    """Returns one frame [X, Y, Z] of an array that may have a fourth axis."""
    if values.dtype.kind not in 'uifb':
        raise CanonError(f'{path} holds {values.dtype} voxels, not numbers; save one channel of it as numbers')
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    size = 'x'.join(map(str, values.shape))
    if values.ndim == 4:
        if frame is None:
            raise UsageError(f'{path} has four axes, {size}: choose a frame of 0..{values.shape[-1] - 1}')
        if not 0 <= frame < values.shape[-1]:
            raise UsageError(f'{path} has frames 0..{values.shape[-1] - 1}, not {frame}')
        values = values[..., frame]
    if values.ndim != 3 or min(values.shape) < 2:
        raise CanonError(f'{path} is {size}; a volume is X x Y x Z with at least two voxels along each')
    return values


def _fill_invalid(values: np.ndarray, path: Path, fill: float | None) -> np.ndarray:
    """Returns numbers in native byte order, with `fill` in place of those that are NaN or infinite."""
    # Integers keep their type: converting 16 bits to floats would double the memory before anything is scaled.
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
            'set fill=0, or another number'
        )
    return np.where(bad, values.dtype.type(fill), values)


# --- synthetic volumes --------------------------------------------------------------------------------------------

# Of each ellipsoid: value, half axes, centre, and Euler angles phi, theta, psi in degrees about z, x, z. The head of
# Shepp & Logan 1974 with the contrast of Toft 1996 (p. 199), in three dimensions by Schabel 2006 (phantom3d). Schabel's
# code rotates space about its origin before it subtracts the centre, and so does ours.
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
    """The Shepp-Logan head phantom in the cube [-1, 1]^3: 0 outside, 1 the skull, 0.2 the brain.

    Args:
      size: voxels per side.
      samples: each voxel is the mean of samples^3 points.
    """
    axis, voxel = np.linspace(-1, 1, size), 2 / (size - 1)
    total = np.zeros((size,) * 3)
    # Supersampling one offset at a time: all of them at once would take samples^3 times the memory.
    for offset in np.ndindex(samples, samples, samples):
        x, y, z = (axis + voxel * ((i + 0.5) / samples - 0.5) for i in offset)
        total += phantom_at(np.stack(np.meshgrid(x, y, z, indexing='ij'), -1))
    return Volume(
        (total / samples**3).astype(np.float32),
        (voxel, voxel, voxel),
        f'Shepp and Logan, {size}^3',
        (0, 1),
        phantom_integrals,
    )


def phantom_at(points: np.ndarray) -> np.ndarray:
    """Evaluates the phantom at points [..., 3] -> float64 [...]: the sum of the ellipsoids that contain a point."""
    total = np.zeros(points.shape[:-1])
    for row in SHEPP_LOGAN:
        total += row[0] * ((_to_unit_ball(row, points, row[4:7]) ** 2).sum(-1) <= 1)
    return total


def phantom_integrals(origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Integrates the phantom exactly along whole lines [..., 3] -> float64 [...]: value times chord per ellipsoid."""
    origins, directions = np.asarray(origins, np.float64), np.asarray(directions, np.float64)
    total = np.zeros(directions.shape[:-1])
    for row in SHEPP_LOGAN:
        start, direction = _to_unit_ball(row, origins, row[4:7]), _to_unit_ball(row, directions, 0)
        square = (direction**2).sum(-1)
        # Of the unit ball: the point of the line nearest to the centre, and Pythagoras.
        nearest = start - ((start * direction).sum(-1) / square)[..., None] * direction
        half_chord = np.sqrt(np.maximum(1 - (nearest**2).sum(-1), 0) / square)
        total += row[0] * 2 * half_chord * np.linalg.norm(directions, axis=-1)
    return total


def _to_unit_ball(row: np.ndarray, vectors: np.ndarray, centre: np.ndarray | int) -> np.ndarray:
    """Maps vectors [..., 3] to the axes in which an ellipsoid is the unit ball."""
    phi, theta, psi = np.radians(row[7:])

    def rotate_z(angle):
        return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    rotate_x = np.array([[1, 0, 0], [0, np.cos(theta), np.sin(theta)], [0, -np.sin(theta), np.cos(theta)]])
    return (vectors @ (rotate_z(psi) @ rotate_x @ rotate_z(phi)).T - centre) / row[1:4]


def marschner_lobb(
    size: Annotated[int, Range(2, 1024)] = 41, frequency: float = 6.0, alpha: NonNegative = 0.25
) -> Volume:
    """The test signal of Marschner & Lobb 1994, eq. 4, in [-1, 1]^3: rings that are hard to reconstruct from samples.

    (1 - sin(pi z / 2) + alpha (1 + cos(2 pi frequency cos(pi r / 2)))) / (2 (1 + alpha)), in 0..1.

    Args:
      size: voxels per side.
      frequency: of the rings.
      alpha: their amplitude.
    """
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size),) * 3, indexing='ij')
    rings = np.cos(2 * np.pi * frequency * np.cos(np.pi / 2 * np.hypot(x, y)))
    values = (1 - np.sin(np.pi * z / 2) + alpha * (1 + rings)) / (2 * (1 + alpha))
    voxel = 2 / (size - 1)
    return Volume(values.astype(np.float32), (voxel, voxel, voxel), f'Marschner and Lobb, {size}^3', (0, 1))
