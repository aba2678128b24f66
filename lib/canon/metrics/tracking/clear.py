"""CLEAR MOT metrics (Bernardin and Stiefelhagen 2008), with the rules of MOTChallenge's TrackEval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon.metrics.tracking.overlaps import EPS, FrameOverlaps, solve_frame

_SUMS = ('CLR_TP', 'CLR_FN', 'CLR_FP', 'IDSW', 'MT', 'PT', 'ML', 'Frag', 'CLR_Frames', 'MOTP_sum')
_RATIOS = (
    'MOTA', 'MOTP', 'MODA', 'CLR_Re', 'CLR_Pr', 'MTR', 'PTR', 'MLR', 'sMOTA', 'CLR_F1', 'FP_per_frame', 'MOTAL',
)  # fmt: skip
_CONTINUES = 1000.0  # what a pair scores that was matched in the previous frame: more than any sum of overlaps


def score_clear(overlaps: FrameOverlaps, min_iou: float = 0.5) -> dict[str, Any]:
    """Computes the CLEAR metrics of a sequence, by TrackEval's names.

    In each frame the assignment continues as many pairs of the previous frame as it can, and maximises the sum of
    overlaps after that. MOTA = (TP - FP - IDSW) / (TP + FN); MOTP is the mean overlap of the matches. A switch is a
    match of an object to another id than its last one, however long ago. An object is mostly tracked (MT) if matched in
    more than 80 % of its frames, mostly lost (ML) in less than 20 %. Frag counts how often its matches resume.

    Frames without truth or without results are passed over, and a pair continues across them. A sequence without any
    truth, or any result, has MOTA 0 and MLR 1, and its frames do not count in FP_per_frame: so TrackEval.

    Args:
      overlaps: of `overlap_frames`.
      min_iou: the overlap that a match has at least.
    """
    num_truth, num_results = len(overlaps.truth_frames), len(overlaps.result_frames)
    if not num_truth or not num_results:
        scores = dict.fromkeys(_SUMS + _RATIOS, 0)
        # A tracker without results has lost every object.
        lost = overlaps.num_truth_ids if not num_results else 0
        return scores | {'CLR_FN': num_truth, 'CLR_FP': num_results, 'ML': lost, 'MLR': 1.0}
    frame_ranks = _rank_frames(overlaps)
    matches = match_continuously(overlaps, min_iou)
    # By object, then by frame: matches are in order of frames, and the sort is stable.
    ids = overlaps.truth_ids[overlaps.truth[matches]]
    order = np.argsort(ids, kind='stable')
    ids = ids[order]
    results = overlaps.result_ids[overlaps.result[matches]][order]
    ranks = frame_ranks[overlaps.truth_frames[overlaps.truth[matches]]][order]
    follows = np.diff(ids) == 0  # two matches of the same object
    share = np.bincount(ids, minlength=overlaps.num_truth_ids) / np.bincount(overlaps.truth_ids)
    mostly, partly = int((share > 0.8).sum()), int((share >= 0.2).sum())
    return _derive_ratios({
        'CLR_TP': len(matches),
        'CLR_FN': num_truth - len(matches),
        'CLR_FP': num_results - len(matches),
        'IDSW': int((follows & (np.diff(results) != 0)).sum()),
        'MT': mostly,
        'PT': partly - mostly,
        'ML': overlaps.num_truth_ids - partly,
        'Frag': int((follows & (np.diff(ranks) != 1)).sum()),
        'CLR_Frames': overlaps.length,
        'MOTP_sum': float(overlaps.iou[matches].sum()),
    })  # fmt: skip


def combine_clear(sequences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines the scores of sequences: counts add up, and the ratios are computed of the sums."""
    return _derive_ratios({name: sum(scores[name] for scores in sequences) for name in _SUMS})


def match_continuously(overlaps: FrameOverlaps, min_iou: float = 0.5) -> np.ndarray:
    """Returns the indices of the pairs that CLEAR matches, int [K], ascending; see `score_clear`."""
    frame_ranks = _rank_frames(overlaps)
    pairs = np.flatnonzero(overlaps.iou >= min_iou - EPS)
    rows, columns = overlaps.truth[pairs], overlaps.result[pairs]
    matched = np.ones(len(pairs), bool)
    # Only where a box has two candidates there is anything to decide, and only there the previous frame matters.
    competes = (np.bincount(rows, minlength=1)[rows] > 1) | (np.bincount(columns, minlength=1)[columns] > 1)
    frames = overlaps.truth_frames[rows]
    ranks, keys = frame_ranks[frames], overlaps.pair_ids(pairs)
    row_starts, column_starts = overlaps.locate_frames()
    for frame in np.unique(frames[competes]):
        part = slice(*np.searchsorted(frames, (frame, frame + 1)))
        previous = slice(*np.searchsorted(ranks, (frame_ranks[frame] - 1, frame_ranks[frame])))
        continued = set(keys[previous][matched[previous]].tolist())
        continues = np.array([key in continued for key in keys[part].tolist()])
        shape = row_starts[frame + 1] - row_starts[frame], column_starts[frame + 1] - column_starts[frame]
        place = rows[part] - row_starts[frame], columns[part] - column_starts[frame]
        matched[part] = solve_frame(shape, place, _CONTINUES * continues + overlaps.iou[pairs[part]])
    return pairs[matched]


def _rank_frames(overlaps: FrameOverlaps) -> np.ndarray:
    """Numbers the frames that have truth and results, int [T]; others have the number of the last one before them."""
    filled = np.zeros((2, overlaps.length), bool)
    filled[0, overlaps.truth_frames] = filled[1, overlaps.result_frames] = True
    return np.cumsum(filled.all(0)) - 1


def _derive_ratios(sums: dict[str, Any]) -> dict[str, Any]:
    """Adds the metrics that are ratios of the sums."""
    tp, fn, fp, switches, motp = (sums[name] for name in ('CLR_TP', 'CLR_FN', 'CLR_FP', 'IDSW', 'MOTP_sum'))
    objects, boxes = max(1.0, sums['MT'] + sums['PT'] + sums['ML']), max(1.0, tp + fn)
    log_switches = np.log10(switches) if switches > 0 else 0
    return sums | {
        'MOTA': (tp - fp - switches) / boxes,
        'MOTP': motp / max(1.0, tp),
        'MODA': (tp - fp) / boxes,
        'CLR_Re': tp / boxes,
        'CLR_Pr': tp / max(1.0, tp + fp),
        'MTR': sums['MT'] / objects,
        'PTR': sums['PT'] / objects,
        'MLR': sums['ML'] / objects,
        'sMOTA': (motp - fp - switches) / boxes,
        'CLR_F1': tp / max(1.0, tp + 0.5 * fn + 0.5 * fp),
        'FP_per_frame': fp / max(1.0, sums['CLR_Frames']),
        'MOTAL': float((tp - fp - log_switches) / boxes),
    }
