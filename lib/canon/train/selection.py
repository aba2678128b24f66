"""Selects the weights that a run hands on: the 'last', the 'best' or an 'average'.

A run reports their metrics at its end, and `evaluate_run`, `predict` and `export` use them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from canon.train.checkpoint import Checkpoints
from canon.train.ranking import choose_steps
from canon.train.settings import Checkpointing
from canon.train.statistics import average_variables, evaluated_variables
from canon.train.types import Mutable, Params


class Choice(NamedTuple):
    """The weights that are handed on: the 'last', the 'best', an 'average', or those 'chosen' by their step."""

    name: str
    steps: tuple[int, ...]  # several for an average

    def __str__(self) -> str:
        steps = ', '.join(map(str, self.steps))
        return f'{self.name} weights, of step{"s" if len(self.steps) > 1 else ""} {steps}'


class Selected(NamedTuple):
    """Weights for use: parameters as the optimizer evaluates them, with the mutable that belongs to them."""

    choice: Choice
    params: Params
    mutable: Mutable


def choose(settings: Checkpointing, checkpoints: Checkpoints, step: int | None = None) -> Choice | None:
    """Returns which of the saved weights are handed on; None if nothing was saved.

    They are those of `step` if it is given; else the mean of the newest `settings.average` if that is above 1; else the
    best if `settings.best` ranks them; else the last.
    """
    if step is not None:
        return Choice('chosen', (step,))
    steps = checkpoints.steps()
    if not steps:
        return None
    return Choice(*choose_steps(steps, settings.average, checkpoints.best_step))


def select(setup: Any, checkpoints: Checkpoints, step: int | None = None) -> Selected | None:
    """Restores the weights that `choose` names; returns None if nothing was saved.

    Of several checkpoints, parameters and batch statistics are averaged and the rest of `mutable` is the newest's. If
    the last checkpoint is damaged, the one before it is restored.
    """
    choice = choose(setup.settings.checkpoint, checkpoints, step)
    if choice is None:
        return None
    # Without a step, so that a damaged newest checkpoint gives way to the one before it.
    if choice.name == 'last':
        restored = checkpoints.restore(setup.target)
        return None if restored is None else _make_selected(restored[0], 'last')
    if len(choice.steps) == 1:
        restored = checkpoints.restore(setup.target, choice.steps[0])
        return None if restored is None else _make_selected(restored[0], choice.name)
    return _average(setup, checkpoints, choice)


def _make_selected(state: Any, name: str) -> Selected:
    return Selected(Choice(name, (int(state.step),)), *evaluated_variables(state))


def _average(setup: Any, checkpoints: Checkpoints, choice: Choice) -> Selected:
    # A generator: one checkpoint at a time is in memory next to the sum.
    restored = (checkpoints.restore(setup.target, step) for step in choice.steps)
    return Selected(choice, *average_variables(evaluated_variables(saved[0]) for saved in restored if saved))
