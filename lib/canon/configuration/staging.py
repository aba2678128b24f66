"""Configs of systems that are trained in stages: the order of `config.stages`, and the config of each stage."""

from __future__ import annotations

from ml_collections import ConfigDict

from canon.configuration.nested import merge
from canon.errors import UsageError
from canon.named import suggest, to_plain

_OWN = ('experiment', 'chain')  # keys of config.stages that are not stages


def make_stage_config(config: ConfigDict, name: str) -> ConfigDict:
    """Returns the config of the stage `name`: that of the run, with the keys of `config.stages.NAME` laid over it.

    `run.init_from` without a path or a stage becomes that of the stage before. Raises UsageError if there is none.
    """
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


def order_stages(config: ConfigDict) -> tuple[str, ...]:
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
