"""Writes tests/nn/golden/recurrent.npz: torch's nn.RNN, nn.LSTM and nn.GRU and their gradients, in float64.

python tools/golden/recurrence_torch.py tests/nn/golden/recurrent.npz      (needs torch and numpy, nothing of Canon)

Two layers, both directions, on sequences of unequal length in a packed batch. Weights and inputs are drawn by the rule
of tests/models/drawn.py, from torch's keys. 'CASE/y' is the padded output, 'CASE/state' the last states (an LSTM's h,
then c), 'CASE/d KEY' the gradients of sum(y cos(0, 1, 2, ..)) + sum(state cos(..)) by the weights and by 'x'.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.models.drawn import draw_parameter

CASES = {
    'rnn': (torch.nn.RNN, {}),
    'rnn_relu': (torch.nn.RNN, {'nonlinearity': 'relu'}),
    'lstm': (torch.nn.LSTM, {}),
    'gru': (torch.nn.GRU, {}),
}
SHAPE, HIDDEN, LENGTHS = (3, 5, 4), 3, (2, 5, 1)


def main(path: str) -> None:
    arrays = {}
    for case, (kind, keywords) in CASES.items():
        net = kind(SHAPE[-1], HIDDEN, 2, bidirectional=True, batch_first=True, **keywords).double()
        net.load_state_dict({k: torch.tensor(draw_parameter(k, v.shape)).double() for k, v in net.state_dict().items()})
        x = torch.tensor(draw_parameter('x', SHAPE)).double().requires_grad_()
        packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
        y, state = net(packed)
        y = pad_packed_sequence(y, batch_first=True)[0]
        state = torch.cat(state) if isinstance(state, tuple) else state
        sum((v.ravel() * torch.arange(v.numel()).double().cos()).sum() for v in (y, state)).backward()
        arrays |= {f'{case}/y': y, f'{case}/state': state, f'{case}/d x': x.grad}
        arrays |= {f'{case}/d {key}': value.grad for key, value in net.named_parameters()}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{key: value.detach().numpy() for key, value in arrays.items()})


if __name__ == '__main__':
    main(*sys.argv[1:])
