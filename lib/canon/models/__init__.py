"""Systems of the literature, one per file. A config selects one: `model.name='lenet.lenet5'`, of `list_models`.

The constant `TABLE` of a file lists published results of its networks, made by `cite`; `tabulate` compares them with
our own counts.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from canon.errors import UsageError
from canon.lazy import load_on_use
from canon.named import Catalogue, call, get_return_type, lookup, suggest

__all__ = ['NetworkRow', 'cite', 'list_citations', 'list_models', 'make_backbone', 'make_model', 'tabulate']

_DTYPES = ('float32', 'bfloat16', 'float16', 'float64')


class NetworkRow(NamedTuple):
    """One row of `tabulate`: our counts (`canon.nn.trace`) and the published ones, None if there are none."""

    name: str
    arguments: dict[str, Any]
    size: int | tuple[int, int]
    parameters: int
    multiply_adds: int
    field: tuple[int, int]
    stride: tuple[int, int]
    published_parameters: int | None
    published_multiply_adds: float | None
    top1: float | None
    top5: float | None
    source: str | None


def cite(
    name: str,
    parameters: int | None,
    top1: float | None,
    top5: float | None,
    source: str | None,
    multiply_adds: float | None = None,
    size: int | tuple[int, int] = 224,
    channels: int = 3,
    **arguments: Any,
) -> dict[str, Any]:
    """Makes a row of a `TABLE`: what a source reports of a network, None for what it does not.

    Args:
      name: of the constructor, 'resnet.resnet50'.
      parameters: their number.
      top1: accuracy in per cent.
      top5: accuracy in per cent.
      source: where it is published.
      multiply_adds: for one image.
      size: height and width of the images, one number for a square.
      channels: of the images.
      **arguments: of the constructor.
    """
    return dict(
        name=name,
        arguments=arguments,
        size=size,
        channels=channels,
        parameters=parameters,
        multiply_adds=multiply_adds,
        top1=top1,
        top5=top5,
        source=source,
    )


# Any: linen types `Module.apply` as a union with (outputs, variables), which every user would have to narrow.
def make_model(name: str, where: str = 'model', **arguments: Any) -> Any:
    """Builds `canon.models.<name>(**arguments)`, a linen module.

    Args:
      name: of the constructor, 'resnet.resnet50'; `list_models` has them all.
      where: the key of the config that holds it, for errors.
      **arguments: of the constructor.

    Raises:
      UsageError: there is no such model, with similar names, or an argument is not valid.
    """
    # Checked here for all models: `jnp.dtype` would raise a TypeError that does not name the key.
    dtype = arguments.get('dtype')
    if isinstance(dtype, str) and dtype not in _DTYPES:
        raise UsageError(f'{where}.dtype={dtype!r} is not a type that networks compute in{suggest(dtype, _DTYPES)}')
    return call(lookup('canon.models', name, 'model'), arguments, where)


def list_models() -> list[str]:
    """Returns the names that `make_model` takes, sorted: 'module.function' for each function that builds a network.

    >>> list_models()[:3]
    ['alexnet.alexnet', 'alexnet.alexnet_one_tower', 'appearance.backbone_embedding']
    """
    from flax.linen import Module  # here: `make_model` needs no linen

    def builds(function: Callable) -> bool:
        kind = get_return_type(function)
        return inspect.isclass(kind) and issubclass(kind, Module)

    return Catalogue('model', (__name__,), builds).names(dotted=True)


def make_backbone(backbone: Mapping[str, Any], dtype: str | None = None, where: str = 'model.backbone') -> Any:
    """Builds the `canon.nn.Network` that a larger network reads the stages of.

    Args:
      backbone: name and arguments, {'name': 'resnet.resnet50'}.
      dtype: of the computation, unless `backbone` has its own.
      where: the key of the config that holds it, for errors.

    Raises:
      UsageError: it has no name, is unknown, or is not a network with `features`.
    """
    from canon.nn import Network  # here: `make_model` needs no linen

    arguments = {**({} if dtype is None else {'dtype': dtype}), **backbone}
    if 'name' not in arguments:
        raise UsageError(f"{where} needs a name, such as 'resnet.resnet18'")
    network = make_model(where=where, **arguments)
    if not isinstance(network, Network):
        raise UsageError(f'{where}.name={arguments["name"]!r} has no stages; choose a network of images')
    return network


def tabulate(match: str = '') -> Iterator[NetworkRow]:
    """Yields a row for every published result of our networks, oldest families first, as soon as it is counted.

    match: a prefix of the constructor or its module ('resnet', 'resnet.resnet50'), or else any part of a name.
    Raises UsageError if nothing matches.
    """
    from canon.nn.trace import trace_network  # here: most users of models do not trace

    citations = sorted(list_citations(), key=_age)  # stable: the order of a TABLE is kept within a family
    starting = [
        row for row in citations if any(word.startswith(match) for word in (row['name'], *row['name'].split('.')))
    ]
    matching = starting or [row for row in citations if match in row['name']]  # 'lenet' must not match GoogLeNet
    if not matching:
        words = {word for row in citations for word in row['name'].split('.')}
        raise UsageError(f'no network is called {match!r}{suggest(match, words)}')
    counts: dict[str, Any] = {}
    for row in matching:  # several sources may report on the same network: it is traced once
        network = (row['name'], row['arguments'], row['size'], row['channels'])
        if str(network) not in counts:
            name, arguments, size, channels = network
            counts[str(network)] = trace_network(make_model(name, **arguments), size, channels)
        published = (row[key] for key in ('parameters', 'multiply_adds', 'top1', 'top5', 'source'))
        yield NetworkRow(row['name'], row['arguments'], row['size'], *counts[str(network)], *published)


def list_citations() -> Iterator[dict[str, Any]]:
    """Yields the rows of the `TABLE`s of all modules, as `cite` makes them."""
    for entry in pkgutil.iter_modules(__path__):
        yield from getattr(importlib.import_module(f'{__name__}.{entry.name}'), 'TABLE', ())


_FAMILIES = (
    'lenet', 'alexnet', 'cuda_convnet', 'zfnet', 'nin', 'vgg', 'googlenet', 'inception', 'resnet', 'mobilenet', 'fcn',
    'rcnn', 'spp_net', 'fast_rcnn', 'faster_rcnn', 'yolo', 'ssd'
)  # fmt: skip


def _age(row: dict[str, Any]) -> int:
    family = row['name'].partition('.')[0]
    # A family without a place in the list comes last.
    return _FAMILIES.index(family) if family in _FAMILIES else len(_FAMILIES)


if TYPE_CHECKING:  # `models.lenet.lenet5` without a list of the modules here: a new system is one new file

    def __getattr__(name: str) -> ModuleType: ...
else:
    __getattr__, __dir__ = load_on_use(__name__)
