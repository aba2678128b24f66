"""Neural shapes: fields whose zero level set is a surface, by DeepSDF, IGR or occupancy networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import models, named, plots
from canon.configuration import join_arguments
from canon.data.scenes import meshes, shapes
from canon.errors import UsageError
from canon.named import Count
from canon.rendering.interactive import Scene
from canon.tasks.predictions import Prediction
from canon.tasks.shapes import (
    SYSTEMS,
    ExtractionSettings,
    ShapeEvaluation,
    ShapeSystem,
    observe_source,
    reconstruct,
    shape_evaluator,
    shape_scene,
)
from canon.train import Experiment

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'system': SYSTEMS,
    'data.family': {'make_bodies': shapes.make_bodies},
    'data.evals.*': {'ShapeEvaluation': ShapeEvaluation},
    'extract': {'ExtractionSettings': ExtractionSettings},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.model, config.system and config.tx.

    Files are found here and read when they are first used, so that evaluating reads no training mesh.
    """
    train = _load_shapes(config, config.data.train.split)
    # What `without_data` needs: the number of codes, and the one shape that IGR knows.
    about = dict(shapes=len(train), first_shape=train[0].name)
    system = _system(config, about)
    # Checked before the first step, all of them: the first open mesh may otherwise be drawn after an hour.
    known = [(train, f'{config.system.name} learns from insides')]
    evals = {}
    for name in sorted(config.data.evals):
        settings = named.call(ShapeEvaluation, config.data.evals[name], f'data.evals.{name}')
        held_out = _load_shapes(config, settings.split)[: settings.count]
        known.append((held_out, f'data.evals.{name}: {config.system.name} is measured by insides'))
        evals[name] = shape_evaluator(system, held_out, settings, system.needs_inside or None)
    batches = system.batches(train, config.seed)
    if system.needs_inside:
        batches.check = lambda: [shapes.require_watertight(*group) for group in known]
    return Experiment(system.task, config.tx, batches, evals, about=about)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict."""
    system = _system(config, about)
    return Experiment(system.task, config.tx, system.batches([], config.seed), about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on synthetic bodies, with small pools of samples, where its own meshes may not be at hand."""
    with config.unlocked():
        config.data.path = None
        if config.system.get('pool'):
            config.system.pool = min(config.system.pool, 10_000)
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the points of a batch: with their distances, with their normals as colours, or the cloud and the inside."""
    if 'normals' in batch:
        return {
            'points': plots.draw_point_batch(
                {'points, normals as colours': (batch['points'], batch['normals'] / 2 + 0.5)}
            )
        }
    clouds = {}
    for i in range(min(3, len(batch['points']))):
        if 'cloud' in batch:
            clouds[f'{i}: cloud that the encoder sees'] = (batch['cloud'][i], None)
        known = 'distance' if 'distance' in batch else 'inside'
        values = batch['distance'][i] if known == 'distance' else 1.0 - 2 * batch['inside'][i]
        clouds[f'{i}: points, {known}'] = (batch['points'][i], values)
    return {'points': plots.draw_point_batch(clouds)}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Reconstructs the mesh of one shape: NAME.ply, .obj and .glb in the units of the source.

    source: a mesh; points of a surface (.npy, .npz, .xyz, .ply; with normals for DeepSDF); or a shape of the config's
    data, such as test:3.
    """
    system = _system(config, experiment.about)
    observation = observe_source(system, source, partial(_load_shapes, config), config.data.space)
    mesh, iou = reconstruct(system, params, mutable, observation, _extraction(config))
    names = [f'{observation.name}{extension}' for extension in meshes.WRITTEN]
    files = {name: meshes.encode_mesh(mesh, name) for name in names}
    measured = '' if iou is None else f'; IoU {iou:.4f}'
    yield Prediction(files=files, text=f'{len(mesh.vertices)} vertices, {len(mesh.faces)} faces{measured}')


def show(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Scene:
    """Returns the surface of one shape; source as in `predict`, test:0 by default."""
    system = _system(config, experiment.about)
    observation = observe_source(system, source or 'test:0', partial(_load_shapes, config), config.data.space)
    return shape_scene(system, params, mutable, observation)


def _load_shapes(config: ConfigDict, split: str) -> list[shapes.Shape]:
    bound = dict(path=config.data.path, split=split, space=config.data.space)
    return named.call(
        shapes.load_shapes, join_arguments(bound, config.data.get('family', {}), 'data.family'), 'data.family'
    )


def _system(config: ConfigDict, about: Mapping[str, Any]) -> ShapeSystem:
    """Makes the method that config.system names, from its arguments and the number of shapes."""
    _extraction(config)  # checks it before the first step
    named.check(config.data.batch_size, Count, 'data.batch_size')
    arguments = named.to_plain(config.system)
    name = arguments.pop('name', None)
    if name not in SYSTEMS:
        raise UsageError(
            f'no method of learning shapes is called system.name={name!r}{named.suggest(str(name), SYSTEMS)}'
        )
    bound = dict(
        model=models.make_model(**config.model),
        num_shapes=about['shapes'],
        batch_size=config.data.batch_size,
        shape_name=about['first_shape'],
    )
    # Methods differ in what they need: IGR has one shape, and its name; the others have their number.
    bound = {key: value for key, value in bound.items() if named.accepts(SYSTEMS[name], key)}
    return named.call(SYSTEMS[name], join_arguments(bound, arguments, 'system'), 'system')


def _extraction(config: ConfigDict) -> ExtractionSettings:
    return named.call(ExtractionSettings, config.get('extract', {}), 'extract')
