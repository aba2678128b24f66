"""Binds a config to domain adaptation or generalisation: any method on any set of domains, with honest selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, models, named
from canon.configuration import drop_placeholders
from canon.data import domains
from canon.data.images.checks import infer_image_shape
from canon.tasks import adaptation as tasks
from canon.tasks.classification import class_names, classification_evaluator, make_image_input
from canon.tasks.image_settings import TrainImages, reading_options
from canon.train import Evaluator, Experiment
from experiments import images

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': domains.DOMAIN_SETS,
    'data.domains': {'DomainRoles': tasks.DomainRoles},
    'data.train': {'TrainImages': TrainImages},
    'data.evals.*': {'DomainEvaluation': tasks.DomainEvaluation},
    'data.reading': {'reading_options': reading_options},
    'input': {'make_image_input': make_image_input},
    'method': tasks.METHODS,
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.input, config.model, config.method and config.tx."""
    settings = named.call(TrainImages, config.data.train, 'data.train')
    roles = named.call(tasks.DomainRoles, config.data.domains, 'data.domains')
    transforms = _make_transforms(settings.transforms, 'data.train.transforms')
    training = _load(config, settings.split)
    labelled, unlabelled = tasks.assign_roles(training, roles, config.seed)
    first = next(iter(labelled.values()))
    shape = infer_image_shape(first, transforms, 'data.train')
    about = dict(class_names=class_names(first, config.model.num_classes), image_shape=shape, num_examples=len(first))
    experiment = without_data(config, about)
    options = images.reading(config)
    batch_size = options.pop('batch_size')
    train = domains.make_domain_batches(
        labelled, unlabelled, batch_size, config.seed, transforms, sampler=settings.sampler, **options
    )
    evals = {name: _make_evaluator(config, experiment, training, roles, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json."""
    method = tasks.make_method(**named.to_plain(config.method))
    task = tasks.adaptation_task(*_make_network(config), method)
    part = images.placeholder_data(config, about, label=np.zeros(config.data.batch_size, np.int64))
    hidden = images.placeholder_data(config, about)
    # Names do not matter to the parameters, only that there is a second domain.
    train = data.Zipped({'source': part, 'target': hidden})
    return Experiment(task, config.tx, train, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on digits of two styles where its own domains would have to be read from files."""
    source = drop_placeholders(config.data.source)
    if config.data.name in ('digit_styles', 'rotated_digits', 'coloured_digits') and 'mnist_5k' not in str(source):
        return config
    with config.unlocked():
        config.data.name, config.data.source = 'digit_styles', dict(styles=('rendered', 'uci'))
        config.data.domains = dict(sources=('rendered',), target='uci')
    return config


def _load(config: ConfigDict, split: str) -> domains.Domains:
    return domains.load_domains(config.data.name, split, **drop_placeholders(config.data.get('source', {})))


def _make_transforms(spec: Any, where: str) -> tuple[data.Transform, ...]:
    return tuple(data.transforms.make_transforms(spec, where))


def _make_evaluator(
    config: ConfigDict, experiment: Experiment, training: domains.Domains, roles: tasks.DomainRoles, name: str
) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.DomainEvaluation, config.data.evals[name], where)
    transforms = _make_transforms(settings.transforms, f'{where}.transforms')
    options = images.reading(config)
    if settings.rules:
        domains.check_selection_split(config.data.train.split, settings.split)
        held_out = _load(config, settings.split)
        source = tasks.join_for_rules([held_out[s] for s in roles.sources], training[roles.target], settings.most)
        return tasks.rules_evaluator(_make_network(config), data.Once(source, transforms=transforms, **options))
    batches = data.Once(
        _load(config, settings.split)[settings.domain or roles.target], transforms=transforms, **options
    )
    return classification_evaluator(experiment.task.predict, batches, experiment.about['class_names'])


def _make_network(config: ConfigDict) -> tuple[Any, Any]:
    """Returns the network, and the function from a batch to its input."""
    network = models.make_model(**named.to_plain(config.model))
    return network, named.call(make_image_input, config.input, 'input')
