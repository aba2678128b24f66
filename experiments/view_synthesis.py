"""View synthesis: NeRF and its successors, or a surface (SRN, DVR), trained on pictures of one scene.

`config.render.name` chooses a surface ('srn', 'dvr'); without it a radiance field is rendered. `config.forms`,
{name: some of the blocks model, render, loss and tx}, and `config.form` exchange those blocks, so that a sweep can
compare systems.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from canon import models, named
from canon.configuration import apply_form, drop_placeholders
from canon.data.scenes import views as scene_views
from canon.data.scenes.ray_batches import ray_batches
from canon.data.scenes.views import Views
from canon.errors import UsageError
from canon.rendering import RenderSettings
from canon.tasks import surfaces
from canon.tasks.predictions import Prediction
from canon.tasks.view_synthesis import (
    EvaluatedViews,
    RadianceLoss,
    TrainViews,
    radiance_field_task,
    render_novel_views,
    resolve_background,
    view_evaluator,
    warn_if_rays_miss_box,
)
from canon.train import Evaluator, Experiment, Task

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
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
    views = load_views(config, settings.split, settings.views)
    make_task, make_evaluator = build_system(config, views)
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
        held_out = load_views(config, spec.split, spec.views, spec.source)
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


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Renders an orbit around the scene as a GIF and an MP4.

    source: 'FRAMES' or 'FRAMESxSIZE', such as 60x200, with the longer side in pixels.
    """
    match = re.fullmatch(r'0*([1-9]\d*)(?:x(\d+))?', source)
    if match is None:
        raise UsageError(f'--input={source}: give the number of frames, optionally with a size: 60 or 60x200')
    frames, side = match.groups()
    config = apply_form(config)
    # All views of the split: they decide the orbit and the background, and none is drawn from.
    views = load_views(config, config.data.train.get('split', 'train'))
    if side:
        views = views._replace(camera=views.camera.scale(int(side) / max(views.camera.size)))
    task = build_system(config, views)[0](views)  # that of the run has the camera of the pictures, not this size
    orbit = render_novel_views(task, params, mutable, views, int(frames), _center(config))
    height, width = views.camera.size
    text = f'{frames} frames of {width}x{height}'
    yield Prediction(files={'orbit.gif': orbit, 'orbit.mp4': orbit}, text=text)


def build_system(
    config: ConfigDict, views: Views
) -> tuple[Callable[[Views], Task], Callable[[Task, Views], Evaluator]]:
    """Returns functions that make the task, and the evaluator of a task, of any views of a scene.

    views: those that are trained on; whether they have alpha settles the background.
    """
    model, loss, center = models.make_model(**config.model), config.get('loss', {}), _center(config)
    if config.render.get('name'):
        surface = named.call(surfaces.SurfaceSettings, config.render, 'render')
        surfaces.check_alpha(views, surface)
        make_surface_task, weights_class = surfaces.SYSTEMS[surface.name]
        weights = named.call(weights_class, loss, 'loss')
        return (
            lambda views: make_surface_task(model, views, surface, weights),
            lambda task, views: surfaces.surface_evaluator(task, views, surface, center),
        )
    weights = named.call(RadianceLoss, loss, 'loss')
    settings = named.call(RenderSettings, config.render, 'render')
    settings = resolve_background(settings, views, config.data.get('opaque', False))
    return (
        lambda views: radiance_field_task(model, views, settings, weights),
        lambda task, views: view_evaluator(task, views, settings.background, center),
    )


def load_views(
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


def _center(config: ConfigDict) -> float:
    return config.data.get('pixel_center', 0.5)
