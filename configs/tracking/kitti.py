"""SORT (Bewley et al. 2016) on the cars of KITTI tracking.

    ./launch.sh run configs/tracking/kitti.py --config.data.source.path=FOLDER \
        --config.data.source.detections=DETECTIONS

DETECTIONS is a folder of files 0000.txt of labels with a score, such as det_02 of the detections that KITTI publishes.
Or `--config.detector.run=RUN` names a run of `detection`: of its classes those of KITTI are tracked.
`:smoke` tracks sequences of moving digits. Not measured yet.
"""

from ml_collections.config_dict import placeholder

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    config = track(dict(name='sort', min_hits=3), 0.4, arg == 'smoke')
    if arg == 'smoke':
        return config
    use_files(config, 'kitti_tracking', 'training', 'kitti_car', 'kitti')
    config.data.source.detections = placeholder(str)
    config.detections.min_score = float('-inf')  # scores of a support vector machine are of both signs
    config.tracker.match_labels = True  # a van does not continue a car
    return config
