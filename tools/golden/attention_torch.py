"""torch's attention and Transformer layers in float64, gradients too: tests/nn/golden/attention_torch.npz.

    TORCH_PYTHON tools/golden/attention_torch.py tests/nn/golden/attention_torch.npz      (from the checkout's root)

Weights are `draw_parameter` by torch's names, inputs by `inputs`; only what comes out is stored.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.models.drawn import draw_parameter
from tests.nn.attended import BATCH, FF, HEADS, LENGTHS, D, S, T, inputs


def filled(layer: torch.nn.Module) -> torch.nn.Module:
    layer = layer.double().eval()
    with torch.no_grad():
        for key, value in layer.named_parameters():
            value.copy_(torch.tensor(draw_parameter(key, tuple(value.shape))))
    return layer


def with_gradients(name: str, function, *arrays: np.ndarray) -> dict[str, np.ndarray]:
    """The output, and the gradients of sum(y cos(0, 1, 2, ..)) by the inputs."""
    arrays = [torch.tensor(x, requires_grad=True) for x in arrays]
    y = function(*arrays)
    (y * torch.arange(y.numel(), dtype=torch.float64).cos().reshape(y.shape)).sum().backward()
    outputs = {f'{name}/y': y} | {f'{name}/d{i}': x.grad for i, x in enumerate(arrays)}
    return {key: value.detach().numpy() for key, value in outputs.items()}


def main(path: str) -> None:
    x, memory = inputs()
    padding = torch.arange(S) >= torch.tensor(LENGTHS)[:, None]
    causal = torch.ones(T, T, dtype=torch.bool).triu(1)
    attention = filled(torch.nn.MultiheadAttention(D, HEADS, batch_first=True))
    arrays = with_gradients(
        'attention', lambda q, m: attention(q, m, m, key_padding_mask=padding, need_weights=True)[0], x, memory
    )
    with torch.no_grad():
        q, m = torch.tensor(x), torch.tensor(memory)
        weights = attention(q, m, m, key_padding_mask=padding, average_attn_weights=False)[1]
    arrays['attention/weights'] = weights.numpy()
    options = dict(d_model=D, nhead=HEADS, dim_feedforward=FF, dropout=0.0, batch_first=True)
    for norm in ('post', 'pre'):
        encoder = filled(torch.nn.TransformerEncoderLayer(**options, norm_first=norm == 'pre'))
        arrays |= with_gradients(
            f'encoder_{norm}', lambda m, layer=encoder: layer(m, src_key_padding_mask=padding), memory
        )
        decoder = filled(torch.nn.TransformerDecoderLayer(**options, norm_first=norm == 'pre'))
        arrays |= with_gradients(
            f'decoder_{norm}',
            lambda t, m, layer=decoder: layer(t, m, tgt_mask=causal, memory_key_padding_mask=padding),
            x,
            memory,
        )
    assert x.shape == (BATCH, T, D)
    np.savez_compressed(path, **arrays)


if __name__ == '__main__':
    main(sys.argv[1])
