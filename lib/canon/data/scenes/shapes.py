"""Shapes to learn from: meshes of files, or synthetic bodies with signed distances in closed form; and their samples.

Shapes lie in the cube [-1/2, 1/2]^3 (space 'cube', as occupancy networks have it) or in the unit sphere (space
'sphere', as DeepSDF has it). Signed distances are negative inside. All samples are functions of the generator given.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import numpy as np

from canon import named
from canon.data.scenes import isosurfaces, meshes
from canon.data.scenes.distances import MeshDistance
from canon.errors import CanonError, UsageError
from canon.named import Count, Range, suggest

if TYPE_CHECKING:
    from trimesh import Trimesh

SPLITS = ('train', 'test')
SPACES = ('cube', 'sphere')
BUFFER = 1.03  # the unit sphere's radius over that of DeepSDF's shapes in it
KINDS = ('sphere', 'box', 'torus', 'capsule', 'cylinder', 'blend')
_PRIMITIVES = KINDS[:-1]
_SAMPLED = 32  # cells per side of the mesh from which samples of an analytic surface start
_DRAWN = 48  # cells per side of the mesh that is drawn
_RETRIES = 100  # attempts to replace samples on walls inside a body


class Shape(Protocol):
    """A surface that is sampled, and where it is closed a solid with signed distances."""

    @property
    def name(self) -> str: ...

    @property
    def mesh(self) -> Trimesh: ...

    @property
    def watertight(self) -> bool:
        """Whether the surface is closed, so that there are an inside and signed distances."""
        ...

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Returns signed distances [N] of points [N, 3]."""
        ...

    def is_inside(self, points: np.ndarray) -> np.ndarray:
        """Returns whether points [N, 3] are inside, bool [N]; for a mesh much cheaper than the distances."""
        ...

    def sample_surface(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns points [count, 3] on the surface, uniform by area, and their unit normals."""
        ...


SHAPES = named.Catalogue(
    'family of shapes',
    ('canon.data.scenes',),
    lambda function: named.accepts(function, 'split') and named.accepts(function, 'space'),
)


def load_shapes(
    path: str | None = None,
    split: str = 'train',
    space: str = 'cube',
    name: str = 'make_bodies',
    **arguments: Any,
) -> list[Shape]:
    """Lists the shapes of a split. Files are found, and each is read when it is first used.

    Args:
      path: a mesh or a folder of meshes. A folder with folders 'train' and 'test' has those splits; of another one
        every tenth file (the last one of fewer than ten) is the test split. A single file is both splits. None takes
        the synthetic shapes `name`.
      split: 'train' or 'test'.
      space: 'cube' or 'sphere'.
      name: of a public function of `canon.data.scenes` that takes `split` and `space` and returns shapes, or
        'package.module:function', such a function of any other module.
      arguments: further arguments of that function.

    Raises:
      UsageError: the split, the space or the folder does not exist, or the folder has no meshes.
    """
    if split not in SPLITS or space not in SPACES:
        raise UsageError(f'shapes: split={split!r} must be one of {SPLITS}, and space={space!r} one of {SPACES}')
    if path is None:
        return list(named.call(SHAPES.find(name), {'split': split, 'space': space, **arguments}, 'data.family'))
    if not path:  # '' would be the folder that the command happens to run in
        raise UsageError('data.path is empty; name a mesh or a folder of meshes, or leave it None for synthetic bodies')
    return [MeshShape(file, space) for file in _list_files(Path(path).expanduser(), split)]


def _list_files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f'data.path={path}: there is no such file or folder')
    has_splits = all((path / name).is_dir() for name in SPLITS)
    root = path / split if has_splits else path
    files = sorted(p for p in root.rglob('*') if p.suffix.lower() in meshes.EXTENSIONS and p.is_file())
    if not files:
        raise UsageError(f'data.path={root} holds no meshes ({", ".join(meshes.EXTENSIONS)})')
    if has_splits or len(files) == 1:
        return files
    # By place in the sorted list: no random numbers, and the same division on every machine.
    held_out = files[9::10] or files[-1:]
    return held_out if split == 'test' else [file for file in files if file not in held_out]


class MeshShape:
    """A mesh file, read when it is first used and normalised into a space.

    Attributes:
      normalisation: takes the units of the file to those of the space.
    """

    def __init__(self, path: str | Path, space: str = 'cube'):
        self.path, self.space, self.name = Path(path), space, Path(path).stem

    @cached_property
    def normalisation(self) -> meshes.Normalisation:
        return normalise(np.asarray(self._file_mesh.vertices), self.space)

    @cached_property
    def _file_mesh(self) -> Trimesh:
        return meshes.read_mesh(self.path)

    @cached_property
    def mesh(self) -> Trimesh:
        mesh = self._file_mesh.copy()
        mesh.vertices = self.normalisation.apply(np.asarray(self._file_mesh.vertices))
        return mesh

    @cached_property
    def distances(self) -> MeshDistance:
        return MeshDistance(self.mesh)

    @cached_property
    def watertight(self) -> bool:
        return meshes.count_bad_edges(self.mesh) == 0

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        with self._name_file_in_errors():
            return self.distances.signed_distance(points)

    def is_inside(self, points: np.ndarray) -> np.ndarray:
        with self._name_file_in_errors():
            return self.distances.is_inside(points)

    @contextmanager
    def _name_file_in_errors(self) -> Generator[None]:
        try:
            yield
        except CanonError as error:
            raise type(error)(f'{self.path}: {error}') from None

    def sample_surface(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Samples the surface; of a watertight mesh only points that separate inside from outside.

        Walls within overlapping bodies have inside on both sides and are not part of the solid's boundary.
        """
        points, normals = meshes.sample_mesh(self.mesh, count, rng)
        if not self.watertight:
            return points, normals
        for _ in range(_RETRIES):
            hidden = np.flatnonzero(self._is_hidden(points, normals))
            if not hidden.size:
                break
            # Rejection keeps the rest uniform by area.
            points[hidden], normals[hidden] = meshes.sample_mesh(self.mesh, hidden.size, rng)
        return points, normals

    def _is_hidden(self, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
        step = 1e-6 * normals  # the mesh has a size of about 1
        return self.distances.is_inside(points - step) == self.distances.is_inside(points + step)


def require_watertight(shapes: Sequence[Shape], reason: str) -> None:
    """Raises UsageError if some shapes have no inside; reason: why they need one. Reads all of their files."""
    open_shapes = [shape for shape in shapes if not shape.watertight]
    if open_shapes:
        first = open_shapes[0]
        name = getattr(first, 'path', first.name)
        raise UsageError(
            f'{reason}, and {len(open_shapes)} of {len(shapes)} meshes are not watertight; the first, {name}, has '
            f'{meshes.count_bad_edges(first.mesh)} bad edges. Close or remove them; configs/shapes/igr.py learns open '
            'ones'
        )


def normalise(points: np.ndarray, space: str) -> meshes.Normalisation:
    """Returns the normalisation of points [N, 3] to a space, 'cube' or 'sphere'."""
    return meshes.fit_cube(points) if space == 'cube' else meshes.fit_sphere(points, BUFFER)


# --- synthetic bodies ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Primitive:
    """A primitive solid with an exact signed distance.

    Attributes:
      kind: one of 'sphere', 'box', 'torus', 'capsule', 'cylinder'.
      sizes: of a sphere (radius); a box (three half sides); a torus about z (radius of the ring, of the tube); a
        capsule along z (half the segment, radius); a cylinder along z (half the height, radius).
      centre: of the body.
      axes: [3, 3], the body's own axes as rows.
    """

    kind: str
    sizes: tuple[float, ...]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        """Returns exact signed distances [...] of points [..., 3]."""
        local = (np.asarray(points, float) - self.centre) @ np.asarray(self.axes).T
        if self.kind == 'sphere':
            return np.linalg.norm(local, axis=-1) - self.sizes[0]
        if self.kind == 'box':
            return _distance_to_walls(np.abs(local) - np.asarray(self.sizes))
        radial = np.hypot(local[..., 0], local[..., 1])
        if self.kind == 'torus':
            return np.hypot(radial - self.sizes[0], local[..., 2]) - self.sizes[1]
        if self.kind == 'capsule':
            return np.hypot(radial, np.maximum(np.abs(local[..., 2]) - self.sizes[0], 0)) - self.sizes[1]
        if self.kind == 'cylinder':
            return _distance_to_walls(np.stack((np.abs(local[..., 2]) - self.sizes[0], radial - self.sizes[1]), -1))
        raise UsageError(f'no primitive is called {self.kind!r}{suggest(self.kind, _PRIMITIVES)}')


def _distance_to_walls(beyond: np.ndarray) -> np.ndarray:
    """Returns the signed distance to orthogonal walls, from how far points are beyond each one [..., walls]."""
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0)


@dataclass(frozen=True)
class AnalyticShape:
    """A union of primitives.

    The distance to a single primitive is exact. For several the surface and the sign are exact, and the value is a
    lower bound of the distance (its gradient is at most 1 long).

    Attributes:
      name: of the shape.
      parts: the primitives.
      smooth: width over which primitives blend into each other, by a polynomial smooth minimum; 0 is a sharp union.
      scale: multiplies the whole shape.
    """

    name: str
    parts: tuple[Primitive, ...]
    smooth: float = 0.0
    scale: float = 1.0

    def signed_distance(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, float) / self.scale
        distance = self.parts[0].signed_distance(points)
        for part in self.parts[1:]:
            distance = _smooth_minimum(distance, part.signed_distance(points), self.smooth)
        return distance * self.scale

    def is_inside(self, points: np.ndarray) -> np.ndarray:
        return self.signed_distance(points) < 0

    @property
    def watertight(self) -> bool:
        return True

    @cached_property
    def mesh(self) -> Trimesh:
        return self._extract_mesh(_DRAWN)

    @cached_property
    def _coarse_mesh(self) -> Trimesh:
        return self._extract_mesh(_SAMPLED)

    def _extract_mesh(self, resolution: int) -> Trimesh:
        return isosurfaces.extract_mesh(self.signed_distance, 0.55 * self.scale, resolution, 0)

    def sample_surface(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        points, _ = meshes.sample_mesh(self._coarse_mesh, count, rng)
        # Newton's steps along the gradient: exact after the first one, except at edges and blends.
        for _ in range(8):
            value = self.signed_distance(points)
            off = np.flatnonzero(np.abs(value) > 1e-9)
            if not off.size:
                break
            gradient = self._gradient(points[off])
            # Near a blend the gradient is shorter than 1; a bound keeps the steps from overshooting.
            square = np.maximum((gradient**2).sum(-1, keepdims=True), 0.25)
            points[off] -= value[off, None] * gradient / square
        normals = self._gradient(points)
        return points, normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)

    def _gradient(self, points: np.ndarray) -> np.ndarray:
        """Returns central differences [N, 3]."""
        steps = 1e-5 * np.eye(3)
        differences = [self.signed_distance(points + step) - self.signed_distance(points - step) for step in steps]
        return np.stack(differences, -1) / 2e-5


def _smooth_minimum(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    if not width:
        return np.minimum(a, b)
    # The polynomial smooth minimum of Quilez: equal to the minimum where |a - b| is at least `width`.
    share = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    return b + (a - b) * share - width * share * (1 - share)


def make_bodies(
    kinds: Sequence[str] = _PRIMITIVES,
    count: Count = 64,
    split: str = 'train',
    space: str = 'cube',
    rotated: bool = False,
    seed: Annotated[int, Range(0)] = 0,
) -> tuple[AnalyticShape, ...]:
    """Makes bodies of the given kinds in turn, each within 1/2 of the origin (times the scale of the space).

    Their sizes are functions of (seed, split, number), so the first n bodies are the same whatever `count` is.

    Args:
      kinds: 'sphere', 'box', 'torus', 'capsule', 'cylinder', and 'blend', a smooth union of two of them.
      count: number of bodies.
      split: 'train' or 'test'.
      space: 'cube' or 'sphere'.
      rotated: whether orientations are random; otherwise the axis of a body is x, y or z.
      seed: of sizes and orientations.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f'no shapes are called {kind!r}{suggest(kind, KINDS)}')
    if count < 1 or not kinds:
        raise UsageError(f'shapes: expected count >= 1 and at least one of the kinds {", ".join(KINDS)}; got {count=}')
    scale = 1.0 if space == 'cube' else 2 / BUFFER
    return tuple(_make_body(kinds[i % len(kinds)], i, split, rotated, seed, scale) for i in range(count))


def _make_body(kind: str, number: int, split: str, rotated: bool, seed: int, scale: float) -> AnalyticShape:
    rng = np.random.default_rng((seed, SPLITS.index(split), number))
    name = f'{split}-{number}-{kind}'
    if kind != 'blend':
        return AnalyticShape(name, (_random_primitive(kind, rng, rotated),), scale=scale)
    parts = []
    for side in (-1, 1):
        centre = side * 0.13 * _random_direction(rng)
        part = _random_primitive(str(rng.choice(_PRIMITIVES)), rng, rotated)
        sizes = tuple(0.7 * size for size in part.sizes)
        parts.append(Primitive(part.kind, sizes, tuple(centre.tolist()), part.axes))
    return AnalyticShape(name, tuple(parts), float(rng.uniform(0.05, 0.12)), scale)


def _random_primitive(kind: str, rng: np.random.Generator, rotated: bool) -> Primitive:
    draw = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    sizes = {
        'sphere': lambda: (draw(0.2, 0.45),),
        'box': lambda: (draw(0.12, 0.28), draw(0.12, 0.28), draw(0.12, 0.28)),
        'torus': lambda: (draw(0.2, 0.31), draw(0.08, 0.15)),
        'capsule': lambda: (draw(0.08, 0.26), draw(0.1, 0.2)),
        'cylinder': lambda: (draw(0.1, 0.32), draw(0.12, 0.3)),
    }[kind]()
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] if rotated else np.roll(np.eye(3), int(rng.integers(3)), 0)
    return Primitive(kind, sizes, axes=tuple(tuple(row) for row in axes.tolist()))


def _random_direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


# --- samples ------------------------------------------------------------------------------------------------------


def sample_cube(count: int, half: float, rng: np.random.Generator) -> np.ndarray:
    """Samples points [count, 3] uniformly in the cube [-half, half]^3."""
    return rng.uniform(-half, half, (count, 3))


def sample_near_surface(
    shape: Shape, count: int, rng: np.random.Generator, variances: Sequence[float] = (0.005, 0.0005)
) -> np.ndarray:
    """Samples points [count, 3] on the surface and perturbs them with Gaussian noise, as DeepSDF does.

    Args:
      shape: the surface.
      count: number of points.
      rng: randomness.
      variances: of the noise per coordinate; each is used for an equal part of the points.
    """
    if not variances:
        raise UsageError('variances is empty; give one or several for the samples near the surface')
    points, _ = shape.sample_surface(count, rng)
    variance = np.asarray(variances, float)[np.arange(count) % len(variances)]
    return points + rng.normal(size=points.shape) * np.sqrt(variance)[:, None]


def sample_distances(
    shape: Shape,
    count: int,
    rng: np.random.Generator,
    variances: Sequence[float] = (0.005, 0.0005),
    share: float = 0.94,
    half: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Samples points [count, 3] and their signed distances [count], as DeepSDF does.

    Args:
      shape: a watertight shape.
      count: number of samples.
      rng: randomness.
      variances: of the noise of samples near the surface.
      share: of the samples that lie near the surface (47 of 50); the others are uniform in the cube.
      half: half of the side of the cube.
    """
    close = round(share * count)
    points = np.concatenate((sample_near_surface(shape, close, rng, variances), sample_cube(count - close, half, rng)))
    return points, shape.signed_distance(points)


def balance_signs(distances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws indices [count] with replacement, half of them of samples inside, as DeepSDF's code does.

    Where all samples lie on one side, all indices are drawn from it.
    """
    sides = [side for side in (np.flatnonzero(distances >= 0), np.flatnonzero(distances < 0)) if side.size]
    counts = (count - count // len(sides), count // len(sides)) if len(sides) == 2 else (count,)
    return np.concatenate([rng.choice(side, n) for side, n in zip(sides, counts, strict=True)])


def neighbour_distances(points: np.ndarray, neighbour: int = 50) -> np.ndarray:
    """Returns the distance [N] of each point to its 50th neighbour: the local sigma of Gropp et al. 2020, section 3."""
    from scipy.spatial import KDTree

    distances, _ = KDTree(points).query(points, min(neighbour + 1, len(points)))
    return distances[:, -1]
