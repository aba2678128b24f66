"""PR-MOTA: a tracking metric along the precision-recall curve of the detector (Wen et al. 2020, UA-DETRAC)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from canon.errors import UsageError
from canon.metrics.tracking.overlaps import EPS, Tracks, overlap_frames
from canon.metrics.tracking.presets import Regions, find_preset


def integrate_along_pr(values: ArrayLike, precision: ArrayLike, recall: ArrayLike) -> float:
    """Computes 1/2 of the integral of a metric along the precision-recall curve: PR-MOTA, if `values` are MOTA.

    Omega = 1/2 int_C psi(p, r) ds, by the trapezoidal rule over the points of the curve. The factor makes it at most
    100 % for the longest curve, from (1, 0) over (1, 1) to (0, 1).

    Args:
      values: [K], the metric of the tracker upon the detections above each threshold of the score.
      precision: [K], of these detections.
      recall: [K], in order of the thresholds.

    Raises:
      UsageError: the lengths differ, or there are fewer than two points.

    >>> integrate_along_pr([0.5, 0.5], [1.0, 0.4], [0.0, 0.8])  # the curve has length 1
    0.25
    """
    values, precision, recall = (np.asarray(x, np.float64) for x in (values, precision, recall))
    if not values.shape == precision.shape == recall.shape or values.ndim != 1 or len(values) < 2:
        shapes = values.shape, precision.shape, recall.shape
        raise UsageError(f'integrate_along_pr: values, precision and recall of shapes {shapes} must be [K], K >= 2')
    steps = np.hypot(np.diff(precision), np.diff(recall))
    return float(0.5 * np.sum(steps * (values[1:] + values[:-1]) / 2))


def trace_detections(
    truth: Tracks, detections: Tracks, scores: ArrayLike, length: int, thresholds: ArrayLike, min_iou: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    """Computes precision and recall [K] of the detections whose score is at least each threshold.

    Without detections above a threshold, its precision is 1. Arguments as of `count_detections`; the truth is what the
    rules of the benchmark leave.
    """
    right, given, objects = count_detections(truth, detections, scores, length, thresholds, min_iou)
    return divide_counts(right, given, objects)


def divide_counts(right: np.ndarray, given: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns precision and recall [K] of the counts of `count_detections`, or of their sums over sequences."""
    return np.divide(right, given, out=np.ones(len(right)), where=given > 0), right / max(objects, 1)


def count_detections(
    truth: Tracks,
    detections: Tracks,
    scores: ArrayLike,
    length: int,
    thresholds: ArrayLike,
    min_iou: float = 0.7,
    preset: str | None = None,
    regions: Regions | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts the detections whose score is at least each threshold.

    A detection is right if it overlaps the object that it overlaps most by `min_iou`, and no detection of a higher
    score has taken that object (Pascal VOC's rule).

    Args:
      truth: of a sequence.
      detections: of the sequence.
      scores: of the detections, [M].
      length: number of frames.
      thresholds: [K].
      min_iou: 0.7 in UA-DETRAC.
      preset: a name of `PRESETS`, which drops what the benchmark does not score; None drops nothing.
      regions: ignored regions of the sequence.

    Returns:
      (those that are right [K], all of them [K], number of boxes of the truth).
    """
    scores, thresholds = np.asarray(scores, np.float64), np.asarray(thresholds, np.float64)
    numbered = _Numbered(detections)
    overlaps = overlap_frames(truth, numbered, length)
    if preset is not None:
        keep_truth, keep_result = find_preset(preset)(truth, numbered, overlaps, regions)
        overlaps, scores = overlaps.select(keep_truth, keep_result), scores[keep_result]
    pairs = np.flatnonzero(overlaps.iou >= min_iou - EPS)
    # The last entry of each detection after this sort is its largest overlap.
    order = pairs[np.lexsort((overlaps.iou[pairs], overlaps.result[pairs]))]
    best = order[np.append(np.diff(overlaps.result[order]) != 0, True)] if len(order) else order
    # Of the detections of an object, the one of the highest score is right.
    order = best[np.lexsort((-scores[overlaps.result[best]], overlaps.truth[best]))]
    first = order[np.append(True, np.diff(overlaps.truth[order]) != 0)] if len(order) else order
    right = np.sort(scores[overlaps.result[first]])
    right = len(right) - np.searchsorted(right, thresholds)
    return right, len(scores) - np.searchsorted(np.sort(scores), thresholds), len(overlaps.truth_frames)


class _Numbered:
    """Detections with an id each, as `overlap_frames` expects."""

    def __init__(self, detections: Tracks):
        self.frames, self.boxes = detections.frames, detections.boxes
        self.labels, self.ignored = detections.labels, detections.ignored
        self.ids = np.arange(len(self.frames))
