"""Converts parameters of recurrent layers between `canon.nn`, torch's nn.RNN, nn.LSTM and nn.GRU, and flax's cells.

| Canon's, of layer k | torch's, with `_reverse` for backward_k |
|---|---|
| `forward_k/kernel` [I, n H] | `weight_ih_lk` [n H, I] |
| `forward_k/recurrent` [H, n H] | `weight_hh_lk` [n H, H] |
| `forward_k/bias` [n H] | `bias_ih_lk` + `bias_hh_lk` |
| `forward_k/candidate_bias` [H] of a GRU | the last third of `bias_hh_lk`, which is then not in the sum |

The order of the gates is the same. The number of gates n identifies the cell: 1 (RNN), 3 (GRU) or 4 (LSTM).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from canon.errors import UsageError

_FLAX_GATES = {1: ('',), 3: ('r', 'z', 'n'), 4: ('i', 'f', 'g', 'o')}


def layer_from_torch(tensors: Mapping[str, Any], prefix: str = '') -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of `canon.nn.RNN`, `LSTM` or `GRU` from those of torch.

    Args:
      tensors: {key: array}, a state dict.
      prefix: of the keys of the layer.

    Raises:
      UsageError: a key is missing, or the LSTM has projections (`proj_size`), which Canon does not have.
    """
    state = {k.removeprefix(prefix): np.asarray(v) for k, v in tensors.items() if k.startswith(prefix)}
    if any(key.startswith('weight_hr_') for key in state):
        raise UsageError(f'{prefix}weight_hr_l0: an LSTM with projections (proj_size) is not supported')
    params = {}
    # Layers are counted by their keys, since a state dict does not record their number.
    while f'weight_ih_l{len(params)}' in state:
        params[f'forward_{len(params)}'] = _direction_from_torch(state, f'l{len(params)}', prefix)
    if not params:
        raise UsageError(f'there is no {prefix}weight_ih_l0, so no recurrent layer')
    if 'weight_ih_l0_reverse' in state:
        params |= {f'backward_{k}': _direction_from_torch(state, f'l{k}_reverse', prefix) for k in range(len(params))}
    return params


def _direction_from_torch(state: Mapping[str, np.ndarray], place: str, prefix: str) -> dict[str, np.ndarray]:
    try:
        params = {'kernel': state[f'weight_ih_{place}'].T, 'recurrent': state[f'weight_hh_{place}'].T}
        if f'bias_ih_{place}' not in state:
            return params
        bias, inner = state[f'bias_ih_{place}'], state[f'bias_hh_{place}']
    except KeyError as error:
        raise UsageError(f'{prefix}{error.args[0]} is missing from the recurrent layer') from error
    if _count_gates(params) != 3:  # the two biases of torch only ever occur as their sum
        return params | {'bias': bias + inner}
    # Except in the candidate of a GRU, where the reset gate multiplies the second one.
    inner, candidate = np.split(inner, [2 * len(inner) // 3])
    return params | {'bias': bias + np.append(inner, np.zeros_like(candidate)), 'candidate_bias': candidate}


def layer_to_torch(params: Mapping[str, Any], prefix: str = '') -> dict[str, np.ndarray]:
    """Returns torch's {key: array} of a layer's parameters; `bias_hh_lk` is zero except for a GRU's `candidate_bias`.

    Raises UsageError for parameters without a counterpart in torch: those of an output map, of a cell map, and of a GRU
    with `reset_after=False`.
    """
    tensors = {}
    for name, direction in params.items():
        match = re.fullmatch(r'(forward|backward)_(\d+)', name)
        if match is None:
            raise UsageError(f'{name}: recurrent layers of torch have no such parameters')
        place = f'l{match[2]}' + ('_reverse' if match[1] == 'backward' else '')
        tensors |= {f'{prefix}{key}_{place}': value for key, value in _direction_to_torch(direction, name).items()}
    return tensors


def _direction_to_torch(params: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    params = _as_arrays(params, name)
    tensors = {'weight_ih': params['kernel'].T, 'weight_hh': params['recurrent'].T}
    if 'bias' not in params:
        return tensors
    # torch adds both biases, so all of ours goes into the first one.
    inner = np.zeros_like(params['bias'])
    if 'candidate_bias' in params:
        inner[-len(params['candidate_bias']) :] = params['candidate_bias']
    return tensors | {'bias_ih': params['bias'], 'bias_hh': inner}


def cell_from_flax(cell: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the parameters of `forward_k` or `backward_k` from those of a cell of flax.

    Cells are OptimizedLSTMCell, LSTMCell, GRUCell and SimpleCell, with biases or without. Raises UsageError for others.
    """
    for names in _FLAX_GATES.values():
        if cell.keys() == {side + gate for side in 'ih' for gate in names}:
            break
    else:
        raise UsageError(f'parameters {sorted(cell)} are not those of an LSTM, GRU or simple cell of flax')
    inner = [cell[f'h{gate}'] for gate in names]
    outer = [cell[f'i{gate}'] for gate in names]
    params = {
        'kernel': np.concatenate([part['kernel'] for part in outer], 1),
        'recurrent': np.concatenate([part['kernel'] for part in inner], 1),
    }
    biased = inner if len(names) == 4 else outer  # flax's LSTM has its biases on the recurrent side
    if 'bias' in biased[0]:
        params['bias'] = np.concatenate([part['bias'] for part in biased])
    if len(names) == 3 and 'bias' in inner[-1]:
        params['candidate_bias'] = np.asarray(inner[-1]['bias'])
    return params


def cell_to_flax(params: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the parameters of a flax cell from `forward_k` or `backward_k`; errors as in `layer_to_torch`."""
    params = _as_arrays(params, 'the layer')
    gates = _count_gates(params)
    # flax has one Dense per gate and side: 'ii' is input to input gate, 'hf' is state to forget gate.
    sides = {'i': np.split(params['kernel'], gates, 1), 'h': np.split(params['recurrent'], gates, 1)}
    cell = {
        side + gate: {'kernel': kernel}
        for side, kernels in sides.items()
        for gate, kernel in zip(_FLAX_GATES[gates], kernels, strict=True)
    }
    if 'bias' in params:
        side = 'h' if gates == 4 else 'i'
        for gate, bias in zip(_FLAX_GATES[gates], np.split(params['bias'], gates), strict=True):
            cell[side + gate]['bias'] = bias
    if 'candidate_bias' in params:
        cell['hn']['bias'] = params['candidate_bias']
    return cell


def _as_arrays(params: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """Returns the parameters as numpy arrays. Raises UsageError for a cell that torch and flax do not have."""
    extra = sorted(params.keys() - {'kernel', 'recurrent', 'bias', 'candidate_bias'})
    if extra:
        raise UsageError(f'{name}: the cells of torch and flax have no {", ".join(extra)}')
    arrays = {key: np.asarray(value) for key, value in params.items()}
    if _count_gates(arrays) == 3 and 'bias' in arrays and 'candidate_bias' not in arrays:
        raise UsageError(f'{name}: torch and flax have no GRU without candidate_bias (reset_after=False)')
    return arrays


def _count_gates(params: Mapping[str, np.ndarray]) -> int:
    hidden, width = params['recurrent'].shape
    if width // hidden not in _FLAX_GATES:
        raise UsageError(f'recurrent {(hidden, width)} should be [H, n H] with n = 1, 3 or 4')
    return width // hidden
