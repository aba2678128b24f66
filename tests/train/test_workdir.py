"""One process writes a run's folder; its files are whole, and damage to them is named."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from canon.errors import UsageError
from canon.train import fit
from canon.train.workdir import describe_run, is_abandoned, open_workdir, read_json, write_json, write_status
from tests.train import toy

HOLD = """
import os, sys, time
from canon.train.workdir import lock_workdir
with lock_workdir(sys.argv[1]):
    worker = os.fork()  # as a reader process that outlives its parent
    if worker == 0:
        time.sleep(60)
        os._exit(0)
    print(worker, flush=True)
    sys.stdin.read()
"""


def hold(root, folder):
    """A process that holds the folder, and the number of its worker."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    )
    return process, int(process.stdout.readline())


def test_a_second_process_is_refused_until_the_first_is_dead(root, tmp_path):
    process, worker = hold(root, tmp_path)
    try:
        with pytest.raises(UsageError, match=rf'in use by process {process.pid} on \S+; wait'):
            fit(toy.linear(), toy.config(steps=2), tmp_path, quiet=True)
        assert not (tmp_path / 'config.json').exists()
        assert not is_abandoned(tmp_path)
        process.kill()
        process.wait()
        assert is_abandoned(tmp_path)
        assert fit(toy.linear(), toy.config(steps=2), tmp_path, quiet=True).status == 'done'
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize('name', ['config.json', 'run.json'])
@pytest.mark.parametrize('text', ['{"run": {"ste', '', '[1]', '\x00\x00', '[' * 100_000])
def test_a_damaged_file_does_not_switch_off_the_guard(tmp_path, name, text):
    config, about = {'seed': 1, 'run': {'steps': 3}}, {'experiment': {'classes': [1]}}
    describe_run(open_workdir(tmp_path, config, about, force=False, main=True), config, about)
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=rf'{name} is damaged'):
        open_workdir(tmp_path, config, about, force=False, main=True)
    describe_run(open_workdir(tmp_path, config, about, force=True, main=True), config, about)
    assert read_json(tmp_path / 'config.json') == config
    assert read_json(tmp_path / 'run.json')['experiment'] == {'classes': [1]}


@pytest.mark.parametrize('value', [len, lambda x: x, math.nan, {1, 2}, b'x', object(), [1, {'a': np.nan}], 1j])
def test_what_could_not_be_compared_is_refused_at_the_start(tmp_path, value):
    config = toy.config(steps=2) | {'extra': {'key': value}}
    with pytest.raises(UsageError, match=r'config key extra\.key.* cannot be written to config\.json'):
        fit(toy.linear(), config, tmp_path / 'run', quiet=True)
    assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.parametrize(
    'value',
    [
        math.inf,
        Path('/a/b'),
        np.float32(0.1),
        np.arange(3000),
        jnp.bfloat16,
        np.dtype('int8'),
        np.float32,
        (1, (2, 'x')),
        None,
    ],
    ids=str,
)
def test_what_can_be_written_is_equal_when_it_is_read(tmp_path, value):
    config = {'key': value, 'run': {'steps': 3}}
    for _ in range(2):
        describe_run(open_workdir(tmp_path, config, {}, force=False, main=True), config, {})
    with pytest.raises(UsageError, match='key was'):
        open_workdir(tmp_path, config | {'key': 'other'}, {}, force=False, main=True)
    if isinstance(value, np.ndarray):  # all of it counts, not what its text shows
        other = value.copy()
        other[1500] += 1
        with pytest.raises(UsageError, match='key was'):
            open_workdir(tmp_path, config | {'key': other}, {}, force=False, main=True)


def test_files_are_json(tmp_path):
    write_json(tmp_path / 'x.json', {'a': math.nan, 'b': [math.inf, 1.5], 'c': {'d': -math.inf}})
    text = (tmp_path / 'x.json').read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {'a': None, 'b': [None, 1.5], 'c': {'d': None}}


def test_a_status_is_written_on_a_full_disk(tmp_path, monkeypatch):
    write_status(tmp_path, {'state': 'running', 'step': 12345})
    monkeypatch.setattr(Path, 'write_text', lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    write_status(tmp_path, {'state': 'failed', 'step': 6})
    assert read_json(tmp_path / 'status.json') == {'state': 'failed', 'step': 6}
