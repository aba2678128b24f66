"""Systems trained in stages: one experiment after the other, each from what the one before has learnt.

    config.experiment = 'staged'
    config.stages = dict(
        experiment='classification',  # what each stage is
        chain=('shallow', 'deep'),
        shallow=dict(model=dict(name='vgg.vgg11')),
        deep=dict(run=dict(init_from=dict(new='^conv5_'))),
    )

A stage's config is the config itself with the stage's keys over it. Where a stage states `run.init_from` without a
path, it begins from the stage before. What the config itself says of steps, evaluators and target is for the last one.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon.errors import UsageError
from canon.named import suggest, to_plain
from canon.train import Experiment, Stage

_OWN = ('experiment', 'chain')  # keys of config.stages that are no stage


def make(config: ConfigDict) -> list[Stage]:
    """config.stages -> its stages in the order of its `chain`; everything else is theirs."""
    order = _order(config)
    return [Stage(name, partial(_make, config, name)) for name in order]


def offline(config: ConfigDict) -> ConfigDict:
    """As the stages' experiment has it."""
    return _kind(config.stages.experiment).offline(config)


def _make(config: ConfigDict, name: str, before: Path | None) -> tuple[Experiment, ConfigDict]:
    stage = _stage_config(config, name, before)
    return _kind(stage.experiment).make(stage), stage


def _stage_config(config: ConfigDict, name: str, before: Path | None) -> ConfigDict:
    """The config of a stage that follows the finished run `before`."""
    base = to_plain(config)
    stages = base.pop('stages')
    merged = _merged({**base, 'experiment': stages['experiment']}, stages[name])
    if name != stages['chain'][-1]:
        merged.pop('target', None)
    init = merged['run'].get('init_from') or {}
    if 'init_from' in stages[name].get('run', {}) and not init.get('path'):
        if before is None:
            raise UsageError(f'stages.{name}.run.init_from: no stage comes before; give it a path')
        init['path'] = str(before)
    return ConfigDict(merged)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `under`, dict by dict."""
    both = {k: dict(v) if isinstance(v, Mapping) else v for k, v in under.items()}
    for key, value in over.items():
        below = both.get(key)
        both[key] = _merged(below if isinstance(below, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return both


def _order(config: ConfigDict) -> tuple[str, ...]:
    """Raises UsageError where the chain and the stages do not name the same, or nothing says what a stage is."""
    stages = to_plain(config.get('stages') or {})
    for key in _OWN:
        if key not in stages:
            raise UsageError(f'stages.{key} is missing; stages need the experiment they are of, and their chain')
    named = [key for key in stages if key not in _OWN]
    for name in stages['chain']:
        if name not in named:
            raise UsageError(f'stages.chain names {name!r}, which is no stage{suggest(name, named)}')
    for name in named:
        if name not in stages['chain']:
            raise UsageError(f'stages.{name} is not in stages.chain{suggest(name, stages["chain"])}')
    return tuple(stages['chain'])


def _kind(experiment: str):
    return importlib.import_module(f'experiments.{experiment}')
