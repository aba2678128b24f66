"""Binds a config to object detection: SSD or YOLO on any source of images with boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named, weights
from canon.configuration.nested import apply_form
from canon.data.detection.annotations import check_most
from canon.data.detection.sized_batches import SizedBatches, evaluate_by_size, fill_size
from canon.data.images.checks import infer_image_shape
from canon.errors import UsageError
from canon.tasks import detection as tasks
from canon.tasks.classification import make_image_input
from canon.tasks.image_settings import TrainImages, reading_options
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Experiment, Task
from canon.weights import ssd
from canon.weights.stablehlo import Served
from experiments import images

_BOUND = ('model', 'make_input', 'settings')  # arguments of a system that other sections of a config make

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'input': {'make_image_input': make_image_input},
    'system': {name: named.combine_arguments(make, without=_BOUND) for name, make in tasks.SYSTEMS.items()},
    'detect': {'DetectionSettings': tasks.DetectionSettings},
    'predict': {'PictureSettings': tasks.PictureSettings},
    'data.objects': {'ObjectSettings': tasks.ObjectSettings},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'DetectionEvaluation': tasks.DetectionEvaluation},
    'data.reading': {'reading_options': reading_options},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.system, config.detect and config.tx."""
    config = apply_form(config)
    named.check(named.to_plain(config.data.batch_size), named.Count, 'data.batch_size')
    settings, where = named.call(TrainImages, config.data.train, 'data.train'), 'data.train.transforms'
    source, sizes = _load(config, settings.split), _sizes(config)

    def transforms(size=None):
        return _transforms(config, settings.transforms, where, size)

    shape = infer_image_shape(source, transforms(*sizes[:1]), 'data.train')
    # Sources with only a number of classes name them by their labels.
    names = source.info.class_names or tuple(map(str, range(source.info.num_classes or 0)))
    about: dict[str, Any] = dict(class_names=names, image_shape=shape, num_examples=len(source))
    about['category_ids'] = list(getattr(source, 'category_ids', ())) or None  # COCO's, which have gaps
    experiment = without_data(config, about)
    if sizes:
        train = SizedBatches(
            source, sizes=sizes, make_transforms=transforms, seed=config.seed, **images.reading(config)
        )
    else:
        options = dict(seed=config.seed, sampler=settings.sampler, transforms=transforms())
        train = data.Batches(source, **options, **images.reading(config))
    evals = {name: _evaluator(config, experiment, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    config = apply_form(config)
    _pictures(config)  # checked before a run that is to predict with it
    shape = config.data.batch_size, _objects(config).most
    flags = {name: np.zeros(shape, bool) for name in ('difficult', 'crowd', 'valid')}
    # The fields that `pad_boxes` makes, in the shapes that the loss is compiled for.
    objects = dict(boxes=np.zeros((*shape, 4), np.float32), labels=np.zeros(shape, np.int32), **flags)
    train = images.placeholder_data(config, about, **objects)
    return Experiment(_task(config, about), config.tx, train, about=about, read=_reader(config.model))


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded scenes of digits where its own data would have to be downloaded."""
    if config.data.name != 'digit_scenes':
        # SSD counts the background as a class.
        extra = 1 if config.system.name == 'ssd' else 0
        with config.unlocked():
            config.data.name = 'digit_scenes'
            config.data.source = dict(num_examples=64)
            config.data.train.split, config.model.num_classes = 'train', 10 + extra
            for settings in config.data.evals.values():
                settings.split = 'test'
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Detects the objects of every image of a folder (or of one image), after the transforms of the first evaluator.

    See `canon.tasks.detection.predict_files` for what is written.
    """
    settings = _pictures(config)
    first = min(config.data.evals, default=None)
    spec = fill_size({} if first is None else config.data.evals[first].get('transforms'), _predicted_size(experiment))
    transforms = data.transforms.make_transforms(spec, f'data.evals.{first}.transforms')
    files, names = data.image_files.Files(source), experiment.about['class_names']
    # The sizes of the files are recorded before the transforms: boxes are mapped back to them.
    chain = (data.transforms.record_placement(), *transforms)
    batches = data.Once(files, config.data.batch_size, chain, memory_limit=0).iterate()
    found = tasks.detect_images(experiment.task.predict, params, mutable, batches, settings.min_score)
    return tasks.predict_files(files, found, names, settings, experiment.about.get('category_ids'))


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> float32 [b, D, 6], as `pack_detections` has them."""

    def detections(params, mutable, images):
        return tasks.pack_detections(experiment.task.predict(params, mutable, {'image': images}))

    # One array, since a served function has one output: the columns are named next to it.
    shape, names = experiment.about['image_shape'], experiment.about['class_names']
    columns = ['x0', 'y0', 'x1', 'y1', 'score', 'label']
    return Served(detections, tuple(shape), 'uint8', {'class_names': list(names), 'columns': columns})


def _task(config: ConfigDict, about: Mapping[str, Any]) -> Task:
    arguments = named.to_plain(config.system)
    name = arguments.pop('name', None)
    if name not in tasks.SYSTEMS:
        raise UsageError(f'no detector is called system.name={name!r}{named.suggest(str(name), tasks.SYSTEMS)}')
    tasks.check_num_classes(name, config.model.num_classes, about['class_names'])
    model = models.make_model(**named.to_plain(config.model))
    settings = named.call(tasks.DetectionSettings, config.get('detect', {}), 'detect')
    bound = dict(model=model, make_input=named.call(make_image_input, config.input, 'input'), settings=settings)
    return named.call(tasks.SYSTEMS[name], {**bound, **arguments}, 'system')


def _pictures(config: ConfigDict) -> tasks.PictureSettings:
    return named.call(tasks.PictureSettings, config.get('predict', {}), 'predict')


def _predicted_size(experiment: Experiment) -> tuple[int, int]:
    """Returns the (height, width) of training, for transforms whose size is that of the batch."""
    height, width, _ = experiment.about['image_shape']
    return height, width


def _reader(model: ConfigDict) -> Callable:
    """Returns the function that reads published weights: of SSD300, or of a classifier for the backbone."""
    if model.name in ssd.MODELS:
        return ssd.ssd_reader(model.name)
    backbone = model.get('backbone', {}).get('name')
    # A detector of any backbone has no published weights; its backbone may have those of a classifier.
    return weights.reader(model.name) if backbone is None else weights.reader(backbone, at='backbone')


def _objects(config: ConfigDict) -> tasks.ObjectSettings:
    return named.call(tasks.ObjectSettings, config.data.objects, 'data.objects')


def _sizes(config: ConfigDict) -> tuple[tuple[int, int], ...]:
    return tuple(tuple(size) for size in named.to_plain(config.data.get('sizes')) or ())


def _load(config: ConfigDict, split: str) -> data.Source:
    source = images.load_images(config, split)
    objects = _objects(config)
    if objects.overflow == 'error':
        check_most(source, objects.most, 'data.objects.most')
    return source


def _transforms(config: ConfigDict, spec: Mapping[str, Any] | None, where: str, size=None) -> tuple:
    """Makes a chain that gives images of a size, if batches have several, and pads their objects to a fixed number."""
    filled = spec if size is None else fill_size(spec, size)
    objects = _objects(config)
    return (
        *data.transforms.make_transforms(filled, where),
        data.transforms.pad_boxes(objects.most, overflow=objects.overflow),
    )


def _evaluator(config: ConfigDict, experiment: Experiment, name: str) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.DetectionEvaluation, config.data.evals[name], where)
    # Its transforms are made below, for each size of batches.
    source, _ = images.load_held_out(config, replace(settings, transforms=None), where, _load)

    def transforms(size=None):
        return _transforms(config, settings.transforms, f'{where}.transforms', size)

    sizes = _sizes(config)
    if sizes:
        batches = evaluate_by_size(source, sizes=sizes, make_transforms=transforms, **images.reading(config))
    else:
        batches = data.Once(source, transforms=transforms(), **images.reading(config))
    names = experiment.about['class_names']
    model = models.make_model(**named.to_plain(config.model))
    draw = tasks.make_draw(batches, names, settings, getattr(model, 'priors', None))
    return tasks.detection_evaluator(experiment.task.predict, batches, names, settings, draw)
