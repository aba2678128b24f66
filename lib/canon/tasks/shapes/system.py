"""The common ground of methods that learn shapes: the type of a method, its batches and its pools of samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from canon.data.pipeline.batches import process_rows
from canon.data.pipeline.keys import stream
from canon.data.scenes.shapes import Shape
from canon.ops import map_in_chunks
from canon.train import Task

Arrays = dict[str, np.ndarray]
_CHUNK = 8192  # points per shape at which a field is evaluated at a time


class ShapeSystem(NamedTuple):
    """A method of learning shapes as fields: values are negative inside and zero on the surface.

    Attributes:
      task: see `canon.train.Task`.
      batches: (shapes, seed) -> endless training batches.
      observe: (shape, rng) -> what is known of a new shape, {name: array}.
      observe_points: (points [N, 3], normals [N, 3] or None, rng) -> the same, from a point cloud.
      encode: (params, mutable, observations, each [B, ...]) -> codes of B shapes.
      field: (params, mutable, codes, points [B, N, 3]) -> values [B, N].
      half: half of the side of the cube that contains the shapes.
      needs_inside: whether the method learns only watertight shapes.
    """

    task: Task
    batches: Callable[[Sequence[Shape], int], ShapeBatches]
    observe: Callable[[Shape, np.random.Generator], Arrays]
    observe_points: Callable[[np.ndarray, np.ndarray | None, np.random.Generator], Arrays]
    encode: Callable[[Any, Any, Mapping[str, Any]], Any]
    field: Callable[[Any, Any, Any, jax.Array], jax.Array]
    half: float
    needs_inside: bool = True

    def evaluate_field(self, params: Any, mutable: Any, codes: Any, points: jax.Array) -> jax.Array:
        """Evaluates `field` at any number of points [B, N, 3], in chunks that bound its memory."""
        return map_in_chunks(lambda part: self.field(params, mutable, codes, part), points, _CHUNK, axis=1)


class ShapeBatches:
    """Endless training batches; each process draws only its own rows.

    Args:
      draw: (step, rows) -> {name: [len(rows), ...]}, the given rows of the batch of a step.
      layout: {name: (shape, dtype)} of one row.
      batch_size: rows of all processes together.
      num_examples: of an epoch.
      check: called once before the first batch of `iterate`; raises an error for shapes that cannot be learned.
    """

    def __init__(
        self,
        draw: Callable[[int, range], Arrays],
        layout: Mapping[str, tuple[tuple[int, ...], Any]],
        batch_size: int,
        num_examples: int,
        check: Callable[[], Any] = lambda: None,
    ):
        self.draw, self.layout, self.check = draw, layout, check
        self.batch_size, self.num_examples = batch_size, num_examples
        self._rows = range(batch_size)

    def for_process(self, index: int, count: int) -> ShapeBatches:
        """Returns the same batches with only the rows of process `index` of `count`."""
        part = copy.copy(self)
        part._rows = range(self.batch_size)[process_rows(self.batch_size, index, count)]
        return part

    @property
    def example(self) -> Arrays:
        """Returns a batch of zeros, by which a model is initialised without reading a shape."""
        return {name: np.zeros((len(self._rows), *shape), dtype) for name, (shape, dtype) in self.layout.items()}

    def __getitem__(self, step: int) -> Arrays:
        # Random access does not run `check`, which may read every shape: a replayed step needs the shapes of its batch.
        return self.draw(int(step), self._rows)

    def iterate(self, start: int = 0) -> Iterator[Arrays]:
        self.check()
        step = start
        while True:
            yield self[step]
            step += 1


class SamplePool:
    """Samples of each shape, drawn once when the shape is first used and resampled with replacement from then on.

    Args:
      shapes: all shapes.
      draw: (shape, count, rng) -> arrays of `count` samples.
      size: samples kept per shape; None draws fresh samples each time.
      seed: of the pools.
    """

    def __init__(self, shapes: Sequence[Shape], draw: Callable, size: int | None, seed: int):
        self.shapes, self.draw, self.size, self.seed = shapes, draw, size, seed
        self._pools: dict[int, tuple[np.ndarray, ...]] = {}

    def sample(self, number: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Returns `count` samples of shape `number`."""
        if self.size is None:
            return self.draw(self.shapes[number], count, rng)
        if number not in self._pools:
            # The pool depends on the seed and the shape alone, not on the step that needs it first.
            arrays = self.draw(self.shapes[number], self.size, stream('shape batches', self.seed, number))
            # float32 halves the memory, and is what the network reads.
            self._pools[number] = tuple(x.astype(np.float32) if x.dtype == np.float64 else x for x in arrays)
        chosen = rng.integers(self.size, size=count)
        return tuple(x[chosen] for x in self._pools[number])


def row_generator(seed: int, step: int, row: int = 0) -> np.random.Generator:
    """Returns the generator of a row of a batch; it does not depend on which process draws the row."""
    return stream('shape batches', seed, step, row)
