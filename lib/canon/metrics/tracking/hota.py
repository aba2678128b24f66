"""Higher order tracking accuracy, HOTA (Luiten et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from canon.metrics.tracking.overlaps import EPS, FrameOverlaps, match_frames

# As TrackEval computes them: not all are the nearest floats to multiples of 0.05.
HOTA_THRESHOLDS = np.arange(0.05, 0.99, 0.05)
_COUNTS = ('HOTA_TP', 'HOTA_FN', 'HOTA_FP')
_ARRAYS = ('HOTA', 'DetA', 'AssA', 'DetRe', 'DetPr', 'AssRe', 'AssPr', 'LocA', 'OWTA')
_SCALARS = ('HOTA(0)', 'LocA(0)', 'HOTALocA(0)')


def score_hota(overlaps: FrameOverlaps) -> dict[str, Any]:
    """Computes HOTA of a sequence and its parts, by TrackEval's names, arrays [19] over the thresholds of overlap.

    HOTA = sqrt(DetA AssA) per threshold. DetA = TP / (TP + FN + FP). AssA is the mean over the matches c of
    TPA(c) / (TPA(c) + FNA(c) + FPA(c)), the Jaccard index of the object's track and the result's track (eq. 5 to 7).
    LocA is the mean overlap of the matches; 1 without truth or without results, as in TrackEval.

    The assignment of a frame maximises the sum of overlap times global alignment, the latter being the Jaccard index of
    the two tracks before matching (eq. 9 to 11). It does not depend on the threshold, so each frame is solved once.
    """
    num_truth, num_results = len(overlaps.truth_frames), len(overlaps.result_frames)
    count = len(HOTA_THRESHOLDS)
    if not num_truth or not num_results:
        scores = {name: np.zeros(count) for name in _ARRAYS + _COUNTS} | dict.fromkeys(_SCALARS, 0.0)
        missed, spurious = np.full(count, float(num_truth)), np.full(count, float(num_results))
        return scores | {'HOTA_FN': missed, 'HOTA_FP': spurious, 'LocA': np.ones(count), 'LocA(0)': 1.0}
    pairs = np.arange(len(overlaps.iou))
    keys, num_keys = _number_keys(overlaps)
    # Of the object and of the id of each pair of tracks, in frames.
    truth_lengths, result_lengths = np.zeros(num_keys), np.zeros(num_keys)
    truth_lengths[keys] = np.bincount(overlaps.truth_ids)[overlaps.truth_ids[overlaps.truth]]
    result_lengths[keys] = np.bincount(overlaps.result_ids)[overlaps.result_ids[overlaps.result]]
    potential = np.bincount(keys, _normalise_overlaps(overlaps), num_keys)
    with np.errstate(invalid='ignore'):  # pairs of tracks that never meet have length 0 here, and are not read
        alignment = potential / (truth_lengths + result_lengths - potential)
    scores = alignment[keys] * overlaps.iou
    positive = scores > 0
    matches = match_frames(overlaps, pairs[positive], scores[positive])
    # A match counts at all thresholds up to its overlap: count each once, at the last, and add up from above.
    iou = overlaps.iou[matches]
    levels = np.searchsorted(HOTA_THRESHOLDS - EPS, iou, side='right')
    matches_per_level = np.bincount(keys[matches] * (count + 1) + levels, minlength=num_keys * (count + 1))
    matches_per_level = matches_per_level.reshape(num_keys, count + 1)
    met = matches_per_level.any(1)
    shared = np.cumsum(matches_per_level[met, :0:-1], 1)[:, ::-1].astype(float)  # [K, 19] matches of a pair of tracks
    overlap_sums = np.cumsum(np.bincount(levels, iou, count + 1)[:0:-1])[::-1]
    tp = shared.sum(0)
    lengths = truth_lengths[met, None], result_lengths[met, None]
    means = [
        (shared * shared / np.maximum(1, denominator)).sum(0) / np.maximum(1, tp)
        for denominator in (lengths[0] + lengths[1] - shared, lengths[0], lengths[1])
    ]
    return _derive_ratios(
        {'HOTA_TP': tp, 'HOTA_FN': num_truth - tp, 'HOTA_FP': num_results - tp}
        | dict(zip(('AssA', 'AssRe', 'AssPr'), means, strict=True))
        | {'LocA': np.maximum(1e-10, overlap_sums) / np.maximum(1e-10, tp)}
    )


def combine_hota(sequences: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines the scores of sequences: counts add up, and AssA and LocA are averaged over the matches."""
    sums = {name: sum(scores[name] for scores in sequences) for name in _COUNTS}
    tp = sums['HOTA_TP']
    weighted = {
        name: sum(scores[name] * scores['HOTA_TP'] for scores in sequences)
        for name in ('AssA', 'AssRe', 'AssPr', 'LocA')
    }
    located = np.maximum(1e-10, weighted.pop('LocA')) / np.maximum(1e-10, tp)
    return _derive_ratios(sums | {name: x / np.maximum(1.0, tp) for name, x in weighted.items()} | {'LocA': located})


def _derive_ratios(scores: dict[str, Any]) -> dict[str, Any]:
    tp, fn, fp = (scores[name] for name in _COUNTS)
    recall, precision = tp / np.maximum(1, tp + fn), tp / np.maximum(1, tp + fp)
    detection = tp / np.maximum(1, tp + fn + fp)
    hota = np.sqrt(detection * scores['AssA'])
    first = float(hota[0]), float(scores['LocA'][0])
    return scores | {
        'DetRe': recall,
        'DetPr': precision,
        'DetA': detection,
        'HOTA': hota,
        'OWTA': np.sqrt(recall * scores['AssA']),
        'HOTA(0)': first[0],
        'LocA(0)': first[1],
        'HOTALocA(0)': first[0] * first[1],
    }


def _number_keys(overlaps: FrameOverlaps) -> tuple[np.ndarray, int]:
    """Numbers the pairs of ids that overlap, int [P]; returns the bound of the numbers as well."""
    keys, bound = overlaps.pair_ids(), overlaps.num_truth_ids * overlaps.num_result_ids
    # Arrays over all pairs of ids are faster than a sort, unless most of them never meet.
    if bound <= 2 * len(keys) + 10_000:
        return keys, bound
    values, keys = np.unique(keys, return_inverse=True)
    return keys.reshape(-1), len(values)


def _normalise_overlaps(overlaps: FrameOverlaps) -> np.ndarray:
    """Divides the overlap of each pair by the sum of its row and column less itself, [P]."""
    rows = np.bincount(overlaps.truth, overlaps.iou, len(overlaps.truth_frames))
    columns = np.bincount(overlaps.result, overlaps.iou, len(overlaps.result_frames))
    _correct_sums(overlaps, rows, columns)
    total = columns[overlaps.result] + rows[overlaps.truth] - overlaps.iou
    return np.divide(overlaps.iou, total, out=np.zeros_like(total), where=total > EPS)


def _correct_sums(overlaps: FrameOverlaps, rows: np.ndarray, columns: np.ndarray) -> None:
    """Adds the rows and columns of large frames in numpy's order, in place.

    Equal tracks must score equally to the last bit, because the solver breaks ties by position: TrackEval's sums are
    over dense matrices, and numpy adds 8 or more entries in another order, which matters from three terms on.
    """
    row_starts, column_starts = overlaps.locate_frames()
    large = np.maximum(np.diff(row_starts), np.diff(column_starts)) >= 8
    many = np.zeros(overlaps.length, bool)
    many[overlaps.truth_frames[np.bincount(overlaps.truth, minlength=len(rows)) > 2]] = True
    many[overlaps.result_frames[np.bincount(overlaps.result, minlength=len(columns)) > 2]] = True
    pair_starts = np.searchsorted(overlaps.truth, row_starts)
    for frame in np.flatnonzero(large & many).tolist():
        row, column = row_starts[frame], column_starts[frame]
        part = slice(pair_starts[frame], pair_starts[frame + 1])
        matrix = np.zeros((row_starts[frame + 1] - row, column_starts[frame + 1] - column))
        matrix[overlaps.truth[part] - row, overlaps.result[part] - column] = overlaps.iou[part]
        rows[row : row_starts[frame + 1]] = matrix.sum(1)
        columns[column : column_starts[frame + 1]] = matrix.sum(0)
