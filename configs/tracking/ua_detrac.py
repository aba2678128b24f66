"""SORT (Bewley et al. 2016) on UA-DETRAC.

    ./launch.sh run configs/tracking/ua_detrac.py --config.data.source.path=FOLDER \
        --config.data.source.detections=DETECTIONS

`:smoke` tracks moving digits that are written as the files of UA-DETRAC, with an ignored region, and read as these.

Measured, `:smoke`: HOTA 0.553, MOTA 0.636, IDF1 0.679, PR-MOTA 0.087 in 9 CPU seconds; the benchmark itself is not
measured yet.
"""

from ml_collections.config_dict import placeholder

from configs.tracking._trackers import track, use_files


def get_config(arg: str = ''):
    smoke = arg == 'smoke'
    config = track(dict(name='sort', min_hits=3), 0.5 if smoke else 0.4, smoke)
    # The folder of NAME_Det_DETECTOR.txt, and that of a folder of images per sequence; None: no pictures.
    folders = dict(detections=placeholder(str), images=placeholder(str))
    own = dict(pictures=False) if smoke else folders
    use_files(config, 'ua_detrac', 'train', 'ua_detrac', 'ua_detrac', smoke, **own)
    # PR_MOTA runs the tracker on the detections above each of these scores.
    config.data.evals.test.pr_thresholds = tuple(k / 10 for k in range(10))
    return config
