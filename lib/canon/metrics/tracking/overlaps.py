"""Overlaps of truth and results in all frames of a sequence, and the assignment that maximises a sum of scores."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from canon.errors import UsageError

EPS = float(np.finfo(float).eps)  # the tolerance of TrackEval's comparisons
_CHUNK = 2**20  # pairs of boxes that are compared at once, 8 MB per array
_MARGIN = 1e-9  # relative; far above the rounding of scipy's solver, which thus agrees on pairs that win by it


class Tracks(Protocol):
    """Boxes over the frames of a sequence, sorted by frame, as `canon.data.tracking.TrackTable` has them."""

    @property
    def frames(self) -> np.ndarray: ...  # int [N], from 0
    @property
    def ids(self) -> np.ndarray: ...  # int [N], unique within a frame
    @property
    def boxes(self) -> np.ndarray: ...  # [N, 4] of [x0, y0, x1, y1]
    @property
    def labels(self) -> np.ndarray: ...  # int [N]
    @property
    def ignored(self) -> np.ndarray: ...  # bool [N]


class FrameOverlaps(NamedTuple):
    """The boxes of a sequence and all pairs of truth and result that overlap, on which every metric is computed.

    Pairs are stored sparsely: most boxes of a frame overlap none or a few of the others.

    Attributes:
      length: number of frames.
      truth_frames: int [N], ascending.
      truth_ids: int [N], numbered from 0 without gaps.
      result_frames: int [M], ascending.
      result_ids: int [M], numbered from 0 without gaps.
      num_truth_ids: G.
      num_result_ids: R.
      truth: int [P], the row of the truth of each pair; pairs are sorted by it, hence by frame.
      result: int [P], the row of the result.
      iou: float64 [P], above 0.
    """

    length: int
    truth_frames: np.ndarray
    truth_ids: np.ndarray
    result_frames: np.ndarray
    result_ids: np.ndarray
    num_truth_ids: int
    num_result_ids: int
    truth: np.ndarray
    result: np.ndarray
    iou: np.ndarray

    def select(self, keep_truth: np.ndarray, keep_result: np.ndarray) -> FrameOverlaps:
        """Returns the overlaps of some rows, by masks bool [N] and [M]; ids are numbered again."""
        if keep_truth.all() and keep_result.all():
            return self
        kept = keep_truth[self.truth] & keep_result[self.result]
        num_truth_ids, truth_ids = number_ids(self.truth_ids[keep_truth])
        num_result_ids, result_ids = number_ids(self.result_ids[keep_result])
        return FrameOverlaps(
            self.length,
            *(self.truth_frames[keep_truth], truth_ids, self.result_frames[keep_result], result_ids),
            *(num_truth_ids, num_result_ids),
            *((np.cumsum(keep_truth) - 1)[self.truth[kept]], (np.cumsum(keep_result) - 1)[self.result[kept]]),
            self.iou[kept],
        )

    def locate_frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns where the rows of each frame begin, int [T + 1] for the truth and for the result."""
        frames = np.arange(self.length + 1)
        return np.searchsorted(self.truth_frames, frames), np.searchsorted(self.result_frames, frames)

    def pair_ids(self, pairs: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns one number per pair of ids, truth_id * R + result_id, for some of the pairs."""
        return self.truth_ids[self.truth[pairs]] * self.num_result_ids + self.result_ids[self.result[pairs]]


def overlap_frames(truth: Tracks, result: Tracks, length: int) -> FrameOverlaps:
    """Computes the overlaps of truth and result in all frames.

    Args:
      truth: N boxes.
      result: M boxes.
      length: number of frames.

    Raises:
      UsageError: a row lies outside of the frames, or an id stands twice in a frame.
    """
    columns = []
    for name, tracks in (('truth', truth), ('result', result)):
        frames = np.asarray(tracks.frames, np.int64)
        if len(frames) and not (frames[0] >= 0 and frames[-1] < length and (np.diff(frames) >= 0).all()):
            raise UsageError(
                f'the {name} has frames {frames.min()} to {frames.max()}, and 0 to {length - 1} in ascending order are '
                'expected; is it of another sequence, or counted from 1?'
            )
        count, ids = number_ids(np.asarray(tracks.ids))
        _check_doubled_ids(name, frames, ids, np.asarray(tracks.ids))
        columns.append((frames, ids, count, np.asarray(tracks.boxes, np.float64)))
    (truth_frames, truth_ids, num_truth, truth_boxes), (result_frames, result_ids, num_results, boxes) = columns
    pairs = _overlap_pairs(truth_frames, truth_boxes, result_frames, boxes, length)
    return FrameOverlaps(length, truth_frames, truth_ids, result_frames, result_ids, num_truth, num_results, *pairs)


def match_frames(overlaps: FrameOverlaps, pairs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Finds in each frame the assignment of truth to results that maximises the sum of scores.

    It is the one that scipy's solver returns for the dense matrix of the frame, in which pairs that are not given
    score 0, of several best ones too. Pairs that win by themselves are found for all frames at once: one that scores
    more than the best others of its row and of its column together is part of every best assignment, as exchanging it
    for them would lose. Only frames in which others remain are solved.

    Args:
      overlaps: of the sequence.
      pairs: int [C], indices of the pairs that may be matched, ascending.
      scores: float [C], above 0.

    Returns:
      int [K], the indices (into the pairs of `overlaps`) of those matched, ascending.
    """
    rows, columns = overlaps.truth[pairs], overlaps.result[pairs]
    matched = np.zeros(len(pairs), bool)
    left = np.arange(len(pairs))
    while len(left):
        row, column, value = rows[left], columns[left], scores[left]
        others = _find_best_others(row, value, len(overlaps.truth_frames))
        others += _find_best_others(column, value, len(overlaps.result_frames))
        wins = value * (1 - _MARGIN) > others
        if not wins.any():
            break
        matched[left[wins]] = True
        taken_rows, taken_columns = (
            np.zeros(len(overlaps.truth_frames), bool),
            np.zeros(len(overlaps.result_frames), bool),
        )
        taken_rows[row[wins]] = taken_columns[column[wins]] = True
        left = left[~(taken_rows[row] | taken_columns[column])]
    if len(left):
        frames = overlaps.truth_frames[rows]
        row_starts, column_starts = overlaps.locate_frames()
        for frame in np.unique(frames[left]):
            part = slice(*np.searchsorted(frames, (frame, frame + 1)))
            shape = row_starts[frame + 1] - row_starts[frame], column_starts[frame + 1] - column_starts[frame]
            place = rows[part] - row_starts[frame], columns[part] - column_starts[frame]
            matched[part] = solve_frame(shape, place, scores[part])
    return pairs[matched]


def solve_frame(shape: tuple[int, int], place: tuple[np.ndarray, np.ndarray], scores: np.ndarray) -> np.ndarray:
    """Returns which of the pairs of one frame, at `place` of a matrix of `shape`, the best assignment has, bool [C]."""
    from scipy.optimize import linear_sum_assignment

    # The whole matrix, empty rows included: among several best assignments the choice depends on its shape.
    matrix = np.zeros(shape)
    matrix[place] = scores
    chosen = np.zeros(shape, bool)
    chosen[linear_sum_assignment(-matrix)] = True
    return chosen[place]


def number_ids(ids: np.ndarray) -> tuple[int, np.ndarray]:
    """Numbers ids from 0 without gaps; returns how many there are, and the number of each, int [N]."""
    values, numbers = np.unique(ids, return_inverse=True)
    return len(values), numbers.astype(np.int64).reshape(-1)


def _check_doubled_ids(name: str, frames: np.ndarray, ids: np.ndarray, original: np.ndarray) -> None:
    keys = frames * (ids.max(initial=0) + 1) + ids
    if (np.diff(np.sort(keys)) == 0).any():
        order = np.argsort(keys, kind='stable')
        row = order[1:][np.diff(keys[order]) == 0][0]
        raise UsageError(
            f'the {name} has id {original[row]} twice in frame {frames[row]} (from 0); an id is one object of a frame'
        )


def _find_best_others(group: np.ndarray, values: np.ndarray, num_groups: int) -> np.ndarray:
    """Returns for each value [C] the largest of the others of its group, 0 if there are none."""
    best = np.zeros(num_groups)
    np.maximum.at(best, group, values)
    is_best = values == best[group]
    second = np.zeros(num_groups)
    np.maximum.at(second, group[~is_best], values[~is_best])
    unique = np.bincount(group[is_best], minlength=num_groups) == 1
    return np.where(is_best & unique[group], second[group], best[group])


def _overlap_pairs(truth_frames, truth_boxes, result_frames, result_boxes, length):
    """Returns (truth row, result row, IoU) of all pairs of a frame that overlap, sorted by rows."""
    sides = [(truth_frames, truth_boxes), (result_frames, result_boxes)]
    counts = [np.bincount(frames, minlength=length) for frames, _ in sides]
    starts = [np.cumsum(count) - count for count in counts]
    slots = [np.arange(len(frames)) - start[frames] for (frames, _), start in zip(sides, starts, strict=True)]
    most = [int(count.max(initial=0)) for count in counts]
    step = max(1, _CHUNK // max(most[0] * most[1], 1))
    truth, result = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, length if min(most) else 0, step):
        last = min(first + step, length)
        edges = []
        for (frames, boxes), slot, width in zip(sides, slots, most, strict=True):
            part = slice(*np.searchsorted(frames, (first, last)))
            place = frames[part] - first, slot[part]
            # An empty slot begins after it ends, so that it overlaps nothing.
            low, high = np.full((last - first, width), np.inf), np.full((last - first, width), -np.inf)
            low[place], high[place] = boxes[part, 0], boxes[part, 2]
            edges.append((low, high))
        (low, high), (other_low, other_high) = edges
        # Only along x: a few percent of all pairs remain, for which the rest is computed.
        shared = np.minimum(high[:, :, None], other_high[:, None]) > np.maximum(low[:, :, None], other_low[:, None])
        frame, row, column = np.nonzero(shared)
        truth.append(starts[0][frame + first] + row)
        result.append(starts[1][frame + first] + column)
    truth, result = np.concatenate(truth), np.concatenate(result)
    # TrackEval's formula in its order of operations, so that equal scores are equal here as well.
    a, b = truth_boxes[truth].T, result_boxes[result].T
    width, height = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]), np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    union = areas[0] + areas[1] - intersection
    kept = (intersection > 0) & (areas[0] > EPS) & (areas[1] > EPS) & (union > EPS)
    return truth[kept], result[kept], intersection[kept] / union[kept]
