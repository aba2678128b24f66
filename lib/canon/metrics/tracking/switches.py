"""Identity switches of the CLEAR metrics one by one: where an object changes its track, and why."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from canon.metrics.tracking.clear import match_continuously
from canon.metrics.tracking.overlaps import FrameOverlaps

SWITCH_CAUSES = ('swapped', 'merged', 'missed', 'restarted')


class IdentitySwitches(NamedTuple):
    """The identity switches of a sequence, in order of objects, then of frames.

    Attributes:
      frames: int [K], the frame of the first match with the new track.
      previous_frames: int [K], the frame of the last match with the old track.
      truth_ids: int [K], of the object, as `FrameOverlaps` numbers them.
      old_ids: int [K], of the track before.
      new_ids: int [K], of the track after.
      causes: int [K], indices of `SWITCH_CAUSES`.
    """

    frames: np.ndarray
    previous_frames: np.ndarray
    truth_ids: np.ndarray
    old_ids: np.ndarray
    new_ids: np.ndarray
    causes: np.ndarray

    def count_causes(self) -> dict[str, int]:
        """Returns how many switches each cause has."""
        return dict(zip(SWITCH_CAUSES, np.bincount(self.causes, minlength=len(SWITCH_CAUSES)).tolist(), strict=True))


def find_switches(overlaps: FrameOverlaps, min_iou: float = 0.5) -> IdentitySwitches:
    """Finds the identity switches that `score_clear` counts, and the cause of each.

    An object is matched to track a in frame s, and next to track b in frame t. The first that holds is the cause:

    - swapped: in frame t, track a is matched to another object. The objects have exchanged tracks, or one has taken the
      track of the other.
    - merged: the last match of track b before t is to another object. A track has moved from one object to this one,
      and the track of this object has ended or lies on no object.
    - missed: t - s > 1. The object was matched to nothing in between: its detections were missing, or it was hidden.
    - restarted: a new track follows at once, as after a detection that the old one did not accept.

    Args:
      overlaps: of what is scored (`keep_scored`).
      min_iou: the overlap that a match has at least.
    """
    matches = match_continuously(overlaps, min_iou)
    truth, result = overlaps.truth_ids[overlaps.truth[matches]], overlaps.result_ids[overlaps.result[matches]]
    frames = overlaps.truth_frames[overlaps.truth[matches]]
    order = np.argsort(truth, kind='stable')
    follows = np.diff(truth[order]) == 0
    changed = follows & (np.diff(result[order]) != 0)
    before, after = order[:-1][changed], order[1:][changed]
    matched = set(zip(frames.tolist(), result.tolist(), strict=True))
    previous_object = _find_previous_objects(truth, result)
    causes = np.zeros(len(after), np.int64)
    for k, (old, new) in enumerate(zip(before.tolist(), after.tolist(), strict=True)):
        if (int(frames[new]), int(result[old])) in matched:
            causes[k] = SWITCH_CAUSES.index('swapped')
        elif previous_object[new] not in (-1, truth[new]):
            causes[k] = SWITCH_CAUSES.index('merged')
        elif frames[new] - frames[old] > 1:
            causes[k] = SWITCH_CAUSES.index('missed')
        else:
            causes[k] = SWITCH_CAUSES.index('restarted')
    return IdentitySwitches(frames[after], frames[before], truth[after], result[before], result[after], causes)


def _find_previous_objects(truth: np.ndarray, result: np.ndarray) -> np.ndarray:
    """Returns the object of the match of the same track before each match, -1 for the first; matches are by frame."""
    order = np.argsort(result, kind='stable')
    previous = np.full(len(truth), -1)
    same = np.diff(result[order]) == 0
    previous[order[1:][same]] = truth[order[:-1][same]]
    return previous
