"""Meshes as files, as signed distances, and to and from points, voxels and fields.

A field is negative inside, as a signed distance is. Triangles are kept by trimesh, anticlockwise seen from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from canon.data.pipeline.arrays import open_npz, read_arrays, read_npy
from canon.data.scenes.winding import WindingNumber, orient_bodies, unpaired_edges
from canon.errors import CanonError, UsageError, first_line

if TYPE_CHECKING:
    from trimesh import Trimesh

EXTENSIONS = ('.ply', '.obj', '.off', '.stl', '.glb', '.gltf')
WRITTEN = ('.ply', '.obj', '.glb')
FINEST = 1024  # cells a side of a grid that a field is evaluated on; its values take 8 GB
_PIECES = 1000  # about so many pieces of a surface are searched
_PAIRS = 1 << 18  # of points and triangles at a time
_SMALLEST, _LARGEST = 1e-30, 1e30  # of a mesh: beyond them products of its sides are 0 or infinite
_OUTSIDE = 1e6  # beyond the border of a grid, so that surfaces are closed there
Field = Callable[[np.ndarray], np.ndarray]


class Fit(NamedTuple):
    """A shift and a scale: `into` the box that a network knows, and `back`."""

    centre: np.ndarray
    scale: float

    def into(self, points: np.ndarray) -> np.ndarray:
        return (points - self.centre) / self.scale

    def back(self, points: np.ndarray) -> np.ndarray:
        return points * self.scale + self.centre


# --- files --------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Trimesh:
    """The triangles of a file, all parts of it as one, corners at the same place joined.

    Raises UsageError for a file that is not there or of another kind, CanonError for one that holds no usable mesh.
    """
    import trimesh

    path = Path(path).expanduser()
    if not path.is_file() or path.suffix.lower() not in EXTENSIONS:
        raise UsageError(f'{path} is no file of triangles; give one of {", ".join(EXTENSIONS)}')
    try:
        mesh: Any = trimesh.load(path, force='mesh', process=False)
    except Exception as error:  # each format has errors of its own
        raise CanonError(f'{path} cannot be read as a mesh ({type(error).__name__}: {first_line(error)})') from error
    faces = np.asarray(getattr(mesh, 'faces', ()))
    if not len(faces):
        raise CanonError(f'{path} holds no triangles; a cloud of points is given as .npy, .npz, .xyz or .ply')
    if faces.min() < 0 or faces.max() >= len(mesh.vertices):
        worst = faces.min() if faces.min() < 0 else faces.max()
        raise CanonError(f'{path}: a face names corner {worst}, and there are {len(mesh.vertices)}, counted from 0')
    if not np.isfinite(mesh.vertices).all():
        raise CanonError(f'{path}: a corner is NaN or infinite')
    try:
        return joined(mesh.vertices, faces)
    except CanonError as error:
        raise CanonError(f'{path}: {error}') from None


def joined(vertices: np.ndarray, faces: np.ndarray) -> Trimesh:
    """A mesh whose corners at one place are one, each closed body facing outwards and each cavity inwards.

    Corners nearer than about 1e-8 are at one place; less where the mesh is smaller than 1. Raises CanonError for
    triangles without area.
    """
    import trimesh

    mesh = trimesh.Trimesh(np.asarray(vertices, float), np.asarray(faces), process=False)
    digits = max(8, 8 - round(np.log10(_extent(mesh.vertices))))
    digits = min(digits, 15 - round(np.log10(np.abs(mesh.vertices).max())))  # what float64 has
    mesh.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=digits)
    a, b, c = mesh.faces.T
    mesh.update_faces((a != b) & (b != c) & (c != a))  # a sliver stays: without it there would be a hole
    mesh.remove_unreferenced_vertices()
    if not len(mesh.faces) or not mesh.area > 0:
        raise CanonError(f'all {len(faces)} triangles are without area')
    mesh.faces = orient_bodies(np.asarray(mesh.vertices), np.asarray(mesh.faces))
    return mesh


def _extent(points: np.ndarray) -> float:
    """The longest side of the bounding box. Raises CanonError where it is 0 or not of any use."""
    with np.errstate(over='ignore', invalid='ignore'):
        size = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    if not _SMALLEST < size < _LARGEST:
        raise CanonError(
            f'a shape of size {size:g} cannot be scaled; its points are all one, not finite, or too far apart'
        )
    return size


def read_points(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads points [N, 3] and their unit normals [N, 3], or None where there are none.

    .npy and text of 3 columns, or of 6 with normals; .npz as the occupancy networks' (keys 'points', 'normals'); .ply
    without triangles. Raises UsageError for a file that is not there, CanonError for one that holds no such points.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f'there is no file of points {path}')
    if not path.stat().st_size:
        raise CanonError(f'{path} is empty')
    read_kind = {'.npz': _points_of_npz, '.ply': _points_of_ply, '.npy': lambda p: _columns(read_npy(p))}
    try:
        points, normals = read_kind.get(path.suffix.lower(), lambda p: _columns(np.loadtxt(p, ndmin=2)))(path)
    except CanonError:
        raise
    except Exception as error:  # each format has errors of its own
        raise CanonError(f'{path} cannot be read as points: {first_line(error)}') from error
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or not len(points) or points.dtype.kind not in 'fiu':
        raise CanonError(f'{path}: points are numbers [N, 3], not {points.dtype} {points.shape}')
    if not np.isfinite(points).all():
        raise CanonError(f'{path}: point {np.argwhere(~np.isfinite(points))[0, 0]} is NaN or infinite')
    if normals is not None and np.shape(normals) != points.shape:
        raise CanonError(f'{path}: normals are {np.shape(normals)}, and points {points.shape}')
    try:
        return points.astype(np.float64), None if normals is None else unit(normals)
    except CanonError as error:
        raise CanonError(f'{path}: {error}') from None


def _points_of_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    with open_npz(path) as archive:
        if 'points' not in archive.files:
            raise UsageError(f"{path} holds {', '.join(archive.files)}, and no 'points'")
        arrays = read_arrays(path, archive, {k: k for k in ('points', 'normals') if k in archive.files})
    return arrays['points'], arrays.get('normals')


def _points_of_ply(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    import trimesh

    cloud: Any = trimesh.load(path, process=False)
    data = cloud.metadata.get('_ply_raw', {}).get('vertex', {}).get('data')
    names = () if data is None else data if isinstance(data, dict) else data.dtype.names  # of text, and of bytes
    axes = [np.asarray(data[name]).reshape(-1) for name in ('nx', 'ny', 'nz') if name in names]
    return np.asarray(cloud.vertices), np.stack(axes, -1) if len(axes) == 3 else None


def _columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if table.ndim != 2:
        return table, None
    return table[:, :3], table[:, 3:6] if table.shape[1] >= 6 else None


def unit(normals: np.ndarray) -> np.ndarray:
    """Scales normals [N, 3] to length 1. Raises CanonError for one that is 0 or not finite."""
    normals = np.asarray(normals, np.float64)
    largest = np.abs(normals).max(-1, keepdims=True)  # divided first: squares of tiny or huge ones are 0 or infinite
    bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
    if bad.size:
        raise CanonError(
            f'{bad.size} of {len(normals)} normals have no direction, the first at {bad[0]}: {normals[bad[0]]}'
        )
    normals = normals / largest
    return normals / np.linalg.norm(normals, axis=-1, keepdims=True)


def write(mesh: Trimesh, path: str | Path) -> None:
    """.ply, .obj or .glb, by the ending. Raises UsageError for another."""
    path = Path(path)
    if path.suffix.lower() not in WRITTEN:
        raise UsageError(f'{path}: meshes are written as {", ".join(WRITTEN)}')
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh.export(path)


def bad_edges(mesh: Trimesh) -> int:
    """Edges that are not shared by triangles in pairs that face the same way; 0 for a watertight mesh."""
    return unpaired_edges(np.asarray(mesh.faces))


def cube_fit(points: np.ndarray) -> Fit:
    """Into the cube of side 1 about 0, as the occupancy networks have shapes: their longest side is 1."""
    return Fit((points.min(0) + points.max(0)) / 2, _extent(points))


def sphere_fit(points: np.ndarray, buffer: float = 1.03) -> Fit:
    """Into the sphere of radius 1 / buffer about the middle of the bounding box: DeepSDF's."""
    _extent(points)
    centre = (points.min(0) + points.max(0)) / 2
    return Fit(centre, buffer * float(np.linalg.norm(points - centre, axis=-1).max()))


# --- distances ----------------------------------------------------------------------------------------------------


class Nearest(NamedTuple):
    """For each point: how far the surface is [N], in which triangle [N], and where [N, 3]."""

    distance: np.ndarray
    face: np.ndarray
    place: np.ndarray


class Surface:
    """A mesh that tells how far points are from it, and on which side.

    Distances are exact: triangles are tried in the order of the middles of their pieces until none that is left can be
    nearer. The side is that of the winding number, so bodies may overlap; but their walls within each other count as
    surface for the distance. Unite them first where that matters.
    """

    def __init__(self, mesh: Trimesh):
        from scipy.spatial import KDTree

        self.mesh = mesh
        self._corners = np.asarray(mesh.triangles, float)
        # A piece is tried as the triangle that it is cut from: what is added are middles to search among.
        pieces, self._of = _cut(self._corners, 2 * np.sqrt(mesh.area / _PIECES), 64 * _PIECES)
        middles = pieces.mean(1)
        self._radius = float(np.linalg.norm(pieces - middles[:, None], axis=-1).max())
        self._tree = KDTree(middles)

    def nearest(self, points: np.ndarray) -> Nearest:
        """For points [N, 3]."""
        points = np.asarray(points, float)
        weights, face = np.empty((len(points), 3)), np.empty(len(points), int)
        todo, count = np.arange(len(points)), 8
        while todo.size:
            count = min(count, self._tree.n)
            left = []
            for part in np.array_split(todo, -(-todo.size * count // _PAIRS)):
                face[part], weights[part], sure = self._among(points[part], count)
                left.append(part[~sure])
            todo, count = np.concatenate(left), count * 4
        place = np.einsum('nk,nkd->nd', weights, self._corners[face])
        return Nearest(np.linalg.norm(points - place, axis=-1), face, place)

    def _among(self, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nearest of the `count` next triangles, the weights of its corners, and whether none can be nearer."""
        far, pieces = (x.reshape(len(points), count) for x in self._tree.query(points, count))
        faces = self._of[pieces]
        weights = nearest_weights(points[:, None], self._corners[faces])
        place = np.einsum('nck,nckd->ncd', weights, self._corners[faces])
        distance = np.linalg.norm(points[:, None] - place, axis=-1)
        row, best = np.arange(len(points)), distance.argmin(1)
        sure = (far[:, -1] - self._radius >= distance[row, best]) | (count == self._tree.n)
        return faces[row, best], weights[row, best], sure

    @cached_property
    def winding_number(self) -> WindingNumber:
        """The winding number about points. Raises CanonError for a mesh that is not watertight."""
        bad = bad_edges(self.mesh)
        if bad:
            raise CanonError(
                f'the mesh is not watertight: {bad} of its {len(self.mesh.edges_unique)} edges are not between two '
                'triangles that face the same way, so it has no inside; close it first'
            )
        return WindingNumber(self._corners)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Whether points [N, 3] are inside. Raises CanonError for a mesh that is not watertight."""
        return self.winding_number(points) > 0

    def signed(self, points: np.ndarray) -> np.ndarray:
        """Signed distances [N], negative inside. Raises CanonError for a mesh that is not watertight."""
        inside, distance = self.inside(points), self.nearest(points).distance
        return np.where(inside, -distance, distance)


def _cut(triangles: np.ndarray, longest: float, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts triangles into pieces [P, 3, 3] without edges above `longest`, at most `limit`; returns also whose they are.

    The longest edge is halved each time, so that a long sliver becomes few pieces.
    """
    source = np.arange(len(triangles))
    while True:
        edges = np.linalg.norm(np.roll(triangles, -1, 1) - triangles, axis=-1)
        long = edges.max(1) > longest
        if not long.any() or len(triangles) + long.sum() > max(limit, len(source)):
            return triangles, source
        first = edges[long].argmax(1)[:, None] + np.arange(3)
        a, b, c = np.moveaxis(np.take_along_axis(triangles[long], (first % 3)[..., None], 1), 1, 0)
        half = (a + b) / 2
        triangles = np.concatenate((triangles[~long], np.stack((a, half, c), 1), np.stack((half, b, c), 1)))
        source = np.concatenate((source[~long], source[long], source[long]))


def nearest_weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Weights [.., 3] of the corners whose sum is the place of `triangles` [.., 3, 3] nearest to `points` [.., 3].

    Ericson 2005, section 5.1.5. On an edge, and at a corner, the others are exactly 0.
    """
    a, b, c = np.moveaxis(triangles, -2, 0)
    dot = lambda x, y: (x * y).sum(-1)  # noqa: E731
    along, across = b - a, c - a
    d1, d2 = dot(along, points - a), dot(across, points - a)
    d3, d4 = dot(along, points - b), dot(across, points - b)
    d5, d6 = dot(along, points - c), dot(across, points - c)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    one, zero = np.ones_like(d1), np.zeros_like(d1)
    tiny = np.finfo(float).tiny
    share = lambda x, y: np.clip(x / np.where(x + y == 0, tiny, x + y), 0, 1)  # noqa: E731
    ab, ac, bc = share(d1, -d3), share(d2, -d6), share(d4 - d3, d5 - d6)
    whole = np.where(va + vb + vc == 0, tiny, va + vb + vc)
    cases = (
        ((d1 <= 0) & (d2 <= 0), (one, zero, zero)),
        ((d3 >= 0) & (d4 <= d3), (zero, one, zero)),
        ((d6 >= 0) & (d5 <= d6), (zero, zero, one)),
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), (1 - ab, ab, zero)),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), (1 - ac, zero, ac)),
        ((va <= 0) & (d4 >= d3) & (d5 >= d6), (zero, 1 - bc, bc)),
    )
    where = [case for case, _ in cases]
    inside = (va / whole, vb / whole, vc / whole)
    return np.stack([np.select(where, [w[i] for _, w in cases], inside[i]) for i in range(3)], -1)


# --- fields to meshes ---------------------------------------------------------------------------------------------


def grid_points(resolution: int, half: float, first: int = 0, last: int | None = None) -> np.ndarray:
    """The corners of resolution^3 cells of the cube [-half, half]^3, float64 [n, 3], z the fastest."""
    _check_resolution(resolution)
    line = np.linspace(-half, half, resolution + 1)
    flat = np.arange(first, (resolution + 1) ** 3 if last is None else last)
    return line[np.stack(np.unravel_index(flat, (resolution + 1,) * 3), -1)]


def iso_surface(values: np.ndarray, half: float, level: float = 0.0) -> Trimesh:
    """Where `values` [n, n, n], at the corners of the cells of [-half, half]^3, are `level`; inside is below.

    Marching cubes (Lorensen & Cline 1987; scikit-image's, which is Lewiner's). It is closed at the border of the grid.
    Raises CanonError where the level is nowhere, with what the values are.
    """
    from skimage.measure import marching_cubes

    _require_finite(values)
    low, high = float(np.min(values)), float(np.max(values))
    if low >= level:
        raise CanonError(f'there is no surface: the field is {low:g} to {high:g}, nowhere below the level {level:g}')
    spacing = 2 * half / (np.asarray(values.shape) - 1)
    closed = np.pad(np.asarray(values, np.float64) - level, 1, constant_values=_OUTSIDE * float(spacing.max()))
    vertices, faces, _, _ = marching_cubes(closed.astype(np.float32), 0.0, gradient_direction='ascent')
    return joined((vertices - 1) * spacing - half, faces)


def _require_finite(values: np.ndarray) -> np.ndarray:
    low, high = float(np.min(values)), float(np.max(values))
    if not np.isfinite([low, high]).all():
        raise CanonError(f'no surface can be drawn: the field has values from {low:g} to {high:g}')
    return values


def mise(field: Field, half: float, resolution: int = 32, upsamplings: int = 2, level: float = 0.0) -> np.ndarray:
    """`field` on a grid of resolution 2^upsamplings cells a side, asked only near where it is `level`: [n, n, n].

    Multiresolution iso-surface extraction (Mescheder et al. 2019, section 3.3): a cell with corners, or points of finer
    cells on its faces, on both sides is cut in eight, until none is left. Elsewhere the values are of the right sign,
    not the field's own, so the surface is that of the whole grid wherever the coarse grid meets each part of it.
    """
    if resolution < 1 or upsamplings < 0 or resolution << upsamplings > FINEST:
        raise UsageError(
            f'resolution={resolution} is at least 1, upsamplings={upsamplings} at least 0, and both together at most '
            f'{FINEST} cells a side'
        )
    side = resolution << upsamplings
    values = np.full((side + 1,) * 3, np.nan)
    wanted = np.zeros(values.shape, bool)
    wanted[(slice(None, None, 1 << upsamplings),) * 3] = True
    cut = [np.zeros((resolution << depth,) * 3, bool) for depth in range(upsamplings)]
    while wanted.any():
        where = np.argwhere(wanted)
        values[wanted] = _require_finite(np.asarray(field(where * (2 * half / side) - half)))
        wanted[:] = False
        for depth in range(upsamplings):
            step = 1 << (upsamplings - depth)
            exists = True if depth == 0 else _doubled(cut[depth - 1])
            new = _crossed(values, step, level) & exists & ~cut[depth]
            cut[depth] |= new
            _mark(wanted, np.argwhere(new), step)
        wanted &= np.isnan(values)
    return _filled(values)


def _crossed(values: np.ndarray, step: int, level: float) -> np.ndarray:
    """Of the cells of `step`, those that have known points on both sides of the level, on their faces or within."""
    above = _any_in_cells(values >= level, step)  # nan is neither
    return above & _any_in_cells(values <= level, step)


def _any_in_cells(found: np.ndarray, step: int) -> np.ndarray:
    for axis in range(3):
        starts = np.arange(0, found.shape[axis] - 1, step)
        ends = np.take(found, starts + step, axis)
        found = np.logical_or.reduceat(found, starts, axis) | ends
    return found


def _mark(wanted: np.ndarray, cells: np.ndarray, step: int) -> None:
    """The corners of the eight parts of each cell."""
    for offset in np.ndindex(3, 3, 3):
        wanted[tuple((cells * step + np.asarray(offset) * (step // 2)).T)] = True


def _doubled(cells: np.ndarray) -> np.ndarray:
    return cells.repeat(2, 0).repeat(2, 1).repeat(2, 2)


def _filled(values: np.ndarray) -> np.ndarray:
    """Unknown points as the known one before them: between known ones of a cell that is not cut all have one sign."""
    for axis in range(3):
        places = np.arange(len(values)).reshape([-1 if i == axis else 1 for i in range(3)])
        last = np.maximum.accumulate(np.where(np.isnan(values), 0, places), axis)
        values = np.take_along_axis(values, last, axis)
    return values


def extract(field: Field, half: float, resolution: int = 32, upsamplings: int = 2, level: float = 0.0) -> Trimesh:
    """The mesh where a field [N, 3] -> [N] over [-half, half]^3 is `level`: `mise`, then `iso_surface`."""
    return iso_surface(mise(field, half, resolution, upsamplings, level), half, level)


# --- points and voxels --------------------------------------------------------------------------------------------


def points_of_mesh(mesh: Trimesh, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` places spread evenly over the surface by area, [count, 3], and the normals of their triangles."""
    corners = np.asarray(mesh.triangles)
    face = rng.choice(len(corners), count, p=mesh.area_faces / mesh.area_faces.sum())
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = np.moveaxis(corners[face], 1, 0)
    return a + u * (b - a) + v * (c - a), np.asarray(mesh.face_normals)[face]


def field_of_points(points: np.ndarray, normals: np.ndarray) -> Field:
    """The signed distance to the tangent plane of the nearest point (Hoppe et al. 1992, section 3.3).

    Normals may have any length but 0.
    """
    from scipy.spatial import KDTree

    tree, normals = KDTree(points), unit(normals)

    def field(asked: np.ndarray) -> np.ndarray:
        nearest = tree.query(asked)[1]
        return ((asked - points[nearest]) * normals[nearest]).sum(-1)

    return field


def voxels_of_field(field: Field, resolution: int, half: float) -> np.ndarray:
    """bool [resolution^3]: whether the middle of each cell of [-half, half]^3 is inside."""
    _check_resolution(resolution)
    line = (np.arange(resolution) + 0.5) * (2 * half / resolution) - half
    middles = np.stack(np.meshgrid(line, line, line, indexing='ij'), -1).reshape(-1, 3)
    return (np.asarray(field(middles)) < 0).reshape((resolution,) * 3)


def voxels_of_points(points: np.ndarray, resolution: int, half: float) -> np.ndarray:
    """bool [resolution^3]: the cells of [-half, half]^3 that hold a point, those on its upper walls included."""
    _check_resolution(resolution)
    within = points[(np.abs(points) <= half).all(-1)]
    cells = np.minimum(np.floor((within + half) * (resolution / (2 * half))).astype(int), resolution - 1)
    voxels = np.zeros((resolution,) * 3, bool)
    voxels[tuple(cells.T)] = True
    return voxels


def _check_resolution(resolution: int) -> None:
    if not 1 <= resolution <= FINEST:
        raise UsageError(f'resolution={resolution} is not between 1 and {FINEST} cells a side')


def points_of_voxels(voxels: np.ndarray, half: float) -> np.ndarray:
    """The middles of the cells that are filled, [N, 3]."""
    return (np.argwhere(voxels) + 0.5) * (2 * half / len(voxels)) - half


def distances_of_voxels(voxels: np.ndarray, half: float) -> np.ndarray:
    """Signed distances [n, n, n] of the cells' middles, to the walls between cells as an exact Euclidean transform has
    them: to the nearest middle of the other kind, half a cell less. Raises CanonError where all are alike."""
    from scipy.ndimage import distance_transform_edt

    if voxels.all() or not voxels.any():
        raise CanonError(f'voxels that are all {"full" if voxels.all() else "empty"} have no surface')
    outside, inside = distance_transform_edt(~voxels), distance_transform_edt(voxels)
    cells = np.where(voxels, 0.5 - inside, outside - 0.5)
    return cells * (2 * half / len(voxels))


def mesh_of_voxels(voxels: np.ndarray, half: float) -> Trimesh:
    """Halfway between the middles of full and of empty cells; without any, CanonError as in `iso_surface`."""
    cell = 2 * half / len(voxels)
    ringed = np.pad(np.asarray(voxels, bool), 1)
    return iso_surface(np.where(ringed, -1.0, 1.0), half + cell / 2)
