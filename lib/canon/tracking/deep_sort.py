"""DeepSORT: appearance and motion, the most recently seen tracks first (Wojke et al. 2017)."""

from __future__ import annotations

from typing import Annotated

from canon.named import Count, Probability, Range
from canon.tracking import kalman
from canon.tracking.affinity import compute_gallery_similarity, compute_valid_iou, fuse_motion, normalize_embeddings
from canon.tracking.arrays import Array, array_module, select_rows
from canon.tracking.association import assign_cascade, assign_min_cost
from canon.tracking.kalman import CHI2_95, MotionModel, deep_sort_motion
from canon.tracking.observations import Affinity, make_observations, measure_affinity, remember_observations
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


def deep_sort(
    embedding_size: int,
    max_cosine_cost: Annotated[float, Range(0, 2)] = 0.2,
    max_iou_cost: Probability = 0.7,
    max_motion_distance: Annotated[float, Range(0)] = CHI2_95[4],
    motion_weight: Probability = 0.0,
    max_age: NumFrames = 30,
    min_hits: NumFrames = 3,
    min_score: float = 0.3,
    gallery_size: Count = 100,
    match_labels: bool = False,
    slots: Count = 128,
    motion: MotionModel | None = None,
    form: Form = 'jax',
    affinity: Affinity | None = None,
) -> Tracker:
    """Makes a DeepSORT tracker. It reads `embeddings` [D, E] of the detections.

    Confirmed tracks are assigned by appearance, those that were seen most recently first; then tentative tracks and
    confirmed ones of the last frame by IoU. A tentative track that misses a frame is removed. A confirmed track is
    reported up to one frame after its last detection.

    Args:
      embedding_size: E; 0 with an `affinity` that reads no embeddings.
      max_cosine_cost: largest 1 - cosine of a detection and the nearest embedding of the track.
      max_iou_cost: largest 1 - IoU.
      max_motion_distance: gate of the squared Mahalanobis distance, for assignments by appearance; inf has none.
      motion_weight: lambda of eq. 5, the weight of that distance in the cost; 0 in the paper's experiments.
      max_age: frames that a confirmed track may remain without detections.
      min_hits: detections in a row, the first included, that confirm a track.
      min_score: detections below it are ignored.
      gallery_size: embeddings that a track keeps, the latest.
      match_labels: a track continues only with detections of its class.
      slots: tracks that can live at once, those without detections included.
      motion: None: `kalman.deep_sort_motion()`.
      form: 'jax' or 'numpy', see `canon.tracking.tracker`.
      affinity: (tracks, detections) -> [S, D], at most 1, in place of the cosine, such as a learnt one:
        `max_cosine_cost` is the largest 1 - affinity then, and there are no galleries. See
        `canon.tracking.observations`.
    """
    model, dtype = motion or deep_sort_motion(), float_dtype(form)
    if affinity is None:
        memory = {'gallery': ((gallery_size, embedding_size), dtype), 'filled': ((), 'int32')}
    else:
        memory = make_observations(form, embedding_size)

    def step(state, detections):
        detections = read_detections(detections, form)
        xp = array_module(detections['boxes'])
        usable = detections['valid'] & (detections['scores'] >= min_score)
        count = len(usable)
        if embedding_size:
            embeddings = normalize_embeddings(xp.where(usable[:, None], detections['embeddings'], 0))
            detections = {**detections, 'embeddings': embeddings}
        state = age_tracks(state)
        predicted = kalman.predict(model, state.estimate)
        alive = state.ids > 0
        allowed = alive[:, None] & usable
        if match_labels:
            allowed = allowed & (state.labels[:, None] == detections['labels'])

        if affinity is None:
            filled = xp.arange(gallery_size) < xp.minimum(state.memory['filled'], gallery_size)[:, None]
            cost = 1 - compute_gallery_similarity(state.memory['gallery'], filled, detections['embeddings'])
        else:
            boxes = kalman.to_boxes(model, predicted)
            cost = 1 - measure_affinity(affinity, state, boxes, detections, alive, usable)
        distance = kalman.gating_distance(model, predicted, detections['boxes'])
        near = allowed & state.confirmed[:, None] & (distance <= max_motion_distance)
        if motion_weight:
            cost = fuse_motion(cost, distance, motion_weight)
        columns = assign_cascade(cost, max_cosine_cost, state.misses - 1, near)
        recent = (columns < 0) & (~state.confirmed | (state.misses == 1))
        rest = allowed & recent[:, None] & ~find_taken(columns, count)
        iou = compute_valid_iou(kalman.to_boxes(model, predicted), detections['boxes'], alive, usable)
        columns = xp.maximum(columns, assign_min_cost(1 - iou, max_iou_cost, rest))

        observed, index = columns >= 0, xp.maximum(columns, 0)
        estimate = kalman.update(model, predicted, detections['boxes'][index], observed)
        state = note_detections(state, detections, columns, estimate=estimate)
        gone = (state.misses > 0) & (~state.confirmed | (state.misses > max_age))
        state = state._replace(
            ids=xp.where(gone, 0, state.ids), confirmed=state.confirmed | (observed & (state.hits >= min_hits))
        )
        starting = usable & ~find_taken(columns, count)
        state, new, source = start_tracks(state, model, detections, starting, hits=1)
        state = state._replace(
            confirmed=state.confirmed | (new & (min_hits <= 1)),
            memory=remember(state.memory, detections, observed, new, xp.where(new, source, index)),
        )
        reported = (state.ids > 0) & state.confirmed & (state.misses <= 1)
        return state, report_tracks(state, reported, kalman.to_boxes(model, state.estimate))

    def remember(memory: dict[str, Array], detections, observed: Array, new: Array, source: Array) -> dict[str, Array]:
        """Returns the memory with the detections `source` [S]: embeddings take the place of a gallery's oldest ones."""
        if affinity is not None:
            return remember_observations(memory, detections, observed | new, source)
        embeddings = detections['embeddings'][source]
        xp = array_module(embeddings)
        filled = xp.where(new, 0, memory['filled'])
        place = filled % gallery_size
        rows = xp.arange(len(place))
        written = select_rows(observed | new, embeddings, memory['gallery'][rows, place])
        if form == 'jax':
            gallery = memory['gallery'].at[rows, place].set(written)  # in place, within a scan
        else:
            gallery = memory['gallery'].copy()
            gallery[rows, place] = written
        return {'gallery': gallery, 'filled': (filled + (observed | new)).astype(xp.int32)}

    return Tracker(lambda: make_tracker_state(form, model, slots, memory), step, form, slots, embedding_size)
