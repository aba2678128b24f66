"""SORT (Bewley et al. 2016) on sequences of moving digits: nothing to download.

    ./launch.sh run configs/tracking/sort.py

A Kalman filter per track, and the assignment of the greatest IoU, frame by frame. On TUD-Stadtmitte with its public
detections, `--config.data.name=mot_challenge --config.data.source.path=FOLDER --config.data.evals.test.split=train`
(a folder that holds TUD-Stadtmitte).

Measured on 16 sequences: HOTA 0.500, MOTA 0.621, IDF1 0.595 in 9 s on a shared CPU, 1,700 frames per second.
TUD-Stadtmitte: MOTA 0.717, IDF1 0.735, HOTA 0.530.
"""

from configs.tracking._trackers import track


def get_config(arg: str = ''):
    return track(dict(name='sort', min_iou=0.3, max_age=1, min_hits=3), 0.4, arg == 'smoke')
