"""The end of a run: measures the weights that it hands on, as far as they were not, and draws its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from canon.errors import CanonError
from canon.train.checkpoint import Checkpoints
from canon.train.evaluation import Evaluation
from canon.train.figures import has_figures
from canon.train.monitor import Monitor
from canon.train.selection import Choice, choose, select
from canon.train.setup import Setup
from canon.train.statistics import evaluated_variables
from canon.train.types import Mutable, Params, State


class Handover(NamedTuple):
    """final: {'weights', 'metrics'} of the weights that are handed on. sums: of the evaluators, for figures.

    variables: restores the parameters and mutable.
    """

    final: dict[str, Any]
    sums: dict[str, Any]
    variables: Callable[[], tuple[Params, Mutable]]


def measure_selected(
    state: State,
    setup: Setup,
    checkpoints: Checkpoints,
    monitor: Monitor,
    measure: Callable[[str, Params, Mutable, str], Evaluation],
    sums_at: Mapping[int, Mapping[str, Any]],
    final: Mapping[str, Any],
    workdir: Path,
) -> Handover | None:
    """Measures the weights that the run hands on with every evaluator; returns None if nothing was saved.

    What training has measured already is taken from there, unless its sums are needed for a figure.

    Args:
      state: the last state.
      setup: the experiment on its mesh.
      checkpoints: those of the run.
      monitor: what was measured in training.
      measure: (evaluator, params, mutable, title) -> its metrics and sums.
      sums_at: {step: {evaluator: sums}} of the newest evaluations and of the best.
      final: what an earlier end of this run has measured; empty if there was none.
      workdir: the folder of the run.
    """
    choice = choose(setup.settings.checkpoint, checkpoints)
    if choice is None:
        return None
    selected: list[tuple[Params, Mutable]] = []  # restored at most once, and only if something needs them

    def restore_selected() -> tuple[Params, Mutable]:
        if not selected:
            selected.append(_restore(state, setup, checkpoints, choice, workdir))
        return selected[0]

    known = _find_known(choice, int(state.step), monitor, final)
    sums = {} if choice.name == 'average' else dict(sums_at.get(choice.steps[-1], {}))
    metrics = {}
    for name, evaluator in setup.experiment.evals.items():
        own = {k: v for k, v in known.items() if monitor.evaluator_of(k) == name}
        # A figure is drawn from sums, which no checkpoint keeps: a resumed run may know metrics without them.
        needs_sums = evaluator.draw is not None and not has_figures(workdir, name)
        if not own or (needs_sums and name not in sums):
            result = measure(name, *restore_selected(), str(choice))
            own, sums[name] = {f'{name}/{k}': v for k, v in result.metrics.items()}, result.sums
        metrics |= own
    return Handover({'weights': str(choice), 'metrics': metrics}, sums, restore_selected)


def _find_known(choice: Choice, step: int, monitor: Monitor, final: Mapping[str, Any]) -> Mapping[str, float]:
    """Returns the metrics of the chosen weights that are known already."""
    at = choice.steps[-1]
    # A run that was resumed after its end: nothing has changed since.
    if final.get('weights') == str(choice):
        return final['metrics']
    # No step of training had these weights.
    if choice.name == 'average':
        return {}
    if at == step:
        return monitor.metrics_at(step)
    ranked = monitor.ranked or {}
    return ranked['metrics'] if ranked.get('step') == at else {}


def _restore(
    state: State, setup: Setup, checkpoints: Checkpoints, choice: Choice, workdir: Path
) -> tuple[Params, Mutable]:
    if choice.name != 'average' and choice.steps[-1] == int(state.step):
        return evaluated_variables(state)
    selected = select(setup, checkpoints)
    if selected is None:
        raise CanonError(f'{workdir}: the {choice} cannot be restored')
    return selected.params, selected.mutable
