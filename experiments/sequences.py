"""Helpers of experiments on sequences of boxes: reading them, and what runs that learnt parts of trackers have left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration import drop_placeholders, read_saved_config
from canon.data.pipeline.splits import share_examples
from canon.data.tracking import SEQUENCE_SETS, TrackSequences, load_sequences
from canon.errors import UsageError
from canon.tasks.image_settings import reading_options
from canon.train import Experiment
from canon.train.workdir import read_mapping
from experiments import protocol, regions

_MANY = 1_000_000  # sequences: places of slices are compared without reading how many there are


def load(config: ConfigDict, split: str) -> TrackSequences:
    """Returns a split of config.data.name with the arguments of config.data.source.

    Raises:
      UsageError: the data set is read from files, and the config has no path.
    """
    function = SEQUENCE_SETS.find(config.data.name)
    # Placeholders are arguments that the command line did not set: the function has its own defaults.
    arguments = drop_placeholders(config.data.get('source', {}))
    if named.accepts(function, 'path') and 'path' not in arguments:
        raise UsageError(f'data {config.data.name!r} is read from files: give --config.data.source.path=FOLDER')
    return load_sequences(config.data.name, split, **arguments)


def load_held_out(config: ConfigDict, split: str, where: str) -> TrackSequences:
    """Returns the sequences of an evaluator; raises UsageError if it shares some with config.data.train."""
    if share_examples(config.data.train.split, split, _MANY):
        raise UsageError(
            f'{where}.split={split!r} shares sequences with data.train.split={config.data.train.split!r}: hold some '
            "out, as 'train[:80%]' and 'train[80%:]'"
        )
    return load(config, split)


def use_digits(config: ConfigDict) -> ConfigDict:
    """Returns the config on a few short sequences of digits where its own data would have to be read from files."""
    if named.accepts(SEQUENCE_SETS.find(config.data.name), 'path'):
        with config.unlocked():
            config.data.name, config.data.source = 'digit_sequences', dict(num_sequences=4, length=30)
            if 'train' in config.data:  # trackers learn nothing
                config.data.train.split = 'train'
            for settings in config.data.get('evals', {}).values():
                settings.split = 'test'
    return config


def reading(config: ConfigDict) -> dict[str, Any]:
    """Returns config.data.reading (threads, workers, memory_limit) as arguments."""
    return named.call(reading_options, config.data.get('reading', {}), 'data.reading')


def find_run(settings: Mapping[str, Any] | None, stages: Mapping[str, Path], where: str) -> Path | None:
    """Returns the folder of a trained part: `run`, a folder, or `stage`, the name of an earlier stage; else None.

    Raises:
      UsageError: both are given, or there is no such stage or folder.
    """
    given = drop_placeholders(settings or {})
    named.call(check_run, given, where)
    if 'stage' in given and given['stage'] not in stages:
        near = named.suggest(given['stage'], stages)
        raise UsageError(f'{where}.stage={given["stage"]!r}: no stage before this one has that name{near}')
    return stages[given['stage']] if 'stage' in given else Path(given['run']).expanduser() if 'run' in given else None


def read_run(folder: Path, name: str, where: str) -> tuple[ConfigDict, Experiment, Any, Any]:
    """Returns (config, experiment, params, mutable) of a trained run.

    Args:
      folder: of the run.
      name: of the experiment that the run must be of.
      where: the section of the config that names it.

    Raises:
      UsageError: the folder holds no run of that experiment.
    """
    config = read_saved_config(folder / 'config.json') if (folder / 'config.json').is_file() else ConfigDict()
    if config.get('experiment') != name:
        what = f'a run of {config.experiment!r}' if config.get('experiment') else 'no run'
        raise UsageError(f'{where}: {folder} holds {what}; give the folder of a run of the experiment {name!r}')
    module: Any = protocol.load(name)
    experiment = module.without_data(config, read_mapping(folder / 'run.json')['experiment'])
    variables = regions.read_variables({name: folder}, name)
    return config, experiment, variables.pop('params'), variables


def check_run(run: str | None = None, stage: str | None = None) -> None:
    """Checks a section that names a trained part.

    run: the folder of a run. stage: the name of an earlier stage instead.
    """
    if run is not None and stage is not None:
        raise UsageError(f'run={run!r} and stage={stage!r} both name a trained part; give one of them')
