"""ByteTrack (Zhang et al. 2022) on MOT17 with its public detections of one detector.

    ./launch.sh run configs/tracking/mot17.py --config.data.source.path=FOLDER

`:smoke` tracks moving digits that are written as the files of MOT17, some of them as distractors, and read as these.

Measured, `:smoke`: HOTA 0.672, MOTA 0.774, IDF1 0.826 in 8 CPU seconds; the benchmark itself is not measured yet.
"""

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    # Boxes that are no upright pedestrians are not reported: wider than 1.6 times their height, or tiny.
    config = track(dict(name='byte_track', max_aspect=1.6, min_area=100.0), 0.6 if smoke else 0.4, smoke)
    # Each sequence is there three times, with the detections of DPM, FRCNN and SDP.
    return use_files(config, 'mot_challenge', 'train', 'mot17', 'mot_challenge', smoke, detector='FRCNN')
