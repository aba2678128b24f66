"""Overrides of an experiment's config: `canon.configuration` with the `SECTIONS` of its module."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon import configuration
from canon.configuration import Sections, read_flags
from canon.configuration.overrides import Pairs
from canon.errors import UsageError
from experiments import configs

__all__ = ['apply', 'check_run', 'describe', 'find_sections', 'load', 'read_flags', 'takes_tuple']


def load(source: str | None, workdir: str | None = None) -> ConfigDict:
    """Returns the config of a file, or of the run in `workdir`, unlocked, with all keys of `run`."""
    from canon.train.settings import fill_placeholders

    if source is not None:
        config = configs.load(source)
    else:
        folder = Path(workdir or '.').expanduser()
        check_run(folder, ', or --config=FILE')
        config = configuration.read_saved_config(folder / 'config.json')
    config.unlock()
    config.run = ConfigDict(fill_placeholders(config.get('run') or {}))
    return config


def check_run(folder: Path, otherwise: str = '') -> None:
    """Raises UsageError unless a folder holds a run; it names the newest run below the folder.

    Args:
      folder: what a user gave.
      otherwise: how the advice to give the folder of a run continues.
    """
    if (folder / 'config.json').is_file():
        return
    for pattern in ('*', '*/*', '*/*/*'):  # runs/<task>/<name>/<overrides>, or a stage of a run
        if below := list(folder.glob(f'{pattern}/config.json')):
            newest = max(below, key=lambda path: path.stat().st_mtime).parent
            raise UsageError(f'{folder} holds no run (no config.json); runs are below it: give {newest}{otherwise}')
    raise UsageError(f'{folder} holds no run (no config.json); give the folder of a run{otherwise}')


def apply(config: ConfigDict, pairs: Pairs) -> dict[str, Any]:
    """Applies (dotted key, text) pairs to `config` in place; returns {key: value} (`configuration.apply_overrides`)."""
    # The experiment may itself be overridden, and its sections with it.
    return configuration.apply_overrides(config, pairs, find_sections(config, dict(pairs).get('experiment')))


def takes_tuple(config: ConfigDict, key: str) -> bool:
    """Returns whether a key holds a tuple (`configuration.takes_tuple`)."""
    return configuration.takes_tuple(config, key, find_sections(config))


def describe(config: ConfigDict, source: str) -> list[str]:
    """Returns lines about every key that may be set, for --help."""
    return configuration.describe_keys(config, source, find_sections(config))


def find_sections(config: ConfigDict, experiment: str | None = None) -> Sections:
    """Returns the `SECTIONS` of the config's experiment, or of `experiment`, and those of all its stages'."""
    names, sections = [experiment or config.get('experiment')], {}
    for layer in (config, *(config.get('forms') or {}).values()):
        stages = layer.get('stages')
        if not isinstance(stages, ConfigDict):  # a form may have stages of its own
            continue
        names += [stages.get('experiment')]
        for key, stage in stages.items():
            if isinstance(stage, ConfigDict) and stage.get('experiment'):
                names.append(stage.experiment)
                # Its data sets are not those of the whole, even if it adds none to those that all experiments share.
                own = {'data.source': {}, **_sections(stage.experiment)}
                sections |= {f'stages.{key}.{pattern}': functions for pattern, functions in own.items()}
    for name in dict.fromkeys(filter(None, names)):
        sections = {**_sections(name), **sections}  # the first experiment that has a section documents it
    return sections


def _sections(experiment: Any) -> Sections:
    try:
        return getattr(importlib.import_module(f'experiments.{experiment}'), 'SECTIONS', {})
    # An experiment that does not exist is reported when it is made, with the near names.
    except ImportError:
        return {}
