"""Lists the values that a key of a config selects from, for completion in a shell."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.configuration.checks import DTYPES
from canon.configuration.keys import find_documented, list_own_names
from canon.configuration.sections import find_by_name, find_own_functions


def list_choices(config: ConfigDict, key: str, sections: Mapping[str, Any] = {}) -> list[str]:
    """Returns the values of a key as the command line takes them; [] if they are not a few named ones.

    They are the names of functions, such as those of `model.name`, the values of a `Literal`, `true` and `false`, types
    of floating-point numbers, the forms of a config and the trackers of `run.log`. All modules that have such functions
    are imported, which takes seconds.

    Args:
      config: the whole config.
      key: dotted.
      sections: the sections of the experiment's own (`find_function`).
    """
    path, _, name = key.rpartition('.')
    if key == 'form':
        return list(config.get('forms') or ())
    if key == 'run.log':
        from canon.train.trackers import TRACKERS

        return TRACKERS.names()
    if name == 'dtype' or name.endswith('_dtype'):
        return list(DTYPES) if path.startswith(('model', 'tx')) else []
    if key == 'data.name':
        return _list_data_sets(sections)
    if name in ('name', 'chain') and (names := _list_functions(path, sections)):
        return names
    function = find_documented(config, path, sections) if path else None
    return _list_values(named.get_type_hints(function).get(name, Any)) if function is not None else []


def _list_data_sets(sections: Mapping[str, Any]) -> list[str]:
    from canon.data.pipeline import loading

    own = find_own_functions('data.source', sections)
    shared = [] if isinstance(own, named.Catalogue) else loading.DATA_SETS.names()
    return sorted({*list_own_names('data.source', sections), *shared})


def _list_functions(path: str, sections: Mapping[str, Any]) -> list[str]:
    """Returns the names that a section selects from by `name` or `chain`."""
    if own := list_own_names(path, sections):
        return own
    find = find_by_name(path)
    if find is None:
        return []
    if path.rpartition('.')[2] in ('model', 'backbone'):
        from canon.models import list_models

        return list_models()
    if 'transforms' in path:
        from canon.data.transforms import TRANSFORMS

        return TRANSFORMS.names()
    catalogue = getattr(find, '__self__', None)
    if isinstance(catalogue, named.Catalogue):
        return catalogue.names()
    from canon.optim import factory

    return factory.list_names(schedules='learning_rate' in path)


def _list_values(hint: Any) -> list[str]:
    """Returns the values of a Literal, `true` and `false`, and `None` next to them."""
    options = named.list_options(hint)
    values: list[str] = []
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            values += map(str, typing.get_args(option))
        elif option is bool:
            values += ['true', 'false']
    return [*values, 'None'] if values and type(None) in options else values
