"""ByteTrack: detections of low score continue tracks that no other detection continues (Zhang et al. 2022)."""

from __future__ import annotations

from canon.named import Count, NonNegative, Positive, Probability
from canon.tracking import kalman
from canon.tracking.affinity import compute_iou, compute_valid_iou, fuse_score
from canon.tracking.arrays import array_module, select_rows
from canon.tracking.association import assign_min_cost
from canon.tracking.kalman import MotionModel, TrackEstimate, deep_sort_motion
from canon.tracking.tracker import (
    Form,
    NumFrames,
    Tracker,
    age_tracks,
    find_taken,
    make_tracker_state,
    note_detections,
    read_detections,
    report_tracks,
    start_tracks,
)


def byte_track(
    high_score: float = 0.6,
    low_score: float = 0.1,
    new_score_margin: NonNegative = 0.1,
    max_cost: Probability = 0.9,
    max_cost_low: Probability = 0.5,
    max_cost_unconfirmed: Probability = 0.7,
    use_scores: bool = True,
    max_lost: NumFrames = 30,
    max_duplicate_iou: Probability = 0.85,
    max_aspect: Positive | None = None,
    min_area: NonNegative = 0.0,
    match_labels: bool = False,
    slots: Count = 128,
    motion: MotionModel | None = None,
    form: Form = 'jax',
) -> Tracker:
    """Makes a ByteTrack tracker, with the behaviour and the defaults of the published code on MOT17.

    Per frame: tracks and lost tracks are assigned to detections of high score; tracks (not lost ones) that remain to
    those of low score; unconfirmed tracks, which have one detection, to the high ones that remain. What is left of
    these starts tracks, which are confirmed, and reported, with their second detection in a row; those of the first
    frame at once. A limit of cost is the largest 1 - IoU (times the score) of a pair, so a *larger* value matches more.

    Args:
      high_score: detections above it are of high score.
      low_score: detections between it and `high_score` are of low score.
      new_score_margin: a track starts from a detection of at least `high_score` plus this.
      max_cost: of the first assignment, in 1 - IoU score.
      max_cost_low: of the second, in 1 - IoU.
      max_cost_unconfirmed: of unconfirmed tracks, in 1 - IoU score.
      use_scores: multiplies the IoU of the first and third assignment by the score; the published code does not for
        MOT20.
      max_lost: frames that a track may be lost; the published code scales 30 by frames per second / 30.
      max_duplicate_iou: of a track and a lost one; above it the younger of both is removed.
      max_aspect: wider boxes, by width / height, are not reported: 1.6 for pedestrians. None: all are.
      min_area: smaller boxes, in square pixels, are not reported: 100 in the published evaluation.
      match_labels: a track continues only with detections of its class.
      slots: tracks that can live at once, lost ones included.
      motion: None: `kalman.deep_sort_motion()`.
      form: 'jax' or 'numpy', see `canon.tracking.tracker`.
    """
    model = motion or deep_sort_motion()

    def stop_growth(estimate, lost):
        """Sets the velocity of a lost track's last coordinate, the height, to 0."""
        xp = array_module(estimate.mean)
        growth = (xp.arange(2)[:, None] == 1) & (xp.arange(4) == 3)
        return estimate._replace(mean=xp.where(lost[:, None, None] & growth, 0, estimate.mean))

    def step(state, detections):
        detections = read_detections(detections, form)
        xp = array_module(detections['boxes'])
        scores, count = detections['scores'], len(detections['scores'])
        high = detections['valid'] & (scores > high_score)
        low = detections['valid'] & (scores > low_score) & (scores < high_score)
        alive, lost = state.ids > 0, state.misses > 0
        unconfirmed = alive & ~state.confirmed
        pool = alive & state.confirmed
        # The published code predicts no track before it is confirmed.
        ahead = kalman.predict(model, stop_growth(state.estimate, pool & lost))
        estimate = TrackEstimate(*(select_rows(pool, a, b) for a, b in zip(ahead, state.estimate, strict=True)))
        iou = compute_valid_iou(kalman.to_boxes(model, estimate), detections['boxes'], alive, high | low)
        if match_labels:
            iou = xp.where(state.labels[:, None] == detections['labels'], iou, 0)
        fused = fuse_score(iou, scores) if use_scores else iou

        columns = assign_min_cost(1 - fused, max_cost, pool[:, None] & high)
        rest = pool & ~lost & (columns < 0)
        second = assign_min_cost(1 - iou, max_cost_low, rest[:, None] & low)
        free = high & ~find_taken(columns, count)
        third = assign_min_cost(1 - fused, max_cost_unconfirmed, unconfirmed[:, None] & free)
        columns = xp.maximum(xp.maximum(columns, second), third)  # each row has one match at most; -1 is none

        estimate = kalman.update(model, estimate, detections['boxes'][xp.maximum(columns, 0)], columns >= 0)
        state = note_detections(age_tracks(state, estimate=estimate), detections, columns)
        gone = (unconfirmed & (columns < 0)) | (state.misses > max_lost)
        state = state._replace(
            ids=xp.where(gone, 0, state.ids),
            confirmed=state.confirmed | (unconfirmed & (columns >= 0)),
        )
        starting = free & ~find_taken(third, count) & (scores >= high_score + new_score_margin)
        state, new, _ = start_tracks(state, model, detections, starting, hits=1)
        begin = xp.where(new, state.frame, state.memory['begin'])
        state = state._replace(confirmed=state.confirmed | (new & (state.frame == 1)), memory={'begin': begin})
        state = remove_duplicates(state)
        boxes = kalman.to_boxes(model, state.estimate)
        reported = (state.ids > 0) & state.confirmed & (state.misses == 0)
        width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        if max_aspect is not None:
            reported = reported & (width <= max_aspect * height)
        if min_area:
            reported = reported & (width * height >= min_area)
        return state, report_tracks(state, reported, boxes)

    def remove_duplicates(state):
        """Removes the younger of a track and a lost track at the same place; of equal age, the track."""
        xp = array_module(state.ids)
        alive, lost = state.ids > 0, state.misses > 0
        if form == 'numpy' and not (alive & lost).any():
            return state
        boxes = kalman.to_boxes(model, state.estimate)
        same = (compute_iou(boxes, boxes) > max_duplicate_iou) & (alive & ~lost)[:, None] & (alive & lost)
        age = state.frame - state.misses - state.memory['begin']  # between the first and the last detection
        older = age[:, None] > age
        removed = (same & ~older).any(1) | (same & older).any(0)
        return state._replace(ids=xp.where(removed, 0, state.ids))

    return Tracker(lambda: make_tracker_state(form, model, slots, {'begin': ((), 'int32')}), step, form, slots)
