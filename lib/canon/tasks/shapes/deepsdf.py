"""DeepSDF: an auto-decoder of signed distances (Park, Florence, Straub, Newcombe & Lovegrove 2019).

There is no encoder: the code of each training shape is learned together with the decoder, and the code of a new shape
is found by gradient descent while the decoder stays fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import losses, metrics, optim
from canon.data.pipeline import order
from canon.data.scenes.meshes import unit_normals
from canon.data.scenes.shapes import Shape, balance_signs, sample_distances
from canon.errors import UsageError
from canon.named import Count, NonNegative, Positive, Range
from canon.tasks.shapes.system import SamplePool, ShapeBatches, ShapeSystem, row_generator
from canon.train import Task


def deepsdf_system(
    model: Any,
    num_shapes: Count,
    batch_size: Count,
    samples: Count = 16384,
    delta: Positive = 0.1,
    prior: NonNegative = 1e-4,
    squared: bool = True,
    warmup: Annotated[int, Range(0)] = 100,
    code_std: NonNegative = 1.0,
    variances: Sequence[NonNegative] = (0.005, 0.0005),
    new_variances: Sequence[NonNegative] = (0.05, 0.0005),
    pool: Count | None = 500_000,
    observed: Count = 8000,
    steps: Annotated[int, Range(0)] = 800,
    rate: Positive = 5e-3,
    offset: Positive = 0.01,
) -> ShapeSystem:
    """Learns the signed distances of a class of shapes by an auto-decoder.

    The loss per shape is mean_i |clamp(f(z, x_i), delta) - clamp(s_i, delta)| + prior |z|^2 (eq. 4 and 9).

    Args:
      model: a linen module from codes [B, C] and points [B, N, 3] to signed distances [B, N]; has a field `code`, C.
      num_shapes: of the training set, each of which gets a code.
      batch_size: shapes per step.
      samples: of each shape in a batch, half of them inside.
      delta: distance from the surface beyond which errors do not count.
      prior: weight of the prior of codes, reached after `warmup` epochs.
      squared: whether the prior is |z|^2 as in the paper; if False it is |z|, as in the authors' code.
      warmup: epochs over which the weight of the prior grows linearly.
      code_std: standard deviation of the initial codes, times sqrt(C).
      variances: of the noise of training samples near the surface, per coordinate.
      new_variances: the same for the samples of a new shape.
      pool: samples drawn once per shape; None draws fresh ones for every batch.
      observed: samples of a new shape from which its code is found.
      steps: of Adam that find the code of a new shape.
      rate: learning rate of these steps; a tenth of it from halfway on.
      offset: distance from a point cloud with normals, in and out, at which its signed distance is taken as known.
    """
    # The schedule of the authors' code, by the epoch of a batch's first row, as a table of exact float32 weights. Steps
    # are clipped where the weight has reached its end, so that the product with batch_size cannot overflow int32.
    weights = (prior * np.minimum(1, (np.arange(max(warmup, 1)) + 1) / max(warmup, 1))).astype(np.float32)
    last_step = -(-len(weights) * num_shapes // batch_size)

    def prior_weight(step):
        epoch = jnp.minimum(step, last_step) * batch_size // num_shapes
        return jnp.asarray(weights)[jnp.minimum(epoch, len(weights) - 1)]

    def init(key, batch):
        decoder_key, code_key = jax.random.split(key)
        codes = jax.random.normal(code_key, (num_shapes, model.code)) * (code_std / model.code**0.5)
        decoder = model.init(decoder_key, codes[:1], batch['points'][:1])['params']
        return {'params': {'codes': codes, 'decoder': decoder}}

    def loss(params, mutable, batch, at):
        codes = params['codes'][batch['shape']]
        decoder = {'params': params['decoder']}
        distances = model.apply(decoder, codes, batch['points'], train=True, rngs={'dropout': at.key})
        errors = losses.clamped_l1(distances, batch['distance'], delta)
        # The total weight is the number of points, so the prior of a shape counts once for each of its samples.
        penalty = samples * (prior_weight(at.step) * losses.code_prior(codes, squared)).sum()
        length = metrics.Mean.of(losses.code_prior(codes, squared=False))
        mean = metrics.Mean(errors.sum() + penalty, jnp.float32(errors.size))
        return mean, (mutable, {'l1': metrics.Mean.of(errors), 'code': length})

    def field(params, mutable, codes, points):
        return model.apply({'params': params['decoder']}, codes, points)

    def predict(params, mutable, batch):
        return field(params, mutable, params['codes'][batch['shape']], batch['points'])

    def encode(params, mutable, observations):
        def error(codes):
            distances = field(params, mutable, codes, observations['points'])
            fit = losses.clamped_l1(distances, observations['distance'], delta).mean(-1)
            # A mean over the components of a code, as in the authors' reconstruct.py; training sums them.
            return (fit + prior * jnp.square(codes).mean(-1)).sum()

        return fit_codes(error, (len(observations['points']), model.code), steps, rate)

    def batches(shapes: Sequence[Shape], seed: int) -> ShapeBatches:
        return _draw_batches(shapes, seed, batch_size, samples, variances, pool)

    def observe(shape, rng):
        points, distances = sample_distances(shape, 2 * observed, rng, new_variances)
        chosen = balance_signs(distances, observed, rng)
        return {'points': points[chosen].astype(np.float32), 'distance': distances[chosen].astype(np.float32)}

    def observe_points(points, normals, rng):
        if normals is None:
            raise UsageError('DeepSDF learns from distances: give points with normals (six columns), or a mesh')
        chosen = rng.integers(len(points), size=observed)
        # Points on the surface itself say nothing about the sign: every other one is moved in, the rest out.
        shift = np.where(np.arange(observed) % 2, offset, -offset)
        shifted = points[chosen] + shift[:, None] * unit_normals(normals[chosen])
        return {'points': shifted.astype(np.float32), 'distance': shift.astype(np.float32)}

    return ShapeSystem(Task(init, loss, predict), batches, observe, observe_points, encode, field, half=1.0)


def _draw_batches(
    shapes: Sequence[Shape],
    seed: int,
    batch_size: int,
    samples: int,
    variances: Sequence[float],
    pool_size: int | None,
) -> ShapeBatches:
    """Batches of shapes in shuffled order: 'shape' [B], 'points' [B, N, 3] and 'distance' [B, N]."""
    shuffled = order.shuffled(len(shapes), seed)
    pool = SamplePool(shapes, lambda s, n, rng: sample_distances(s, n, rng, variances), pool_size, seed)

    def draw_row(shape: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        # Twice as many as needed, so that both signs are there to be balanced.
        points, distances = pool.sample(shape, 2 * samples, rng)
        chosen = balance_signs(distances, samples, rng)
        return points[chosen], distances[chosen]

    def draw(step: int, rows: range) -> dict[str, np.ndarray]:
        chosen, _ = shuffled(step * batch_size + np.asarray(rows))
        drawn = [draw_row(int(i), row_generator(seed, step, row)) for row, i in zip(rows, chosen, strict=True)]
        points, distances = zip(*drawn, strict=True)
        return {
            'shape': chosen.astype(np.int32),
            'points': np.stack(points).astype(np.float32),
            'distance': np.stack(distances).astype(np.float32),
        }

    layout = {
        'shape': ((), np.int32),
        'points': ((samples, 3), np.float32),
        'distance': ((samples,), np.float32),
    }
    return ShapeBatches(draw, layout, batch_size, len(shapes))


def fit_codes(error: Callable[[jax.Array], jax.Array], shape: tuple[int, int], steps: int, rate: float) -> jax.Array:
    """Optimises one latent code per row with Adam.

    Adam is elementwise, so with an error that is a sum over rows each code is fitted as if it were alone.

    Args:
      error: codes [B, C] -> scalar, a sum over rows.
      shape: (B, C).
      steps: number of updates.
      rate: learning rate; a tenth of it from halfway on.

    Returns:
      codes [B, C], starting from N(0, 0.01^2).
    """
    tx = optim.adam(optim.step_decay(rate, (max(steps // 2, 1),)))
    # A fixed key: the code of a shape does not depend on when it is fitted.
    start = 0.01 * jax.random.normal(jax.random.key(0), shape)

    def update(state, _):
        codes, opt = state
        updates, opt = tx.update(jax.grad(error)(codes), opt, codes)
        return (codes + updates, opt), None

    return jax.lax.scan(update, (start, tx.init(start)), None, length=steps)[0][0]
