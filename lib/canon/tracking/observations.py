"""The last observation of every track, which a user's affinity compares with detections, as a learnt one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from canon.tracking.arrays import Array, array_module, select_rows
from canon.tracking.tracker import Form, TrackerState, float_dtype

# (tracks, detections) -> [S, D], the larger the more alike. Tracks: `boxes` [S, 4], predicted for the frame; `observed`
# [S, 4], the last detection; `gaps` int [S], frames since then; `valid` bool [S]; `embeddings` [S, E] of the last
# detection if detections have them. Detections: `boxes` [D, 4], `scores` [D], `valid` bool [D], perhaps `embeddings`.
Affinity = Callable[[Mapping[str, Array], Mapping[str, Array]], Array]


def make_observations(form: Form, embedding_size: int) -> dict[str, tuple]:
    """Returns the shapes of the memory of last observations, as `tracker.make_tracker_state` takes them."""
    embeddings = {'embeddings': ((embedding_size,), float_dtype(form))} if embedding_size else {}
    return {'observed': ((4,), float_dtype(form)), **embeddings}


def measure_affinity(
    affinity: Affinity, state: TrackerState, boxes: Array, detections: Mapping[str, Array], alive: Array, usable: Array
) -> Array:
    """Computes the affinity of the tracks `alive`, bool [S], and the detections `usable`, bool [D]; 0 elsewhere.

    Args:
      affinity: (tracks, detections) -> [S, D].
      state: with `misses` of this frame, and the memory of `make_observations`.
      boxes: predicted ones, [S, 4].
      detections: of the frame.
      alive: the tracks.
      usable: the detections.
    """
    xp = array_module(boxes)
    names = [name for name in ('observed', 'embeddings') if name in state.memory]
    tracks = {'boxes': boxes, 'gaps': state.misses, 'valid': alive, **{name: state.memory[name] for name in names}}
    read = ['boxes', 'scores', *(['embeddings'] if 'embeddings' in names else [])]
    weights = affinity(tracks, {**{name: detections[name] for name in read}, 'valid': usable})
    return xp.where(alive[:, None] & usable, weights, 0)


def remember_observations(
    memory: Mapping[str, Array], detections: Mapping[str, Array], changed: Array, source: Array
) -> dict[str, Array]:
    """Returns the memory with the detections `source`, int [S], in the slots `changed`, bool [S]."""
    values = {'observed': 'boxes', 'embeddings': 'embeddings'}
    return {name: select_rows(changed, detections[values[name]][source], memory[name]) for name in memory}
