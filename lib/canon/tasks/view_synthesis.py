"""View synthesis with radiance fields: the task, its evaluator, and the rendering of views and orbits.

A field is trained so that its renderings match pictures of a scene, and then rendered from where no picture was taken
(Mildenhall et al. 2020, NeRF).

    views = canon.data.scenes.views.load_views('traced', size=64)
    task = radiance_field_task(models.make_model('nerf.nerf'), views, RenderSettings())
    experiment = Experiment(task, optim.adam(5e-4), ray_batches(views, 1024), {'test': view_evaluator(task, held_out)})

docs/examples/nerf.py is a complete script. Batches: `canon.data.scenes.ray_batches`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from canon import backend, plots
from canon.data.pipeline.synthetic import Generated
from canon.data.scenes.framing import look_at_frame, orbit_poses
from canon.data.scenes.ray_batches import pose_rays, sample_rays, view_rays
from canon.data.scenes.views import Views
from canon.errors import UsageError
from canon.metrics import Mean
from canon.metrics.views import psnr, ssim
from canon.named import Count, NonNegative, Range
from canon.ops import map_in_chunks
from canon.ops import volume_rendering as vr
from canon.progress import make_bar
from canon.rendering import (
    LevelOutput,
    RenderSettings,
    Samples,
    cast_rays,
    init_occupancy,
    render_rays,
    update_occupancy,
)
from canon.tasks.padding import pad_rows, round_up_to_devices
from canon.train import Evaluator, Task
from canon.train.step import accumulate_gradient, sum_gradient

_CHUNK = 4096  # rays that are rendered at a time
_FIGURE_VIEWS = 4  # views in the evaluator's figure
_SSIM_WINDOW = 11  # pixels; smaller pictures have no SSIM
_LOW_COVERAGE = 0.2  # fraction of rays that meet the box, below which a warning is logged
_CACHED_ACTIVATIONS = 16 * 192 * 256  # outputs of one layer per microbatch that stay in a CPU's cache, as measured


@dataclass(frozen=True)
class RadianceLoss:
    """The loss of a radiance field. In a config these are the keys of `config.loss`.

    Attributes:
      coarse: weight of the squared error of the coarse rendering.
      microbatch: rays whose gradient is computed at a time. None takes as many as stay in the cache on a CPU (16 of the
        published NeRF), and all elsewhere; 0 takes all.
      occlusion: weight of FreeNeRF's penalty on density close to the camera (`occlusion_penalty`).
      occlusion_range: samples of a ray that the penalty covers.
      frequency_steps: steps over which FreeNeRF reveals the frequencies of the encoding; 0 shows all from the start.
    """

    coarse: NonNegative = 1.0
    microbatch: Annotated[int, Range(0)] | None = None
    occlusion: NonNegative = 0.0
    occlusion_range: Count = 10
    frequency_steps: Annotated[int, Range(0)] = 0


@dataclass(frozen=True)
class TrainViews:
    """config.data.train.

    Attributes:
      split: of the scene.
      views: number of them to train on, evenly spaced; None for all.
      crop_steps: the first steps, which sample the central half of the pictures alone (`ray_batches`).
      single_view: takes all rays of a batch from one view.
    """

    split: str = 'train'
    views: Count | None = None
    crop_steps: int = 0
    single_view: bool = False


@dataclass(frozen=True)
class EvaluatedViews:
    """An entry of config.data.evals. split, views: as in data.train. source: overrides config.data.source."""

    split: str
    views: Count | None = None
    source: Mapping[str, Any] | None = None


def radiance_field_task(
    field: Any, views: Views, settings: RenderSettings, weights: RadianceLoss = RadianceLoss()
) -> Task:
    """Makes the task of a radiance field: the squared error of the fine and of the coarse rendering.

    Args:
      field: a linen module of `canon.models.nerf` or `canon.models.instant_ngp`.
      views: their camera, near and far are those of the rays.
      settings: how the field is rendered. With `settings.cells` an occupancy grid is carried in `mutable`.
      weights: of the loss's terms.

    Returns:
      A task whose `predict` gives 'colour' [B, 3] over the background, 'distance' and 'opacity' [B].
    """
    # Normalised device coordinates map the near plane to 0 and infinity to 1 (NeRF, appendix C).
    limits = (0.0, 1.0) if settings.ndc else (views.near, views.far)

    def init(key, batch):
        rays = cast_rays(views.camera, settings, *limits, jax.tree.map(lambda x: x[:1], batch))
        positions = rays.origins[:, None]
        covariance = jnp.zeros_like(positions) if settings.casting == 'cones' else None
        # One sample has the shapes that initialisers need, whatever the renderer evaluates later.
        samples = Samples(positions, rays.directions, covariance, rays.times)
        names = sorted(set(settings.networks))
        keys = jax.random.split(key, len(names))
        params = {name: field.init(k, samples)['params'] for name, k in zip(names, keys, strict=True)}
        return {'params': params} | ({'occupancy': init_occupancy(settings)} if settings.cells else {})

    def loss(params, mutable, batch, at):
        background_key, render_key = jax.random.split(at.key)
        rays = cast_rays(views.camera, settings, *limits, batch)
        if weights.frequency_steps:
            rays = rays._replace(progress=jnp.minimum(at.step / weights.frequency_steps, 1))
        target = batch['colour'].astype(jnp.float32) / 255
        background = vr.background_colour(background_key, settings.background, (len(target), 3))
        if target.shape[-1] == 4:  # straight alpha is premultiplied; the rendering goes on the same background below
            target = vr.over(target[:, :3] * target[:, 3:], target[:, 3], 0 if background is None else background)
        grid = mutable['occupancy'] if settings.cells else None
        levels = render_rays(field, params, rays, settings, render_key, grid)
        # Both levels are supervised: the coarse one must place the samples of the fine one (NeRF, eq. 6).
        errors = [_squared_errors(level, target, background) for level in levels]
        complete = levels[-1].complete
        # Rays whose samples did not fit into the packed batch have neither an error nor a weight.
        count = jnp.float32(len(target)) if complete is None else complete.sum().astype(jnp.float32)
        metrics = {'mse': Mean(errors[-1].sum(), count)}  # of the fine level, without the coarse one's
        total = errors[-1].sum() + weights.coarse * sum(error.sum() for error in errors[:-1])
        if weights.occlusion:
            penalty = occlusion_penalty(levels[-1].density, weights.occlusion_range)
            metrics['occlusion'] = Mean.of(penalty)
            total = total + weights.occlusion * penalty.sum()
        if complete is not None:
            metrics['complete'] = Mean.of(complete.astype(jnp.float32))
        if settings.cells:
            grid_key = jax.random.fold_in(at.key, 1)
            grid = update_occupancy(field, params, settings, mutable['occupancy'], 'time' in batch, grid_key)
            mutable = {'occupancy': grid}
        return Mean(total, count), (mutable, metrics)

    def gradient(params, mutable, batch, at):
        # `run.accumulate` saves memory on any device, if a user asks for it. These microbatches are the default of a
        # CPU, where 16 rays at a time keep a layer's activations in the cache. One function accumulates the gradients
        # of both, and they may be combined.
        task, count = Task(init, loss, predict), len(batch['pixel'])
        size = weights.microbatch
        if size is None:
            size = choose_microbatch(field, settings, count) if backend.cpu_form() else 0
        if size == 0 or size >= count:
            return sum_gradient(task, params, mutable, batch, at)
        if count % size:
            raise UsageError(f'microbatches of {size} rays do not divide a batch of {count}; set loss.microbatch')
        return accumulate_gradient(task, params, mutable, batch, at, count // size)

    def predict(params, mutable, batch):
        rays = cast_rays(views.camera, settings, *limits, batch)
        grid = mutable['occupancy'] if settings.cells else None
        level = render_rays(field, params, rays, settings, None, grid)[-1]
        background = vr.background_colour(None, settings.background, (len(batch['pixel']), 3))
        colour = level.colour if background is None else vr.over(level.colour, level.opacity, background)
        return {'colour': colour, 'distance': level.distance, 'opacity': level.opacity}

    # An occupancy grid packs the samples of the whole batch, so its batches are not cut.
    return Task(init, loss, predict, None if settings.cells else gradient)


def choose_microbatch(field: Any, settings: RenderSettings, count: int) -> int:
    """Returns how many rays keep a layer's activations in a CPU's cache: a power of 2 that divides `count`, or 0."""
    # A field without a `width` is taken to have layers of 64.
    largest = _CACHED_ACTIVATIONS // (settings.samples_per_ray * getattr(field, 'width', 64))
    return max((n for n in (2**i for i in range(3, 20)) if n <= largest and count % n == 0), default=0)


def occlusion_penalty(density: jax.Array, count: int) -> jax.Array:
    """Returns sum_k sigma_k m_k / K per ray [...], with m_k = 1 for the first `count` of its K samples.

    Yang, Pavone & Wang 2023 (FreeNeRF), eq. 4. With few views, density right in front of each camera can explain them.
    """
    return density[..., :count].sum(-1) / density.shape[-1]


def resolve_background(settings: RenderSettings, views: Views, opaque: bool = False) -> RenderSettings:
    """Returns settings with a background that suits the pictures.

    Args:
      settings: a background of None becomes 'random' for pictures with alpha, 'black' for those without.
      views: the pictures.
      opaque: pictures without alpha already show the background that `settings` names.

    Raises:
      UsageError: pictures without alpha cannot be put on the background.
    """
    alpha = views.images.shape[-1] == 4
    if settings.background is None:
        return replace(settings, background='random' if alpha else 'black')
    if settings.background != 'black' and not alpha and not opaque:
        raise UsageError(
            f'render.background={settings.background!r} needs pictures with alpha, which these lack; '
            'set render.background=black, or data.opaque=true if they show that background already'
        )
    return settings


def warn_if_rays_miss_box(views: Views, settings: RenderSettings, box: tuple[float, float] | None) -> None:
    """Logs a warning if few rays meet the box of the renderer or of the field: nothing is learnt outside of it.

    box: (low, high) of the field, used if `settings.box` is None.
    """
    # The renderer samples within its own box, whatever the field's.
    box = settings.box or box
    if box is None or settings.contract or settings.ndc:
        return
    # A thousand rays suffice to tell a box that is missed from one that is met.
    batch = jax.tree.map(jnp.asarray, sample_rays(views, 0, 0, 1024))
    rays = cast_rays(views.camera, replace(settings, box=tuple(box), cells=0), views.near, views.far, batch)
    coverage = float((rays.far > rays.near).mean())  # rays that miss have an empty interval
    if coverage < _LOW_COVERAGE:
        logging.getLogger('canon').warning(
            'only %.0f %% of the rays meet the box %s between near=%.3g and far=%.3g, and nothing is learnt elsewhere: '
            'set render.box, model.low and model.high around what the cameras look at, or use configs/nerf/capture.py',
            100 * coverage, tuple(box), views.near, views.far,
        )  # fmt: skip


def _squared_errors(level: LevelOutput, target: jax.Array, background: jax.Array | None) -> jax.Array:
    """Returns the squared error per ray [B]; 0 for rays that are not complete."""
    colour = level.colour if background is None else vr.over(level.colour, level.opacity, background)
    error = jnp.square(colour - target).mean(-1)
    return error if level.complete is None else error * level.complete


class ViewSystem(NamedTuple):
    """A method of view synthesis for one scene, whose cameras may differ.

    Attributes:
      make_task: from views, whose camera the rays are of, to the task.
      make_evaluator: from such a task and its views to the evaluator.
    """

    make_task: Callable[[Views], Task]
    make_evaluator: Callable[[Task, Views], Evaluator]


def radiance_system(
    field: Any,
    views: Views,
    settings: RenderSettings,
    weights: RadianceLoss = RadianceLoss(),
    pixel_center: float = 0.5,
    opaque: bool = False,
) -> ViewSystem:
    """Makes the system of a radiance field: `radiance_field_task` and `view_evaluator` for any views of a scene.

    Args:
      field: a linen module of `canon.models.nerf` or `canon.models.instant_ngp`.
      views: those that are trained on; whether they have alpha settles the background (`resolve_background`).
      settings: how the field is rendered.
      weights: of the loss's terms.
      pixel_center: as in training.
      opaque: pictures without alpha already show the background that `settings` names.
    """
    settings = resolve_background(settings, views, opaque)
    return ViewSystem(
        lambda views: radiance_field_task(field, views, settings, weights),
        lambda task, views: view_evaluator(task, views, settings.background, pixel_center),
    )


# --- rendering whole views ------------------------------------------------------------------------------------------


def predict_in_chunks(task: Task, chunk: int = _CHUNK) -> Callable[[Any, Any, Any], Any]:
    """Returns `task.predict` for batches of any number of rays, which it evaluates `chunk` at a time."""
    return lambda params, mutable, batch: map_in_chunks(lambda rows: task.predict(params, mutable, rows), batch, chunk)


def render_novel_views(
    task: Task, params: Any, mutable: Any, views: Views, frames: int, pixel_center: float = 0.5
) -> np.ndarray:
    """Renders a loop around what the views look at, uint8 [frames, H, W, 3] (`framing.orbit_poses`).

    Args:
      task: of a radiance field or a surface.
      params, mutable: what it has learnt.
      views: the camera and the poses that the loop follows.
      frames: in a scene that moves, time passes once from 0 to 1.
      pixel_center: as in training.
    """
    predict, images = jax.jit(predict_in_chunks(task)), []
    frame = views.frame or look_at_frame(views.poses, views.near, views.far)
    with make_bar(frames, 'rendering', 'frames') as bar:
        for i, pose in enumerate(orbit_poses(views.poses, frames, frame)):
            batch = pose_rays(views.camera, pose, pixel_center, None if views.times is None else i / frames)
            colour = np.asarray(predict(params, mutable, batch)['colour'])
            images.append(_as_uint8(colour.reshape(*views.camera.size, 3)))
            bar.update()
    return np.stack(images)


def parse_frames(text: str) -> tuple[int, int | None]:
    """Parses 'FRAMES' or 'FRAMESxSIZE', such as 60x200: the number of frames, and their longer side in pixels."""
    match = re.fullmatch(r'0*([1-9]\d*)(?:x(\d+))?', text)
    if match is None:
        raise UsageError(f'--input={text}: give the number of frames, optionally with a size: 60 or 60x200')
    frames, side = match.groups()
    return int(frames), int(side) if side else None


def colour_distances(distance: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Maps distances [P] to colours [P, 3] in [0, 1], near ones bright; white where the opacity is below one half."""
    visible = opacity > 0.5
    # Percentiles: a few stray samples of a field in training would take up the range of colours.
    near, far = np.percentile(distance[visible], (1, 99)) if visible.any() else (0.0, 1.0)
    value = 1 - np.clip((distance - near) / max(far - near, 1e-6), 0, 1)
    return np.where(visible[:, None], matplotlib.colormaps['magma'](value)[:, :3], 1.0)


# --- evaluation -----------------------------------------------------------------------------------------------------


def view_evaluator(
    task: Task,
    views: Views,
    background: str | None = 'white',
    pixel_center: float = 0.5,
    view_inputs: Callable[[int], Mapping[str, np.ndarray]] = lambda view: {},
    ray_metrics: Callable[[Any, Any], Mapping[str, Mean]] = lambda outputs, batch: {},
) -> Evaluator:
    """Evaluates whole views: 'psnr', 'ssim' and 'mse', and a figure of pictures, renderings and distances.

    psnr and ssim are means over the views; psnr is not that of the mean mse.

    Args:
      task: of a radiance field or a surface.
      views: held-out pictures.
      background: behind pictures with alpha; 'random' is evaluated on white.
      pixel_center: as in training.
      view_inputs: (view) -> more arrays of that view's batch, one entry per pixel.
      ray_metrics: (outputs of `task.predict`, batch) -> more metrics.
    """
    size, count = views.camera.size, len(views.images)
    predict = predict_in_chunks(task)
    pixels = size[0] * size[1]
    rows = round_up_to_devices(pixels)

    def view_batch(view):
        return pad_rows(view_rays(views, view, pixel_center) | dict(view_inputs(view)), rows)

    def measure(params, mutable, batch):
        # Cut rather than masked: SSIM needs the picture, not its pixels.
        outputs = jax.tree.map(lambda x: x[:pixels], predict(params, mutable, batch))
        batch = jax.tree.map(lambda x: x[:pixels], batch)
        # A picture is clipped before it is compared, as it would be in a file.
        colour = jnp.clip(outputs['colour'], 0, 1).reshape(1, *size, 3)
        target = _target_colours(batch['colour'], background).reshape(1, *size, 3)
        metrics = {'psnr': psnr(colour, target), 'mse': Mean.of(jnp.square(colour - target).mean((1, 2, 3)))}
        metrics |= ray_metrics(outputs, batch)
        return metrics | ({'ssim': ssim(colour, target)} if min(size) >= _SSIM_WINDOW else {})

    def finish(sums):
        return {name: mean.value for name, mean in sums.items()}

    def draw(params, mutable, sums):
        jitted, images = jax.jit(predict), []
        for view in np.unique(np.linspace(0, count - 1, _FIGURE_VIEWS).astype(int)):
            batch = view_rays(views, int(view), pixel_center)
            outputs = jax.device_get(jitted(params, mutable, batch))
            target = np.asarray(_target_colours(batch['colour'], background))
            distances = colour_distances(outputs['distance'], outputs['opacity'])
            images += [_as_uint8(x.reshape(*size, 3)) for x in (target, outputs['colour'], distances)]
        titles = ['truth', 'rendered', 'depth'] * (len(images) // 3)
        return {'views': plots.draw_gallery(np.stack(images), titles, columns=6)}

    return Evaluator(Generated(view_batch, rows, count, count), measure, finish, draw)


def _target_colours(colour, background: str | None) -> jax.Array:
    """Returns the true colours float32 [P, 3] on the background of an evaluation: black or white."""
    target = jnp.asarray(colour, jnp.float32) / 255
    if target.shape[-1] == 3:
        return target
    return vr.over(target[:, :3] * target[:, 3:], target[:, 3], 0.0 if background == 'black' else 1.0)


def _as_uint8(image: np.ndarray) -> np.ndarray:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
