"""Training: a task is pure functions, and one loop trains any task.

Names load on first use: checking a config must not wait for JAX.
"""

from typing import TYPE_CHECKING

# So that without the extra `train` the import of the room fails, and not its first name.
import ml_collections  # noqa: F401

from canon.lazy import load_on_use

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

__all__ = [
    'At', 'Data', 'Evaluator', 'Experiment', 'Fitted', 'NonFinite', 'Settings', 'Stage', 'State', 'Task',
    'bind', 'evaluate', 'evaluate_run', 'fit', 'game', 'init_state', 'load_state', 'load_trained', 'make_step',
    'replay_step', 'run_stages', 'step_key', 'write_report',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
