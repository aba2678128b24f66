"""Loads and saves published weights under their publishers' names.

A module of this package holds the names of one family: `TORCHVISION`, `TIMM`, `DTRB` and `CRNN_PYTORCH`, {constructor:
Names}. A constructor with several forms has an entry for each ('vgg.vgg16', 'vgg.vgg16 batch_norm'); the one that fits
a file best is used.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from canon.errors import UsageError
from canon.named import suggest
from canon.weights import files, layout
from canon.weights.layout import Names

PUBLISHERS = ('torchvision', 'timm', 'dtrb', 'crnn_pytorch')


def find_names(model: str) -> dict[tuple[str, str], Names]:
    """Returns {(publisher, entry): Names} of a constructor, 'resnet.resnet50'. Raises UsageError if there are none."""
    matching, models = {}, set()
    package = importlib.import_module(__package__ or 'canon.weights')
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f'{package.__name__}.{info.name}')
        for publisher in PUBLISHERS:
            for entry, names in getattr(module, publisher.upper(), {}).items():
                models.add(entry.split()[0])  # an entry may name a form too: 'vgg.vgg16 batch_norm'
                if entry.split()[0] == model:
                    matching[publisher, entry] = names
    if not matching:
        raise UsageError(f'no published weights are known for model {model!r}{suggest(model, models)}')
    return matching


def load_variables(source: str | Path, model: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """Loads the variables of `model` from a file, or from OWNER/NAME of the hub.

    Args:
      source: a `.safetensors` file, a `.pth` file, or OWNER/NAME[:FILE].
      model: the constructor's name, 'resnet.resnet50'.
      like: what `model.init` returns, arrays or shapes.

    Raises:
      UsageError: keys are missing, left over or of another shape; it lists them.
    """
    tensors = files.strip_prefixes(files.read(source))
    return layout.from_torch(tensors, like, choose_names(tensors, model, like), str(source))


def save_variables(path: str | Path, model: str, variables: Mapping[str, Any], publisher: str = 'torchvision') -> None:
    """Writes the variables of `model` as `.safetensors` under the names of a publisher, for its own code to load.

    Args:
      path: of the file.
      model: the constructor's name.
      variables: all that `model.init` returns, {'params': ..., 'batch_stats': ...}.
      publisher: one of `PUBLISHERS`.

    Raises:
      UsageError: the publisher has no such network, or the variables are incomplete or another network's.
    """
    # Checked first: a file without running means and variances would only fail where it is read.
    layout.check_variables(variables)
    fitting = _fitting(model, variables)
    if publisher not in fitting:
        raise UsageError(f'{publisher!r} does not publish this form of {model!r}; available from {sorted(fitting)}')
    # Names that fit a deeper network fit a shallower one too: take those whose required modules are all there.
    names = min(fitting[publisher], key=lambda names: len(names.missing(variables)))
    if missing := names.missing(variables):
        raise UsageError(f'these variables are not all of {model!r}: they lack {", ".join(missing[:5])}')
    files.write(path, layout.to_torch(variables, names), {'model': model, 'publisher': publisher})


def reader(model: str, at: str = '') -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Makes the function with which an `Experiment` reads published weights for `run.init_from`.

    A detector takes its backbone from a classifier: `Experiment(..., read=weights.reader('resnet.resnet50',
    at='backbone'))` fills params['backbone'] and batch_stats['backbone']; everything else keeps its initialisation.

    Args:
      model: the constructor that the weights are published for, 'resnet.resnet50'.
      at: path of the subtree of parameters to fill, 'backbone' or 'rpn/backbone'; the whole tree if empty.

    Returns:
      (source, leaves) -> {name: array} if `source` is a weights file or a repository of the hub, else None. Leaves are
      named 'block/conv/kernel' or 'batch_stats/block/bn/mean'. What the file has in addition keeps torch's key.
    """

    def read(source: str, leaves: Mapping[str, Any]) -> dict[str, Any] | None:
        if not files.is_weights(source):
            return None
        subtree, rest = _split(leaves, at)  # the rest is handed back as it is: the initialisation
        tensors, variables = files.strip_prefixes(files.read(source)), layout.nest_leaves(subtree)
        arrays = layout.rename_tensors(tensors, variables, choose_names(tensors, model, variables))
        return rest | {_join(name, at) if name in subtree else name: array for name, array in arrays.items()}

    return read


_STATISTICS = 'batch_stats/'  # the collection is the first part of a leaf's name, 'params' is left out


def _split(leaves: Mapping[str, Any], at: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits leaves into those of the subtree `at`, under their names within it, and the rest."""
    if not at:
        return dict(leaves), {}
    subtree, rest = {}, {}
    for name, leaf in leaves.items():
        collection = _STATISTICS if name.startswith(_STATISTICS) else ''
        path = name.removeprefix(collection)
        if path.startswith(f'{at}/'):
            subtree[collection + path.removeprefix(f'{at}/')] = leaf
        else:
            rest[name] = leaf
    if not subtree:
        modules = {name.partition('/')[0] for name in rest if not name.startswith(_STATISTICS)}
        raise UsageError(f'there are no parameters at {at!r} to read weights into{suggest(at, modules)}')
    return subtree, rest


def _join(name: str, at: str) -> str:
    if not at:
        return name
    collection = _STATISTICS if name.startswith(_STATISTICS) else ''
    return f'{collection}{at}/{name.removeprefix(collection)}'


def choose_names(tensors: Mapping[str, Any], model: str, like: Mapping[str, Any]) -> Names:
    """Returns the names that cover most keys of the file."""
    fitting = [names for forms in _fitting(model, like).values() for names in forms]
    # Publishers name the same shapes differently; the file tells which of them wrote it.
    return max(fitting, key=lambda names: len(layout.torch_keys(like, names) & tensors.keys()))


def _fitting(model: str, variables: Mapping[str, Any]) -> dict[str, list[Names]]:
    """Returns {publisher: [names with a key for every leaf]}. Raises UsageError if there are none."""
    fitting: dict[str, list[Names]] = {}
    for (publisher, _), names in find_names(model).items():
        if names.fits(variables):
            fitting.setdefault(publisher, []).append(names)
    if not fitting:
        raise UsageError(f'no published weights are known for this form of model {model!r}')
    return fitting
