"""Identity metrics (Ristani et al. 2016): IDF1, its precision and its recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon.metrics.tracking.overlaps import FrameOverlaps


def score_identity(overlaps: FrameOverlaps, min_iou: float = 0.5) -> dict[str, Any]:
    """Computes the identity metrics of a sequence, by TrackEval's names.

    Each object is given at most one id of the result for the whole sequence, so that IDTP, the number of frames in
    which the two overlap by `min_iou`, is largest. IDF1 = 2 IDTP / (2 IDTP + IDFP + IDFN).

    Ristani et al. state it as a minimum over (G + R)^2 pairs with unmatched objects and ids. Its cost is a constant
    minus 2 IDTP, so the assignment of the G x R counts suffices.

    Args:
      overlaps: of `overlap_frames`.
      min_iou: the overlap from which two boxes are of the same object.
    """
    from scipy.optimize import linear_sum_assignment

    num_truth, num_results = len(overlaps.truth_frames), len(overlaps.result_frames)
    if not num_truth or not num_results:
        return dict.fromkeys(('IDTP', 'IDF1', 'IDR', 'IDP'), 0) | {'IDFN': num_truth, 'IDFP': num_results}
    shape = overlaps.num_truth_ids, overlaps.num_result_ids
    # Without the tolerance of the CLEAR metrics: so TrackEval.
    keys = overlaps.pair_ids(overlaps.iou >= min_iou)
    counts = np.bincount(keys, minlength=shape[0] * shape[1]).reshape(shape)
    # Ids that never overlap decide nothing; a long result may have thousands of them.
    counts = counts[counts.any(1)][:, counts.any(0)]
    matched = int(counts[linear_sum_assignment(counts, maximize=True)].sum())
    return _derive_ratios({'IDTP': matched, 'IDFN': num_truth - matched, 'IDFP': num_results - matched})


def combine_identity(sequences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines the scores of sequences: counts add up, and the ratios are computed of the sums."""
    return _derive_ratios({name: sum(scores[name] for scores in sequences) for name in ('IDTP', 'IDFN', 'IDFP')})


def _derive_ratios(sums: dict[str, Any]) -> dict[str, Any]:
    tp, fn, fp = (sums[name] for name in ('IDTP', 'IDFN', 'IDFP'))
    return sums | {
        'IDR': tp / max(1.0, tp + fn),
        'IDP': tp / max(1.0, tp + fp),
        'IDF1': tp / max(1.0, tp + 0.5 * fp + 0.5 * fn),
    }
