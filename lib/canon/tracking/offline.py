"""Batch trackers, which see a whole sequence: min-cost flow, linking of tracklets, interpolation and smoothing.

A sequence is columns of rows in any order: `frames` int [N], `boxes` [N, 4], `scores` [N], `ids` int [N]. Each function
takes columns and returns columns, so that they compose with each other and with the online trackers
(`list_rows` makes columns from what `run` returns):

    frames, ids, boxes, scores = list_rows(tracks)
    ids = link_tracklets(frames, ids, boxes)
    frames, ids, boxes, interpolated = interpolate_gaps(frames, ids, boxes)
    boxes = smooth_tracks(frames, ids, boxes)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from canon.errors import UsageError
from canon.named import Count, Probability
from canon.tracking import kalman
from canon.tracking.affinity import compute_iou
from canon.tracking.arrays import Array
from canon.tracking.association import assign_max_weight
from canon.tracking.kalman import MotionModel, TrackEstimate, sort_motion


def list_rows(tracks: Mapping[str, Array]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the valid tracks of a sequence [T, S, ...] as columns (frames, ids, boxes, scores), by frame."""
    tracks = {key: np.asarray(value) for key, value in tracks.items()}
    frames, slots = np.nonzero(tracks['valid'])
    boxes = tracks['boxes'][frames, slots].astype(np.float64)
    return frames.astype(np.int32), tracks['ids'][frames, slots], boxes, tracks['scores'][frames, slots]


def solve_min_cost_flow(
    detection_cost: np.ndarray,
    tails: np.ndarray,
    heads: np.ndarray,
    link_cost: np.ndarray,
    entry_cost: float | np.ndarray,
    exit_cost: float | np.ndarray,
) -> np.ndarray:
    """Finds the tracks of least total cost: the network flow of Zhang, Li and Nevatia 2008, section 3.2.

    A track is a path of detections; it costs entry + exit + its detections + its links, and each detection belongs to
    one track at most. The number of tracks is part of the solution. Because each detection has capacity 1, the flow is
    an assignment: each detection is given a successor, its exit, or itself (it is unused), and its entry or a
    predecessor. A sparse exact solver (Jonker and Volgenant's) finds it without trying numbers of tracks.

    Args:
      detection_cost: [N], negative for detections that are rather right than wrong.
      tails: int [L], the earlier detection of each link.
      heads: int [L], the later one. Links must not form a cycle, as those forward in time do not.
      link_cost: [L].
      entry_cost: of a track, or [N] by its first detection.
      exit_cost: of a track, or [N] by its last detection.

    Returns:
      int32 [N]: the track of each detection, from 1 in the order of first detections; 0 for unused ones.
    """
    count = len(detection_cost)
    if not count:
        return np.zeros(0, np.int32)
    if not all(np.isfinite(values).all() for values in (detection_cost, link_cost, entry_cost, exit_cost)):
        raise UsageError('the costs of a flow must be finite; leave impossible links out')
    each = np.arange(count)
    entry, exits = np.broadcast_to(entry_cost, count), np.broadcast_to(exit_cost, count)
    # Left: the outgoing side of N detections, N entries. Right: the incoming side, N exits.
    edges = (
        (tails, heads, link_cost + np.asarray(detection_cost)[heads]),
        (each, each, np.zeros(count)),  # unused
        (each, count + each, exits),
        (count + each, each, entry + detection_cost),
        (count + each, count + each, np.zeros(count)),  # neither begins nor ends here
        (count + heads, count + tails, np.zeros(len(tails))),  # where a link replaces an exit and an entry
    )
    rows, columns, costs = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    # The solver takes a zero for a missing edge. All its matchings have 2N edges, so a constant changes no choice.
    costs = costs - costs.min() + 1
    graph = coo_array((costs, (rows, columns)), shape=(2 * count, 2 * count)).tocsr()
    left, right = min_weight_full_bipartite_matching(graph)
    successor = np.empty(2 * count, np.int64)
    successor[left] = right
    ids = np.zeros(count, np.int32)
    starts = np.flatnonzero(successor[count:] < count)
    for number, start in enumerate(successor[count + starts], 1):
        node = start
        while node < count:
            ids[node] = number
            node = successor[node]
    return ids


def track_by_flow(
    frames: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    min_iou: Probability = 0.3,
    max_gap: Count = 3,
    entry_cost: float = 4.0,
    exit_cost: float = 4.0,
    miss_cost: float = 1.0,
    bias: float = 0.0,
) -> np.ndarray:
    """Tracks all detections of a sequence at once by min-cost flow.

    A detection of score p costs log((1 - p) / p) + bias, and a link of two boxes -log(IoU) + `miss_cost` per skipped
    frame: negative log-likelihoods, as in the paper (equations 8 to 11).

    Args:
      frames: int [N].
      boxes: [N, 4].
      scores: [N], probabilities; they are clipped to 0.02..0.98, so that no single one decides alone.
      min_iou: of two linked boxes.
      max_gap: frames that a link may skip.
      entry_cost: of a track: the larger, the fewer and longer tracks.
      exit_cost: of a track.
      miss_cost: of every skipped frame.
      bias: added to the cost of every detection; negative for detections that are better than their scores.

    Returns:
      int32 [N]: ids from 1, 0 for detections that belong to no track.
    """
    frames, boxes = np.asarray(frames), np.asarray(boxes, np.float64)
    probability = np.clip(np.asarray(scores, np.float64), 0.02, 0.98)
    cost = np.log((1 - probability) / probability) + bias
    rows_of = _rows_by_frame(frames)
    tails, heads, costs = [], [], []
    for frame, rows in rows_of.items():
        for gap in range(max_gap + 1):
            later = rows_of.get(frame + gap + 1)
            if later is None:
                continue
            iou = compute_iou(boxes[rows], boxes[later])
            first, second = np.nonzero(iou > min_iou)
            tails.append(rows[first])
            heads.append(later[second])
            costs.append(-np.log(iou[first, second]) + miss_cost * gap)
    if not tails:
        tails, heads, costs = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    arrays = (np.concatenate(parts) for parts in (tails, heads, costs))
    # Ids go by the first frame, whatever the order of the rows.
    return _renumber(frames, solve_min_cost_flow(cost, *arrays, entry_cost, exit_cost))


def link_tracklets(
    frames: np.ndarray,
    ids: np.ndarray,
    boxes: np.ndarray,
    max_gap: Count = 30,
    min_iou: Probability = 0.3,
    fit: Count = 5,
) -> np.ndarray:
    """Joins tracklets of the same object: the end of one and the start of another, for all of them at once.

    The end is extrapolated to the frame of the start and the start to that of the end, at the velocities of their last
    and first `fit` detections; the IoU of both comparisons is averaged, so that crossing objects keep their directions.
    The links of largest total IoU are made. Chains of several tracklets are joined as well.

    Args:
      frames: int [N].
      ids: int [N].
      boxes: [N, 4].
      max_gap: frames between the end of the one and the start of the other, at most.
      min_iou: mean of both comparisons.
      fit: detections at either end that give its velocity, by least squares.

    Returns:
      int32 [N], ids from 1 in the order of first frames.
    """
    frames, ids, boxes = np.asarray(frames), np.asarray(ids), np.asarray(boxes, np.float64)
    names, index = np.unique(ids, return_inverse=True)
    if not len(names):
        return np.zeros(0, np.int32)
    first, last = (np.empty(len(names), np.int64) for _ in range(2))
    lines = np.empty((2, len(names), 2, 4))  # of starts and ends: position at that frame, velocity
    for track, rows in enumerate(_group(index, len(names))):
        rows = rows[np.argsort(frames[rows], kind='stable')]
        first[track], last[track] = frames[rows[0]], frames[rows[-1]]
        lines[0, track] = _fit_line(frames[rows[:fit]] - first[track], boxes[rows[:fit]])
        lines[1, track] = _fit_line(frames[rows[-fit:]] - last[track], boxes[rows[-fit:]])
    gap = first[None] - last[:, None]  # [end of, start of]
    (starts, start_velocity), (ends, end_velocity) = (np.moveaxis(line, 1, 0) for line in lines)
    ahead = ends[:, None] + gap[..., None] * end_velocity[:, None]
    back = starts[None] - gap[..., None] * start_velocity[None]
    iou = compute_iou(ahead[..., None, :], starts[None, :, None])[..., 0, 0]
    iou = (iou + compute_iou(back[..., None, :], ends[:, None, None])[..., 0, 0]) / 2
    possible = (gap > 0) & (gap <= max_gap + 1) & (iou > min_iou)
    successor = assign_max_weight(np.where(possible, iou, 0))
    root = np.arange(len(names))
    for track in np.argsort(first, kind='stable'):  # a predecessor begins earlier, so its root is known
        if successor[track] >= 0:
            root[successor[track]] = root[track]
    return _renumber(frames, root[index] + 1)


def interpolate_gaps(
    frames: np.ndarray, ids: np.ndarray, boxes: np.ndarray, max_gap: Count = 20
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fills the gaps of tracks with boxes on a straight line between both sides.

    Args:
      frames: int [N].
      ids: int [N].
      boxes: [N, 4].
      max_gap: longer gaps, in missing frames, stay open.

    Returns:
      (frames, ids, boxes, interpolated bool), of N rows and those added, sorted by frame and id.
    """
    frames, ids, boxes = np.asarray(frames), np.asarray(ids), np.asarray(boxes, np.float64)
    order = np.lexsort((frames, ids))
    before, after = order[:-1], order[1:]
    missing = frames[after] - frames[before] - 1
    open_ = (ids[after] == ids[before]) & (missing > 0) & (missing <= max_gap)
    before, after, missing = before[open_], after[open_], missing[open_]
    gap = np.repeat(np.arange(len(missing)), missing)
    step = np.arange(len(gap)) - np.repeat(missing.cumsum() - missing, missing) + 1
    share = (step / (missing[gap] + 1))[:, None]
    added = boxes[before[gap]] * (1 - share) + boxes[after[gap]] * share
    columns = (
        np.concatenate([frames, frames[before[gap]] + step]).astype(frames.dtype),
        np.concatenate([ids, ids[before[gap]]]),
        np.concatenate([boxes, added]),
        np.arange(len(frames) + len(gap)) >= len(frames),
    )
    order = np.lexsort((columns[1], columns[0]))
    frames, ids, boxes, interpolated = (column[order] for column in columns)
    return frames, ids, boxes, interpolated


def smooth_tracks(
    frames: np.ndarray, ids: np.ndarray, boxes: np.ndarray, motion: MotionModel | None = None
) -> np.ndarray:
    """Smooths the boxes of tracks by a Kalman filter forwards and Rauch, Tung and Striebel's recursion backwards.

    All tracks are smoothed at once. Frames that a track lacks are predicted, and bridged in the backward recursion.

    Args:
      frames: int [N].
      ids: int [N].
      boxes: [N, 4].
      motion: None: `kalman.sort_motion()`.

    Returns:
      [N, 4], in the order of the rows.
    """
    model = motion or sort_motion()
    frames, boxes = np.asarray(frames), np.asarray(boxes, np.float64)
    if not len(frames):
        return boxes
    names, index = np.unique(ids, return_inverse=True)
    first, last = (np.full(len(names), value) for value in (frames.max(), frames.min()))
    np.minimum.at(first, index, frames)
    np.maximum.at(last, index, frames)
    age = frames - first[index]  # all tracks begin at the same step of the recursion
    steps = int(age.max()) + 1
    measured, observed = np.tile(np.array([0.0, 0, 1, 1]), (steps, len(names), 1)), np.zeros((steps, len(names)), bool)
    measured[age, index], observed[age, index] = boxes, True
    filtered = [kalman.initiate(model, measured[0])]
    predicted = [filtered[0]]
    for t in range(1, steps):
        ahead = kalman.predict(model, filtered[-1])
        running = t <= last - first  # a track that has ended keeps its last estimate
        predicted.append(
            TrackEstimate(*(kalman.select_rows(running, a, b) for a, b in zip(ahead, filtered[-1], strict=True)))
        )
        filtered.append(kalman.update(model, predicted[-1], measured[t], observed[t]))
    smoothed = np.stack([estimate.mean[:, 0] for estimate in _smooth_running(filtered, predicted, last - first)])
    return model.to_corners(smoothed)[age, index]


def _smooth_running(filtered, predicted, lengths):
    """Smooths tracks of different lengths: the recursion of each begins at its own last frame."""
    smoothed = list(filtered)
    for t in range(len(filtered) - 2, -1, -1):
        step = kalman.smooth([filtered[t], smoothed[t + 1]], [predicted[t], predicted[t + 1]])[0]
        running = t < lengths
        smoothed[t] = TrackEstimate(
            *(kalman.select_rows(running, a, b) for a, b in zip(step, filtered[t], strict=True))
        )
    return smoothed


def _group(index: np.ndarray, count: int) -> list[np.ndarray]:
    """Returns the rows of each of `count` groups, in their order."""
    order = np.argsort(index, kind='stable')
    return np.split(order, np.bincount(index, minlength=count).cumsum()[:-1])


def _rows_by_frame(frames: np.ndarray) -> dict[int, np.ndarray]:
    values, index = np.unique(frames, return_inverse=True)
    return dict(zip(values.tolist(), _group(index, len(values)), strict=True)) if len(values) else {}


def _renumber(frames: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Numbers tracks from 1 by their first frame, then by the row there; ids of 0 remain 0."""
    result = np.zeros(len(ids), np.int32)
    rows = np.lexsort((np.arange(len(ids)), frames))
    rows = rows[ids[rows] > 0]
    names, place, index = np.unique(ids[rows], return_index=True, return_inverse=True)
    rank = np.empty(len(names), np.int32)
    rank[np.argsort(place)] = np.arange(1, len(names) + 1)
    result[rows] = rank[index]
    return result


def _fit_line(times: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Returns the position at time 0 and the velocity [2, 4] of a line through boxes [N, 4], by least squares."""
    mean = times.mean()
    spread = ((times - mean) ** 2).sum()
    velocity = ((times - mean)[:, None] * boxes).sum(0) / spread if spread else np.zeros(4)
    return np.stack([boxes.mean(0) - mean * velocity, velocity])
