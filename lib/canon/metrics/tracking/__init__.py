"""Metrics of trackers: CLEAR, identity and HOTA, equal to those of TrackEval, by the rules of each benchmark.

Truth and results are tables with the columns `frames`, `ids`, `boxes`, `labels` and `ignored`, sorted by frame, as
`canon.data.tracking` reads them. `score_tracks` scores one sequence; `combine_scores` combines many.

    scores = [score_tracks(s.truth, results[s.info.name], s.info.length, 'mot17') for s in sequences]
    combine_scores(scores).summarise()['HOTA']
"""

from canon.metrics.tracking.clear import combine_clear, match_continuously, score_clear
from canon.metrics.tracking.hota import HOTA_THRESHOLDS, combine_hota, score_hota
from canon.metrics.tracking.identity import combine_identity, score_identity
from canon.metrics.tracking.overlaps import FrameOverlaps, match_frames, overlap_frames
from canon.metrics.tracking.pr_curves import count_detections, divide_counts, integrate_along_pr, trace_detections
from canon.metrics.tracking.presets import (
    PRESETS,
    keep_kitti_car,
    keep_kitti_pedestrian,
    keep_mot15,
    keep_mot17,
    keep_mot20,
    keep_ua_detrac,
)
from canon.metrics.tracking.scores import TrackScores, combine_scores, keep_scored, score_overlaps, score_tracks
from canon.metrics.tracking.switches import SWITCH_CAUSES, IdentitySwitches, find_switches

__all__ = [
    'HOTA_THRESHOLDS', 'PRESETS', 'SWITCH_CAUSES', 'FrameOverlaps', 'IdentitySwitches', 'TrackScores',
    'combine_clear', 'combine_hota', 'combine_identity', 'combine_scores', 'count_detections', 'divide_counts',
    'find_switches', 'integrate_along_pr',
    'keep_kitti_car', 'keep_kitti_pedestrian', 'keep_mot15', 'keep_mot17', 'keep_mot20', 'keep_scored',
    'keep_ua_detrac', 'match_continuously', 'match_frames', 'overlap_frames', 'score_clear', 'score_hota',
    'score_identity', 'score_overlaps', 'score_tracks', 'trace_detections',
]  # fmt: skip
