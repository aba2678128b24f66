"""Figures of the claims about transfer (configs/claims/adaptation_pairs.py and others), and DomainBed's selection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from canon import plots
from canon.errors import CanonError
from canon.train.log import SUMMARY
from canon.train.runs import Run

RULES = ('last', 'source_risk', 'dev', 'snd', 'information', 'entropy', 'oracle')


def name_form(run: Run) -> str:
    """Returns the form of a run, with spaces."""
    return str(run.overrides['form']).replace('_', ' ')


def list_done(runs: Sequence[Run], name: Callable[[Run], str], order: Sequence[str] = ()) -> list[Run]:
    """Returns the runs that are done, sorted by the place of their name in `order`; other names come last, sorted.

    Folders are named by a hash, so that their order means nothing. Raises CanonError if there is no such run.
    """
    done = [run for run in runs if run.state == 'done']
    if not done:
        raise CanonError('no run of this sweep is done, so there is nothing to draw')
    places = {named: place for place, named in enumerate(order)}
    return sorted(done, key=lambda run: (places.get(name(run), len(places)), name(run)))


def spell(names: Iterable[str]) -> tuple[str, ...]:
    """Returns names of forms as figures have them, with spaces."""
    return tuple(name.replace('_', ' ') for name in names)


def draw_rules(runs: Sequence[Run], source: str, target: str, order: Sequence[str]) -> Figure:
    """Draws the accuracy on the target of each form by the choice of each rule, for the runs of a pair of domains."""
    scores: dict[str, dict[str, list[float]]] = {}
    for run in list_done(runs, name_form, order):
        if (run.values['data.domains.sources'], run.values['data.domains.target']) == ([source], target):
            own = scores.setdefault(name_form(run), {rule.replace('_', ' '): [] for rule in RULES})
            for rule in RULES:
                own[rule.replace('_', ' ')].append(run.metrics.get(f'{SUMMARY}/{rule}', float('nan')))
    return plots.draw_form_scores(scores, f'{source} to {target}: the model that each rule selects', 'target accuracy')


def draw_accuracy(
    runs: Sequence[Run],
    name: Callable[[Run], str],
    number: Callable[[Run], float],
    xlabel: str,
    order: Sequence[str],
    metric: str = 'target/accuracy',
) -> Figure:
    """Draws the mean accuracy of the last step with its standard error, a line per name against a number.

    Args:
      runs: of the sweep.
      name: of the line of a run.
      number: its place on the axis; equal ones for all runs give bars.
      xlabel: of the axis.
      order: of the names.
      metric: that is drawn.
    """
    lines: dict[str, dict[float, list[float]]] = {}
    for run in list_done(runs, name, order):
        lines.setdefault(name(run), {}).setdefault(float(number(run)), []).append(run.metrics[metric])
    return plots.draw_mean_errors(lines, xlabel, 'accuracy on the target, last step')


def draw_environments(runs: Sequence[Run], name: Callable[[Run], str], order: Sequence[str]) -> Figure:
    """Draws the accuracy of each method in training and on the target, with a dot per seed."""
    scores: dict[str, dict[str, list[float]]] = {}
    for run in list_done(runs, name, order):
        own = scores.setdefault(name(run), {'training': [], 'target': []})
        own['training'].append(run.metrics['source/accuracy'])
        own['target'].append(run.metrics['target/accuracy'])
    return plots.draw_form_scores(scores, 'coloured digits', 'accuracy')


# --- DomainBed -------------------------------------------------------------------------------------------------------

METHODS = ('training domains', 'leave one out', 'oracle')


def select_domainbed(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the accuracy on a target of the hyperparameters that each of DomainBed's rules selects.

    Gulrajani & Lopez-Paz 2021, section 3. 'training domains' selects by the accuracy on held-out examples of the
    sources; 'oracle' by that on held-out examples of the target, of the last step; 'leave one out' by the mean accuracy
    of runs of the same hyperparameters that also leave out one of the sources, on what they leave out. The training
    is not stopped early by any of them.

    Args:
      runs: of one method, one target and one trial: {'hyperparameters': id, 'left_out': a source or None, 'accuracy' on
        the target, 'source': on held-out sources, 'target': on held-out targets, 'others': on the source left out}.

    Returns:
      {rule: accuracy}; 'leave one out' is absent where runs of it are.
    """
    full = [run for run in runs if run['left_out'] is None]
    if not full:
        raise CanonError('no run of this sweep has all sources, so there is nothing to select')
    chosen = {
        'training domains': max(full, key=lambda run: run['source'])['accuracy'],
        'oracle': max(full, key=lambda run: run['target'])['accuracy'],
    }
    folds = {run['hyperparameters']: _list_folds(runs, run['hyperparameters']) for run in full}
    count = max(map(len, folds.values()))
    complete = [run for run in full if count and len(folds[run['hyperparameters']]) == count]
    if complete:
        own = max(complete, key=lambda run: sum(folds[run['hyperparameters']]))
        chosen['leave one out'] = own['accuracy']
    return {rule: chosen[rule] for rule in METHODS if rule in chosen}


def _list_folds(runs: Sequence[Mapping[str, Any]], hyperparameters: Any) -> list[float]:
    return [run['others'] for run in runs if run['left_out'] is not None and run['hyperparameters'] == hyperparameters]


def draw_domainbed(runs: Sequence[Run], order: Sequence[str]) -> dict[str, Figure]:
    """Draws what each rule selects, for every target (a number) of a sweep of `configs/claims/_domainbed.py`.

    A dot is a trial, a bar up to their median.
    """

    def get_method(run):
        return str(run.values['method.name'])

    groups: dict[str, dict[str, dict[int, list[dict[str, Any]]]]] = {}
    for run in list_done(runs, get_method, order):
        of_target = groups.setdefault(str(run.values['data.domains.target']), {})
        of_trial = of_target.setdefault(get_method(run), {})
        of_trial.setdefault(int(run.overrides['seed']), []).append(_read_record(run))
    figures = {}
    for target, methods in sorted(groups.items(), key=lambda item: float(item[0])):
        scores: dict[str, dict[str, list[float]]] = {}
        for method, trials in methods.items():
            own = scores.setdefault(method, {rule: [] for rule in METHODS})
            for records in trials.values():
                chosen = select_domainbed(records)
                for rule in METHODS:
                    own[rule].append(chosen.get(rule, float('nan')))
        figures[f'target_{target}'] = plots.draw_form_scores(scores, f'target {target}', 'accuracy on the target')
    return figures


def _read_record(run: Run) -> dict[str, Any]:
    target, left_out = run.values['data.domains.target'], run.values['data.evals.left_out.domain']
    return {
        'hyperparameters': run.overrides['hyperparameters.number'],
        'left_out': None if left_out == target else left_out,
        'accuracy': run.metrics['target/accuracy'],
        'source': run.metrics['source/accuracy'],
        'target': run.metrics['target_held_out/accuracy'],
        'others': run.metrics['left_out/accuracy'],
    }
