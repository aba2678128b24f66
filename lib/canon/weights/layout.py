"""Converts between Flax trees and torch's {key: array}: names by a rule per network, layouts by kind of parameter.

| ours | torch's |
|---|---|
| `kernel` [h, w, C / groups, N] of a convolution | `weight` [N, C / groups, h, w] |
| `kernel` [C, N] of a dense layer | `weight` [N, C] |
| `kernel` [h w C, N] of a dense layer on a flattened [h, w, C] | `weight` [N, C h w]; some [N, C, h, w] |
| `scale`, `bias` | `weight`, `bias` |
| `mean`, `var` of 'batch_stats' | `running_mean`, `running_var` |
| `channel_scale` of an `L2Norm` | `scale_weight` |
| `kernel`, `recurrent` of layer k of an RNN or LSTM | `weight_ih_lk`, `weight_hh_lk`, transposed |
| `bias` of layer k of an RNN or LSTM | `bias_ih_lk` + `bias_hh_lk` |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from canon.errors import UsageError

_LEAVES = {
    'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var',
    'channel_scale': 'scale_weight',
}  # fmt: skip
_RECURRENT_LEAVES = {'kernel': 'weight_ih', 'recurrent': 'weight_hh', 'bias': 'bias_ih'}


class Names(NamedTuple):
    """A publisher's names for the modules of one network.

    Attributes:
      module: translates the path of our module, 'stage1/block0/conv1', to 'layer1.0.conv1'; raises KeyError for an
        unknown one.
      flattened: {path of a dense layer on a flattened map: (h, w)}; torch orders the rows of its kernel channel first.
      ignored: regex of the publisher's keys that have no counterpart here.
      convolved: like `flattened`, for layers that the publisher keeps as a convolution over the whole map.
      required: our modules, or prefixes of their paths, that every form of the network has.
      cells: recurrent layers that the publisher keeps as a single cell, whose keys do not end in the layer's number.
    """

    module: Callable[[str], str]
    flattened: Mapping[str, tuple[int, int]] = {}
    ignored: str = r'num_batches_tracked$'
    convolved: Mapping[str, tuple[int, int]] = {}
    required: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()

    def fits(self, variables: Mapping[str, Any]) -> bool:
        """Returns whether every leaf of `variables` has a key of its own."""
        try:
            leaves = [key for key, *_ in _list_keys(variables, self)]
        except (KeyError, ValueError):
            return False
        return len(leaves) == len(set(leaves))  # two leaves of one key: these are the names of another form

    def missing(self, variables: Mapping[str, Any]) -> list[str]:
        """Lists the required modules that `variables` lacks."""
        paths = ['/'.join(path[:-1]) + '/' for path in flatten_dict(variables['params'])]
        return [module for module in self.required if not any(path.startswith(f'{module}/') for path in paths)]


def substitute(*rules: tuple[str, str]) -> Callable[[str], str]:
    """Makes a `Names.module` that applies rules (regex, replacement) in turn and then turns '/' into '.'."""

    def module(path: str) -> str:
        for pattern, replacement in rules:
            path = re.sub(pattern, replacement, path)
        return path.replace('/', '.')

    return module


def to_torch(variables: Mapping[str, Any], names: Names) -> dict[str, np.ndarray]:
    """Converts {'params': ..., 'batch_stats': ...} to torch's {key: array}.

    Raises UsageError for variables without 'params', or without the statistics of a normalisation.
    """
    check_variables(variables)
    rows = list(_list_keys(variables, names))
    tensors = {key: _to_torch_layout(np.asarray(leaf), path, names) for key, path, leaf in rows}
    # torch adds two biases; ours is the first, so the second is zero.
    inner = {key.replace('.bias_ih', '.bias_hh'): tensors[key] for key, path, _ in rows if _is_recurrent_bias(path)}
    return tensors | {key: np.zeros_like(value) for key, value in inner.items()}


def from_torch(
    tensors: Mapping[str, np.ndarray], like: Mapping[str, Any], names: Names, source: str = 'the checkpoint'
):
    """Converts torch's {key: array} to variables, float32.

    Args:
      tensors: by torch's keys.
      like: variables of the shapes to return, arrays or ShapeDtypeStructs.
      names: of the publisher.
      source: named in messages.

    Raises:
      UsageError: keys are missing, left over or of another shape (it lists them), or arrays are not floats.
    """
    check_variables(like)
    tensors = _sum_recurrent_biases(tensors)
    keyed = list(_list_keys(like, names))
    expected = {key for key, *_ in keyed}
    missing = sorted(expected - tensors.keys())
    # Keys that are left over are an error too: a deeper network would load into a shallower one otherwise.
    over = sorted(k for k in tensors.keys() - expected if not re.search(names.ignored, k))
    if missing or over:
        raise UsageError(
            f'{source} is of another network: {_summarise("missing", missing)}, {_summarise("left over", over)}'
        )
    flat, wrong = {}, []
    for key, path, leaf in keyed:  # all mismatches are collected, so that one message lists them
        stored, needed = tuple(tensors[key].shape), _torch_shape(tuple(leaf.shape), path, names)
        if stored == needed:
            flat[path] = _from_torch_layout(_float32(tensors[key], key, source), path, names)
        else:
            wrong.append(f'{key} {list(stored)}, here {list(needed)}')
    if wrong:
        raise UsageError(
            f'{source} has other shapes: {_summarise("", wrong)}; set the same num_classes and width, or a new head'
        )
    return unflatten_dict(flat)


def check_variables(variables: Mapping[str, Any]) -> None:
    """Raises UsageError unless `variables` are complete, with 'params' and the statistics of the norms."""
    if 'params' not in variables:
        some = ', '.join(map(str, list(variables)[:3]))
        raise UsageError(f"expected variables {{'params': ..., 'batch_stats': ...}}, got {some or 'nothing'}")
    leaves = flatten_dict(variables['params'])
    statistics = flatten_dict(variables.get('batch_stats', {}))
    # A module with a scale or a bias and no kernel normalises its input, by means and variances of its own.
    norms = {path[:-1] for path in leaves if path[-1] in ('scale', 'bias') and (*path[:-1], 'kernel') not in leaves}
    bare = sorted('/'.join(norm) for norm in norms if (*norm, 'mean') not in statistics)
    if bare:
        raise UsageError(f"{_summarise('batch_stats lacks', bare)}; give all that model.init gives, 'batch_stats' too")


def _float32(tensor: np.ndarray, key: str, source: str = 'the checkpoint') -> np.ndarray:
    """Converts to float32; refuses integers, the codes of quantised weights, which mean nothing without their scale."""
    dtype = np.asarray(tensor).dtype
    if not (np.issubdtype(dtype, np.floating) or dtype.name.startswith(('bfloat', 'float'))):  # ml_dtypes: own kinds
        raise UsageError(f'{source}: {key} is {dtype}; weights are floats, so give a file that is not quantised')
    return np.asarray(tensor, np.float32)


def torch_keys(variables: Mapping[str, Any], names: Names) -> set[str]:
    """Returns torch's keys of all leaves of `variables`."""
    return {key for key, *_ in _list_keys(variables, names)}


def rename_tensors(tensors: Mapping[str, np.ndarray], like: Mapping[str, Any], names: Names) -> dict[str, np.ndarray]:
    """Converts tensors of any shape to our layouts and names ('block/conv/kernel', 'batch_stats/block/bn/mean').

    Keys without a counterpart in `like` stay as they are, except those that `names` ignores.
    """
    tensors = _sum_recurrent_biases(tensors)
    paths = {key: path for key, path, _ in _list_keys(like, names)}
    renamed = {
        _flat(path): _from_torch_layout(_float32(tensors[key], key), path, names)
        for key, path in paths.items()
        if key in tensors
    }
    return renamed | {k: v for k, v in tensors.items() if k not in paths and not re.search(names.ignored, k)}


def nest_leaves(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Builds variables from leaves under the names that `rename_tensors` gives them."""
    paths = {tuple(name.split('/')): leaf for name, leaf in leaves.items()}
    return unflatten_dict({p if p[0] == 'batch_stats' else ('params', *p): leaf for p, leaf in paths.items()})


def _flat(path: tuple[str, ...]) -> str:
    return '/'.join(path[1:] if path[0] == 'params' else path)


def _list_keys(variables: Mapping[str, Any], names: Names):
    """Yields (torch's key, our path, leaf) of every leaf."""
    for path, leaf in flatten_dict({c: variables[c] for c in ('params', 'batch_stats') if c in variables}).items():
        # A publisher names modules; what kind of parameter a leaf is decides the end of its key.
        module, kind = '/'.join(path[1:-1]), path[-1]
        if match := _DIRECTION.fullmatch(module):
            layer, direction, number = match.groups()
            place = '' if layer in names.cells else f'_l{number}' + ('_reverse' if direction == 'backward' else '')
            yield f'{names.module(layer)}.{_RECURRENT_LEAVES[kind]}{place}', path, leaf
        else:
            yield f'{names.module(module)}.{_LEAVES[kind]}', path, leaf


# A direction of a layer of `canon.nn.recurrent`; torch names the stack of layers and puts the rest into the key's end.
_DIRECTION = re.compile(r'(.+)/(forward|backward)_(\d+)')


def _is_recurrent_bias(path: tuple[str, ...]) -> bool:
    return path[-1] == 'bias' and _DIRECTION.fullmatch('/'.join(path[1:-1])) is not None


def _sum_recurrent_biases(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Adds each `bias_hh` of torch's recurrent layers to its `bias_ih`; keys of other layers stay as they are.

    Not those of a GRU, whose reset gate multiplies a part of the second bias (`canon.weights.recurrent`).
    """
    summed = dict(tensors)
    for key in [key for key in tensors if re.search(r'\.bias_hh(_l\d+)?(_reverse)?$', key)]:
        other, weight = key.replace('.bias_hh', '.bias_ih'), tensors.get(key.replace('.bias_hh', '.weight_hh'))
        if other in tensors and weight is not None and weight.shape[0] != 3 * weight.shape[1]:
            summed[other] = _float32(tensors[other], other) + _float32(summed.pop(key), key)
    return summed


def _torch_shape(shape: tuple[int, ...], path: tuple[str, ...], names: Names) -> tuple[int, ...]:
    # A view of one number: only the shape is computed, and `like` may hold shapes without arrays.
    return _to_torch_layout(np.broadcast_to(np.float32(0), shape), path, names).shape


def _to_torch_layout(leaf: np.ndarray, path: tuple[str, ...], names: Names) -> np.ndarray:
    if path[-1] == 'recurrent':
        return leaf.T
    if path[-1] != 'kernel':
        return leaf
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1)
    module = '/'.join(path[1:-1])
    # We flatten [h, w, C], torch [C, h, w]: the rows of the next dense layer come in another order.
    if size := names.flattened.get(module) or names.convolved.get(module):
        window = leaf.reshape(*size, -1, leaf.shape[1]).transpose(3, 2, 0, 1)
        return window if module in names.convolved else window.reshape(len(window), -1)
    return leaf.T


def _from_torch_layout(value: np.ndarray, path: tuple[str, ...], names: Names) -> np.ndarray:
    if path[-1] == 'recurrent':
        return value.T
    if path[-1] != 'kernel':
        return value
    module = '/'.join(path[1:-1])
    if size := names.flattened.get(module) or names.convolved.get(module):
        # A window [N, C, h, w] and a row [N, C h w] reshape alike.
        n = len(value)
        return value.reshape(n, -1, *size).transpose(2, 3, 1, 0).reshape(-1, n)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _summarise(title: str, rows: list[str], most: int = 8) -> str:
    text = ', '.join(rows[:most]) or 'nothing'
    return f'{title} {text}'.strip() + (f' and {len(rows) - most} more' if len(rows) > most else '')
