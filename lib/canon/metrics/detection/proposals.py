"""Recall of proposals: how many objects they reach, and how well, whatever detector classifies them afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from canon.metrics.detection.matching import compute_overlaps


class ProposalRecall(NamedTuple):
    """The best IoU that each object has with the first proposals of its image.

    Attributes:
      counts: numbers of proposals per image, N.
      best_iou: float64 [Q, N]; 0 in images without proposals.
      labels: int [Q], of the objects.
      sides: [Q], roots of their areas in pixels.
      mean_count: mean number of proposals per image, [N]: smaller than `counts` where there are fewer.
    """

    counts: tuple[int, ...]
    best_iou: np.ndarray
    labels: np.ndarray
    sides: np.ndarray
    mean_count: np.ndarray

    def recall(self, iou_threshold: float = 0.5) -> np.ndarray:
        """Returns the share of the objects with an IoU of at least the threshold, [N]; NaN if there are no objects."""
        if not len(self.best_iou):
            return np.full(len(self.counts), np.nan)
        return (self.best_iou >= iou_threshold).mean(0)

    def average_best_overlap(self) -> np.ndarray:
        """Returns MABO, the mean over the classes of the mean best IoU of their objects, [N] (Uijlings et al. 2013)."""
        classes = np.unique(self.labels)
        if not len(classes):
            return np.full(len(self.counts), np.nan)
        return np.mean([self.best_iou[self.labels == label].mean(0) for label in classes], 0)


def measure_proposals(
    images: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], counts: Sequence[int] = (10, 30, 100, 300, 1000, 2000)
) -> ProposalRecall:
    """Measures the proposals of images against their objects.

    Args:
      images: (proposals [P, 4] in order of rank, boxes [K, 4] of the objects, their labels [K]) of each.
      counts: numbers of the first proposals that are measured.
    """
    ious, labels, sides, used, number = [], [], [], np.zeros(len(counts)), 0
    for proposals, boxes, own in images:
        number += 1
        used += np.minimum(counts, len(proposals))
        if not len(boxes):
            continue
        labels.append(own)
        sides.append(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1)))
        best = np.zeros((len(boxes), len(counts)))
        if len(proposals):
            # The best of the first n for every n at once.
            running = np.maximum.accumulate(compute_overlaps(boxes, proposals), 1)
            best = running[:, np.minimum(counts, len(proposals)) - 1]
        ious.append(best)
    return ProposalRecall(
        tuple(counts),
        np.concatenate([np.zeros((0, len(counts))), *ious]),
        np.concatenate([np.zeros(0, int), *labels]),
        np.concatenate([np.zeros(0), *sides]),
        used / max(number, 1),
    )
