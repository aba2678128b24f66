"""View synthesis: a field that is rendered as the pictures show the scene, and then from where none was taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import backend, data, models, named, optim, plots
from canon.data.scenes.framing import look_at_frame, orbit_poses
from canon.errors import UsageError
from canon.metrics import Mean
from canon.metrics.views import psnr, ssim
from canon.ops import map_in_chunks
from canon.ops import volume_rendering as vr
from canon.train import Evaluator, Experiment, Task, lengths
from canon.train.shard import process_shard
from experiments.view_synthesis.rendering import Rendering, Seen, cast, in_parts, looked_at, new_grid, render

_CHUNK = 4096  # rays that are rendered at a time, where pictures are made
_SHOWN = 4  # views in the report
_WINDOW = 11  # pixels: smaller pictures have no SSIM
_MET = 0.2  # share of rays that meet the box, below which one is warned
_CACHED = 16 * 192 * 256  # numbers of a layer's output in a microbatch: so many stay in the cache


@dataclass(frozen=True)
class Learning:
    """config.loss: coarse: the weight of the coarse rendering's error. microbatch: rays that are worked through at a
    time; None takes as many as stay in the cache on a CPU (16 of the published NeRF), and all elsewhere; 0 takes all.

    occlusion: the weight of FreeNeRF's penalty on density in the first `occlusion_range` samples of a ray.
    """

    coarse: float = 1.0
    microbatch: int | None = None
    occlusion: float = 0.0
    occlusion_range: int = 10


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model, config.render, config.loss and config.tx -> a view synthesis experiment.

    config.forms, {name: some of those blocks}: config.form says whose take their place, so that a sweep can choose.
    config.render.name: 'srn' or 'dvr', a surface instead of a volume: see `surfaces`.
    """
    config = formed(config)
    if config.get('render', {}).get('name'):
        from experiments.view_synthesis import surfaces

        return surfaces.make(config)
    views = _views(config, config.data.train.get('split', 'train'), config.data.train.get('views'))
    how, learning = (named.call(kind, dict(config.get(key, {})), key) for kind, key in _SPECS)
    if how.background not in ('black', None) and views.images.shape[-1] == 3 and not config.data.get('opaque', False):
        raise UsageError(
            f'render.background={how.background!r} wants pictures with alpha, which these are without; '
            'set render.background=black, or data.opaque=true where they have it already'
        )
    how = with_background(how, views)
    warn_of_missed_box(views, how, config.model)

    def task(config, views):
        return view_task(models.make(**config.model), views, how, learning)

    return assembled(config, views, task, lambda task, held, center: view_evaluator(task, held, how, center))


def assembled(
    config: ConfigDict,
    views: Any,
    task: Callable[[ConfigDict, Any], Task],
    evaluator: Callable[[Task, Any, float], Evaluator],
) -> Experiment:
    """An experiment that learns from random rays of `views`. task: of (config, views). evaluator: of (task, views,
    pixel_center), for each of config.data.evals."""
    size, seed = config.data.batch_size, config.seed
    center = config.data.get('pixel_center', 0.5)
    told = config.data.train
    options = dict(hidden=told.get('frequencies_hidden', 0), crop=told.get('crop', 0), single=told.get('single', False))
    pixels = len(views.images) * int(np.prod(views.camera.size))
    train = data.Generated(
        lambda step: random_rays(views, seed, step, size, center, **options), size, pixels, shard=process_shard()
    )
    config = lengths.resolve(config, size, pixels)
    evals = {}
    for name in sorted(config.data.evals):
        spec = named.to_plain(config.data.evals[name])
        held = _views(config, spec['split'], spec.get('views'), spec.get('source', {}))
        # Their camera is their own: views may be smaller than those that are learnt from.
        evals[name] = evaluator(task(config, held), held, center)
    about = dict(size=list(views.camera.size), views=len(views.images))
    return Experiment(task(config, views), optim.make(config.tx), train, evals, about=about)


_SPECS = ((Rendering, 'render'), (Learning, 'loss'))


def with_background(how: Rendering, views: Any) -> Rendering:
    """`how` with a background: where it has none, 'random' for pictures with alpha and 'black' for those without."""
    if how.background is not None:
        return how
    return replace(how, background='random' if views.images.shape[-1] == 4 else 'black')


def warn_of_missed_box(views: Any, how: Rendering, model: Mapping[str, Any]) -> None:
    """Warns where few rays meet the walls of the rendering or of the field: outside of them nothing is learnt."""
    walls = how.box or ((model['low'], model['high']) if 'low' in model and 'high' in model else None)
    if walls is None or how.contract or how.ndc:
        return
    batch = jax.tree.map(jnp.asarray, random_rays(views, 0, 0, 1024))
    cone = cast(views.camera, replace(how, box=tuple(walls), cells=0), views.near, views.far, batch)
    share = float((cone.far > cone.near).mean())
    if share < _MET:
        logging.getLogger('canon').warning(
            'only %.0f %% of the rays meet the box %s between near=%.3g and far=%.3g, and nothing is learnt elsewhere: '
            'set render.box, model.low and model.high about what the cameras look at, or take configs/nerf/capture.py',
            100 * share, tuple(walls), views.near, views.far,
        )  # fmt: skip


def formed(config: ConfigDict) -> ConfigDict:
    """`config` with the blocks of the form that it names."""
    forms = named.to_plain(config.get('forms', {}))
    if not forms:
        return config
    if config.form not in forms:
        raise UsageError(f'form={config.form!r} is none of {", ".join(map(repr, forms))}')
    return ConfigDict({**named.to_plain(config), **forms[config.form]})


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on the embedded scene where its own is not at hand: to build it, or to time it."""
    if config.data.name != 'traced':
        with config.unlocked():
            config.data.name, config.data.source = 'traced', dict(size=16)
    return config


def random_rays(
    views: Any,
    seed: int,
    step: int,
    count: int,
    center: float = 0.5,
    hidden: int = 0,
    crop: int = 0,
    single: bool = False,
) -> dict[str, np.ndarray]:
    """`count` pixels of the views, drawn evenly: a pure function of (seed, step).

    {'pose' [B, 3, 4], 'at' [B, 2], 'colour' uint8 [B, 3 or 4]}, and 'time' and 'intrinsics' where views have them.
    hidden: steps of FreeNeRF's schedule, as 'progress'. crop: the first steps, in which the middle half of the pictures
    is taken. single: all rays of a step are of one view, as the original NeRF had it for the synthetic scenes.
    """
    rng = np.random.default_rng((5, seed, step, 0))
    height, width = views.camera.size
    margin = (height // 4, width // 4) if step < crop else (0, 0)
    view = np.broadcast_to(rng.integers(len(views.images), size=1 if single else count), count)
    row = rng.integers(margin[0], height - margin[0], count)
    column = rng.integers(margin[1], width - margin[1], count)
    batch = _batch(views, view, row, column, center)
    return batch | ({'progress': np.full(count, min(step / hidden, 1), np.float32)} if hidden else {})


def _batch(views: Any, view, row, column, center: float) -> dict[str, np.ndarray]:
    batch: dict[str, np.ndarray] = {
        'pose': np.asarray(views.poses[view][:, :3], np.float32),
        'at': np.stack((column, row), -1).astype(np.float32) + np.float32(center),
        'colour': views.images[view, row, column],
    }
    if views.intrinsics is not None:
        batch['intrinsics'] = views.intrinsics[view]
    if views.times is not None:
        batch['time'] = np.asarray(views.times[view], np.float32)
    return batch


def view_task(field: Any, views: Any, how: Rendering, learning: Learning = Learning()) -> Task:
    """The field that looks as the views do: the squared error of the fine rendering and of the coarse.

    `predict` gives {'colour' [B, 3], 'distance', 'opacity' [B]} before the background that pictures have.
    """
    limits = (0.0, 1.0) if how.ndc else (views.near, views.far)

    def init(key, batch):
        cone = cast(views.camera, how, *limits, jax.tree.map(lambda x: x[:1], batch))
        names = sorted(set(how.networks))
        at = _one_sample(cone, how)
        made = {n: field.init(k, at)['params'] for n, k in zip(names, jax.random.split(key, len(names)), strict=True)}
        return {'params': made} | ({'occupancy': new_grid(how)} if how.cells else {})

    def total(params, batch, key, grid=None):
        shade, body = jax.random.split(key)
        cone = cast(views.camera, how, *limits, batch)
        truth = batch['colour'].astype(jnp.float32) / 255
        behind = vr.background_colour(shade, how.background, (len(truth), 3))
        if truth.shape[-1] == 4:
            truth = vr.over(truth[:, :3] * truth[:, 3:], truth[:, 3], 0 if behind is None else behind)
        levels = render(field, params, cone, how, body, grid)
        errors = [_errors(seen, truth, behind) for seen in levels]
        whole = levels[-1].whole
        counted = jnp.float32(len(truth)) if whole is None else whole.sum().astype(jnp.float32)
        sums = {'mse': Mean(errors[-1].sum(), counted)}
        value = errors[-1].sum() + learning.coarse * sum(e.sum() for e in errors[:-1])
        if learning.occlusion:
            near = occlusion(levels[-1].density, learning.occlusion_range)
            sums['occlusion'] = Mean.of(near)
            value = value + learning.occlusion * near.sum()
        if whole is not None:
            sums['asked'] = Mean.of(whole.astype(jnp.float32))
        return value, sums

    def loss(params, mutable, batch, at):
        count = len(batch['at'])
        if how.cells:
            value, sums = total(params, batch, at.key, mutable['occupancy'])
            look = jax.random.fold_in(at.key, 1)
            mutable = {'occupancy': looked_at(field, params, how, mutable['occupancy'], 'time' in batch, look)}
            return Mean(value, sums['mse'].weight), (mutable, sums)
        rows = learning.microbatch
        if rows is None:
            rows = _cached_rays(field, how, count) if backend.cpu_form() else 0
        whole = in_parts(total, rows) if rows and rows < count else total
        value, sums = whole(params, batch, at.key)
        return Mean(value, jnp.float32(count)), (mutable, sums)

    def predict(params, mutable, batch):
        cone = cast(views.camera, how, *limits, batch)
        seen = render(field, params, cone, how, None, mutable['occupancy'] if how.cells else None)[-1]
        behind = vr.background_colour(None, how.background, (len(batch['at']), 3))
        colour = seen.colour if behind is None else vr.over(seen.colour, seen.opacity, behind)
        return {'colour': colour, 'distance': seen.distance, 'opacity': seen.opacity}

    return Task(init, loss, predict)


def _cached_rays(field: Any, how: Rendering, count: int) -> int:
    """Rays of a microbatch whose layers stay in the cache: a power of 2 that divides `count`; 0 where none does."""
    samples = how.fine + how.coarse * (how.casting == 'points') if how.fine else how.coarse
    most = _CACHED // (samples * getattr(field, 'width', 64))
    return max((n for n in (2**i for i in range(3, 20)) if n <= most and count % n == 0), default=0)


def _errors(seen: Seen, truth: jax.Array, behind: jax.Array | None) -> jax.Array:
    """The squared error of each ray, [B]; 0 for those that were not asked as a whole."""
    colour = seen.colour if behind is None else vr.over(seen.colour, seen.opacity, behind)
    error = jnp.square(colour - truth).mean(-1)
    return error if seen.whole is None else error * seen.whole


def occlusion(density: jax.Array, near: int) -> jax.Array:
    """sum_k sigma_k m_k / K of each ray, [B], where m_k is 1 for the first `near` of its K samples.

    Yang, Pavone & Wang 2023 (FreeNeRF), eq. 4: with few views, floaters before the cameras explain them all.
    """
    return density[..., :near].sum(-1) / density.shape[-1]


def _one_sample(cone, how: Rendering):
    from canon.models.nerf import Samples

    points = cone.origins[:, None]
    variance = jnp.zeros_like(points) if how.casting == 'cones' else None
    return Samples(points, cone.ways, variance, cone.times, cone.progress)


# --- pictures -----------------------------------------------------------------------------------------------------


def picture_rays(views: Any, view: int, center: float = 0.5) -> dict[str, np.ndarray]:
    """All pixels of a view, row by row."""
    row, column = (x.ravel() for x in np.indices(views.camera.size))
    return _batch(views, np.full(len(row), view), row, column, center)


def renderer(task: Task, chunk: int = _CHUNK) -> Callable:
    """`task.predict` over batches of any number of rays, `chunk` at a time."""

    return lambda params, mutable, batch: map_in_chunks(lambda part: task.predict(params, mutable, part), batch, chunk)


def view_evaluator(
    task: Task,
    views: Any,
    how: Rendering,
    center: float = 0.5,
    given: Callable[[int], dict[str, np.ndarray]] = lambda view: {},
    more: Callable[[Any, Any], dict[str, Mean]] = lambda found, batch: {},
) -> Evaluator:
    """psnr and ssim, means over the views (not psnr of the mean mse), each rendered whole; truth, rendering, depth.

    more: what else is measured, of what `task.predict` found and the batch; given: what a view's batch has for it.
    """
    size = views.camera.size
    run = renderer(task)
    pixels = size[0] * size[1]
    rows = -(-pixels // jax.device_count()) * jax.device_count()

    def batch_of(view):
        """All pixels, the last one repeated until all devices have as many."""
        batch = picture_rays(views, view, center) | given(view)
        return {name: np.pad(x, [(0, rows - pixels)] + [(0, 0)] * (x.ndim - 1), 'edge') for name, x in batch.items()}

    batches = data.Generated(batch_of, rows, len(views.images), len(views.images), process_shard())

    def measure(params, mutable, batch):
        found = jax.tree.map(lambda x: x[:pixels], run(params, mutable, batch))
        batch = jax.tree.map(lambda x: x[:pixels], batch)
        colour = jnp.clip(found['colour'], 0, 1).reshape(1, *size, 3)
        truth = _truth(batch['colour'], how).reshape(1, *size, 3)
        told = {'psnr': psnr(colour, truth), 'mse': Mean.of(jnp.square(colour - truth).mean((1, 2, 3)))}
        return told | more(found, batch) | ({'ssim': ssim(colour, truth)} if min(size) >= _WINDOW else {})

    def finish(sums):
        return {name: mean.value for name, mean in sums.items()}

    def pictures(params, mutable, sums):
        jitted, shown = jax.jit(run), []
        for i in np.unique(np.linspace(0, len(views.images) - 1, _SHOWN).astype(int)):
            batch = picture_rays(views, int(i), center)
            found = jax.device_get(jitted(params, mutable, batch))
            truth = np.asarray(_truth(batch['colour'], how)).reshape(*size, 3)
            shown += [truth, found['colour'].reshape(*size, 3), depth_picture(found).reshape(*size, 3)]
        shown = np.stack([np.uint8(np.clip(x, 0, 1) * 255 + 0.5) for x in shown])
        return {'views': plots.gallery(shown, ['truth', 'rendered', 'depth'] * (len(shown) // 3), columns=6)}

    return Evaluator(batches, measure, finish, pictures)


def _truth(colour, how: Rendering) -> jax.Array:
    truth = jnp.asarray(colour, jnp.float32) / 255
    if truth.shape[-1] == 3:
        return truth
    return vr.over(truth[:, :3] * truth[:, 3:], truth[:, 3], 0.0 if how.background == 'black' else 1.0)


def depth_picture(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Distances [P] as colours [P, 3], near ones bright; white where nothing is."""
    import matplotlib

    seen = found['opacity'] > 0.5
    near, far = np.percentile(found['distance'][seen], (1, 99)) if seen.any() else (0.0, 1.0)
    value = 1 - np.clip((found['distance'] - near) / max(far - near, 1e-6), 0, 1)
    return np.where(seen[:, None], matplotlib.colormaps['magma'](value)[:, :3], 1.0)


def _views(config: ConfigDict, split: str, count: int | None = None, more: Mapping[str, Any] | None = None) -> Any:
    """config.data.name, .path and .source, and `more` of the latter; count: so many of them, evenly spaced."""
    from canon.data.scenes import views

    source = {**named.to_plain(config.data.get('source', {})), **(more or {})}
    source = {key: value for key, value in source.items() if value is not None}
    if config.data.get('path'):
        source['path'] = config.data.path
    found = views.load(config.data.name, split, **source)
    if not count or count >= len(found.images):
        return found
    return views.take(found, np.unique(np.linspace(0, len(found.images) - 1, count).round().astype(int)))


# --- prediction ---------------------------------------------------------------------------------------------------


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """An orbit about the scene as `orbit.gif` and `orbit.mp4` (`framing.orbit_poses`).

    source: 'FRAMES' or 'FRAMESxSIZE', such as 60x200.
    """
    import imageio.v3 as imageio

    frames, _, side = source.partition('x')
    if not frames.isdigit() or (side and not side.isdigit()):
        raise UsageError(f'--input={source}: give the number of frames, and a size if you like: 60 or 60x200')
    config = formed(config)
    views = _views(config, config.data.train.get('split', 'train'))
    if side:
        views = views._replace(camera=views.camera.scaled(int(side) / max(views.camera.size)))
    if config.get('render', {}).get('name'):
        from experiments.view_synthesis import surfaces

        task = surfaces.task(config, views)
    else:
        how, learning = (named.call(kind, dict(config.get(key, {})), key) for kind, key in _SPECS)
        task = view_task(models.make(**config.model), views, with_background(how, views), learning)
    run, found = jax.jit(renderer(task)), []
    row, column = (x.ravel() for x in np.indices(views.camera.size))
    at = np.stack((column, row), -1).astype(np.float32) + np.float32(config.data.get('pixel_center', 0.5))
    frame = views.frame or look_at_frame(views.poses, views.near, views.far)
    for pose in orbit_poses(views.poses, int(frames), frame):
        batch = {'pose': np.broadcast_to(pose[:3], (len(at), 3, 4)), 'at': at}
        if views.times is not None:
            batch['time'] = np.full(len(at), len(found) / int(frames), np.float32)
        colour = np.asarray(run(params, mutable, batch)['colour']).reshape(*views.camera.size, 3)
        found.append(np.uint8(np.clip(colour, 0, 1) * 255 + 0.5))
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(out / 'orbit.gif', found, duration=50, loop=0)
    imageio.imwrite(out / 'orbit.mp4', found, fps=20, macro_block_size=1)
    height, width = views.camera.size
    return f'{len(found)} frames of {width}x{height}: {out / "orbit.gif"}, {out / "orbit.mp4"}'
