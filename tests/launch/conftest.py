"""A copy of the house with a main that needs no JAX, and a way to call its door."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
from ml_collections import ConfigDict


def get_config(arg=''):
    target = dict(metric='test/accuracy', at_least=%(at_least)s, ci=%(ci)s)
    return ConfigDict(dict(rate=0.01, seed=0, trouble=%(trouble)r, wide=False, target=target))
"""
SWEEP = """

def sweep():
    for rate in (0.001, 0.01, 0.1):
        yield {'rate': rate}
"""


class House:
    def __init__(self, root: Path):
        self.root = root

    def launch(self, *words, cwd=None, wait=True, **environment):
        """`./launch.sh words...` with its output, in the environment that runs the tests."""
        keys = {'CANON_VENV': sys.prefix, 'CANON_PREPARE': 'no', **environment}
        process = subprocess.Popen(
            [str(self.root / 'launch.sh'), *map(str, words)],
            cwd=cwd or self.root,
            env={**os.environ, **keys},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not wait:
            return process
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def config(self, name, *, at_least=0.9, ci=True, trouble='', sweep=False, text=None):
        path = self.root / 'configs' / 'toy' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        made = CONFIG % dict(at_least=at_least, ci=ci, trouble=trouble) + (SWEEP if sweep else '')
        path.write_text(made if text is None else text)
        return f'configs/toy/{name}.py'


@pytest.fixture
def house(root, tmp_path) -> House:
    """Ours, apart from main and the configs."""
    copy = tmp_path / 'house'
    for room in ('experiments', 'launch'):
        shutil.copytree(root / room, copy / room, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('launch.sh', 'pyproject.toml', 'requirements.txt'):
        shutil.copy(root / name, copy)
    shutil.copy(Path(__file__).with_name('stand_in.py'), copy / 'experiments' / 'main.py')
    return House(copy)
