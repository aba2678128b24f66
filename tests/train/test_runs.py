"""What is read of run folders, whatever is in them."""

import json
import math
import os
import platform

import numpy as np
import pytest

from canon.train import write_report
from canon.train.runs import describe_result, find_runs, read_curves, read_run
from canon.train.workdir import write_json

SOUND = {
    'run.json': {
        'config': 'configs/a/b.py',
        'overrides': {'seed': 1},
        'devices': ['cpu:cpu'],
        'versions': {'canon': '1'},
    },
    'config.json': {'seed': 1, 'target': {'metric': 'test/loss'}},
    'status.json': {
        'state': 'running',
        'step': 3,
        'steps': 9,
        'metrics': {'test/loss': 0.5},
        'seconds': 1.5,
        'error': None,
    },
}


def make(folder, **changes):
    folder.mkdir(exist_ok=True)
    for name, value in SOUND.items():
        write_json(folder / name, {**value, **changes.get(name.partition('.')[0], {})})
    (folder / 'metrics.jsonl').write_text('{"step": 1, "train/loss": 2.0, "train/step_seconds": 0.1}\n')
    return folder


def test_a_run_whose_process_is_gone_is_killed(tmp_path):
    folder = make(tmp_path / 'run')
    assert read_run(folder).state == 'running'  # of a Canon without locks nothing is known
    (folder / '.lock').write_text(json.dumps({'host': platform.node(), 'pid': 1}))
    assert read_run(folder).state == 'killed'
    (folder / '.lock').write_text(json.dumps({'host': 'elsewhere', 'pid': 1}))
    assert read_run(folder).state == 'running'  # a lock of another host may not be visible here


def test_a_run_that_holds_its_folder_is_running(tmp_path):
    import fcntl

    folder = make(tmp_path / 'run')
    (folder / '.lock').write_text(json.dumps({'host': platform.node(), 'pid': os.getpid()}))
    with (folder / '.lock').open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert read_run(folder).state == 'running'
    assert read_run(folder).state == 'killed'


def test_a_metric_that_was_not_finite_is_shown_as_one(tmp_path):
    folder = make(tmp_path / 'run', status={'metrics': {'test/loss': math.nan, 'test/error': math.inf}})
    text = (folder / 'status.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail)['metrics'] == {'test/loss': None, 'test/error': None}
    run = read_run(folder)
    assert math.isnan(run.metrics['test/loss'])
    assert describe_result(run) == 'test/loss nan'


ODD = [
    '',
    '{',
    '[1]',
    '3',
    'null',
    '\x00',
    '{"metrics": [1], "step": 1e400, "seconds": "x", "devices": 3, "versions": []}',
]


@pytest.mark.parametrize('name', [*SOUND, 'metrics.jsonl'])
@pytest.mark.parametrize('text', ODD)
def test_damaged_files_are_read_as_far_as_they_are_sound(tmp_path, name, text):
    folder = make(tmp_path / 'run')
    (folder / name).write_text(text)
    (run,) = find_runs(tmp_path)
    assert run.folder == folder
    assert read_curves([folder], 'train/loss')[1].dtype == np.float64
    assert write_report(folder).read_text().startswith('<!doctype html>')
