"""Rules of benchmarks: each drops rows of truth and results before they are scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from canon.errors import UsageError
from canon.metrics.tracking.overlaps import EPS, FrameOverlaps, Tracks, match_frames
from canon.named import suggest

# Labels of MOT16, MOT17 and MOT20, which count their classes from 0 here and from 1 in the files.
_PEDESTRIAN, _ON_VEHICLE, _VEHICLE, _STATIC, _DISTRACTOR, _REFLECTION = 0, 1, 5, 6, 7, 11
# Labels of KITTI: car, van, truck, pedestrian, person (who sits), cyclist, tram, misc.
_KITTI_NEIGHBOURS = {'car': (0, 1), 'pedestrian': (3, 4)}
_KITTI_MIN_HEIGHT = 25  # pixels, of results that match nothing

Masks = tuple[np.ndarray, np.ndarray]


class Regions(Protocol):
    """Areas that are not scored, as `canon.data.tracking.IgnoredRegions` has them."""

    @property
    def frames(self) -> np.ndarray: ...  # int [R], -1 for all frames
    @property
    def boxes(self) -> np.ndarray: ...  # [R, 4]


Preset = Callable[[Tracks, Tracks, FrameOverlaps, Regions | None], Masks]


def keep_mot15(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None = None) -> Masks:
    """Keeps all results, and the truth that is not ignored: the rule of MOT15, TUD and PETS2009.

    Args:
      truth: of one sequence, N rows.
      result: M rows.
      overlaps: of `overlap_frames(truth, result, length)`; it has all rows.
      regions: areas that are not scored, of benchmarks that have them.

    Returns:
      What is kept, bool [N] and bool [M].
    """
    return ~np.asarray(truth.ignored, bool), np.ones(len(result.frames), bool)


def keep_mot17(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None = None) -> Masks:
    """Drops what MOT16 and MOT17 drop: results upon people on vehicles, static people, distractors and reflections.

    Results are matched with the truth of all classes at an overlap of 0.5, so that a result that fits a pedestrian
    better is kept. Of the truth, pedestrians remain that are not ignored. Arguments and result as of `keep_mot15`.

    Raises:
      UsageError: a result is not of class 0, pedestrian.
    """
    return _drop_distractors(truth, result, overlaps, (_ON_VEHICLE, _STATIC, _DISTRACTOR, _REFLECTION))


def keep_mot20(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None = None) -> Masks:
    """Drops what `keep_mot17` drops and, as MOT20 does, results upon vehicles that are not motorised."""
    return _drop_distractors(truth, result, overlaps, (_ON_VEHICLE, _VEHICLE, _STATIC, _DISTRACTOR, _REFLECTION))


def keep_kitti_car(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None = None) -> Masks:
    """Keeps cars as KITTI does: results upon vans, or upon ignored cars, are dropped.

    `truth.ignored` marks occlusion above 2 and truncation above 0. Of the results that match no truth at an overlap of
    0.5, those up to 25 pixels high are dropped, and those that lie in one DontCare region of their frame by more than
    half of their area. Arguments and result as of `keep_mot15`.
    """
    return _keep_kitti(truth, result, overlaps, regions, 'car')


def keep_kitti_pedestrian(
    truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None = None
) -> Masks:
    """Keeps pedestrians as KITTI does: the rules of `keep_kitti_car`, with people who sit in the place of vans."""
    return _keep_kitti(truth, result, overlaps, regions, 'pedestrian')


def keep_ua_detrac(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None = None) -> Masks:
    """Drops truth and results that lie in the ignored regions by half of their area or more, as UA-DETRAC does.

    The area shared with the union of the regions is computed exactly; the toolkit counts pixels of a mask. Arguments
    and result as of `keep_mot15`.
    """
    keep_truth, keep_result = keep_mot15(truth, result, overlaps)
    return (
        keep_truth & (_cover(truth, regions) < 0.5),
        keep_result & (_cover(result, regions) < 0.5),
    )


PRESETS: dict[str, Preset] = {
    'mot15': keep_mot15,
    'mot16': keep_mot17,
    'mot17': keep_mot17,
    'mot20': keep_mot20,
    'tud': keep_mot15,
    'pets2009': keep_mot15,
    'kitti_car': keep_kitti_car,
    'kitti_pedestrian': keep_kitti_pedestrian,
    'ua_detrac': keep_ua_detrac,
}


def find_preset(name: str) -> Preset:
    """Returns the rules of a benchmark. Raises UsageError, with the near names, if there are none of this name."""
    if name not in PRESETS:
        raise UsageError(f'there is no preset {name!r}{suggest(name, PRESETS)}; there are {", ".join(PRESETS)}')
    return PRESETS[name]


def _match_half(overlaps: FrameOverlaps, among: np.ndarray | None = None) -> np.ndarray:
    """Returns the pairs matched at an overlap of 0.5, of those that the mask `among` [P] has."""
    candidates = overlaps.iou >= 0.5 - EPS
    pairs = np.flatnonzero(candidates if among is None else candidates & among)
    return match_frames(overlaps, pairs, overlaps.iou[pairs])


def _drop_distractors(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, classes: tuple[int, ...]) -> Masks:
    labels = np.asarray(result.labels)
    if (labels != _PEDESTRIAN).any():
        row = np.flatnonzero(labels != _PEDESTRIAN)[0]
        raise UsageError(
            f'the result has a box of class {labels[row]} in frame {result.frames[row]} (from 0); MOTChallenge scores '
            'class 0, pedestrian, only: remove the others'
        )
    matches = _match_half(overlaps)
    keep_result = np.ones(len(result.frames), bool)
    keep_result[overlaps.result[matches][np.isin(truth.labels[overlaps.truth[matches]], classes)]] = False
    return ~np.asarray(truth.ignored, bool) & (truth.labels == _PEDESTRIAN), keep_result


def _keep_kitti(truth: Tracks, result: Tracks, overlaps: FrameOverlaps, regions: Regions | None, name: str) -> Masks:
    label, neighbour = _KITTI_NEIGHBOURS[name]
    considered = np.isin(truth.labels, (label, neighbour))
    of_class = np.asarray(result.labels == label)
    # A matrix of the frame of these classes only: the truth of the others is not seen.
    selected = overlaps.select(considered, of_class)
    rows, columns = np.flatnonzero(considered), np.flatnonzero(of_class)
    matches = _match_half(selected)
    matched_truth, matched_result = rows[selected.truth[matches]], columns[selected.result[matches]]
    scored = (truth.labels == label) & ~np.asarray(truth.ignored, bool)
    keep_result = of_class.copy()
    keep_result[matched_result[~scored[matched_truth]]] = False
    unmatched = of_class.copy()
    unmatched[matched_result] = False
    heights = result.boxes[:, 3] - result.boxes[:, 1]
    keep_result &= ~(unmatched & ((heights <= _KITTI_MIN_HEIGHT + EPS) | (_cover_most(result, regions) > 0.5 + EPS)))
    return scored, keep_result


def _cover_most(tracks: Tracks, regions: Regions | None) -> np.ndarray:
    """Returns the largest share of each box [N] that one region of its frame covers."""
    shares = np.zeros(len(tracks.frames))
    for frame, region in zip(*_list_regions(regions), strict=True):
        rows = slice(None) if frame < 0 else slice(*np.searchsorted(tracks.frames, (frame, frame + 1)))
        low, high = _clip(tracks.boxes[rows], region)
        areas = _multiply_sides(tracks.boxes[rows, :2], tracks.boxes[rows, 2:])
        covered = np.divide(_multiply_sides(low, high), areas, out=np.zeros_like(areas), where=areas > EPS)
        shares[rows] = np.maximum(shares[rows], covered)
    return shares


def _cover(tracks: Tracks, regions: Regions | None) -> np.ndarray:
    """Returns the share of each box [N] that the union of the regions of its frame covers."""
    frames, boxes = _list_regions(regions)
    areas = _multiply_sides(tracks.boxes[:, :2], tracks.boxes[:, 2:])
    covered = np.zeros(len(areas))
    for frame in np.unique(frames):
        rows = slice(None) if frame < 0 else slice(*np.searchsorted(tracks.frames, (frame, frame + 1)))
        for cell in _split_into_cells(boxes[frames == frame]):
            covered[rows] += _multiply_sides(*_clip(tracks.boxes[rows], cell))
    return np.divide(covered, areas, out=np.zeros_like(areas), where=areas > EPS)


def _split_into_cells(boxes: np.ndarray) -> np.ndarray:
    """Splits the union of boxes [R, 4] into boxes that do not overlap, [C, 4]: the cells of the grid of their edges."""
    x, y = np.unique(boxes[:, [0, 2]]), np.unique(boxes[:, [1, 3]])
    x0, y0 = np.meshgrid(x[:-1], y[:-1], indexing='ij')
    x1, y1 = np.meshgrid(x[1:], y[1:], indexing='ij')
    cells = np.stack([x0, y0, x1, y1], -1).reshape(-1, 4)
    within = np.concatenate([cells[:, None, :2] >= boxes[:, :2], cells[:, None, 2:] <= boxes[:, 2:]], -1)
    return cells[np.any(within.all(-1), axis=1)]


def _clip(boxes: np.ndarray, region: np.ndarray) -> Masks:
    return np.maximum(boxes[:, :2], region[:2]), np.minimum(boxes[:, 2:], region[2:])


def _multiply_sides(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    sides = np.maximum(high - low, 0)
    return sides[:, 0] * sides[:, 1]


def _list_regions(regions: Regions | None) -> Masks:
    if regions is None:
        return np.zeros(0, int), np.zeros((0, 4))
    return np.asarray(regions.frames), np.asarray(regions.boxes, np.float64).reshape(-1, 4)
