"""Array in, array out: what layers and losses are made of. Knows no parameters' names and no modules."""

from canon import backend
from canon.ops import attention, ctc, decoding, dense, recurrence
from canon.ops.activations import activation, elu, leaky_relu, relu, relu6, scaled_tanh, sigmoid, tanh
from canon.ops.chunks import map_in_chunks
from canon.ops.convolution import conv, conv_transpose
from canon.ops.normalisation import batch_norm, batch_norm_train, lrn, lrn_within
from canon.ops.padding import resolve_padding
from canon.ops.pooling import adaptive_avg_pool, avg_pool, max_pool
from canon.ops.positions import sinusoids

__all__ = [
    'activation', 'adaptive_avg_pool', 'attention', 'avg_pool', 'backend', 'batch_norm', 'batch_norm_train', 'conv',
    'conv_transpose', 'ctc', 'decoding', 'dense', 'elu', 'leaky_relu', 'lrn', 'lrn_within', 'map_in_chunks', 'max_pool',
    'recurrence', 'relu', 'relu6', 'resolve_padding', 'scaled_tanh', 'sigmoid', 'sinusoids', 'tanh',
]  # fmt: skip
