"""Binds a config to adaptation in several steps: self-training along a chain of intermediate domains.

    config.gradual = dict(chain=('15', '30', '45'), keep=0.9, source_steps=600)

A first stage learns the labelled sources. Each further one begins from the weights of the stage before, which label
the examples of the next domain of the chain: those that they are most certain of are learnt for `run.steps` updates. A
chain that is the target alone is adaptation in one step.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import backend, data, named
from canon.data import domains
from canon.data.images.checks import infer_image_shape
from canon.tasks import adaptation as tasks
from canon.tasks.adaptation.self_training import GradualSettings, check_chain, label_most_certain
from canon.tasks.image_settings import TrainImages
from canon.train import Experiment, Stage
from experiments import adaptation, images, sequences

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {**adaptation.SECTIONS, 'gradual': {'GradualSettings': GradualSettings}}
SOURCE = 'source'  # the first stage


def make(config: ConfigDict) -> list[Stage]:
    """Makes a stage for the sources, and one for each domain of config.gradual.chain."""
    settings = named.call(GradualSettings, config.gradual, 'gradual')
    roles = named.call(tasks.DomainRoles, config.data.domains, 'data.domains')
    check_chain(settings.chain, roles.sources, roles.target)
    stages = [Stage(SOURCE, make=partial(_make_source, config, settings))]
    for domain in settings.chain:
        stages.append(Stage(f'to_{domain}', make=partial(_make_step, config, settings, domain, stages[-1].name)))
    return stages


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config, whose domains must be at hand in the order of its chain."""
    return config


def _make_source(config: ConfigDict, settings: GradualSettings, stages: Mapping[str, Path]):
    stage = _make_stage_config(config, run=dict(steps=settings.source_steps))
    return adaptation.make(stage), stage


def _make_step(
    config: ConfigDict, settings: GradualSettings, domain: str, before: str, stages: Mapping[str, Path]
) -> tuple[Experiment, ConfigDict]:
    stage = _make_stage_config(config, run=dict(init_from=dict(stage=before)))
    if domain != settings.chain[-1]:  # only the last stage is held to the target of the config
        del stage['target']
    experiment = adaptation.make_stage(stage, stages)
    train = named.call(TrainImages, config.data.train, 'data.train')
    source = adaptation.load_domains(config, train.split)[domain]
    transforms = tuple(data.transforms.make_transforms(train.transforms, 'data.train.transforms'))
    infer_image_shape(source, transforms, f'domain {domain}')
    options = images.reading(config)
    hidden = adaptation.list_images(config, source)
    labelled = label_most_certain(_restore_predict(stages[before]), hidden, source, settings.keep)
    batch_size = options.pop('batch_size')
    batches = domains.make_domain_batches(
        {SOURCE: labelled}, None, batch_size, config.seed, transforms, sampler=train.sampler, **options
    )
    return experiment._replace(train=batches), stage


def _make_stage_config(config: ConfigDict, run: Mapping[str, Any]) -> ConfigDict:
    """Returns the config of a stage as one of the experiment 'adaptation', with keys of `run` laid over its own."""
    plain = named.to_plain(config)
    del plain['gradual']
    plain['experiment'] = 'adaptation'
    plain['data']['domains'] |= dict(hidden=False, shown=0)
    plain['run'] |= run
    return ConfigDict(plain)


def _restore_predict(folder: Path):
    """Returns the function from a batch to the logits of the network that a stage has trained."""
    _, experiment, params, mutable = sequences.read_run(folder, 'adaptation', 'gradual.chain')
    predict = backend.jit(experiment.task.predict)
    return lambda batch: np.asarray(predict(params, mutable, {'image': batch['image']}))
