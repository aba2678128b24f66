"""Triangle meshes and point clouds: reading, cleaning, normalising, sampling and writing them.

Meshes are `trimesh.Trimesh` objects whose triangles run anticlockwise seen from outside. What is computed from them
lives next door: distances in `canon.data.scenes.distances`, meshes of fields in `isosurfaces`, voxels in `voxels`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from canon.data.pipeline.arrays import open_npz, read_arrays, read_npy
from canon.data.scenes.winding import count_unpaired_edges, orient_bodies
from canon.errors import CanonError, UsageError, first_line

if TYPE_CHECKING:
    from trimesh import Trimesh

EXTENSIONS = ('.ply', '.obj', '.off', '.stl', '.glb', '.gltf')  # read
WRITTEN = ('.ply', '.obj', '.glb')
_SMALLEST, _LARGEST = 1e-30, 1e30  # extents of a mesh: beyond them products of its sides underflow or overflow


class Normalisation(NamedTuple):
    """A translation and a uniform scale that take a shape to the box in which a network learns it.

    Attributes:
      centre: [3], the point that becomes the origin.
      scale: the length that becomes 1.
    """

    centre: np.ndarray
    scale: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Maps points [N, 3] into the normalised box."""
        return (points - self.centre) / self.scale

    def invert(self, points: np.ndarray) -> np.ndarray:
        """Maps points [N, 3] of the normalised box back to the units of the file."""
        return points * self.scale + self.centre


# --- reading and writing ------------------------------------------------------------------------------------------


def read_mesh(path: str | Path) -> Trimesh:
    """Reads the triangles of a file, all of its parts as one mesh, with coincident vertices merged.

    Raises:
      UsageError: the file does not exist or has an unknown extension.
      CanonError: the file holds no usable mesh.
    """
    import trimesh

    path = Path(path).expanduser()
    if not path.is_file() or path.suffix.lower() not in EXTENSIONS:
        raise UsageError(f'{path} is not a file of triangles; give one of {", ".join(EXTENSIONS)}')
    try:
        mesh: Any = trimesh.load(path, force='mesh', process=False)
    except Exception as error:  # each format raises errors of its own
        raise CanonError(f'{path} cannot be read as a mesh ({type(error).__name__}: {first_line(error)})') from error
    faces = np.asarray(getattr(mesh, 'faces', ()))
    if not len(faces):
        raise CanonError(f'{path} holds no triangles; a point cloud is given as .npy, .npz, .xyz or .ply')
    if faces.min() < 0 or faces.max() >= len(mesh.vertices):
        worst = faces.min() if faces.min() < 0 else faces.max()
        raise CanonError(f'{path}: a face names vertex {worst}, but there are {len(mesh.vertices)}, counted from 0')
    if not np.isfinite(mesh.vertices).all():
        raise CanonError(f'{path}: a vertex is NaN or infinite')
    try:
        return clean_mesh(mesh.vertices, faces)
    except CanonError as error:
        raise CanonError(f'{path}: {error}') from None


def clean_mesh(vertices: np.ndarray, faces: np.ndarray) -> Trimesh:
    """Merges coincident vertices and orients each closed body outwards and each cavity inwards.

    Vertices closer than about 1e-8, or less where the mesh is smaller than 1, are coincident. Raises CanonError for
    triangles without area.
    """
    import trimesh

    mesh = trimesh.Trimesh(np.asarray(vertices, float), np.asarray(faces), process=False)
    # trimesh rounds to a number of decimal places, so a small mesh needs more of them.
    digits = max(8, 8 - round(np.log10(_extent(mesh.vertices))))
    digits = min(digits, 15 - round(np.log10(np.abs(mesh.vertices).max())))  # the precision of float64
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=digits)
    a, b, c = mesh.faces.T
    mesh.update_faces((a != b) & (b != c) & (c != a))  # slivers stay: removing them would open the surface
    mesh.remove_unreferenced_vertices()
    if not len(mesh.faces) or not mesh.area > 0:
        raise CanonError(f'all {len(faces)} triangles are without area')
    mesh.faces = orient_bodies(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    return mesh


def encode_mesh(mesh: Trimesh, name: str) -> bytes:
    """Encodes a mesh in the format of a file name, .ply, .obj or .glb. Raises UsageError for another extension."""
    extension = Path(name).suffix.lower()
    if extension not in WRITTEN:
        raise UsageError(f'{name}: meshes are written as {", ".join(WRITTEN)}')
    content: Any = mesh.export(file_type=extension.removeprefix('.'))
    return content.encode() if isinstance(content, str) else content


def write_mesh(mesh: Trimesh, path: str | Path) -> None:
    """Writes a mesh in the format of the extension, .ply, .obj or .glb. Raises UsageError for another extension."""
    path = Path(path)
    content = encode_mesh(mesh, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def read_points(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads points [N, 3] and their unit normals [N, 3], or None where the file has none.

    Formats: .npy and text of 3 columns, or of 6 with normals; .npz as the occupancy networks' data set (keys 'points',
    'normals'); .ply without triangles.

    Raises:
      UsageError: the file does not exist.
      CanonError: the file holds no such points.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f'there is no file of points {path}')
    if not path.stat().st_size:
        raise CanonError(f'{path} is empty')
    readers = {'.npz': _read_npz, '.ply': _read_ply, '.npy': lambda p: _split_columns(read_npy(p))}
    try:
        points, normals = readers.get(path.suffix.lower(), lambda p: _split_columns(np.loadtxt(p, ndmin=2)))(path)
    except CanonError:
        raise
    except Exception as error:  # each format raises errors of its own
        raise CanonError(f'{path} cannot be read as points: {first_line(error)}') from error
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or points.dtype.kind not in 'fiu':
        raise CanonError(f'{path}: points are numbers [N, 3], not {points.dtype} {points.shape}')
    if not np.isfinite(points).all():
        raise CanonError(f'{path}: point {np.argwhere(~np.isfinite(points))[0, 0]} is NaN or infinite')
    if normals is not None and np.shape(normals) != points.shape:
        raise CanonError(f'{path}: normals are {np.shape(normals)}, and points {points.shape}')
    try:
        return points.astype(np.float64), None if normals is None else unit_normals(normals)
    except CanonError as error:
        raise CanonError(f'{path}: {error}') from None


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with open_npz(path) as archive:
        if 'points' not in archive.files:
            raise UsageError(f"{path} holds {', '.join(archive.files)}, and no 'points'")
        arrays = read_arrays(path, archive, {k: k for k in ('points', 'normals') if k in archive.files})
    return arrays['points'], arrays.get('normals')


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    import trimesh

    cloud: Any = trimesh.load(path, process=False)
    # trimesh keeps the raw columns: a dict where the file is text, a structured array where it is binary.
    data = cloud.metadata.get('_ply_raw', {}).get('vertex', {}).get('data')
    names = () if data is None else data if isinstance(data, dict) else data.dtype.names
    axes = [np.asarray(data[name]).reshape(-1) for name in ('nx', 'ny', 'nz') if name in names]
    return np.asarray(cloud.vertices), np.stack(axes, -1) if len(axes) == 3 else None


def _split_columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if table.ndim != 2:
        return table, None
    return table[:, :3], table[:, 3:6] if table.shape[1] >= 6 else None


def holds_triangles(path: Path) -> bool:
    """Returns whether a file of one of `EXTENSIONS` has faces: a .ply may hold points alone."""
    if path.suffix.lower() != '.ply':
        return True
    header = path.read_bytes()[:4096].partition(b'end_header')[0]
    return b'element face' in header and b'element face 0' not in header


# --- geometry -----------------------------------------------------------------------------------------------------


def unit_normals(normals: np.ndarray) -> np.ndarray:
    """Scales normals [N, 3] to length 1. Raises CanonError for a normal that is 0 or not finite."""
    normals = np.asarray(normals, np.float64)
    # Dividing by the largest component first keeps the squares of tiny and huge normals from becoming 0 or infinite.
    largest = np.abs(normals).max(-1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        raise CanonError(
            f'{bad.size} of {len(normals)} normals have no direction, the first at {bad[0]}: {normals[bad[0]]}'
        )
    normals = normals / largest
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def count_bad_edges(mesh: Trimesh) -> int:
    """Counts edges that are not shared by pairs of triangles with the same orientation; 0 for a watertight mesh."""
    return count_unpaired_edges(np.asarray(mesh.faces))


def fit_cube(points: np.ndarray) -> Normalisation:
    """Returns the normalisation to the cube of side 1 about the origin, as occupancy networks have it.

    The longest side of the bounding box becomes 1.
    """
    return Normalisation((points.min(0) + points.max(0)) / 2, _extent(points))


def fit_sphere(points: np.ndarray, buffer: float = 1.03) -> Normalisation:
    """Returns the normalisation to the sphere of radius 1 / buffer about the origin, as DeepSDF has it.

    The centre of the bounding box becomes the origin.
    """
    _extent(points)
    centre = (points.min(0) + points.max(0)) / 2
    return Normalisation(centre, buffer * float(np.linalg.norm(points - centre, axis=-1).max()))


def _extent(points: np.ndarray) -> float:
    """Returns the longest side of the bounding box. Raises CanonError for one that cannot be scaled."""
    with np.errstate(over='ignore', invalid='ignore'):
        size = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    if not _SMALLEST < size < _LARGEST:
        raise CanonError(
            f'a shape of size {size:g} cannot be scaled; its points are all one, not finite, or too far apart'
        )
    return size


def sample_mesh(mesh: Trimesh, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Samples `count` points [count, 3] uniformly by area, with the normals [count, 3] of their triangles."""
    triangles = np.asarray(mesh.triangles)
    face = rng.choice(len(triangles), count, p=mesh.area_faces / mesh.area_faces.sum())
    u, v = rng.random((2, count, 1))
    # Reflecting the upper half of the unit square makes (u, v) uniform in the triangle u + v <= 1.
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = np.moveaxis(triangles[face], 1, 0)
    return a + u * (b - a) + v * (c - a), np.asarray(mesh.face_normals)[face]
