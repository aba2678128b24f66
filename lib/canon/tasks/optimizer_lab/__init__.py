"""Comparing optimizers: several side by side on one task, and small tasks on which they differ."""

from canon.tasks.optimizer_lab.adding_problem import adding_task, draw_mean_batch, draw_sparse_rnn, run_tanh_rnn
from canon.tasks.optimizer_lab.comparison import side_by_side
from canon.tasks.optimizer_lab.perceptrons import Perceptron, perceptron_evaluator, perceptron_task
from canon.tasks.optimizer_lab.rates import effective_rate
from canon.tasks.optimizer_lab.surfaces import SURFACES, Surface, record_paths, surface_experiment

__all__ = [
    'SURFACES', 'Perceptron', 'Surface', 'adding_task', 'draw_mean_batch', 'draw_sparse_rnn', 'effective_rate',
    'perceptron_evaluator', 'perceptron_task', 'record_paths', 'run_tanh_rnn', 'side_by_side', 'surface_experiment',
]  # fmt: skip
