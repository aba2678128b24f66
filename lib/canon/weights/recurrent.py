"""Recurrent layers of `canon.nn` to and from torch's nn.RNN, nn.LSTM and nn.GRU, and flax's cells.

| ours, of layer k | torch's, with `_reverse` for backward_k |
|---|---|
| `forward_k/kernel` [I, n H] | `weight_ih_lk` [n H, I] |
| `forward_k/recurrent` [H, n H] | `weight_hh_lk` [n H, H] |
| `forward_k/bias` [n H] | `bias_ih_lk` + `bias_hh_lk` |
| `forward_k/candidate_bias` [H] of a GRU | the last third of `bias_hh_lk`, which is left out of the sum |

The order of the gates is the same. The number of gates, n, tells the cells apart: 1, 3 and 4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from canon.errors import UsageError

_FLAX = {1: ('',), 3: ('r', 'z', 'n'), 4: ('i', 'f', 'g', 'o')}  # what flax calls the gates


def from_torch(tensors: Mapping[str, Any], prefix: str = '') -> dict[str, dict[str, np.ndarray]]:
    """The parameters of `canon.nn.RNN`, `LSTM` or `GRU` from torch's {key: array}, those whose keys follow `prefix`.

    Raises UsageError for keys that are missing, and LSTMs with projections (`proj_size`), which have no place here.
    """
    found = {k.removeprefix(prefix): np.asarray(v) for k, v in tensors.items() if k.startswith(prefix)}
    if any(key.startswith('weight_hr_') for key in found):
        raise UsageError(f'{prefix}weight_hr_l0: an LSTM with projections (proj_size) has no counterpart here')
    params = {}
    while f'weight_ih_l{len(params)}' in found:
        params[f'forward_{len(params)}'] = _direction(found, f'l{len(params)}', prefix)
    if not params:
        raise UsageError(f'no recurrent layer is called {prefix}weight_ih_l0')
    if 'weight_ih_l0_reverse' in found:
        params |= {f'backward_{k}': _direction(found, f'l{k}_reverse', prefix) for k in range(len(params))}
    return params


def _direction(found: Mapping[str, np.ndarray], place: str, prefix: str) -> dict[str, np.ndarray]:
    try:
        params = {'kernel': found[f'weight_ih_{place}'].T, 'recurrent': found[f'weight_hh_{place}'].T}
        if f'bias_ih_{place}' not in found:
            return params
        bias, inner = found[f'bias_ih_{place}'], found[f'bias_hh_{place}']
    except KeyError as error:
        raise UsageError(f'{prefix}{error.args[0]} is missing from the recurrent layer') from error
    if _gates(params) != 3:
        return params | {'bias': bias + inner}
    inner, candidate = np.split(inner, [2 * len(inner) // 3])
    return params | {'bias': bias + np.append(inner, np.zeros_like(candidate)), 'candidate_bias': candidate}


def to_torch(params: Mapping[str, Any], prefix: str = '') -> dict[str, np.ndarray]:
    """torch's {key: array} of the parameters of a layer; `bias_hh_lk` is zero but for a GRU's `candidate_bias`.

    Raises UsageError for what torch has no counterpart of: an output map, a cell map, GRUs with `reset_after=False`.
    """
    tensors = {}
    for name, own in params.items():
        match = re.fullmatch(r'(forward|backward)_(\d+)', name)
        if match is None:
            raise UsageError(f'{name}: a recurrent layer of torch has no such part')
        place = f'l{match[2]}' + ('_reverse' if match[1] == 'backward' else '')
        tensors |= {f'{prefix}{key}_{place}': value for key, value in _torch(own, name).items()}
    return tensors


def _torch(params: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    params = _plain(params, name)
    tensors = {'weight_ih': params['kernel'].T, 'weight_hh': params['recurrent'].T}
    if 'bias' not in params:
        return tensors
    inner = np.zeros_like(params['bias'])
    if 'candidate_bias' in params:
        inner[-len(params['candidate_bias']) :] = params['candidate_bias']
    return tensors | {'bias_ih': params['bias'], 'bias_hh': inner}


def from_flax(cell: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """`forward_k` (or `backward_k`) from the parameters of flax's OptimizedLSTMCell or LSTMCell, GRUCell, SimpleCell.

    Their biases are left out where the cell has none. Raises UsageError for another cell.
    """
    for names in _FLAX.values():
        if cell.keys() == {side + gate for side in 'ih' for gate in names}:
            break
    else:
        raise UsageError(f'no cell of flax that is known here has the parameters {sorted(cell)}')
    inner = [cell[f'h{gate}'] for gate in names]
    outer = [cell[f'i{gate}'] for gate in names]
    params = {
        'kernel': np.concatenate([part['kernel'] for part in outer], 1),
        'recurrent': np.concatenate([part['kernel'] for part in inner], 1),
    }
    biased = inner if len(names) == 4 else outer
    if 'bias' in biased[0]:
        params['bias'] = np.concatenate([part['bias'] for part in biased])
    if len(names) == 3 and 'bias' in inner[-1]:
        params['candidate_bias'] = np.asarray(inner[-1]['bias'])
    return params


def to_flax(params: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The parameters of flax's cell from those of `forward_k` (or `backward_k`). Raises UsageError as `to_torch`."""
    params = _plain(params, 'the layer')
    gates = _gates(params)
    sides = {'i': np.split(params['kernel'], gates, 1), 'h': np.split(params['recurrent'], gates, 1)}
    cell = {
        side + gate: {'kernel': kernel}
        for side, kernels in sides.items()
        for gate, kernel in zip(_FLAX[gates], kernels, strict=True)
    }
    if 'bias' in params:
        side = 'h' if gates == 4 else 'i'
        for gate, bias in zip(_FLAX[gates], np.split(params['bias'], gates), strict=True):
            cell[side + gate]['bias'] = bias
    if 'candidate_bias' in params:
        cell['hn']['bias'] = params['candidate_bias']
    return cell


def _plain(params: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """As arrays. Raises UsageError where a cell is one that neither torch nor flax has."""
    more = sorted(params.keys() - {'kernel', 'recurrent', 'bias', 'candidate_bias'})
    if more:
        raise UsageError(f'{name}: the usual cells have no {", ".join(more)}')
    found = {key: np.asarray(value) for key, value in params.items()}
    if _gates(found) == 3 and 'bias' in found and 'candidate_bias' not in found:
        raise UsageError(f'{name}: a GRU without candidate_bias (reset_after=False) has no counterpart')
    return found


def _gates(params: Mapping[str, np.ndarray]) -> int:
    hidden, width = params['recurrent'].shape
    if width // hidden not in _FLAX:
        raise UsageError(f'recurrent {(hidden, width)} is of no RNN, LSTM or GRU')
    return width // hidden
