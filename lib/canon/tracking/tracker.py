"""Online trackers as pure functions over fixed slots, and the bookkeeping that all of them share.

A tracker has a form for numpy (`form='numpy'`: float64, one frame after the other on the host, nothing to compile) and
one for JAX (`form='jax'`: float32, a whole sequence is one `lax.scan`, many sequences one `vmap`). Both run the same
code with all tracks batched; only the search for an assignment differs, see `canon.tracking.association`.

Detections of a frame: `boxes` [D, 4], `scores` [D], `labels` int32 [D], `valid` bool [D], and `embeddings` [D, E] where
the tracker compares appearances. Tracks of a frame: `boxes` [S, 4], `ids` int32 [S], `scores` [S], `labels` int32 [S],
`valid` bool [S]; ids count from 1 in each state, and are 0 where not valid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Annotated, Any, Literal, NamedTuple

import jax.core as jax_core
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon.errors import UsageError
from canon.named import Range
from canon.tracking import kalman
from canon.tracking.arrays import Array, array_module, nth_true, put_rows, take_rows
from canon.tracking.kalman import MotionModel, TrackEstimate

Form = Literal['jax', 'numpy']
NumFrames = Annotated[int, Range(0)]
KEYS = ('boxes', 'scores', 'labels', 'valid')


class TrackerState(NamedTuple):
    """State of a tracker after a frame.

    Attributes:
      estimate: of S slots.
      ids: int32 [S], 0 for a free slot.
      scores: [S], of the last detection.
      labels: int32 [S], of the last detection.
      misses: int32 [S], frames since the last detection.
      hits: int32 [S], detections in a row or in all, as the tracker counts them.
      confirmed: bool [S].
      memory: further arrays [S, ...] of the tracker.
      frame: int32, frames so far.
      next_id: int32.
      dropped: int32, detections that would have started tracks but found all slots taken. It should remain 0.
    """

    estimate: TrackEstimate
    ids: Array
    scores: Array
    labels: Array
    misses: Array
    hits: Array
    confirmed: Array
    memory: dict[str, Array]
    frame: Array
    next_id: Array
    dropped: Array


class Tracker(NamedTuple):
    """A tracker: `init() -> state`, `step(state, detections) -> (state, tracks)`.

    Attributes:
      init: returns the state before the first frame.
      step: processes the detections of one frame.
      form: of arrays, 'jax' or 'numpy'.
      slots: S, the number of tracks that can live at once.
      embedding_size: E, of detections; 0 if the tracker reads no embeddings.
    """

    init: Callable[[], TrackerState]
    step: Callable[[TrackerState, Mapping[str, Array]], tuple[TrackerState, dict[str, Array]]]
    form: Form
    slots: int
    embedding_size: int = 0


def run(
    tracker: Tracker, detections: Mapping[str, Array], state: TrackerState | None = None
) -> tuple[TrackerState, dict[str, Array]]:
    """Tracks a sequence; the JAX form is one `lax.scan`.

    Works within `jax.jit` and `jax.vmap`; a program that is called more than once should be jitted:
    `jax.jit(functools.partial(run, tracker))`.

    Args:
      tracker: of either form.
      detections: of T frames, arrays [T, D, ...].
      state: to continue from, None for a new sequence.

    Returns:
      (the last state, tracks [T, S, ...]).

    Raises:
      UsageError: a key is missing, shapes disagree, or a valid box has NaN or a negative size.
    """
    _check_detections(tracker, detections)
    keys = (*KEYS, 'embeddings') if tracker.embedding_size else KEYS
    detections = {key: detections[key] for key in keys}
    state = tracker.init() if state is None else state
    if tracker.form == 'jax':
        return lax.scan(tracker.step, state, {key: jnp.asarray(value) for key, value in detections.items()})
    # Of all frames at once: `read_detections` need not convert each.
    detections = {key: np.asarray(value, precision_of(key, tracker.form)) for key, value in detections.items()}
    frames = []
    for t in range(len(detections['boxes'])):
        state, tracks = tracker.step(state, {key: value[t] for key, value in detections.items()})
        frames.append(tracks)
    if not frames:  # the shapes are those of any frame
        empty = {key: np.zeros((1, *np.shape(value)[2:]), np.asarray(value).dtype) for key, value in detections.items()}
        return state, {key: value[None][:0] for key, value in tracker.step(tracker.init(), empty)[1].items()}
    return state, {key: np.array([tracks[key] for tracks in frames]) for key in frames[0]}


def make_tracker_state(
    form: Form, motion: MotionModel, slots: int, memory: Mapping[str, tuple] | None = None
) -> TrackerState:
    """Returns the state of a tracker without tracks.

    Args:
      form: 'jax' or 'numpy'.
      motion: of the tracks.
      slots: S.
      memory: {name: (shape after [S], dtype)} of the tracker's further arrays, which begin as zeros.
    """
    if form not in ('jax', 'numpy'):
        raise UsageError(f"form is 'jax' or 'numpy', not {form!r}")
    if slots < 1:
        raise UsageError(f'slots is the number of tracks that can live at once, at least 1, not {slots}')
    xp, dtype = array_module_of(form), float_dtype(form)
    # Free slots hold a box of one pixel: their arithmetic, which nobody reads, is finite.
    unit = xp.broadcast_to(xp.asarray([0, 0, 1, 1], dtype), (slots, 4))
    integers = [xp.zeros(slots, xp.int32) for _ in range(4)]
    counters = [xp.asarray(value, xp.int32) for value in (0, 1, 0)]
    arrays = {name: xp.zeros((slots, *shape), kind) for name, (shape, kind) in (memory or {}).items()}
    ids, labels, misses, hits = integers
    return TrackerState(
        kalman.initiate(motion, unit), ids, xp.zeros(slots, dtype), labels, misses, hits, xp.zeros(slots, bool), arrays,
        *counters,
    )  # fmt: skip


def array_module_of(form: Form) -> ModuleType:
    return np if form == 'numpy' else jnp


def float_dtype(form: Form) -> type:
    return np.float64 if form == 'numpy' else np.float32


def precision_of(key: str, form: Form) -> type | None:
    """Returns the dtype of an array of detections, None for those of integers and bool, which keep theirs."""
    return float_dtype(form) if key in ('boxes', 'scores', 'embeddings') else None


def read_detections(detections: Mapping[str, Array], form: Form) -> dict[str, Array]:
    """Returns the detections of a frame in the precision of the form, with at least one row: an index needs one."""
    xp = array_module_of(form)
    arrays = {key: xp.asarray(value, precision_of(key, form)) for key, value in detections.items()}
    if not len(arrays['valid']):
        arrays = {key: xp.zeros((1, *value.shape[1:]), value.dtype) for key, value in arrays.items()}
    # What is not valid may hold anything; NaN would pass through products with masks.
    arrays['boxes'] = put_rows(arrays['boxes'], ~arrays['valid'], 0)
    return arrays


def find_taken(columns: Array, count: int) -> Array:
    """Returns bool [D]: which columns [N] of an association match some row."""
    if array_module(columns) is np:
        taken = np.zeros(count + 1, bool)
        taken[columns] = True  # the further one is that of -1
        return taken[:-1]
    return (columns[:, None] == jnp.arange(count, dtype=columns.dtype)).any(0)


def age_tracks(state: TrackerState, **changes: Any) -> TrackerState:
    """Counts one more frame and one more miss, which a detection then takes back; `changes` are further fields."""
    return state._replace(frame=state.frame + 1, misses=state.misses + 1, **changes)


def note_detections(
    state: TrackerState, detections: Mapping[str, Array], columns: Array, **changes: Any
) -> TrackerState:
    """Records which detections the tracks have: scores, labels, misses and hits. `changes` are the other fields."""
    xp = array_module(columns)
    observed, index = columns >= 0, xp.maximum(columns, 0)
    return state._replace(
        scores=xp.where(observed, take_rows(detections['scores'], index), state.scores),
        labels=xp.where(observed, take_rows(detections['labels'], index), state.labels),
        misses=state.misses * ~observed,
        hits=state.hits + observed,
        **changes,
    )


def start_tracks(
    state: TrackerState, motion: MotionModel, detections: Mapping[str, Array], starting: Array, hits: int
) -> tuple[TrackerState, Array, Array]:
    """Starts tracks in free slots, with ids in the order of the detections.

    Args:
      state: before.
      motion: of the tracks.
      detections: of the frame.
      starting: bool [D], the detections that start tracks.
      hits: of a new track.

    Returns:
      (the state; which slots are new, bool [S]; the detection of each slot, int [S], meaningful where new).
    """
    xp = array_module(starting)
    num_slots = len(state.ids)
    if xp is np and not starting.any():
        return state, np.zeros(num_slots, bool), np.zeros(num_slots, np.int32)
    count, free = starting.sum(), state.ids == 0
    ranks = free.cumsum() - 1
    new = free & (ranks < count)
    if xp is np:  # few of many slots begin: indices of them
        where = np.flatnonzero(new)
        row, rank = np.flatnonzero(starting)[: len(where)], np.arange(len(where))
        source = np.zeros(num_slots, np.int32)
        source[where] = row
        started: Array = np.int32(len(where))
    else:
        where, rank = new, ranks
        row = source = jnp.minimum(nth_true(starting, ranks), len(starting) - 1)
        started = jnp.minimum(count, free.sum()).astype(jnp.int32)
    begun = kalman.initiate(motion, take_rows(detections['boxes'], row))
    state = state._replace(
        estimate=TrackEstimate(*(put_rows(a, where, b) for a, b in zip(state.estimate, begun, strict=True))),
        ids=put_rows(state.ids, where, state.next_id + rank),
        scores=put_rows(state.scores, where, take_rows(detections['scores'], row)),
        labels=put_rows(state.labels, where, take_rows(detections['labels'], row)),
        misses=put_rows(state.misses, where, 0),
        hits=put_rows(state.hits, where, hits),
        confirmed=put_rows(state.confirmed, where, False),
        next_id=state.next_id + started,
        dropped=state.dropped + (count - started).astype(xp.int32),
    )
    return state, new, source


def report_tracks(state: TrackerState, reported: Array, boxes: Array) -> dict[str, Array]:
    """Returns the tracks of a frame: those of `reported`, bool [S], with boxes [S, 4]."""
    return {
        'boxes': put_rows(boxes, ~reported, 0),
        'ids': state.ids * reported,
        'scores': state.scores * reported,
        'labels': state.labels * reported,
        'valid': reported,
    }


def _check_detections(tracker: Tracker, detections: Mapping[str, Any]) -> None:
    trailing: dict[str, tuple[int, ...]] = {'boxes': (4,), 'scores': (), 'labels': (), 'valid': ()}
    if tracker.embedding_size:
        trailing['embeddings'] = (tracker.embedding_size,)
    if missing := [key for key in trailing if key not in detections]:
        raise UsageError(f'detections: {", ".join(missing)} missing; there are {", ".join(sorted(detections))}')
    leading = np.shape(detections['valid'])
    for key, rest in trailing.items():
        shape = np.shape(detections[key])
        if len(leading) != 2 or shape != leading + rest:
            expected = ', '.join(map(str, ('T', 'D', *rest)))
            raise UsageError(f'detections: {key} has the shape {list(shape)}, expected [{expected}]')
    if any(isinstance(detections[key], jax_core.Tracer) for key in ('boxes', 'valid')):
        return  # values are known only when the program runs
    boxes, valid = np.asarray(detections['boxes']), np.asarray(detections['valid'])
    with np.errstate(invalid='ignore'):
        wrong = valid & ~(np.isfinite(boxes).all(-1) & (boxes[..., 2:] >= boxes[..., :2]).all(-1))
    if wrong.any():
        frame, row = np.argwhere(wrong)[0]
        raise UsageError(
            f'detections: box {row} of frame {frame} is {boxes[frame, row].tolist()}, expected [x0, y0, x1, y1] with '
            'x1 >= x0 and y1 >= y0; clear `valid` where there is no detection'
        )
