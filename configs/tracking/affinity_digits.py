"""A learnt affinity of tracks and detections on sequences of moving digits: nothing to download.

    ./launch.sh run configs/tracking/affinity_digits.py

A small network scores every pair of a track, as a Kalman filter predicts it, and a detection up to 15 frames after the
track was last seen; it learns through Sinkhorn's algorithm (Sarlin et al. 2020). `f1` is of the links, `iou_f1` that of
SORT's rule on the same predictions.

Not measured yet.
"""

from configs.tracking._learnt import affinity


def get_config(arg: str = ''):
    return affinity(steps=300, sequences=12, at_least=0.8) if arg == 'smoke' else affinity(2000, 48, 0.8)
