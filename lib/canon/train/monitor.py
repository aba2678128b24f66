"""Keeps account of evaluations: which are due, which step is the best, and when to stop early."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from canon import optim
from canon.errors import UsageError
from canon.named import suggest
from canon.train.ranking import is_better
from canon.train.settings import Settings
from canon.train.setup import Setup
from canon.train.types import Config


class Monitor:
    """The metrics of a run, and the decisions that settings base on them."""

    def __init__(self, setup: Setup, config: Config):
        self._settings: Settings = setup.settings
        self._evaluators = list(setup.experiment.evals)
        for name in setup.settings.evals:
            if name not in self._evaluators:
                raise UsageError(
                    f'run.evals.{name}: the experiment has no such evaluator, only {sorted(self._evaluators)}'
                )
        self._selecting = _list_selecting(setup, config)
        self.measured: dict[str, int] = {}  # {evaluator: step of its newest evaluation}
        self.metrics: dict[str, float] = {}  # of these
        self.ranked: dict[str, Any] | None = None  # the best step by `run.checkpoint.best`, its value and metrics
        self.best: float | None = None  # of early stopping
        self.bad = 0  # evaluations in a row without an improvement

    def dump(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {name: getattr(self, name) for name in ('measured', 'metrics', 'ranked', 'best', 'bad')}

    def restore(self, dumped: Mapping[str, Any]) -> None:
        """Continues from what `dump` returned."""
        for name in self.dump().keys() & dumped.keys():
            setattr(self, name, dumped[name])

    def check_names(self, list_metrics: Callable[[str], set[str] | None]) -> None:
        """Raises UsageError if a setting names an evaluator or a metric that does not exist.

        list_metrics: from the name of an evaluator to those of its metrics; None if they are not known in advance.
        """
        known: dict[str, set[str] | None] = {}
        for key, metric in self._selecting:
            name = self.evaluator_of(metric)
            if name is None:
                there = ', '.join(sorted(self._evaluators))
                raise UsageError(f'{key}={metric!r} names no evaluator; there are {there}')
            if name not in known:
                known[name] = list_metrics(name)
            metrics = known[name]
            if metrics is not None:
                _refuse_unmeasured(key, metric, [f'{name}/{metric}' for metric in metrics])

    def list_due(self, step: int) -> list[str]:
        """Returns the evaluators that run after `step` and have not yet."""
        last, evals = self._settings.steps, self._settings.evals
        every = {name: evals[name].every if name in evals else last for name in self._evaluators}
        due = [name for name, n in every.items() if step and (step % n == 0 or step >= last)]
        return [name for name in due if self.measured.get(name, 0) < step]

    def list_unmeasured(self, step: int) -> list[str]:
        """Returns all evaluators that have not run after `step`."""
        return [name for name in self._evaluators if self.measured.get(name, 0) < step]

    def record(self, name: str, step: int, metrics: Mapping[str, float]) -> float | None:
        """Takes note of an evaluation.

        Args:
          name: the evaluator.
          step: what it has evaluated.
          metrics: {'test/accuracy': value}.

        Returns:
          The value that ranks the step among the best; None if it is not among the metrics.
        """
        for key, metric in self._selecting:  # those whose names were not known in advance
            if self.evaluator_of(metric) == name:
                _refuse_unmeasured(key, metric, metrics)
        # New dicts, not updates in place: a dump that is still being written keeps its own.
        self.metrics = {**self.metrics, **metrics}
        self.measured = {**self.measured, name: step}
        self._count_improvement(metrics)
        value = metrics.get(self._settings.checkpoint.best or '')
        self._rank(step, value)
        return value

    def is_out_of_patience(self) -> bool:
        """Returns whether early stopping ends the run."""
        early = self._settings.early_stop
        return early is not None and self.bad >= early.patience

    def metrics_at(self, step: int) -> dict[str, float]:
        """Returns the metrics of all evaluators whose newest evaluation was of `step`."""
        names = [name for name, at in self.measured.items() if at == step]
        return {k: v for k, v in self.metrics.items() if self.evaluator_of(k) in names}

    def evaluator_of(self, metric: str) -> str | None:
        """Returns `test` of `test/adam/loss`: the longest name of an evaluator that the metric begins with."""
        return max((n for n in self._evaluators if metric.startswith(f'{n}/')), key=len, default=None)

    def _count_improvement(self, metrics: Mapping[str, float]) -> None:
        early = self._settings.early_stop
        if early is None or early.metric not in metrics:
            return
        value = metrics[early.metric]
        if is_better(value, self.best, early.mode, early.min_delta):
            self.best, self.bad = value, 0
        else:
            self.bad += 1

    def _rank(self, step: int, value: float | None) -> None:
        """Keeps the metrics of the best step, the latest of several: a run may report them at its end."""
        mode = self._settings.checkpoint.mode
        best = None if self.ranked is None else self.ranked['value']
        # Better than None: finite. Of equal values the later step wins, as among the saved ones (`best_step`).
        if value is not None and is_better(value, None, mode) and (best is None or not is_better(best, value, mode)):
            self.ranked = {'step': step, 'value': value}
        if self.ranked is not None and self.ranked['step'] == step:
            self.ranked = {**self.ranked, 'metrics': self.metrics_at(step)}


def _list_selecting(setup: Setup, config: Config) -> list[tuple[str, str]]:
    """Returns (key, metric) of each setting and plateau rule that decides by a metric."""
    s = setup.settings
    early = s.early_stop.metric if s.early_stop is not None else None
    target = (config.get('target') or {}).get('metric') if setup.experiment.evals else None
    pairs = [('run.checkpoint.best', s.checkpoint.best), ('run.early_stop.metric', early), ('target.metric', target)]
    pairs += [('tx: the plateau rule', metric) for metric in sorted(optim.find_watched_metrics(setup.target.opt))]
    return [(key, metric) for key, metric in pairs if metric is not None]


def _refuse_unmeasured(key: str, metric: str, metrics: Iterable[str]) -> None:
    """Raises UsageError unless `metric`, the value of the setting `key`, is one of `metrics`."""
    if metric not in metrics:
        raise UsageError(f'{key}={metric!r} is measured by no evaluator{suggest(metric, set(metrics))}')
