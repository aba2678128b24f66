"""Array in, array out: what layers and losses are made of. Knows no parameters' names and no modules."""

from typing import TYPE_CHECKING

from canon import backend
from canon.lazy import load_on_use
from canon.ops import (
    anchors,
    attention,
    boxes,
    ctc,
    decoding,
    dense,
    matching,
    nms,
    priors,
    proposals,
    recurrence,
    regions,
)
from canon.ops.activations import activation, elu, leaky_relu, relu, relu6, scaled_tanh, sigmoid, tanh
from canon.ops.chunks import map_in_chunks
from canon.ops.convolution import conv, conv_transpose
from canon.ops.gradient_reversal import reversal_weight, reverse_gradient
from canon.ops.normalisation import batch_norm, batch_norm_train, l2_normalize, lrn, lrn_within
from canon.ops.padding import resolve_padding
from canon.ops.pooling import adaptive_avg_pool, avg_pool, max_pool
from canon.ops.positions import sinusoids
from canon.ops.upsampling import (
    bilinear_deconv,
    bilinear_deconv_kernel,
    bilinear_kernel,
    upsample_bilinear,
    upsample_nearest,
)

__all__ = [
    'activation', 'adaptive_avg_pool', 'anchors', 'attention', 'avg_pool', 'backend', 'batch_norm',
    'batch_norm_train', 'bilinear_deconv', 'bilinear_deconv_kernel', 'bilinear_kernel', 'boxes', 'conv',
    'conv_transpose', 'ctc', 'decoding', 'dense', 'elu', 'l2_normalize', 'leaky_relu', 'lrn', 'lrn_within',
    'map_in_chunks', 'matching', 'max_pool', 'nms', 'priors', 'proposals', 'recurrence', 'regions', 'relu', 'relu6',
    'resolve_padding', 'reversal_weight', 'reverse_gradient', 'scaled_tanh', 'sigmoid', 'sinusoids', 'tanh',
    'upsample_bilinear', 'upsample_nearest',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
