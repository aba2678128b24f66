"""Feature pyramid networks: Lin, Dollar, Girshick, He, Hariharan, Belongie, "Feature pyramid networks for object
detection", 2017, section 3 and figure 3.

The stages C2 .. C5 of a backbone, at strides of 4 .. 32 pixels, are combined top-down into maps P2 .. P5 that all have
256 channels and the semantics of the deepest one:

    M5 = lateral(C5),   Mk = lateral(Ck) + upsample(Mk+1),   Pk = smooth(Mk)

where `lateral` is a 1x1 convolution, `upsample` repeats pixels (nearest neighbour) and `smooth` is a 3x3 convolution
against the aliasing of that. P6 is every second pixel of P5, for the largest anchors (section 4.1, footnote 1).

A pyramid is a `canon.nn.Network`, so what takes a backbone takes it: `ssd.ssd(backbone=dict(name=
'feature_pyramid.feature_pyramid', backbone=dict(name='resnet.resnet18')))`.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers

from canon import ops
from canon.errors import UsageError
from canon.models import make_backbone
from canon.named import Count, suggest
from canon.nn import BatchNorm, Conv, Network
from canon.nn.trace import select_pyramid, trace_stages

_TOPS = ('subsample', 'convolve')


class FeaturePyramid(Network):
    """The top-down pathway over a backbone: images [B, H, W, 3] -> {'p2': [B, H/4, W/4, channels], 'p3': ..., ...}.

    Level k has a stride of 2^k pixels. Parameters: 'backbone', 'lateral2', ..., 'smooth2', ..., and of the levels that
    `top` computes by convolutions 'p6' and 'p7'.

    Attributes:
      backbone: a network with `features`.
      stages: (level, name of the backbone's stage), finest first.
      channels: of all levels.
      top: how levels after the last stage are made: 'subsample', 'convolve' or None, see `feature_pyramid`.
      batch_norm: after every convolution, in place of its bias.
      dtype: of the computation.
    """

    backbone: Network
    stages: tuple[tuple[int, str], ...]
    channels: int
    top: str | None
    batch_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = True):
        if not features:
            raise UsageError('a feature pyramid is a backbone without a classifier: call its `features`')
        maps, merged, levels = self.backbone.features(images, train), None, {}
        for level, stage in reversed(self.stages):
            lateral = self._convolve(f'lateral{level}', maps[stage], 1, 1, train)
            # To the lateral's shape, not by 2: strides that round up leave 2 n - 1 rows over n.
            x = lateral if merged is None else lateral + ops.upsample_nearest(merged, lateral.shape[1:3])
            merged, levels[level] = x, self._convolve(f'smooth{level}', x, 3, 1, train)
        last, stage = self.stages[-1]
        if self.top == 'subsample':
            p = levels[last]
            # The paper's "stride two subsampling". torchvision writes it as a max pooling of 1x1.
            levels[last + 1] = lax.slice(p, (0, 0, 0, 0), p.shape, (1, 2, 2, 1))
        elif self.top == 'convolve':
            p = levels[last + 1] = self._convolve(f'p{last + 1}', maps[stage], 3, 2, train)
            levels[last + 2] = self._convolve(f'p{last + 2}', ops.relu(p), 3, 2, train)
        return {f'p{level}': levels[level] for level in sorted(levels)}

    def _convolve(self, name: str, x: jax.Array, size: int, stride: int, train: bool) -> jax.Array:
        # No activation anywhere in the pyramid (section 3). U(+-sqrt(3 / fan-in)), as Caffe2's and torchvision's.
        layer = Conv(
            *(self.channels, size, stride, size // 2),
            use_bias=not self.batch_norm,
            dtype=self.dtype,
            kernel_init=initializers.variance_scaling(1.0, 'fan_in', 'uniform'),
            name=name,
        )
        x = layer(x)
        return BatchNorm(dtype=self.dtype, name=f'{name}_bn')(x, train) if self.batch_norm else x


def feature_pyramid(
    backbone: Mapping[str, Any],
    stages: tuple[str, ...] | None = None,
    min_stride: Count = 4,
    channels: Count = 256,
    top: str | None = 'subsample',
    batch_norm: bool = False,
    dtype: str | None = None,
) -> FeaturePyramid:
    """Builds a feature pyramid over any backbone of `canon.models` with `features`.

    >>> feature_pyramid({'name': 'resnet.resnet18'}).stages
    ((2, 'conv2_x'), (3, 'conv3_x'), (4, 'conv4_x'), (5, 'conv5_x'))

    Args:
      backbone: name and arguments of a network, {'name': 'resnet.resnet50'}.
      stages: of the backbone, finest first; None takes the last one of every stride from `min_stride` on.
      min_stride: of the finest level, in pixels.
      channels: of every level, the paper's d.
      top: of the levels after the last stage: 'subsample' adds one, every second pixel of the last level; 'convolve'
        adds two by 3x3 convolutions of stride 2 of the last stage, as RetinaNet does; None adds none.
      batch_norm: after every convolution of the pyramid, for training from scratch (not in the paper).
      dtype: of the computation, such as 'bfloat16'; parameters stay float32.

    Raises:
      UsageError: the backbone is unknown or has no such stage, or two stages have the same stride.
    """
    if top not in (*_TOPS, None):
        raise UsageError(f'model.top={top!r} is unknown{suggest(str(top), _TOPS)}')
    network = make_backbone(backbone, dtype)
    traced = trace_stages(network)
    known = ', '.join(f'{name} ({max(stage.stride)})' for name, stage in traced.items())
    if stages is None:
        stages = tuple(name for stride, name in sorted(select_pyramid(traced).items()) if stride >= min_stride)
    if missing := [name for name in stages if name not in traced]:
        raise UsageError(f'model.stages: the backbone has no {missing[0]!r}{suggest(missing[0], traced)}')
    levels = [round(math.log2(max(traced[name].stride))) for name in stages]
    if not levels or levels != sorted(set(levels)):
        raise UsageError(f'model.stages={stages} must be one or more of ascending strides; the backbone has {known}')
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    return FeaturePyramid(network, tuple(zip(levels, stages, strict=True)), channels, top, batch_norm, dtype_)
