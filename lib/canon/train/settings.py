"""The keys of `config.run`, with their defaults: each lives once, here."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from ml_collections.config_dict import placeholder

from canon import named
from canon.errors import UsageError
from canon.named import NonNegative, Positive, Range
from canon.train import lengths


@dataclass(frozen=True)
class Checkpointing:
    """every: steps between saves; keep: how many of the newest stay; best: an evaluator's metric ('test/accuracy')
    whose `keep_best` best steps stay too, highest (mode 'max') or lowest ('min'); it has no default.
    average: hand on the mean of the parameters, and of the batch statistics, of the newest `average` checkpoints
    (Vaswani et al. 2017, section 6.1)."""

    every: int = 1000
    keep: int = 1
    best: str | None = None
    mode: str | None = None
    keep_best: int = 1
    average: int = 1


@dataclass(frozen=True)
class EarlyStop:
    """Stop after `patience` evaluations in a row without an improvement of `metric` by more than `min_delta`.

    mode: whether a higher ('max') or a lower ('min') value is better; it has no default."""

    metric: str
    patience: int
    mode: str | None = None
    min_delta: NonNegative = 0.0


@dataclass(frozen=True)
class Eval:
    """every: steps between evaluations; the last step is always evaluated."""

    every: int


@dataclass(frozen=True)
class InitFrom:
    """path: a run's folder, for the weights that it hands on (its average, else its best, else its last), or one of its
    checkpoints; weights that the optimizer averages are taken as they were evaluated. rules: pairs (regex, replacement)
    that turn the name of a new parameter into the stored one's, the first that matches. new: regex of the names that
    keep their initialisation."""

    path: str
    rules: tuple = ()
    new: str | None = None


@dataclass(frozen=True)
class MeshShape:
    """Devices along 'data' (-1: all that are left) and along 'model'."""

    data: int = -1
    model: int = 1


@dataclass(frozen=True)
class Shard:
    """rules: pairs (regex, axes); fsdp: cut parameters of at least so many elements over 'data'. See `shard.py`."""

    rules: tuple = ()
    fsdp: int | None = None


@dataclass(frozen=True)
class Profile:
    """Trace `steps` steps from step `start` into the workdir's `profile/` (TensorBoard and Perfetto read it)."""

    start: int
    steps: int = 5


@dataclass(frozen=True)
class Watchdog:
    """Dump all stacks when a step takes over `factor` times the median, and over `least` seconds."""

    factor: Annotated[float, Range(1)] = 20.0
    least: Positive = 60.0


@dataclass(frozen=True)
class Settings:
    """How `fit` runs an experiment; lengths in steps, already resolved.

    steps: the whole run, which schedules see. stop_after: stop (and save) there, without changing any schedule.
    log_every: steps between rows of metrics. accumulate: microbatches an update is cut into.
    bn_batches: training batches over which the statistics of batch normalisation are measured again for averaged
    weights, before they are evaluated or saved; 0 evaluates them with the statistics of the trained weights.
    evals: cadence of each evaluator by name; one that is not named runs at the end only.
    """

    steps: int
    stop_after: int | None = None
    log_every: int = 50
    accumulate: int = 1
    bn_batches: int = 32
    evals: Mapping[str, Eval] = field(default_factory=dict)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    early_stop: EarlyStop | None = None
    init_from: InitFrom | None = None
    mesh: MeshShape = field(default_factory=MeshShape)
    shard: Shard = field(default_factory=Shard)
    profile: Profile | None = None
    watchdog: Watchdog = field(default_factory=Watchdog)
    tensorboard: bool = True


_PARTS: dict[str, Any] = {
    'checkpoint': Checkpointing,
    'early_stop': EarlyStop,
    'init_from': InitFrom,
    'mesh': MeshShape,
    'shard': Shard,
    'profile': Profile,
    'watchdog': Watchdog,
}


def settings(run: Mapping[str, Any]) -> Settings:
    """`Settings` from `config.run`; raises UsageError for an unknown key, with the near ones."""
    run = dict(named.plain(run))
    for key, kind in _PARTS.items():
        if not isinstance(run.get(key) or {}, Mapping):
            raise UsageError(
                f'run.{key}={run[key]!r} must be a dict of {", ".join(f.name for f in dataclasses.fields(kind))}'
            )
        part = {k: v for k, v in (run.pop(key, None) or {}).items() if v is not None}
        required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
        if part and (not required or part.keys() & required):
            run[key] = named.call(kind, part, f'run.{key}')
    evals = run.get('evals') or {}
    run['evals'] = {name: named.call(Eval, part, f'run.evals.{name}') for name, part in evals.items()}
    made = named.call(Settings, run, 'run')
    _check(made)
    return made


def overridable(run: Mapping[str, Any]) -> dict[str, Any]:
    """`run` with every key that it is silent about, so that the command line can set it.

    Lengths become text, so that `--config.run.steps='2 epochs'` can stand for `steps=100`. A key without a value is a
    placeholder of its type.
    """
    return _filled(named.plain(run), Settings)


def _filled(part: Mapping[str, Any], kind) -> dict[str, Any]:
    filled = dict(part)
    hints = typing.get_type_hints(kind)
    for f in dataclasses.fields(kind):
        if f.name in _PARTS:
            on = filled.get(f.name) or ({} if f.default is None else dataclasses.asdict(_PARTS[f.name]()))
            filled[f.name] = _filled(on, _PARTS[f.name])
            continue
        value = filled.get(f.name, None if f.default is dataclasses.MISSING else f.default)
        if f.name in lengths.KEYS:
            value = f'{value} steps' if isinstance(value, int) else value
            filled[f.name] = placeholder(str) if value is None else value
        elif value is None and f.name != 'evals':
            filled[f.name] = placeholder(next(t for t in _types(hints[f.name]) if t is not type(None)))
        elif value is not None:
            filled[f.name] = value
    for name, evaluation in (filled.get('evals') or {}).items():
        filled['evals'] = {**filled['evals'], name: _filled(evaluation, Eval)}
    return filled


def _types(hint) -> tuple:
    return typing.get_args(hint) or (hint,)


def _check(s: Settings) -> None:
    least = {'steps': 0, 'log_every': 1, 'accumulate': 1, 'stop_after': 1, 'every': 1, 'keep': 1, 'patience': 1}
    least |= {'start': 0, 'model': 1, 'data': -1, 'keep_best': 1, 'fsdp': 0, 'average': 1, 'bn_batches': 0}
    parts: dict[str, Any] = {'run': s, **{f'run.evals.{name}': e for name, e in s.evals.items()}}
    parts |= {f'run.{name}': getattr(s, name) for name in _PARTS if getattr(s, name) is not None}
    for where, part in parts.items():
        for f in dataclasses.fields(part):
            value = getattr(part, f.name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if f.name in lengths.KEYS and whole and value > lengths.MOST:
                raise UsageError(f'{where}.{f.name}={value!r} is too long: a run has at most {lengths.MOST} steps')
            if f.name in least and value is not None and not (whole and value >= least[f.name]):
                raise UsageError(f'{where}.{f.name}={value!r} must be a whole number of at least {least[f.name]}')
            if f.name == 'mode':
                metric = getattr(part, 'metric', None) or getattr(part, 'best', None)
                if value not in ('min', 'max') and (metric is not None or value is not None):
                    which = '' if metric is None else f': is {metric!r} better when lower or higher?'
                    raise UsageError(f"{where}.mode={value!r} must be 'min' or 'max'{which}")
            if f.name == 'rules':
                for rule in value:
                    if not (isinstance(rule, list | tuple) and len(rule) == 2 and isinstance(rule[0], str)):
                        raise UsageError(f'{where}.rules: {rule!r} is not a pair that begins with a regular expression')
                    _check_regex(f'{where}.rules', rule[0])
            if f.name == 'new' and value is not None:
                _check_regex(f'{where}.new', value)
    if s.checkpoint.average > s.checkpoint.keep:
        c = s.checkpoint
        raise UsageError(f'run.checkpoint.average={c.average} needs as many checkpoints: run.checkpoint.keep={c.keep}')


def _check_regex(where: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f'{where}: {pattern!r} is no regular expression: {error}') from error
