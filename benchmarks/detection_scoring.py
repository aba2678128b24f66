"""Scoring of 1,000 images compared with pycocotools and scikit-learn: VOC, COCO and the confusion matrix of mean IU.

    python -m benchmarks.detection_scoring [--rounds=5] [--only=voc,coco,miou] [--pycocotools=PYTHON]

VOC and COCO: 100 detections and up to 16 objects per image, 20 classes, from arrays to numbers. pycocotools has its
objects loaded before, and for 'voc' evaluates one threshold of IoU and all sizes together. 'voc_shared' adds the
analysis of errors on the same matches. 'miou' counts 320x240 label maps of 21 classes; scikit-learn's
`confusion_matrix` is its peer. How the sides take turns: benchmarks/comparison.py.
"""

import sys

import numpy as np

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Peer, Work

sys.path.insert(0, str(comparison.TOOLS))  # tools/scoring_pycocotools.py imports its neighbour, as the peer runs it

MAPS, HEIGHT, WIDTH, CLASSES = 50, 240, 320, 21


def score_voc(with_errors: bool = False):
    from canon.metrics import detection
    from tools.scoring_pycocotools import CLASSES, draw_set

    detections, batch = draw_set()

    def call():
        matches = detection.match_detections(detection.collect_detections(detections, batch))
        if with_errors:
            detection.analyse_errors(matches, CLASSES)
        return detection.score_voc(matches, CLASSES).ap

    return call


def score_coco():
    from canon.metrics import detection
    from tools.scoring_pycocotools import CLASSES, draw_set

    detections, batch = draw_set()
    return lambda: detection.score_coco(detection.collect_detections(detections, batch), CLASSES).class_ap


def draw_maps():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, (MAPS, HEIGHT, WIDTH)).astype(np.uint8)
    predictions = np.where(rng.random(labels.shape) < 0.7, labels, rng.integers(0, CLASSES, labels.shape))
    labels[:, :10] = 255
    return predictions.astype(np.uint8), labels


def count_maps():
    import jax

    from canon.metrics import segmentation

    predictions, labels = draw_maps()
    count = jax.jit(segmentation.count_pixels, static_argnums=2)

    def call():
        counts = sum(np.asarray(count(predictions, labels, CLASSES)) for _ in range(1000 // MAPS))
        return segmentation.score_segmentation(np.asarray(counts))['mean_iu']

    return call


def count_maps_by_sklearn():
    from sklearn.metrics import confusion_matrix

    predictions, labels = draw_maps()

    def call():
        total = np.zeros((CLASSES, CLASSES), np.int64)
        for _ in range(1000 // MAPS):
            valid = labels != 255
            total += confusion_matrix(labels[valid], predictions[valid], labels=np.arange(CLASSES))
        return total

    return call


WORKS = {
    'voc': Work({'canon': score_voc}, 1, {'pycocotools': 1.0}),
    'voc_shared': Work({'canon': lambda: score_voc(with_errors=True)}, 1, {}),
    'coco': Work({'canon': score_coco}, 1, {'pycocotools': 1.0}),
    'miou': Work({'canon': count_maps, 'sklearn': count_maps_by_sklearn}, 1, {'sklearn': 1.0}),
}
BENCHMARK = Benchmark('benchmarks.detection_scoring', WORKS, Peer('scoring_pycocotools.py', 'pycocotools'))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
