"""Sequences of boxes with identities: readers and writers of tracking benchmarks, and embedded sequences.

Boxes are [x0, y0, x1, y1] in pixels at pixel edges and frames count from 0, whatever the files have: readers convert as
data enter, and writers convert back.
"""

from canon.data.tracking.tables import (
    DETECTION,
    IgnoredRegions,
    SequenceInfo,
    TrackSequence,
    TrackTable,
    concatenate_tables,
    count_rows,
    flatten_frames,
    make_table,
    pad_frames,
)

__all__ = [
    'DETECTION', 'IgnoredRegions', 'SequenceInfo', 'TrackSequence', 'TrackTable', 'concatenate_tables', 'count_rows',
    'flatten_frames', 'make_table', 'pad_frames',
]  # fmt: skip
