"""The tasks of detectors that see an image once: SSD (Liu et al. 2016) and YOLO (Redmon et al. 2016).

Both networks score every box of a fixed set; what differs is which box learns which object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from canon import losses, named
from canon.errors import UsageError
from canon.metrics import Mean
from canon.models import yolo
from canon.ops import boxes as box_ops
from canon.ops.nms import multiclass_nms
from canon.tasks.classification import apply_in_training, apply_network, init_network
from canon.train import Task

MakeInput = Callable[[Mapping[str, Any]], jax.Array]


@dataclass(frozen=True)
class DetectionSettings:
    """Settings that select detections among the scored boxes; the defaults are SSD's (section 3.1).

    Attributes:
      score_threshold: lower scores are not detections. A low value costs time, not average precision.
      iou_threshold: of non-maximum suppression within a class.
      per_class: boxes per class that enter it, the highest scores first.
      max_detections: D, detections per image.
    """

    score_threshold: named.Probability = 0.01
    iou_threshold: named.Probability = 0.45
    per_class: named.Count = 400
    max_detections: named.Count = 200

    def select(self, boxes: jax.Array, scores: jax.Array) -> dict[str, jax.Array]:
        """Selects the detections of boxes [B, A, 4], or [B, A, C, 4] by class, with scores [B, A, C]: [B, D, ...]."""
        arguments = (self.score_threshold, self.iou_threshold, self.per_class, self.max_detections)
        # NMS is of one image: boxes of different images do not suppress each other.
        return jax.vmap(lambda b, s: multiclass_nms(b, s, *arguments))(boxes, scores)


def ssd_task(
    model: Any,
    make_input: MakeInput,
    settings: DetectionSettings = DetectionSettings(),
    threshold: named.Probability = 0.5,
    negative_ratio: named.Positive | None = 3.0,
    min_negatives: int = 0,
    localisation_weight: named.NonNegative = 1.0,
    use_difficult: bool = True,
) -> Task:
    """Makes the task of SSD: every prior learns its class, the matched ones their object's box (MultiBox loss).

    Objects that are crowds are left out of training. An image without objects has no loss, unless `min_negatives`.

    Args:
      model: a linen module from images to {'offsets': [B, A, 4], 'logits': [B, A, 1 + classes]}, with a method
        `priors(height, width)` that gives corner boxes [A, 4].
      make_input: the network's input from a batch, such as `make_image_input()`.
      settings: of the detections.
      threshold: IoU above which a prior is matched to an object.
      negative_ratio: negatives per positive, of the highest loss ("hard negative mining"); None takes all negatives.
      min_negatives: negatives per image at least, so that images without objects are learnt from.
      localisation_weight: alpha of equation 1.
      use_difficult: whether objects that are marked as difficult are learnt (the authors' choice for VOC).
    """
    # A config has no infinity.
    ratio = float('inf') if negative_ratio is None else negative_ratio

    def loss(params, mutable, batch, at):
        outputs, _, changed = apply_in_training(model, make_input, params, mutable, batch, at.key)
        size = batch['image'].shape[1:3]
        parts = losses.multibox_loss(
            outputs['offsets'],
            outputs['logits'],
            model.priors(*size),
            batch['boxes'],
            batch['labels'],
            select_objects(batch, use_difficult),
            batch['mask'],
            threshold=threshold,
            negative_ratio=ratio,
            min_negatives=min_negatives,
        )
        # A `Mean` is a sum and its weight, which add over devices: N of equation 1 counts the matches of
        # the whole batch, as the reference does.
        count, images = parts.positives, batch['mask'].sum(dtype=jnp.float32)
        metrics = {
            'localisation': Mean(parts.localisation, count),
            'confidence': Mean(parts.confidence, count),
            'positives': Mean(count, images),
        }
        total = parts.confidence + localisation_weight * parts.localisation
        return Mean(total, count), (changed, metrics)

    def predict(params, mutable, batch):
        variables = {'params': params, **mutable}
        outputs = apply_network(model, variables, make_input({'image': batch['image']}), train=False)
        # In float32 whatever the network computes in: half precision has too few digits for coordinates in pixels.
        offsets, logits = (outputs[name].astype(jnp.float32) for name in ('offsets', 'logits'))
        size = batch['image'].shape[1:3]
        priors = model.priors(*size)
        if len(priors) != offsets.shape[1]:
            raise UsageError(
                f'the model has {len(priors)} priors for images of {size[0]}x{size[1]}, but scores {offsets.shape[1]}'
            )
        boxes = box_ops.clip(box_ops.decode_offsets(offsets, priors), size)
        # Without class 0, the background, which is no detection: labels begin at 0 from here on.
        return settings.select(boxes, jax.nn.softmax(logits)[..., 1:])

    return Task(partial(init_network, model, make_input), loss, predict)


def yolo_task(
    model: Any,
    make_input: MakeInput,
    settings: DetectionSettings = DetectionSettings(score_threshold=0.001, iou_threshold=0.5),
    coord: named.NonNegative = 5.0,
    noobj: named.NonNegative = 0.5,
    rescore: bool = True,
    use_difficult: bool = False,
) -> Task:
    """Makes the task of YOLO: the cell that holds the centre of an object learns its box, its class and its confidence.

    The score of a detection is the class score times the confidence (section 2, eq. 1). Objects that are crowds are
    left out of training, as are difficult ones by default, as in darknet. The loss is per image.

    Args:
      model: a linen module from images to its outputs, with a method `split_output` that gives
        {'class_scores': [B, S, S, C], 'confidence': [B, S, S, N], 'boxes': [B, S, S, N, 4]}.
      make_input: the network's input from a batch, such as `make_image_input()`.
      settings: of the detections.
      coord: weight of the coordinates.
      noobj: weight of the confidences of predictors without an object.
      rescore: whether a confidence learns the IoU; 1 if not.
      use_difficult: whether objects that are marked as difficult are learnt.
    """

    def loss(params, mutable, batch, at):
        outputs, _, changed = apply_in_training(model, make_input, params, mutable, batch, at.key)
        outputs = model.split_output(outputs)
        parts = losses.yolo_loss(
            outputs['class_scores'],
            outputs['confidence'],
            outputs['boxes'],
            batch['boxes'],
            batch['labels'],
            select_objects(batch, use_difficult),
            batch['image'].shape[1:3],
            batch['mask'],
            coord=coord,
            noobj=noobj,
            rescore=rescore,
        )
        names = ('coordinates', 'confidence', 'background', 'classes')
        metrics = {name: Mean(getattr(parts, name), parts.images) for name in names}
        metrics |= {'iou': Mean(parts.iou, parts.objects)}
        return Mean(sum(getattr(parts, name) for name in names), parts.images), (changed, metrics)

    def predict(params, mutable, batch):
        variables = {'params': params, **mutable}
        outputs = apply_network(model, variables, make_input({'image': batch['image']}), train=False)
        outputs = {name: x.astype(jnp.float32) for name, x in model.split_output(outputs).items()}
        size = batch['image'].shape[1:3]
        # YOLO predicts the roots of width and height; a box may reach beyond the image.
        boxes = box_ops.clip(yolo.decode_boxes(outputs['boxes'], size), size)
        # Pr(class | object) of the cell times the confidence of each of its predictors.
        scores = outputs['class_scores'][..., None, :] * outputs['confidence'][..., None]
        # Both are outputs of a linear layer, which may leave 0..1; a reader of detections expects probabilities.
        scores = jnp.clip(scores, 0, 1)
        rows, count = boxes.shape[0], scores.shape[-1]  # the number of images is symbolic in an export
        return settings.select(boxes.reshape(rows, -1, 4), scores.reshape(rows, -1, count))

    return Task(partial(init_network, model, make_input), loss, predict)


def select_objects(batch: Mapping[str, Any], use_difficult: bool) -> jax.Array:
    """Returns which objects are learnt, bool [B, M]."""
    # A crowd's box covers many objects: it would be a wrong target. Its priors count as background.
    valid = batch['valid'] & ~batch['crowd']
    return valid if use_difficult else valid & ~batch['difficult']
