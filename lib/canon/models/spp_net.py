"""SPP-net: He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks for visual recognition", 2014.

The last pooling takes maxima over grids of n x n cells of the whole map, {6, 3, 2, 1} or {4, 3, 2, 1}, so that the
fully connected layers get a vector of fixed length from images of any size (section 2.2). One set of weights is trained
as a classifier at several sizes in turn (section 2.3). For detection (section 4) the map of the whole image is computed
once, and the same pooling is applied to the part of it that belongs to a region.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from canon.errors import UsageError
from canon.models import cite, make_backbone
from canon.models.fast_rcnn import DenseHead
from canon.named import Count, DropRate
from canon.nn import Network, check_images
from canon.nn.trace import select_pyramid, trace_stages
from canon.ops import regions as region_ops

TABLE = (cite('spp_net.spp_net', None, None, None, 'He et al. 2014, five scales, VOC07 mAP 59.2', num_classes=21),)


class SPPNet(nn.Module):
    """Images [B, H, W, 3] of any size -> logits [B, num_classes], float32.

    Parameters: 'backbone', 'head' with 'fc6' and 'fc7', and 'logits'. Regions are processed by parts: `extract` the map
    of the whole image, then `describe` or `classify` regions of it.

    Attributes:
      backbone: a network with `features`.
      stage: the stage that is pooled.
      stride: of that stage in pixels.
      bins: n of the grids, in the order of the pooled vector.
      head: the fully connected layers.
      num_classes: of the classifier; in detection including the background, class 0.
      dtype: of the computation.
    """

    backbone: Network
    stage: str
    stride: int
    bins: tuple[int, ...]
    head: DenseHead
    num_classes: int
    dtype: Any

    def setup(self):
        self.logits = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=initializers.normal(0.01))

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        """Classifies whole images."""
        (features,) = self.extract(images, train)
        pooled = region_ops.spatial_pyramid_pool(features, self.bins)
        return self.logits(self.head(pooled, train)).astype(jnp.float32)

    def extract(self, images: jax.Array, train: bool = False) -> tuple[jax.Array]:
        """Returns the map of images [B, H, W, 3], in a tuple, as detectors with several maps do."""
        check_images(images, 32, 'SPP-net')
        return (self.backbone.features(images, train)[self.stage],)

    def describe(self, maps: tuple[jax.Array, ...], boxes: jax.Array) -> dict[str, jax.Array]:
        """Computes the features of regions, boxes [B, R, 4] in pixels of the image that the map is of.

        Returns {'pool5': [B, R, sum n^2 C], 'fc6': [B, R, units], 'fc7': [B, R, units]}, after their ReLU. The first is
        the pooled pyramid.
        """
        pooled = region_ops.spatial_pyramid_pool_regions(maps[0], boxes, self.bins, 1 / self.stride)
        layers = self.head(pooled.reshape(-1, pooled.shape[-1]), features=True)
        return {'pool5': pooled, **{name: x.reshape(*boxes.shape[:2], -1) for name, x in layers.items()}}

    def classify(
        self, maps: tuple[jax.Array, ...], boxes: jax.Array, image_size: Sequence[Any], train: bool = False
    ) -> dict[str, jax.Array]:
        """Classifies regions: {'logits': float32 [B, R, num_classes]}. Arguments are those of `FastRCNN.classify`."""
        pooled = region_ops.spatial_pyramid_pool_regions(maps[0], boxes, self.bins, 1 / self.stride)
        x = self.head(pooled.reshape(-1, pooled.shape[-1]), train)
        return {'logits': self.logits(x).astype(jnp.float32).reshape(*boxes.shape[:2], -1)}


def spp_net(
    backbone: Mapping[str, Any] | None = None,
    num_classes: Count = 1000,
    bins: tuple[Count, ...] = (6, 3, 2, 1),
    stride: Count = 16,
    units: tuple[Count, ...] = (4096, 4096),
    dropout: DropRate = 0.5,
    dtype: str | None = None,
) -> SPPNet:
    """Builds SPP-net on any backbone, for images of any size from 32.

    Args:
      backbone: name and arguments of a network; None takes ZFNet in its form for detection, the paper's ZF-5.
      num_classes: number of logits, in detection including the background.
      bins: n of the grids of n x n cells: (6, 3, 2, 1) has 50, the paper's (4, 3, 2, 1) for multi-size training 30.
      stride: of the stage that is pooled, the last one with it.
      units: of fc6 and fc7.
      dropout: rate after each of them.
      dtype: of the computation, such as 'bfloat16'; parameters and logits stay float32.

    Raises:
      UsageError: the backbone is unknown or has no stage of that stride.
    """
    given = {'name': 'zfnet.zfnet', 'detection': True} if backbone is None else backbone
    network = make_backbone(given, dtype)
    found = select_pyramid(trace_stages(network))
    if stride not in found:
        raise UsageError(f'model.stride={stride}: the backbone has stages of strides {", ".join(map(str, found))}')
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    head = DenseHead(tuple(units), dropout, (), dtype_)
    return SPPNet(network, found[stride], stride, tuple(bins), head, num_classes, dtype_)
