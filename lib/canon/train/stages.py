"""Systems trained in stages: experiments run one after the other, each made from the finished one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from canon.errors import UsageError
from canon.train.loop import Fitted, fit
from canon.train.types import Config, Experiment
from canon.train.workdir import read_json


class Stage(NamedTuple):
    """make: the finished workdir of the stage before (None for the first) -> (experiment, its config)."""

    name: str
    make: Callable[[Path | None], tuple[Experiment, Config]]


def run_stages(what: Experiment | Sequence[Stage], config: Config, workdir: Path | str, **options: Any) -> Fitted:
    """`fit` of an experiment; or of each stage in turn, in `workdir/0-name`, `workdir/1-name`, ...

    A finished stage is not run again, an unfinished one resumes, so the list resumes as a single run does. `options`
    go to `fit`. Returns the result of the last stage that ran.
    """
    if isinstance(what, Experiment):
        return fit(what, config, workdir, **options)
    if not what:
        raise UsageError('an experiment in stages has no stage')
    before, fitted = None, None
    for folder, stage in _folders(what, workdir):
        last = stage is what[-1]
        if last or not _done(folder):
            fitted = fit(*stage.make(before), folder, **options)
            if fitted.status == 'stopped':
                return fitted
        before = folder
    assert fitted is not None
    return fitted


def last_stage(
    what: Experiment | Sequence[Stage], config: Config, workdir: Path | str
) -> tuple[Experiment, Config, Path]:
    """What a look at a run is a look at: the experiment itself, or the last stage that has begun."""
    if isinstance(what, Experiment):
        return what, config, Path(workdir)
    begun = [(folder, stage) for folder, stage in _folders(what, workdir) if folder.is_dir()]
    if not begun:
        raise UsageError(f'{workdir} holds no run; give the --workdir of one')
    folder, stage = begun[-1]
    before = begun[-2][0] if len(begun) > 1 else None
    return (*stage.make(before), folder)


def _folders(stages: Sequence[Stage], workdir: Path | str) -> list[tuple[Path, Stage]]:
    return [(Path(workdir) / f'{i}-{stage.name}', stage) for i, stage in enumerate(stages)]


def _done(folder: Path) -> bool:
    return (read_json(folder / 'status.json') or {}).get('state') == 'done'
