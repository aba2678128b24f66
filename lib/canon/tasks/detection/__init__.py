"""Object detection: the tasks of SSD and YOLO, and an evaluator, figures and predictions that any detector shares.

    task = ssd_task(models.make_model('ssd.ssd300', num_classes=21), make_image_input())
    evaluator = detection_evaluator(task.predict, batches, class_names)

Batches hold 'image' uint8 [B, H, W, 3], 'boxes' float32 [B, M, 4] in pixels, 'labels' int32 [B, M] (0, 1, ... without
background), 'difficult', 'crowd' and 'valid' bool [B, M], and 'mask' bool [B]. `Task.predict` of a detector gives
detections: 'boxes' [B, D, 4], 'scores' [B, D], 'labels' [B, D] and 'valid' [B, D], sorted by score.
"""

from canon.tasks.detection.evaluation import DetectionEvaluation, detection_evaluator
from canon.tasks.detection.figures import make_draw, recall_by_size
from canon.tasks.detection.prediction import (
    ImageDetections,
    PictureSettings,
    collect_rows,
    detect_images,
    pack_detections,
    predict_files,
)
from canon.tasks.detection.prior_coverage import measure_prior_coverage
from canon.tasks.detection.single_shot import (
    SYSTEMS,
    DetectionSettings,
    ObjectSettings,
    check_num_classes,
    ssd_task,
    yolo_task,
)

__all__ = [
    'SYSTEMS', 'DetectionEvaluation', 'DetectionSettings', 'ImageDetections', 'ObjectSettings', 'PictureSettings',
    'check_num_classes', 'collect_rows', 'detect_images', 'detection_evaluator', 'make_draw', 'measure_prior_coverage',
    'pack_detections', 'predict_files', 'recall_by_size', 'ssd_task', 'yolo_task',
]  # fmt: skip
