"""Binds a config to domain adaptation or generalisation: any method on any set of domains, with honest selection.

A run is one training, or a stage of one (`experiments/staged.py`): ADDA begins from a network of the source. The row of
the last step, the choice of each rule and the oracle is among the run's final metrics, 'summary/RULE'.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import backend, data, models, named, plots
from canon.configuration import drop_placeholders
from canon.data import domains
from canon.data.images.checks import infer_image_shape
from canon.errors import UsageError
from canon.tasks import adaptation as tasks
from canon.tasks.adaptation import pictures
from canon.tasks.adaptation.methods import SHOWN
from canon.tasks.classification import class_names, classification_evaluator, make_image_input
from canon.tasks.image_settings import TrainImages, reading_options
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Experiment
from canon.train.init_from import init_from
from canon.train.settings import InitFrom
from canon.train.step import init_state
from canon.weights.stablehlo import Served, serve_images
from experiments import images, sequences

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': domains.DOMAIN_SETS,
    'data.domains': {'DomainRoles': tasks.DomainRoles},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'DomainEvaluation': tasks.DomainEvaluation},
    'data.reading': {'reading_options': reading_options},
    'input': {'make_image_input': make_image_input},
    'data.weights': tasks.RATIOS,
    'data.features': {'RatioFeatures': tasks.RatioFeatures},
    'method': tasks.METHODS,
}
EMBEDDED = ('digit_styles', 'rotated_digits', 'coloured_digits', 'label_shifted_digits', 'hog_digits')
SOURCES = 'sources'  # as the domain of an evaluation: all of them

Load = Callable[[str], domains.Domains]  # split -> its domains


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.method and config.tx."""
    return make_stage(config, {})


def make_stage(config: ConfigDict, stages: Mapping[str, Path] | None) -> Experiment:
    """Makes the experiment of a stage, whose figures compare it with the stage that it begins from."""
    settings = named.call(TrainImages, config.data.train, 'data.train')
    roles = named.call(tasks.DomainRoles, config.data.domains, 'data.domains')
    transforms = _make_transforms(settings.transforms, 'data.train.transforms')
    load = functools.cache(functools.partial(load_domains, config))  # evaluators share splits
    training = load(settings.split)
    labelled, unlabelled = tasks.assign_roles(training, roles, config.seed)
    labelled = _weigh_sources(config, labelled, training[roles.target], stages or {})
    first = next(iter(labelled.values()))
    shape = infer_image_shape(first, transforms, 'data.train')
    about = dict(class_names=class_names(first, config.model.num_classes), image_shape=shape, num_examples=len(first))
    experiment = without_data(config, about)
    options = images.reading(config)
    batch_size = options.pop('batch_size')
    train = domains.make_domain_batches(
        *(labelled, unlabelled, batch_size, config.seed, transforms),
        paired=roles.paired,
        sampler=settings.sampler,
        **options,
    )
    experiment = experiment._replace(train=train)
    add_pictures = functools.partial(_add_pictures, config, experiment, stages or {}, labelled)
    evals = {}
    for name in sorted(config.data.evals):
        where = f'data.evals.{name}'
        evaluation = named.call(tasks.DomainEvaluation, config.data.evals[name], where)
        evaluator = _make_evaluator(config, experiment, load, add_pictures, roles, evaluation, where)
        evals[name] = evaluator if evaluation.figures else evaluator._replace(draw=None)
    return experiment._replace(evals=evals, summarise=pictures.summarise_selection)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to predict and to export."""
    parts = (*_make_network(config), tasks.make_method(**named.to_plain(config.method)))
    part = images.placeholder_data(config, about, label=np.zeros(config.data.batch_size, np.int64))
    hidden = images.placeholder_data(config, about)
    # Names do not matter to the parameters, only that there is a second domain.
    train = data.Zipped({'source': part, 'target': hidden})
    make_step = tasks.adaptation_step(*parts)  # of methods whose players move in turns
    return Experiment(tasks.adaptation_task(*parts), config.tx, train, make_step=make_step, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on digits that need no file where its own domains would have to be read from some."""
    source = drop_placeholders(config.data.source)
    embedded = 'path' not in source and config.data.name in EMBEDDED
    if embedded and 'mnist_5k' not in str(source):
        return config
    with config.unlocked():
        if embedded and 'style' in source:
            config.data.source.style = 'uci'
            return config
        config.data.name, config.data.source = 'digit_styles', dict(styles=('rendered', 'uci'), size=16)
        config.data.domains.update(dict(sources=('rendered',), target='uci'))
        for evaluation in config.data.evals.values():
            evaluation.domain = None
        config.input, config.model.num_classes = dict(mean=(0.3,), std=(0.35,)), 10
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of every domain; those of the target have no classes."""
    names = experiment.about['class_names']
    return {domain: plots.draw_image_batch(part, names, title=domain) for domain, part in batch.items()}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Classifies every image of a folder (or one image), resized to the images of training if no transform does it."""
    transforms = images.first_settings(config, tasks.DomainEvaluation)[1]
    height, width, _ = experiment.about['image_shape']
    fitted = transforms or [data.transforms.resize((height, width))]
    return images.classify_files(source, {}, config, experiment, experiment.task.predict, params, mutable, fitted)


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """Returns the exported function: uint8 images [b, H, W, C] -> probabilities float32 [b, num_classes]."""
    shape, names = experiment.about['image_shape'], list(experiment.about['class_names'])
    return serve_images(experiment.task.predict, shape, jax.nn.softmax, class_names=names)


def load_domains(config: ConfigDict, split: str) -> domains.Domains:
    """Returns a split of config.data.name with the arguments of config.data.source."""
    arguments = drop_placeholders(config.data.get('source', {}))
    function = domains.DOMAIN_SETS.find(config.data.name, 'data.name')
    if named.accepts(function, 'path') and 'path' not in arguments:
        raise UsageError(f'data {config.data.name!r} is read from files: give --config.data.source.path=FOLDER')
    return domains.load_domains(config.data.name, split, **arguments)


def list_images(config: ConfigDict, source: data.Source) -> Iterator[Any]:
    """Yields the images of a source in order, as they are evaluated and without any other field."""
    transforms = images.first_settings(config, tasks.DomainEvaluation)[1]
    return data.Once(domains.Unlabelled(source), transforms=transforms, **images.reading(config)).iterate()


def _make_transforms(spec: Any, where: str) -> tuple[data.Transform, ...]:
    return tuple(data.transforms.make_transforms(spec, where))


def _make_evaluator(
    config: ConfigDict,
    experiment: Experiment,
    load: Load,
    add_pictures: Callable,
    roles: tasks.DomainRoles,
    settings: tasks.DomainEvaluation,
    where: str,
) -> Evaluator:
    transforms = _make_transforms(settings.transforms, f'{where}.transforms')
    options, network = images.reading(config), _make_network(config)
    method = tasks.make_method(**named.to_plain(config.method))
    if settings.rules:
        train = config.data.train.split
        domains.check_selection_split(train, settings.split)
        held_out, hidden = load(settings.split), load(train)[roles.target]
        sources = roles.sources if settings.domain is None else (settings.domain,)
        source = tasks.join_for_rules([held_out[s] for s in sources], hidden, settings.most)
        batches = data.Once(source, transforms=transforms, **options)
        return add_pictures(tasks.rules_evaluator(network, batches, method), settings.embedding)
    chosen = roles.sources if settings.domain == SOURCES else (settings.domain or roles.target,)
    read = load(settings.split)
    parts = [data.Once(read[domain], transforms=transforms, **options) for domain in chosen]
    batches = parts[0] if len(parts) == 1 else data.Concatenated(parts)
    # Methods with batch normalisation may keep statistics of the sources and of the target.
    predict = tasks.make_predict(*network, method, of_source=set(chosen) <= set(roles.sources))
    return classification_evaluator(predict, batches, experiment.about['class_names'])


def _make_network(config: ConfigDict) -> tuple[Any, Any]:
    """Returns the network, and the function from a batch to its input."""
    network = models.make_model(**named.to_plain(config.model))
    return network, named.call(make_image_input, config.input, 'input')


def _add_pictures(
    config: ConfigDict,
    experiment: Experiment,
    stages: Mapping[str, Path],
    labelled: Mapping[str, data.Source],
    evaluator: Evaluator,
    embedding: pictures.Embedding,
) -> Evaluator:
    """Adds the figures of a run to its evaluator of rules."""
    start = functools.partial(_read_start, config, experiment, stages)
    return pictures.add_pictures(evaluator, start, embedding, labelled)


def _read_start(config: ConfigDict, experiment: Experiment, stages: Mapping[str, Path]) -> tuple[Any, Any]:
    """Returns (params, mutable) from which training began: those of the seed, or of the run that it begins from."""
    state = init_state(experiment.task, optax.identity(), config.seed, experiment.train[0])
    given = drop_placeholders(named.to_plain(config.run).get('init_from') or {})
    stage = given.pop('stage', None)
    if stage is not None:
        given['path'] = str(stages[stage])
    if 'path' in given:
        state = init_from(state, InitFrom(**given))
    return state.params, state.mutable


def _weigh_sources(
    config: ConfigDict,
    labelled: Mapping[str, data.Source],
    target: data.Source,
    stages: Mapping[str, Path],
) -> Mapping[str, data.Source]:
    """Returns the labelled domains, their examples weighted by config.data.weights if there is such a section.

    The labelled few of the target keep their weight: they are of the target.
    """
    if 'weights' not in config.data:
        return labelled
    estimate = tasks.make_ratio(**named.to_plain(config.data.weights))
    given = named.to_plain(config.data.get('features', {}))
    settings = named.call(tasks.RatioFeatures, given, 'data.features')
    located = {key: value for key, value in given.items() if key in ('run', 'stage')}
    folder = sequences.find_run(located, stages, 'data.features')
    compute = tasks.read_pixels if folder is None else _make_compute(config, folder)
    return {
        name: source if name == SHOWN else tasks.weigh_source(source, target, estimate, compute, settings.dimensions)
        for name, source in labelled.items()
    }


def _make_compute(config: ConfigDict, folder: Path) -> Callable[[data.Source], tasks.ModelOutputs]:
    """Returns the function from a source to the outputs of the network that a run has trained, for its examples."""
    own, _, params, mutable = sequences.read_run(folder, 'adaptation', 'data.features')
    encode = backend.jit(tasks.make_encoder(*_make_network(own), tasks.make_method(**named.to_plain(own.method))))

    def compute(source):
        batches = list_images(config, source)
        return tasks.collect_outputs(lambda batch: encode(params, mutable, {'image': batch['image']}), batches)

    return compute
