"""Training: a task is pure functions, and one loop trains any task.

Names load on first use: checking a config must not wait for JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canon.train.evaluation import evaluate
    from canon.train.finite import NonFinite
    from canon.train.games import game
    from canon.train.loop import fit
    from canon.train.replay import replay_step
    from canon.train.report import write_report
    from canon.train.restore import evaluate_run, load_state, load_trained
    from canon.train.session import Fitted
    from canon.train.settings import Settings
    from canon.train.setup import bind
    from canon.train.stages import Stage, run_stages
    from canon.train.step import init_state, make_step, step_key
    from canon.train.types import At, Data, Evaluator, Experiment, State, Task

_HOMES = {
    'evaluation': ('evaluate',),
    'games': ('game',),
    'finite': ('NonFinite',),
    'loop': ('fit',),
    'session': ('Fitted',),
    'replay': ('replay_step',),
    'report': ('write_report',),
    'restore': ('evaluate_run', 'load_state', 'load_trained'),
    'settings': ('Settings',),
    'setup': ('bind',),
    'stages': ('Stage', 'run_stages'),
    'step': ('init_state', 'make_step', 'step_key'),
    'types': ('At', 'Data', 'Evaluator', 'Experiment', 'State', 'Task'),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    'At', 'Data', 'Evaluator', 'Experiment', 'Fitted', 'NonFinite', 'Settings', 'Stage', 'State', 'Task',
    'bind', 'evaluate', 'evaluate_run', 'fit', 'game', 'init_state', 'load_state', 'load_trained', 'make_step',
    'replay_step', 'run_stages', 'step_key', 'write_report',
]  # fmt: skip


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f'canon.train.{_HOME[name]}'), name)
    raise AttributeError(f'module canon.train has no attribute {name!r}')
