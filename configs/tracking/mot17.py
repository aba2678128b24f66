"""ByteTrack (Zhang et al. 2022) on MOT17 with its public detections of one detector.

    ./launch.sh run configs/tracking/mot17.py --config.data.source.path=FOLDER

`:smoke` tracks sequences of moving digits. Not measured yet.
"""

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    config = track(dict(name='byte_track'), 0.4, arg == 'smoke')
    if arg == 'smoke':
        return config
    use_files(config, 'mot_challenge', 'train', 'mot17', 'mot_challenge')
    config.data.source.detector = 'FRCNN'  # each sequence is there three times, with the detections of DPM, FRCNN, SDP
    config.tracker.update(dict(max_aspect=1.6, min_area=100.0))  # boxes that are no upright pedestrians
    return config
