"""SORT (Bewley et al. 2016) on the cars of KITTI tracking.

    ./launch.sh run configs/tracking/kitti.py --config.data.source.path=FOLDER \
        --config.data.source.detections=DETECTIONS

DETECTIONS is a folder of files 0000.txt of labels with a score, such as det_02 of the detections that KITTI publishes.
Or `--config.detector.run=RUN` names a run of `detection`: of its classes those of KITTI are tracked.
`:smoke` tracks moving digits that are written as the files of KITTI, some as vans or DontCare, and read as these.

Measured, `:smoke`: HOTA 0.541, MOTA 0.625, IDF1 0.650 in 8 CPU seconds; the benchmark itself is not measured yet.
"""

from ml_collections.config_dict import placeholder

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    # A van does not continue a car.
    config = track(dict(name='sort', min_hits=3, match_labels=True), 0.48 if smoke else 0.4, smoke)
    own = {} if smoke else dict(detections=placeholder(str))
    return use_files(config, 'kitti_tracking', 'training', 'kitti_car', 'kitti', smoke, **own)
