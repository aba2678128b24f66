"""`fit`: the one loop. It trains any experiment, and is the only place with side effects."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from canon import optim
from canon.errors import CanonError
from canon.train import shard
from canon.train.checkpoint import Checkpoints
from canon.train.evaluate_once import EvaluationSession
from canon.train.evaluation import Interrupted
from canon.train.figures import draw_figures
from canon.train.finite import FiniteGuard
from canon.train.guard import Stopper, Watchdog
from canon.train.handover import measure_selected
from canon.train.log import SUMMARY, Progress, read_rows
from canon.train.session import Fitted, Session
from canon.train.statistics import evaluated_variables
from canon.train.types import Config, Experiment, State
from canon.train.window import Window

_AHEAD = 2  # steps in flight: the device never waits for the host, and a bad loss is seen two steps late

_log = logging.getLogger('canon')


def fit(
    experiment: Experiment,
    config: Config,
    workdir: Path | str,
    *,
    force: bool = False,
    quiet: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Fitted:
    """Trains `experiment` into `workdir`, resuming from its newest checkpoint if there is one.

    An experiment without training data is evaluated once. Call it with the same arguments on every process of a
    distributed job.

    Args:
      experiment: what is trained.
      config: needs `run` (the keys of `canon.train.Settings`) and may have `seed` (0 by default); all of it is written
        to `config.json`.
      workdir: the folder of the run.
      force: resumes a run with another config.
      quiet: prints nothing.
      about: what `run.json` also records (the command).

    Raises:
      UsageError: something does not fit: a setting, the data, a folder of another config.
      NonFinite: the loss is not finite.
      CanonError: a save failed.
    """
    with contextlib.ExitStack() as resources:
        kind = EvaluationSession if experiment.train is None else TrainingSession
        return kind(experiment, config, Path(workdir), force, quiet, about or {}, resources).run()


class TrainingSession(Session):
    """The state of one training."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.limit = min(self.settings.steps, self.settings.stop_after or self.settings.steps)
        self.observed: dict[str, float] = {}  # metrics that the optimizer got after the save, at the same step
        # {step: {evaluator: sums}} of the newest evaluations and of the best, for figures.
        self.sums: dict[int, dict[str, Any]] = {}
        self.statistics_at: int | None = None  # the step at which averaged weights got their batch statistics
        self.profiling = False

    def run(self) -> Fitted:
        s = self.settings
        with Checkpoints(self.workdir / 'checkpoints', s.checkpoint) as self.checkpoints:
            self.finite = FiniteGuard(self.workdir, self.setup.names, self.limit, self.checkpoints.steps)
            self.window = Window(self.setup.names)
            state = self._start()
            self.describe_run()
            start = int(state.step)
            self.writer = self.open_log(start, self.monitor.measured) if self.main else None
            self.progress = Progress(self.limit, start, self.quiet)
            with self.reported_failures(), Stopper() as self.stopper, Watchdog(self.workdir, s.watchdog) as self.dog:
                self._greet(start)
                self.write_status('running', start)
                state, status = self._train(state, start)
                self._profile(None)
                # Before the weights are measured: an evaluation that fails or is interrupted loses no step.
                state = self._save(state)
                self.checkpoints.wait()
                if status != 'stopped':
                    status = self._finish(state, status)
                self.checkpoints.amend(int(state.step), self._dump())
                self.write_status('stopped' if status == 'stopped' else 'done', int(state.step))
                shard.wait_for_all('fit is done')  # the others must not leave while the first process draws
        metrics, weights = self.metrics_and_weights()
        return Fitted(state, metrics, status, self.workdir, weights)

    # Begin

    def _start(self) -> State:
        """Restores the newest checkpoint, or makes the first state."""
        restored = self.checkpoints.restore(self.setup.target)
        if restored is None:
            return self.setup.starting_state(self.experiment.read)
        state, dumped = restored
        self.observed = dumped.get('observed') or {}
        self.final = dumped.get('final')
        self.train_seconds = dumped.get('train_seconds', 0.0)
        self.finite.skipped = dumped.get('skipped', 0)
        self.monitor.restore(dumped)
        self.window.restore(dumped.get('window'))
        self.statistics_at = int(state.step)
        for name, value in optim.overrides(state.opt).items():  # also every constant rate of an older checkpoint
            _log.warning('%s=%g was set in the checkpoint and overrides that of the config', name, value)
        return state

    def _greet(self, start: int) -> None:
        """Reports what a run that was begun before will do."""
        if not start:
            return
        self.warn_of_new_code(f'what was trained up to step {start} is kept')
        if start >= self.settings.steps or self.monitor.is_out_of_patience():
            self.progress.say(
                f'the run in {self.workdir} was already done at step {start}: nothing is trained. To train it longer, '
                'give more --config.run.steps with --force; to train again, give another --workdir'
            )
        else:
            self.final = None  # of a run that was shorter
            self.progress.say(f'resumed at step {start} from {self.workdir}')

    # Steps

    def _train(self, state: State, step: int) -> tuple[State, str]:
        compiled, layout = self.setup.compiled_step(), shard.batch_sharding(self.setup.mesh)
        self.waiting: deque = deque()
        batches, shapes = None, set()
        while True:
            state, status = self._boundary(state, step)
            if status is not None or step >= self.limit:
                return state, status or ('done' if step >= self.settings.steps else 'stopped')
            # Only once a step is to be made: a finished run reads no data.
            if batches is None:
                batches = self.experiment.train.iterate(step)
            self.window.resume()
            self.dog.resume()
            began = time.perf_counter()
            # The state is sound if reading fails, such as for a damaged file; after a failed step it is donated and
            # gone.
            try:
                batch = shard.hand_over(next(batches), layout)
            except Exception:
                self._rescue(state)
                raise
            self.window.data_seconds += time.perf_counter() - began
            # jit compiles once per shape. Seconds of compilation are no hang for the watchdog, nor time of a step.
            shape = tuple(x.shape for x in jax.tree.leaves(batch))
            compiles = shape not in shapes
            if compiles:
                began = self._announce_compilation(first=not shapes)
            self._profile(step)
            # Returns at once: the device computes while the host reads the next batch.
            state, metrics = compiled(state, batch)
            step += 1
            self.waiting.append((step, metrics))
            if compiles:
                jax.block_until_ready(metrics)
                self._account_compilation(time.perf_counter() - began, step, first=not shapes)
                shapes.add(shape)
            if len(self.waiting) > _AHEAD:
                self._read()

    def _announce_compilation(self, first: bool) -> float:
        """Stops the clocks while the step is compiled for a new batch shape."""
        self.dog.rest()
        if first:
            self.progress.say(f'compiling the step for {len(jax.devices())} x {jax.devices()[0].device_kind} ...')
        else:
            self._read(every=True)  # so that their time counts as theirs
            self.window.pause()
            self.dog.rest()
        return time.perf_counter()

    def _account_compilation(self, seconds: float, step: int, first: bool) -> None:
        if first:
            self.progress.say(f'compiled in {seconds:.1f} s')
            self.progress.restart_clock(step)
            self.window.restart_clock(untimed=1)
        else:
            self.progress.say(f'compiled the step for a new batch shape, at step {step}, in {seconds:.1f} s')
            self.window.skip_step()

    def _boundary(self, state: State, step: int) -> tuple[State, str | None]:
        """Does all that is due between two steps: a log row, a save, evaluations, the end."""
        s, stopping = self.settings, self.stopper.is_stopping(step)
        last = step >= self.limit
        due = self.monitor.list_due(step)
        # A step whose evaluation may rank it among the best has to be on disk, whatever `every` says.
        ranks = self.monitor.evaluator_of(s.checkpoint.best or '') in due
        save = step and (step % s.checkpoint.every == 0 or ranks or (due and last))
        # Whatever happens between steps waits for the device first, so that its time does not count as that of steps.
        if step and (step % s.log_every == 0 or due or save or last or stopping):
            self._read(every=True)
            self.window.pause()
        if step and (step % s.log_every == 0 or last or stopping):
            self._log_row(step)
        if stopping:
            self.progress.say(f'stopping on request: saving at step {step}')
            return state, 'stopped'
        if save:
            state = self._save(state)
        try:
            for name in due:
                state = self._evaluate(name, state, step)
            if self.monitor.is_out_of_patience() and not last:
                return self._stop_early(state, step), 'early'
        except Interrupted:
            self.progress.say(f'stopping on request: saving at step {step}; the evaluation is redone on resuming')
            return state, 'stopped'
        except Exception:
            self._rescue(state)
            raise
        if due:
            self.write_status('running', step)
        if due or (step and step % s.log_every == 0):
            self.refresh_report()
        return state, None

    def _stop_early(self, state: State, step: int) -> State:
        """The last step is evaluated by all evaluators."""
        early = self.settings.early_stop
        assert early is not None
        self.progress.say(f'early stop at step {step}: {early.metric} is no better than {self.monitor.best}')
        self._log_row(step)
        for name in self.monitor.list_unmeasured(step):
            state = self._evaluate(name, state, step)
        return state

    def _read(self, every: bool = False) -> None:
        """Takes the metrics of finished steps to the host; raises NonFinite naming the step."""
        while self.waiting and (every or len(self.waiting) > _AHEAD):
            step, metrics = self.waiting.popleft()
            values = np.asarray(metrics, np.float64)
            self.dog.beat()
            self.progress.advance(step)
            self.window.add(self.finite.check_metrics(step, values))

    def _log_row(self, step: int) -> None:
        if not self.window.steps:
            return
        row = {f'train/{name}': value for name, value in self.window.means().items()}
        self.train_seconds += self.window.seconds()
        if self.writer is not None:
            self.writer.write(step, row)
        self.progress.show_row(step, row)
        self.window = Window(self.setup.names)
        self.window.pause()
        self.write_status('running', step)

    # Evaluation

    def _evaluate(self, name: str, state: State, step: int) -> State:
        """Evaluates the state, for plateau schedules, early stopping and the ranking of checkpoints, too."""
        began = time.perf_counter()
        state = self._refresh(state)
        result = self.measure(name, *evaluated_variables(state), f'step {step}')
        metrics = {f'{name}/{k}': v for k, v in result.metrics.items()}
        value = self.monitor.record(name, step, metrics)
        if self.writer is not None:
            self.writer.write(step, {**metrics, f'{name}/seconds': time.perf_counter() - began})
        # Sums may hold an evaluator's rows: those of other steps than the newest and the best are freed.
        best = (self.monitor.ranked or {}).get('step')
        self.sums = {at: kept for at, kept in self.sums.items() if at in (step, best)}
        self.sums.setdefault(step, {})[name] = result.sums
        # A plateau schedule reads the metric from the optimizer's state.
        state = state._replace(opt=optim.observe(state.opt, metrics))
        self.observed |= metrics
        self.checkpoints.amend(step, self._dump(), value)
        return state

    def _refresh(self, state: State) -> State:
        """Measures the batch statistics of averaged weights, once per step."""
        step = int(state.step)
        if self.statistics_at != step:
            self.dog.rest()
            state = self.setup.refresh_statistics(state, self.experiment.train)
            self.statistics_at = step
        return state

    # Saving and the end

    def _save(self, state: State) -> State:
        step = int(state.step)
        # Nothing is learnt at step 0; a step that is due twice (by `every` and at the end) is saved once.
        if step == 0 or step in self.checkpoints.steps():
            return state
        self.dog.rest()
        # A checkpoint of NaN would be restored again and again; the one before stays the newest.
        self.finite.check_params(state)
        state = self._refresh(state)
        self.observed = {}  # they are in the state that is saved
        self.checkpoints.save(state, self._dump())
        return state

    def _dump(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps besides the state."""
        return {
            **self.monitor.dump(),
            'skipped': self.finite.skipped,
            'final': self.final,
            'train_seconds': self.train_seconds,
            'observed': self.observed,
            'window': self.window.dump(),
        }

    def _rescue(self, state: State) -> None:
        """Saves before an error ends the run. A lone process only: others may be elsewhere."""
        if jax.process_count() == 1:
            with contextlib.suppress(CanonError):  # the error that brought us here is the one to report
                self._read(every=True)
                self._save(state)
                self.checkpoints.wait()

    def _finish(self, state: State, status: str) -> str:
        """Measures the weights that are handed on if that was not done, and draws; returns the status."""
        try:
            handover = measure_selected(
                *(state, self.setup, self.checkpoints, self.monitor, self.measure, self.sums),
                *(self.final or {}, self.workdir),
            )
        except Interrupted:
            self.progress.say('stopped on request while the finished run was evaluated; the same command does the rest')
            return 'stopped'
        if handover is not None:
            step = int(state.step)
            self.final = {**handover.final, 'metrics': handover.final['metrics'] | self._summarise(step)}
            self.checkpoints.amend(step, self._dump())
            draw_figures(self.experiment.evals, handover.sums, handover.variables, self.workdir, self.writer, step)
        return status

    def _summarise(self, step: int) -> dict[str, float]:
        """Computes and logs what the experiment makes of the log of the run, once: the first process, for all."""
        summarise, known = self.experiment.summarise, (self.final or {}).get('metrics', {})
        values = {name: value for name, value in known.items() if name.startswith(f'{SUMMARY}/')}
        if summarise is None or values:  # a finished run that is called again has them
            return values
        if self.writer is not None:
            summary = summarise(read_rows(self.writer.path))
            values = {f'{SUMMARY}/{name}': float(value) for name, value in summary.items()}
            if values:
                self.writer.write(step, values)
                self.progress.say('  '.join(f'{name} {value:.4g}' for name, value in values.items()))
        return values if jax.process_count() == 1 else shard.gather_objects(values)[0]

    def _profile(self, step: int | None) -> None:
        """Starts and stops the trace at its steps; None ends it with the run."""
        p = self.settings.profile
        if p is not None and step == p.start:
            jax.profiler.start_trace(str(self.workdir / 'profile'))
            self.profiling = True
        elif self.profiling and p is not None and (step is None or step == p.start + p.steps):
            self._read(every=True)
            jax.profiler.stop_trace()
            self.profiling = False
            self.progress.say(f'profile written to {self.workdir / "profile"}')
