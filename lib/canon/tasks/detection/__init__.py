"""Object detection: the tasks of each detector, and an evaluator, figures and predictions that all of them share.

    task = ssd_task(models.make_model('ssd.ssd300', num_classes=21), make_image_input())
    evaluator = detection_evaluator(task.predict, batches, class_names)

Batches hold 'image' uint8 [B, H, W, 3], 'boxes' float32 [B, M, 4] in pixels, 'labels' int32 [B, M] (0, 1, ... without
background), 'difficult', 'crowd' and 'valid' bool [B, M], and 'mask' bool [B]. `Task.predict` of a detector gives
detections: 'boxes' [B, D, 4], 'scores' [B, D], 'labels' [B, D] and 'valid' [B, D], sorted by score.
"""

from canon.tasks.detection.evaluation import DetectionEvaluation, detection_evaluator
from canon.tasks.detection.figures import make_draw, name_images, recall_by_size
from canon.tasks.detection.network_proposals import compute_network_proposals, record_image, time_prediction
from canon.tasks.detection.prediction import (
    ImageDetections,
    PictureSettings,
    collect_rows,
    compare_packed,
    detect_images,
    pack_detections,
    predict_files,
)
from canon.tasks.detection.prior_coverage import measure_prior_coverage
from canon.tasks.detection.proposal_evaluation import proposal_evaluator
from canon.tasks.detection.regions import RegionSettings, RPNSettings, fast_rcnn_task, faster_rcnn_task, rpn_task
from canon.tasks.detection.single_shot import DetectionSettings, ssd_task, yolo_task
from canon.tasks.detection.systems import (
    SYSTEMS,
    check_num_classes,
    count_classes,
    find_priors,
    make_evaluator,
    make_system,
)

__all__ = [
    'SYSTEMS', 'DetectionEvaluation', 'DetectionSettings', 'ImageDetections', 'PictureSettings', 'RPNSettings',
    'RegionSettings', 'check_num_classes', 'collect_rows', 'compare_packed', 'compute_network_proposals',
    'count_classes', 'detect_images', 'detection_evaluator', 'fast_rcnn_task', 'faster_rcnn_task', 'find_priors',
    'make_draw', 'make_evaluator', 'make_system', 'measure_prior_coverage', 'name_images', 'pack_detections',
    'predict_files', 'proposal_evaluator', 'recall_by_size', 'record_image', 'rpn_task', 'ssd_task', 'time_prediction',
    'yolo_task',
]  # fmt: skip
