"""Layers: flax linen modules over `canon.ops`.

Dropout and Sequential are linen's own, and so is the Dense of classifiers, on rows [B, C]; `Dense` here is for
sequences and points, [..., C].
"""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use
from canon.nn.attention import AdditiveAttention, DotProductAttention, GeneralAttention, MultiHeadAttention
from canon.nn.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    DenseGeneral,
    L2Norm,
    SeparableConv,
    he_normal,
    make_divisible,
    reestimate,
    scale_channels,
)
from canon.nn.low_rank import count_adapters, init_adapters, merge_adapters
from canon.nn.mixed import ConvUnit, Mixed, Unit, to_inception_range
from canon.nn.network import Network, check_images
from canon.nn.recurrent import GRU, LSTM, RNN

__all__ = [
    'GRU', 'LSTM', 'RNN', 'AdditiveAttention', 'BatchNorm', 'Conv', 'ConvTranspose', 'ConvUnit', 'Dense',
    'DenseGeneral', 'DotProductAttention', 'GeneralAttention', 'L2Norm', 'Mixed', 'MultiHeadAttention', 'Network',
    'SeparableConv', 'Unit', 'check_images', 'count_adapters', 'he_normal', 'init_adapters', 'make_divisible',
    'merge_adapters', 'reestimate', 'scale_channels', 'to_inception_range',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
