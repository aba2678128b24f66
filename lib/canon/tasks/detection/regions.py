"""The tasks of detectors by regions: Fast R-CNN (Girshick 2015), RPN and Faster R-CNN (Ren et al. 2015).

A region proposal network scores anchors; a second stage classifies the best boxes of it, or those of another method,
and refines them. Both learn from samples of a fixed number of boxes, drawn from `At.key` in static shapes.

The model is a linen module whose parts are applied one after the other:

    extract(images, train) -> maps
    propose(maps, train) -> {'objectness': ([B, A_l], ...), 'offsets': ([B, A_l, 4], ...)}    by level
    classify(maps, boxes [B, R, 4], image_size, train) -> {'logits': [B, R, 1 + C], 'offsets': [B, R, 1 + C or 1, 4]}
    anchors(height, width) -> [[A_l, 4], ...]
    __call__(images, boxes, train), which initialises all of them

Class 0 of the logits is the background. Fast R-CNN needs neither `propose` nor `anchors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import named
from canon.errors import UsageError
from canon.losses import regions as region_losses
from canon.metrics import Mean
from canon.ops import boxes as box_ops
from canon.ops.anchors import find_inside
from canon.ops.proposals import propose
from canon.tasks.classification import apply_network
from canon.tasks.detection.single_shot import DetectionSettings, MakeInput, select_objects
from canon.train import Task

_LEAST_SIDE = 0.01  # pixels, of a detection: torchvision's
_ROUNDING = 1e-2  # pixels within which the edges of an image are those of pixels
_RECALLED = 0.5  # IoU from which a proposal covers an object, as detections do


@dataclass(frozen=True)
class RPNSettings:
    """config.rpn: what anchors learn, and which become proposals. Defaults are those of Ren et al. and their code.

    Attributes:
      foreground: IoU from which an anchor is positive; the best anchors of each object always are.
      background: IoU below which an anchor is negative; those in between are not learnt.
      per_image: anchors that are sampled per image.
      positive_fraction: of them at most; negatives fill up the rest.
      inside_only: leaves anchors that reach beyond the image, its padding included, out of training; torchvision takes
        all anchors of the padded canvas.
      beta: where the smooth L1 loss becomes linear, in offsets: 1 / sigma^2 with sigma = 3.
      localisation_weight: of the offsets' loss. The paper's lambda = 10 belongs to another normalisation.
      pre_nms: anchors per level that enter NMS in training.
      post_nms: proposals per image in training.
      test_pre_nms: as `pre_nms`, in evaluation.
      test_post_nms: as `post_nms`, in evaluation.
      iou_threshold: of NMS among proposals.
      min_size: least width and height of a proposal in pixels.
    """

    foreground: named.Probability = 0.7
    background: named.Probability = 0.3
    per_image: named.Count = 256
    positive_fraction: named.Probability = 0.5
    inside_only: bool = True
    beta: named.NonNegative = 1 / 9
    localisation_weight: named.NonNegative = 1.0
    pre_nms: named.Count = 12000
    post_nms: named.Count = 2000
    test_pre_nms: named.Count = 6000
    test_post_nms: named.Count = 300
    iou_threshold: named.Probability = 0.7
    min_size: named.NonNegative = 16.0

    def propose(self, outputs: Mapping[str, Any], anchors: Any, batch: Mapping[str, Any], train: bool) -> tuple:
        """Returns the proposals (boxes [B, P, 4], scores [B, P], valid [B, P]) of a network's outputs for a batch."""
        counts = (self.pre_nms, self.post_nms) if train else (self.test_pre_nms, self.test_post_nms)
        levels, size = (outputs['objectness'], outputs['offsets'], anchors), batch['image'].shape[1:3]
        options: dict[str, Any] = dict(iou_threshold=self.iou_threshold, min_size=self.min_size)
        return propose(*levels, size, *counts, **options, extents=find_extents(batch))

    def assign(self, key: jax.Array, anchors: np.ndarray, batch: Mapping[str, Any], objects: jax.Array):
        """Returns the `RegionSamples` of anchors [A, 4] that are learnt from."""
        allowed = jnp.ones(len(anchors), bool)
        if self.inside_only:
            inside = find_inside(anchors, find_extents(batch))
            allowed = inside | ~inside.any(1, keepdims=True)  # an image smaller than all anchors has something to learn
        return region_losses.assign_anchors(
            jax.random.split(key, batch['boxes'].shape[0]),
            jnp.asarray(anchors),
            batch['boxes'],
            objects,
            batch['mask'],
            allowed,
            count=self.per_image,
            positive_fraction=self.positive_fraction,
            foreground=self.foreground,
            background=self.background,
        )


@dataclass(frozen=True)
class RegionSettings:
    """config.regions: what the second stage learns from proposals. Defaults are those of Ren et al. and their code.

    Attributes:
      foreground: IoU from which a proposal is positive.
      background: IoU below which a proposal is negative.
      background_low: IoU from which a proposal is negative: 0.1 in Fast R-CNN, 0 in Faster R-CNN.
      per_image: proposals that are sampled per image: 64 of each of two in Fast R-CNN, 128 of one in Faster R-CNN, 512
        in FPN.
      positive_fraction: of them at most; negatives fill up the rest.
      add_objects: puts the objects' own boxes among the proposals, so that there are positives from the first step on.
      variances: that targets are divided by: standard deviations of the offsets in VOC.
      beta: where the smooth L1 loss becomes linear, in normalised offsets.
      localisation_weight: lambda of Girshick 2015, eq. 1; 0 learns to classify alone.
    """

    foreground: named.Probability = 0.5
    background: named.Probability = 0.5
    background_low: named.Probability = 0.0
    per_image: named.Count = 128
    positive_fraction: named.Probability = 0.25
    add_objects: bool = True
    variances: tuple[named.Positive, named.Positive, named.Positive, named.Positive] = box_ops.VARIANCES
    beta: named.NonNegative = 1.0
    localisation_weight: named.NonNegative = 1.0

    def assign(self, key: jax.Array, proposals: jax.Array, valid: jax.Array, batch: Mapping, objects: jax.Array):
        """Returns the `RegionSamples` of proposals [B, P, 4] that are learnt from."""
        return region_losses.assign_regions(
            jax.random.split(key, proposals.shape[0]),
            proposals,
            valid,
            batch['boxes'],
            batch['labels'],
            objects,
            batch['mask'],
            add_objects=self.add_objects,
            count=self.per_image,
            positive_fraction=self.positive_fraction,
            foreground=self.foreground,
            background=self.background,
            background_low=self.background_low,
            variances=self.variances,
        )

    def decode(self, outputs: Mapping[str, Any], proposals: jax.Array, valid: jax.Array, batch: Mapping[str, Any]):
        """Returns boxes [B, R, C, 4] in pixels, or [B, R, 4] if all classes share them, and scores [B, R, C]."""
        # In float32 whatever the network computes in: half precision has too few digits for coordinates in pixels.
        logits, offsets = (outputs[name].astype(jnp.float32) for name in ('logits', 'offsets'))
        offsets = offsets[:, :, 1:] if offsets.shape[2] > 1 else offsets  # the background has no box
        boxes = box_ops.decode_offsets(offsets, proposals[:, :, None], self.variances)
        boxes = box_ops.clip_to_extents(boxes, find_extents(batch)[:, None, None])
        large = (boxes[..., 2:] - boxes[..., :2] >= _LEAST_SIDE).all(-1)
        scores = jnp.where(valid[..., None] & large, jax.nn.softmax(logits)[..., 1:], 0)  # 0 is never a detection
        return boxes[:, :, 0] if boxes.shape[2] == 1 else boxes, scores


def rpn_task(
    model: Any,
    make_input: MakeInput,
    rpn: RPNSettings = RPNSettings(),
    freeze_features: bool = False,
    use_difficult: bool = False,
) -> Task:
    """Makes the task of a region proposal network alone (Ren et al. 2015, section 3.1).

    Predictions are its proposals as detections of class 0, scored by the sigmoid of the objectness.

    Args:
      model: see the module. Its `classify` gets no gradient.
      make_input: the network's input from a batch, such as `make_image_input()`.
      rpn: of learning and of the proposals.
      freeze_features: leaves what `extract` computes as it is, statistics included: step 3 of the alternating training.
      use_difficult: whether objects that are marked as difficult are learnt.
    """

    def loss(params, mutable, batch, at):
        objects, size = select_objects(batch, use_difficult), batch['image'].shape[1:3]
        anchors = model.anchors(*size)

        def forward(module, images):
            return module.propose(_extract(module, images, freeze_features), train=True)

        outputs, changed = _apply_training(model, forward, params, mutable, make_input(batch), at.key)
        parts = _rpn_loss(outputs, rpn.assign(_fold(at.key, 1), np.concatenate(anchors), batch, objects), rpn)
        proposals, _, valid = rpn.propose(outputs, anchors, batch, train=True)
        metrics = {**_name_parts('rpn', parts), 'recall': _measure_recall(proposals, valid, batch, objects)}
        return _per_image(batch, (parts, rpn.localisation_weight)), (changed, metrics)

    def predict(params, mutable, batch):
        def forward(module, images):
            return module.propose(module.extract(images, train=False), train=False)

        outputs = _apply(model, forward, params, mutable, make_input({'image': batch['image']}))
        boxes, scores, valid = rpn.propose(outputs, model.anchors(*batch['image'].shape[1:3]), batch, train=False)
        return {'boxes': boxes, 'scores': scores, 'labels': jnp.zeros(scores.shape, jnp.int32), 'valid': valid}

    return Task(_make_init(model, make_input), loss, predict)


def fast_rcnn_task(
    model: Any,
    make_input: MakeInput,
    settings: DetectionSettings = DetectionSettings(score_threshold=0.05, iou_threshold=0.3, max_detections=100),
    regions: RegionSettings = RegionSettings(background_low=0.1, per_image=64),
    freeze_features: bool = False,
    use_difficult: bool = False,
) -> Task:
    """Makes the task of Fast R-CNN: the proposals of a batch learn their class and the offsets of their box.

    Batches have 'proposals' float32 [B, P, 4] in pixels and 'proposals_valid' bool [B, P]. The loss is per sampled
    proposal, those of all images together.

    Args:
      model: see the module.
      make_input: the network's input from a batch, such as `make_image_input()`.
      settings: of the detections.
      regions: what is learnt.
      freeze_features: leaves what `extract` computes as it is, statistics included.
      use_difficult: whether objects that are marked as difficult are learnt.
    """

    def loss(params, mutable, batch, at):
        objects, size = select_objects(batch, use_difficult), batch['image'].shape[1:3]
        proposals, valid = _read_proposals(batch)
        samples = regions.assign(_fold(at.key, 2), proposals, valid, batch, objects)

        def forward(module, images):
            return module.classify(_extract(module, images, freeze_features), samples.boxes, size, train=True)

        outputs, changed = _apply_training(model, forward, params, mutable, make_input(batch), at.key)
        parts = region_losses.region_loss(outputs['logits'], outputs['offsets'], samples, regions.beta)
        metrics = {**_name_parts('region', parts), 'recall': _measure_recall(proposals, valid, batch, objects)}
        total = parts.classification + regions.localisation_weight * parts.localisation
        return Mean(total, parts.samples), (changed, metrics)

    def predict(params, mutable, batch):
        size = batch['image'].shape[1:3]
        proposals, valid = _read_proposals(batch)

        def forward(module, images):
            return module.classify(module.extract(images, train=False), proposals, size, train=False)

        outputs = _apply(model, forward, params, mutable, make_input({'image': batch['image']}))
        return settings.select(*regions.decode(outputs, proposals, valid, batch))

    return Task(_make_init(model, make_input), loss, predict)


def faster_rcnn_task(
    model: Any,
    make_input: MakeInput,
    settings: DetectionSettings = DetectionSettings(score_threshold=0.05, iou_threshold=0.5, max_detections=100),
    rpn: RPNSettings = RPNSettings(),
    regions: RegionSettings = RegionSettings(),
    rpn_weight: named.NonNegative = 1.0,
    freeze_features: bool = False,
    use_difficult: bool = False,
) -> Task:
    """Makes the task of Faster R-CNN by approximate joint training (Ren et al. 2015, section 3.2).

    Both stages share the features and learn together; no gradient flows through the coordinates of the proposals. The
    losses of both are divided by their number of samples in each image, and averaged over the images: as in the
    authors' code, which has one image per batch, and in torchvision if every image has as many samples as it may.

    Args:
      model: see the module.
      make_input: the network's input from a batch, such as `make_image_input()`.
      settings: of the detections.
      rpn: of the proposals.
      regions: of the second stage.
      rpn_weight: of the proposals' loss; 0 trains the second stage on the proposals of a finished network.
      freeze_features: leaves what `extract` computes as it is, statistics included: step 4 of the alternating training.
      use_difficult: whether objects that are marked as difficult are learnt.
    """

    def loss(params, mutable, batch, at):
        objects, size = select_objects(batch, use_difficult), batch['image'].shape[1:3]
        anchors = model.anchors(*size)

        def forward(module, images):
            maps = _extract(module, images, freeze_features)
            outputs = module.propose(maps, train=rpn_weight > 0)
            proposals, _, valid = rpn.propose(outputs, anchors, batch, train=True)
            samples = regions.assign(_fold(at.key, 2), proposals, valid, batch, objects)
            return outputs, proposals, valid, samples, module.classify(maps, samples.boxes, size, train=True)

        made, changed = _apply_training(model, forward, params, mutable, make_input(batch), at.key)
        outputs, proposals, valid, samples, classified = made
        first = _rpn_loss(outputs, rpn.assign(_fold(at.key, 1), np.concatenate(anchors), batch, objects), rpn)
        second = _split_images(
            lambda *parts: region_losses.region_loss(*parts, beta=regions.beta),
            (classified['logits'], classified['offsets'], samples),
        )
        metrics = {
            **_name_parts('rpn', first),
            **_name_parts('region', second),
            'recall': _measure_recall(proposals, valid, batch, objects),
        }
        weights = rpn.localisation_weight, regions.localisation_weight
        first = jax.tree.map(lambda x: rpn_weight * x, first)._replace(samples=first.samples)
        return _per_image(batch, (first, weights[0]), (second, weights[1])), (changed, metrics)

    def predict(params, mutable, batch):
        size = batch['image'].shape[1:3]

        def forward(module, images):
            maps = module.extract(images, train=False)
            outputs = module.propose(maps, train=False)
            proposals, _, valid = rpn.propose(outputs, module.anchors(*size), batch, train=False)
            return module.classify(maps, proposals, size, train=False), proposals, valid

        outputs = _apply(model, forward, params, mutable, make_input({'image': batch['image']}))
        return settings.select(*regions.decode(*outputs, batch))

    return Task(_make_init(model, make_input), loss, predict)


def find_extents(batch: Mapping[str, Any]) -> jax.Array:
    """Finds where the images of a batch lie on their canvas, float32 [B, 4]: what is around them is padding.

    From 'placement' and 'original_size'; the whole canvas without them, and where an image was mirrored or turned after
    it had been placed (a placement of NaN).
    """
    rows, (height, width) = batch['image'].shape[0], batch['image'].shape[1:3]
    canvas = jnp.broadcast_to(jnp.array((0, 0, width, height), jnp.float32), (rows, 4))
    if 'placement' not in batch or 'original_size' not in batch:
        return canvas
    low = batch['placement'][:, 2:]
    high = low + batch['placement'][:, :2] * batch['original_size'][:, ::-1]
    extents = box_ops.clip_to_extents(jnp.concatenate([low, high], -1), canvas)
    # A scale is rounded to float32; an anchor that ends with the image must not end beyond it.
    whole = jnp.round(extents)
    extents = jnp.where(jnp.abs(extents - whole) < _ROUNDING, whole, extents)
    return jnp.where(jnp.isfinite(extents).all(-1, keepdims=True), extents, canvas)


def _make_init(model: Any, make_input: MakeInput) -> Callable:
    def init(key, batch):
        # One image and one box: the shapes of parameters depend on neither number.
        images = make_input({'image': batch['image'][:1]})
        return model.init(key, images, jnp.array([[[0.0, 0.0, 1.0, 1.0]]]), train=False)

    return init


def _extract(module: Any, images: jax.Array, freeze: bool) -> Any:
    """Computes the shared features in training; without a gradient and new statistics if they are frozen."""
    maps = module.extract(images, train=not freeze)
    return jax.lax.stop_gradient(maps) if freeze else maps


def _apply(model: Any, forward: Callable, params: Any, mutable: Any, images: jax.Array) -> Any:
    return apply_network(model, {'params': params, **mutable}, images, method=forward)


def _apply_training(
    model: Any, forward: Callable, params: Any, mutable: Any, images: jax.Array, key: jax.Array
) -> tuple[Any, dict[str, Any]]:
    """Applies forward(module, images) in training: (its result, the mutable after it)."""
    options: dict[str, Any] = dict(method=forward, rngs={'dropout': key}, mutable=[*mutable])
    outputs, changed = apply_network(model, {'params': params, **mutable}, images, **options)
    return outputs, dict(changed)


def _fold(key: jax.Array, number: int) -> jax.Array:
    """Returns a key of its own for each draw of a step: 0 would be the key of dropout, were it folded."""
    return jax.random.fold_in(key, number)


def _rpn_loss(outputs: Mapping[str, Any], samples: Any, rpn: RPNSettings) -> region_losses.RegionLoss:
    """Computes the sums of each image, fields [B]."""
    scored = (jnp.concatenate(outputs[name], 1) for name in ('objectness', 'offsets'))
    return _split_images(lambda *parts: region_losses.rpn_loss(*parts, beta=rpn.beta), (*scored, samples))


def _split_images(loss: Callable, arguments: tuple) -> region_losses.RegionLoss:
    """Computes a loss for each image by itself: fields [B] in place of scalars."""
    return jax.vmap(lambda parts: loss(*jax.tree.map(lambda x: x[None], parts)))(arguments)


def _per_image(batch: Mapping[str, Any], *losses: tuple[region_losses.RegionLoss, float]) -> Mean:
    """Sums losses over images, each divided by its samples in the image; the weight is the number of images.

    The two stages have different numbers of samples, so no single weight could divide both by the samples of a batch
    and still add over microbatches and devices.
    """
    total = sum(
        ((parts.classification + weight * parts.localisation) / jnp.maximum(parts.samples, 1)).sum()
        for parts, weight in losses
    )
    return Mean(total, batch['mask'].sum(dtype=jnp.float32))


def _name_parts(stage: str, parts: region_losses.RegionLoss) -> dict[str, Mean]:
    """Returns the metrics of training: both losses per sample, and the share of positives among the samples."""
    sums = jax.tree.map(jnp.sum, parts)
    return {
        f'{stage}_classification': Mean(sums.classification, sums.samples),
        f'{stage}_localisation': Mean(sums.localisation, sums.samples),
        f'{stage}_foreground': Mean(sums.positives, sums.samples),
    }


def _measure_recall(proposals: jax.Array, valid: jax.Array, batch: Mapping[str, Any], objects: jax.Array) -> Mean:
    """Measures the share of objects that a proposal covers with an IoU of at least 0.5."""
    iou = jnp.where(valid[..., None], box_ops.pairwise_iou(proposals, batch['boxes']), 0)  # [B, P, M]
    return Mean.of(iou.max(1, initial=0) >= _RECALLED, objects & batch['mask'][:, None])


def _read_proposals(batch: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    if 'proposals' not in batch:
        raise UsageError(
            "Fast R-CNN reads the proposals of a batch, 'proposals' [B, P, 4] and 'proposals_valid' [B, P], which this "
            'one lacks; add a source of them (data.proposals), or take Faster R-CNN, which makes its own'
        )
    return batch['proposals'].astype(jnp.float32), batch['proposals_valid']
