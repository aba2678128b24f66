"""View synthesis: NeRF and its successors, or a surface (SRN, DVR), trained on pictures of one scene.

`config.render.name` chooses a surface ('srn', 'dvr'); without it a radiance field is rendered. `config.forms`,
{name: some of the blocks model, render, loss and tx}, and `config.form` exchange those blocks, so that a sweep can
compare systems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import models, named, plots
from canon.configuration import apply_form, drop_placeholders
from canon.data.scenes import views as scene_views
from canon.data.scenes.ray_batches import ray_batches
from canon.data.scenes.views import Views
from canon.rendering import RenderSettings
from canon.rendering.interactive import Scene, radiance_scene, task_scene
from canon.tasks import surfaces
from canon.tasks.predictions import Prediction
from canon.tasks.view_synthesis import (
    EvaluatedViews,
    RadianceLoss,
    TrainViews,
    ViewSystem,
    parse_frames,
    radiance_system,
    render_novel_views,
    resolve_background,
    warn_if_rays_miss_box,
)
from canon.train import Experiment

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': scene_views.VIEWS,
    'data.train': {'TrainViews': TrainViews},
    'data.evals.*': {'EvaluatedViews': EvaluatedViews},
    'render': {
        'RenderSettings': RenderSettings,
        'srn': surfaces.SurfaceSettings,
        'dvr': surfaces.SurfaceSettings,
    },
    'loss': {'loss': named.combine_arguments(RadianceLoss, surfaces.SRNLoss, surfaces.DVRLoss)},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.model, config.render, config.loss and config.tx."""
    config = apply_form(config)
    settings = named.call(TrainViews, config.data.train, 'data.train')
    views = _load_views(config, settings.split, settings.views)
    make_task, make_evaluator = _system(config, views)
    if not config.render.get('name'):
        # A box of the model (a grid) bounds what it can represent, as the renderer's bounds what is sampled.
        box = (config.model.low, config.model.high) if 'low' in config.model and 'high' in config.model else None
        warn_if_rays_miss_box(views, named.call(RenderSettings, config.render, 'render'), box)
    train = ray_batches(
        views, config.data.batch_size, config.seed, _center(config), settings.crop_steps, settings.single_view
    )
    evals = {}
    for name in sorted(config.data.evals):
        spec = named.call(EvaluatedViews, config.data.evals[name], f'data.evals.{name}')
        held_out = _load_views(config, spec.split, spec.views, spec.source)
        # Their own camera casts their rays: they may be smaller than the pictures that are trained on.
        evals[name] = make_evaluator(make_task(held_out), held_out)
    about = dict(size=list(views.camera.size), views=len(views.images))
    return Experiment(make_task(views), config.tx, train, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded scene if its own would have to be at hand."""
    if config.data.name != 'traced':
        with config.unlocked():
            config.data.name, config.data.source = 'traced', dict(size=16)
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the rays of a batch: their colours, their pixels, and the positions and axes of their cameras."""
    pose = batch['pose']
    return {'rays': plots.draw_ray_batch(batch['colour'] / 255, batch['pixel'], pose[..., 3], -pose[..., 2])}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Renders an orbit around the scene as a GIF and an MP4.

    source: 'FRAMES' or 'FRAMESxSIZE', such as 60x200, with the longer side in pixels.
    """
    frames, side = parse_frames(source)
    config = apply_form(config)
    # All views of the split: they decide the orbit and the background, and none is drawn from.
    views = _load_views(config, config.data.train.get('split', 'train'))
    if side is not None:
        views = views._replace(camera=views.camera.scale(side / max(views.camera.size)))
    task = _system(config, views).make_task(views)  # that of the run has the camera of the pictures, not this size
    orbit = render_novel_views(task, params, mutable, views, frames, _center(config))
    height, width = views.camera.size
    text = f'{frames} frames of {width}x{height}'
    yield Prediction(files={'orbit.gif': orbit, 'orbit.mp4': orbit}, text=text)


def show(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Scene:
    """Returns the scene of a radiance field, or of a surface; there is no `source`."""
    config = apply_form(config)
    views = _load_views(config, config.data.train.get('split', 'train'))
    if config.render.get('name'):
        return task_scene(_system(config, views).make_task(views).predict, params, mutable, views)
    settings = named.call(RenderSettings, config.render, 'render')
    settings = resolve_background(settings, views, config.data.get('opaque', False))
    return radiance_scene(models.make_model(**config.model), params, settings, views, mutable.get('occupancy'))


def _load_views(
    config: ConfigDict, split: str, count: int | None = None, source: Mapping[str, Any] | None = None
) -> Views:
    """Loads config.data.name with config.data.path and config.data.source, which `source` overrides.

    count: views to keep, evenly spaced; None for all.
    """
    arguments = drop_placeholders({**named.to_plain(config.data.get('source', {})), **(source or {})})
    if config.data.get('path'):
        arguments['path'] = config.data.path
    views = scene_views.load_views(config.data.name, split, **arguments)
    return views if count is None else scene_views.take_evenly(views, count)


def _system(config: ConfigDict, views: Views) -> ViewSystem:
    model, loss = models.make_model(**config.model), config.get('loss', {})
    if config.render.get('name'):
        surface = named.call(surfaces.SurfaceSettings, config.render, 'render')
        weights = named.call(surfaces.SYSTEMS[surface.name][1], loss, 'loss')
        return surfaces.surface_system(model, views, surface, weights, _center(config))
    weights = named.call(RadianceLoss, loss, 'loss')
    settings = named.call(RenderSettings, config.render, 'render')
    return radiance_system(model, views, settings, weights, _center(config), config.data.get('opaque', False))


def _center(config: ConfigDict) -> float:
    return config.data.get('pixel_center', 0.5)
