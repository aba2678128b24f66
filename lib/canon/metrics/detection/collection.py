"""Collects detections and objects batch by batch, and joins them into flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon.errors import UsageError
from canon.metrics.rows import Rows

_ROUNDING = 2e-4  # pixels within which the coordinates of objects are taken for hundredths


def collect_detections(detections: Mapping[str, Any], batch: Mapping[str, Any]) -> Rows:
    """Collects the detections and the objects of a batch, in pixels of the original images, as `Rows` that add.

    Works on arrays of JAX, also under jit, and of NumPy.

    Args:
      detections: 'boxes' float [B, D, 4] in pixels of the batch's images, 'scores' [B, D], 'labels' int [B, D] and
        'valid' bool [B, D]. Boxes are clipped to the original image if the batch has 'original_size' and 'placement'.
      batch: 'boxes' [B, M, 4], 'labels' [B, M] and 'valid' [B, M]; optional are 'difficult' and 'crowd' [B, M], 'area'
        [B, M] (COCO's area of the object's segmentation in original pixels; without it, of the box), 'image_id' [B],
        'placement' [B, 4] (scale_x, scale_y, shift_x, shift_y from original to batch pixels), 'original_size' [B, 2]
        (height, width) and 'mask' [B], false for rows of padding.

    Raises:
      UsageError: a field is missing, or boxes are not [B, D, 4].
    """
    for what, fields, names in (('detections', detections, ('scores',)), ('batch', batch, ())):
        if missing := [name for name in ('boxes', 'labels', 'valid', *names) if name not in fields]:
            raise UsageError(f'collect_detections: the {what} have no {missing[0]!r}, only {sorted(fields)}')
        if fields['boxes'].ndim != 3 or fields['boxes'].shape[-1] != 4:
            raise UsageError(f'collect_detections: boxes of the {what} are {fields["boxes"].shape}, not [B, N, 4]')
    # Stored detections stay NumPy's: they need neither a device nor a compilation for each shape of batch.
    xp = jnp if isinstance(detections['boxes'], jax.Array) or isinstance(batch['boxes'], jax.Array) else np
    rows = len(batch['boxes'])
    no_flags = xp.zeros(batch['valid'].shape, bool)
    boxes = _to_original(detections['boxes'], batch)
    if 'original_size' in batch and 'placement' in batch:  # else the canvas may be larger than the original
        limits = batch['original_size'][:, [1, 0, 1, 0]][:, None].astype(boxes.dtype)
        boxes = xp.clip(boxes, 0, limits)
    predicted = {'boxes': boxes, **{name: detections[name] for name in ('scores', 'labels', 'valid')}}
    truth = {
        'boxes': _to_original(batch['boxes'], batch),
        'labels': batch['labels'],
        'valid': batch['valid'],
        'difficult': batch.get('difficult', no_flags),
        'crowd': batch.get('crowd', no_flags),
    }
    if 'area' in batch:
        truth['area'] = batch['area']
    image_id = batch.get('image_id', xp.zeros(rows, xp.int32))
    mask = batch.get('mask', xp.ones(rows, bool))
    return Rows.of({'detections': predicted, 'truth': truth, 'image_id': image_id}, mask)


def _to_original(boxes, batch):
    """Maps boxes [B, N, 4] from pixels of the batch to pixels of the original images."""
    if 'placement' not in batch:
        return boxes
    placement = batch['placement'][:, None]
    return (boxes - placement[..., [2, 3, 2, 3]]) / placement[..., [0, 1, 0, 1]]


class DetectionTable(NamedTuple):
    """Detections and objects of all images in flat arrays, ordered by image.

    Attributes:
      image: of each detection, [P]; the position of its image in `image_ids`.
      boxes: of the detections, [P, 4].
      scores: [P].
      labels: [P].
      object_image: the image of each object, [Q].
      object_boxes: [Q, 4].
      object_labels: [Q].
      object_areas: in pixels^2, [Q].
      difficult: bool [Q].
      crowd: bool [Q].
      image_ids: [N], ascending.
    """

    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    object_image: np.ndarray
    object_boxes: np.ndarray
    object_labels: np.ndarray
    object_areas: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    image_ids: np.ndarray


def flatten_rows(rows: Rows) -> DetectionTable:
    """Joins all batches without their padding, with the images in the order of their ids.

    Raises:
      UsageError: boxes of objects are not finite, since a random transform has moved them.
    """
    ids = [np.asarray(values['image_id'])[np.asarray(mask, bool)] for values, mask in rows.parts]
    ids = np.concatenate(ids).astype(np.int64) if ids else np.zeros(0, np.int64)
    # By id, so that the order of detections with equal scores does not depend on batches and processes.
    order = np.argsort(ids, kind='stable')
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    for values, mask in rows.parts:
        mask = np.asarray(mask, bool)
        here = position[start : start + mask.sum()]
        start += len(here)
        for prefix, fields in (('', values['detections']), ('object_', values['truth'])):
            valid = np.asarray(fields['valid'], bool)[mask]
            columns.setdefault(f'{prefix}image', []).append(here[np.nonzero(valid)[0]])
            for name in set(fields) - {'valid'}:
                columns.setdefault(prefix + name, []).append(np.asarray(fields[name])[mask][valid])

    def join(name, kind, width=()):
        return np.concatenate([np.zeros((0, *width), kind), *columns.get(name, ())]).astype(kind)

    image, object_image = join('image', np.int64), join('object_image', np.int64)
    by_image, objects_by_image = np.argsort(image, kind='stable'), np.argsort(object_image, kind='stable')
    # Annotations are whole pixels or hundredths, and come back from float32 on the canvas with an error of up to 1e-4
    # pixels, which would move objects across thresholds of area and overlap. Other numbers stay as they are.
    object_boxes = join('object_boxes', np.float64, (4,))
    if not np.isfinite(object_boxes).all():
        raise UsageError(
            'boxes of objects have no place in the original images: a transform of the evaluation mirrors, turns or '
            'crops at random; remove it from the transforms of data.evals'
        )
    hundredths = np.round(object_boxes, 2)
    object_boxes = np.where(np.abs(hundredths - object_boxes) < _ROUNDING, hundredths, object_boxes)
    areas = join('object_area', np.float64) if 'object_area' in columns else compute_areas(object_boxes)
    return DetectionTable(
        image[by_image],
        join('boxes', np.float64, (4,))[by_image],
        join('scores', np.float64)[by_image],
        join('labels', np.int64)[by_image],
        object_image[objects_by_image],
        object_boxes[objects_by_image],
        join('object_labels', np.int64)[objects_by_image],
        areas[objects_by_image],
        join('object_difficult', bool)[objects_by_image],
        join('object_crowd', bool)[objects_by_image],
        ids[order],
    )


def compute_areas(boxes: np.ndarray) -> np.ndarray:
    """Computes the areas [N] of boxes [N, 4]; 0 for a box without area."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def check_class_range(num_classes: int, *labels: np.ndarray) -> None:
    """Raises UsageError unless all labels are in 0 .. num_classes - 1."""
    for values in labels:
        if len(values) and not 0 <= values.min() <= values.max() < num_classes:
            raise UsageError(f'labels are {values.min()}..{values.max()}, expected 0..{num_classes - 1}')
