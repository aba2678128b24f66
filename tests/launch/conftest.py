"""A copy of the checkout with a main that needs no JAX, and two ways to run the commands of launch.sh there."""

import contextlib
import importlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from canon.errors import run_command
from experiments import configs
from tests.launch import stand_in

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

    def call(self, verb, *words):
        """`./launch.sh verb words...` in this process, which takes a tenth of the time."""
        module = importlib.import_module({'slurm': 'launch.submit'}.get(verb, f'launch.{verb}'))
        return self._call(module.main, words)

    def run(self, config, *flags):
        """A run of the stand-in in this process."""
        return self._call(stand_in.main, [f'--config={config}', *flags])

    def read_help(self, module):
        """Returns what `--help` of a command prints."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            module.main(['--help'])
        return out.getvalue()

    def _call(self, main, words):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.chdir(self.root))
            stack.enter_context(pytest.MonkeyPatch.context()).setattr(configs, 'ROOT', self.root)
            stack.enter_context(contextlib.redirect_stdout(out))
            stack.enter_context(contextlib.redirect_stderr(err))
            status = run_command(lambda: main(list(map(str, words))))
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def config(self, name, *, at_least=0.9, ci=True, trouble='', sweep=False, text=None):
        path = self.root / 'configs' / 'toy' / f'{name}.py'
        path.parent.mkdir(parents=True, exist_ok=True)
        made = CONFIG % dict(at_least=at_least, ci=ci, trouble=trouble) + (SWEEP if sweep else '')
        path.write_text(made if text is None else text)
        return f'configs/toy/{name}.py'


@pytest.fixture
def house(root, tmp_path) -> House:
    """The checkout, except for main and the configs."""
    copy = tmp_path / 'house'
    for room in ('experiments', 'launch'):
        shutil.copytree(root / room, copy / room, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('launch.sh', 'pyproject.toml', 'requirements.txt'):
        shutil.copy(root / name, copy)
    shutil.copy(Path(__file__).with_name('stand_in.py'), copy / 'experiments' / 'main.py')
    return House(copy)
