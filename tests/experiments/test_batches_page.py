"""docs/batches.md describes the batches that experiments train and measure on."""

import importlib
import re

import numpy as np
import pytest

from canon.train import Experiment
from experiments import configs, protocol

ROW = re.compile(r'\| `([\w.]+)` \| \[(.*?)\] \| (\w+) \| (.*) \|')


def read_tables(root):
    """[(files, whether the table is of evaluators only, {key: (axes, dtype, optional)})] of the page."""
    tables, files, evaluators = [], [], False
    for line in (root / 'docs/batches.md').read_text().splitlines():
        if line.startswith(('Configs: ', 'Evaluators of: ')):
            files, evaluators = line.partition(': ')[2].split(', '), line.startswith('Evaluators')
        elif line.startswith('| key |'):
            tables.append((files, evaluators, {}))
        elif row := ROW.fullmatch(line):
            key, axes, dtype, contents = row.groups()
            tables[-1][2][key] = axes.split(', '), dtype, contents.startswith('*optional*')
        else:
            assert not line.startswith('| `'), f'not a row of a table: {line}'
    return tables


def flatten(batch, prefix=''):
    for key, value in batch.items():
        if isinstance(value, dict):
            yield from flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, np.asarray(value)


def check(batch, table, what):
    sizes, arrays = {}, dict(flatten(batch))
    needed = {key for key, (_, _, optional) in table.items() if not optional}
    assert needed <= arrays.keys() <= table.keys(), what
    for key, array in arrays.items():
        axes, dtype, _ = table[key]
        assert array.dtype == dtype, f'{what}: {key}'
        assert array.ndim == len(axes), f'{what}: {key} {array.shape}'
        for axis, size in zip(axes, array.shape, strict=True):
            assert size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size)), f'{what}: {key} {axis}'
    return arrays.keys()


@pytest.fixture(scope='module')
def built(root, tmp_path_factory):
    """The smallest form of each config that the page names, built once."""
    experiments = {}
    for file in dict.fromkeys(file for files, _, _ in read_tables(root) for file in files):
        config = configs.load(f'{root}/configs/{file}:smoke')
        if 'data_dir' in config.data:
            config.data.data_dir = str(tmp_path_factory.getbasetemp() / 'tfds')
        module = importlib.import_module(f'experiments.{config.experiment}')
        made = module.make(module.offline(config))
        if not isinstance(made, Experiment):  # the first stage that trains
            made = next(stage for stage in made if stage.make is not None).make(None)[0]
        experiments[file] = config.experiment, made
    return experiments


def test_the_page_describes_the_batches_of_every_experiment(root, built):
    tables = read_tables(root)
    of_evaluators = {file: table for files, evaluators, table in tables if evaluators for file in files}
    for files, evaluators, table in tables:
        described = set()
        for file in files:
            experiment = built[file][1]
            batches = [] if evaluators else [(file, experiment.train[0])]
            if evaluators or file not in of_evaluators:
                batches += [(f'{file} {name}', e.data[0]) for name, e in experiment.evals.items()]
            for what, batch in batches:
                described |= check(batch, table, what)
        unseen = table.keys() - described
        assert all(table[key][2] for key in unseen), f'{files} have no {unseen}'
    # Stages of other experiments, two of these experiments, and what they have in common.
    others = {'staged', 'region_finetuning', 'region_head_finetuning', 'images', 'gradual_adaptation'}
    assert {name for name, _ in built.values()} | others >= set(protocol.names())


def test_a_key_means_the_same_in_every_task(root):
    """One key, one type: but for labels, which are classes or texts, and targets, which are what is learnt."""
    types = {}
    for _, _, table in read_tables(root):
        for key, (axes, dtype, _) in table.items():
            types.setdefault(key, set()).add((len(axes), dtype))
    several = {key for key, kinds in types.items() if len(kinds) > 1}
    assert several <= {'label', 'target', 'input', 'colour', 'mask', 'points'}
