"""Inverse volume rendering: a volume, or its transfer function, recovered from pictures of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, plots
from canon.data.scenes import traced, volumes
from canon.errors import UsageError
from canon.named import Count
from canon.rendering.interactive import Scene, volume_scene
from canon.rendering.volumes import MODES, RayCastingSettings, table_to_points
from canon.tasks.predictions import Prediction
from canon.tasks.volume_rendering import (
    HeldOutViews,
    RecoveryLoss,
    RecoverySettings,
    TrueVolume,
    draw_volume,
    pixel_batches,
    recovery_evaluator,
    recovery_task,
    resolve_parts,
)
from canon.train import Experiment

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': volumes.VOLUMES,
    'render': {'RayCastingSettings': RayCastingSettings},
    'model': {'RecoverySettings': RecoverySettings},
    'loss': {'RecoveryLoss': RecoveryLoss},
    'data.evals.*': {'HeldOutViews': HeldOutViews},
}
FILE_KEYS = ('shape', 'dtype', 'spacing', 'frame', 'fill')  # of config.data, for volumes of files


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.model, config.render, config.loss and config.tx."""
    settings = _settings(config)
    recovery = named.call(RecoverySettings, config.model, 'model')
    # Maxima and lit surfaces have no gradient in most voxels.
    if settings.mode not in ('xray', 'emission'):
        raise UsageError(f'render.mode={settings.mode!r} cannot be learned from; xray and emission can')
    if settings.mode == 'xray' and 'table' in recovery.learn:
        raise UsageError("model.learn has 'table', and X-rays have no transfer function: set render.mode=emission")
    data = config.data
    for key in ('views', 'picture', 'batch_size'):
        named.check(data[key], Count, f'data.{key}')
    fine = data.get('fine', 2)
    named.check(fine, Count, 'data.fine')
    # The pictures are rendered more finely than they are fitted, or the model would be given its own errors.
    truth, camera = TrueVolume(_load(config), settings, fine), traced.pinhole_camera(data.picture)
    train = pixel_batches(truth, camera, data.views, data.batch_size, config.seed)
    task = recovery_task(truth, recovery, named.call(RecoveryLoss, config.get('loss', {}), 'loss'))
    evals = {}
    for name in sorted(data.evals):
        held_out = named.call(HeldOutViews, data.evals[name], f'data.evals.{name}')
        evals[name] = recovery_evaluator(task, truth, camera, held_out, config.seed)
    about = dict(size=list(truth.values.shape), views=data.views)
    return Experiment(task, config.tx, train, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on a small phantom where its volume is a file that may not be at hand."""
    if config.data.get('path'):
        with config.unlocked():
            config.data.path, config.data.name, config.data.source = None, 'shepp_logan', dict(size=8)
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the rays of a batch."""
    return {'rays': plots.draw_ray_batch(batch['colour'], None, batch['origin'], batch['direction'])}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Draws a volume in all modes and on an orbit: of a file, or the recovered one (--input=learnt)."""
    truth = TrueVolume(_load(config), _settings(config))
    values, table = (np.asarray(x) for x in resolve_parts(params, truth))
    if source == 'learnt':
        files, summary = draw_volume(values, truth.half, table, name='learnt')
    else:
        volume = _load(config, source)
        # A known table belongs to the config's own volume, a learned one is what the run has to give.
        files, summary = draw_volume(volume.scaled, volume.half, table if 'table' in params else None, name=volume.name)
    yield Prediction(files=files, text=summary)


def show(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Scene:
    """Returns the recovered volume as a scene, or that of a file with the recovered transfer function."""
    truth = TrueVolume(_load(config), _settings(config))
    values, table = (np.asarray(x) for x in resolve_parts(params, truth))
    if source not in ('', 'learnt'):
        volume = _load(config, source)
        values, half = volume.scaled, volume.half
    else:
        half = truth.half
    points = table_to_points(table) if 'table' in params else truth.settings.table
    mode = truth.settings.mode  # the one that was learnt is shown first
    modes = (mode, *(other for other in MODES if other != mode))
    return volume_scene(np.clip(values, 0, 1), half, points, modes=modes)


def _settings(config: ConfigDict) -> RayCastingSettings:
    return named.call(RayCastingSettings, config.get('render', {}), 'render')


def _load(config: ConfigDict, path: str | None = None) -> volumes.Volume:
    """Loads the volume of config.data, or another file with its shape, dtype, spacing, frame and fill."""
    path = config.data.get('path') if path is None else path
    if path == '':
        raise UsageError('the path of a volume is empty; name a file, or leave data.path None for data.name')
    if path is None:
        return volumes.load_volume(config.data.name, **named.to_plain(config.data.get('source', {})))
    options = {key: config.data[key] for key in FILE_KEYS if config.data.get(key) is not None}
    return volumes.load_volume('read_volume', path=path, **named.to_plain(options))
