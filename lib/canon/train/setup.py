"""Makes of an experiment and its config functions over a mesh; nothing is written anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from canon import backend, named, optim
from canon.errors import UsageError
from canon.optim import lift_constants
from canon.train import lengths, shard
from canon.train.init_from import init_from
from canon.train.settings import Settings, make_settings
from canon.train.statistics import (
    add_statistics,
    carry_statistics,
    drop_statistics,
    make_forward,
    measure_statistics,
    needs_statistics,
)
from canon.train.step import init_state, make_step
from canon.train.types import Config, Experiment, State


class Setup(NamedTuple):
    """An experiment on a mesh, before its first step."""

    experiment: Experiment  # as `bind` returns it: with its optimizer, and the rows of this process
    settings: Settings
    seed: int
    mesh: Mesh
    tx: Any  # the optimizer
    step: Any  # (constants, state, batch) -> (state, metrics); None if nothing is trained
    constants: Any  # rates, decays and momenta of `tx`: as arguments, runs that differ in them share a program
    init: Any  # first batch -> state
    first: Any  # the first batch, on the devices
    target: State  # shapes, dtypes and shardings of the state
    layout: State  # shardings of the state
    names: tuple[str, ...]  # of the metrics of a step
    forward: Any = None  # of `statistics.make_forward`, if averaged weights have statistics of their own

    def initial_state(self) -> State:
        """Initialises the state on the devices."""
        return jax.jit(self.init, out_shardings=self.layout)(self.first)

    def starting_state(self, read: Any = None) -> State:
        """Returns the state before the first step, with the parameters that `run.init_from` names.

        read: `Experiment.read`.
        """
        state = self.initial_state()
        if self.settings.init_from is None:
            return state
        state = init_from(state._replace(mutable=drop_statistics(state.mutable)), self.settings.init_from, read)
        state = state if self.forward is None else add_statistics(state)
        opt = jax.jit(self.tx.init, out_shardings=self.layout.opt)(state.params)  # averages and copies start there too
        return state._replace(opt=opt)

    def refresh_statistics(self, state: State, data: Any) -> State:
        """Measures the batch statistics of averaged weights over the last training batches of `data`."""
        step = int(state.step)
        if self.forward is None or step == 0:
            return state
        rows = shard.batch_sharding(self.mesh)
        numbers = range(max(step - self.settings.bn_batches, 0), step)
        state = measure_statistics(self.forward, state, ((np.int32(n), shard.put(data[n], rows)) for n in numbers))
        return state._replace(mutable=jax.device_put(state.mutable, self.layout.mutable))

    def compiled_step(self):
        """Jits the step with donated state: (state, batch) -> (state, metrics [2, names]).

        The totals and weights of all metrics come in one array, so that a step costs one transfer to the host.
        """

        def pack_metrics(constants, state, batch):
            state, metrics = self.step(constants, state, batch)
            # float32, whatever the model computes in: a sum of losses in bfloat16 has three digits.
            columns = [jnp.stack([jnp.asarray(p, jnp.float32) for p in metrics[n]]) for n in self.names]
            return state, jnp.stack(columns, axis=1)

        rows, everywhere = shard.batch_sharding(self.mesh), shard.replicated_sharding(self.mesh)
        jitted = backend.jit(
            pack_metrics,
            donate_argnums=1,
            in_shardings=(everywhere, self.layout, rows),
            out_shardings=(self.layout, everywhere),
        )
        return partial(jitted, self.constants)


def make_setup(experiment: Experiment, config: Config) -> Setup:
    """Prepares an experiment for `fit`, for evaluation and for replay.

    Args:
      experiment: what is trained.
      config: has `run`, and `seed` (0 by default).

    Raises:
      UsageError: a setting is wrong, devices do not divide a batch, or the state does not fit into the memory.
    """
    experiment = bind(experiment, config)
    resolved = _resolve_lengths(experiment, config)
    s, seed = make_settings(resolved.get('run') or {}), _check_seed(resolved.get('seed', 0))
    mesh = shard.make_mesh(s.mesh.data, s.mesh.model)
    _check_batches(experiment, mesh, s.accumulate)
    rows = shard.batch_sharding(mesh)
    # Initialisation reads a real batch: data-dependent ones (LSUV) need its values, all of them its shapes.
    first = shard.put(_read_first_batch(experiment), rows)
    step = _make_step(experiment, seed, s.accumulate)
    init = partial(init_state, experiment.task, experiment.tx, seed)
    # Shapes only: nothing is allocated before it is known to fit.
    abstract = jax.eval_shape(init, first)
    forward = None
    if s.bn_batches and experiment.train is not None and needs_statistics(abstract):
        init, step = _add_statistics_after(init), carry_statistics(step)
        abstract = jax.eval_shape(init, first)
        forward = make_forward(experiment.task, seed, out_shardings=shard.replicated_sharding(mesh))
    layout = shard.state_shardings(experiment.tx, abstract, mesh, s.shard.rules, s.shard.fsdp)
    target = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract, layout
    )
    shard.check_memory(target)
    constants, names = None, ()
    if step is not None:
        step = gather_first(step, layout.params)
        step, constants, (_, metrics) = lift_constants(step, abstract, first)
        names = _order_names(metrics)
    return Setup(experiment, s, seed, mesh, experiment.tx, step, constants, init, first, target, layout, names, forward)


def gather_first(step: Any, layout: Any) -> Any:
    """Returns a step (state, batch) whose parameters are first gathered from `layout`."""
    return lambda state, batch: step(state._replace(params=shard.gather(state.params, layout)), batch)


def _make_step(experiment: Experiment, seed: int, accumulate: int) -> Any:
    """Returns the step of an experiment; None if it trains nothing."""
    if experiment.train is None:
        return None
    if experiment.make_step is None:
        return make_step(experiment.task, experiment.tx, seed, accumulate)
    if accumulate > 1:
        raise UsageError(
            f'run.accumulate={accumulate}: the experiment defines its own step, which takes whole batches; remove '
            'run.accumulate, or give the task a gradient (`Task.gradient`) instead of a step'
        )
    return experiment.make_step(experiment.task, experiment.tx, seed)


def _add_statistics_after(init: Any) -> Any:
    return lambda batch: add_statistics(init(batch))


def _read_first_batch(experiment: Experiment) -> Any:
    """Returns the batch that gives the shapes: of training, else of the first evaluator.

    Training data that are slow to read may offer an `example`, a batch of zeros, in place of their first one.
    """
    if experiment.train is not None:
        return experiment.train.example if hasattr(experiment.train, 'example') else experiment.train[0]
    for evaluator in experiment.evals.values():
        for batch in evaluator.data.iterate():
            return batch
    raise UsageError('the experiment has neither training data nor an evaluator with data: there is nothing to run')


def _check_batches(experiment: Experiment, mesh: Mesh, accumulate: int) -> None:
    for where, data in [('data', experiment.train), *((f'evals.{n}', e.data) for n, e in experiment.evals.items())]:
        size = getattr(data, 'batch_size', None)
        if size is not None:
            shard.check_batch_size(size, mesh, where, accumulate if data is experiment.train else 1)


def bind(experiment: Experiment, config: Config) -> Experiment:
    """Makes the optimizer of an experiment and, in a job of several processes, cuts its data to this process's rows.

    `fit` binds its experiment itself. Binding twice changes nothing.

    Args:
      experiment: its `tx` may be a mapping, the `tx` of a config, whose lengths may be in any unit.
      config: has `run.steps`, of which lengths may be percentages.

    Raises:
      UsageError: `tx` names no optimizer, a length has no number of steps, or the data cannot be cut.
    """
    if isinstance(experiment.tx, Mapping | ConfigDict):
        spec = named.to_plain(experiment.tx)
        resolved = _resolve_lengths(experiment, {**named.to_plain(config), 'tx': spec})
        experiment = experiment._replace(tx=optim.make_optimizer(resolved.tx))
    elif experiment.tx is None and experiment.train is None:
        experiment = experiment._replace(tx=optax.identity())
    evals = {n: e._replace(data=shard.local_data(e.data, f'evals.{n}')) for n, e in experiment.evals.items()}
    train = None if experiment.train is None else shard.local_data(experiment.train, 'data')
    return experiment._replace(train=train, evals=evals)


def _resolve_lengths(experiment: Experiment, config: Config) -> ConfigDict:
    data = experiment.train
    if data is None:
        config = named.to_plain(config)
        run = config.get('run') or {}
        if run.get('steps') not in (None, 0, '0 steps'):
            raise UsageError(
                f'run.steps={run["steps"]!r}: the experiment has no training data, so nothing is trained; remove it'
            )
        config = {**config, 'run': {**run, 'steps': 0}}
    return lengths.resolve(config, getattr(data, 'batch_size', None), getattr(data, 'num_examples', None))


def _check_seed(seed: Any) -> int:
    """Returns the seed if it fits the 32 bits of a JAX key; seeds that differ beyond them would be the same."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**32:
        raise UsageError(f'seed={seed!r} must be a whole number from 0 to {2**32 - 1}')
    return int(seed)


def _order_names(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the metrics of a step, the loss first; raises UsageError unless they are means."""
    for name, value in metrics.items():
        leaves = jax.tree.leaves(value)
        if len(leaves) != 2 or any(leaf.shape for leaf in leaves):
            raise UsageError(f'the metric {name!r} of the task is not a Mean of scalars but {value}')
    if 'loss' not in metrics:
        raise UsageError(f"the step returns no metric 'loss'; it returns {sorted(metrics)}")
    return tuple(sorted(metrics, key=lambda name: (name != 'loss', name)))
