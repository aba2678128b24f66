"""Shapes to learn: the user's meshes, or an embedded family of exact signed distances; and what is sampled of them.

A shape lies in the cube [-1/2, 1/2]^3 ('cube', as the occupancy networks have them) or in the unit sphere ('sphere',
DeepSDF). Distances are negative inside. All that is drawn is a function of the generator that is given.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import numpy as np

from canon.data.scenes import meshes
from canon.errors import CanonError, UsageError
from canon.named import Count, Range, near

if TYPE_CHECKING:
    from trimesh import Trimesh

SPLITS = ('train', 'test')
SPACES = ('cube', 'sphere')
BUFFER = 1.03  # between DeepSDF's shapes and their unit sphere
KINDS = ('sphere', 'box', 'torus', 'capsule', 'cylinder', 'blend')
_SIMPLE = KINDS[:-1]
_FITTED = 32  # cells a side of the mesh of which places on an analytic surface are begun
_TRIES = 100  # to draw a place that is on no wall within a body
_KEPT = 48  # of the one that is shown


class Shape(Protocol):
    """What is sampled, and measured against."""

    @property
    def name(self) -> str: ...

    @property
    def mesh(self) -> Trimesh: ...

    @property
    def closed(self) -> bool:
        """Whether it has an inside, and so signed distances."""
        ...

    def signed(self, points: np.ndarray) -> np.ndarray:
        """Signed distances [N] of points [N, 3]."""
        ...

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Whether points [N, 3] are inside: bool [N]; of a mesh it costs a fraction of the distances."""
        ...

    def surface(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Places on the surface [count, 3], even by area, and unit normals there."""
        ...


def load(
    path: str | None = None,
    split: str = 'train',
    space: str = 'cube',
    kinds: Sequence[str] = _SIMPLE,
    count: Count = 64,
    turned: bool = False,
    seed: Annotated[int, Range(0)] = 0,
) -> list[Shape]:
    """The shapes of a split.

    path: a mesh, or a folder of them: with folders 'train' and 'test' in it those are the splits, else every tenth
    file (the last one where there are fewer) is held out; of a single file all splits are that file. None: the embedded
    family, `family(kinds, count, ..)`.
    Raises UsageError for a split, a space or a folder that does not exist, or without meshes.
    """
    if split not in SPLITS or space not in SPACES:
        raise UsageError(f'shapes: split={split!r} is one of {SPLITS}, and space={space!r} one of {SPACES}')
    if path is None:
        return list(family(kinds, count, split, space, turned, seed))
    if not path:  # not the folder that the command happens to run in
        raise UsageError(
            'data.path is empty; name a mesh or a folder of them, or leave it None for the embedded family'
        )
    files = _files(Path(path).expanduser(), split)
    return [Scanned(file, space) for file in files]


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f'data.path={path}: there is no such file or folder')
    own = [path / name for name in SPLITS]
    parts = all(folder.is_dir() for folder in own)
    root = path / split if parts else path
    files = sorted(p for p in root.rglob('*') if p.suffix.lower() in meshes.EXTENSIONS and p.is_file())
    if not files:
        raise UsageError(f'data.path={root} holds no meshes ({", ".join(meshes.EXTENSIONS)})')
    if parts or len(files) == 1:
        return files
    held = files[9::10] or files[-1:]
    return held if split == 'test' else [file for file in files if file not in held]


class Scanned:
    """A mesh of a file, read when it is first asked. `fit` leads into the space of the network, and back."""

    def __init__(self, path: str | Path, space: str = 'cube'):
        self.path, self.space, self.name = Path(path), space, Path(path).stem

    @cached_property
    def fit(self) -> meshes.Fit:
        return fitted(np.asarray(self._read.vertices), self.space)

    @cached_property
    def _read(self) -> Trimesh:
        return meshes.read(self.path)

    @cached_property
    def mesh(self) -> Trimesh:
        placed = self._read.copy()
        placed.vertices = self.fit.into(np.asarray(self._read.vertices))
        return placed

    @cached_property
    def distances(self) -> meshes.Surface:
        return meshes.Surface(self.mesh)

    @cached_property
    def closed(self) -> bool:
        return meshes.bad_edges(self.mesh) == 0

    def signed(self, points: np.ndarray) -> np.ndarray:
        with self._naming_the_file():
            return self.distances.signed(points)

    def inside(self, points: np.ndarray) -> np.ndarray:
        with self._naming_the_file():
            return self.distances.inside(points)

    @contextmanager
    def _naming_the_file(self) -> Generator[None]:
        try:
            yield
        except CanonError as error:
            raise type(error)(f'{self.path}: {error}') from None

    def surface(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Places on the surface; of a closed mesh, those with inside on one side alone.

        Walls within overlapping bodies have inside on both sides.
        """
        places, normals = meshes.points_of_mesh(self.mesh, count, rng)
        if not self.closed:
            return places, normals
        for _ in range(_TRIES):
            hidden = np.flatnonzero(self._is_hidden(places, normals))
            if not hidden.size:
                break
            places[hidden], normals[hidden] = meshes.points_of_mesh(self.mesh, hidden.size, rng)
        return places, normals

    def _is_hidden(self, places: np.ndarray, normals: np.ndarray) -> np.ndarray:
        step = 1e-6 * normals  # of a mesh whose size is about 1
        return self.distances.inside(places - step) == self.distances.inside(places + step)


def require_closed(known: Sequence[Shape], reason: str) -> None:
    """Reads the shapes, and raises UsageError where some have no inside; reason: why one is needed."""
    open_ones = [shape for shape in known if not shape.closed]
    if open_ones:
        first = open_ones[0]
        name = getattr(first, 'path', first.name)
        raise UsageError(
            f'{reason}, and {len(open_ones)} of {len(known)} meshes are not watertight; the first, {name}, has '
            f'{meshes.bad_edges(first.mesh)} bad edges. Close or remove them; configs/shapes/igr.py learns open ones'
        )


def fitted(points: np.ndarray, space: str) -> meshes.Fit:
    """Into the space of that name."""
    return meshes.cube_fit(points) if space == 'cube' else meshes.sphere_fit(points, BUFFER)


# --- the embedded family ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A body about `centre`, its own axes the rows of `axes` [3, 3].

    sizes: of a sphere (radius), a box (three half sides), a torus about z (radius of the ring, of the tube), a capsule
    along z (half the segment, radius), a cylinder along z (half the height, radius).
    """

    kind: str
    sizes: tuple[float, ...]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axes: tuple[tuple[float, float, float], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

    def signed(self, points: np.ndarray) -> np.ndarray:
        """Exact signed distances."""
        own = (np.asarray(points, float) - self.centre) @ np.asarray(self.axes).T
        if self.kind == 'sphere':
            return np.linalg.norm(own, axis=-1) - self.sizes[0]
        if self.kind == 'box':
            return _outside(np.abs(own) - np.asarray(self.sizes))
        around = np.hypot(own[..., 0], own[..., 1])
        if self.kind == 'torus':
            return np.hypot(around - self.sizes[0], own[..., 2]) - self.sizes[1]
        if self.kind == 'capsule':
            return np.hypot(around, np.maximum(np.abs(own[..., 2]) - self.sizes[0], 0)) - self.sizes[1]
        if self.kind == 'cylinder':
            return _outside(np.stack((np.abs(own[..., 2]) - self.sizes[0], around - self.sizes[1]), -1))
        raise UsageError(f'no part of a shape is called {self.kind!r}{near(self.kind, _SIMPLE)}')


def _outside(beyond: np.ndarray) -> np.ndarray:
    """The distance to a corner of walls, from how far points are beyond each wall [.., walls]."""
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0)


@dataclass(frozen=True)
class Analytic:
    """The union of parts, times `scale`. Of one part distances are exact.

    smooth > 0: parts melt into each other over that width: a polynomial smooth minimum. Of several parts the surface
    and the sides are exact, and what stands for the distance is at most it (its gradient is at most 1 long).
    """

    name: str
    parts: tuple[Part, ...]
    smooth: float = 0.0
    scale: float = 1.0

    def signed(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, float) / self.scale
        found = self.parts[0].signed(points)
        for part in self.parts[1:]:
            found = _union(found, part.signed(points), self.smooth)
        return found * self.scale

    def inside(self, points: np.ndarray) -> np.ndarray:
        return self.signed(points) < 0

    @property
    def closed(self) -> bool:
        return True

    @cached_property
    def mesh(self) -> Trimesh:
        return self._mesh(_KEPT)

    @cached_property
    def _begun(self) -> Trimesh:
        return self._mesh(_FITTED)

    def _mesh(self, resolution: int) -> Trimesh:
        return meshes.extract(self.signed, 0.55 * self.scale, resolution, 0)

    def surface(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        points, _ = meshes.points_of_mesh(self._begun, count, rng)
        for _ in range(8):  # Newton's steps: exact after one, but for edges and blends
            value = self.signed(points)
            off = np.flatnonzero(np.abs(value) > 1e-9)
            if not off.size:
                break
            slope = self._slope(points[off])
            square = np.maximum((slope**2).sum(-1, keepdims=True), 0.25)
            points[off] -= value[off, None] * slope / square
        normals = self._slope(points)
        return points, normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)

    def _slope(self, points: np.ndarray) -> np.ndarray:
        steps = 1e-5 * np.eye(3)
        return np.stack([self.signed(points + step) - self.signed(points - step) for step in steps], -1) / 2e-5


def _union(a: np.ndarray, b: np.ndarray, smooth: float) -> np.ndarray:
    if not smooth:
        return np.minimum(a, b)
    share = np.clip(0.5 + 0.5 * (b - a) / smooth, 0, 1)
    return b + (a - b) * share - smooth * share * (1 - share)


def family(
    kinds: Sequence[str] = _SIMPLE,
    count: int = 64,
    split: str = 'train',
    space: str = 'cube',
    turned: bool = False,
    seed: int = 0,
) -> tuple[Analytic, ...]:
    """`count` bodies of `kinds` in turn, of sizes drawn from (seed, split, number), within 1/2 of the middle.

    kinds: 'sphere', 'box', 'torus', 'capsule', 'cylinder', and 'blend', two of them melted together.
    turned: each is turned at random; else its axis is x, y or z. The first n are the same whatever `count`.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f'no shapes are called {kind!r}{near(kind, KINDS)}')
    if count < 1 or not kinds:
        raise UsageError(f'shapes: count={count} is at least 1, of at least one of the kinds {", ".join(KINDS)}')
    scale = 1.0 if space == 'cube' else 2 / BUFFER
    return tuple(_drawn(kinds[i % len(kinds)], i, split, turned, seed, scale) for i in range(count))


def _drawn(kind: str, number: int, split: str, turned: bool, seed: int, scale: float) -> Analytic:
    rng = np.random.default_rng((seed, SPLITS.index(split), number))
    name = f'{split}-{number}-{kind}'
    if kind != 'blend':
        return Analytic(name, (_part(kind, rng, turned),), scale=scale)
    parts = []
    for side in (-1, 1):
        centre = side * 0.13 * _direction(rng)
        part = _part(str(rng.choice(_SIMPLE)), rng, turned)
        sizes = tuple(0.7 * size for size in part.sizes)
        parts.append(Part(part.kind, sizes, tuple(centre.tolist()), part.axes))
    return Analytic(name, tuple(parts), float(rng.uniform(0.05, 0.12)), scale)


def _part(kind: str, rng: np.random.Generator, turned: bool) -> Part:
    draw = lambda low, high: float(rng.uniform(low, high))  # noqa: E731
    sizes = {
        'sphere': lambda: (draw(0.2, 0.45),),
        'box': lambda: (draw(0.12, 0.28), draw(0.12, 0.28), draw(0.12, 0.28)),
        'torus': lambda: (draw(0.2, 0.31), draw(0.08, 0.15)),
        'capsule': lambda: (draw(0.08, 0.26), draw(0.1, 0.2)),
        'cylinder': lambda: (draw(0.1, 0.32), draw(0.12, 0.3)),
    }[kind]()
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] if turned else np.roll(np.eye(3), int(rng.integers(3)), 0)
    return Part(kind, sizes, axes=tuple(tuple(row) for row in axes.tolist()))


def _direction(rng: np.random.Generator) -> np.ndarray:
    way = rng.normal(size=3)
    return way / np.linalg.norm(way)


# --- samples ------------------------------------------------------------------------------------------------------


def uniform(count: int, half: float, rng: np.random.Generator) -> np.ndarray:
    """Places in the cube [-half, half]^3, [count, 3]."""
    return rng.uniform(-half, half, (count, 3))


def near_surface(
    shape: Shape, count: int, rng: np.random.Generator, variances: Sequence[float] = (0.005, 0.0005)
) -> np.ndarray:
    """Places on the surface with Gaussian noise, an equal part of them for each variance a coordinate: DeepSDF's."""
    if not variances:
        raise UsageError('variances is empty; give one or several for the places near the surface')
    points, _ = shape.surface(count, rng)
    return points + rng.normal(size=points.shape) * np.sqrt(_in_turn(variances, count))[:, None]


def _in_turn(values: Sequence[float], count: int) -> np.ndarray:
    return np.asarray(values, float)[np.arange(count) % len(values)]


def distance_samples(
    shape: Shape,
    count: int,
    rng: np.random.Generator,
    variances: Sequence[float] = (0.005, 0.0005),
    share: float = 0.94,
    half: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Places [count, 3] and signed distances [count]: DeepSDF's, 47 of 50 near the surface, the others in the cube."""
    close = round(share * count)
    points = np.concatenate((near_surface(shape, close, rng, variances), uniform(count - close, half, rng)))
    return points, shape.signed(points)


def balanced(distances: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of `count` samples, half of them inside, with repetition: what DeepSDF's code learns from.

    Where all lie on one side, all are drawn from it.
    """
    sides = [side for side in (np.flatnonzero(distances >= 0), np.flatnonzero(distances < 0)) if side.size]
    halves = (count - count // len(sides), count // len(sides)) if len(sides) == 2 else (count,)
    return np.concatenate([rng.choice(side, n) for side, n in zip(sides, halves, strict=True)])


def neighbour_distance(points: np.ndarray, neighbour: int = 50) -> np.ndarray:
    """How far the 50th next point is from each, [N]: the local sigma of Gropp et al. 2020, section 3."""
    from scipy.spatial import KDTree

    nearest, _ = KDTree(points).query(points, min(neighbour + 1, len(points)))
    return nearest[:, -1]
