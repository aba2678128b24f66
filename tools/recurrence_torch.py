"""Torch's side of benchmarks/recurrence.py. It needs torch, and imports nothing of Canon."""

import torch
from turns import form, serve_torch

SIZES = {256: (32, 100), 650: (20, 35)}
CELLS = {'lstm': torch.nn.LSTM, 'gru': torch.nn.GRU, 'rnn': torch.nn.RNN}


def train(kind: str, hidden: int):
    """Returns a call that makes one step on random sequences."""
    layer, x = form(CELLS[kind](hidden, hidden, batch_first=True)), torch.randn(*SIZES[hidden], hidden)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)

    def call():
        optimizer.zero_grad()
        layer(x)[0].square().mean().backward()
        optimizer.step()

    return call


WORKS = {f'{kind}_{hidden}': lambda k=kind, h=hidden: train(k, h) for kind in CELLS for hidden in SIZES}


if __name__ == '__main__':
    serve_torch(WORKS)
