"""SORT (Bewley et al. 2016) on the cars of KITTI tracking.

    ./launch.sh run configs/tracking/kitti.py --config.data.source.path=FOLDER \
        --config.detector.run=DETECTOR

KITTI's folder has no detections that this reader takes: DETECTOR is the folder of a `detection` run whose classes are
those of KITTI. `:smoke` tracks sequences of moving digits. Not measured yet.
"""

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    config = track(dict(name='sort', min_hits=3), 0.4, arg == 'smoke')
    if arg == 'smoke':
        return config
    use_files(config, 'kitti_tracking', 'training', 'kitti_car', 'kitti')
    config.tracker.match_labels = True  # a van does not continue a car
    return config
