"""Inverse volume rendering: a volume, or its transfer function, recovered from pictures of it.

    truth = TrueVolume(volumes.shepp_logan(64), RayCastingSettings(mode='xray'))
    task = recovery_task(truth, RecoverySettings(vertices=40))
    batches = pixel_batches(truth, traced.pinhole_camera(48), views=32, batch_size=1024)
    experiment = Experiment(task, optim.adam(0.02), batches)

Batches hold pixels of pictures: 'origin' and 'direction' float32 [B, 3] of their rays, in world units, and 'colour'
float32 [B, C] in 0..1, of which C is 1 for X-rays and 3 for colours over white.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from canon import plots
from canon.camera import Camera
from canon.data import Generated
from canon.data.pipeline.keys import stream
from canon.data.scenes import traced
from canon.data.scenes.volumes import Volume
from canon.errors import UsageError
from canon.metrics import Mean
from canon.metrics.views import psnr
from canon.named import Count, NonNegative, Probability, Range, suggest
from canon.ops import map_in_chunks, rays, volumes
from canon.rendering.volumes import (
    CHUNK,
    GENERIC,
    MODES,
    RayCastingSettings,
    cast_volume,
    make_transfer_table,
    render_orbit,
    render_picture,
)
from canon.tasks.padding import pad_rows, round_up_to_devices
from canon.train import Evaluator, Task

LEARNED = ('volume', 'table')
_DRAWN_VIEWS = 3
_ANGLE = 0.6  # of the camera about z in the pictures of all modes, radians


@dataclass(frozen=True)
class RecoverySettings:
    """The unknowns of a recovery; config.model.

    Attributes:
      learn: 'volume', 'table' (the transfer function) or both; what is not learned is known.
      vertices: of the learned volume along its longest side.
      rows: of the learned table.
      start: initial value of every voxel.
    """

    learn: tuple[str, ...] = ('volume',)
    vertices: Annotated[int, Range(2, 512)] = 48
    rows: Annotated[int, Range(2)] = 32
    start: Probability = 0.1

    def __post_init__(self):
        for name in self.learn:
            if name not in LEARNED:
                raise UsageError(f'model.learn has {name!r}{suggest(name, LEARNED)}')
        if not self.learn:
            raise UsageError(f'model.learn is empty; give {" or ".join(LEARNED)}, or both')


@dataclass(frozen=True)
class RecoveryLoss:
    """The terms of a recovery's loss besides the squared error; config.loss.

    Attributes:
      variation: weight of the total variation of a learned volume.
    """

    variation: NonNegative = 0.0


@dataclass(frozen=True)
class HeldOutViews:
    """The views of an evaluator; an entry of config.data.evals.

    Attributes:
      split: whose cameras are used, 'test' or 'val'; see `traced.sample_poses`.
      views: how many.
    """

    split: str = 'test'
    views: Count = 4


class TrueVolume:
    """A known volume and its pictures.

    X-rays are exact where the volume's line integrals are known in closed form. Everything else is rendered with `fine`
    times as many intervals as are learned with.

    Args:
      volume: the voxels.
      settings: how they are rendered.
      fine: see above.
    """

    def __init__(self, volume: Volume, settings: RayCastingSettings, fine: int = 2):
        self.values, self.half, self.settings = volume.scaled, volume.half.astype(np.float32), settings
        # Only X-rays are plain line integrals; emission and absorption depend on the order along the ray.
        self.integrals = volume.integrals if settings.mode == 'xray' else None
        self.table = make_transfer_table(settings.table)
        arrays = jnp.asarray(self.values), jnp.asarray(self.table), jnp.asarray(self.half)
        cast = partial(cast_volume, *arrays, settings=settings, count=fine * settings.count)
        self._cast = jax.jit(lambda *ray: map_in_chunks(lambda part: cast(*part), ray, CHUNK))

    def render(self, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Renders rays [P, 3] -> float32 [P, C]."""
        # Beer and Lambert: what is left of the light after the integral of the absorption.
        if self.integrals:
            return np.exp(-self.settings.absorption * self.integrals(origins, directions))[:, None].astype(np.float32)
        return np.asarray(self._cast(origins, directions))

    def resample(self, shape: Sequence[int]) -> np.ndarray:
        """Returns its values on another grid [X, Y, Z] over the same box."""
        from scipy.ndimage import map_coordinates

        ends = (np.array(self.values.shape) - 1).tolist()
        index = np.meshgrid(*(np.linspace(0, end, n) for end, n in zip(ends, shape, strict=True)), indexing='ij')
        return map_coordinates(self.values, index, order=1, mode='nearest')


def render_views(truth: TrueVolume, camera: Camera, split: str, views: int, seed: int) -> tuple[np.ndarray, ...]:
    """Returns (origins, directions, colours) float32 [P, ...] of all pixels of all views, view by view.

    Args:
      truth: the volume.
      camera: of all views.
      split: whose poses are taken, see `traced.sample_poses`.
      views: how many.
      seed: of the poses.
    """
    poses, _ = traced.sample_poses(split, views, seed)
    pixels = jnp.asarray(rays.pixel_grid(camera)).reshape(-1, 2)
    generate = jax.vmap(lambda pose: rays.generate_rays(camera, pose, pixels))
    origins, directions = (np.asarray(x).reshape(-1, 3) for x in generate(jnp.asarray(poses)))
    return origins, directions, truth.render(origins, directions)


def pixel_batches(truth: TrueVolume, camera: Camera, views: int, batch_size: int, seed: int = 0) -> Generated:
    """Returns training batches: pixels drawn uniformly from the pictures of the training views.

    Args:
      truth: the volume.
      camera: of all views.
      views: of the training split.
      batch_size: pixels per step.
      seed: of the poses and of the pixels.
    """
    origins, directions, colours = render_views(truth, camera, 'train', views, seed)

    def draw(step):
        # With replacement, and a stream per step, so that any step can be replayed.
        chosen = stream('volume pixels', seed, step).integers(len(colours), size=batch_size)
        return {'origin': origins[chosen], 'direction': directions[chosen], 'colour': colours[chosen]}

    return Generated(draw, batch_size, len(colours))


# --- the task -----------------------------------------------------------------------------------------------------


def recovery_task(truth: TrueVolume, recovery: RecoverySettings, loss: RecoveryLoss = RecoveryLoss()) -> Task:
    """Makes the task of recovering a volume or its transfer function: squared error of pixels and total variation.

    A learned table is parametrised by its logits.

    Args:
      truth: gives the box, and what is not learned.
      recovery: what is learned.
      loss: weights.

    Returns:
      A task whose `predict` gives {'colour': [B, C]}.
    """
    settings, weights = truth.settings, loss
    # `half` is 1 along the longest side, so voxels are about cubes.
    shape = tuple(max(2, round(1 + (recovery.vertices - 1) * h)) for h in truth.half.tolist())

    def init(key, batch):
        # Logits of -1 are an even grey with opacity 0.27.
        start = {'volume': jnp.full(shape, recovery.start), 'table': jnp.zeros((recovery.rows, 4)) - 1}
        return {'params': {name: start[name] for name in recovery.learn}}

    def predict(params, mutable, batch):
        values, table = resolve_parts(params, truth)
        half = jnp.asarray(truth.half)
        colour = cast_volume(values, table, half, batch['origin'], batch['direction'], settings, settings.count)
        return {'colour': colour}

    def loss_of_pixels(params, mutable, batch, at):
        error = jnp.square(predict(params, mutable, batch)['colour'] - batch['colour']).mean(-1)
        count, total = len(error), error.sum()
        if weights.variation and 'volume' in params:
            # A batch is a sum over pixels, so the penalty of the whole volume counts once for each of them.
            total += weights.variation * count * volumes.total_variation(params['volume'])
        return Mean(total, jnp.float32(count)), (mutable, {'mse': Mean.of(error)})

    return Task(init, loss_of_pixels, predict)


def resolve_parts(params: Mapping[str, jax.Array], truth: TrueVolume) -> tuple[jax.Array, jax.Array]:
    """Returns (values, table): what is learned, and the truth for the rest."""
    # The sigmoid keeps colours and opacities in 0..1 without a constraint.
    table = jax.nn.sigmoid(params['table']) if 'table' in params else jnp.asarray(truth.table)
    return params.get('volume', jnp.asarray(truth.values)), table


def recovery_evaluator(task: Task, truth: TrueVolume, camera: Camera, held_out: HeldOutViews, seed: int) -> Evaluator:
    """Evaluates a recovery on held-out views and against the truth.

    Reports `psnr`, the mean over views; `volume_psnr` and `volume_rmse` of the voxels on the learned grid; and
    `table_error`, the mean absolute error of opacities and of colours times opacities over the values of the voxels.

    Args:
      task: of `recovery_task`.
      truth: the volume.
      camera: of the views.
      held_out: which views.
      seed: of their poses.
    """
    views, size = held_out.views, camera.size
    pixels = size[0] * size[1]
    rows = round_up_to_devices(pixels)
    rendered = render_views(truth, camera, held_out.split, views, seed)
    origins, directions, colours = (x.reshape(views, pixels, x.shape[-1]) for x in rendered)

    def read(view):
        return pad_rows({'origin': origins[view], 'direction': directions[view], 'colour': colours[view]}, rows)

    batches = Generated(read, rows, views, views)

    def measure(params, mutable, batch):
        # The PSNR is of a whole picture: padding is cut off, since a mean over a mask would be another mean.
        picture = task.predict(params, mutable, batch)['colour'][:pixels].reshape(1, *size, -1)
        sums = {'psnr': psnr(jnp.clip(picture, 0, 1), batch['colour'][:pixels].reshape(picture.shape))}
        values, table = resolve_parts(params, truth)
        if 'volume' in params:
            # The truth may have another resolution than what is learned.
            sums['volume_mse'] = Mean.of(jnp.square(values - truth.resample(values.shape)))
        if 'table' in params:
            sums['table_error'] = measure_table_error(table, truth)
        return sums

    def finish(sums):
        metrics = {name: mean.value for name, mean in sums.items()}
        if 'volume_mse' in metrics:
            mse = metrics.pop('volume_mse')
            metrics |= {'volume_psnr': -10 * np.log10(mse), 'volume_rmse': np.sqrt(mse)}
        return metrics

    def draw(params, mutable, sums):
        predict = jax.jit(task.predict)
        pictures, titles = [], []
        for i in range(min(views, _DRAWN_VIEWS)):
            recovered = np.asarray(predict(params, mutable, batches[i])['colour'])[:pixels].reshape(*size, -1)
            pictures += [np.broadcast_to(x, (*size, 3)) for x in (colours[i].reshape(*size, -1), recovered)]
            titles += ['truth', 'recovered']
        figures = {'views': plots.draw_gallery(_to_bytes(np.stack(pictures)), titles, columns=6)}
        if 'volume' in params:
            figures['slices'] = draw_planes(truth.resample(params['volume'].shape), np.asarray(params['volume']))
        if 'table' in params:
            figures['table'] = draw_tables(truth.table, np.asarray(jax.nn.sigmoid(params['table'])))
        return figures

    return Evaluator(batches, measure, finish, draw)


def measure_table_error(table: jax.Array, truth: TrueVolume) -> Mean:
    """Measures the mean absolute error of a table [K, 4], weighted by how often voxels have the value of each row.

    Colours are multiplied by opacity first: the colour of what is transparent does not matter.
    """

    def premultiply(table):
        return jnp.concatenate((table[:, :3] * table[:, 3:], table[:, 3:]), -1)

    values = np.linspace(0, 1, len(table), dtype=np.float32)
    counts = np.histogram(truth.values, len(values), (0, 1))[0].astype(np.float32)
    true_table = volumes.apply_transfer_function(jnp.asarray(truth.table), jnp.asarray(values))
    error = jnp.abs(premultiply(table) - premultiply(true_table)).mean(-1)
    return Mean((error * counts).sum(), counts.sum())


# --- figures ------------------------------------------------------------------------------------------------------


def draw_planes(truth: np.ndarray, recovered: np.ndarray) -> Figure:
    """Draws the middle planes across each axis of two volumes of one shape."""
    planes, titles = [], []
    for name, volume in (('truth', truth), ('recovered', recovered)):
        for axis, label in enumerate('xyz'):
            # Transposed and flipped, so that the second of the remaining axes points upwards.
            plane = np.take(volume, volume.shape[axis] // 2, axis).T[::-1]
            planes.append(np.pad(plane, [(0, max(volume.shape) - n) for n in plane.shape]))
            titles.append(f'{name}, across {label}')
    return plots.draw_gallery(_to_bytes(np.stack(planes)[..., None]), titles, columns=3)


def draw_tables(truth: np.ndarray, recovered: np.ndarray) -> Figure:
    """Draws two transfer functions [K, 4] as lines over the value; the truth is dashed."""
    figure = Figure(figsize=(6, 3), layout='constrained')
    axes = figure.add_subplot(xlabel='value', ylim=(-0.03, 1.03), title='transfer function: truth dashed')
    for channel, (name, colour) in enumerate(zip(('red', 'green', 'blue', 'opacity'), 'rgbk', strict=True)):
        axes.plot(np.linspace(0, 1, len(truth)), truth[:, channel], colour + '--', linewidth=1)
        axes.plot(np.linspace(0, 1, len(recovered)), recovered[:, channel], colour, label=name)
    axes.legend(fontsize=8)
    return figure


class VolumePictures(NamedTuple):
    """Pictures of a volume.

    Attributes:
      files: {'modes.png': a figure of all modes, 'orbit.gif': uint8 [T, H, W, 3]}.
      summary: a line about them.
    """

    files: Mapping[str, Any]
    summary: str


def draw_volume(
    values: np.ndarray,
    half: np.ndarray,
    table: np.ndarray | None = None,
    size: int = 256,
    frames: int = 36,
    level: float | None = None,
    name: str = '',
) -> VolumePictures:
    """Draws a volume in all modes, and on an orbit.

    Args:
      values: [X, Y, Z] in 0..1.
      half: half sides [3] of the box.
      table: transfer function [K, 4]; None takes a generic one.
      size: pixels per side of a mode; the orbit has half as many.
      frames: of the orbit.
      level: of the lit surface; None takes Otsu's threshold.
      name: the title.
    """
    if size < 4 or frames < 1:
        raise UsageError(f'expected size >= 4 pixels and frames >= 1, got {size=}, {frames=}')
    from skimage.filters import threshold_otsu

    # Otsu's threshold separates two populations of voxels, such as tissue and air, without a setting.
    level = float(threshold_otsu(values)) if level is None else level
    table = make_transfer_table(GENERIC) if table is None else table
    pictures = [render_picture(values, table, half, mode, size, _ANGLE, level) for mode in MODES]
    figure = plots.draw_gallery(_to_bytes(np.stack(pictures)), list(MODES.values()), columns=4, title=name)
    figure.set_size_inches(12, 3.6)
    orbit = render_orbit(values, table, half, max(size // 2, 4), frames, level)
    shape = 'x'.join(map(str, values.shape))
    files = {'modes.png': figure, 'orbit.gif': _to_bytes(orbit)}
    return VolumePictures(files, f'{name}, {shape}: surface at {level:.3g}, orbit of {frames} frames')


def _to_bytes(pictures: np.ndarray) -> np.ndarray:
    return (np.clip(pictures, 0, 1) * 255 + 0.5).astype(np.uint8)
