"""The keys of `config.run`, with their defaults: each lives once, here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from canon import named
from canon.errors import UsageError
from canon.train.lengths import to_plain


@dataclass(frozen=True)
class Checkpointing:
    """every: steps between saves; keep: how many of the newest stay; best: an evaluator's metric ('test/accuracy')
    whose `keep_best` best steps stay too, highest (mode 'max') or lowest ('min')."""

    every: int = 1000
    keep: int = 1
    best: str | None = None
    mode: str = 'max'
    keep_best: int = 1


@dataclass(frozen=True)
class EarlyStop:
    """Stop after `patience` evaluations in a row without an improvement of `metric` by more than `min_delta`."""

    metric: str
    patience: int
    mode: str = 'max'
    min_delta: float = 0.0


@dataclass(frozen=True)
class Eval:
    """every: steps between evaluations; the last step is always evaluated."""

    every: int


@dataclass(frozen=True)
class InitFrom:
    """path: a run's folder or one of its checkpoints. rules: pairs (regex, replacement) that turn the name of a new
    parameter into the stored one's, the first that matches. new: regex of the names that keep their initialisation."""

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

    factor: float = 20.0
    least: float = 60.0


@dataclass(frozen=True)
class Settings:
    """How `fit` runs an experiment; lengths in steps, already resolved.

    steps: the whole run, which schedules see. stop_after: stop (and save) there, without changing any schedule.
    log_every: steps between rows of metrics. accumulate: microbatches an update is cut into.
    evals: cadence of each evaluator by name; one that is not named runs at the end only.
    """

    steps: int
    stop_after: int | None = None
    log_every: int = 50
    accumulate: int = 1
    evals: Mapping[str, Eval] = field(default_factory=dict)
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    early_stop: EarlyStop | None = None
    init_from: InitFrom | None = None
    mesh: MeshShape = field(default_factory=MeshShape)
    shard: Shard = field(default_factory=Shard)
    profile: Profile | None = None
    watchdog: Watchdog = field(default_factory=Watchdog)
    tensorboard: bool = True


_PARTS = {
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
    plain = dict(to_plain(run))
    for key, kind in _PARTS.items():
        if plain.get(key) is not None:
            plain[key] = named.call(kind, _present(plain[key], kind), f'run.{key}')
        elif key in plain:
            del plain[key]
    evals = plain.get('evals') or {}
    plain['evals'] = {name: named.call(Eval, part, f'run.evals.{name}') for name, part in evals.items()}
    made = named.call(Settings, plain, 'run')
    _check(made)
    return made


def defaults() -> dict[str, Any]:
    """Every optional key of `config.run` with its default, so that the command line can set keys a config is silent
    about. Parts that are off by default (early_stop, ...) have all their keys None."""
    plain = {}
    for f in dataclasses.fields(Settings):
        kind = _PARTS.get(f.name)
        if f.name in ('steps', 'evals'):
            continue
        if kind is None:
            plain[f.name] = f.default
        else:
            on = f.default is dataclasses.MISSING
            plain[f.name] = {
                g.name: g.default if on and g.default is not dataclasses.MISSING else None
                for g in dataclasses.fields(kind)
            }
    return plain


def _present(part: Mapping[str, Any], kind) -> dict[str, Any] | None:
    """`part` without keys that are None for want of a value."""
    return {k: v for k, v in part.items() if v is not None}


def _check(s: Settings) -> None:
    for key in ('steps', 'log_every', 'accumulate'):
        value = getattr(s, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < (key != 'steps'):
            raise UsageError(f'run.{key}={value!r} must be a whole number of at least {int(key != "steps")}')
    for key, mode in (('checkpoint', s.checkpoint.mode), ('early_stop', s.early_stop and s.early_stop.mode)):
        if mode not in (None, 'min', 'max'):
            raise UsageError(f"run.{key}.mode={mode!r} must be 'min' or 'max'")
