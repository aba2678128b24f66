"""Scores a sequence by all three families of metrics, and combines sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from canon.errors import UsageError
from canon.metrics.tracking.clear import combine_clear, score_clear
from canon.metrics.tracking.hota import combine_hota, score_hota
from canon.metrics.tracking.identity import combine_identity, score_identity
from canon.metrics.tracking.overlaps import FrameOverlaps, Tracks, overlap_frames
from canon.metrics.tracking.presets import Regions, find_preset


class TrackScores(NamedTuple):
    """The metrics of a sequence, or of several combined, each by TrackEval's names.

    Attributes:
      clear: of `score_clear`: MOTA, MOTP, IDSW, ...
      identity: of `score_identity`: IDF1, IDP, IDR, ...
      hota: of `score_hota`: HOTA, DetA, AssA, ..., arrays over 19 thresholds.
    """

    clear: dict[str, Any]
    identity: dict[str, Any]
    hota: dict[str, Any]

    def summarise(self) -> dict[str, float]:
        """Returns all metrics as numbers in one mapping, with the arrays averaged over the thresholds."""
        means = {name: float(getattr(x, 'mean', lambda x=x: x)()) for name, x in self.hota.items()}
        return means | {name: float(x) for name, x in (self.clear | self.identity).items()}


def score_tracks(
    truth: Tracks,
    result: Tracks,
    length: int,
    preset: str = 'mot15',
    regions: Regions | None = None,
    min_iou: float = 0.5,
) -> TrackScores:
    """Scores the result of a tracker on one sequence, as the benchmark `preset` does.

    Args:
      truth: of the sequence.
      result: of the tracker; ids count as they are, from any number.
      length: number of frames of the sequence.
      preset: a name of `PRESETS`, which drops what the benchmark does not score; 'mot15' drops ignored truth only.
      regions: ignored regions of the sequence, for 'kitti_car', 'kitti_pedestrian' and 'ua_detrac'.
      min_iou: the overlap of a match in the CLEAR and identity metrics; HOTA averages over thresholds.

    Raises:
      UsageError: there is no such preset, a frame is outside of the sequence, or an id stands twice in a frame.

    >>> import numpy as np
    >>> from types import SimpleNamespace as Table
    >>> frames, boxes = np.arange(4), np.tile([0.0, 0.0, 10.0, 20.0], (4, 1))
    >>> truth = Table(frames=frames, ids=np.ones(4), boxes=boxes, labels=np.zeros(4), ignored=np.zeros(4, bool))
    >>> result = Table(**{**vars(truth), 'ids': np.array([5, 5, 6, 6])})  # the id changes
    >>> scores = score_tracks(truth, result, length=4)
    >>> scores.clear['IDSW'], scores.clear['MOTA'], scores.identity['IDF1'], float(scores.hota['AssA'][0])
    (1, 0.75, 0.5, 0.5)
    """
    return score_overlaps(keep_scored(truth, result, length, preset, regions), min_iou)


def keep_scored(
    truth: Tracks, result: Tracks, length: int, preset: str = 'mot15', regions: Regions | None = None
) -> FrameOverlaps:
    """Computes the overlaps of what a benchmark scores; arguments and errors as of `score_tracks`."""
    select = find_preset(preset)
    overlaps = overlap_frames(truth, result, length)
    return overlaps.select(*select(truth, result, overlaps, regions))


def score_overlaps(overlaps: FrameOverlaps, min_iou: float = 0.5) -> TrackScores:
    """Computes the CLEAR, identity and HOTA metrics of a sequence."""
    if not 0 < min_iou <= 1:
        raise UsageError(f'min_iou={min_iou} must be above 0 and at most 1')
    return TrackScores(score_clear(overlaps, min_iou), score_identity(overlaps, min_iou), score_hota(overlaps))


def combine_scores(sequences: Sequence[TrackScores]) -> TrackScores:
    """Combines the scores of sequences as benchmarks do: of the sums of their counts, not as a mean.

    Raises UsageError if there are none.
    """
    if not sequences:
        raise UsageError('combine_scores: there are no sequences to combine')
    clear, identity, hota = zip(*sequences, strict=True)
    return TrackScores(combine_clear(clear), combine_identity(identity), combine_hota(hota))
