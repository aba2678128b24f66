"""Sequences of boxes with identities: readers and writers of tracking benchmarks, and embedded sequences.

Boxes are [x0, y0, x1, y1] in pixels at pixel edges and frames count from 0, whatever the files have: readers convert as
data enter, and writers convert back. A file that is of another format, sequence or length is refused in one line that
names the file, the line and the fix; frames without objects, gaps in frame numbers and ids that start anywhere are
normal.
"""

from canon.data.tracking.digit_benchmark import digit_benchmark
from canon.data.tracking.digit_sequences import digit_sequences
from canon.data.tracking.kitti_tracking import (
    KITTI_CLASSES,
    kitti_tracking,
    read_kitti_detections,
    read_kitti_labels,
    read_kitti_results,
    read_kitti_seqmap,
    write_kitti_results,
)
from canon.data.tracking.layouts import (
    Layout,
    write_detrac_sequence,
    write_kitti_sequence,
    write_mot_sequence,
    write_sequences,
)
from canon.data.tracking.mot_challenge import (
    MOT_CLASSES,
    is_mot_sequence,
    mot_challenge,
    read_mot_detections,
    read_mot_folder_of_results,
    read_mot_results,
    read_mot_sequence,
    read_mot_truth,
    read_seqinfo,
    write_mot_folder_of_results,
    write_mot_results,
)
from canon.data.tracking.object_crops import CropSettings, ObjectCrops, crop_box, crop_object
from canon.data.tracking.sequence_frames import SequenceFrames, digit_frames
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
from canon.data.tracking.track_csv import read_track_csv, track_csv, write_track_csv
from canon.data.tracking.track_sequences import SEQUENCE_SETS, TrackSequences, load_sequences
from canon.data.tracking.ua_detrac import (
    DETRAC_CLASSES,
    read_detrac_detections,
    read_detrac_results,
    read_detrac_truth,
    ua_detrac,
    write_detrac_results,
)

__all__ = [
    'DETECTION', 'DETRAC_CLASSES', 'KITTI_CLASSES', 'MOT_CLASSES', 'SEQUENCE_SETS', 'CropSettings',
    'IgnoredRegions', 'Layout', 'ObjectCrops', 'SequenceFrames', 'SequenceInfo', 'TrackSequence', 'TrackSequences',
    'TrackTable', 'concatenate_tables', 'count_rows', 'crop_box', 'crop_object', 'digit_benchmark', 'digit_frames',
    'digit_sequences', 'flatten_frames', 'is_mot_sequence', 'kitti_tracking', 'load_sequences', 'make_table',
    'mot_challenge', 'pad_frames', 'read_detrac_detections', 'read_detrac_results', 'read_detrac_truth',
    'read_kitti_detections', 'read_kitti_labels', 'read_kitti_results', 'read_kitti_seqmap', 'read_mot_detections',
    'read_mot_folder_of_results', 'read_mot_results', 'read_mot_sequence', 'read_mot_truth', 'read_seqinfo',
    'read_track_csv', 'track_csv', 'ua_detrac', 'write_detrac_results', 'write_detrac_sequence',
    'write_kitti_results', 'write_kitti_sequence', 'write_mot_folder_of_results', 'write_mot_results',
    'write_mot_sequence', 'write_sequences', 'write_track_csv',
]  # fmt: skip
