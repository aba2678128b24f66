"""`fit`: the one loop. It trains any experiment and is the only place with side effects."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from canon import optim
from canon.errors import CanonError, UsageError
from canon.named import near
from canon.train import checkpoint, shard
from canon.train.evaluation import Evaluation, Interrupted, compile_measure, evaluate
from canon.train.guard import Stopper, Watchdog
from canon.train.log import MetricsWriter, Progress
from canon.train.setup import prepare
from canon.train.types import Config, Experiment, State
from canon.train.workdir import open_workdir, write_json

_AHEAD = 2  # steps in flight: the device never waits for the host, and a bad loss is seen two steps late


class Fitted(NamedTuple):
    """What `fit` returns. status: 'done', 'stopped' (resume by calling again) or 'early' (early stop)."""

    state: State
    metrics: dict[str, float]
    status: str
    workdir: Path


class NonFinite(CanonError):
    """The loss or its gradient is not finite."""


def fit(
    experiment: Experiment,
    config: Config,
    workdir: Path | str,
    *,
    force: bool = False,
    quiet: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Fitted:
    """Trains `experiment` into `workdir`, from its newest checkpoint where there is one.

    config needs `run` (the keys of `canon.train.Settings`) and may have `seed` (0 without); all of it is written to
    `config.json` and must be the same when a run is resumed, unless `force`. about: what `run.json` shall say besides
    (the command). Call it with the same arguments on every process of a distributed run.
    Raises UsageError for what does not fit, NonFinite where the loss is not finite, CanonError where a save fails.
    """
    loop = _Loop(experiment, config, Path(workdir), force, quiet, about or {})
    return loop.run()


class _Loop:
    """The state of one call of `fit`."""

    def __init__(self, experiment, config, workdir, force, quiet, about):
        self.main = jax.process_index() == 0
        self.experiment = experiment
        self.quiet = quiet or not self.main
        self.setup = prepare(experiment, config)
        self.settings = self.setup.settings
        about = {**about, 'experiment': dict(experiment.about)}
        self.workdir = open_workdir(workdir, config, about, force, self.main)
        self.limit = min(self.settings.steps, self.settings.stop_after or self.settings.steps)
        self.cadence = {name: self.settings.steps for name in experiment.evals}
        for name, evaluation in self.settings.evals.items():
            if name not in experiment.evals:
                raise UsageError(f'run.evals.{name}: the experiment has no such evaluator, only {sorted(self.cadence)}')
            self.cadence[name] = evaluation.every
        self.plateaus = optim.watched(self.setup.target.opt)
        for key, metric in self._watched():
            if metric.rpartition('/')[0] not in self.cadence:
                raise UsageError(f'{key}={metric!r} names no evaluator; there are {", ".join(sorted(self.cadence))}')
        self.measures = {n: compile_measure(e, self.setup.mesh) for n, e in experiment.evals.items()}
        self.sums: dict[str, Any] = {}
        self.profiling, self.at = False, 0
        # Saved with every checkpoint: what the boundary work of a step has come to.
        self.memory: dict[str, Any] = {
            'boundary': 0,
            'metrics': {},
            'best': None,
            'bad': 0,
            'train_seconds': 0.0,
        }
        self.seconds = time.perf_counter()

    def run(self) -> Fitted:
        s = self.settings
        with checkpoint.Checkpoints(self.workdir / 'checkpoints', s.checkpoint) as self.checkpoints:
            state = self._start()
            start = int(state.step)
            self.writer = MetricsWriter(self.workdir, start, s.tensorboard) if self.main else None
            self.progress = Progress(self.limit, start, self.quiet)
            try:
                with Stopper() as self.stopper, Watchdog(self.workdir, s.watchdog) as self.dog:
                    if start:
                        self.progress.say(f'resumed at step {start} from {self.workdir}')
                    self._status('running', start)
                    state, status = self._train(state, start)
                    self._profile(None)
                    self._save(state)
                    self.checkpoints.wait()
                    self._draw(state, status)
                    self._status('stopped' if status == 'stopped' else 'done', int(state.step))
                    shard.wait_for_all('fit is done')  # the others must not leave while the first process draws
            except BaseException as error:
                self._status('failed', None, error)
                raise
            finally:
                self.progress.close()
                if self.writer is not None:
                    self.writer.close()
        return Fitted(state, dict(self.memory['metrics']), status, self.workdir)

    def _start(self) -> State:
        restored = self.checkpoints.restore(self.setup.target)
        if restored is not None:
            state, memory = restored
            self.memory |= memory
            return state
        return self.setup.starting_state(self.experiment.read)

    def _train(self, state: State, step: int) -> tuple[State, str]:
        compiled, layout = self.setup.compiled_step(), shard.batch_sharding(self.setup.mesh)
        self.waiting: deque = deque()
        self.window = _Window(self.setup.names)
        batches, first = None, True
        while True:
            state, status = self._boundary(state, step)
            if status is not None or step >= self.limit:
                return state, status or ('done' if step >= self.settings.steps else 'stopped')
            if batches is None:
                batches = self.experiment.train.iterate(step)
            self.window.resume()
            began = time.perf_counter()
            batch = shard.put(next(batches), layout)
            self.window.data_seconds += time.perf_counter() - began
            if first:
                self.progress.say(f'compiling the step for {len(jax.devices())} x {jax.devices()[0].device_kind} ...')
                began = time.perf_counter()
            self._profile(step)
            state, metrics = compiled(state, batch)
            step += 1
            self.waiting.append((step, metrics))
            if first:
                jax.block_until_ready(metrics)
                self.progress.say(f'compiled in {time.perf_counter() - began:.1f} s')
                self.progress.restart_clock(step)
                self.window.begin(untimed=1)
                first = False
            if len(self.waiting) > _AHEAD:
                self._read()

    def _boundary(self, state: State, step: int) -> tuple[State, str | None]:
        """All that is due between two steps: a log row, evaluations, a save, the end."""
        s, stopping = self.settings, self.stopper.asked(step)
        last = step >= self.limit
        due = [n for n, every in self.cadence.items() if step and (step % every == 0 or step >= s.steps)]
        due = [n for n in due if self.memory['boundary'] < step]
        save = step and (step % s.checkpoint.every == 0)
        if step and (step % s.log_every == 0 or due or save or last or stopping):
            self._read(every=True)
            self.window.pause()
        if step and (step % s.log_every == 0 or last or stopping):
            self._log(step)
        if stopping:
            self.progress.say(f'asked to stop: saving at step {step}')
            return state, 'stopped'
        value = None
        if due:
            try:
                results = {name: self._evaluate(name, state, step) for name in due}
            except Interrupted:
                self.progress.say(f'asked to stop: saving at step {step}; the evaluation is redone on resuming')
                return state, 'stopped'
            metrics = {f'{n}/{k}': v for n, e in results.items() for k, v in e.metrics.items()}
            state, value = self._learn_from(state, step, metrics)
        if step:
            self.memory['boundary'] = step
        if save or value is not None:
            self._save(state, value)
        if s.early_stop is not None and self.memory['bad'] >= s.early_stop.patience and not last:
            best = self.memory['best']
            self.progress.say(f'early stop at step {step}: {s.early_stop.metric} is no better than {best}')
            if due:
                self._log(step)
                for name in self.cadence.keys() - set(due):  # the last step is evaluated by all
                    result = self._evaluate(name, state, step)
                    self.memory['metrics'] |= {f'{name}/{k}': v for k, v in result.metrics.items()}
            return state, 'early'
        return state, None

    def _read(self, every: bool = False) -> None:
        """Takes finished steps' metrics to the host; raises NonFinite naming the step."""
        while self.waiting and (every or len(self.waiting) > _AHEAD):
            step, metrics = self.waiting.popleft()
            values = np.asarray(metrics, np.float64)
            self.dog.beat()
            self.progress.advance(step)
            named = dict(zip(self.setup.names, values.T, strict=True))
            if all(math.isfinite(named[n][0]) for n in ('loss', 'grad_norm') if n in named):
                self.window.add(values)
            elif 'skipped_updates' not in named:  # `optim.skip_nonfinite` asks to go on, and counts
                raise NonFinite(self._nonfinite_line(step, named))

    def _nonfinite_line(self, step: int, values: Mapping[str, Any]) -> str:
        shown = ', '.join(f'{n} {values[n][0] / values[n][1]:g}' for n in ('loss', 'grad_norm') if n in values)
        saved = self.checkpoints.steps()
        kept = f'the newest checkpoint is of step {saved[-1]}' if saved else 'nothing was saved yet'
        return (
            f'step {step} is not finite: {shown}; {kept}. Look at that step with: '
            f'./launch.sh replay --workdir={self.workdir} --step={step}'
        )

    def _log(self, step: int) -> None:
        if not self.window.steps:
            return
        row = {f'train/{name}': value for name, value in self.window.means().items()}
        self.memory['train_seconds'] += self.window.seconds()
        if self.writer is not None:
            self.writer.write(step, row)
        self.progress.row(step, row)
        self.window = _Window(self.setup.names)
        self.window.pause()
        self._status('running', step)

    def _evaluate(self, name: str, state: State, step: int) -> Evaluation:
        self.dog.rest()
        began = time.perf_counter()
        evaluator = self.experiment.evals[name]
        # In a distributed run all must leave an evaluation at one place, so only a lone process breaks it off.
        stop = self.stopper.asked if jax.process_count() == 1 else lambda step: False
        result = evaluate(
            evaluator,
            optim.eval_params(state.params, state.opt),
            state.mutable,
            self.setup.mesh,
            self.measures[name],
            on_batch=lambda done, of: done < of and stop(step),
        )
        if result.sums is None:
            raise UsageError(f'evaluator {name!r}: its data hold no batch')
        self.sums[name] = result.sums
        row = {f'{name}/{k}': v for k, v in result.metrics.items()}
        if self.writer is not None:
            self.writer.write(step, {**row, f'{name}/seconds': time.perf_counter() - began})
        shown = '  '.join(f'{k} {v:.4g}' for k, v in result.metrics.items())
        self.progress.say(f'step {step}  {name}: {shown}')
        return result

    def _learn_from(self, state: State, step: int, metrics: dict[str, float]) -> tuple[State, float | None]:
        """Plateau schedules, early stop and best checkpoints take note of an evaluation."""
        s = self.settings
        for key, metric in self._watched():
            if metric not in metrics and any(m.startswith(metric.rpartition('/')[0] + '/') for m in metrics):
                raise UsageError(f'{key}={metric!r} is measured by no evaluator{near(metric, metrics)}')
        state = state._replace(opt=optim.observe(state.opt, metrics))
        self.memory['metrics'] = {**self.memory['metrics'], **metrics}
        if s.early_stop is not None and s.early_stop.metric in metrics:
            value, best = metrics[s.early_stop.metric], self.memory['best']
            sign = 1 if s.early_stop.mode == 'max' else -1
            better = best is None or sign * (value - best) > s.early_stop.min_delta
            if better and math.isfinite(value):
                self.memory |= {'best': value, 'bad': 0}
            else:
                self.memory['bad'] += 1
        return state, metrics.get(s.checkpoint.best or '')

    def _watched(self) -> list[tuple[str, str]]:
        """The metrics that settings and plateau rules speak of, with their keys."""
        s = self.settings
        early = s.early_stop.metric if s.early_stop is not None else None
        keyed = [('run.checkpoint.best', s.checkpoint.best), ('run.early_stop.metric', early)]
        keyed += [('tx: the plateau rule', metric) for metric in self.plateaus]
        return [(key, metric) for key, metric in keyed if metric is not None]

    def _save(self, state: State, value: float | None = None) -> None:
        if int(state.step) == 0:
            return
        self.dog.rest()
        self.checkpoints.save(state, self.memory, value)

    def _draw(self, state: State, status: str) -> None:
        """Pictures of the evaluators that have any; the parameters come whole to the host for it."""
        for name, evaluator in self.experiment.evals.items():
            drawn = list((self.workdir / 'figures').glob(f'{name}-*'))
            if evaluator.draw is not None and name not in self.sums and not drawn and status != 'stopped':
                self._evaluate(name, state, int(state.step))  # the run was ended between its last step and its pictures
        drawers = {n: e.draw for n, e in self.experiment.evals.items() if e.draw is not None and n in self.sums}
        if not drawers:
            return
        params, mutable = shard.to_host((optim.eval_params(state.params, state.opt), state.mutable))
        if self.writer is None:
            return
        (self.workdir / 'figures').mkdir(exist_ok=True)
        for name, draw in drawers.items():
            for title, picture in draw(params, mutable, self.sums[name]).items():
                path = self.workdir / 'figures' / f'{name}-{title}'
                if hasattr(picture, 'savefig'):
                    picture.savefig(f'{path}.png', dpi=100, bbox_inches='tight')
                    self.writer.figure(f'{name}/{title}', picture, int(state.step))
                else:  # an animation
                    picture.save(f'{path}.gif')

    def _profile(self, step: int | None) -> None:
        """Starts and stops the trace at its steps; None: the run is over."""
        p = self.settings.profile
        if p is not None and step == p.start:
            jax.profiler.start_trace(str(self.workdir / 'profile'))
            self.profiling = True
        elif self.profiling and p is not None and (step is None or step == p.start + p.steps):
            self._read(every=True)
            jax.profiler.stop_trace()
            self.profiling = False
            self.progress.say(f'profile written to {self.workdir / "profile"}')

    def _status(self, state: str, step: int | None, error: BaseException | None = None) -> None:
        if not self.main:
            return
        if step is not None:
            self.at = step
        line = None if error is None else (' '.join(str(error).split()) or type(error).__name__)
        write_json(
            self.workdir / 'status.json',
            {
                'state': state,
                'step': self.at,
                'steps': self.settings.steps,
                'metrics': self.memory['metrics'],
                'train_seconds': round(self.memory['train_seconds'], 3),
                'seconds': round(time.perf_counter() - self.seconds, 3),
                'error': line,
            },
        )


class _Window:
    """Sums of the metrics since the last log row, and the time that their steps took."""

    def __init__(self, names: tuple[str, ...]):
        self.names, self.steps, self.data_seconds = names, 0, 0.0
        self._sums = np.zeros((2, len(names)))
        self.begin()

    def begin(self, untimed: int = 0) -> None:
        """The clock starts here; `untimed` steps came before it, in a compilation."""
        self._spent, self._since, self._untimed = 0.0, time.perf_counter(), untimed

    def pause(self) -> None:
        """What comes now, an evaluation or a save, is no step."""
        self._spent, self._since = self.seconds(), None

    def resume(self) -> None:
        self._since = self._since or time.perf_counter()

    def seconds(self) -> float:
        return self._spent + (time.perf_counter() - self._since if self._since else 0.0)

    def add(self, values: np.ndarray) -> None:
        self._sums += values
        self.steps += 1

    def means(self) -> dict[str, float]:
        with np.errstate(invalid='ignore', divide='ignore'):
            values = dict(zip(self.names, (self._sums[0] / self._sums[1]).tolist(), strict=True))
        values['step_seconds'] = self.seconds() / max(self.steps - self._untimed, 1)
        values['data_seconds'] = self.data_seconds / self.steps
        return values
