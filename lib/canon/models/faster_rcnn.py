"""Faster R-CNN: Ren, He, Girshick, Sun, "Faster R-CNN: towards real-time object detection with region proposal
networks", 2015, section 3 (sections and tables are numbered as in arXiv's version 3 and in the journal).

A region proposal network (RPN) slides over the map of the backbone: a 3x3 convolution, and for each of the anchors of
a place a score of being an object and the offsets of a box. The best boxes are the regions of a Fast R-CNN
(`canon.models.fast_rcnn`) that shares the map.

| network | RPN on | anchors | parameters | mAP |
|---|---|---|---|---|
| `faster_rcnn_vgg16` | conv5_3 | 9 | 137,078,239 (21 classes), 2,387,510 of the RPN | VOC07 69.9 %, 73.2 % (07+12) |
| `faster_rcnn_zf` | conv5 | 9 | 59,294,751 | VOC07 59.9 % |
| `faster_rcnn_resnet50_c4` | conv4_x | 9 | | |
| `fasterrcnn_resnet50_fpn` | P2 .. P6 | 3 per level | 41,755,286 (91 classes, frozen norms) | COCO AP 37.0 % |
| `faster_rcnn` on any backbone | | | | |

Proposals are made from the outputs by `canon.ops.proposals.propose`; `canon.tasks.detection.regions` trains and
evaluates these networks. `fasterrcnn_resnet50_fpn` is torchvision's: Lin et al. 2017, section 4, with RoIAlign.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from canon.errors import UsageError
from canon.models import cite, fast_rcnn
from canon.models.fast_rcnn import FastRCNN
from canon.models.feature_pyramid import FeaturePyramid
from canon.named import Count, Positive, call, list_parameters, suggest, takes_arguments_of
from canon.nn import Conv, scale_channels
from canon.ops import relu
from canon.ops.anchors import FORMS, make_anchor_levels

_VOC = 'Ren et al. 2015'
TABLE = (
    cite('faster_rcnn.faster_rcnn_zf', None, None, None, f'{_VOC}, Table 2, VOC07 mAP 59.9'),
    cite('faster_rcnn.faster_rcnn_vgg16', 137_078_239, None, None, f'{_VOC}, Table 3, VOC07 mAP 69.9, 07+12 73.2'),
    cite('faster_rcnn.faster_rcnn_resnet50_c4', None, None, None, None),
    cite('faster_rcnn.fasterrcnn_resnet50_fpn', 41_755_286, None, None, 'torchvision, COCO AP 37.0'),
    cite('faster_rcnn.fasterrcnn_resnet50_fpn', 41_808_406, None, None, 'torchvision, trainable norms', norm='batch'),
)

_SCORES = ('softmax', 'sigmoid')


class AnchorSettings(NamedTuple):
    """The anchors of each map: see `canon.ops.anchors.make_anchors`.

    Attributes:
      sizes: square roots of the areas in pixels, per map.
      aspect_ratios: heights over widths.
      form: 'exact', 'rounded' or 'torchvision'.
    """

    sizes: tuple[tuple[float, ...], ...]
    aspect_ratios: tuple[float, ...]
    form: str


class ProposalHead(nn.Module):
    """The region proposal network: maps [B, h, w, C] -> logits and offsets of A anchors per place, for each map.

    All maps share its parameters: 'conv', 'objectness' and 'offsets'. With `scores` of 'softmax' an anchor has two
    logits, as in the authors' code, channels of the background first. Only their difference matters, and is returned:
    softmax over both is sigmoid of it.
    """

    channels: int
    anchors: int
    scores: str
    dtype: Any

    @nn.compact
    def __call__(self, maps: tuple[jax.Array, ...]) -> dict[str, tuple[jax.Array, ...]]:
        # N(0, 0.01) for all new layers (section 3.1.3).
        normal, pair = initializers.normal(0.01), self.scores == 'softmax'
        conv = Conv(self.channels, 3, padding=1, dtype=self.dtype, kernel_init=normal, name='conv')
        scores = self.anchors * (2 if pair else 1)
        objectness = Conv(scores, 1, dtype=self.dtype, kernel_init=normal, name='objectness')
        offsets = Conv(4 * self.anchors, 1, dtype=self.dtype, kernel_init=normal, name='offsets')
        outputs: dict[str, list[jax.Array]] = {'objectness': [], 'offsets': []}
        for features in maps:
            x = relu(conv(features))
            logits, rows = objectness(x).astype(jnp.float32), x.shape[0]
            if pair:
                background, foreground = jnp.split(logits, 2, -1)
                logits = foreground - background
            outputs['objectness'].append(logits.reshape(rows, -1))
            outputs['offsets'].append(offsets(x).astype(jnp.float32).reshape(rows, -1, 4))
        return {name: tuple(parts) for name, parts in outputs.items()}


class FasterRCNN(FastRCNN):
    """Images [B, H, W, 3] and boxes [B, R, 4] -> outputs of both stages, float32.

    {'objectness': L x [B, A_l], 'offsets': L x [B, A_l, 4]} of `propose` and {'logits': [B, R, num_classes],
    'offsets': [B, R, num_classes, 4]} of `classify` are the values of 'proposals' and 'regions'. In training the boxes
    are proposals, which follow from the outputs of the first stage, so that tasks apply the parts one by one.
    Parameters: those of `FastRCNN`, and 'rpn'.

    Attributes:
      rpn: the region proposal network.
      anchor_settings: the anchors of each map of `extract`.
    """

    rpn: ProposalHead
    anchor_settings: AnchorSettings

    def __call__(self, images: jax.Array, boxes: jax.Array | None = None, train: bool = False) -> dict[str, Any]:
        """Computes both stages; boxes of None are the whole images."""
        maps, (height, width) = self.extract(images, train), images.shape[1:3]
        if boxes is None:
            boxes = jnp.broadcast_to(jnp.array((0, 0, width, height), jnp.float32), (images.shape[0], 1, 4))
        regions = self.classify(maps, boxes, (height, width), train)
        return {'proposals': self.propose(maps, train), 'regions': regions}

    def propose(self, maps: tuple[jax.Array, ...], train: bool = False) -> dict[str, tuple[jax.Array, ...]]:
        """Scores the anchors of all maps: {'objectness': L x [B, A_l], 'offsets': L x [B, A_l, 4]}, float32.

        Objectness is the logit of being an object; offsets have unit variances. `train` has no effect.
        """
        return self.rpn(maps)

    def anchors(self, height: int, width: int) -> list[np.ndarray]:
        """Returns the anchors of images of that size, float32 [A_l, 4] for each map, corner boxes in pixels."""
        # A module that is bound to variables, within `apply`, cannot be traced for another size.
        free = self if self.scope is None else self.unbind()[0]
        grids = _trace_grids(free, height, width)  # ty: ignore[invalid-argument-type]
        strides: list[Any] = list(self.strides)
        if self.anchor_settings.form == 'torchvision':  # its last map may be larger than the image over its stride
            strides = [(height // rows, width // columns) for rows, columns in grids]
        settings = self.anchor_settings
        return make_anchor_levels(grids, strides, settings.sizes, settings.aspect_ratios, settings.form)


@lru_cache(maxsize=64)
def _trace_grids(model: FasterRCNN, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Returns (rows, columns) of each map, from shapes alone; a trace of a ResNet takes a second."""
    images = jax.ShapeDtypeStruct((1, height, width, 3), np.float32)
    maps = jax.eval_shape(lambda key, x: model.init_with_output(key, x, method='extract')[0], jax.random.key(0), images)
    return tuple(x.shape[1:3] for x in maps)


@takes_arguments_of(fast_rcnn.fast_rcnn)
def faster_rcnn(
    backbone: Mapping[str, Any],
    num_classes: Count = 21,
    rpn_channels: Count | None = None,
    anchor_sizes: tuple[Any, ...] | None = None,
    aspect_ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0),
    anchor_form: str = 'exact',
    scores: str = 'sigmoid',
    **arguments: Any,
) -> FasterRCNN:
    """Builds Faster R-CNN on any backbone of `canon.models` with `features`, for images of any size from 32.

    Args:
      backbone: name and arguments of a network, {'name': 'vgg.vgg16'} or a feature pyramid.
      num_classes: including the background.
      rpn_channels: of the RPN's 3x3 convolution; None takes 512, and the channels of a pyramid.
      anchor_sizes: square roots of the anchors' areas in pixels. For a pyramid one number per level, or several: (32,
        64, 128, 256, 512) and ((32,), (64,), ...) are the same. None takes (128, 256, 512), and on a pyramid 8 times
        the stride of each level.
      aspect_ratios: heights over widths.
      anchor_form: 'exact', 'rounded' (py-faster-rcnn) or 'torchvision', see `canon.ops.anchors.make_anchors`.
      scores: of an anchor: 'sigmoid' has one logit, 'softmax' two, as in the authors' code.
      dropout: rate after each layer of the head.
      **arguments: further ones of `canon.models.fast_rcnn.fast_rcnn`.

    Raises:
      UsageError: the backbone is unknown or has no stage of that stride, or the arguments do not fit it.
    """
    network = call(fast_rcnn.fast_rcnn, dict(backbone=backbone, num_classes=num_classes) | arguments, 'model')
    return _add_proposals(network, rpn_channels, anchor_sizes, aspect_ratios, anchor_form, scores)


def _add_proposals(
    network: FastRCNN,
    rpn_channels: int | None = None,
    anchor_sizes: tuple[Any, ...] | None = None,
    aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
    anchor_form: str = 'exact',
    scores: str = 'sigmoid',
) -> FasterRCNN:
    """Adds a region proposal network to a Fast R-CNN; the arguments are those of `faster_rcnn`."""
    for key, value, choices in (('anchor_form', anchor_form, FORMS), ('scores', scores, _SCORES)):
        if value not in choices:
            raise UsageError(f'model.{key}={value!r} is unknown{suggest(value, choices)}')
    backbone, levels = network.backbone, len(network.stages)
    pyramid = isinstance(backbone, FeaturePyramid)
    sizes = anchor_sizes or (tuple(8 * stride for stride in network.strides) if pyramid else (128, 256, 512))
    if not any(isinstance(size, tuple | list) for size in sizes):
        sizes = tuple((size,) for size in sizes) if pyramid else (sizes,)
    per_map = tuple(tuple(level) if isinstance(level, tuple | list) else () for level in sizes)
    if len(per_map) != levels or len({len(level) for level in per_map}) != 1 or not per_map[0]:
        raise UsageError(
            f'model.anchor_sizes={anchor_sizes} must have as many sizes for each of {levels} maps: {network.stages}'
        )
    channels = rpn_channels or (backbone.channels if pyramid else 512)
    settings = AnchorSettings(per_map, tuple(aspect_ratios), anchor_form)
    rpn = ProposalHead(channels, len(per_map[0]) * len(aspect_ratios), scores, network.dtype)
    fields = {name: getattr(network, name) for name in FastRCNN.__annotations__}
    return FasterRCNN(**fields, rpn=rpn, anchor_settings=settings)


def _split_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separates the arguments of the region proposal network from those of the Fast R-CNN."""
    names = {p.name for p in list_parameters(_add_proposals)}
    return (
        {key: value for key, value in arguments.items() if key in names},
        {key: value for key, value in arguments.items() if key not in names},
    )


def faster_rcnn_vgg16(num_classes: Count = 21, width: Positive = 1.0, **arguments: Any) -> FasterRCNN:
    """Builds Faster R-CNN on VGG-16 as in the authors' code, with the nine anchors of py-faster-rcnn.

    Args:
      num_classes: including the background.
      width: multiplies all channels and units (not in the paper).
      **arguments: those of `faster_rcnn`.
    """
    proposals, regions = _split_arguments(arguments)
    regions = dict(num_classes=num_classes, width=width, width_convention='plus_one') | regions
    network = call(fast_rcnn.fast_rcnn_vgg16, regions, 'model')
    paper: dict[str, Any] = dict(rpn_channels=scale_channels(512, width), anchor_form='rounded', scores='softmax')
    return _add_proposals(network, **(paper | proposals))


def faster_rcnn_zf(num_classes: Count = 21, width: Positive = 1.0, **arguments: Any) -> FasterRCNN:
    """Builds Faster R-CNN on ZFNet as in the authors' code: 6x6 regions, an RPN of 256 channels.

    Arguments are those of `faster_rcnn_vgg16`.
    """
    backbone = dict(name='zfnet.zfnet', detection=True, width=width) | arguments.pop('backbone', {})
    paper = dict(
        backbone=backbone,
        num_classes=num_classes,
        rpn_channels=scale_channels(256, width),
        anchor_form='rounded',
        scores='softmax',
        pool_size=6,
        width_convention='plus_one',  # of boxes that the authors' network proposes
        units=(scale_channels(4096, width),) * 2,
    )
    return call(faster_rcnn, paper | arguments, 'model')


def faster_rcnn_resnet50_c4(num_classes: Count = 21, norm: str = 'frozen', **arguments: Any) -> FasterRCNN:
    """Builds Faster R-CNN on ResNet-50: RPN and regions on conv4_x, and conv5_x as the head of each region.

    He et al. 2015, appendix A. Regions are pooled to 14x14 and conv5_x halves them, as in Mask R-CNN's C4 networks;
    with `pool_size=7` it keeps their size. `norm` is that of `canon.models.resnet.resnet18`; other
    arguments are those of `faster_rcnn`.
    """
    backbone = dict(name='resnet.resnet50', norm=norm) | arguments.pop('backbone', {})
    paper = dict(backbone=backbone, num_classes=num_classes, head='stage', pool_size=14, dropout=0.0)
    return call(faster_rcnn, paper | arguments, 'model')


def fasterrcnn_resnet50_fpn(
    num_classes: Count = 91, norm: str = 'frozen', dtype: str | None = None, **arguments: Any
) -> FasterRCNN:
    """Builds torchvision's Faster R-CNN on a feature pyramid over ResNet-50, for images whose sides divide by 32.

    Args:
      num_classes: including the background; torchvision counts 91 with the ids that COCO leaves out.
      norm: of the ResNet: 'frozen' as torchvision has it for its published weights, whose variances get no epsilon;
        'batch' is trained.
      dtype: of the computation, such as 'bfloat16'; parameters and outputs stay float32.
      **arguments: those of `faster_rcnn`.
    """
    resnet = dict(name='resnet.resnet50', norm=norm, norm_eps=0.0 if norm == 'frozen' else 1e-5)
    backbone = dict(name='feature_pyramid.feature_pyramid', backbone=resnet) | arguments.pop('backbone', {})
    torchvision = dict(anchor_form='torchvision', dropout=0.0, backbone=backbone, num_classes=num_classes, dtype=dtype)
    return call(faster_rcnn, torchvision | arguments, 'model')
