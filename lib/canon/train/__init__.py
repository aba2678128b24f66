"""Training: a task is pure functions, and one loop trains any task."""

from canon.train import lengths
from canon.train.evaluate import evaluate
from canon.train.loop import Fitted, NonFinite, fit
from canon.train.report import write_report
from canon.train.settings import Settings
from canon.train.stages import Stage, run_stages
from canon.train.step import init_state, make_step, step_key
from canon.train.types import Data, Evaluator, Experiment, State, Task

__all__ = [
    'Data',
    'Evaluator',
    'Experiment',
    'Fitted',
    'NonFinite',
    'Settings',
    'Stage',
    'State',
    'Task',
    'evaluate',
    'fit',
    'init_state',
    'lengths',
    'make_step',
    'run_stages',
    'step_key',
    'write_report',
]
