"""Three ways to learn shapes: an auto-decoder of distances, one shape by its gradients, occupancy from clouds.

Each is a `System`: a task, its batches, and what of a new shape is looked at to find its field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import losses, metrics, optim
from canon.data.pipeline import order
from canon.data.scenes import meshes, shapes
from canon.errors import UsageError
from canon.metrics.shapes import iou
from canon.named import Count, NonNegative, Positive, Range
from canon.train import Task

_STREAM = 6  # tells these random numbers from those of other experiments


class Rows(NamedTuple):
    """Which rows of the batches are drawn here: of `size` in all, those of process `index` of `count`."""

    seed: int
    size: int
    index: int = 0
    count: int = 1

    @property
    def local(self) -> int:
        return self.size // self.count

    def rng(self, step: int, row: int = 0) -> np.random.Generator:
        return np.random.default_rng((_STREAM, self.seed, step, self.index * self.local + row))


class System(NamedTuple):
    """What an experiment knows of a way to learn shapes. A field is negative inside.

    batch: step -> the rows of this process. examples: how many there are, for lengths in epochs.
    observe: (shape, rng) -> what is known of a new shape, as arrays; of a cloud: (points, normals or None, rng).
    encode: (params, mutable, observed [B, ..]) -> code. field: (params, mutable, code, places [B, N, 3]) -> [B, N].
    half: of the side of the cube in which the shapes lie. closed: whether shapes must have an inside to be learnt.
    """

    task: Task
    batch: Callable[[int], Mapping[str, np.ndarray]]
    examples: int
    observe: Callable[[shapes.Shape, np.random.Generator], dict[str, np.ndarray]]
    observe_cloud: Callable[[np.ndarray, np.ndarray | None, np.random.Generator], dict[str, np.ndarray]]
    encode: Callable[[Any, Any, Mapping[str, Any]], Any]
    field: Callable[[Any, Any, Any, jax.Array], jax.Array]
    half: float
    closed: bool = True


# --- DeepSDF ------------------------------------------------------------------------------------------------------


def auto_decoder(
    model: Any,
    known: Sequence[shapes.Shape],
    rows: Rows,
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
) -> System:
    """DeepSDF (Park et al. 2019): a code for each of the known shapes is learnt with the decoder, by eq. 9.

    samples: of each shape in a batch, half of them inside, out of a `pool` that is drawn once (None: afresh).
    prior: the weight of |z|^2 (squared; else of |z|, as the authors' code has it) beside the mean clamped error,
    reached after `warmup` epochs. code_std: of the codes at first, times 1 / sqrt(code). A new shape's code is found
    from `observed` samples by `steps` of Adam, from `rate` that falls tenfold halfway. offset: of a cloud with normals,
    how far in and out of it distances are taken as known.
    """
    place = order.shuffled(len(known), rows.seed)
    draw = _pooled(known, lambda s, n, rng: shapes.distance_samples(s, n, rng, variances), pool, rows.seed)

    def one(shape: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        points, distances = draw(shape, 2 * samples, rng)
        chosen = shapes.balanced(distances, samples, rng)
        return points[chosen], distances[chosen]

    def batch(step):
        first = step * rows.size + rows.index * rows.local
        chosen, visits = place(np.arange(first, first + rows.local))
        points, distances = zip(*(one(int(i), rows.rng(step, row)) for row, i in enumerate(chosen)), strict=True)
        return {
            'shape': chosen.astype(np.int32),
            'points': np.stack(points).astype(np.float32),
            'distance': np.stack(distances).astype(np.float32),
            'prior': (prior * np.minimum(1, (visits + 1) / max(warmup, 1))).astype(np.float32),
        }

    def init(key, batch):
        network, code = jax.random.split(key)
        codes = jax.random.normal(code, (len(known), model.code)) * (code_std / model.code**0.5)
        return {'params': {'codes': codes, 'decoder': model.init(network, codes[:1], batch['points'][:1])['params']}}

    def loss(params, mutable, batch, at):
        codes = params['codes'][batch['shape']]
        found = model.apply({'params': params['decoder']}, codes, batch['points'], train=True, rngs={'dropout': at.key})
        errors = losses.clamped_l1(found, batch['distance'], delta)
        far = losses.code_prior(codes, squared)
        total = errors.sum() + samples * (batch['prior'] * far).sum()
        told = {'l1': metrics.Mean.of(errors), 'code': metrics.Mean.of(losses.code_prior(codes, squared=False))}
        return metrics.Mean(total, jnp.float32(errors.size)), (mutable, told)

    def predict(params, mutable, batch):
        return field(params, mutable, params['codes'][batch['shape']], batch['points'])

    def field(params, mutable, code, points):
        return model.apply({'params': params['decoder']}, code, points)

    def encode(params, mutable, seen):
        def error(codes):
            found = field(params, mutable, codes, seen['points'])
            fit = losses.clamped_l1(found, seen['distance'], delta).mean(-1)
            return (fit + prior * jnp.square(codes).mean(-1)).sum()

        return descended(error, (len(seen['points']), model.code), steps, rate)

    def observe(shape, rng):
        points, distances = shapes.distance_samples(shape, 2 * observed, rng, new_variances)
        chosen = shapes.balanced(distances, observed, rng)
        return {'points': points[chosen].astype(np.float32), 'distance': distances[chosen].astype(np.float32)}

    def observe_cloud(points, normals, rng):
        if normals is None:
            raise UsageError('DeepSDF wants distances: give points with normals (six columns), or a mesh')
        chosen = rng.integers(len(points), size=observed)
        shift = np.where(np.arange(observed) % 2, offset, -offset)
        moved = points[chosen] + shift[:, None] * meshes.unit(normals[chosen])
        return {'points': moved.astype(np.float32), 'distance': shift.astype(np.float32)}

    task = Task(init, loss, predict)
    return System(task, batch, len(known), observe, observe_cloud, encode, field, 1.0)


def descended(error: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], steps: int, rate: float) -> jax.Array:
    """Codes that Adam finds for `error`, a sum over rows: each row as if it were alone. Begun at N(0, 0.01^2)."""
    tx = optim.adam(optim.step_decay(rate, (max(steps // 2, 1),)))
    start = 0.01 * jax.random.normal(jax.random.key(0), shape)

    def step(state, _):
        codes, opt = state
        updates, opt = tx.update(jax.grad(error)(codes), opt, codes)
        return (codes + updates, opt), None

    return jax.lax.scan(step, (start, tx.init(start)), None, length=steps)[0][0]


# --- IGR ----------------------------------------------------------------------------------------------------------


def eikonal(
    model: Any,
    known: Sequence[shapes.Shape],
    rows: Rows,
    weight: NonNegative = 0.1,
    tau: NonNegative = 1.0,
    points: Count = 100_000,
    neighbour: Count = 50,
    spread: Positive = 1.8,
    half: Positive = 1.1,
) -> System:
    """IGR (Gropp et al. 2020): the one shape that is known, from points of its surface and their normals, by eq. 2.

    weight, tau: of the eikonal term and of the normals (0: without). points: of the surface there are in all. Where the
    gradient is asked to be 1 long: at points moved by noise as wide as their 50th neighbour is far, and an eighth as
    many places in [-spread, spread]^3.
    """
    if len(known) != 1:
        raise UsageError(f'one network for one shape, and there are {len(known)}: set data.path to a file of triangles')

    @cache
    def cloud():
        places, normals = known[0].surface(points, np.random.default_rng((_STREAM, rows.seed)))
        sigma = shapes.neighbour_distance(places, neighbour)
        found = {'points': places, 'normals': normals, 'sigma': sigma}
        return {name: values.astype(np.float32) for name, values in found.items()}

    def batch(step):
        chosen = rows.rng(step).integers(points, size=rows.local)
        return {name: values[chosen] for name, values in cloud().items()}

    def slopes(params, places):
        """The field [N] and its gradient [N, 3]."""
        values, back = jax.vjp(lambda x: model.apply({'params': params}, x), places)
        return values, back(jnp.ones_like(values))[0]

    def init(key, batch):
        return {'params': model.init(key, batch['points'][:1])['params']}

    def loss(params, mutable, batch, at):
        close, far = jax.random.split(at.key)
        count = len(batch['points'])
        noise = batch['sigma'][:, None] * jax.random.normal(close, (count, 3))
        anywhere = jax.random.uniform(far, (max(count // 8, 1), 3), minval=-spread, maxval=spread)
        values, at = slopes(params, batch['points'])
        _, off = slopes(params, jnp.concatenate((batch['points'] + noise, anywhere)))
        fit = losses.on_surface(values, at, batch['normals'] if tau else None, tau)
        length = losses.eikonal(off)
        told = {'surface': metrics.Mean.of(jnp.abs(values)), 'eikonal': metrics.Mean.of(length)}
        return metrics.Mean(fit.sum() + weight * count * length.mean(), jnp.float32(count)), (mutable, told)

    def predict(params, mutable, batch):
        return model.apply({'params': params}, batch['points'])

    def field(params, mutable, code, places):
        return model.apply({'params': params}, places)

    def encode(params, mutable, seen):
        return jnp.zeros(())

    def observe(shape, rng):
        return {} if shape.name == known[0].name else observe_cloud(None, None, rng)

    def observe_cloud(places, normals, rng):
        raise UsageError(f'this run knows {known[0].name} alone: --input=train:0; another shape wants a run of its own')

    task = Task(init, loss, predict)
    return System(task, batch, points, observe, observe_cloud, encode, field, half, closed=False)


# --- occupancy networks -------------------------------------------------------------------------------------------


def occupancy(
    model: Any,
    known: Sequence[shapes.Shape],
    rows: Rows,
    cloud: Count = 300,
    noise: NonNegative = 0.005,
    samples: Count = 2048,
    padding: NonNegative = 0.1,
    pool: Count | None = 100_000,
    threshold: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.2,
) -> System:
    """Occupancy networks (Mescheder et al. 2019), from `cloud` points with `noise`, by eq. 3: cross entropy summed over
    `samples` places of the cube of side 1 + padding, and averaged over shapes.

    pool: places, and points of the surface, that are drawn once of each shape (None: afresh). threshold: the
    probability at which inside begins, where the network is used; the authors found 0.2 on validation data.
    """
    half = (1 + padding) / 2
    place = order.shuffled(len(known), rows.seed)
    logit = float(np.log(threshold / (1 - threshold)))

    def sides(shape, count, rng):
        points = shapes.uniform(count, half, rng)
        return points, shape.inside(points)

    draw = _pooled(known, sides, pool, rows.seed)
    draw_cloud = _pooled(known, lambda s, n, rng: s.surface(n, rng), pool, rows.seed)

    def one(shape: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        points, inside = draw(shape, samples, rng)
        seen = observe_cloud(*draw_cloud(shape, cloud, rng), rng)
        return {**seen, 'points': np.asarray(points, np.float32), 'inside': inside}

    def batch(step):
        first = step * rows.size + rows.index * rows.local
        chosen, _ = place(np.arange(first, first + rows.local))
        found = [one(int(i), rows.rng(step, row)) for row, i in enumerate(chosen)]
        return {name: np.stack([f[name] for f in found]) for name in found[0]}

    def init(key, batch):
        return model.init(key, batch['points'][:1], batch['cloud'][:1])

    def loss(params, mutable, batch, at):
        variables = {'params': params, **mutable}
        logits, mutable = model.apply(variables, batch['points'], batch['cloud'], True, mutable=['batch_stats'])
        nats = losses.binary_cross_entropy(logits, batch['inside'])
        told = {'nats': metrics.Mean.of(nats), 'iou': metrics.Mean.of(iou(logits > logit, batch['inside']))}
        return metrics.Mean(nats.sum(), jnp.float32(len(nats))), (mutable, told)

    def predict(params, mutable, batch):
        return model.apply({'params': params, **mutable}, batch['points'], batch['cloud'])

    def field(params, mutable, code, points):
        return logit - model.apply({'params': params, **mutable}, points, code, method='decode')

    def encode(params, mutable, seen):
        return model.apply({'params': params, **mutable}, seen['cloud'], method='encode')

    def observe(shape, rng):
        return observe_cloud(*shape.surface(cloud, rng), rng)

    def observe_cloud(points, normals, rng):
        chosen = points if len(points) == cloud else points[rng.integers(len(points), size=cloud)]
        return {'cloud': np.asarray(chosen + rng.normal(scale=noise, size=chosen.shape), np.float32)}

    task = Task(init, loss, predict)
    return System(task, batch, len(known), observe, observe_cloud, encode, field, half)


def _pooled(known: Sequence[shapes.Shape], draw: Callable, pool: int | None, seed: int) -> Callable:
    """`draw(shape, count, rng)` by a shape's number, out of `pool` that are kept of each shape, or afresh."""

    @cache
    def kept(number: int) -> tuple[np.ndarray, ...]:
        found = draw(known[number], pool, np.random.default_rng((_STREAM, seed, number)))
        return tuple(x.astype(np.float32) if x.dtype == np.float64 else x for x in found)

    def drawn(number: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        if pool is None:
            return draw(known[number], count, rng)
        chosen = rng.integers(pool, size=count)
        return tuple(x[chosen] for x in kept(number))

    return drawn


SYSTEMS = {made.__name__: made for made in (auto_decoder, eikonal, occupancy)}
