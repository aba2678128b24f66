"""R-CNN: Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection and semantic
segmentation", 2014, section 2.

Every proposal is warped to one size and passes the whole network by itself. The network is fine-tuned as a classifier
of warped proposals; linear SVMs and box regressors are then trained on its activations, which `describe` returns.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from canon.errors import UsageError
from canon.models import cite, make_backbone
from canon.models.fast_rcnn import DenseHead
from canon.named import Count, DropRate, suggest
from canon.nn import Network
from canon.nn.trace import trace_stages

TABLE = (
    cite('rcnn.rcnn', None, None, None, 'Girshick et al. 2014, VOC07 mAP 54.2, with box regression 58.5', size=227),
)


class RCNN(nn.Module):
    """Warped regions [N, size, size, 3] -> logits [N, num_classes], float32; class 0 is the background.

    Parameters: 'backbone', 'head' with 'fc6' and 'fc7', and 'logits'.

    Attributes:
      backbone: a network with `features`.
      stage: the stage of it that fc6 reads.
      head: the fully connected layers.
      num_classes: including the background.
      dtype: of the computation.
    """

    backbone: Network
    stage: str
    head: DenseHead
    num_classes: int
    dtype: Any

    def setup(self):
        self.logits = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=initializers.normal(0.01))

    def __call__(self, crops: jax.Array, train: bool = False) -> jax.Array:
        """Classifies warped regions."""
        x = self.backbone.features(crops, train)[self.stage]
        return self.logits(self.head(x, train)).astype(jnp.float32)

    def describe(self, crops: jax.Array) -> dict[str, jax.Array]:
        """Computes the features of warped regions: {'pool5': [N, h w C], 'fc6': [N, units], 'fc7': [N, units]}.

        'pool5' is the stage that fc6 reads, whatever its name in the backbone. Activations are after their ReLU.
        """
        x = self.backbone.features(crops, False)[self.stage]
        return {'pool5': x.reshape(x.shape[0], -1), **self.head(x, features=True)}


def rcnn(
    backbone: Mapping[str, Any] | None = None,
    num_classes: Count = 21,
    stage: str | None = None,
    units: tuple[Count, ...] = (4096, 4096),
    dropout: DropRate = 0.5,
    dtype: str | None = None,
) -> RCNN:
    """Builds the network of R-CNN, for regions warped to 227x227 on AlexNet; fc6 has the size that the warp requires.

    Args:
      backbone: name and arguments of a network; None takes Caffe's AlexNet, the paper's T-Net.
      num_classes: including the background.
      stage: of the backbone, that fc6 reads; None takes the last one.
      units: of fc6 and fc7.
      dropout: rate after each of them.
      dtype: of the computation, such as 'bfloat16'; parameters and logits stay float32.

    Raises:
      UsageError: the backbone is unknown or has no such stage.
    """
    given = {'name': 'alexnet.alexnet', 'variant': 'caffe', 'init': 'he'} if backbone is None else backbone
    network = make_backbone(given, dtype)
    stages = list(trace_stages(network, 227))
    if stage is not None and stage not in stages:
        raise UsageError(f'model.stage={stage!r} is not one of the backbone{suggest(stage, stages)}')
    dtype_ = None if dtype is None else jnp.dtype(dtype)
    return RCNN(network, stage or stages[-1], DenseHead(tuple(units), dropout, (), dtype_), num_classes, dtype_)
