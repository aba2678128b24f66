"""Shapes as networks: signed distances and occupancy with 3-D supervision, their meshes, how near they come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import data, metrics, models, named, optim, plots
from canon.data.scenes import meshes, shapes
from canon.errors import CanonError, UsageError
from canon.metrics import Mean
from canon.metrics.shapes import Surfaces, iou, no_surface, surfaces
from canon.named import Count, Positive, Range
from canon.ops import map_in_chunks
from canon.train import Evaluator, Experiment, lengths
from experiments.shapes.systems import SYSTEMS, Rows, System

if TYPE_CHECKING:
    from trimesh import Trimesh

_CHUNK = 8192  # places that a field is asked at a time, for each shape
_log = logging.getLogger('canon')


@dataclass(frozen=True)
class Spec:
    """One entry of config.data.evals.

    count: shapes of the split; None takes all. points: places for the IoU, even in the cube. resolution: cells a side
    of the grid whose surface is compared, with so many points of either (`surface`). threshold: of the F-score.
    """

    split: str = 'test'
    count: Count | None = None
    batch_size: Count = 1
    points: Count = 100_000
    resolution: Annotated[int, Range(2, 512)] = 64
    surface: Count = 30_000
    threshold: Positive = 0.01
    shown: Count = 4


@dataclass(frozen=True)
class Extraction:
    """config.extract: the grid of `meshes.extract`, on which predicted meshes are found."""

    resolution: Count = 32
    upsamplings: Annotated[int, Range(0, 8)] = 2

    def __post_init__(self):
        side = self.resolution << self.upsamplings
        if side > meshes.FINEST:
            raise UsageError(
                f'extract.resolution={self.resolution} and upsamplings={self.upsamplings} are {side} cells a side; '
                f'{meshes.FINEST} are the most'
            )


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model, config.system and config.tx -> an experiment that learns shapes."""
    named.check(config.data.batch_size, Count, 'data.batch_size')
    train = _shapes(config, config.data.train.split)
    system = _system(config, train)
    _extraction(config)
    if system.closed:
        shapes.require_closed(train, f'{config.system.name} learns from insides')
    size = config.data.batch_size
    batches = data.Generated(system.batch, size, system.examples)
    config = lengths.resolve(config, size, system.examples)
    evals = {}
    for name in sorted(config.data.evals):
        spec = named.call(Spec, config.data.evals[name], f'data.evals.{name}')
        held = train if spec.split == config.data.train.split else _shapes(config, spec.split)
        held = held[: spec.count]
        if system.closed:
            shapes.require_closed(held, f'data.evals.{name}: {config.system.name} is measured by insides')
        evals[name] = shape_evaluator(system, held, spec)
    return Experiment(system.task, optim.make(config.tx), batches, evals, about=dict(shapes=len(train)))


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on the embedded family where its own meshes are not at hand: to build it, or to time it."""
    with config.unlocked():
        config.data.path = None
        if config.system.get('pool'):
            config.system.pool = min(config.system.pool, 10_000)
    return config


def _shapes(config: ConfigDict, split: str) -> list[shapes.Shape]:
    arguments = {**named.plain(config.data.get('family', {})), 'split': split, 'space': config.data.space}
    return named.call(shapes.load, {**arguments, 'path': config.data.path}, 'data.family')


def _system(config: ConfigDict, known: Sequence[shapes.Shape]) -> System:
    """config.system: the name of one of `systems`, and its arguments."""
    arguments = named.plain(config.system)
    name = arguments.pop('name', None)
    if name not in SYSTEMS:
        raise UsageError(f'system.name={name!r} is no way to learn shapes{named.near(str(name), SYSTEMS)}')
    size, processes = config.data.batch_size, jax.process_count()
    if size % processes:
        raise UsageError(f'data.batch_size={size} is not a multiple of the {processes} processes')
    rows = Rows(config.seed, size, jax.process_index(), processes)
    given = {'model': models.make(**config.model), 'known': known, 'rows': rows, **arguments}
    return named.call(SYSTEMS[name], given, 'system')


# --- measuring ----------------------------------------------------------------------------------------------------


def shape_evaluator(system: System, held: Sequence[shapes.Shape], spec: Spec) -> Evaluator:
    """Measures fields of shapes, in the units of the space that the network knows.

    iou over places of the cube; chamfer_l1, chamfer_l2, normals and f_score of the surface on a grid; empty: the share
    of shapes without any surface. Where a shape is open there is no iou, but accuracy and completeness: the mean
    distances from the surface on the grid to points of the shape, and back.
    """
    side = spec.resolution + 1
    closed = all(shape.closed for shape in held)
    scores = _SCORES if closed else (*_SCORES, 'accuracy', 'completeness')
    scored: dict[int, tuple[Trimesh | None, Surfaces]] = {}

    def one(number: int) -> dict[str, np.ndarray]:
        shape, rng = held[number], np.random.default_rng((7, number))
        seen = system.observe(shape, rng)
        if not closed:
            return _seen(seen)
        points = shapes.uniform(spec.points, system.half, rng)
        return {**_seen(seen), 'places': np.asarray(points, np.float32), 'truth': shape.inside(points)}

    def batch(step: int) -> dict[str, np.ndarray]:
        places = np.arange(step * spec.batch_size, (step + 1) * spec.batch_size)
        found = [one(int(min(i, len(held) - 1))) for i in places]
        rows = {name: np.stack([f[name] for f in found]) for name in found[0]}
        return {**rows, 'which': places.astype(np.int32), 'mask': places < len(held)}

    def measure(params, mutable, batch):
        seen = {name.removeprefix('seen_'): x for name, x in batch.items() if name.startswith('seen_')}
        code = system.encode(params, mutable, seen)
        ask = asker(system, params, mutable, code)
        line = jnp.linspace(-system.half, system.half, side)
        grid = jnp.stack(jnp.meshgrid(line, line, line, indexing='ij'), -1).reshape(1, -1, 3)
        values = ask(jnp.broadcast_to(grid, (len(batch['which']), *grid.shape[1:])))
        rows = metrics.Rows.of((batch['which'], values.reshape(-1, side, side, side)), batch['mask'])
        if not closed:
            return {'rows': rows}
        return {'rows': rows, 'iou': Mean.of(iou(ask(batch['places']) < 0, batch['truth']), batch['mask'])}

    def score(which: int, values: np.ndarray) -> tuple[Trimesh | None, Surfaces]:
        try:
            mesh = meshes.iso_surface(values, system.half)
        except CanonError as error:
            _log.warning('%s: %s', held[which].name, error)
            return None, no_surface(2 * system.half * 3**0.5)
        rng = np.random.default_rng((8, which))
        own, there = (
            f(spec.surface, rng) for f in (lambda n, r: meshes.points_of_mesh(mesh, n, r), held[which].surface)
        )
        return mesh, surfaces(own[0], there[0], own[1], there[1], spec.threshold)

    def finish(sums):
        scored.clear()
        scored.update({int(which): score(int(which), values) for which, values in sums['rows'].each()})
        volumes = {'iou': sums['iou'].value} if closed else {}
        means = {key: float(np.mean([getattr(found, key) for _, found in scored.values()])) for key in scores}
        return {**volumes, **means, 'empty': float(np.mean([mesh is None for mesh, _ in scored.values()]))}

    def pictures(params, mutable, sums):
        rows = {int(which): values for which, values in sums['rows'].each()}
        chosen = np.unique(np.linspace(0, len(held) - 1, min(spec.shown, len(held))).astype(int)).tolist()
        return _pictures(system, {i: held[i] for i in chosen}, rows, {i: scored[i][0] for i in chosen})

    length = -(-len(held) // spec.batch_size)
    return Evaluator(data.Generated(batch, spec.batch_size, len(held), length), measure, finish, pictures)


_SCORES = ('chamfer_l1', 'chamfer_l2', 'normals', 'f_score')


def _seen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f'seen_{name}': values for name, values in arrays.items()}


def asker(system: System, params: Any, mutable: Any, code: Any) -> Callable[[jax.Array], jax.Array]:
    """The field of a code at places [B, N, 3], any number of them, `_CHUNK` at a time."""
    return lambda points: map_in_chunks(lambda part: system.field(params, mutable, code, part), points, _CHUNK, axis=1)


def _pictures(system: System, held: Mapping[int, shapes.Shape], rows: Mapping, found: Mapping) -> dict[str, Any]:
    """Draws the truth next to what was found: meshes, and the slice z = 0 of both fields."""
    drawn, cut = [], []
    for i, shape in held.items():
        values = rows[i]
        side = len(values)
        line = np.linspace(-system.half, system.half, side)
        plane = np.stack(np.meshgrid(line, line, [0.0], indexing='ij'), -1).reshape(-1, 3)
        if shape.closed:  # an open one has no signed distances to show
            cut.append((shape.name, shape.signed(plane).reshape(side, side)))
        cut.append(('found', values[:, :, side // 2]))
        drawn.append((shape.name, shape.mesh.vertices, shape.mesh.faces))
        mesh = found[i]
        drawn.append(
            ('found', mesh.vertices, mesh.faces) if mesh else ('no surface', np.zeros((0, 3)), np.zeros((0, 3)))
        )
    return {'meshes': plots.shaded(drawn, 0.75 * system.half), 'slices': plots.slices(cut, system.half)}


# --- prediction ---------------------------------------------------------------------------------------------------


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """`source` as the network has it: NAME.ply, .obj and .glb, in the units it came in.

    source: a mesh, points of a surface (.npy, .npz, .xyz, .ply; with normals where the system wants them), or one of
    the config's own, such as test:3. config.extract: `meshes.mise`'s resolution and upsamplings.
    """
    system = _system(config, _shapes(config, config.data.train.split))
    name, fit, shape, seen = _source(config, system, source)
    code = system.encode(params, mutable, {key: jnp.asarray(x)[None] for key, x in seen.items()})
    run = jax.jit(lambda places: asker(system, params, mutable, code)(places[None])[0])

    def field(points: np.ndarray) -> np.ndarray:
        short = -len(points) % _CHUNK
        return np.asarray(run(np.pad(np.float32(points), ((0, short), (0, 0)))))[: len(points)]

    grid = _extraction(config)
    mesh = meshes.extract(field, system.half, grid.resolution, grid.upsamplings)
    told = f'{len(mesh.vertices)} vertices, {len(mesh.faces)} faces'
    if shape is not None and shape.closed:
        places = shapes.uniform(20_000, system.half, np.random.default_rng(9))
        score = iou(jnp.asarray(field(places) < 0)[None], jnp.asarray(shape.inside(places))[None])
        told += f'; IoU {float(score[0]):.4f}'
    mesh.vertices = fit.back(np.asarray(mesh.vertices))
    files = [Path(output) / f'{name}{ending}' for ending in meshes.WRITTEN]
    for file in files:
        meshes.write(mesh, file)
    return f'{told}: {", ".join(map(str, files))}'


def _extraction(config: ConfigDict) -> Extraction:
    return named.call(Extraction, dict(config.get('extract', {})), 'extract')


_AS_IT_IS = meshes.Fit(np.zeros(3), 1.0)


def _source(config: ConfigDict, system: System, source: str) -> tuple[str, meshes.Fit, shapes.Shape | None, dict]:
    """(name, fit into the network's space, the true shape where there is one, what is seen of it)."""
    rng = np.random.default_rng(0)
    path = Path(source).expanduser()
    split, _, number = source.partition(':')
    if split in shapes.SPLITS and number.isdigit():
        held = _shapes(config, split)
        if int(number) >= len(held):
            raise UsageError(f'--input={source}: the split has {len(held)} shapes, counted from 0')
        shape = held[int(number)]
        fit = shape.fit if isinstance(shape, shapes.Scanned) else _AS_IT_IS
        return shape.name, fit, shape, system.observe(shape, rng)
    if not path.is_file():
        raise UsageError(f'--input={source} is neither a file of triangles or points, nor one such as test:0')
    if path.suffix.lower() in meshes.EXTENSIONS and not _is_cloud(path):
        shape = shapes.Scanned(path, config.data.space)
        if shape.closed:
            return path.stem, shape.fit, shape, system.observe(shape, rng)
        points, normals = shape.surface(100_000, rng)
        return path.stem, shape.fit, None, system.observe_cloud(points, normals, rng)
    points, normals = meshes.read_points(path)
    fit = shapes.fitted(points, config.data.space)
    return path.stem, fit, None, system.observe_cloud(fit.into(points), normals, rng)


def _is_cloud(path: Path) -> bool:
    """A .ply may hold points alone."""
    if path.suffix.lower() != '.ply':
        return False
    head = path.read_bytes()[:4096].partition(b'end_header')[0]
    return b'element face' not in head or b'element face 0' in head
