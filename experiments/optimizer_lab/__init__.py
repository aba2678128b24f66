"""Several optimizers on one experiment, side by side in one run: from one start, on the same batches.

`config.of` names the experiment: a module of this folder (`surfaces`, `digits`, `adding`) or any other experiment of
the house. `config.rivals` is a dict of specs for `canon.optim.make`, and `config.only` may name a few of them.
`config.scale` multiplies the learning rate of each, for a sweep over rates around everyone's own.

It is no loop and no optimizer: the parameters are a dict with a copy for each rival, the loss is the sum of theirs, the
optimizer is a partition by name. So all that the one loop does holds here too: gradients are taken at the look-ahead
point and evaluation at the averaged one, rates and losses are logged (as `adam/loss`, ...), the run resumes and
replays. A rival that diverges stands still from then on (`optim.skip_nonfinite`) and does not stop the others.

Every transform of `canon.optim` may be a rival. Patterns in one (of `freeze`, `partition`, ...) meet paths that begin
with the rival's name, and its `divide_on_plateau` watches a metric such as 'test/adam/loss'.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from canon import named, optim
from canon.errors import UsageError
from canon.metrics import Mean
from canon.optim.groups import partition_by
from canon.train import Evaluator, Experiment, Task, lengths, make_step
from experiments.optimizer_lab.rates import effective_rate


def make(config: ConfigDict) -> Experiment:
    """config.of, config.rivals, config.scale and what the experiment under `of` wants -> all rivals on it."""
    module = _module(config.of)
    base = module.make(_with_tx(config))
    config = lengths.resolve(config, getattr(base.train, 'batch_size', None), getattr(base.train, 'num_examples', None))
    specs = chosen(config)
    together = side_by_side(
        base, specs, config.seed, config.run.get('accumulate') or 1, tuple(config.get('compare', ()))
    )
    return module.together(together, config) if hasattr(module, 'together') else together


def offline(config: ConfigDict) -> ConfigDict:
    """`config` as the experiment under `of` can be built without a download."""
    module = _module(config.of)
    return module.offline(config) if hasattr(module, 'offline') else config


def chosen(config: Mapping[str, Any] | ConfigDict) -> dict[str, dict[str, Any]]:
    """{rival: its spec}, with the learning rates scaled."""
    rivals, only, scale = named.to_plain(config['rivals']), tuple(config.get('only', ())), config.get('scale', 1.0)
    for name in only:
        if name not in rivals:
            raise UsageError(f'only={only}: no rival is called {name!r}{named.suggest(name, rivals)}')
    if not rivals:
        raise UsageError('rivals is empty; give {name: spec of an optimizer}')
    specs = {name: rivals[name] for name in only or sorted(rivals)}
    return {name: _scaled({'name': name, **spec}, scale, f'rivals.{name}') for name, spec in specs.items()}


def side_by_side(
    base: Experiment, specs: Mapping[str, Any], seed: int, accumulate: int = 1, compare: tuple[str, ...] = ()
) -> Experiment:
    """`base` with a copy of its parameters for each of `specs`; what it measures becomes `RIVAL/metric`.

    Evaluators give the worst rival besides (`worst/loss`), and for `compare` = (a, b) the losses' `ratio/loss` a to b.
    The pictures of `base` fall away. `base.tx` and `base.step` are not used.
    """
    names = list(specs)
    if len(compare) not in (0, 2) or not set(compare) <= set(names):
        raise UsageError(f'compare={compare} must be two of the rivals, {", ".join(names)}')
    txs = {name: optim.skip_nonfinite(optim.make(_unchained(spec), f'rivals.{name}')) for name, spec in specs.items()}
    task = _task(base.task, names)
    tx = partition_by(lambda params: _owners(params, names), txs)
    evals = {name: _evaluator(evaluator, names, compare) for name, evaluator in base.evals.items()}
    plain = make_step(task, tx, seed, accumulate)

    def step(state, batch):
        state, metrics = plain(state, batch)
        told = {key: value for key, value in metrics.items() if key.partition('/')[0] in names}
        for name, group in optim.find(state.opt, optim.PartitionState).groups.items():
            told |= {f'{name}/{key}': _one(value) for key, value in optim.hyperparams(group).items()}
            rate = effective_rate(specs[name], group)
            if rate is not None:
                told[f'{name}/effective_rate'] = _one(rate)
        return state, {'loss': _finite_mean([metrics[f'{name}/loss'] for name in names]), **told}

    return base._replace(task=task, tx=tx, evals=evals, step=step)


def _task(base: Task, names: list[str]) -> Task:
    """params {rival: those of `base`}, mutable {'rivals': {rival: that of `base`}} and whatever is put beside."""

    def init(key, batch):
        variables = dict(base.init(key, batch))
        params = variables.pop('params')
        return {'params': {name: params for name in names}, 'rivals': {name: variables for name in names}}

    def loss(params, mutable, batch, at):
        total, flowing, metrics = 0.0, {}, {}
        for name in names:  # the same key for all
            own, (flowing[name], more) = base.loss(params[name], mutable['rivals'][name], batch, at)
            total += own.total
            metrics |= {f'{name}/{k}': v for k, v in {'loss': own, **more}.items()}
        return Mean(total, own.weight), ({**mutable, 'rivals': flowing}, metrics)

    def predict(params, mutable, batch):
        return {name: base.predict(params[name], mutable['rivals'][name], batch) for name in names}

    return Task(init, loss, predict)


def _evaluator(base: Evaluator, names: list[str], compare: tuple[str, ...]) -> Evaluator:
    def measure(params, mutable, batch):
        return {name: base.measure(params[name], mutable['rivals'][name], batch) for name in names}

    def finish(sums):
        each = {name: base.finish(sums[name]) for name in names}
        found = {f'{name}/{key}': value for name, metrics in each.items() for key, value in metrics.items()}
        for key in each[names[0]]:
            values = [metrics[key] for metrics in each.values()]
            found[f'worst/{key}'] = max(values) if 'loss' in key else min(values)
        if compare:
            found['ratio/loss'] = each[compare[0]]['loss'] / each[compare[1]]['loss']
        return found

    return Evaluator(base.data, measure, finish)


def _owners(params, names: list[str]) -> list[int]:
    """For each leaf the place of its rival, whose name is the first key of its path."""
    return [names.index(path[0].key) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]


def _finite_mean(losses: list[Mean]) -> Mean:
    """The mean loss of the rivals that still have one; not finite where none has, which stops the run."""
    values = jnp.stack([loss.value for loss in losses])
    finite = jnp.isfinite(values)
    return Mean(jnp.where(finite, values, 0).sum(), finite.sum().astype(values.dtype))


def _one(value) -> Mean:
    return Mean(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def _scaled(spec: dict[str, Any], scale: float, where: str) -> dict[str, Any]:
    if scale == 1:
        return spec
    rate = spec.get('learning_rate')
    if not isinstance(rate, int | float):
        raise UsageError(f'scale={scale}: {where}.learning_rate must be a number to be scaled, not {rate!r}')
    return {**spec, 'learning_rate': rate * scale}


def _unchained(spec: dict[str, Any]) -> dict[str, Any]:
    """A chain says itself what its links are; the name is then the rival's alone."""
    return {key: value for key, value in spec.items() if key != 'name'} if 'chain' in spec else spec


def _with_tx(config: ConfigDict) -> ConfigDict:
    """The experiment under `of` is made with some optimizer, as any experiment; it is not used."""
    copy = ConfigDict(config.to_dict())
    copy.tx = dict(name='sgd', learning_rate=0.0)
    return copy


def _module(of: str) -> ModuleType:
    for name in (f'{__name__}.{of}', f'experiments.{of}'):
        if of.isidentifier() and importlib.util.find_spec(name) is not None:
            module = importlib.import_module(name)
            if hasattr(module, 'make'):
                return module
    here = [path.stem for path in Path(__file__).parent.glob('*.py') if '\ndef make(' in path.read_text()]
    raise UsageError(f'of={of!r} is no experiment{named.suggest(of, [*here, "classification"])}')
