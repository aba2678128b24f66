"""Fast R-CNN: Girshick, "Fast R-CNN", 2015, sections 2 and 3.

A backbone computes one map of the whole image; RoI pooling turns every region of it into a map of fixed size, and a
head of two layers classifies the region and regresses its box, for each class apart. Class 0 is the background.

| network | pooled map | parameters (21 classes) | VOC07 mAP |
|---|---|---|---|
| `fast_rcnn_vgg16`, the paper's L | conv5_3, 7x7 | 134,690,729 | 66.9 % |
| `fast_rcnn_alexnet`, the paper's S | conv5, 6x6 | 57,298,409 | 57.1 % |
| `fast_rcnn` on any backbone | | | |

`truncate_svd` factorises fc6 and fc7 (section 3.1), and `fold_target_normalisation` lets a network that learned
normalised offsets predict plain ones, as the authors' code does whenever it saves a network.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import lax
from jax.nn import initializers

from canon.errors import UsageError
from canon.models import cite, make_backbone
from canon.models.feature_pyramid import FeaturePyramid
from canon.models.resnet import ResNet
from canon.named import Count, DropRate, Positive, call, suggest
from canon.nn import Network, check_images, scale_channels
from canon.nn.trace import select_pyramid, trace_stages
from canon.ops import boxes as box_ops
from canon.ops import regions as region_ops
from canon.ops import relu

TABLE = (
    cite('fast_rcnn.fast_rcnn_vgg16', 134_690_729, None, None, 'Girshick 2015, Table 1, VOC07 mAP 66.9'),
    cite('fast_rcnn.fast_rcnn_alexnet', None, None, None, 'Girshick 2015, Table 6, VOC07 mAP 57.1'),
)

_HEADS, _POOLINGS = ('dense', 'stage'), ('max', 'align')


class RegionPooling(NamedTuple):
    """Settings that turn the features of a region into a map of size x size.

    Attributes:
      kind: 'max', RoI pooling, or 'align', RoIAlign.
      size: of the pooled map.
      convention: of the width of a region in RoI pooling, see `canon.ops.regions.roi_pool`.
      sampling_ratio: samples per bin and axis of RoIAlign.
      aligned: whether RoIAlign takes pixel centres at half-integers.
      levels: the number of maps that are pooled from, the first ones; a region takes one of them by its size.
      canonical_size: side in pixels of the regions that are assigned to the level of stride 16.
    """

    kind: str
    size: int
    convention: str
    sampling_ratio: int
    aligned: bool
    levels: int
    canonical_size: float

    def pool(self, maps: tuple[jax.Array, ...], boxes: jax.Array, strides: tuple[int, ...]) -> jax.Array:
        """Pools boxes [B, R, 4] in pixels from maps of these strides: [B, R, size, size, C]."""
        maps, scales = maps[: self.levels], [1 / stride for stride in strides[: self.levels]]
        size = (self.size, self.size)
        if self.kind == 'max':
            return region_ops.roi_pool(maps[0], boxes, size, scales[0], width_convention=self.convention)
        if len(maps) == 1:
            return region_ops.roi_align(maps[0], boxes, size, scales[0], self.sampling_ratio, self.aligned)
        finest, coarsest = (round(math.log2(strides[i])) for i in (0, self.levels - 1))
        levels = region_ops.assign_levels(boxes, finest, coarsest, self.canonical_size)
        return region_ops.roi_align_levels(maps, boxes, levels, size, scales, self.sampling_ratio, self.aligned)


class FastRCNN(nn.Module):
    """Images [B, H, W, 3] and boxes [B, R, 4] -> {'logits': [B, R, num_classes], 'offsets': [B, R, num_classes, 4]}.

    The parts can be applied apart: `model.apply(variables, images, method='extract')`. Outputs are float32. Offsets are
    those of `canon.ops.boxes.encode_offsets`, relative to the boxes. Parameters: 'backbone', 'head', 'logits' and
    'offsets'.

    Attributes:
      backbone: a network with `features`.
      stages: names of the stages that `extract` returns, finest first.
      strides: of these stages in pixels.
      pooling: how regions are pooled.
      head: a module from pooled regions [N, size, size, C] to [N, units].
      num_classes: including the background, class 0.
      class_agnostic: regresses one box for all classes: offsets [B, R, 1, 4].
      dtype: of the computation.
    """

    backbone: Network
    stages: tuple[str, ...]
    strides: tuple[int, ...]
    pooling: RegionPooling
    head: nn.Module
    num_classes: int
    class_agnostic: bool
    dtype: Any

    def setup(self):
        # Zero-mean Gaussians of 0.01 and 0.001 (section 2.3): the first predictions are the proposals themselves.
        boxes = 1 if self.class_agnostic else self.num_classes
        self.logits = nn.Dense(self.num_classes, dtype=self.dtype, kernel_init=initializers.normal(0.01))
        self.offsets = nn.Dense(4 * boxes, dtype=self.dtype, kernel_init=initializers.normal(0.001))

    def __call__(self, images: jax.Array, boxes: jax.Array | None = None, train: bool = False) -> dict[str, Any]:
        """Classifies boxes [B, R, 4] in pixels; None takes the whole image."""
        height, width = size = images.shape[1:3]
        if boxes is None:
            boxes = jnp.broadcast_to(jnp.array((0, 0, width, height), jnp.float32), (images.shape[0], 1, 4))
        return self.classify(self.extract(images, train), boxes, size, train)

    def extract(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, ...]:
        """Returns the maps of images [B, H, W, 3], finest first."""
        check_images(images, 32, type(self).__name__)
        maps = self.backbone.features(images, train)
        return tuple(maps[stage] for stage in self.stages)

    def classify(
        self, maps: tuple[jax.Array, ...], boxes: jax.Array, image_size: Sequence[Any], train: bool = False
    ) -> dict[str, jax.Array]:
        """Classifies regions and regresses their boxes.

        Args:
          maps: of `extract`.
          boxes: [B, R, 4] in pixels; no gradient flows to them.
          image_size: (height, width), to which boxes are clipped.
          train: applies dropout, from the stream 'dropout'.

        Returns:
          {'logits': float32 [B, R, num_classes], 'offsets': float32 [B, R, num_classes or 1, 4]}.
        """
        return self.score(self.describe(maps, boxes, image_size, train))

    def describe(
        self, maps: tuple[jax.Array, ...], boxes: jax.Array, image_size: Sequence[Any], train: bool = False
    ) -> jax.Array:
        """Computes the features [B, R, units] of regions, the head's. Arguments are those of `classify`."""
        boxes = box_ops.clip(lax.stop_gradient(boxes), image_size)
        pooled = self.pooling.pool(maps, boxes, self.strides)
        return self.head(pooled.reshape(-1, *pooled.shape[2:]), train).reshape(*boxes.shape[:2], -1)

    def score(self, features: jax.Array) -> dict[str, jax.Array]:
        """Computes the outputs of `classify` from the features of `describe`."""
        x, rows = features.reshape(-1, features.shape[-1]), features.shape[:2]
        logits, offsets = self.logits(x).astype(jnp.float32), self.offsets(x).astype(jnp.float32)
        return {'logits': logits.reshape(*rows, -1), 'offsets': offsets.reshape(*rows, -1, 4)}


class DenseHead(nn.Module):
    """Two fully connected layers on pooled regions [N, h, w, C], each with ReLU and dropout: -> [N, units].

    A layer with a rank is two: '<layer>_v' [in, rank] without a bias, and '<layer>_u' [rank, units], see
    `truncate_svd`. With `features` the activations of all layers are returned, {'fc6': [N, units], 'fc7': ...}.
    """

    units: tuple[int, ...]
    dropout: float
    ranks: tuple[tuple[str, int], ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, features: bool = False):
        x, ranks, layers = x.reshape(x.shape[0], -1), dict(self.ranks), {}
        for number, units in enumerate(self.units, start=6):
            layer = f'fc{number}'
            if layer in ranks:
                x = self._dense(ranks[layer], f'{layer}_v', use_bias=False)(x)
            x = layers[layer] = relu(self._dense(units, f'{layer}_u' if layer in ranks else layer)(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return layers if features else x

    def _dense(self, units: int, name: str, use_bias: bool = True) -> nn.Dense:
        he = initializers.he_normal()
        return nn.Dense(units, use_bias=use_bias, dtype=self.dtype, kernel_init=he, name=name)


class StageHead(nn.Module):
    """The last stage of a ResNet on pooled regions [N, h, w, C], averaged: -> [N, channels].

    He et al. 2015, appendix A: conv5_x takes the place of fully connected layers. Blocks are named as in the ResNet.
    """

    block: Any
    depth: int
    channels: int
    stride: int
    form: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        for place in range(1, self.depth + 1):
            stride = self.stride if place == 1 else 1
            x = self.block(self.channels, stride, self.form, name=f'conv5_{place}')(x, train)
        return x.mean((1, 2))


def fast_rcnn(
    backbone: Mapping[str, Any],
    num_classes: Count = 21,
    stride: Count = 16,
    head: str = 'dense',
    pooling: str | None = None,
    pool_size: Count = 7,
    width_convention: str = 'pixels',
    sampling_ratio: Count = 2,
    aligned: bool = False,
    canonical_size: Positive = 224.0,
    units: tuple[Count, ...] | None = None,
    dropout: DropRate = 0.5,
    class_agnostic: bool = False,
    svd_ranks: Mapping[str, Count] | None = None,
    dtype: str | None = None,
) -> FastRCNN:
    """Builds Fast R-CNN on any backbone of `canon.models` with `features`, for images of any size from 32.

    Args:
      backbone: name and arguments of a network, {'name': 'vgg.vgg16'}. All levels of a feature pyramid are extracted,
        and regions are pooled from those that are not made by its `top`.
      num_classes: including the background.
      stride: of the stage that regions are pooled from, where the backbone is not a pyramid.
      head: 'dense', two fully connected layers, or 'stage', the last stage of a ResNet; the backbone then ends before
        it.
      pooling: 'max', RoI pooling, or 'align', RoIAlign. None takes 'align' on a pyramid and 'max' otherwise.
      pool_size: rows and columns of a pooled region. With head='stage', 14 lets the stage halve it to 7, and 7 keeps
        it.
      width_convention: of RoI pooling, see `canon.ops.regions.roi_pool`.
      sampling_ratio: samples per bin and axis of RoIAlign.
      aligned: RoIAlign takes pixel centres at half-integers (detectron2), instead of at integers (torchvision).
      canonical_size: side in pixels of the regions that a pyramid pools from its level of stride 16; smaller ones are
        pooled from finer levels. The paper's 224 is the size of ImageNet's crops.
      units: of the fully connected layers; None takes (4096, 4096), and (1024, 1024) on a pyramid.
      dropout: rate after each of them.
      class_agnostic: regresses one box for all classes.
      svd_ranks: {'fc6': rank, 'fc7': rank} of layers in factorised form, for the variables of `truncate_svd`.
      dtype: of the computation, such as 'bfloat16'; parameters and outputs stay float32.

    Raises:
      UsageError: the backbone is unknown or has no stage of that stride, or the arguments do not fit it.
    """
    for key, value, choices in (('head', head, _HEADS), ('pooling', pooling, (*_POOLINGS, None))):
        if value not in choices:
            raise UsageError(f'model.{key}={value!r} is unknown{suggest(str(value), filter(None, choices))}')
    network, dtype_ = make_backbone(backbone, dtype), None if dtype is None else jnp.dtype(dtype)
    pyramid = isinstance(network, FeaturePyramid)
    stages, strides, levels = _find_stages(network, stride, head)
    if pooling == 'max' and pyramid:
        raise UsageError("model.pooling='max' pools from one map; take 'align' on a feature pyramid")
    settings = RegionPooling(
        pooling or ('align' if pyramid else 'max'),
        pool_size,
        width_convention,
        sampling_ratio,
        aligned,
        levels,
        canonical_size,
    )
    if head == 'stage':
        # Mask R-CNN's C4 networks pool 14x14, so that the stage keeps its stride; a smaller map is not halved.
        halve = 2 if pool_size >= 14 else 1
        channels = scale_channels(network.widths[-1], network.width)
        module = StageHead(network.block, network.depths[-1], channels, halve, network.form)
        network = network.clone(depths=network.depths[:-1], widths=network.widths[:-1])
    else:
        units = units or ((1024, 1024) if pyramid else (4096, 4096))
        ranks = dict(svd_ranks or {})
        if unknown := ranks.keys() - {f'fc{6 + i}' for i in range(len(units))}:
            raise UsageError(f'model.svd_ranks: the head has no layer {sorted(unknown)[0]!r}; it has fc6, fc7')
        module = DenseHead(tuple(units), dropout, tuple(sorted(ranks.items())), dtype_)
    return FastRCNN(network, stages, strides, settings, module, num_classes, class_agnostic, dtype_)


def _find_stages(network: Any, stride: int, head: str) -> tuple[tuple[str, ...], tuple[int, ...], int]:
    """Returns the stages to extract, their strides, and how many of them regions are pooled from."""
    if head == 'stage' and (not isinstance(network, ResNet) or network.cifar or stride * 2 != network.output_stride):
        raise UsageError(
            "model.head='stage' needs a backbone 'resnet.resnet50' or alike, and the stride of conv4_x, 16"
        )
    if isinstance(network, FeaturePyramid):
        made = {'subsample': 1, 'convolve': 2, None: 0}[network.top]
        levels = [level for level, _ in network.stages]
        levels += [levels[-1] + i for i in range(1, made + 1)]
        return tuple(f'p{k}' for k in levels), tuple(2**k for k in levels), len(levels) - made
    found = select_pyramid(trace_stages(network))
    if stride not in found:
        raise UsageError(f'model.stride={stride}: the backbone has stages of strides {", ".join(map(str, found))}')
    return (found[stride],), (stride,), 1


def fast_rcnn_vgg16(num_classes: Count = 21, width: Positive = 1.0, **arguments: Any) -> FastRCNN:
    """Builds the paper's model L on VGG-16's conv5_3.

    Args:
      num_classes: including the background.
      width: multiplies channels and units (not in the paper).
      **arguments: those of `fast_rcnn`.
    """
    # He's initialisation, for training from scratch; the paper starts from ImageNet's weights.
    backbone = {'name': 'vgg.vgg16', 'init': 'he', 'width': width, **arguments.pop('backbone', {})}
    units = (scale_channels(4096, width),) * 2
    network = call(fast_rcnn, dict(backbone=backbone, num_classes=num_classes, units=units) | arguments, 'model')
    return network.clone(backbone=network.backbone.clone(ceil_mode=True))  # Caffe's pooling


def fast_rcnn_alexnet(num_classes: Count = 21, width: Positive = 1.0, **arguments: Any) -> FastRCNN:
    """Builds Fast R-CNN on AlexNet's conv5, whose windows are padded so that place i lies at pixel 16 i.

    The paper's model S is on CaffeNet, which normalises after pooling instead of before. Arguments are those of
    `fast_rcnn_vgg16`.
    """
    backbone = dict(name='alexnet.alexnet', variant='caffe', init='he', centred=True, width=width)
    head = dict(pool_size=6, units=(scale_channels(4096, width),) * 2)
    backbone |= arguments.pop('backbone', {})
    network = call(fast_rcnn, dict(backbone=backbone, num_classes=num_classes) | head | arguments, 'model')
    return network.clone(backbone=network.backbone.clone(ceil_mode=True))


def truncate_svd(variables: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any]:
    """Factorises fully connected layers of the head, to classify many regions faster (section 3.1).

    A layer y = x W + b becomes y = (x V) U + b, where V = left singular vectors times the largest singular values of
    the kernel [in, out], and U = its right ones. With ranks of 1024 and 256 fc6 and fc7 of VGG-16 have 32.0 instead of
    119.5 million weights. A network with `svd_ranks=ranks` takes the new variables.

    Args:
      variables: {'params': {'head': {'fc6': {'kernel', 'bias'}, ...}, ...}, ...} of a Fast or Faster R-CNN.
      ranks: {'fc6': 1024, 'fc7': 256}, the number of singular values to keep by layer.

    Returns:
      New variables, with '<layer>_v' and '<layer>_u' in place of each layer; other arrays are the same objects.

    Raises:
      UsageError: the head has no such layer, or a rank exceeds that of its kernel.
    """
    params = dict(flatten_dict(variables['params'], sep='/'))
    for layer, rank in ranks.items():
        path = f'head/{layer}'
        if f'{path}/kernel' not in params:
            layers = [name.split('/')[1] for name in params if name.startswith('head/') and name.endswith('/kernel')]
            raise UsageError(f'the head has no layer {layer!r} to factorise{suggest(layer, layers)}')
        kernel = np.asarray(params.pop(f'{path}/kernel'))
        if not 1 <= rank <= min(kernel.shape):
            raise UsageError(f'the rank of {layer!r} must be 1 to {min(kernel.shape)}, not {rank}')
        left, values, right = np.linalg.svd(kernel.astype(np.float32), full_matrices=False)
        # The values go to the first factor, as in the paper, and the bias stays on the last one.
        params[f'{path}_v/kernel'] = (left[:, :rank] * values[:rank]).astype(kernel.dtype)
        params[f'{path}_u/kernel'] = right[:rank].astype(kernel.dtype)
        params[f'{path}_u/bias'] = params.pop(f'{path}/bias')
    return {**variables, 'params': unflatten_dict(params, sep='/')}


def fold_target_normalisation(variables: Mapping[str, Any], mean: Any, std: Any) -> dict[str, Any]:
    """Folds the normalisation of box targets into the layer that predicts them: offsets <- offsets * std + mean.

    Training on (targets - mean) / std balances the box loss with that of the classes. The authors store networks with
    the normalisation undone, so that they predict offsets of unit variances.

    Args:
      variables: of a Fast or Faster R-CNN.
      mean: of the targets, [4], or [classes, 4] of each class.
      std: of the targets, the same.

    Returns:
      New variables; arrays other than the kernel and bias of 'offsets' are the same objects.

    Raises:
      UsageError: the shapes do not fit the layer.
    """
    layer = variables['params']['offsets']
    boxes = layer['bias'].shape[0] // 4
    try:
        mean, std = (np.broadcast_to(np.asarray(x, np.float32), (boxes, 4)).ravel() for x in (mean, std))
    except ValueError:
        shapes = f'{np.shape(mean)} and {np.shape(std)}'
        raise UsageError(f'mean and std must be [4] or [{boxes}, 4], not {shapes}') from None
    folded = {'kernel': layer['kernel'] * std, 'bias': layer['bias'] * std + mean}
    return {**variables, 'params': {**variables['params'], 'offsets': folded}}
