"""Binds a config to object detection: a detector of any kind on any source of images with boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import models, named, plots, weights
from canon.configuration.nested import apply_form
from canon.data.detection.object_batches import ObjectPipeline, ObjectSettings, ProposalSettings, describe_objects
from canon.data.images.videos import open_files
from canon.tasks import detection as tasks
from canon.tasks.classification import make_image_input
from canon.tasks.image_settings import TrainImages, reading_options
from canon.tasks.predictions import Prediction, report_skipped
from canon.train import Evaluator, Experiment
from canon.weights.stablehlo import Served, serve_images
from experiments import images, regions

# What systems take from sections of their own, and what they are given besides.
_SHARED: dict[str, tuple[str, type]] = {
    'settings': ('detect', tasks.DetectionSettings),
    'rpn': ('rpn', tasks.RPNSettings),
    'regions': ('regions', tasks.RegionSettings),
}
_BOUND = ('model', 'make_input', *_SHARED)

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_image_input': make_image_input},
    'system': {name: named.combine_arguments(make, without=_BOUND) for name, make in tasks.SYSTEMS.items()},
    **{section: {kind.__name__: kind} for section, kind in _SHARED.values()},
    'predict': {'PictureSettings': tasks.PictureSettings},
    'data.objects': {'ObjectSettings': ObjectSettings},
    'data.proposals': {'ProposalSettings': ProposalSettings},
    'proposals': regions.PROPOSALS,
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'DetectionEvaluation': tasks.DetectionEvaluation},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.system, config.detect and config.tx."""
    return make_stage(config, {})


def make_stage(config: ConfigDict, stages: Mapping[str, Path]) -> Experiment:
    """Makes the experiment of a stage, which may read the proposals of an earlier one: config.data.proposals."""
    config = apply_form(config)
    settings, pipeline = named.call(TrainImages, config.data.train, 'data.train'), _pipeline(config)
    source = pipeline.prepare(images.load_images(config, settings.split), stages, 'train')
    shape = pipeline.infer_shape(source, settings.transforms, 'data.train')
    experiment, model = _bind(config, pipeline, {**describe_objects(source), 'image_shape': shape})
    train = pipeline.make_training(source, settings.transforms, 'data.train', config.seed, settings.sampler)
    bound = config, pipeline, stages, experiment, model
    evals = {name: _evaluator(*bound, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    config = apply_form(config)
    return _bind(config, _pipeline(config), about)[0]


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded scenes of digits, where its own data would have to be downloaded.

    Proposals that a stage would compute are sliding windows there.
    """
    with config.unlocked():
        images.take_digit_scenes(config, tasks.count_classes(config.system.name, 10), num_examples=64)
        if config.data.get('proposals'):
            config.data.proposals.stage, config.proposals = None, dict(name='sliding_windows')
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch with their boxes, and with their proposals if there are any."""
    names = tasks.name_images(experiment.train)
    return {'images': plots.draw_object_batch(batch, experiment.about['class_names'], names=names)}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Detects the objects of every image of a folder (or of one image, a video or a camera).

    Images go through the transforms of the first evaluator.

    See `canon.tasks.detection.predict_files` for what is written.
    """
    transforms, about = make_prediction_transforms(config, experiment.about), experiment.about
    model, files = (experiment.task.predict, params, mutable), open_files(source)
    names = about['class_names'], _pictures(config), about.get('category_ids')
    predictions = tasks.predict_files(*model, files, transforms, config.data.batch_size, *names)
    return report_skipped(predictions, files)


def make_prediction_transforms(config: ConfigDict, about: Mapping[str, Any]) -> Any:
    """Makes the transforms of images that are predicted: those of the first evaluator."""
    first = min(config.data.evals, default=None)
    spec = {} if first is None else config.data.evals[first].get('transforms')
    # Transforms whose size is that of the batch take the size of training.
    where, size = f'data.evals.{first}.transforms', tuple(about['image_shape'][:2])
    return _pipeline(config).make_image_transforms(spec, where, size)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> float32 [b, D, 6], as `pack_detections` has them."""
    shape, names = experiment.about['image_shape'], list(experiment.about['class_names'])
    # One array, since a served function has one output: the columns are named next to it.
    columns = ['x0', 'y0', 'x1', 'y1', 'score', 'label']
    served = serve_images(experiment.task.predict, shape, tasks.pack_detections, class_names=names, columns=columns)
    return served._replace(compare=tasks.compare_packed)


def _bind(config: ConfigDict, pipeline: ObjectPipeline, about: Mapping[str, Any]) -> tuple[Experiment, Any]:
    """Returns the experiment on zeros in place of its data, and its model."""
    _pictures(config)  # checked before a run that is to predict with it
    arguments = named.to_plain(config.system)
    name, bound = arguments.pop('name', None), {}
    if name in tasks.SYSTEMS:
        tasks.check_num_classes(name, config.model.num_classes, about['class_names'])
    bound['model'] = model = models.make_model(**named.to_plain(config.model))
    bound['make_input'] = named.call(make_image_input, config.input, 'input')
    for key in _SHARED:
        bound[key] = _shared_settings(config, key)
    task = tasks.make_system(name, arguments, bound)
    read = weights.detector_reader(config.model.name, named.to_plain(config.model).get('backbone'))
    train = images.placeholder_data(config, about, **pipeline.make_zeros())
    return Experiment(task, config.tx, train, about=about, read=read), model


def _evaluator(
    config: ConfigDict,
    pipeline: ObjectPipeline,
    stages: Mapping[str, Path],
    experiment: Experiment,
    model: Any,
    name: str,
) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.DetectionEvaluation, config.data.evals[name], where)
    # Its transforms are made below, for each size of batches.
    source, _ = images.load_held_out(config, replace(settings, transforms=None), where, images.load_images)
    batches = pipeline.make_evaluation(pipeline.prepare(source, stages, name), settings.transforms, where)
    measured = experiment.task.predict, batches, experiment.about['class_names'], settings
    # The IoU from which anchors and priors learn an object.
    anchors = hasattr(model, 'anchors')
    threshold = _shared_settings(config, 'rpn').foreground if anchors else config.system.get('threshold', 0.5)
    return tasks.make_evaluator(config.system.name, *measured, tasks.find_priors(model), threshold)


def _pipeline(config: ConfigDict) -> ObjectPipeline:
    reading = images.reading(config)
    named.check(named.to_plain(reading['batch_size']), named.Count, 'data.batch_size')
    objects = named.call(ObjectSettings, config.data.objects, 'data.objects')
    proposals = config.data.get('proposals')
    proposals = named.call(ProposalSettings, proposals, 'data.proposals') if proposals else None
    search = regions.bind_proposer(config)[0] if config.get('proposals') else None
    batch_size, sizes = reading.pop('batch_size'), images.batch_sizes(config)
    return ObjectPipeline(batch_size, objects, proposals, search, sizes, reading)


def _shared_settings(config: ConfigDict, key: str) -> Any:
    """Returns the settings of a key of `_SHARED`, from the section of the config that has them."""
    section, kind = _SHARED[key]
    return named.call(kind, config.get(section, {}), section)


def _pictures(config: ConfigDict) -> tasks.PictureSettings:
    return named.call(tasks.PictureSettings, config.get('predict', {}), 'predict')
