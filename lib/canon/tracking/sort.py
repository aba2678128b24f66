"""SORT: IoU with boxes that a Kalman filter predicts, assigned frame by frame (Bewley et al. 2016)."""

from __future__ import annotations

from canon.named import Count, Probability
from canon.tracking import kalman
from canon.tracking.affinity import compute_valid_iou
from canon.tracking.arrays import array_module, take_rows
from canon.tracking.association import Rule, associate
from canon.tracking.kalman import MotionModel, sort_motion
from canon.tracking.observations import Affinity, make_observations, measure_affinity, remember_observations
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


def sort(
    min_iou: Probability = 0.3,
    max_age: NumFrames = 1,
    min_hits: NumFrames = 3,
    min_score: float | None = None,
    match_labels: bool = False,
    slots: Count = 64,
    motion: MotionModel | None = None,
    form: Form = 'jax',
    affinity: Affinity | None = None,
    embedding_size: int = 0,
    association: Rule = 'exact',
) -> Tracker:
    """Makes a SORT tracker. A track is reported in frames in which it has a detection, as the filter corrected it.

    Args:
      min_iou: of a prediction and the detection that is assigned to it.
      max_age: frames that a track may remain without detections.
      min_hits: consecutive detections, after the first, before a track is reported; in the first `min_hits` frames of a
        sequence all are.
      min_score: detections below it are ignored. None: all are used.
      match_labels: a track continues only with detections of its class.
      slots: tracks that can live at once; about twice the number of objects.
      motion: None: `kalman.sort_motion()`.
      form: 'jax' or 'numpy', see `canon.tracking.tracker`.
      affinity: (tracks, detections) -> [S, D] in place of the IoU, such as a learnt one; `min_iou` is its gate then.
        See `canon.tracking.observations`.
      embedding_size: of the embeddings of the detections that `affinity` compares; 0 if it reads none.
      association: rule of the assignment, see `canon.tracking.association.associate`; 'exact' in the paper.
    """
    model = motion or sort_motion()
    memory = {} if affinity is None else make_observations(form, embedding_size)

    def step(state, detections):
        detections = read_detections(detections, form)
        xp = array_module(detections['boxes'])
        usable = detections['valid'] if min_score is None else detections['valid'] & (detections['scores'] >= min_score)
        # A miss ends the series of detections when the next frame is predicted.
        state = age_tracks(state, hits=state.hits * (state.misses == 0))
        predicted = kalman.predict(model, state.estimate)
        boxes = kalman.to_boxes(model, predicted)
        alive = (state.ids > 0) & xp.isfinite(boxes[:, 2] + boxes[:, 3])  # the sizes; centres always are
        if affinity is None:
            iou = compute_valid_iou(boxes, detections['boxes'], alive, usable)
        else:
            iou = measure_affinity(affinity, state, boxes, detections, alive, usable)
        if match_labels:
            iou = xp.where(state.labels[:, None] == detections['labels'], iou, 0)
        columns = associate(association, iou, min_iou, state.misses - 1)
        observed = columns >= 0
        estimate = kalman.update(model, predicted, take_rows(detections['boxes'], xp.maximum(columns, 0)), observed)
        state = note_detections(state, detections, columns, estimate=estimate, ids=state.ids * alive)
        starting = usable & ~find_taken(columns, len(usable))
        state, new, source = start_tracks(state, model, detections, starting, hits=0)
        if memory:
            source = xp.where(new, source, xp.maximum(columns, 0))
            state = state._replace(memory=remember_observations(state.memory, detections, new | observed, source))
        steady = (state.hits >= min_hits) | (state.frame <= min_hits)
        tracks = report_tracks(
            state, (state.ids > 0) & (state.misses == 0) & steady, kalman.to_boxes(model, state.estimate)
        )
        return state._replace(ids=state.ids * (state.misses <= max_age)), tracks

    return Tracker(lambda: make_tracker_state(form, model, slots, memory), step, form, slots, embedding_size)
