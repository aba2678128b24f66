"""The keys of `config.run`. Each default lives once, here; the ranges of values are in the types."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ml_collections.config_dict import placeholder

from canon import named
from canon.errors import UsageError
from canon.named import Count, NonNegative, Positive, Range
from canon.train import lengths

Steps = Annotated[int, Range(1, lengths.MOST)]


@dataclass(frozen=True)
class Checkpointing:
    """The checkpoints that are saved, kept and handed on.

    Attributes:
      every: steps between saves.
      keep: how many of the newest stay.
      best: a metric of an evaluator ('test/accuracy') whose best steps stay too, and are handed on.
      mode: whether 'max' or 'min' is the best value of that metric; it has no default.
      keep_best: how many of the best steps stay.
      average: hands on the mean of parameters and batch statistics of the newest N checkpoints (Vaswani et al. 2017,
        section 6.1).
    """

    every: Steps = 1000
    keep: Count = 1
    best: str | None = None
    mode: str | None = None
    keep_best: Count = 1
    average: Count = 1


@dataclass(frozen=True)
class EarlyStop:
    """Stops after several evaluations in a row without an improvement.

    Attributes:
      metric: a metric of an evaluator ('val/loss').
      patience: how many evaluations without an improvement end the run.
      mode: whether a higher value ('max') or a lower one ('min') is an improvement; it has no default.
      min_delta: a difference up to this is not an improvement.
    """

    metric: str
    patience: Count
    mode: str | None = None
    min_delta: NonNegative = 0.0


@dataclass(frozen=True)
class Eval:
    """When an evaluator runs.

    Attributes:
      every: steps between evaluations; the last step is always evaluated.
    """

    every: Steps


@dataclass(frozen=True)
class InitFrom:
    """The source of parameters that are not initialised: another run, a stage or published weights.

    Attributes:
      path: the folder of a run, for the weights that it hands on (its average, else its best, else its last), or one of
        its checkpoints. Weights that the optimizer averages are taken as they were evaluated.
      stage: the name of an earlier stage, instead of a path.
      rules: pairs (regex, replacement) that turn the name of a new parameter into the stored one's, the first that
        matches.
      new: regex of the names that keep their initialisation.
    """

    path: str | None = None
    stage: str | None = None
    rules: tuple = ()
    new: str | None = None


@dataclass(frozen=True)
class MeshSettings:
    """The numbers of devices along the axes of the mesh.

    Attributes:
      data: devices over which batches are divided; -1 takes all that are left.
      model: devices over which parameters are divided by `shard.rules`.
    """

    data: Annotated[int, Range(-1)] = -1
    model: Count = 1


@dataclass(frozen=True)
class Shard:
    """The division of parameters over devices: see `shard.param_shardings`.

    Attributes:
      rules: pairs (regex, axes).
      fsdp: parameters of at least N elements are divided over 'data'.
    """

    rules: tuple = ()
    fsdp: Annotated[int, Range(0)] | None = None


@dataclass(frozen=True)
class Profile:
    """Traces some steps into the `profile/` of the workdir, which TensorBoard and Perfetto read.

    Attributes:
      start: the first step that is traced.
      steps: how many steps are traced.
    """

    start: Annotated[int, Range(0, lengths.MOST)]
    steps: Annotated[int, Range(0, lengths.MOST)] = 5


@dataclass(frozen=True)
class WatchdogSettings:
    """Dumps all stacks when a step hangs.

    Attributes:
      factor: a step hangs if it takes this many times the median.
      least: seconds that any step may take.
    """

    factor: Annotated[float, Range(1)] = 20.0
    least: Positive = 60.0


@dataclass(frozen=True)
class Settings:
    """The settings of one run of `fit`, with lengths already in steps.

    Attributes:
      steps: length of the whole run, which schedules see; 0 if nothing is trained.
      stop_after: stops (and saves) at this step, without changing any schedule.
      log_every: steps between rows of metrics.
      accumulate: microbatches that a batch is cut into.
      bn_batches: training batches over which the statistics of batch normalisation are measured again for averaged
        weights, before they are evaluated or saved; 0 evaluates them with the statistics of the trained weights.
      evals: how often each evaluator runs, by name; one that is not named runs at the end only.
      checkpoint: what is saved.
      early_stop: when training ends before its last step.
      init_from: where parameters come from instead of an initialisation.
      mesh: the devices.
      shard: the layout of parameters.
      profile: which steps are traced.
      watchdog: when a step counts as hanging.
      log: the trackers that receive the metrics, too: 'tensorboard', 'wandb', 'mlflow', or 'my_package.module:function'
        (`canon.train.trackers`).
    """

    steps: Annotated[int, Range(0, lengths.MOST)]
    stop_after: Steps | None = None
    log_every: Steps = 50
    accumulate: Count = 1
    bn_batches: Annotated[int, Range(0)] = 32
    evals: Mapping[str, Eval] = field(default_factory=dict)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    early_stop: EarlyStop | None = None
    init_from: InitFrom | None = None
    mesh: MeshSettings = field(default_factory=MeshSettings)
    shard: Shard = field(default_factory=Shard)
    profile: Profile | None = None
    watchdog: WatchdogSettings = field(default_factory=WatchdogSettings)
    log: tuple[str, ...] = ('tensorboard',)


_SECTIONS: dict[str, Any] = {
    'checkpoint': Checkpointing,
    'early_stop': EarlyStop,
    'init_from': InitFrom,
    'mesh': MeshSettings,
    'shard': Shard,
    'profile': Profile,
    'watchdog': WatchdogSettings,
}
# Sections that are None by default, with the keys of which one at least switches them on.
_SWITCHES = {
    'early_stop': ('metric', 'patience'),
    'init_from': ('path', 'stage', 'rules', 'new'),
    'profile': ('start',),
}


def make_settings(run: Mapping[str, Any]) -> Settings:
    """Makes `Settings` from `config.run`; raises UsageError for an unknown key, with the near ones."""
    run = dict(named.to_plain(run))
    for key, kind in _SECTIONS.items():
        if not isinstance(run.get(key) or {}, Mapping):
            raise UsageError(
                f'run.{key}={run[key]!r} must be a dict of {", ".join(f.name for f in dataclasses.fields(kind))}'
            )
        # None is a placeholder that `fill_placeholders` put there for the command line.
        section = {k: v for k, v in (run.pop(key, None) or {}).items() if v is not None}
        stated = {k for k, v in section.items() if v != ()}  # it put the default of `rules` there, too
        if section and (key not in _SWITCHES or stated & set(_SWITCHES[key])):
            run[key] = named.call(kind, section, f'run.{key}')
    evals = run.get('evals') or {}
    run['evals'] = {name: named.call(Eval, section, f'run.evals.{name}') for name, section in evals.items()}
    made = named.call(Settings, run, 'run')
    _check(made)
    return made


def fill_placeholders(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `run` with every key that it does not state, so that the command line can set it.

    Lengths become text, so that `--config.run.steps='2 epochs'` can replace `steps=100`. A key without a value is a
    placeholder of its type.
    """
    return _fill(named.to_plain(run), Settings)


def _fill(section: Mapping[str, Any], kind) -> dict[str, Any]:
    filled = dict(section)
    hints = typing.get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if f.name in _SECTIONS:
            default = {} if f.default is None else dataclasses.asdict(_SECTIONS[f.name]())
            filled[f.name] = _fill(filled.get(f.name) or default, _SECTIONS[f.name])
            continue
        value = filled.get(f.name, None if f.default is dataclasses.MISSING else f.default)
        if f.name in lengths.KEYS:  # as text: a ConfigDict keeps the type of a key's first value
            value = f'{value} steps' if isinstance(value, int) else value
            filled[f.name] = placeholder(str) if value is None else value
        elif value is None and f.name != 'evals':
            options = typing.get_args(hints[f.name]) or (hints[f.name],)
            filled[f.name] = placeholder(next(t for t in options if t is not type(None)))
        elif value is not None:
            filled[f.name] = value
    for name, evaluation in (filled.get('evals') or {}).items():
        filled['evals'] = {**filled['evals'], name: _fill(evaluation, Eval)}
    return filled


def _check(settings: Settings) -> None:
    """Raises UsageError for what types and ranges cannot state."""
    c, early, init, shard = settings.checkpoint, settings.early_stop, settings.init_from, settings.shard
    _check_mode('run.checkpoint.mode', c.mode, c.best)
    if early is not None:
        _check_mode('run.early_stop.mode', early.mode, early.metric)
    if c.average > c.keep:
        raise UsageError(f'run.checkpoint.average={c.average} needs as many checkpoints: run.checkpoint.keep={c.keep}')
    _check_rules('run.shard.rules', shard.rules)
    if init is not None:
        if (init.path is None) == (init.stage is None):
            raise UsageError('run.init_from needs either a path or the name of a stage')
        _check_rules('run.init_from.rules', init.rules)
        named.compile_pattern(init.new or '', 'run.init_from.new')


def _check_mode(key: str, mode: str | None, metric: str | None) -> None:
    if mode not in ('min', 'max') and (metric is not None or mode is not None):
        which = '' if metric is None else f': is {metric!r} better when lower or higher?'
        raise UsageError(f"{key}={mode!r} must be 'min' or 'max'{which}")


def _check_rules(key: str, rules: tuple) -> None:
    for rule in rules:
        if not (isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[0], str)):
            raise UsageError(f'{key}: {rule!r} is not a pair that begins with a regular expression')
        named.compile_pattern(rule[0], key)
