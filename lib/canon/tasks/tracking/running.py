"""Tracks sequences: detections, appearance, a tracker or min-cost flow, and steps after the last frame.

system = TrackingSystem(tracking.byte_track(form='numpy'), steps=(link(), interpolate()))
table, seconds = run_system(system, sequence)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from canon import named, tracking
from canon.data.tracking import TrackSequence, TrackTable, concatenate_tables, flatten_frames, make_table, pad_frames
from canon.errors import CanonError, UsageError
from canon.tasks.tracking.association_pairs import name_detections
from canon.tracking import Tracker

Step = Callable[[TrackTable], TrackTable]
TRACKERS = named.Catalogue('tracker', ('canon.tracking',), lambda function: named.get_return_type(function) is Tracker)


@dataclass(frozen=True)
class DetectionInput:
    """config.detections: which detections the tracker is given.

    Attributes:
      min_score: detections of a lower score are dropped; none by default, since the scores of public detectors such as
        DPM and ACF are of both signs. Those of a trained detector have at least 0.05.
      most: detections per frame, those of the highest scores; None takes all.
    """

    min_score: float = float('-inf')
    most: named.Count | None = None


class TrackingSystem(NamedTuple):
    """A function from a sequence to its tracks, in parts: detections, appearance, a tracker and steps after it.

    Attributes:
      tracker: online; None where the first step is `track_flow`.
      steps: functions of the table of a whole sequence, in order.
      detect: returns the detections of a sequence; None takes those of the data set.
      class_names: of `detect`, for sequences that name no classes; None if there is no detector.
      embed: adds `embeddings` to padded detections, (sequence, detections) -> detections; None adds none.
      given: which detections there are for the embedding, the tracker and the steps; the others are dropped first.
    """

    tracker: Tracker | None
    steps: Sequence[Step] = ()
    detect: Callable[[TrackSequence], TrackTable] | None = None
    embed: Callable[[TrackSequence, Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    given: DetectionInput = DetectionInput()
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class SimulatedAppearance:
    """config.appearance without a trained network: noisy codes of the true identities, for sequences with truth.

    The embedding of a detection is the unit vector of its object plus noise, that of clutter is noise alone. It is an
    idealised network whose quality is one number: `noise` is the expected length of the noise added to a unit vector,
    so that the cosine of two detections of one object is about 1 / (1 + noise^2).

    Attributes:
      size: of the embeddings.
      noise: its expected length.
      seed: of codes and noise.
    """

    size: named.Count = 16
    noise: named.NonNegative = 0.5
    seed: int = 0


def run_system(system: TrackingSystem, sequence: TrackSequence) -> tuple[TrackTable, float]:
    """Tracks one sequence.

    Returns:
      (tracks with ids from 1, seconds of the tracker and the steps; a JAX tracker has been compiled before).

    Raises:
      UsageError: the sequence has no detections, or the tracker needs embeddings and there are none.
      CanonError: the tracker had too few slots.
    """
    table = find_detections(system, sequence)
    return track_detections(system, sequence, select_detections(table, sequence.info.length, system.given))


def track_detections(system: TrackingSystem, sequence: TrackSequence, table: TrackTable) -> tuple[TrackTable, float]:
    """Tracks detections that are selected already: the last part of `run_system`, which documents result and errors.

    Args:
      system: whose `detect` and `given` are not read.
      sequence: that the detections are of; its own are not read.
      table: the detections.
    """
    if system.tracker is not None:
        table, seconds = _run_tracker(system, sequence, table)
    else:
        seconds = 0.0
    began = time.perf_counter()
    for step in system.steps:
        table = step(table)
    return table, seconds + time.perf_counter() - began


def find_detections(system: TrackingSystem, sequence: TrackSequence) -> TrackTable:
    """Returns all detections of a sequence: of the detector, or else of the data set.

    Raises UsageError if there are none.
    """
    table = sequence.detections if system.detect is None else system.detect(sequence)
    if table is None:
        raise UsageError(
            f'the sequence {sequence.info.name} has no detections; add them (det/det.txt in MOTChallenge), or give a '
            'trained detector: --config.detector.run=FOLDER'
        )
    return table


def select_detections(table: TrackTable, length: int, given: DetectionInput) -> TrackTable:
    """Selects the detections that a tracker is given, see `DetectionInput`.

    Args:
      table: of all detections of a sequence.
      length: number of frames.
      given: what is selected.
    """
    table = table.select(table.scores >= given.min_score)
    return table if given.most is None else flatten_frames(pad_frames(table, length, given.most, overflow='count'))


def describe_dropped(given: DetectionInput, kept: int, total: int) -> str:
    """Returns a line that says how many detections `select_detections` has dropped, '' for none.

    Args:
      given: what it was given.
      kept: number of detections that it has returned.
      total: number of all detections.

    >>> describe_dropped(DetectionInput(min_score=0.3), 90, 120)
    'detections.min_score=0.3 dropped 30 of 120 detections'
    """
    if kept == total:
        return ''
    limits = [] if given.min_score == float('-inf') else [f'detections.min_score={given.min_score:g}']
    limits += [] if given.most is None else [f'detections.most={given.most}']
    return f'{" and ".join(limits)} dropped {total - kept} of {total} detections'


def _run_tracker(system: TrackingSystem, sequence: TrackSequence, table: TrackTable) -> tuple[TrackTable, float]:
    tracker, length = system.tracker, sequence.info.length
    assert tracker is not None
    detections: Mapping[str, Any] = pad_frames(table, length)
    if system.embed is not None:
        detections = system.embed(sequence, detections)
    elif tracker.embedding_size:
        raise UsageError(
            'the tracker compares appearances: give --config.appearance.run=FOLDER of a track_embedding run, or '
            "appearance=dict(name='SimulatedAppearance') where the truth is known"
        )
    run = partial(tracking.run, tracker)
    if tracker.form == 'jax':
        run = jax.jit(run)
        jax.block_until_ready(run(detections))  # compiled for this length before the clock starts
    began = time.perf_counter()
    state, tracks = jax.block_until_ready(run(detections))
    seconds = time.perf_counter() - began
    if int(state.dropped):
        raise CanonError(
            f'{sequence.info.name}: {int(state.dropped)} tracks were dropped since all {tracker.slots} slots were '
            f'taken; set --config.tracker.slots={2 * tracker.slots}, or give the tracker fewer detections with '
            '--config.detections.min_score=0.3 or --config.detections.most=50'
        )
    return flatten_frames(tracks), seconds


def simulate_embeddings(
    settings: SimulatedAppearance, sequence: TrackSequence, detections: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Adds the `embeddings` float32 [T, D, E] that `SimulatedAppearance` describes to padded detections.

    Raises UsageError if the sequence has no truth.
    """
    if sequence.truth is None:
        raise UsageError(f'{sequence.info.name} has no truth to simulate appearances from; give appearance.run=FOLDER')
    objects = name_detections(sequence.truth, dict(detections))
    rng = np.random.default_rng((settings.seed, *sequence.info.name.encode()))
    codes = rng.normal(size=(objects.max(initial=-1) + 2, settings.size))
    codes /= np.linalg.norm(codes, axis=-1, keepdims=True)
    codes[-1] = 0  # clutter, of index -1, is noise alone
    noise = rng.normal(size=(*objects.shape, settings.size)) / np.sqrt(settings.size)
    # Clutter of a noiseless network still looks like something.
    strength = np.where(objects >= 0, settings.noise, 1.0)[..., None]
    return {**detections, 'embeddings': (codes[objects] + strength * noise).astype(np.float32)}


@named.takes_arguments_of(tracking.track_by_flow, without=('frames', 'boxes', 'scores'))
def track_flow(**arguments: Any) -> Step:
    """Makes the step that tracks detections by min-cost flow, see `canon.tracking.track_by_flow`."""

    def step(table):
        ids = tracking.track_by_flow(table.frames, table.boxes, table.scores, **arguments)
        return table._replace(ids=ids.astype(np.int32)).select(ids > 0)

    return step


@named.takes_arguments_of(tracking.link_tracklets, without=('frames', 'ids', 'boxes'))
def link(**arguments: Any) -> Step:
    """Makes the step that joins tracklets of one object, see `canon.tracking.link_tracklets`."""
    return lambda table: table._replace(ids=tracking.link_tracklets(table.frames, table.ids, table.boxes, **arguments))


@named.takes_arguments_of(tracking.interpolate_gaps, without=('frames', 'ids', 'boxes'))
def interpolate(**arguments: Any) -> Step:
    """Makes the step that fills gaps, see `canon.tracking.interpolate_gaps`.

    A filled box has the mean score of its track, and its first class.
    """

    def step(table):
        frames, ids, boxes, added = tracking.interpolate_gaps(table.frames, table.ids, table.boxes, **arguments)
        if not added.any():
            return table
        names, first, index = np.unique(table.ids, return_index=True, return_inverse=True)
        own = np.searchsorted(names, ids[added])
        scores = (np.bincount(index, table.scores) / np.bincount(index))[own]
        filled = make_table(frames[added], ids[added], boxes[added], scores, table.labels[first[own]])
        return make_table(*concatenate_tables([table, filled]))

    return step


def smooth() -> Step:
    """Makes the step that smooths boxes, see `canon.tracking.smooth_tracks`."""
    return lambda table: table._replace(boxes=tracking.smooth_tracks(table.frames, table.ids, table.boxes))


STEPS: dict[str, Callable[..., Step]] = {
    'flow': track_flow,
    'link': link,
    'interpolate': interpolate,
    'smooth': smooth,
}
