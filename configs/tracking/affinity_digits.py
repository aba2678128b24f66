"""A learnt affinity of tracks and detections on sequences of moving digits: nothing to download.

    ./launch.sh run configs/tracking/affinity_digits.py

A small network scores every pair of a track, as a Kalman filter predicts it, and a detection up to 15 frames after the
track was last seen; it learns through Sinkhorn's algorithm (Sarlin et al. 2020). `f1` is of the links, `iou_f1` that of
SORT's rule on the same predictions.

Measured on 2 CPU cores next to two other trainings, gaps of 1, 5, 10 and 15 frames together: F1 97.8 % after
2,000 steps in 2:40, by IoU 86.2 %; after a gap of 15 frames 93.9 and 63.8 %. `:smoke`, 300 steps: 96.7 % in 61 s, 24 of
CPU time.
"""

from configs.tracking._learnt import affinity


def get_config(arg: str = ''):
    return affinity(steps=300, sequences=12, at_least=0.94) if arg == 'smoke' else affinity(2000, 48, 0.96)
