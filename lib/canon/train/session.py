"""One call of `fit` and its folder: what training and a single evaluation have in common."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from canon.errors import CanonError, UsageError
from canon.named import to_plain
from canon.train.code import digest_code
from canon.train.evaluation import Evaluation, compile_measure, evaluate, list_metric_names
from canon.train.guard import Stopper, Watchdog
from canon.train.log import MetricsWriter, Progress
from canon.train.monitor import Monitor
from canon.train.report import LiveReport
from canon.train.setup import make_setup
from canon.train.status import Status
from canon.train.trackers import check_names
from canon.train.types import Config, Experiment
from canon.train.workdir import describe_run, lock_workdir, open_workdir, read_mapping

_log = logging.getLogger('canon')


class Fitted(NamedTuple):
    """The result of `fit`.

    state:   the last state; None for a stage that computes.
    metrics: those of the weights that the run hands on; of a stopped run the newest of each evaluator.
    status:  'done', 'stopped' (call again to resume) or 'early' (early stop).
    workdir: the folder of the run.
    weights: which weights the metrics are of ('best weights, of step 300').
    """

    state: Any  # State | None
    metrics: dict[str, float]
    status: str
    workdir: Path
    weights: str = ''

    @property
    def step(self) -> int:
        """The number of updates made."""
        return 0 if self.state is None else int(self.state.step)


class Session:
    """An experiment prepared for a folder, which it holds, with the files that say how it stands.

    Subclasses set `stopper`, `dog`, `writer` and `progress` when they begin.
    """

    stopper: Stopper
    dog: Watchdog
    writer: MetricsWriter | None  # None on processes that write nothing
    progress: Progress

    def __init__(
        self,
        experiment: Experiment,
        config: Config,
        workdir: Path,
        force: bool,
        quiet: bool,
        about: Mapping[str, Any],
        resources: contextlib.ExitStack,
    ):
        """Prepares the experiment, checks what its settings name, and opens the folder: see `fit`.

        resources: holds the lock of the folder until it is closed.
        """
        self.main = jax.process_index() == 0
        self.quiet = quiet or not self.main
        # All that can be wrong with a config is found before the folder is touched.
        self.setup = make_setup(experiment, config)
        self.experiment, self.settings = self.setup.experiment, self.setup.settings
        self.code = digest_code(self.experiment)
        self.begun_with = read_mapping(workdir.expanduser() / 'run.json').get('code')
        about = {**about, 'experiment': dict(self.experiment.about), 'code': self.begun_with or self.code}
        self.monitor = Monitor(self.setup, config)
        # Compiled once, whatever the number of evaluations.
        self.measures = {n: compile_measure(e, self.setup.mesh) for n, e in self.experiment.evals.items()}
        self.monitor.check_names(
            lambda name: list_metric_names(self.experiment.evals[name], self.setup.target, self.measures[name])
        )
        check_names(self.settings.log)
        if self.main:
            resources.enter_context(lock_workdir(workdir))
        self.workdir = open_workdir(workdir, config, about, force, self.main)
        self._about = about
        self.report = LiveReport(self.workdir) if self.main else None
        self.status = Status(self.workdir, self.settings.steps, self.main)
        self.final: dict[str, Any] | None = None  # the weights that are handed on, and their metrics
        self.train_seconds = 0.0
        self.state = 'running'  # as last reported
        self.config = to_plain(config)

    def describe_run(self) -> None:
        """Writes the files that describe the run; call it once the state is there, which may be refused."""
        if self.main:
            describe_run(self.workdir, self.config, self._about)

    def open_log(self, resume_at: int, measured: Mapping[str, int] | None = None) -> MetricsWriter:
        """Opens the log of the run, with its trackers: see `MetricsWriter`."""
        return MetricsWriter(self.workdir, resume_at, measured, self.settings.log, self.config)

    @contextlib.contextmanager
    def reported_failures(self):
        """Closes the logs at the end, and records what ended the run."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(CanonError):  # the error that brought us here is the one to report
                self.write_status('failed', None, error)
            raise
        finally:
            self.progress.close()
            if self.writer is not None:
                self.writer.close(self.state)
            if self.report is not None:
                self.report.close()

    def measure(self, name: str, params: Any, mutable: Any, title: str) -> Evaluation:
        """Runs the evaluator `name` and shows its metrics after `title`; raises Interrupted if the run is to stop."""
        self.dog.rest()
        # In a distributed run all must leave an evaluation at one place, so only a lone process aborts it.
        stop = self.stopper.is_stopping if jax.process_count() == 1 else lambda step: False
        result = evaluate(
            self.experiment.evals[name],
            params,
            mutable,
            self.setup.mesh,
            self.measures[name],
            on_batch=lambda done, of: done < of and stop(self.status.step),
            quiet=self.quiet,
        )
        if result.sums is None:
            raise UsageError(f'evaluator {name!r}: its data hold no batch')
        shown = '  '.join(f'{k} {v:.4g}' for k, v in result.metrics.items())
        self.progress.say(f'{title}  {name}: {shown}')
        return result

    def refresh_report(self) -> None:
        """Rewrites `report.html` if it is due."""
        if self.report is not None:
            self.dog.rest()  # the figure of the curves takes seconds
            self.report.refresh()

    def warn_of_new_code(self, remains: str) -> None:
        """Warns if the run was begun by other code; `remains` says what is left of that."""
        if self.begun_with not in (None, self.code):
            _log.warning(
                '%s: the code of the experiment is not the one that the run began with; %s. Give another --workdir to '
                'train with the new code from the start',
                *(self.workdir, remains),
            )

    def metrics_and_weights(self) -> tuple[dict[str, float], str]:
        """Returns the metrics that the run reports, and which weights they are of."""
        if self.final is None:
            return dict(self.monitor.metrics), ''
        return dict(self.final['metrics']), self.final['weights']

    def write_status(self, state: str, step: int | None, error: BaseException | None = None) -> None:
        """Writes `status.json`: see `Status.write`."""
        self.state = state
        self.status.write(state, step, *self.metrics_and_weights(), self.train_seconds, error)
