"""`fit`: the one loop. It trains any experiment and is the only place with side effects."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten_with_path

from canon import optim
from canon.errors import CanonError, UsageError
from canon.named import suggest
from canon.train import checkpoint, shard
from canon.train.code import digest_code
from canon.train.evaluation import Evaluation, Interrupted, compile_measure, evaluate, metric_names
from canon.train.guard import Stopper, Watchdog
from canon.train.log import MetricsWriter, Progress
from canon.train.selection import Choice, choose, select
from canon.train.setup import prepare
from canon.train.statistics import evaluated_variables
from canon.train.step import SKIPPED
from canon.train.types import Config, Experiment, State
from canon.train.workdir import lock_workdir, open_workdir, read_mapping, write_status

_AHEAD = 2  # steps in flight: the device never waits for the host, and a bad loss is seen two steps late
_MOST_SKIPPED = 100  # updates in a row that may be skipped; more of them are not a few bad batches

_log = logging.getLogger('canon')


class Fitted(NamedTuple):
    """What `fit` returns.

    state: the last one. status: 'done', 'stopped' (resume by calling again) or 'early' (early stop). metrics: those of
    the weights that the run hands on, which `weights` names; of a stopped run the newest of each evaluator.
    """

    state: State
    metrics: dict[str, float]
    status: str
    workdir: Path
    weights: str = ''  # 'best weights, of step 300'


class NonFinite(CanonError):
    """The loss, its gradient or the parameters are not finite."""


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
    with contextlib.ExitStack() as resources:
        return _Loop(experiment, config, Path(workdir), force, quiet, about or {}, resources).run()


class _Loop:
    """The state of one call of `fit`."""

    def __init__(self, experiment, config, workdir, force, quiet, about, resources: contextlib.ExitStack):
        self.main = jax.process_index() == 0
        self.quiet = quiet or not self.main
        self.setup = prepare(experiment, config)
        self.experiment = experiment = self.setup.experiment
        self.settings = self.setup.settings
        self.code = digest_code(experiment)
        self.begun_with = read_mapping(Path(workdir).expanduser() / 'run.json').get('code')
        about = {**about, 'experiment': dict(experiment.about), 'code': self.begun_with or self.code}
        self._check_metrics(config)
        if self.main:
            resources.enter_context(lock_workdir(workdir))
        self.workdir = open_workdir(workdir, config, about, force, self.main)
        self.limit = min(self.settings.steps, self.settings.stop_after or self.settings.steps)
        # {step: {evaluator: sums}} of the newest evaluations and of the best, for pictures.
        self.sums: dict[int, dict[str, Any]] = {}
        self.profiling, self.at = False, 0
        self.statistics_at: int | None = None  # the step at which averaged weights got their batch statistics
        self.observed: dict[str, float] = {}  # what the optimizer was told since the last save, at the same step
        # Saved with every checkpoint: what the boundary work of a step has come to.
        self.memory: dict[str, Any] = {
            'measured': {},  # {evaluator: step of its newest evaluation}
            'metrics': {},  # of these
            'ranked': None,  # the best step by `run.checkpoint.best`, with its value and metrics
            'best': None,  # of early stopping
            'bad': 0,
            'skipped': 0,  # updates in a row, up to now
            'final': None,  # the weights that are handed on, and their metrics
            'train_seconds': 0.0,
        }
        self.seconds = time.perf_counter()

    def _check_metrics(self, config: Config) -> None:
        """Raises UsageError where a setting names an evaluator or a metric that does not exist."""
        experiment = self.experiment
        self.cadence = {name: self.settings.steps for name in experiment.evals}
        for name, evaluation in self.settings.evals.items():
            if name not in experiment.evals:
                raise UsageError(f'run.evals.{name}: the experiment has no such evaluator, only {sorted(self.cadence)}')
            self.cadence[name] = evaluation.every
        self.measures = {n: compile_measure(e, self.setup.mesh) for n, e in experiment.evals.items()}
        known: dict[str, set[str] | None] = {}
        self.watched = self._watched(config)
        for key, metric in self.watched:
            name = _evaluator_of(metric, self.cadence)
            if name is None:
                raise UsageError(f'{key}={metric!r} names no evaluator; there are {", ".join(sorted(self.cadence))}')
            if name not in known:
                known[name] = metric_names(experiment.evals[name], self.setup.target, self.measures[name])
            metrics = {f'{name}/{metric}' for metric in known[name] or ()}
            if known[name] is not None:
                _refuse_unmeasured(key, metric, metrics)

    def run(self) -> Fitted:
        s = self.settings
        with checkpoint.Checkpoints(self.workdir / 'checkpoints', s.checkpoint) as self.checkpoints:
            state = self._start()
            start = int(state.step)
            measured = self.memory['measured']
            self.writer = MetricsWriter(self.workdir, start, s.tensorboard, measured) if self.main else None
            self.progress = Progress(self.limit, start, self.quiet)
            try:
                with Stopper() as self.stopper, Watchdog(self.workdir, s.watchdog) as self.dog:
                    self._greet(start)
                    self._status('running', start)
                    state, status = self._train(state, start)
                    self._profile(None)
                    state = self._save(state)
                    self.checkpoints.wait()
                    if status != 'stopped':
                        status = self._finish(state, status)
                    self.checkpoints.amend(int(state.step), self._progress())
                    self._status('stopped' if status == 'stopped' else 'done', int(state.step))
                    shard.wait_for_all('fit is done')  # the others must not leave while the first process draws
            except BaseException as error:
                with contextlib.suppress(CanonError):  # the error that brought us here is the one to report
                    self._status('failed', None, error)
                raise
            finally:
                self.progress.close()
                if self.writer is not None:
                    self.writer.close()
        metrics, weights = self._reported()
        return Fitted(state, metrics, status, self.workdir, weights)

    def _greet(self, start: int) -> None:
        """Reports what a run that was begun before will do."""
        if not start:
            return
        if self.begun_with not in (None, self.code):
            _log.warning(
                '%s: the code of the experiment is not the one that the run began with; what was trained up to step '
                '%d is kept. Give another --workdir to train with the new code from the start',
                *(self.workdir, start),
            )
        if start >= self.settings.steps or self._is_out_of_patience():
            self.progress.say(
                f'the run in {self.workdir} was already done at step {start}: nothing is trained. To train again, '
                'give another --workdir or remove this one'
            )
        else:
            self.memory['final'] = None  # of a run that was shorter
            self.progress.say(f'resumed at step {start} from {self.workdir}')

    def _start(self) -> State:
        restored = self.checkpoints.restore(self.setup.target)
        if restored is not None:
            state, memory = restored
            self.observed = memory.pop('observed', None) or {}
            self.memory |= memory
            self.statistics_at = int(state.step)
            for name, value in optim.overrides(state.opt).items():  # also every constant rate of an older checkpoint
                _log.warning('%s=%g was set in the checkpoint and overrides that of the config', name, value)
            return state
        return self.setup.starting_state(self.experiment.read)

    def _train(self, state: State, step: int) -> tuple[State, str]:
        compiled, layout = self.setup.compiled_step(), shard.batch_sharding(self.setup.mesh)
        self.waiting: deque = deque()
        self.window = _Window(self.setup.names)
        self.window.restore(self.memory.pop('window', None))
        batches, first = None, True
        while True:
            state, status = self._boundary(state, step)
            if status is not None or step >= self.limit:
                return state, status or ('done' if step >= self.settings.steps else 'stopped')
            if batches is None:
                batches = self.experiment.train.iterate(step)
            self.window.resume()
            self.dog.resume()
            began = time.perf_counter()
            try:
                batch = shard.put(next(batches), layout)
            except Exception:
                self._rescue(state)
                raise
            self.window.data_seconds += time.perf_counter() - began
            if first:
                self.dog.rest()
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
        """All that is due between two steps: a log row, a save, evaluations, the end."""
        s, stopping = self.settings, self.stopper.asked(step)
        last = step >= self.limit
        due = [n for n, every in self.cadence.items() if step and (step % every == 0 or step >= s.steps)]
        due = [n for n in due if self.memory['measured'].get(n, 0) < step]
        ranks = _evaluator_of(s.checkpoint.best or '', self.cadence) in due
        save = step and (step % s.checkpoint.every == 0 or ranks or (due and last))
        if step and (step % s.log_every == 0 or due or save or last or stopping):
            self._read(every=True)
            self.window.pause()
        if step and (step % s.log_every == 0 or last or stopping):
            self._log_row(step)
        if stopping:
            self.progress.say(f'asked to stop: saving at step {step}')
            return state, 'stopped'
        if save:
            state = self._save(state)
        try:
            for name in due:
                state = self._evaluate(name, state, step)
            if self._is_out_of_patience() and not last:
                return self._stop_early(state, step), 'early'
        except Interrupted:
            self.progress.say(f'asked to stop: saving at step {step}; the evaluation is redone on resuming')
            return state, 'stopped'
        except Exception:
            self._rescue(state)
            raise
        return state, None

    def _is_out_of_patience(self) -> bool:
        early = self.settings.early_stop
        return early is not None and self.memory['bad'] >= early.patience

    def _stop_early(self, state: State, step: int) -> State:
        """The last step is evaluated by all evaluators."""
        early = self.settings.early_stop
        assert early is not None
        self.progress.say(f'early stop at step {step}: {early.metric} is no better than {self.memory["best"]}')
        self._log_row(step)
        for name in self.cadence:
            if self.memory['measured'].get(name, 0) < step:
                state = self._evaluate(name, state, step)
        return state

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
                self.memory['skipped'] = 0
            elif SKIPPED in named and named[SKIPPED][0] > 0:
                self.window.add(np.where(np.array(self.setup.names) == SKIPPED, values, 0))
                self._count_skipped(step)
            else:
                raise NonFinite(self._nonfinite_line(step, named))

    def _count_skipped(self, step: int) -> None:
        """Raises NonFinite where skipping is no longer the answer to a few bad batches."""
        self.memory['skipped'] += 1
        skipped = self.memory['skipped']
        if skipped >= _MOST_SKIPPED or skipped == step >= self.limit:
            raise NonFinite(
                f'all of the last {skipped} updates were skipped, up to step {step}: their loss or gradient was not '
                f'finite, and nothing is learnt. Look at one with: ./launch.sh replay --workdir={self.workdir} '
                f'--step={step}'
            )

    def _nonfinite_line(self, step: int, values: Mapping[str, Any]) -> str:
        shown = ', '.join(f'{n} {values[n][0] / values[n][1]:g}' for n in ('loss', 'grad_norm') if n in values)
        return f'step {step} is not finite: {shown}; {self._advice(step)}'

    def _advice(self, step: int) -> str:
        saved = self.checkpoints.steps()
        kept = f'the newest checkpoint is of step {saved[-1]}' if saved else 'nothing was saved yet'
        return f'{kept}. Look at that step with: ./launch.sh replay --workdir={self.workdir} --step={step}'

    def _log_row(self, step: int) -> None:
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

    def _evaluate(self, name: str, state: State, step: int) -> State:
        """Evaluates the state; plateau schedules, early stopping and the ranking of checkpoints take note."""
        began = time.perf_counter()
        state = self._refresh(state)
        result = self._measure(name, *evaluated_variables(state), f'step {step}')
        metrics = {f'{name}/{k}': v for k, v in result.metrics.items()}
        for key, metric in self.watched:  # shapes alone may not have told the names
            if _evaluator_of(metric, self.cadence) == name:
                _refuse_unmeasured(key, metric, metrics)
        if self.writer is not None:
            self.writer.write(step, {**metrics, f'{name}/seconds': time.perf_counter() - began})
        self._keep_sums(step, name, result.sums)
        state = state._replace(opt=optim.observe(state.opt, metrics))
        self.observed |= metrics
        self.memory['metrics'] = {**self.memory['metrics'], **metrics}
        self.memory['measured'] = {**self.memory['measured'], name: step}
        self._judge(metrics)
        value = metrics.get(self.settings.checkpoint.best or '')
        self._note_best(step, value)
        self.checkpoints.amend(step, self._progress(), value)
        return state

    def _measure(self, name: str, params: Any, mutable: Any, what: str) -> Evaluation:
        self.dog.rest()
        # In a distributed run all must leave an evaluation at one place, so only a lone process breaks it off.
        stop = self.stopper.asked if jax.process_count() == 1 else lambda step: False
        result = evaluate(
            self.experiment.evals[name],
            params,
            mutable,
            self.setup.mesh,
            self.measures[name],
            on_batch=lambda done, of: done < of and stop(self.at),
        )
        if result.sums is None:
            raise UsageError(f'evaluator {name!r}: its data hold no batch')
        shown = '  '.join(f'{k} {v:.4g}' for k, v in result.metrics.items())
        self.progress.say(f'{what}  {name}: {shown}')
        return result

    def _keep_sums(self, step: int, name: str, sums: Any) -> None:
        best = (self.memory['ranked'] or {}).get('step')
        self.sums = {at: kept for at, kept in self.sums.items() if at in (step, best)}
        self.sums.setdefault(step, {})[name] = sums

    def _judge(self, metrics: Mapping[str, float]) -> None:
        """Counts the evaluations without an improvement, for early stopping."""
        early = self.settings.early_stop
        if early is None or early.metric not in metrics:
            return
        value, best = metrics[early.metric], self.memory['best']
        sign = 1 if early.mode == 'max' else -1
        better = best is None or sign * (value - best) > early.min_delta
        if better and math.isfinite(value):
            self.memory |= {'best': value, 'bad': 0}
        else:
            self.memory['bad'] += 1

    def _note_best(self, step: int, value: float | None) -> None:
        """Keeps the metrics of the best step, which may be those that the run reports."""
        ranked, sign = self.memory['ranked'], 1 if self.settings.checkpoint.mode == 'max' else -1
        if value is not None and math.isfinite(value) and (ranked is None or sign * value >= sign * ranked['value']):
            ranked = {'step': step, 'value': value}
        if ranked is not None and ranked['step'] == step:
            self.memory['ranked'] = {**ranked, 'metrics': self._measured_at(step)}

    def _measured_at(self, step: int) -> dict[str, float]:
        """The metrics of all evaluators whose newest evaluation was at `step`."""
        names = [name for name, at in self.memory['measured'].items() if at == step]
        return {k: v for k, v in self.memory['metrics'].items() if _evaluator_of(k, self.cadence) in names}

    def _watched(self, config: Config) -> list[tuple[str, str]]:
        """The metrics that settings and plateau rules speak of, with their keys."""
        s = self.settings
        early = s.early_stop.metric if s.early_stop is not None else None
        target = (config.get('target') or {}).get('metric') if self.experiment.evals else None
        keyed = [
            ('run.checkpoint.best', s.checkpoint.best),
            ('run.early_stop.metric', early),
            ('target.metric', target),
        ]
        keyed += [('tx: the plateau rule', metric) for metric in sorted(optim.watched(self.setup.target.opt))]
        return [(key, metric) for key, metric in keyed if metric is not None]

    def _refresh(self, state: State) -> State:
        """Measures the batch statistics of averaged weights, once per step."""
        step = int(state.step)
        if self.statistics_at != step:
            self.dog.rest()
            state = self.setup.refresh_statistics(state, self.experiment.train)
            self.statistics_at = step
        return state

    def _save(self, state: State) -> State:
        step = int(state.step)
        if step == 0 or step in self.checkpoints.steps():
            return state
        self.dog.rest()
        self._refuse_nonfinite(state)
        state = self._refresh(state)
        self.observed = {}  # the state that is saved knows it
        self.checkpoints.save(state, self._progress())
        return state

    def _progress(self) -> dict[str, Any]:
        return {**self.memory, 'observed': self.observed, 'window': self.window.dump()}

    def _rescue(self, state: State) -> None:
        """Saves before an error ends the run. A lone process only: others may be elsewhere."""
        if jax.process_count() == 1:
            with contextlib.suppress(CanonError):  # the error that brought us here is the one to report
                self._read(every=True)
                self._save(state)
                self.checkpoints.wait()

    def _refuse_nonfinite(self, state: State) -> None:
        """Raises NonFinite for parameters from which no run could be resumed: loss and gradient may be finite."""
        leaves = tree_flatten_with_path(state.params)[0]
        finite = _are_finite(state.params)
        bad = [shard.path_name(path) for (path, _), fine in zip(leaves, finite, strict=True) if not fine]
        if bad:
            step, more = int(state.step), f' and {len(bad) - 1} more' if len(bad) > 1 else ''
            raise NonFinite(
                f'step {step} is not finite: its update made {bad[0]}{more} so, behind a finite loss and gradient; '
                f'{self._advice(step)}'
            )

    def _finish(self, state: State, status: str) -> str:
        """Measures the weights that are handed on where it was not done, and draws; returns the status."""
        try:
            self._measure_selected(state)
        except Interrupted:
            self.progress.say('asked to stop while the finished run was evaluated; the same command does the rest')
            return 'stopped'
        return status

    def _measure_selected(self, state: State) -> None:
        choice = choose(self.settings.checkpoint, self.checkpoints)
        if choice is None:
            return
        step, final = int(state.step), self.memory['final'] or {}
        at = choice.steps[-1]
        if final.get('weights') == str(choice):
            known = final['metrics']
        elif choice.name == 'average':
            known = {}
        elif at == step:
            known = self._measured_at(step)
        else:
            ranked = self.memory['ranked'] or {}
            known = ranked['metrics'] if ranked.get('step') == at else {}
        sums = dict(self.sums.get(at, {})) if choice.name != 'average' else {}
        selected, metrics = None, {}
        for name, evaluator in self.experiment.evals.items():
            mine = {k: v for k, v in known.items() if _evaluator_of(k, self.cadence) == name}
            drawn = evaluator.draw is None or any((self.workdir / 'figures').glob(f'{name}-*'))
            if not mine or (not drawn and name not in sums):
                selected = selected or self._select(state, choice)
                result = self._measure(name, *selected, str(choice))
                mine, sums[name] = {f'{name}/{k}': v for k, v in result.metrics.items()}, result.sums
            metrics |= mine
        self.memory['final'] = {'weights': str(choice), 'metrics': metrics}
        self.checkpoints.amend(step, self._progress())
        self._draw(sums, lambda: selected or self._select(state, choice), step)

    def _select(self, state: State, choice: Choice) -> tuple[Any, Any]:
        if choice.name != 'average' and choice.steps[-1] == int(state.step):
            return evaluated_variables(state)
        selected = select(self.setup, self.checkpoints)
        if selected is None:
            raise CanonError(f'{self.workdir}: the {choice} cannot be restored')
        return selected.params, selected.mutable

    def _draw(self, sums: Mapping[str, Any], variables: Callable[[], tuple[Any, Any]], step: int) -> None:
        """Pictures of the evaluators that have any; the parameters come whole to the host for it."""
        drawers = {n: e.draw for n, e in self.experiment.evals.items() if e.draw is not None and n in sums}
        if not drawers:
            return
        params, mutable = shard.to_host(variables())
        if self.writer is None:
            return
        (self.workdir / 'figures').mkdir(exist_ok=True)
        for name, draw in drawers.items():
            for title, picture in draw(params, mutable, sums[name]).items():
                path = self.workdir / 'figures' / f'{name}-{title}'
                if hasattr(picture, 'savefig'):
                    picture.savefig(f'{path}.png', dpi=100, bbox_inches='tight')
                    self.writer.figure(f'{name}/{title}', picture, step)
                else:  # an animation
                    picture.save(f'{path}.gif')

    def _reported(self) -> tuple[dict[str, float], str]:
        """The metrics that the run reports, and the weights that they are of."""
        final = self.memory['final']
        if final is None:
            return dict(self.memory['metrics']), ''
        return dict(final['metrics']), final['weights']

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
        metrics, weights = self._reported()
        line = None if error is None else (' '.join(str(error).split()) or type(error).__name__)
        write_status(
            self.workdir,
            {
                'state': state,
                'step': self.at,
                'steps': self.settings.steps,
                'metrics': metrics,
                'weights': weights,
                'train_seconds': round(self.memory['train_seconds'], 3),
                'seconds': round(time.perf_counter() - self.seconds, 3),
                'error': line,
            },
        )


@jax.jit
def _are_finite(tree: Any) -> list[jax.Array]:
    """Whether each leaf is finite; one function, so that it is compiled once for all saves."""
    return [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]


def _refuse_unmeasured(key: str, metric: str, metrics: Iterable[str]) -> None:
    """Raises UsageError unless `metric`, of the setting `key`, is one of `metrics`."""
    if metric not in metrics:
        raise UsageError(f'{key}={metric!r} is measured by no evaluator{suggest(metric, set(metrics))}')


def _evaluator_of(metric: str, evaluators: Iterable[str]) -> str | None:
    """`test` of `test/adam/loss`: the longest name of an evaluator that the metric begins with."""
    return max((n for n in evaluators if metric.startswith(f'{n}/')), key=len, default=None)


class _Window:
    """Sums of the metrics since the last log row, and the time that their steps took."""

    def __init__(self, names: tuple[str, ...]):
        self.names, self.steps, self.data_seconds = names, 0, 0.0
        self._sums = np.zeros((2, len(names)))
        self._earlier = (0.0, 0)  # seconds and untimed steps before the run was resumed
        self.begin()

    def begin(self, untimed: int = 0) -> None:
        """The clock starts here; `untimed` steps came before it, in a compilation."""
        self._spent, self._since, self._untimed = 0.0, time.perf_counter(), untimed

    def pause(self) -> None:
        """What comes now, an evaluation or a save, is no step."""
        self._spent, self._since = self.seconds() - self._earlier[0], None

    def resume(self) -> None:
        self._since = self._since or time.perf_counter()

    def dump(self) -> dict[str, Any]:
        """What a checkpoint between two log rows keeps, so that the next row is of all its steps."""
        return {
            'names': list(self.names),
            'sums': self._sums.tolist(),
            'steps': self.steps,
            'untimed': self._untimed + self._earlier[1],
            'seconds': self.seconds(),
            'data_seconds': self.data_seconds,
        }

    def restore(self, dumped: Mapping[str, Any] | None) -> None:
        if dumped is not None and dumped['steps'] and tuple(dumped['names']) == self.names:
            self._sums = np.array(dumped['sums'])
            self.steps, self.data_seconds = dumped['steps'], dumped['data_seconds']
            self._earlier = (dumped['seconds'], dumped['untimed'])

    def seconds(self) -> float:
        return self._earlier[0] + self._spent + (time.perf_counter() - self._since if self._since else 0.0)

    def add(self, values: np.ndarray) -> None:
        self._sums += values
        self.steps += 1

    def means(self) -> dict[str, float]:
        with np.errstate(invalid='ignore', divide='ignore'):
            values = dict(zip(self.names, (self._sums[0] / self._sums[1]).tolist(), strict=True))
        values['step_seconds'] = self.seconds() / max(self.steps - self._untimed - self._earlier[1], 1)
        values['data_seconds'] = self.data_seconds / self.steps
        return values
