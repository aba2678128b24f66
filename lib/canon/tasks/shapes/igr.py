"""IGR: one shape as a signed distance, from points and normals (Gropp, Yariv, Haim, Atzmon & Lipman 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import losses, metrics
from canon.data.pipeline.keys import stream
from canon.data.scenes.shapes import Shape, neighbour_distances
from canon.errors import UsageError
from canon.named import Count, NonNegative, Positive
from canon.tasks.shapes.system import ShapeBatches, ShapeSystem, row_generator
from canon.train import Task

_FAR_SHARE = 8  # points near the surface per uniform point, as in the authors' code


def igr_system(
    model: Any,
    num_shapes: Count,
    batch_size: Count,
    shape_name: str | None = None,
    weight: NonNegative = 0.1,
    tau: NonNegative = 1.0,
    points: Count = 100_000,
    neighbour: Count = 50,
    spread: Positive = 1.8,
    half: Positive = 1.1,
) -> ShapeSystem:
    """Learns the signed distance of one shape by implicit geometric regularisation.

    The loss is mean_i (|f(x_i)| + tau |grad f(x_i) - n_i|) + weight mean_j (|grad f(y_j)| - 1)^2 (eq. 2), with points
    x_i of the surface. The points y_j of the eikonal term are x_i with Gaussian noise, whose deviation is the distance
    to the 50th neighbour, and an eighth as many uniform points of [-spread, spread]^3 (section 3).

    Args:
      model: a linen module from points [N, 3] to values [N].
      num_shapes: must be 1.
      batch_size: points of the surface per step.
      shape_name: if given, observing a shape of another name is an error.
      weight: of the eikonal term, lambda in the paper.
      tau: weight of the normals; 0 learns from points alone.
      points: of the surface, drawn once.
      neighbour: whose distance is the deviation of the noise.
      spread: half of the side of the cube of uniform points.
      half: half of the side of the cube in which the surface is extracted.
    """
    if num_shapes != 1:
        raise UsageError(f'one network for one shape, and there are {num_shapes}: set data.path to a file of triangles')

    def values_and_gradients(params, positions):
        """Returns the field [N] and its gradients [N, 3]."""
        # One backward pass for all points: value i depends on point i alone, so the gradient of the sum has theirs.
        values, pullback = jax.vjp(lambda x: model.apply({'params': params}, x), positions)
        return values, pullback(jnp.ones_like(values))[0]

    def init(key, batch):
        return {'params': model.init(key, batch['points'][:1])['params']}

    def loss(params, mutable, batch, at):
        near_key, far_key = jax.random.split(at.key)
        count = len(batch['points'])
        noise = batch['sigma'][:, None] * jax.random.normal(near_key, (count, 3))
        far_shape = (max(count // _FAR_SHARE, 1), 3)
        far = jax.random.uniform(far_key, far_shape, minval=-spread, maxval=spread)
        values, gradients = values_and_gradients(params, batch['points'])
        _, gradients_off_surface = values_and_gradients(params, jnp.concatenate((batch['points'] + noise, far)))
        # The eikonal term is a mean, so that its weight does not depend on how many points it is evaluated at.
        fit = losses.surface_loss(values, gradients, batch['normals'] if tau else None, tau)
        eikonal = losses.eikonal_loss(gradients_off_surface)
        mean = metrics.Mean(fit.sum() + weight * count * eikonal.mean(), jnp.float32(count))
        return mean, (mutable, {'surface': metrics.Mean.of(jnp.abs(values)), 'eikonal': metrics.Mean.of(eikonal)})

    def predict(params, mutable, batch):
        return model.apply({'params': params}, batch['points'])

    def field(params, mutable, codes, positions):
        return model.apply({'params': params}, positions)

    def encode(params, mutable, observations):
        return jnp.zeros(())  # the network is the shape

    def batches(shapes: Sequence[Shape], seed: int) -> ShapeBatches:
        @cache
        def sample_cloud():
            positions, normals = shapes[0].sample_surface(points, stream('shape batches', seed))
            sigma = neighbour_distances(positions, neighbour)
            cloud = {'points': positions, 'normals': normals, 'sigma': sigma}
            return {name: values.astype(np.float32) for name, values in cloud.items()}

        def draw(step: int, rows: range) -> dict[str, np.ndarray]:
            # One generator draws the whole batch, of which each process keeps its rows: indices are cheap.
            chosen = row_generator(seed, step).integers(points, size=batch_size)[rows.start : rows.stop]
            return {name: values[chosen] for name, values in sample_cloud().items()}

        layout = {'points': ((3,), np.float32), 'normals': ((3,), np.float32), 'sigma': ((), np.float32)}
        return ShapeBatches(draw, layout, batch_size, points)

    def observe(shape, rng):
        return {} if shape_name in (None, shape.name) else observe_points(None, None, rng)

    def observe_points(positions, normals, rng):
        raise UsageError(f'this run knows {shape_name} alone: --input=train:0; train another run for another shape')

    task = Task(init, loss, predict)
    return ShapeSystem(task, batches, observe, observe_points, encode, field, half, needs_inside=False)
