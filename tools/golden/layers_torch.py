"""Writes tests/ops/golden/torch.npz: torch's layers and their gradients in float64, as [B, H, W, C] and [h, w, C, N].

python tools/golden/layers_torch.py tests/ops/golden/torch.npz      (needs torch and numpy, nothing of Canon)

'cases' is a JSON list of [function of canon.ops, its keywords]; case i has arrays 'i/x' (and 'i/kernel'), the output
'i/y', and the gradients 'i/dx' (and 'i/dkernel') of sum(y * cos(0, 1, 2, ..)). 'bn/..' is three steps of BatchNorm2d.
"""

import json
import sys

import numpy as np
import torch
from torch.nn import functional as F

CONV = [
    dict(size=(9, 7), channels=3, filters=4, kernel=(3, 3), stride=2, padding=1),
    dict(size=(11, 8), channels=3, filters=2, kernel=(5, 2), stride=(1, 3), padding=(2, 0)),
    dict(size=(12, 12), channels=2, filters=3, kernel=(3, 3), padding=2, dilation=2),
    dict(size=(7, 9), channels=6, filters=4, kernel=(3, 3), padding=1, groups=2),
    dict(size=(8, 8), channels=4, filters=4, kernel=(3, 3), stride=2, padding=1, groups=4),
    dict(size=(9, 6), channels=3, filters=6, kernel=(5, 3), stride=2, padding=2, dilation=2, groups=3),
    dict(size=(7, 6), channels=3, filters=5, kernel=(1, 1), stride=2),
]
TRANSPOSE = [
    dict(size=(4, 5), channels=3, filters=2, kernel=(4, 4), stride=2, padding=1),
    dict(size=(5, 3), channels=4, filters=6, kernel=(3, 3), stride=2, padding=1, output_padding=1, groups=2),
    dict(size=(3, 4), channels=2, filters=2, kernel=(3, 2), stride=(3, 1), dilation=2, output_padding=(2, 1)),
    dict(size=(4, 4), channels=4, filters=4, kernel=(4, 4), stride=2, padding=1, groups=4),
]
POOL = [
    dict(window=w, stride=s, padding=p, ceil_mode=c)
    for w, s, p, c in (
        (2, 2, 0, False),
        (2, 2, 0, True),
        (3, 2, 0, True),
        (3, 2, 1, False),
        (3, 2, 1, True),
        (3, 1, 1, False),
        (2, 3, 1, True),
        ((3, 5), (2, 3), (1, 2), True),
    )
]
ADAPTIVE = [dict(size=(7, 7)), dict(size=(3, 4)), dict(size=(1, 1))]
LRN = [dict(size=5, alpha=0.3, k=2.0), dict(size=4, alpha=0.5, beta=0.6, k=1.0), dict(size=3, alpha=1e-4)]
ACTIVATION = ['sigmoid', 'tanh', 'relu', 'leaky_relu', 'elu', 'relu6']


def main(path: str) -> None:
    rng, cases, arrays = np.random.default_rng(4), [], {}

    def add(name, keywords, function, *inputs):
        inputs = [torch.tensor(v, requires_grad=True) for v in inputs]
        y = function(*inputs)
        (y * cosines(y)).sum().backward()
        i = len(cases)
        cases.append([name, keywords])
        for what, v in zip(('x', 'kernel'), inputs, strict=False):
            arrays[f'{i}/{what}'], arrays[f'{i}/d{what}'] = ours(v, what), ours(v.grad, what)
        arrays[f'{i}/y'] = ours(y, 'x')

    for name, table in (('conv', CONV), ('conv_transpose', TRANSPOSE)):
        for row in table:
            (h, w), c, n, k = (row[key] for key in ('size', 'channels', 'filters', 'kernel'))
            rest = {key: v for key, v in row.items() if key not in ('size', 'channels', 'filters', 'kernel')}
            g = rest.get('groups', 1)
            shape = (n, c // g, *k) if name == 'conv' else (c, n // g, *k)
            function = F.conv2d if name == 'conv' else F.conv_transpose2d
            add(
                name,
                rest,
                lambda x, w, f=function, a=rest: f(x, w, **a),
                rng.normal(size=(2, c, h, w)),
                rng.normal(size=shape),
            )
    for row in POOL:
        torchs = dict(kernel_size=row['window'], **{k: v for k, v in row.items() if k != 'window'})
        # whole numbers tie: the gradient must go to the same one
        add('max_pool', row, lambda x, a=torchs: F.max_pool2d(x, **a), np.round(rng.normal(size=(2, 2, 8, 7))))
        for include in (True, False):
            add(
                'avg_pool',
                dict(row, count_include_pad=include),
                lambda x, a=torchs, i=include: F.avg_pool2d(x, count_include_pad=i, **a),
                rng.normal(size=(1, 2, 8, 7)),
            )
    for row in ADAPTIVE:
        add(
            'adaptive_avg_pool',
            row,
            lambda x, a=row: F.adaptive_avg_pool2d(x, a['size']),
            rng.normal(size=(2, 2, 9, 5)),
        )
    for row in LRN:
        torchs = dict(dict(alpha=1e-4, beta=0.75, k=2.0), **row)
        add(
            'lrn',
            dict(row, divide_by_n=True),
            lambda x, a=torchs: F.local_response_norm(x, **a),
            rng.normal(size=(2, 7, 3, 2)),
        )
    for name in ACTIVATION:
        values = np.concatenate([rng.normal(size=20) * 5, [0.0, 6.0, -0.0]]).reshape(1, 1, 1, -1)
        add(name, {}, getattr(torch, name, None) or getattr(F, name), values)
    arrays |= batch_norm(rng)
    np.savez_compressed(path, cases=json.dumps(cases), **arrays)


def batch_norm(rng) -> dict:
    """Three training steps, a frozen one (evaluation mode, with gradients), and the running statistics after each."""
    layer = torch.nn.BatchNorm2d(3, eps=1e-3, momentum=0.2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rng.normal(size=3)))
        layer.bias.copy_(torch.tensor(rng.normal(size=3)))
    arrays = {'bn/scale': layer.weight.detach().numpy().copy(), 'bn/bias': layer.bias.detach().numpy().copy()}
    for step in range(4):
        layer.train(step < 3)
        layer.zero_grad()
        x = torch.tensor(rng.normal(size=(4, 3, 3, 2)) * (step + 1) + 5, requires_grad=True)
        y = layer(x)
        (y * cosines(y)).sum().backward()
        arrays |= {f'bn/{step}/{what}': ours(v, 'x') for what, v in (('x', x), ('y', y), ('dx', x.grad))}
        arrays |= {
            f'bn/{step}/{what}': v.detach().numpy().copy()
            for what, v in (
                ('dscale', layer.weight.grad),
                ('dbias', layer.bias.grad),
                ('mean', layer.running_mean),
                ('var', layer.running_var),
            )
        }
    return arrays


def cosines(y: torch.Tensor) -> torch.Tensor:
    """cos(0, 1, 2, ..) in the order of [B, H, W, C]."""
    b, c, h, w = y.shape
    return torch.arange(y.numel(), dtype=torch.float64).cos().reshape(b, h, w, c).permute(0, 3, 1, 2)


def ours(v: torch.Tensor, what: str) -> np.ndarray:
    """[B, C, H, W] -> [B, H, W, C], kernels [N, C, h, w] -> [h, w, C, N] (the transposed have C and N exchanged)."""
    v = v.detach().numpy()
    return v.transpose(2, 3, 1, 0) if what == 'kernel' else v.transpose(0, 2, 3, 1)


if __name__ == '__main__':
    main(sys.argv[1])
