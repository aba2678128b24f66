"""An experiment without training data: every evaluator runs once, into a folder like that of a training."""

from __future__ import annotations

import math
import time

import jax

from canon.train import shard
from canon.train.evaluation import Interrupted
from canon.train.figures import draw_figures
from canon.train.guard import Stopper, Watchdog
from canon.train.log import Progress
from canon.train.session import Fitted, Session
from canon.train.statistics import evaluated_variables
from canon.train.types import State
from canon.train.workdir import read_mapping


class EvaluationSession(Session):
    """Evaluates the first state of an experiment, which is often that of published weights (`run.init_from`).

    No checkpoint is saved: `status.json` holds the metrics, and a run that is done is not evaluated again.
    """

    def run(self) -> Fitted:
        # Every process reads the status before the first one overwrites it.
        before = read_mapping(self.workdir / 'status.json')
        shard.wait_for_all('the status of the run is read')
        state = self.setup.starting_state(self.experiment.read)
        self.describe_run()
        weights = self._name_weights(state)
        self.progress, self.writer = Progress(0, 0, self.quiet), None
        if before.get('state') == 'done':
            self.warn_of_new_code('its metrics are kept')
            self.progress.say(f'the run in {self.workdir} was already done: nothing is evaluated')
            metrics = {k: math.nan if v is None else v for k, v in (before.get('metrics') or {}).items()}
            return Fitted(state, metrics, 'done', self.workdir, str(before.get('weights') or weights))
        if self.main:  # rows of an evaluation that was interrupted are written again
            self.writer = self.open_log(-1)
        self.final = {'weights': weights, 'metrics': {}}
        with self.reported_failures(), Stopper() as self.stopper, Watchdog(self.workdir, self.settings.watchdog) as dog:
            self.dog = dog
            self.write_status('running', 0)
            status = self._evaluate(state, weights)
            self.write_status(status, 0)
            shard.wait_for_all('the evaluation is done')
        return Fitted(state, self.metrics_and_weights()[0], status, self.workdir, weights)

    def _name_weights(self, state: State) -> str:
        if self.settings.init_from is not None:
            return f'weights from {self.settings.init_from.path}'
        return 'untrained weights' if jax.tree.leaves(state.params) else 'no weights'

    def _evaluate(self, state: State, weights: str) -> str:
        """Runs and draws every evaluator; returns the status."""
        params, mutable = evaluated_variables(state)
        metrics, sums = {}, {}
        try:
            for name in self.experiment.evals:
                began = time.perf_counter()
                result = self.measure(name, params, mutable, weights)
                sums[name] = result.sums
                own = {f'{name}/{k}': v for k, v in result.metrics.items()}
                self.monitor.record(name, 0, own)
                metrics |= own
                if self.writer is not None:
                    self.writer.write(0, {**own, f'{name}/seconds': time.perf_counter() - began})
                self.refresh_report()
        except Interrupted:
            self.progress.say('stopped on request: the same command evaluates again')
            return 'stopped'
        self.final = {'weights': weights, 'metrics': metrics}
        draw_figures(self.experiment.evals, sums, lambda: (params, mutable), self.workdir, self.writer, 0)
        return 'done'
