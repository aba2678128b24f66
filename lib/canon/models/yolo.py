"""YOLO: Redmon, Divvala, Girshick, Farhadi, "You only look once: unified, real-time object detection", 2016.

24 convolutions (figure 3) and two fully connected layers divide the image into S x S cells. Each cell predicts N boxes
with a confidence each, and one score per class. Activations are leaky ReLUs of slope 0.1, the last layer is linear.

| network | convolutions | image | output (20 classes) | parameters | VOC07 mAP (07+12) |
|---|---|---|---|---|---|
| `yolo` | 24 | 448 | 7 x 7 x 30 | 271,703,550 | 63.4 % at 45 frames per second |
| `fast_yolo` | 9 | 448 | 7 x 7 x 30 | 45,089,374 | 52.7 % at 155 |

`yolo_classifier` is the network of the first 20 convolutions that the paper pretrains on ImageNet.

The output of a cell is [C class scores, N confidences, N boxes], which `split_output` separates. A box is (x, y, w, h):
the centre relative to the cell, 0 at its left and top edge and 1 at its right and bottom one, and the square roots of
width and height relative to the image, as the loss compares them (eq. 3); `decode_boxes` computes corner boxes. At test
the score of a class is its class score times the confidence of the box (eq. 1).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from canon import ops
from canon.errors import UsageError
from canon.models import cite, make_backbone
from canon.named import Count, DropRate, suggest
from canon.nn import BatchNorm, Conv, Network, scale_channels
from canon.nn.trace import trace_stages

_SOURCE = 'Redmon et al. 2016, Table 1, VOC07 mAP'
TABLE = (
    cite('yolo.yolo', 271_703_550, None, None, f'{_SOURCE} 63.4', size=448),
    cite('yolo.yolo_classifier', None, None, 88.0, 'Redmon et al. 2016, section 2.2'),
    cite('yolo.fast_yolo', None, None, None, f'{_SOURCE} 52.7', size=448),
)

# (kernel size, channels) of the convolutions of a stage; a 2x2 pooling follows each of the first four.
_STAGES = (
    ((7, 64),),
    ((3, 192),),
    ((1, 128), (3, 256), (1, 256), (3, 512)),
    (*((1, 256), (3, 512)) * 4, (1, 512), (3, 1024)),
    (*((1, 512), (3, 1024)) * 2, (3, 1024), (3, 1024)),
    ((3, 1024), (3, 1024)),
)
_FAST_STAGES = (*(((3, channels),) for channels in (16, 32, 64, 128, 256, 512)), ((3, 1024),) * 3)


class YOLO(Network):
    """Images [B, size, size, 3] -> [B, S, S, N * 5 + C]; stages conv1, conv2, ..., the last of each resolution.

    Convolutions are named conv<stage>_<index>, their normalisations bn<stage>_<index>; the fully connected layers 'fc1'
    (of `fast_yolo` also 'fc0') and 'output'. After a backbone, 'backbone', they are extra<stage>_<index>.

    Attributes:
      convolutions: (kernel size, channels) by stage.
      halvings: for each stage how it halves the resolution: 'first' or 'last' convolution strided, 'pool' after it, or
        a combination; '' keeps it.
      hidden: units of the fully connected layers before the output.
      size: of the images.
      grid: S, cells along each side.
      num_classes: C.
      num_boxes: N per cell.
      batch_norm: after every convolution, in place of its bias.
      dropout: rate after the last hidden layer.
      per_cell: applies the fully connected layers to each cell with the same weights, as 1x1 convolutions.
      dtype: of the computation.
      backbone: a network with `features`, which the convolutions follow; None: they read the image.
      backbone_stage: the one of its stages that they read.
    """

    convolutions: tuple[tuple[tuple[int, int], ...], ...]
    halvings: tuple[str, ...]
    hidden: tuple[int, ...]
    size: int
    grid: int
    num_classes: int
    num_boxes: int
    batch_norm: bool
    dropout: float
    per_cell: bool
    dtype: Any
    backbone: Network | None = None
    backbone_stage: str = ''

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        # The fully connected layers fix the size of the images; the convolutions alone take any.
        if images.ndim != 4 or (not features and images.shape[1:3] != (self.size, self.size)):
            raise UsageError(
                f'this YOLO takes images [B, {self.size}, {self.size}, C], not {images.shape}: resize them, or set '
                'model.size'
            )
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=initializers.glorot_uniform())
        x, stages, prefix = images, {}, 'conv'
        if self.backbone is not None:
            stages, prefix = self.backbone.features(images, train), 'extra'
            x = stages[self.backbone_stage]
        x, convolved = _convolve(self, x, prefix, train)
        stages |= convolved
        if features:
            return stages
        if not self.per_cell:
            # Rows first, channels last; darknet flattens channels first, so the rows of its first dense kernel are in
            # another order.
            x = x.reshape(x.shape[0], -1)
        for place, units in enumerate(self.hidden):
            # Counted from the output: the layer before it is 'fc1' in both networks.
            layer = f'fc{2 - len(self.hidden) + place}'
            x = _leaky(dense(units, name=layer)(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        # No activation: centres, roots and scores are free numbers that the squared errors pull into 0..1.
        cells = 1 if self.per_cell else self.grid**2
        x = dense(cells * (5 * self.num_boxes + self.num_classes), name='output')(x)
        # Cell by cell. Darknet's vector has the class scores of all cells, then all confidences, then all boxes.
        return x.reshape(x.shape[0], self.grid, self.grid, -1).astype(jnp.float32)

    def split_output(self, output: jax.Array) -> dict[str, jax.Array]:
        """Separates the output of this network; see `canon.models.yolo.split_output`."""
        return split_output(output, self.num_classes, self.num_boxes)


class YOLOClassifier(Network):
    """Images [B, H, W, 3] of any size -> logits [B, classes]: the convolutions that YOLO is pretrained with.

    Layers and stages are named as those of `YOLO`, so that its `run.init_from` finds them.

    Attributes:
      convolutions: (kernel size, channels) by stage.
      halvings: of each stage, as of `YOLO`.
      num_classes: number of classes.
      batch_norm: after every convolution, in place of its bias.
      dtype: of the computation.
    """

    convolutions: tuple[tuple[tuple[int, int], ...], ...]
    halvings: tuple[str, ...]
    num_classes: int
    batch_norm: bool
    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, features: bool = False):
        x, stages = _convolve(self, images, 'conv', train)
        if features:
            return stages
        return nn.Dense(self.num_classes, dtype=self.dtype, name='output')(x.mean((1, 2))).astype(jnp.float32)


def _convolve(module: YOLO | YOLOClassifier, x: jax.Array, prefix: str, train: bool):
    """Applies the convolutions of a network [B, H, W, C], named prefix<stage>_<index>; returns maps and stages."""
    stages = {}
    for stage, (convolutions, halving) in enumerate(zip(module.convolutions, module.halvings, strict=True), start=1):
        for index, (kernel_size, channels) in enumerate(convolutions, start=1):
            # Strided convolutions pad k // 2 on both sides, as darknet does: 'same' would shift the windows of even
            # images.
            strided = ('first' in halving and index == 1) or ('last' in halving and index == len(convolutions))
            shape = (channels, kernel_size, 2 if strided else 1, kernel_size // 2)
            name = f'{stage}_{index}'
            x = Conv(*shape, use_bias=not module.batch_norm, dtype=module.dtype, name=f'{prefix}{name}')(x)
            if module.batch_norm:
                x = BatchNorm(dtype=module.dtype, name=f'bn{name}')(x, train)
            x = _leaky(x)
        stages[f'{prefix}{stage}'] = x
        if 'pool' in halving:
            x = ops.max_pool(x, 2)
    return x, stages


def _leaky(x: jax.Array) -> jax.Array:
    return ops.leaky_relu(x, slope=0.1)


def split_output(output: jax.Array, num_classes: int, num_boxes: int = 2) -> dict[str, jax.Array]:
    """Separates the output [..., S, S, N * 5 + C] of a YOLO.

    Args:
      output: of the network.
      num_classes: C.
      num_boxes: N.

    Returns:
      {'class_scores': [..., S, S, C], 'confidence': [..., S, S, N], 'boxes': [..., S, S, N, 4]}, a box being
      (x, y, sqrt w, sqrt h).

    Raises:
      UsageError: the last axis is not N * 5 + C long.
    """
    if output.shape[-1] != 5 * num_boxes + num_classes:
        raise UsageError(
            f'an output {output.shape} does not have {num_classes} class scores and 5 values for each of {num_boxes} '
            'boxes per cell; give the num_classes and num_boxes of the model'
        )
    scores, confidence, boxes = jnp.split(output, (num_classes, num_classes + num_boxes), -1)
    return {
        'class_scores': scores,
        'confidence': confidence,
        'boxes': boxes.reshape(*boxes.shape[:-1], num_boxes, 4),
    }


def decode_boxes(boxes: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Computes corner boxes in pixels of boxes relative to their cells.

    Args:
      boxes: [..., S, S, N, 4] of (x, y, sqrt w, sqrt h), from `split_output`; the axes of cells are rows and columns.
      size: (height, width) of the image.

    Returns:
      [..., S, S, N, 4] of [x0, y0, x1, y1]; they may reach beyond the image.
    """
    rows, columns = boxes.shape[-4:-2]
    height, width = size
    # A coordinate is [..., rows, columns, N]: indices of columns broadcast as [S, 1], those of rows as [S, 1, 1].
    x = (boxes[..., 0] + jnp.arange(columns)[:, None]) * (width / columns)
    y = (boxes[..., 1] + jnp.arange(rows)[:, None, None]) * (height / rows)
    # The square also makes a negative root a valid size, as in the authors' code.
    half_width, half_height = jnp.square(boxes[..., 2]) * (width / 2), jnp.square(boxes[..., 3]) * (height / 2)
    return jnp.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


def yolo(
    num_classes: Count = 20,
    num_boxes: Count = 2,
    size: Count = 448,
    stride: Count = 64,
    width: float = 1.0,
    hidden: Count = 4096,
    batch_norm: bool = False,
    dropout: DropRate = 0.5,
    per_cell: bool = False,
    dtype: str | None = None,
) -> YOLO:
    """The network of figure 3: 24 convolutions, and fully connected layers of 4096 units and of the output.

    Args:
      num_classes: C, without a background.
      num_boxes: N per cell.
      size: of the images, a multiple of the stride.
      stride: pixels of a cell, 64 in the paper: S = size / stride. A smaller power of 2 leaves out the last halvings,
        for small images.
      width: multiplies the channels of the convolutions (not in the paper).
      hidden: units of the fully connected layer.
      batch_norm: after every convolution, for training from scratch (not in the paper).
      dropout: rate after the fully connected layer.
      per_cell: applies the fully connected layers to each cell with the same weights (not in the paper). As they are in
        the paper, each cell learns from the few objects that its own 1/S^2 of the image has seen.
      dtype: of the computation, such as 'bfloat16'; parameters and the output stay float32.

    Raises:
      UsageError: the stride is not a power of 2 up to 64, the size is not a multiple of it, or the width leaves no
        channels.
    """
    # conv1_1 has stride 2 and a pooling after it; the last convolution of stage 5 has stride 2: 64 in all.
    halvings = ('first pool', 'pool', 'pool', 'pool', 'last', '')
    options = dict(num_classes=num_classes, num_boxes=num_boxes, batch_norm=batch_norm, dropout=dropout)
    return _build(_STAGES, halvings, (hidden,), size, stride, width, dtype, per_cell=per_cell, **options)


def yolo_classifier(
    num_classes: Count = 1000,
    stride: Count = 32,
    width: float = 1.0,
    batch_norm: bool = False,
    dtype: str | None = None,
) -> YOLOClassifier:
    """The network that `yolo` is pretrained as (section 2.2): 20 convolutions, average pooling, one connected layer.

    88 % top-5 accuracy on ImageNet with crops of 224. A detector starts from a run of it by `run.init_from`.

    Args:
      num_classes: number of classes.
      stride: of the last map, 32 in the paper; a smaller power of 2 leaves out the last halvings, for small images.
      width: multiplies the channels of the convolutions (not in the paper).
      batch_norm: after every convolution, for training from scratch (not in the paper).
      dtype: of the computation, such as 'bfloat16'; parameters and logits stay float32.

    Raises:
      UsageError: the stride is not a power of 2 up to 32, or the width leaves no channels.
    """
    if stride not in (2, 4, 8, 16, 32):
        raise UsageError(f'model.stride={stride} must be a power of 2 from 2 to 32')
    # Without the four convolutions that are added for detection, the last two of stage 5 and stage 6.
    stages = (*_STAGES[:4], _STAGES[4][:4])
    return YOLOClassifier(
        convolutions=_scale(stages, width),
        halvings=_shorten(('first pool', 'pool', 'pool', 'pool', ''), stride),
        num_classes=num_classes,
        batch_norm=batch_norm,
        dtype=None if dtype is None else jnp.dtype(dtype),
    )


def fast_yolo(
    num_classes: Count = 20,
    num_boxes: Count = 2,
    size: Count = 448,
    stride: Count = 64,
    width: float = 1.0,
    hidden: tuple[int, ...] = (256, 4096),
    batch_norm: bool = False,
    dropout: DropRate = 0.5,
    per_cell: bool = False,
    dtype: str | None = None,
) -> YOLO:
    """Fast YOLO: 9 convolutions of fewer channels, with the layers of known ports: the paper does not list them.

    Arguments as of `yolo`; hidden: units of both fully connected layers before the output.
    """
    halvings = ('pool',) * 6 + ('',)
    options = dict(num_classes=num_classes, num_boxes=num_boxes, batch_norm=batch_norm, dropout=dropout)
    return _build(_FAST_STAGES, halvings, tuple(hidden), size, stride, width, dtype, per_cell=per_cell, **options)


def backbone_yolo(
    backbone: Mapping[str, Any],
    stage: str,
    num_classes: Count = 20,
    num_boxes: Count = 2,
    size: Count = 448,
    channels: Sequence[Count] = (1024, 1024, 1024, 1024),
    hidden: Sequence[Count] = (4096,),
    batch_norm: bool = False,
    dropout: DropRate = 0.5,
    per_cell: bool = False,
    dtype: str | None = None,
) -> YOLO:
    """YOLO on any backbone: section 4.1 of the paper reports one on VGG-16.

    Args:
      backbone: name and arguments of a network with `features`: dict(name='vgg.vgg16').
      stage: of the backbone that is read; its stride gives the cells.
      num_classes: C, without a background.
      num_boxes: N per cell.
      size: of the images, a multiple of the stage's stride.
      channels: of the 3x3 convolutions after it: section 2.2 adds four to the pretrained ones.
      hidden: units of the fully connected layers before the output.
      batch_norm: after every one of these convolutions.
      dropout: rate after the last hidden layer.
      per_cell: see `yolo`.
      dtype: of the computation, such as 'bfloat16'; parameters and the output stay float32.

    Raises:
      UsageError: the backbone is unknown or has no such stage, or the size is not a multiple of its stride.
    """
    network = make_backbone(backbone, dtype)
    traced = trace_stages(network)
    if stage not in traced:
        raise UsageError(f'model.backbone has no stage {stage!r}{suggest(stage, traced)}; it has {", ".join(traced)}')
    stride = traced[stage].stride[0]
    if size % stride:
        raise UsageError(f'model.size={size} must be a multiple of {stride}, the stride of {stage!r}')
    return YOLO(
        convolutions=(tuple((3, n) for n in channels),),
        halvings=('',),
        hidden=tuple(hidden),
        size=size,
        grid=size // stride,
        num_classes=num_classes,
        num_boxes=num_boxes,
        batch_norm=batch_norm,
        dropout=dropout,
        per_cell=per_cell,
        dtype=None if dtype is None else jnp.dtype(dtype),
        backbone=network,
        backbone_stage=stage,
    )


def _build(stages, halvings, hidden, size, stride, width, dtype, **options) -> YOLO:
    if stride not in (2, 4, 8, 16, 32, 64) or size % stride:
        raise UsageError(
            f'model.stride={stride} must be a power of 2 from 2 to 64, and model.size={size} a multiple of it'
        )
    return YOLO(
        convolutions=_scale(stages, width),
        halvings=_shorten(halvings, stride),
        hidden=hidden,
        size=size,
        grid=size // stride,
        dtype=None if dtype is None else jnp.dtype(dtype),
        **options,
    )


def _scale(stages, width: float) -> tuple[tuple[tuple[int, int], ...], ...]:
    return tuple(tuple((size, scale_channels(channels, width)) for size, channels in stage) for stage in stages)


def _shorten(halvings: tuple[str, ...], stride: int) -> tuple[str, ...]:
    """Leaves out the last halvings beyond the given stride."""
    remaining, shortened = stride.bit_length() - 1, []
    # 'first pool' halves twice: at a stride of 16 'first pool', 'pool' and 'pool' of figure 3 remain.
    for words in map(str.split, halvings):
        shortened.append(' '.join(words[:remaining]))
        remaining -= len(words[:remaining])
    return tuple(shortened)
