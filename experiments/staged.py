"""Systems trained in stages: one experiment after the other, each from what the earlier ones have learnt.

    config.experiment = 'staged'
    config.stages = dict(
        experiment='classification',  # what each stage is
        chain=('shallow', 'deep'),
        shallow=dict(model=dict(name='vgg.vgg11')),
        deep=dict(run=dict(init_from=dict(stage='shallow', new='^conv5_'))),
    )

The config of a stage is the config itself with the stage's keys laid over it; a stage may state another `experiment`.
What the config itself states about steps, evaluators and target is for the last one.

`run.init_from.stage` names the stage whose weights a stage begins from, the one before it if it names none. A stage
whose experiment has `compute(config, stages, artefacts)` in place of `make` computes instead of training: see
`canon.train.Stage`. An experiment that reads the artefacts of earlier stages has `make_stage(config, stages)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon.configuration import merge
from canon.errors import UsageError
from canon.named import suggest, to_plain
from canon.train import Experiment, Stage

_OWN = ('experiment', 'chain')  # keys of config.stages that are not stages


def make(config: ConfigDict) -> list[Stage]:
    """Makes the stages of config.stages in the order of its `chain`; all other keys are theirs."""
    return [_stage(config, name) for name in _order(config)]


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config as the stages' experiment has it offline."""
    return _module(config.stages.experiment).offline(config)


def _stage(config: ConfigDict, name: str) -> Stage:
    if hasattr(_module(_stage_config(config, name).experiment), 'compute'):
        return Stage(name, run=partial(_compute, config, name))
    return Stage(name, make=partial(_make, config, name))


def _make(config: ConfigDict, name: str, stages: Mapping[str, Path]) -> tuple[Experiment, ConfigDict]:
    stage = _stage_config(config, name)
    module = _module(stage.experiment)
    made = module.make_stage(stage, stages) if hasattr(module, 'make_stage') else module.make(stage)
    return made, stage


def _compute(config: ConfigDict, name: str, stages: Mapping[str, Path], artefacts: Any) -> Mapping[str, float] | None:
    stage = _stage_config(config, name)
    return _module(stage.experiment).compute(stage, stages, artefacts)


def _stage_config(config: ConfigDict, name: str) -> ConfigDict:
    """Returns the config of a stage."""
    base = to_plain(config)
    stages = base.pop('stages')
    order = list(stages['chain'])
    merged = merge({**base, 'experiment': stages['experiment']}, stages[name])
    # Only the last stage is held to the target of the config.
    if name != order[-1]:
        merged.pop('target', None)
    init = merged['run'].get('init_from') or {}
    # Only where the stage itself asks for it: a stage is not initialised from the one before unless it says so.
    if 'init_from' in stages[name].get('run', {}) and not init.get('path') and not init.get('stage'):
        if name == order[0]:
            raise UsageError(f'stages.{name}.run.init_from: no stage comes before; give it a path')
        init['stage'] = order[order.index(name) - 1]
    return ConfigDict(merged)


def _order(config: ConfigDict) -> tuple[str, ...]:
    """Returns the names of the stages; raises UsageError unless chain and stages name the same."""
    stages = to_plain(config.get('stages') or {})
    for key in _OWN:
        if key not in stages:
            raise UsageError(f'stages.{key} is missing; stages need an experiment and a chain')
    named = [key for key in stages if key not in _OWN]
    for name in stages['chain']:
        if name not in named:
            raise UsageError(f'stages.chain names {name!r}, which is not a stage{suggest(name, named)}')
    for name in named:
        if name not in stages['chain']:
            raise UsageError(f'stages.{name} is not in stages.chain{suggest(name, stages["chain"])}')
    return tuple(stages['chain'])


def _module(experiment: str) -> Any:
    return importlib.import_module(f'experiments.{experiment}')
