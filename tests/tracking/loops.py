"""SORT and ByteTrack as their papers describe them: lists of tracks, one matrix filter each, and scipy."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from tests.tracking.matrix_filter import MatrixFilter


def box_of(filter_):
    x, y, a, b = filter_.x[:4]
    width, height = (np.sqrt(a * b), np.sqrt(a / b)) if filter_.form == 'sort' else (a * b, b)
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def overlaps(boxes, others):
    return np.array([[iou(a, b) for b in others] for a in boxes]).reshape(len(boxes), len(others))


class Track:
    def __init__(self, form, box, frame, id_=None):
        self.filter, self.id, self.begin = MatrixFilter(form, box), id_, frame
        self.last, self.streak, self.misses, self.confirmed = frame, 0, 0, False


def loop_sort(detections, min_iou=0.3, max_age=1, min_hits=3):
    tracks, table, next_id = [], {}, 1
    for frame, (boxes, valid) in enumerate(zip(detections['boxes'], detections['valid'], strict=True)):
        boxes = boxes[valid].astype(np.float64)
        for track in tracks:
            if track.misses > 0:
                track.streak = 0
            track.misses += 1
            track.filter.predict()
        matrix = overlaps([box_of(t.filter) for t in tracks], boxes)
        close = matrix > min_iou
        if matrix.size and close.sum(0).max() == 1 and close.sum(1).max() == 1:
            pairs = np.argwhere(close)
        else:
            pairs = np.array(linear_sum_assignment(-matrix)).T
        taken = set()
        for row, column in pairs:
            if matrix[row, column] >= min_iou:
                tracks[row].filter.update(boxes[column])
                tracks[row].misses = 0
                tracks[row].streak += 1
                taken.add(column)
        for column, box in enumerate(boxes):
            if column not in taken:
                tracks.append(Track('sort', box, frame, next_id))
                next_id += 1
        for track in tracks:
            if track.misses == 0 and (track.streak >= min_hits or frame + 1 <= min_hits):
                table[frame, track.id] = box_of(track.filter)
        tracks = [track for track in tracks if track.misses <= max_age]
    return table


def assign_with_limit(cost, limit):
    """Solves lapjv's augmented problem; returns the matched pairs."""
    n, m = cost.shape
    augmented = np.full((n + m, n + m), limit / 2)
    augmented[n:, m:] = 0
    augmented[:n, :m] = cost
    return [(i, j) for i, j in zip(*linear_sum_assignment(augmented), strict=True) if i < n and j < m]


def loop_byte_track(detections, high_score=0.6, low_score=0.1, max_lost=30):
    tracked, lost, table, next_id = [], [], {}, 1
    for frame in range(len(detections['boxes'])):
        valid, scores = detections['valid'][frame], detections['scores'][frame].astype(np.float64)
        boxes = detections['boxes'][frame].astype(np.float64)
        high = np.flatnonzero(valid & (scores > high_score))
        low = np.flatnonzero(valid & (scores > low_score) & (scores < high_score))
        confirmed = [t for t in tracked if t.confirmed]
        unconfirmed = [t for t in tracked if not t.confirmed]
        pool = confirmed + lost
        for track in lost:
            track.filter.x[7] = 0
        for track in pool:
            track.filter.predict()
        matched = []

        def assign(tracks, columns, limit, fused, matched=matched, boxes=boxes, scores=scores, frame=frame):
            """Assigns and updates; returns what remains of both."""
            matrix = overlaps([box_of(t.filter) for t in tracks], boxes[columns])
            pairs = assign_with_limit(1 - matrix * (scores[columns] if fused else 1), limit)
            for i, j in pairs:
                tracks[i].filter.update(boxes[columns[j]])
                tracks[i].last, tracks[i].confirmed = frame, True
                matched.append(tracks[i])
            rest = [t for i, t in enumerate(tracks) if i not in {p[0] for p in pairs}]
            return rest, np.delete(columns, [p[1] for p in pairs])

        pool, high = assign(pool, high, 0.9, True)
        still, _ = assign([t for t in pool if t in confirmed], low, 0.5, False)
        _, high = assign(unconfirmed, high, 0.7, True)
        lost = [t for t in lost if t not in matched] + still
        lost = [t for t in lost if frame - t.last <= max_lost]
        tracked = matched
        for column in high:
            if scores[column] >= high_score + 0.1:
                tracked.append(Track('deep_sort', boxes[column], frame, next_id))
                tracked[-1].confirmed = frame == 0
                next_id += 1
        same = overlaps([box_of(t.filter) for t in tracked], [box_of(t.filter) for t in lost]) > 0.85
        drop = set()
        for i, j in np.argwhere(same):
            a, b = tracked[i], lost[j]
            drop.add(b if a.last - a.begin > b.last - b.begin else a)
        tracked, lost = [t for t in tracked if t not in drop], [t for t in lost if t not in drop]
        for track in tracked:
            if track.confirmed:
                table[frame, track.id] = box_of(track.filter)
    return table
