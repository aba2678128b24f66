"""PR-MOTA of a tracking system: MOTA upon the detections above each threshold, along their precision-recall curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from canon.data.tracking import TrackSequence, TrackTable
from canon.metrics.tracking import count_detections, divide_counts, integrate_along_pr, keep_scored, score_clear
from canon.tasks.tracking.running import TrackingSystem, select_detections, track_detections

_CLEAR = ('CLR_TP', 'CLR_FN', 'CLR_FP', 'IDSW')


def count_by_threshold(
    system: TrackingSystem,
    sequence: TrackSequence,
    table: TrackTable,
    thresholds: Sequence[float],
    preset: str,
    min_iou: float,
) -> np.ndarray:
    """Tracks a sequence with the detections above each threshold.

    Args:
      system: whose `given.min_score` each threshold replaces.
      sequence: with truth.
      table: all detections of the sequence, as `find_detections` returns them.
      thresholds: [K].
      preset: of the benchmark.
      min_iou: of matches, in the CLEAR metrics.

    Returns:
      float64 [K, 7]: matches, misses, false results and switches of the tracks; detections that are right, all
      detections, and boxes of the truth. Counts of sequences add up.
    """
    truth, length, regions = sequence.truth, sequence.info.length, sequence.ignored_regions
    assert truth is not None
    given = [replace(system.given, min_score=threshold) for threshold in thresholds]
    widest = select_detections(table, length, min(given, key=lambda one: one.min_score))
    right, shown, objects = count_detections(
        truth, widest, widest.scores, length, thresholds, preset=preset, regions=regions
    )
    rows = []
    for k, selection in enumerate(given):
        tracks, _ = track_detections(system, sequence, select_detections(table, length, selection))
        clear = score_clear(keep_scored(truth, tracks, length, preset, regions), min_iou)
        rows.append([*(clear[name] for name in _CLEAR), right[k], shown[k], objects])
    return np.array(rows, np.float64)


def integrate_counts(counts: np.ndarray) -> float:
    """Computes PR-MOTA of the counts [K, 7] of `count_by_threshold`, or of their sums over sequences."""
    matches, misses, false, switches, right, shown, objects = counts.T
    mota = (matches - false - switches) / np.maximum(matches + misses, 1)
    return integrate_along_pr(mota, *divide_counts(right, shown, int(objects[0])))
