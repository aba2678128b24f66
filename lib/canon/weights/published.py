"""Which publisher calls a network's parameters what, and loading and saving by that.

A module of this package holds the names of one family: `TORCHVISION` and `TIMM`, {constructor: Names}. A constructor
with several forms has an entry for each ('vgg.vgg16', 'vgg.vgg16 batch_norm'); the one that fits a file best is taken.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from canon.errors import UsageError
from canon.named import near
from canon.weights import files, layout
from canon.weights.layout import Names

PUBLISHERS = ('torchvision', 'timm')


def names_of(model: str) -> dict[tuple[str, str], Names]:
    """{(publisher, entry): Names} of a constructor, 'resnet.resnet50'. Raises UsageError where there are none."""
    found, known = {}, set()
    package = importlib.import_module(__package__ or 'canon.weights')
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f'{package.__name__}.{info.name}')
        for publisher in PUBLISHERS:
            for entry, names in getattr(module, publisher.upper(), {}).items():
                known.add(entry.split()[0])
                if entry.split()[0] == model:
                    found[publisher, entry] = names
    if not found:
        raise UsageError(f'no published weights are known for model {model!r}{near(model, known)}')
    return found


def load(source: str | Path, model: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of `model` from a file, or from OWNER/NAME of the hub.

    model: the constructor's name, 'resnet.resnet50'. like: what `model.init` gives, arrays or shapes.
    Raises UsageError that lists the keys that are missing, left over or of another shape.
    """
    tensors = files.without_prefixes(files.read(source))
    return layout.from_torch(tensors, like, _best(tensors, model, like), str(source))


def save(path: str | Path, model: str, variables: Mapping[str, Any], publisher: str = 'torchvision') -> None:
    """Writes the variables of `model` as `.safetensors` under the names of a publisher, for its own code to load.

    variables: all that `model.init` gives, {'params': ..., 'batch_stats': ...}. Raises UsageError where a part is
    missing and where they are another network's.
    """
    layout.check_variables(variables)
    fitting = _fitting(model, variables)
    if publisher not in fitting:
        raise UsageError(f'{publisher!r} publishes no such {model!r}; there are {sorted(fitting)}')
    names = min(fitting[publisher], key=lambda names: len(names.missing(variables)))
    if missing := names.missing(variables):
        raise UsageError(f'these variables are not all of {model!r}: they lack {", ".join(missing[:5])}')
    files.write(path, layout.to_torch(variables, names), {'model': model, 'publisher': publisher})


def reader(model: str) -> Callable[[str, Mapping[str, Any]], dict[str, np.ndarray] | None]:
    """What an `Experiment` reads published weights with, for `run.init_from`.

    (source, leaves) -> {name: array} where `source` is a file of weights or a name of the hub, else None.
    leaves: {'block/conv/kernel': leaf, 'batch_stats/block/bn/mean': leaf}. What has no place here keeps torch's key.
    """

    def read(source: str, leaves: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
        if not files.is_weights(source):
            return None
        tensors, variables = files.without_prefixes(files.read(source)), layout.nested(leaves)
        return layout.renamed(tensors, variables, _best(tensors, model, variables))

    return read


def _best(tensors: Mapping[str, Any], model: str, like: Mapping[str, Any]) -> Names:
    """The names that know most keys of the file."""
    fitting = [names for each in _fitting(model, like).values() for names in each]
    return max(fitting, key=lambda names: len(layout.keys(like, names) & tensors.keys()))


def _fitting(model: str, variables: Mapping[str, Any]) -> dict[str, list[Names]]:
    """{publisher: names} that have a key for every leaf of `variables`. Raises UsageError where there are none."""
    found: dict[str, list[Names]] = {}
    for (publisher, _), names in names_of(model).items():
        if names.fits(variables):
            found.setdefault(publisher, []).append(names)
    if not found:
        raise UsageError(f'no published weights are known for this form of model {model!r}')
    return found
