"""SORT (Bewley et al. 2016) on UA-DETRAC.

    ./launch.sh run configs/tracking/ua_detrac.py --config.data.source.path=FOLDER \
        --config.data.source.detections=DETECTIONS

`:smoke` tracks sequences of moving digits. Not measured yet.
"""

from ml_collections.config_dict import placeholder

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    config = track(dict(name='sort', min_hits=3), 0.4, arg == 'smoke')
    if arg == 'smoke':
        return config
    use_files(config, 'ua_detrac', 'train', 'ua_detrac', 'ua_detrac')
    # PR_MOTA runs the tracker on the detections above each of these scores.
    config.data.evals.test.pr_thresholds = tuple(k / 10 for k in range(10))
    config.data.source.detections = placeholder(str)  # the folder of NAME_Det_DETECTOR.txt
    config.data.source.images = placeholder(str)  # the folder of a folder of images per sequence; None: no pictures
    return config
