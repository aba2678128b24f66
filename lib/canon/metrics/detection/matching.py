"""Matches detections with the objects that they overlap most, as Pascal VOC and error analyses do."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canon.metrics.detection.collection import compute_areas, flatten_rows
from canon.metrics.rows import Rows


class Matches(NamedTuple):
    """All detections of a set in order of falling score, each with the objects that it overlaps most.

    Attributes:
      image: of each detection, [P]; the position of its image in `image_ids`.
      labels: of the detections, [P].
      scores: [P].
      areas: of the detections' boxes, [P].
      target: the object of its class with the largest overlap, [P]; -1 if the image has none of this class.
      iou: its overlap with `target`, [P]; 0 without one.
      other: the object of another class with the largest overlap, [P]; -1 if there is none.
      other_iou: its overlap with `other`, [P].
      object_image: the image of each object, [Q].
      object_labels: [Q].
      object_areas: [Q].
      ignored: bool [Q], difficult and crowd objects, which count neither for nor against a detector.
      image_ids: [N], ascending.
    """

    image: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    target: np.ndarray
    iou: np.ndarray
    other: np.ndarray
    other_iou: np.ndarray
    object_image: np.ndarray
    object_labels: np.ndarray
    object_areas: np.ndarray
    ignored: np.ndarray
    image_ids: np.ndarray


def match_detections(rows: Rows) -> Matches:
    """Finds for each detection the objects of its image, of its class and of the others, that it overlaps most.

    Of several objects with the same overlap the first counts, as in VOC's development kit. Detections of equal score
    are in the order of their images' ids, then of their rank within the image.
    """
    table = flatten_rows(rows)
    count = len(table.scores)
    target, other = np.full(count, -1), np.full(count, -1)
    iou, other_iou = np.zeros(count), np.zeros(count)
    images = np.arange(len(table.image_ids) + 1)
    starts, object_starts = np.searchsorted(table.image, images), np.searchsorted(table.object_image, images)
    for i in range(len(table.image_ids)):
        part, objects = slice(starts[i], starts[i + 1]), slice(object_starts[i], object_starts[i + 1])
        if part.start == part.stop or objects.start == objects.stop:
            continue
        overlaps = compute_overlaps(table.boxes[part], table.object_boxes[objects])
        same = table.labels[part, None] == table.object_labels[objects]
        for considered, indices, values in ((same, target, iou), (~same, other, other_iou)):
            # -1 and not 0 for the others: an object of the class without overlap still is its target.
            masked = np.where(considered, overlaps, -1)
            best = masked.argmax(1)
            values[part] = np.maximum(masked[np.arange(len(best)), best], 0)
            indices[part] = np.where(considered.any(1), best + objects.start, -1)
    order = np.argsort(-table.scores, kind='stable')
    areas = compute_areas(table.boxes)
    return Matches(
        *(x[order] for x in (table.image, table.labels, table.scores, areas, target, iou, other, other_iou)),
        *(table.object_image, table.object_labels, table.object_areas, table.difficult | table.crowd, table.image_ids),
    )


def mark_right(matches: Matches, iou_threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns which detections [P] are right, and which are considered: not matched to an ignored object."""
    # A target of -1 reads the last entry; its overlap is 0, so that it decides nothing.
    hits = (matches.iou >= iou_threshold) & (matches.target >= 0)
    ignored = np.append(matches.ignored, False)[matches.target] & hits
    hits &= ~ignored
    # The object is chosen before it is known whether it is taken, as in VOC's development kit: a second detection of it
    # is wrong even if it overlaps another object enough, which COCO would give it. So the first of each object in order
    # of falling score is right.
    first = np.flatnonzero(hits)[np.unique(matches.target[hits], return_index=True)[1]]
    right = np.zeros(len(hits), bool)
    right[first] = True
    return right, ~ignored


def compute_overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Computes overlaps [N, M] in float64; boxes without area overlap nothing."""
    sides = np.maximum(np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]), 0)
    intersection = sides[..., 0] * sides[..., 1]  # a product of two columns, ten times as fast as np.prod over an axis
    union = compute_areas(a)[:, None] + compute_areas(b) - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
