"""DeepSORT and OC-SORT as their papers describe them: lists of tracks, one matrix filter each, and scipy."""

import copy

import numpy as np
from scipy.optimize import linear_sum_assignment

from tests.tracking.loops import Track, assign_with_limit, box_of, overlaps


def unit(vector):
    norm = np.sqrt((vector**2).sum())
    return vector / norm if norm > 0 else vector


def loop_deep_sort(detections, max_cosine_cost=0.2, max_age=30, min_hits=3, min_score=0.3, gallery_size=100):
    """Wojke et al. 2017: section 2.2 and 2.3, and the matching cascade of listing 1."""
    tracks, table, next_id = [], {}, 1
    for frame in range(len(detections['boxes'])):
        usable = detections['valid'][frame] & (detections['scores'][frame] >= min_score)
        boxes = detections['boxes'][frame][usable].astype(np.float64)
        codes = [unit(code) for code in detections['embeddings'][frame][usable].astype(np.float64)]
        for track in tracks:
            track.filter.predict()
            track.misses += 1
        matched, free = {}, list(range(len(boxes)))
        for age in range(1, max_age + 1):
            level = [t for t in tracks if t.confirmed and t.misses == age]
            if not level or not free:
                continue
            cost = np.full((len(level), len(free)), 1e5)
            for i, track in enumerate(level):
                for j, column in enumerate(free):
                    if track.filter.distance(boxes[column]) <= 9.4877:  # 95 % of chi-squared, 4 degrees of freedom
                        cost[i, j] = 1 - max(code @ codes[column] for code in track.gallery)
            pairs = assign_with_limit(cost, max_cosine_cost)
            matched |= {level[i]: free[j] for i, j in pairs}
            free = [column for column in free if column not in matched.values()]
        rest = [t for t in tracks if t not in matched and (not t.confirmed or t.misses == 1)]
        if rest and free:
            cost = 1 - overlaps([box_of(t.filter) for t in rest], boxes[free])
            pairs = assign_with_limit(cost, 0.7)
            matched |= {rest[i]: free[j] for i, j in pairs}
        for track, column in matched.items():
            track.filter.update(boxes[column])
            track.gallery = [*track.gallery, codes[column]][-gallery_size:]
            track.misses, track.streak = 0, track.streak + 1
            track.confirmed = track.confirmed or track.streak >= min_hits
        tracks = [t for t in tracks if t.misses == 0 or (t.confirmed and t.misses <= max_age)]
        for column, box in enumerate(boxes):
            if column not in matched.values():
                track = Track('deep_sort', box, frame, next_id)
                track.gallery, track.streak = [codes[column]], 1
                tracks.append(track)
                next_id += 1
        for track in tracks:
            if track.confirmed and track.misses <= 1:
                table[frame, track.id] = box_of(track.filter)
    return table


def center(box):
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def find_earlier(track, frame, span=3):
    """The observation that a direction starts from: the earliest of the last `span` frames, or the last of all."""
    for before in range(span, 0, -1):
        if frame - before in track.observations:
            return track.observations[frame - before]
    return track.observations[max(track.observations)]


def measure_consistency(track, box, frame):
    """The agreement of the track's direction with that to a detection, (pi / 2 - angle) / pi: section 4.2, eq. 5."""
    if track.direction is None or not track.direction.any():
        return 0.0
    towards = unit(center(box) - center(find_earlier(track, frame)))
    return (np.pi / 2 - np.arccos(np.clip(towards @ track.direction, -1, 1))) / np.pi


def match_or_assign(weights, gate, min_iou):
    """Takes pairs above the gate if no two compete, as SORT's code does, else the assignment of most weight."""
    close = gate > min_iou
    if close.any() and close.sum(0).max() == 1 and close.sum(1).max() == 1:
        return np.argwhere(close)
    pairs = np.array(linear_sum_assignment(-weights)).T
    return [(i, j) for i, j in pairs if gate[i, j] >= min_iou]


def loop_oc_sort(detections, min_score=0.6, min_iou=0.3, max_age=30, min_hits=3, momentum=0.2):
    """Cao et al. 2023, section 4: momentum (OCM), recovery (OCR) and re-update (ORU)."""
    tracks, table, next_id = [], {}, 1
    for frame in range(len(detections['boxes'])):
        usable = detections['valid'][frame] & (detections['scores'][frame] >= min_score)
        boxes = detections['boxes'][frame][usable].astype(np.float64)
        for track in tracks:
            if track.misses > 0:
                track.streak = 0
            track.misses += 1
            track.filter.predict()
        iou = overlaps([box_of(t.filter) for t in tracks], boxes)
        agreement = np.array([[measure_consistency(t, box, frame) for box in boxes] for t in tracks]).reshape(iou.shape)
        weights = np.where(iou > 0, np.maximum(iou + momentum * agreement, 0), 0)
        matched = {tracks[i]: j for i, j in match_or_assign(weights, iou, min_iou)}
        rest = [t for t in tracks if t not in matched]
        free = [j for j in range(len(boxes)) if j not in matched.values()]
        if rest and free:
            again = overlaps([t.observations[max(t.observations)] for t in rest], boxes[free])
            matched |= {rest[i]: free[j] for i, j in match_or_assign(again, again, min_iou)}
        for track, column in matched.items():
            last = max(track.observations)
            reupdate(track, track.observations[last], boxes[column], frame - last)
            track.direction = unit(center(boxes[column]) - center(find_earlier(track, frame)))
            track.observations[frame] = boxes[column]
            track.misses, track.streak = 0, track.streak + 1
        for column, box in enumerate(boxes):
            if column not in matched.values():
                track = Track('sort', box, frame, next_id)
                track.observations, track.direction = {frame: box}, None
                track.anchor = copy.deepcopy(track.filter)
                tracks.append(track)
                next_id += 1
        for track in tracks:
            if track.misses == 0 and (track.streak >= min_hits or frame + 1 <= min_hits):
                table[frame, track.id] = track.observations[frame]
        tracks = [t for t in tracks if t.misses <= max_age]
    return table


def reupdate(track, last, box, gap):
    """Filters again from the last observation along the straight line to the new one, eq. 4."""
    track.filter = copy.deepcopy(track.anchor)
    for step in range(1, gap + 1):
        track.filter.predict()
        track.filter.update(last + step / gap * (box - last))
    track.anchor = copy.deepcopy(track.filter)
