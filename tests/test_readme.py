"""The README's commands and programs, run in a copy of the tree by somebody who has only read it."""

import os
import re
import shutil
import subprocess
import sys

import pytest

# What needs a network, a cluster, an accelerator, somebody's photos, or is this very suite: --dry must print it.
ELSEWHERE = re.compile(r'launch\.sh (test|slurm|tpu|prepare mnist)|--engine=slurm|CANON_EXTRAS|~/photos|name=mnist')


@pytest.fixture(scope='module')
def copy(root, tmp_path_factory):
    """The tracked files alone, in an empty folder."""
    folder = tmp_path_factory.mktemp('copy') / 'canon'
    files = subprocess.run(['git', 'ls-files', '-z'], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split('\0')):
        if (root / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    return folder


@pytest.fixture(scope='module')
def env(copy, tmp_path_factory):
    """This environment, taken as it is, with the copy's own canon; the data sets in a home of the test's."""
    home = tmp_path_factory.mktemp('home')
    cache = os.environ.get('XDG_CACHE_HOME', os.path.expanduser('~/.cache'))
    (home / '.cache').symlink_to(cache, target_is_directory=True)
    return os.environ | {
        'CANON_PREPARE': 'no',
        'CANON_VENV': sys.prefix,
        'CANON_VENV_TF': sys.prefix,
        'PYTHONPATH': str(copy / 'lib'),
        'HOME': str(home),
    }


def blocks(root, kind):
    return re.findall(rf'```{kind}\n(.*?)```', (root / 'README.md').read_text(), re.DOTALL)


@pytest.mark.slow
def test_every_command(root, copy, env):
    lines = [line.split(' #')[0].strip() for block in blocks(root, 'bash') for line in block.splitlines()]
    commands = [line for line in lines if line]
    assert len(commands) > 15
    for command in commands:
        dry = ' --dry' if ELSEWHERE.search(command) else ''
        done = subprocess.run(command + dry, shell=True, cwd=copy, env=env, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
    run = copy / 'runs' / 'classification' / 'lenet_digits' / 'default'
    assert (run / 'report.html').exists()
    assert (copy / 'predictions' / 'predictions.csv').exists()
    assert (copy / 'runs' / 'classification' / 'lenet_digits-smoke' / 'table.png').exists()


def test_every_program(root, copy, env):
    programs = blocks(root, 'python')
    assert len(programs) >= 2
    for program in programs:
        done = subprocess.run([sys.executable, '-c', program], cwd=copy, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
