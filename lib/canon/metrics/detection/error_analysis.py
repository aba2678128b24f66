"""Analyses the errors of a detector by kind, by class and by size of object."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canon.errors import UsageError
from canon.metrics.detection.collection import check_class_range
from canon.metrics.detection.matching import Matches, mark_right, match_detections
from canon.metrics.detection.sizes import COCO_SIZES, check_sizes
from canon.metrics.rows import Rows

ERROR_KINDS = ('right', 'badly located', 'confused', 'duplicate', 'background', 'missed')
_RIGHT, _BADLY_LOCATED, _CONFUSED, _DUPLICATE, _BACKGROUND, _MISSED = range(len(ERROR_KINDS))


class ErrorAnalysis(NamedTuple):
    """Counts of the detections of a set by kind of error, and the overlaps of the right ones.

    Attributes:
      counts: int [C, 3, 6] by class, by size (small, medium, large) and by kind (`ERROR_KINDS`). The class is that of
        the detection, or of the object for 'missed'. The size is that of the object concerned, or of the detection for
        'background'.
      image_counts: int [N, 6] by image and by kind.
      image_ids: of those images, [N].
      iou_sums: [C, 3], sums of the overlaps of the right detections.
    """

    counts: np.ndarray
    image_counts: np.ndarray
    image_ids: np.ndarray
    iou_sums: np.ndarray

    @property
    def mean_iou(self) -> float:
        """The mean overlap of right detections with their objects; NaN without a right one."""
        right = self.counts[..., _RIGHT].sum()
        return float(self.iou_sums.sum() / right) if right else float('nan')

    @property
    def size_iou(self) -> np.ndarray:
        """`mean_iou` of small, medium and large objects, [3]."""
        with np.errstate(invalid='ignore'):
            return self.iou_sums.sum(0) / self.counts[..., _RIGHT].sum(0)


def analyse_errors(
    rows: Rows | Matches,
    num_classes: int,
    sizes: tuple[float, float] = COCO_SIZES,
    iou_threshold: float = 0.5,
    background_iou: float = 0.1,
    score_threshold: float = 0.0,
    limit_to_objects: bool = True,
) -> ErrorAnalysis:
    """Counts right detections and errors by kind (Hoiem et al. 2012, section 3; YOLO, Redmon et al. 2016, figure 4).

    Of a detection, with IoU the overlap with the object of its class that it overlaps most:
      right: IoU >= iou_threshold, the first for this object in order of falling score.
      duplicate: IoU >= iou_threshold, not the first.
      badly located: background_iou <= IoU < iou_threshold.
      confused: none of these, and an overlap of at least background_iou with an object of another class.
      background: none of these.
    An object is missed if no detection is right about it. Detections that fall to a difficult or crowd object count
    in no kind.

    Args:
      rows: of `collect_detections`, or their `match_detections`.
      num_classes: C.
      sizes: areas in pixels^2 between small and medium, and between medium and large.
      iou_threshold: overlap from which a detection is right.
      background_iou: overlap below which a detection is of the background.
      score_threshold: detections of lower scores are left out.
      limit_to_objects: considers only the best N detections of a class that has N objects, as both papers do: at a
        detector's low score thresholds nearly all others are of the background.
    """
    check_sizes(sizes, 'analyse_errors')
    if not 0 <= background_iou <= iou_threshold:
        raise UsageError(f'analyse_errors: 0 <= background_iou={background_iou} <= iou_threshold={iou_threshold} fails')
    matches = rows if isinstance(rows, Matches) else match_detections(rows)
    check_class_range(num_classes, matches.labels, matches.object_labels)
    right, considered = mark_right(matches, iou_threshold)
    # A badly located detection of a difficult object is not an error either.
    near = np.append(matches.ignored, False)[matches.target] & (matches.iou >= background_iou)
    considered = considered & ~near & (matches.scores >= score_threshold)
    if limit_to_objects:
        # Matches are in order of falling score, so those after the first N of a class are dropped.
        objects = np.bincount(matches.object_labels[~matches.ignored], minlength=num_classes)
        for label in range(num_classes):
            considered[np.flatnonzero(considered & (matches.labels == label))[objects[label] :]] = False
    hits = (matches.iou >= iou_threshold) & (matches.target >= 0)
    near_other = (matches.other_iou >= background_iou) & (matches.other >= 0)
    kinds = np.select(
        [right, hits, (matches.iou >= background_iou) & (matches.target >= 0), near_other],
        [_RIGHT, _DUPLICATE, _BADLY_LOCATED, _CONFUSED],
        _BACKGROUND,
    )
    # Areas of the object that a kind is about, the detection's own for the background.
    object_areas = np.append(matches.object_areas, 0.0)
    areas = np.where(kinds == _CONFUSED, object_areas[matches.other], object_areas[matches.target])
    areas = np.where(kinds == _BACKGROUND, matches.areas, areas)
    # Only by detections that are considered: an object whose detection is dropped above is missed.
    missed = ~matches.ignored
    missed[matches.target[considered & right]] = False
    n = len(matches.image_ids)
    image_counts, counts = np.zeros((n, 6), np.int64), np.zeros((num_classes, 3, 6), np.int64)
    iou_sums = np.zeros((num_classes, 3))
    detection_sizes, object_sizes = np.digitize(areas, sizes), np.digitize(matches.object_areas, sizes)
    # np.add.at and not +=, which adds once where an index repeats. An area on a threshold is of the larger size.
    np.add.at(counts, (matches.labels[considered], detection_sizes[considered], kinds[considered]), 1)
    np.add.at(counts, (matches.object_labels[missed], object_sizes[missed], _MISSED), 1)
    np.add.at(image_counts, (matches.image[considered], kinds[considered]), 1)
    np.add.at(image_counts, (matches.object_image[missed], _MISSED), 1)
    located = considered & right
    np.add.at(iou_sums, (matches.labels[located], detection_sizes[located]), matches.iou[located])
    return ErrorAnalysis(counts, image_counts, matches.image_ids, iou_sums)
