"""Makes optimizers from configs: `make_optimizer(dict(name='adam', learning_rate=1e-3))`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import optax

from canon import named
from canon.errors import UsageError
from canon.optim.groups import partition
from canon.optim.schedules import Schedule

_TRANSFORMS = (optax.GradientTransformation, optax.GradientTransformationExtraArgs)


@functools.cache
def _functions() -> dict[str, Callable]:
    """Returns, by name, every function of this package that is annotated to return a transform or a schedule."""
    package = __name__.rpartition('.')[0]
    # The return type selects: helpers of the same modules return something else.
    paths = [path for path in named.public_functions(package) if not path.startswith('factory.')]
    functions = {path.rpartition('.')[2]: named.lookup(package, path, 'optimizer') for path in paths}
    return {name: f for name, f in functions.items() if _return_type(f) in (*_TRANSFORMS, Schedule)}


def _return_type(function: Callable) -> Any:
    return named.get_type_hints(function).get('return')


def list_names(schedules: bool) -> list[str]:
    """Returns the names of the schedules of this package, or of its optimizers."""
    return [name for name, f in _functions().items() if (_return_type(f) == Schedule) == schedules]


def find_optimizer(name: str, where: str = 'tx') -> Callable:
    """Returns the optimizer or schedule `name` of this package, `optax.NAME`, or `package.module:function`.

    Raises UsageError with similar names if there is none.
    """
    if ':' in name:
        return named.import_function(name, where)
    if name.startswith('optax.'):
        return _find_in_optax(name, where)
    if name not in _functions():
        raise UsageError(f'{where}: no optimizer is called {name!r}{named.suggest(name, list_names(schedules=False))}')
    return _functions()[name]


def make_optimizer(spec: Mapping[str, Any], where: str = 'tx') -> optax.GradientTransformation:
    """Makes the transform that a config describes.

    | spec | transform |
    |---|---|
    | `dict(name='adam', learning_rate=1e-3)` | `adam(learning_rate=1e-3)` |
    | `dict(chain=('clip', 'adam'), clip=dict(name='clip_by_global_norm', max_norm=1.0), adam=dict(...))` | a chain |
    | `learning_rate=dict(name='warmup', steps=500, then=dict(name='cosine', init=1e-3, steps=9500))` | a schedule |
    | `dict(name='partition', rules=(('kernel$', 'muon'), ('.*', 'adam')), muon=dict(...), adam=dict(...))` | groups |
    | `dict(name='optax.adafactor')` | of optax; its rate is not in the state |
    | `dict(name='package.module:function')` | of any module |

    A value that is a mapping with a `name` is a schedule or a transform, to any depth.

    Args:
      spec: as above, with lengths as integers of steps.
      where: the key of the config that errors name.

    Raises:
      UsageError: a name or a key is unknown; the message has similar ones.
    """
    links = named.make_chain(spec, _link, where)
    if not links:
        raise UsageError(f'{where}.chain is empty: name at least one optimizer, such as sgd')
    return links[0] if len(links) == 1 else optax.chain(*links)


def _link(name: str, arguments: dict, where: str) -> optax.GradientTransformation:
    if name == 'partition':
        return _partition(arguments, where)
    function = find_optimizer(name, where)
    if _return_type(function) == Schedule:
        raise UsageError(f'{where}: {name!r} is a schedule; give it as a learning_rate')
    tx = _call(function, arguments, where)
    # By its methods, not its class: a function of another library may return a pair of its own.
    if not (hasattr(tx, 'init') and hasattr(tx, 'update')):
        raise UsageError(f'{where}: {name!r} does not return a gradient transformation')
    return tx


def _partition(arguments: dict, where: str) -> optax.GradientTransformation:
    """Makes the transform of `dict(name='partition', rules=(('kernel$', 'muon'), ...), muon=dict(...), ...)`."""
    if 'rules' not in arguments:
        raise UsageError(f'{where}: partition needs rules, pairs of a regex and the key of a transform next to rules')
    rules = [tuple(pair) for pair in arguments.pop('rules')]
    keys = [key for _, key in rules]
    for key in arguments:
        if key not in keys:
            raise UsageError(f'{where}.{key} is in no rule of {where}.rules{named.suggest(key, keys)}')
    transforms = {}
    for key in keys:
        spec = dict(arguments.get(key, {}))
        # The key of a rule is the name of its optimizer unless its spec has one.
        transforms[key] = make_optimizer(spec if 'chain' in spec else {'name': key, **spec}, f'{where}.{key}')
    return partition([(pattern, transforms[key]) for pattern, key in rules])


def _find_in_optax(name: str, where: str) -> Callable:
    module_name, _, attribute = name.rpartition('.')
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f'{where}: there is no module {module_name!r}') from error
    # optax exports classes of states and types too, whose names are capitalised.
    functions = {k: v for k, v in vars(module).items() if callable(v) and k.islower() and not k.startswith('_')}
    if attribute not in functions:
        raise UsageError(f'{where}: optax has no {name!r}{named.suggest(attribute, functions)}')
    return functions[attribute]


def _call(function: Callable, arguments: dict, where: str) -> Any:
    values = {key: _value(value, f'{where}.{key}') for key, value in arguments.items()}
    try:
        return named.call(function, values, where)
    except UsageError as error:
        # Errors of the optimizer's own arguments do not know the key of the config.
        raise error if str(error).startswith(where) else UsageError(f'{where}: {error}') from error


def _value(value: Any, where: str) -> Any:
    """Makes the schedule or transform of a mapping; returns any other value as it is."""
    if not isinstance(value, Mapping):
        return value
    name = value.get('name')
    if name is None or name == 'partition':  # a chain has no name
        return make_optimizer(value, where)
    if ':' not in name and not name.startswith('optax.') and name not in _functions():
        names = [*list_names(schedules=True), *list_names(schedules=False)]
        raise UsageError(f'{where}: no schedule or optimizer is called {name!r}{named.suggest(name, names)}')
    arguments = dict(value)
    return _call(find_optimizer(arguments.pop('name'), where), arguments, where)
