"""Systems trained in stages: each stage is made from the finished ones before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from canon.errors import UsageError
from canon.named import suggest, to_plain
from canon.train.artefacts import Artefacts, compute_stage
from canon.train.loop import fit
from canon.train.report import write_report
from canon.train.session import Fitted
from canon.train.types import Config, Experiment
from canon.train.workdir import read_mapping


class Stage(NamedTuple):
    """One stage: either `make`, which trains, or `run`, which computes.

    Both receive the folders of all finished stages by name. `artefacts/` in the folder of a stage that computed holds
    what it left.

    make: (stages) -> (experiment, its config).
    run:  (stages, artefacts) -> {name: metric} or None. It writes every artefact by `artefacts.compute(name, write)`,
          and reports progress by `artefacts.report(done, total)`.

    >>> def propose(stages, artefacts):
    ...     artefacts.compute('boxes.npz', lambda path: np.savez(path, **propose_boxes(stages['rpn'])))
    >>> stages = [Stage('rpn', make=make_rpn), Stage('proposals', run=propose)]  # doctest: +SKIP
    """

    name: str
    make: Callable[[Mapping[str, Path]], tuple[Experiment, Config]] | None = None
    run: Callable[[Mapping[str, Path], Artefacts], Mapping[str, float] | None] | None = None


def run_stages(what: Experiment | Sequence[Stage], config: Config, workdir: Path | str, **options: Any) -> Fitted:
    """Runs an experiment, or each stage in turn in `workdir/0-name`, `workdir/1-name`, ...

    A finished stage is not run again and an unfinished one resumes, so the list resumes as a single run does.

    Args:
      what: an experiment or stages.
      config: of the experiment; of the stages that compute.
      workdir: the folder of the run.
      **options: of `fit`.

    Returns:
      The result of the last stage that ran.
    """
    if isinstance(what, Experiment):
        return fit(what, config, workdir, **options)
    _check(what)
    finished, fitted = {}, None
    for folder, stage in _folders(what, workdir):
        # The last stage is run even if it is done: it returns its result from its files, and warns of new code.
        if stage is what[-1] or not _is_done(folder):
            fitted = _run_stage(stage, dict(finished), config, folder, options)
            if fitted.status == 'stopped':
                return fitted
        finished[stage.name] = folder
    assert fitted is not None
    return fitted


def last_stage(
    what: Experiment | Sequence[Stage], config: Config, workdir: Path | str
) -> tuple[Experiment, Config, Path]:
    """Returns (experiment, config, folder) for evaluation, prediction, export or replay of a run.

    Of stages it is the last that trains and has begun. Raises UsageError if there is none.
    """
    if isinstance(what, Experiment):
        return what, config, Path(workdir)
    _check(what)
    # Of an unfinished run, the stage that it has reached.
    begun = [(folder, stage) for folder, stage in _folders(what, workdir) if folder.is_dir()]
    trains = [i for i, (_, stage) in enumerate(begun) if stage.make is not None]
    if not trains:
        raise UsageError(f'{workdir} holds no run; give the --workdir of one')
    folder, stage = begun[trains[-1]]
    return (*_make(stage, {earlier.name: path for path, earlier in begun[: trains[-1]]}), folder)


def find_finished(stages: Sequence[Stage], name: str, workdir: Path | str) -> tuple[dict[str, Path], list[str]]:
    """Returns the folders of the stages before `name` that are done, by name, and the names of those that are not."""
    _check(stages)
    folders = [(stage.name, folder) for folder, stage in _folders(stages, workdir)]
    earlier = folders[: [stage for stage, _ in folders].index(name)]
    finished = {stage: folder for stage, folder in earlier if _is_done(folder)}
    return finished, [stage for stage, _ in earlier if stage not in finished]


def _run_stage(
    stage: Stage, finished: dict[str, Path], config: Config, folder: Path, options: Mapping[str, Any]
) -> Fitted:
    if stage.run is None:
        return fit(*_make(stage, finished), folder, **options)
    fitted = compute_stage(stage.run, finished, config, folder, **options)
    if fitted.status == 'done':
        write_report(folder)
    return fitted


def _make(stage: Stage, finished: Mapping[str, Path]) -> tuple[Experiment, Config]:
    """Makes a stage that trains, with the path of the stage that `run.init_from.stage` names."""
    assert stage.make is not None
    experiment, config = stage.make(finished)
    plain = to_plain(config)
    init = (plain.get('run') or {}).get('init_from') or {}
    if init.get('stage') is None:
        return experiment, config
    name = init['stage']
    if name not in finished:
        raise UsageError(
            f'run.init_from.stage={name!r}: no stage before {stage.name!r} has that name{suggest(name, finished)}'
        )
    run = {**plain['run'], 'init_from': {**init, 'stage': None, 'path': str(finished[name])}}
    return experiment, ConfigDict({**plain, 'run': run})


def _check(stages: Sequence[Stage]) -> None:
    """Raises UsageError for stages that are not a list of distinct names, each of which either trains or computes."""
    if not stages:
        raise UsageError('an experiment in stages has no stage')
    names = [stage.name for stage in stages]
    for stage in stages:
        if names.count(stage.name) > 1:
            raise UsageError(f'two stages are called {stage.name!r}; later ones find them by name')
        if (stage.make is None) == (stage.run is None):
            raise UsageError(f'the stage {stage.name!r} needs either `make`, which trains, or `run`, which computes')


def _folders(stages: Sequence[Stage], workdir: Path | str) -> list[tuple[Path, Stage]]:
    # Absolute, because a path that is written to config.json must be the same when the run is resumed.
    root = Path(workdir).expanduser().absolute()
    return [(root / f'{i}-{stage.name}', stage) for i, stage in enumerate(stages)]


def _is_done(folder: Path) -> bool:
    return read_mapping(folder / 'status.json').get('state') == 'done'
