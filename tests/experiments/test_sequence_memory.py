"""Sequence memory from a config: its batches, its keys, what it refuses, and a run."""

import math

import numpy as np
import pytest

from canon.errors import UsageError
from canon.train import fit
from experiments import configs, overrides, sequence_memory

MEMORY = 'configs/claims/memory.py'


def make_config(root, **changes):
    config = configs.load(f'{root}/{MEMORY}:smoke')
    config.update_from_flattened_dict(changes)
    return config


def test_batches_are_a_function_of_seed_and_number(root):
    train, other = (sequence_memory.make(make_config(root, seed=seed, **{'data.gap': 10})).train for seed in (0, 1))
    np.testing.assert_array_equal(train[3]['input'], train[3]['input'])
    assert (train[3]['input'] != train[4]['input']).any()
    assert (train[3]['input'] != other[3]['input']).any()


def test_a_run_reports_the_loss_and_the_gradient_by_lag(root, tmp_path):
    config = make_config(root, **{'data.problem': 'copy', 'data.gap': 2, 'data.test_batches': 1, 'model.hidden': 3})
    with config.unlocked():
        config.run = dict(steps=2, log_every=1, evals=dict(test=dict(every=2)), log=())
    metrics = fit(sequence_memory.make(config), config, tmp_path, quiet=True).metrics
    assert metrics['test/baseline'] == pytest.approx(10 * math.log(8) / 22)
    assert metrics['test/relative_loss'] == pytest.approx(metrics['test/loss'] / metrics['test/baseline'])
    assert 0 <= metrics['test/accuracy'] <= 1
    lags = {name for name in metrics if 'gradient_lag' in name}
    assert lags == {f'test/{when}gradient_lag_{k}' for when in ('', 'initial_') for k in (1, 2, 4, 8, 16)}


def test_a_name_selects_the_cell_and_every_argument_of_it_can_be_set():
    config = overrides.load(f'{configs.ROOT}/{MEMORY}')
    overrides.apply(config, [('model.forget_bias', '0.5'), ('data.gap', '3')])
    assert config.model.to_dict() == dict(name='lstm', hidden=64, forget_bias=0.5)
    overrides.apply(config, [('model.name', 'rnn'), ('model.activation', 'relu')])
    assert config.model.to_dict() == dict(name='rnn', hidden=64, activation='relu')
    with pytest.raises(UsageError, match=r"no key 'data\.gab'; did you mean 'data\.gap'"):
        overrides.apply(config, [('data.gab', '1')])


def test_what_is_refused(root):
    for changes, message in (
        ({'data.problem': 'coppy'}, "data.problem='coppy' must be one of copy, adding; did you mean 'copy'"),
        ({'data.gap': 1}, 'data.gap=1 must be a whole number at least 2'),
        ({'model.name': 'grv'}, "model.name='grv' must be one of rnn, lstm, gru"),
    ):
        with pytest.raises(UsageError, match=message):
            sequence_memory.make(make_config(root, **changes))
