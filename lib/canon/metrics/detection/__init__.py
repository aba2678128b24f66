"""Metrics of object detectors: VOC's average precision, COCO's twelve numbers, and an analysis of errors.

A ranking over a whole set is not a mean over batches, so the accumulator is `Rows`: `collect_detections` makes it from
the detections and the batch, in pixels of the original images, and the functions that follow score all rows at once.

    def measure(params, mutable, batch):
        return {'detections': detection.collect_detections(task.predict(params, mutable, batch), batch)}

    def finish(sums):
        return {'map': detection.score_voc(sums['detections'], num_classes=20, year=2007).mean_ap}

Images are ordered by `image_id` before they are scored, so neither the order of batches nor their padding nor the
number of processes changes a result. Boxes are [x0, y0, x1, y1] in pixels at pixel edges: VOC's inclusive widths
x_max - x_min + 1 are x1 - x0 here, and overlaps equal those of the development kit.

    >>> import numpy as np
    >>> objects = {'boxes': np.array([[[0, 0, 8, 8]]]), 'labels': np.array([[1]]), 'valid': np.array([[True]])}
    >>> predicted = {'boxes': np.array([[[0, 0, 8, 6], [20, 20, 30, 30]]]), 'labels': np.array([[1, 1]])}
    >>> predicted |= {'scores': np.array([[0.9, 0.8]]), 'valid': np.array([[True, True]])}
    >>> rows = collect_detections(predicted, objects)
    >>> score_voc(rows, num_classes=2).ap.tolist(), round(score_coco(rows, num_classes=2).values['ap'], 2)
    ([nan, 1.0], 0.6)
"""

from canon.metrics.detection.coco import COCO_NAMES, CocoScores, list_coco_results, score_coco
from canon.metrics.detection.collection import DetectionTable, collect_detections, flatten_rows
from canon.metrics.detection.error_analysis import ERROR_KINDS, ErrorAnalysis, analyse_errors
from canon.metrics.detection.matching import Matches, match_detections
from canon.metrics.detection.proposals import ProposalRecall, measure_proposals
from canon.metrics.detection.sizes import COCO_SIZES, SIZE_NAMES
from canon.metrics.detection.voc import VocScores, score_voc

__all__ = [
    'COCO_NAMES', 'COCO_SIZES', 'ERROR_KINDS', 'SIZE_NAMES', 'CocoScores', 'DetectionTable', 'ErrorAnalysis', 'Matches',
    'ProposalRecall', 'VocScores', 'analyse_errors', 'collect_detections', 'flatten_rows', 'list_coco_results',
    'match_detections', 'measure_proposals', 'score_coco', 'score_voc',
]  # fmt: skip
