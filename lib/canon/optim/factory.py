"""From a config to a transform: `make(dict(name='adam', learning_rate=1e-3))`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import optax

from canon import named
from canon.errors import UsageError
from canon.optim.adam import adam, adamw, nadam, scale_by_adam, scale_by_nadam
from canon.optim.adaptive import adadelta, adagrad, rmsprop, scale_by_adadelta, scale_by_rms, scale_by_rss
from canon.optim.average import average_on_plateau, ema
from canon.optim.buckets import bucketed
from canon.optim.clip import clip_by_global_norm
from canon.optim.decay import add_decayed_weights
from canon.optim.descent import momentum, nesterov, sgd, trace
from canon.optim.groups import freeze, partition, scale_rates
from canon.optim.layerwise import lamb, lars, scale_by_trust_ratio
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.lion import lion, scale_by_lion
from canon.optim.muon import muon, scale_by_muon
from canon.optim.nonfinite import skip_nonfinite
from canon.optim.plateau import divide_on_plateau
from canon.optim.precision import master_weights
from canon.optim.schedule_free import schedule_free
from canon.optim.schedules import constant, cosine, exponential, inverse_sqrt, linear_decay, step_decay, warmup
from canon.optim.soap import scale_by_soap, soap

_TRANSFORMS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        sgd,
        momentum,
        nesterov,
        trace,
        adagrad,
        rmsprop,
        adadelta,
        scale_by_rss,
        scale_by_rms,
        scale_by_adadelta,
        adam,
        adamw,
        scale_by_adam,
        scale_by_learning_rate,
        add_decayed_weights,
        clip_by_global_norm,
        average_on_plateau,
        ema,
        nadam,
        scale_by_nadam,
        lamb,
        lars,
        scale_by_trust_ratio,
        lion,
        scale_by_lion,
        muon,
        scale_by_muon,
        soap,
        scale_by_soap,
        schedule_free,
        divide_on_plateau,
        freeze,
        scale_rates,
        master_weights,
        skip_nonfinite,
        bucketed,
    )
}
_SCHEDULES: dict[str, Callable] = {
    f.__name__: f
    for f in (
        constant,
        linear_decay,
        step_decay,
        cosine,
        warmup,
        inverse_sqrt,
        exponential,
    )
}


def make(spec: Mapping[str, Any], where: str = 'tx') -> optax.GradientTransformation:
    """The transform that a config describes; lengths in it are integers of steps already.

    `dict(name='adam', learning_rate=1e-3)` is `adam(learning_rate=1e-3)`. Several links, in order:
    `dict(chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0),
    adam=dict(learning_rate=1e-3))`. A value that is itself a mapping with a `name` is a schedule or a
    transform, to any depth: `learning_rate=dict(name='warmup', steps=500, then=dict(name='cosine',
    init=1e-3, steps=9500))`. Groups of parameters:
    `dict(name='partition', rules=(('kernel$', 'muon'), ('.*', 'adam')), muon=dict(...), adam=dict(...))`.
    `name='optax.adafactor'` takes it from optax, whose rate is then not in the state. Raises UsageError for an
    unknown name or key, with the near ones.
    """
    links = named.chain(spec, _link, where)
    return links[0] if len(links) == 1 else optax.chain(*links)


def _link(name: str, arguments: dict, where: str) -> optax.GradientTransformation:
    if name.startswith('optax.'):
        return _from_optax(name, arguments, where)
    if name == 'partition':
        return _partition(arguments, where)
    if name in _SCHEDULES:
        raise UsageError(f'{where}: {name!r} is a schedule; give it as a learning_rate')
    if name not in _TRANSFORMS:
        raise UsageError(f'{where}: no optimizer is called {name!r}{named.near(name, _TRANSFORMS)}')
    return _call(_TRANSFORMS[name], arguments, where)


def _partition(arguments: dict, where: str) -> optax.GradientTransformation:
    """`dict(name='partition', rules=(('kernel$', 'muon'), ('.*', 'adam')), muon=dict(...), adam=dict(...))`."""
    if 'rules' not in arguments:
        raise UsageError(f'{where}: partition needs rules, pairs of a regex and the name of a key beside it')
    rules = [tuple(pair) for pair in arguments.pop('rules')]
    wanted = [key for _, key in rules]
    for key in arguments:
        if key not in wanted:
            raise UsageError(f'{where}.{key} is in no rule of {where}.rules{named.near(key, wanted)}')
    made = {}
    for key in wanted:
        spec = dict(arguments.get(key, {}))
        made[key] = make(spec if 'chain' in spec else {'name': key, **spec}, f'{where}.{key}')
    return partition([(regex, made[key]) for regex, key in rules])


def _from_optax(name: str, arguments: dict, where: str) -> optax.GradientTransformation:
    module_name, _, attribute = name.rpartition('.')
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f'{where}: there is no module {module_name!r}') from error
    functions = {k: v for k, v in vars(module).items() if callable(v) and k.islower() and not k.startswith('_')}
    if attribute not in functions:
        raise UsageError(f'{where}: optax has no {name!r}{named.near(attribute, functions)}')
    made = _call(functions[attribute], arguments, where)
    if not (hasattr(made, 'init') and hasattr(made, 'update')):
        raise UsageError(f'{where}: {name!r} gives no gradient transformation')
    return made


def _call(function: Callable, arguments: dict, where: str) -> Any:
    values = {key: _value(value, f'{where}.{key}') for key, value in arguments.items()}
    try:
        return named.call(function, values, where)
    except UsageError as error:
        raise error if str(error).startswith(where) else UsageError(f'{where}: {error}') from error


def _value(value: Any, where: str) -> Any:
    """A mapping that names something becomes that thing; anything else is passed on."""
    if not isinstance(value, Mapping):
        return value
    if value.get('name') not in _SCHEDULES:
        _check_nested(value, where)
        return make(value, where)
    arguments = dict(value)
    return _call(_SCHEDULES[arguments.pop('name')], arguments, where)


def _check_nested(value: Mapping, where: str) -> None:
    name = value.get('name')
    known = name in (None, 'partition') or name in _TRANSFORMS or name.startswith('optax.')
    if not known:
        names = [*_SCHEDULES, *_TRANSFORMS]
        raise UsageError(f'{where}: no schedule or optimizer is called {name!r}{named.near(name, names)}')
