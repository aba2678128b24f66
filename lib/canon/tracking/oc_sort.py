"""OC-SORT: SORT that trusts observations more than its filter (Cao et al. 2023, "Observation-Centric SORT")."""

from __future__ import annotations

import math

from jax import lax

from canon.named import Count, NonNegative, Probability
from canon.tracking import kalman
from canon.tracking.affinity import compute_valid_iou
from canon.tracking.arrays import Array, array_module, select_rows
from canon.tracking.association import assign_gated, assign_then_gate
from canon.tracking.kalman import MotionModel, TrackEstimate, sort_motion
from canon.tracking.tracker import (
    Form,
    NumFrames,
    Tracker,
    age_tracks,
    find_taken,
    float_dtype,
    make_tracker_state,
    note_detections,
    read_detections,
    report_tracks,
    start_tracks,
)


def oc_sort(
    min_score: float = 0.6,
    min_iou: Probability = 0.3,
    max_age: NumFrames = 30,
    min_hits: NumFrames = 3,
    momentum: NonNegative = 0.2,
    momentum_frames: Count = 3,
    recover: bool = True,
    reupdate: bool = True,
    match_labels: bool = False,
    slots: Count = 128,
    motion: MotionModel | None = None,
    form: Form = 'jax',
) -> Tracker:
    """Makes an OC-SORT tracker. A track is reported at its detection, not where the filter puts it.

    Three changes to SORT (section 4): an assignment prefers detections in the direction in which a track has been
    moving (OCM); tracks that remain are assigned by the IoU of their last detections (OCR, "recovery"); and a track
    that is found again goes through a virtual straight path between both detections, which replaces what the filter
    accumulated without any (ORU, "re-update"). The first detection counts as an observation, too.

    Args:
      min_score: detections below it are ignored.
      min_iou: of pairs, in the assignment by predictions and in the recovery.
      max_age: frames that a track may remain without detections.
      min_hits: see `sort.sort`.
      momentum: weight of the direction's agreement, in -1/2..1/2, next to the IoU: lambda of eq. 5.
      momentum_frames: frames between the two detections that give a direction: delta t.
      recover: whether to assign remaining tracks by their last detections.
      reupdate: whether to replace the filter's path of a track that is found again.
      match_labels: a track continues only with detections of its class.
      slots: tracks that can live at once, those without detections included.
      motion: None: `kalman.sort_motion()`.
      form: 'jax' or 'numpy', see `canon.tracking.tracker`.
    """
    model, dtype = motion or sort_motion(), float_dtype(form)
    memory = {
        'last': ((4,), dtype),  # the box of the last detection
        'history': ((momentum_frames, 4), dtype),  # detections of the last frames, the oldest first
        'seen': ((momentum_frames,), bool),  # which of them there are
        'direction': ((2,), dtype),  # unit vector (x, y), 0 if unknown
        'anchor_mean': ((2, 4), dtype),  # the estimate after the last detection
        'anchor_covariance': ((3, 4), dtype),
    }

    def step(state, detections):
        detections = read_detections(detections, form)
        xp = array_module(detections['boxes'])
        usable = detections['valid'] & (detections['scores'] >= min_score)
        count = len(usable)
        state = age_tracks(state, hits=xp.where(state.misses > 0, 0, state.hits))
        predicted = kalman.predict(model, state.estimate)
        boxes = kalman.to_boxes(model, predicted)
        alive = (state.ids > 0) & xp.isfinite(boxes).all(-1)
        iou = compute_valid_iou(boxes, detections['boxes'], alive, usable)
        if match_labels:
            same = state.labels[:, None] == detections['labels']
            iou = xp.where(same, iou, 0)
        weights = iou
        if momentum:
            agreement = compare_directions(state.memory, detections['boxes'])
            weights = xp.where(iou > 0, iou + momentum * agreement, 0)
        columns = assign_gated(weights, iou, min_iou)
        if recover:
            unmatched, free = alive & (columns < 0), usable & ~find_taken(columns, count)
            again = compute_valid_iou(state.memory['last'], detections['boxes'], unmatched, free)
            if match_labels:
                again = xp.where(same, again, 0)
            columns = xp.maximum(columns, assign_then_gate(again, min_iou))

        observed = columns >= 0
        measured = detections['boxes'][xp.maximum(columns, 0)]
        if reupdate:
            estimate = replay(state, predicted, measured, observed)
        else:
            estimate = kalman.update(model, predicted, measured, observed)
        state = state._replace(estimate=estimate, ids=xp.where(alive, state.ids, 0))
        state = note_detections(state, detections, columns)
        starting = usable & ~find_taken(columns, count)
        state, new, source = start_tracks(state, model, detections, starting, hits=0)
        observation = select_rows(new, detections['boxes'][source], measured)
        state = state._replace(memory=remember(state, observed, new, observation))
        steady = (state.hits >= min_hits) | (state.frame <= min_hits)
        tracks = report_tracks(state, (state.ids > 0) & (state.misses == 0) & steady, state.memory['last'])
        return state._replace(ids=xp.where(state.misses > max_age, 0, state.ids)), tracks

    def replay(state, predicted, measured, observed):
        """Filters the virtual path from the last detection to the new one, eq. 4; of one frame, where none is missing.

        All tracks go at once, each for as many frames as it was without a detection.
        """
        xp = array_module(measured)
        anchor = TrackEstimate(state.memory['anchor_mean'], state.memory['anchor_covariance'])
        gaps = xp.where(observed, state.misses, 0)
        last = state.memory['last']
        start = TrackEstimate(*(select_rows(observed, a, b) for a, b in zip(anchor, predicted, strict=True)))

        def advance(frame, estimate):
            share = (frame / xp.maximum(gaps, 1)).astype(dtype)[:, None]
            virtual = last + xp.where(share < 1, share, 1) * (measured - last)
            ahead = kalman.update(model, kalman.predict(model, estimate), virtual)
            active = frame <= gaps
            return TrackEstimate(*(select_rows(active, a, b) for a, b in zip(ahead, estimate, strict=True)))

        if form == 'jax':
            return lax.fori_loop(1, gaps.max() + 1, advance, start)
        for frame in range(1, int(gaps.max()) + 1):
            start = advance(frame, start)
        return start

    def remember(state, observed, new, observation):
        """Returns the memory after a frame: the detection joins the history, and gives a direction."""
        xp = array_module(observation)
        memory, present = state.memory, observed | new
        history, seen = memory['history'], memory['seen'] & ~new[:, None]
        # The earliest detection of the last frames; before them, whatever was the last one.
        earliest = xp.take_along_axis(history, seen.argmax(1)[:, None, None], 1)[:, 0]
        earlier = xp.where(seen.any(1)[:, None], earliest, memory['last'])
        direction = unit_vectors(centers(observation) - centers(earlier))
        direction = xp.where(new[:, None], 0, select_rows(observed, direction, memory['direction']))
        return {
            'last': select_rows(present, observation, memory['last']),
            'history': xp.concatenate([history[:, 1:], observation[:, None]], 1),
            'seen': xp.concatenate([seen[:, 1:], present[:, None]], 1),
            'direction': direction,
            'anchor_mean': select_rows(present, state.estimate.mean, memory['anchor_mean']),
            'anchor_covariance': select_rows(present, state.estimate.covariance, memory['anchor_covariance']),
        }

    return Tracker(lambda: make_tracker_state(form, model, slots, memory), step, form, slots)


def centers(boxes: Array) -> Array:
    """Returns the centres (x, y) of corner boxes [..., 4]."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def unit_vectors(vectors: Array) -> Array:
    """Scales vectors [..., 2] to unit length; zeros remain zeros."""
    xp = array_module(vectors)
    length = xp.sqrt((vectors**2).sum(-1, keepdims=True))
    return vectors / xp.where(length > 0, length, 1)


def compare_directions(memory: dict[str, Array], boxes: Array) -> Array:
    """Measures how well detections [M, 4] lie in the direction of tracks: (pi / 2 - angle) / pi, in -1/2..1/2, [N, M].

    The direction to a detection is that from the earliest detection that `memory` has of the last frames, or from the
    last one. It is 0 for a track that has not moved.
    """
    xp = array_module(boxes)
    seen = memory['seen']
    earliest = xp.take_along_axis(memory['history'], seen.argmax(1)[:, None, None], 1)[:, 0]
    origin = xp.where(seen.any(1)[:, None], earliest, memory['last'])
    towards = unit_vectors(centers(boxes)[None] - centers(origin)[:, None])
    cosine = (towards * memory['direction'][:, None]).sum(-1)
    moving = (memory['direction'] != 0).any(-1)
    return xp.where(moving[:, None], (math.pi / 2 - xp.arccos(xp.clip(cosine, -1, 1))) / math.pi, 0)
