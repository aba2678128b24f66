"""Occupancy networks from point clouds (Mescheder, Oechsle, Niemeyer, Nowozin & Geiger 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np

from canon import losses, metrics
from canon.data.pipeline import order
from canon.data.scenes.shapes import Shape, sample_cube
from canon.metrics.shapes import iou
from canon.named import Count, NonNegative, Range
from canon.tasks.shapes.system import SamplePool, ShapeBatches, ShapeSystem, row_generator
from canon.train import Task


def occupancy_system(
    model: Any,
    num_shapes: Count,
    batch_size: Count,
    cloud: Count = 300,
    noise: NonNegative = 0.005,
    samples: Count = 2048,
    padding: NonNegative = 0.1,
    pool: Count | None = 100_000,
    threshold: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.2,
) -> ShapeSystem:
    """Learns whether points are inside a shape, given a noisy point cloud of its surface.

    The loss per shape is the binary cross entropy summed over its samples (eq. 3).

    Args:
      model: a linen module from points [B, N, 3] and clouds [B, T, 3] to logits [B, N], with methods `encode` and
        `decode`.
      num_shapes: of the training set.
      batch_size: shapes per step.
      cloud: points of a cloud, T.
      noise: standard deviation of the noise of its points, per coordinate.
      samples: points per shape at which occupancy is learned, uniform in the cube.
      padding: the side of the cube is 1 + padding.
      pool: samples and points of the surface drawn once per shape; None draws fresh ones for every batch.
      threshold: probability above which a point is inside when the network is used; the authors chose 0.2 on
        validation data.
    """
    half = (1 + padding) / 2
    threshold_logit = float(np.log(threshold / (1 - threshold)))

    def init(key, batch):
        return model.init(key, batch['points'][:1], batch['cloud'][:1])

    def loss(params, mutable, batch, at):
        variables = {'params': params, **mutable}
        logits, updates = model.apply(variables, batch['points'], batch['cloud'], True, mutable=['batch_stats'])
        nats = losses.binary_cross_entropy(logits, batch['inside'])
        overlap = metrics.Mean.of(iou(logits > threshold_logit, batch['inside']))
        # The weight is the number of shapes: a sum over the samples of each, as in eq. 3.
        mean = metrics.Mean(nats.sum(), jnp.float32(len(nats)))
        return mean, (updates, {'nats': metrics.Mean.of(nats), 'iou': overlap})

    def predict(params, mutable, batch):
        return model.apply({'params': params, **mutable}, batch['points'], batch['cloud'])

    def field(params, mutable, codes, points):
        # Negative inside, as the fields of all systems are.
        return threshold_logit - model.apply({'params': params, **mutable}, points, codes, method='decode')

    def encode(params, mutable, observations):
        return model.apply({'params': params, **mutable}, observations['cloud'], method='encode')

    def observe(shape, rng):
        return observe_points(*shape.sample_surface(cloud, rng), rng)

    def observe_points(points, normals, rng):
        # A cloud of the right size is taken as it is; another one is resampled with replacement.
        chosen = points if len(points) == cloud else points[rng.integers(len(points), size=cloud)]
        return {'cloud': np.asarray(chosen + rng.normal(scale=noise, size=chosen.shape), np.float32)}

    def batches(shapes: Sequence[Shape], seed: int) -> ShapeBatches:
        shuffled = order.shuffled(len(shapes), seed)
        # The two pools of a shape start from the same random stream, and draw different things from it.
        volume = SamplePool(shapes, lambda shape, n, rng: _sample_inside(shape, n, half, rng), pool, seed)
        surface = SamplePool(shapes, lambda shape, n, rng: shape.sample_surface(n, rng), pool, seed)

        def draw_row(shape: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
            points, inside = volume.sample(shape, samples, rng)
            observation = observe_points(*surface.sample(shape, cloud, rng), rng)
            return {**observation, 'points': np.asarray(points, np.float32), 'inside': inside}

        def draw(step: int, rows: range) -> dict[str, np.ndarray]:
            chosen, _ = shuffled(step * batch_size + np.asarray(rows))
            drawn = [draw_row(int(i), row_generator(seed, step, row)) for row, i in zip(rows, chosen, strict=True)]
            return {name: np.stack([row[name] for row in drawn]) for name in drawn[0]}

        layout = {
            'cloud': ((cloud, 3), np.float32),
            'points': ((samples, 3), np.float32),
            'inside': ((samples,), np.bool_),
        }
        return ShapeBatches(draw, layout, batch_size, len(shapes))

    return ShapeSystem(Task(init, loss, predict), batches, observe, observe_points, encode, field, half)


def _sample_inside(shape: Shape, count: int, half: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns uniform points [count, 3] of the cube and whether each is inside the shape."""
    points = sample_cube(count, half, rng)
    return points, shape.is_inside(points)
