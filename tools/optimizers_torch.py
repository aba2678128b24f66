"""Torch's side of benchmarks/optimizers.py. It needs torch, and imports nothing of Canon."""

import torch
from trees import TREES
from turns import serve_torch

OPTIMIZERS = {
    'momentum': lambda p: torch.optim.SGD(p, 0.1, 0.9, fused=True),
    'nesterov': lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True, fused=True),
    'adagrad': lambda p: torch.optim.Adagrad(p, 0.1, fused=True),
    'rmsprop': lambda p: torch.optim.RMSprop(p, 0.1, foreach=True),
    'adadelta': lambda p: torch.optim.Adadelta(p, 1.0, foreach=True),
    'adam': lambda p: torch.optim.Adam(p, 0.1, fused=True),
    'adamw': lambda p: torch.optim.AdamW(p, 0.1, fused=True),
}


def build(name: str, tree: str):
    """Returns a call of torch's fastest form of an optimizer: fused, or foreach if there is no fused one."""
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in TREES[tree]()]
    for parameter in parameters:
        parameter.grad = 1e-3 * torch.cos(parameter.detach())
    return OPTIMIZERS[name](parameters).step


if __name__ == '__main__':
    serve_torch({f'{n}@{t}': lambda n=n, t=t: build(n, t) for n in OPTIMIZERS for t in TREES})
