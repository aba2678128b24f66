"""A detector, a tracker and its metrics, end to end on the pictures of moving digits: nothing to download.

    ./launch.sh run configs/tracking/detected_digits.py

Two stages: a narrow SSD (Liu et al. 2016) learns from the frames of other sequences, then ByteTrack (Zhang et al. 2022)
tracks what it detects in the test sequences, whose digits it has never seen. The detector of a finished run serves any
other tracker, folder of frames or video: `--config.detector.run=RUN/0-detector`.

Measured on 2 CPU cores that other jobs shared: `:smoke`, HOTA 0.453, MOTA 0.366, IDF1 0.599 after 500 steps of the
detector (4 test sequences; ByteTrack on drawn detections: 0.670). The full form has not been run.
"""

from configs.tracking._learnt import detected_tracking


def get_config(arg: str = ''):
    if arg == 'smoke':
        return detected_tracking(steps=500, sequences=16, tracked='test[:4]', at_least=0.38)
    return detected_tracking(steps=2500, sequences=48, tracked='test[:16]', at_least=0.5)
