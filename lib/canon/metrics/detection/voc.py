"""Pascal VOC's average precision, of 2007 (11 points) and of 2010 and later (area)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from canon.errors import UsageError
from canon.metrics.detection.collection import check_class_range
from canon.metrics.detection.matching import Matches, mark_right, match_detections
from canon.metrics.rows import Rows


class VocScores(NamedTuple):
    """Average precision per class, and the curves it is computed from.

    Attributes:
      ap: [C]; NaN for a class without objects.
      recall: per class an array [P_c], one entry per detection in order of falling score.
      precision: likewise.
      scores: likewise.
      objects: how many objects that are not ignored each class has, [C].
    """

    ap: np.ndarray
    recall: tuple[np.ndarray, ...]
    precision: tuple[np.ndarray, ...]
    scores: tuple[np.ndarray, ...]
    objects: np.ndarray

    @property
    def mean_ap(self) -> float:
        """The mean over the classes that have objects; NaN if none has."""
        present = self.ap[~np.isnan(self.ap)]
        return float(present.mean()) if len(present) else float('nan')


def score_voc(
    rows: Rows | Matches, num_classes: int, year: Literal[2007, 2010] = 2010, iou_threshold: float = 0.5
) -> VocScores:
    """Computes Pascal VOC's average precision of each class (Everingham et al. 2010, section 4.2).

    Each detection is compared with the object of its class that it overlaps most. It is right if their IoU is at least
    `iou_threshold` and no detection of a higher score is right about the same object. Any number of detections of a
    difficult object (or a crowd) count neither as right nor as wrong, and such objects need not be detected.

    Args:
      rows: of `collect_detections`, or their `match_detections`, which several scores can share.
      num_classes: C.
      year: 2007 averages the largest precision at recalls of at least 0, 0.1, ..., 1; 2010 and later take the area
        below the precision made monotone. The thresholds of 2007 are `np.arange(0, 1.1, 0.1)`, as in the code that
        published results were computed with: 0.3 is 0.30000000000000004 there, above a recall of 3 in 10.
      iou_threshold: VOC's is 0.5, inclusive.
    """
    if year not in (2007, 2010):
        raise UsageError(f'score_voc: year={year!r} is not 2007 (11 points) or 2010 (area)')
    matches = rows if isinstance(rows, Matches) else match_detections(rows)
    check_class_range(num_classes, matches.labels, matches.object_labels)
    right, considered = mark_right(matches, iou_threshold)
    objects = np.bincount(matches.object_labels[~matches.ignored], minlength=num_classes)
    average = _average_at_11_points if year == 2007 else _average_area
    curves = []
    for label in range(num_classes):
        hits = right[considered & (matches.labels == label)]
        true_positives = np.cumsum(hits)
        precision = true_positives / np.arange(1, len(hits) + 1)
        curves.append((true_positives / max(objects[label], 1), precision))
    ap = [average(*curve) if objects[label] else np.nan for label, curve in enumerate(curves)]
    recall, precision = (tuple(x) for x in zip(*curves, strict=True)) if curves else ((), ())
    scores = tuple(matches.scores[considered & (matches.labels == label)] for label in range(num_classes))
    return VocScores(np.array(ap, np.float64), recall, precision, scores, objects)


def _average_at_11_points(recall: np.ndarray, precision: np.ndarray) -> float:
    return sum(precision[recall >= t].max(initial=0) for t in np.arange(0, 1.1, 0.1)) / 11


def _average_area(recall: np.ndarray, precision: np.ndarray) -> float:
    # The largest precision at this recall or a higher one; recalls that are never reached add nothing.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0) * envelope))
