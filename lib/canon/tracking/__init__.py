"""Multi-object tracking: motion, affinity and association as pure functions, and online and batch trackers of them.

    from canon import tracking
    tracker = tracking.sort(min_iou=0.3, max_age=1)
    state, tracks = jax.jit(functools.partial(tracking.run, tracker))(detections)

Boxes are [x0, y0, x1, y1] in pixels. `canon.tracking.tracker` documents detections, tracks and the two forms of a
tracker; `canon.tracking.association` the rules of assignment.

    >>> import numpy as np
    >>> frames, objects = np.arange(6.0)[:, None], np.array([0.0, 50.0])
    >>> x = objects + 3 * frames
    >>> boxes = np.stack([x, 0 * x, x + 20, 0 * x + 40], -1)
    >>> shape = boxes.shape[:2]
    >>> detections = {'boxes': boxes, 'scores': np.ones(shape), 'valid': np.ones(shape, bool)}
    >>> detections['labels'] = np.zeros(shape, np.int32)
    >>> state, tracks = run(sort(form='numpy', slots=4), detections)
    >>> tracks['ids'].tolist()[-1], int(state.dropped)
    ([1, 2, 0, 0], 0)
"""

from canon.tracking import affinity, association, kalman, offline
from canon.tracking.association import (
    assign_cascade,
    assign_max_weight,
    assign_min_cost,
    assign_then_gate,
    match_mutual_best,
    sinkhorn,
    sinkhorn_log,
)
from canon.tracking.byte_track import byte_track
from canon.tracking.deep_sort import deep_sort
from canon.tracking.kalman import MotionModel, TrackEstimate, center_size_motion, deep_sort_motion, sort_motion
from canon.tracking.observations import Affinity
from canon.tracking.oc_sort import oc_sort
from canon.tracking.offline import (
    interpolate_gaps,
    link_tracklets,
    list_rows,
    smooth_tracks,
    solve_min_cost_flow,
    track_by_flow,
)
from canon.tracking.sort import sort
from canon.tracking.tracker import Tracker, TrackerState, run

__all__ = [
    'Affinity', 'MotionModel', 'TrackEstimate', 'Tracker', 'TrackerState', 'affinity', 'assign_cascade',
    'assign_max_weight', 'assign_min_cost', 'assign_then_gate', 'association', 'byte_track',
    'center_size_motion', 'deep_sort', 'deep_sort_motion', 'interpolate_gaps', 'kalman', 'link_tracklets',
    'list_rows', 'match_mutual_best', 'oc_sort', 'offline', 'run', 'sinkhorn', 'sinkhorn_log', 'smooth_tracks',
    'solve_min_cost_flow', 'sort', 'sort_motion', 'track_by_flow',
]  # fmt: skip
