"""Measures how well the prior boxes of a detector cover the objects of a data set, before anything is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from canon import backend
from canon.ops import boxes as box_ops


class PriorCoverage(NamedTuple):
    """The side in pixels (root of its area) of each object of some batches, and its best IoU with any prior.

    An object whose best IoU is below the threshold of matching has a single prior to learn from, and a bad one.
    """

    sides: np.ndarray  # [Q]
    best_iou: np.ndarray  # [Q]


def measure_prior_coverage(
    batches: Iterable[Mapping[str, Any]], priors: Callable[[int, int], np.ndarray], most: int = 2000
) -> PriorCoverage:
    """Measures the objects of the first batches.

    Args:
      batches: with 'image', 'boxes', 'valid' and 'mask'.
      priors: (height, width) -> corner boxes [A, 4].
      most: objects that are enough.
    """
    best = backend.jit(lambda priors, boxes: box_ops.pairwise_iou(priors, boxes).max(0))
    sides, overlaps, count = [], [], 0
    for batch in batches:
        boxes = batch['boxes'].reshape(-1, 4)
        chosen = (batch['valid'] & batch['mask'][:, None]).ravel()
        overlaps.append(np.asarray(best(priors(*batch['image'].shape[1:3]), boxes))[chosen])
        sides.append(np.sqrt(np.maximum(boxes[:, 2] - boxes[:, 0], 0) * (boxes[:, 3] - boxes[:, 1]))[chosen])
        count += int(chosen.sum())
        if count >= most:
            break
    nothing = np.zeros(0, np.float32)
    return PriorCoverage(np.concatenate([nothing, *sides]), np.concatenate([nothing, *overlaps]))
