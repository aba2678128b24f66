"""Evaluates learned shapes: volumes by IoU, extracted surfaces by distances, normals and the F-score."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import jax.numpy as jnp
import numpy as np

from canon import data, metrics, plots
from canon.data.pipeline.keys import stream
from canon.data.scenes.isosurfaces import extract_iso_surface
from canon.data.scenes.meshes import sample_mesh
from canon.data.scenes.shapes import Shape, require_watertight, sample_cube
from canon.errors import CanonError
from canon.metrics import Mean
from canon.metrics.shapes import SurfaceScores, compare_surfaces, iou, score_missing_surface
from canon.named import Count, Positive, Range
from canon.tasks.padding import round_up_to_devices
from canon.tasks.shapes.system import ShapeSystem
from canon.train import Evaluator

if TYPE_CHECKING:
    from trimesh import Trimesh

_log = logging.getLogger('canon')
_SCORES = ('chamfer_l1', 'chamfer_l2', 'normal_consistency', 'f_score')
_ONE_SIDED = ('accuracy', 'completeness')  # reported where shapes are open and have no IoU


@dataclass(frozen=True)
class ShapeEvaluation:
    """The evaluation of shapes; an entry of config.data.evals.

    Attributes:
      split: of the shapes, 'train' or 'test'.
      count: how many of them; None takes all.
      batch_size: shapes evaluated at a time, rounded up to a multiple of the devices.
      points: for the IoU, uniform in the cube.
      resolution: cells per side of the grid on which the surface is extracted.
      surface: points sampled on each of the two surfaces that are compared.
      threshold: of the F-score, in the units of the normalised space.
      drawn: shapes in the figures.
    """

    split: str = 'test'
    count: Count | None = None
    batch_size: Count = 1
    points: Count = 100_000
    resolution: Annotated[int, Range(2, 512)] = 64
    surface: Count = 30_000
    threshold: Positive = 0.01
    drawn: Count = 4


def shape_evaluator(
    system: ShapeSystem, shapes: Sequence[Shape], settings: ShapeEvaluation, watertight: bool | None = None
) -> Evaluator:
    """Evaluates the fields of shapes, in the units of the normalised space.

    Reports `chamfer_l1`, `chamfer_l2`, `normal_consistency` and `f_score` of the extracted surface; `empty`, the share
    of shapes whose field has no surface; and `iou` of the volumes. Where a shape is open there is no `iou`, but
    `accuracy` and `completeness`: the mean distance from the extracted surface to the shape, and back.

    Args:
      system: the method, whose codes are found from observations of each shape.
      shapes: the shapes of the split.
      settings: how they are evaluated.
      watertight: whether all shapes have an inside; None reads them to find out.
    """
    shapes = shapes[: settings.count]
    side, batch_size = settings.resolution + 1, round_up_to_devices(settings.batch_size)
    # One open shape decides for all: metrics are means over shapes, which must have them all.
    closed = all(shape.watertight for shape in shapes) if watertight is None else watertight
    names = _SCORES if closed else (*_SCORES, *_ONE_SIDED)

    def read_row(number: int) -> dict[str, Any]:
        shape, rng = shapes[number], stream('shape observations', number)
        if closed:
            require_watertight([shape], f'{shape.name} is measured by its inside')
        row: dict[str, Any] = {'observed': system.observe(shape, rng)}
        if closed:
            points = sample_cube(settings.points, system.half, rng)
            row |= {'points': np.asarray(points, np.float32), 'inside': shape.is_inside(points)}
        return row

    def read_batch(step: int) -> dict[str, Any]:
        numbers = np.arange(step * batch_size, (step + 1) * batch_size)
        # Rows after the last shape repeat it and are masked.
        rows = [read_row(int(min(i, len(shapes) - 1))) for i in numbers]
        batch = {'observed': _stack([row['observed'] for row in rows])}
        if closed:
            batch |= _stack([{name: row[name] for name in ('points', 'inside')} for row in rows])
        return {**batch, 'index': numbers.astype(np.int32), 'mask': numbers < len(shapes)}

    def measure(params, mutable, batch):
        codes = system.encode(params, mutable, batch['observed'])
        # Surfaces are extracted on the host, from the field on a grid of which each row of the batch has its own copy.
        line = jnp.linspace(-system.half, system.half, side)
        grid = jnp.stack(jnp.meshgrid(line, line, line, indexing='ij'), -1).reshape(1, -1, 3)
        grid = jnp.broadcast_to(grid, (len(batch['index']), *grid.shape[1:]))
        values = system.evaluate_field(params, mutable, codes, grid)
        rows = metrics.Rows.of((batch['index'], values.reshape(-1, side, side, side)), batch['mask'])
        if not closed:
            return {'rows': rows}
        inside = system.evaluate_field(params, mutable, codes, batch['points']) < 0
        return {'rows': rows, 'iou': Mean.of(iou(inside, batch['inside']), batch['mask'])}

    def extract(index: int, values: np.ndarray) -> Trimesh | None:
        try:
            return extract_iso_surface(values, system.half)
        except CanonError as error:
            _log.warning('%s: %s', shapes[index].name, error)
            return None

    def score(index: int, values: np.ndarray) -> SurfaceScores | None:
        mesh, rng = extract(index, values), stream('shape surfaces', index)
        if mesh is None:
            return None
        # As many points on both surfaces, so that the sampling error is the same in both directions.
        points, normals = sample_mesh(mesh, settings.surface, rng)
        true_points, true_normals = shapes[index].sample_surface(settings.surface, rng)
        return compare_surfaces(points, true_points, normals, true_normals, settings.threshold)

    def finish(sums):
        scores = [score(int(index), values) for index, values in sums['rows'].each()]
        # A shape without a surface counts as wrong by the diagonal of the cube, instead of being left out.
        missing = score_missing_surface(2 * system.half * 3**0.5)
        means = {name: float(np.mean([getattr(s or missing, name) for s in scores])) for name in names}
        volumes = {'iou': sums['iou'].value} if closed else {}
        return {**volumes, **means, 'empty': float(np.mean([s is None for s in scores]))}

    def draw(params, mutable, sums):
        grids = {int(index): values for index, values in sums['rows'].each()}
        chosen = np.unique(np.linspace(0, len(shapes) - 1, min(settings.drawn, len(shapes))).astype(int)).tolist()
        meshes = {i: extract(i, grids[i]) for i in chosen}
        return draw_shapes({i: shapes[i] for i in chosen}, grids, meshes, system.half)

    batches = data.Generated(read_batch, batch_size, len(shapes), -(-len(shapes) // batch_size))
    return Evaluator(batches, measure, finish, draw)


def draw_shapes(
    shapes: Mapping[int, Shape],
    grids: Mapping[int, np.ndarray],
    meshes: Mapping[int, Trimesh | None],
    half: float,
) -> dict[str, Any]:
    """Draws true and reconstructed shapes next to each other: their meshes, and the slices z = 0 of their fields.

    Args:
      shapes: the true shapes by number.
      grids: {number: field values [n, n, n]}.
      meshes: {number: extracted mesh, None where there is no surface}.
      half: half of the side of the cube.
    """
    mesh_panels, slice_panels = [], []
    for i, shape in shapes.items():
        side = len(grids[i])
        line = np.linspace(-half, half, side)
        plane = np.stack(np.meshgrid(line, line, [0.0], indexing='ij'), -1).reshape(-1, 3)
        if shape.watertight:  # an open shape has no signed distances
            slice_panels.append((shape.name, shape.signed_distance(plane).reshape(side, side)))
        slice_panels.append(('reconstructed', grids[i][:, :, side // 2]))
        mesh_panels.append((shape.name, shape.mesh.vertices, shape.mesh.faces))
        mesh = meshes[i]
        nothing = ('no surface', np.zeros((0, 3)), np.zeros((0, 3)))
        mesh_panels.append(nothing if mesh is None else ('reconstructed', mesh.vertices, mesh.faces))
    return {'meshes': plots.draw_meshes(mesh_panels, 0.75 * half), 'slices': plots.draw_slices(slice_panels, half)}


def _stack(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
