"""Reconstructs shapes with a trained system: what is observed of them, and the meshes of their fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.data.pipeline.keys import stream
from canon.data.scenes import meshes, shapes
from canon.data.scenes.isosurfaces import FINEST, extract_mesh
from canon.errors import UsageError
from canon.metrics.shapes import iou
from canon.named import Count, Range
from canon.rendering.interactive import Scene, volume_scene
from canon.rendering.volumes import GENERIC
from canon.tasks.shapes.system import ShapeSystem

if TYPE_CHECKING:
    from trimesh import Trimesh

_POINTS = 20_000  # for the IoU of a reconstruction
_OPEN_POINTS = 100_000  # sampled from an open mesh, which is observed as a point cloud
_PART = 8192  # points are padded to a multiple of it, so that few programs are compiled


@dataclass(frozen=True)
class ExtractionSettings:
    """The grid on which meshes are extracted; config.extract.

    Attributes:
      resolution: cells per side of the coarse grid.
      upsamplings: how often the cells near the surface are halved.
    """

    resolution: Count = 32
    upsamplings: Annotated[int, Range(0, 8)] = 2

    def __post_init__(self):
        side = self.resolution << self.upsamplings
        if side > FINEST:
            raise UsageError(
                f'extract.resolution={self.resolution} and upsamplings={self.upsamplings} are {side} cells per side; '
                f'at most {FINEST} are possible'
            )


class Observation(NamedTuple):
    """The observation from which a shape is reconstructed.

    Attributes:
      name: of the shape.
      normalisation: from the units of its source to those of the network.
      arrays: of `ShapeSystem.observe` or `observe_points`.
      shape: the true shape, None where it is unknown or open.
    """

    name: str
    normalisation: meshes.Normalisation
    arrays: Mapping[str, np.ndarray]
    shape: shapes.Shape | None = None


class Reconstruction(NamedTuple):
    """A mesh in the units of its source, and the IoU with the true shape where that is known."""

    mesh: Trimesh
    iou: float | None = None


def observe_source(
    system: ShapeSystem, source: str, load_split: Callable[[str], Sequence[shapes.Shape]], space: str
) -> Observation:
    """Observes the shape that a command line names: 'test:3' of a data set, or a file.

    Args:
      system: the method.
      source: SPLIT:NUMBER, or the path of a mesh or a point cloud.
      load_split: 'train' or 'test' -> the shapes of that split.
      space: 'cube' or 'sphere', in which the network has learned.

    Raises:
      UsageError: there is no such shape or file.
    """
    split, _, number = source.partition(':')
    if split in shapes.SPLITS and number.isdigit():
        known = load_split(split)
        if int(number) >= len(known):
            raise UsageError(f'--input={source}: the split has {len(known)} shapes, counted from 0')
        return observe_shape(system, known[int(number)])
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(f'--input={source} is neither a file of triangles or points, nor a shape such as test:0')
    return observe_file(system, path, space)


def observe_shape(system: ShapeSystem, shape: shapes.Shape) -> Observation:
    """Observes a shape of a data set, such as `shapes.load_shapes(...)[3]`."""
    # Shapes by formula are made in the units of the network.
    identity = meshes.Normalisation(np.zeros(3), 1.0)
    normalisation = shape.normalisation if isinstance(shape, shapes.MeshShape) else identity
    # The same observation in every call: a reconstruction can be repeated.
    arrays = system.observe(shape, np.random.default_rng(0))
    return Observation(shape.name, normalisation, arrays, shape if shape.watertight else None)


def observe_file(system: ShapeSystem, path: Path, space: str) -> Observation:
    """Observes a mesh or a point cloud of a file; an open mesh is observed as points of its surface.

    Args:
      system: the method.
      path: a mesh (`meshes.EXTENSIONS`) or points (.npy, .npz, .xyz, .ply).
      space: 'cube' or 'sphere', in which the network has learned.
    """
    rng = np.random.default_rng(0)
    if path.suffix.lower() in meshes.EXTENSIONS and meshes.holds_triangles(path):
        shape = shapes.MeshShape(path, space)
        if shape.watertight:
            return Observation(path.stem, shape.normalisation, system.observe(shape, rng), shape)
        points, normals = shape.sample_surface(_OPEN_POINTS, rng)
        return Observation(path.stem, shape.normalisation, system.observe_points(points, normals, rng))
    points, normals = meshes.read_points(path)
    normalisation = shapes.normalise(points, space)
    arrays = system.observe_points(normalisation.apply(points), normals, rng)
    return Observation(path.stem, normalisation, arrays)


def reconstruct(
    system: ShapeSystem, params: Any, mutable: Any, observation: Observation, settings: ExtractionSettings
) -> Reconstruction:
    """Reconstructs a shape from what is observed of it.

    Args:
      system: the method.
      params: trained parameters.
      mutable: the other variables of the model.
      observation: of `observe_shape` or `observe_file`.
      settings: the grid on which the mesh is extracted.

    Raises:
      CanonError: the field has no surface.
    """
    field = _encode_field(system, params, mutable, observation)
    mesh = extract_mesh(field, system.half, settings.resolution, settings.upsamplings)
    overlap = None
    if observation.shape is not None:
        points = shapes.sample_cube(_POINTS, system.half, stream('shape volumes'))
        inside, truth = field(points) < 0, observation.shape.is_inside(points)
        overlap = float(iou(jnp.asarray(inside)[None], jnp.asarray(truth)[None])[0])
    mesh.vertices = observation.normalisation.invert(np.asarray(mesh.vertices))
    return Reconstruction(mesh, overlap)


def shape_scene(
    system: ShapeSystem, params: Any, mutable: Any, observation: Observation, resolution: int = 96
) -> Scene:
    """Makes the scene of a shape: its field is sampled on a grid, whose zero level set is lit.

    Args:
      system: the method.
      params: trained parameters.
      mutable: the other variables of the model.
      observation: of `observe_shape` or `observe_file`.
      resolution: samples per side of the grid.
    """
    field = _encode_field(system, params, mutable, observation)
    axis = np.linspace(-system.half, system.half, resolution, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing='ij'), -1).reshape(-1, 3)
    values = field(points).reshape((resolution,) * 3)
    # A volume has values in 0..1, and its surface where they are 1/2: a few cells of the field around zero suffice.
    width = 8 * system.half / resolution
    scaled = np.clip(0.5 - values / (2 * width), 0, 1)
    return volume_scene(scaled, np.full(3, system.half), GENERIC, 0.5, modes=('surface', 'maximum', 'xray'))


def _encode_field(
    system: ShapeSystem, params: Any, mutable: Any, observation: Observation
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the field of an observed shape: points [N, 3] -> values [N], negative inside."""
    codes = system.encode(params, mutable, {name: jnp.asarray(x)[None] for name, x in observation.arrays.items()})
    # One compiled program serves all queries, whose sizes are padded to multiples of a part.
    evaluate = jax.jit(lambda points: system.evaluate_field(params, mutable, codes, points[None])[0])

    def field(points: np.ndarray) -> np.ndarray:
        padding = -len(points) % _PART
        return np.asarray(evaluate(np.pad(np.float32(points), ((0, padding), (0, 0)))))[: len(points)]

    return field
