"""COCO's twelve numbers, and its format of results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from canon.metrics.detection.collection import check_class_range, compute_areas, flatten_rows
from canon.metrics.detection.sizes import COCO_SIZES, SIZE_NAMES, check_sizes
from canon.metrics.rows import Rows

COCO_NAMES = (
    'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large',
    'ar1', 'ar10', 'ar100', 'ar_small', 'ar_medium', 'ar_large',
)  # fmt: skip


class CocoScores(NamedTuple):
    """COCO's numbers, NaN where COCO prints -1: no object is of this size or class.

    Attributes:
      values: the twelve numbers by the names of `COCO_NAMES`: average precision (over IoU 0.50:0.05:0.95, at 0.5, at
        0.75, of small, medium and large objects) and average recall (of 1, 10 and 100 detections per image, by size).
      class_ap: [C], over IoU 0.50:0.05:0.95.
      class_ap50: [C], at IoU 0.5.
      size_ap: [C, 3], `class_ap` of small, medium and large objects.
    """

    values: dict[str, float]
    class_ap: np.ndarray
    class_ap50: np.ndarray
    size_ap: np.ndarray


def score_coco(rows: Rows, num_classes: int, sizes: tuple[float, float] = COCO_SIZES) -> CocoScores:
    """Computes COCO's twelve numbers (Lin et al. 2014 and its detection challenge) by faster-coco-eval.

    Crowd objects are ignored by COCO's rule. Difficult ones count as any other: COCO has no such flag.

    Args:
      rows: of `collect_detections`.
      num_classes: C.
      sizes: areas in pixels^2 between small and medium, and between medium and large objects. An object of exactly
        such an area is of both sizes, as in COCO.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    check_sizes(sizes, 'score_coco')
    table = flatten_rows(rows)
    check_class_range(num_classes, table.labels, table.object_labels)
    if not len(table.image_ids):
        undefined = np.full((num_classes, 3), np.nan)
        return CocoScores(dict.fromkeys(COCO_NAMES, np.nan), undefined[:, 0], undefined[:, 0], undefined)
    objects = _to_annotations(
        table.object_image, table.object_boxes, table.object_labels, area=table.object_areas, iscrowd=table.crowd
    )
    detections = _to_annotations(
        table.image, table.boxes, table.labels, area=compute_areas(table.boxes), score=table.scores
    )
    images = [{'id': i + 1} for i in range(len(table.image_ids))]
    categories = [{'id': i + 1} for i in range(num_classes)]
    truth, results = COCO(), COCO()
    for api, instances in ((truth, objects), (results, detections)):
        # `loadRes` would add a polygon to each detection, which takes longer than the scoring.
        api.dataset = {'images': images, 'annotations': instances, 'categories': categories}
        api.createIndex()
    # From 0 to 1e5^2, the bounds in COCO's code.
    edges = (0.0, *sizes, 1e10)
    ranges = {name: [edges[i], edges[i + 1]] for i, name in enumerate(SIZE_NAMES)}
    evaluation = COCOeval_faster(truth, results, 'bbox', ranges=ranges)
    evaluation.run()
    precision = np.asarray(evaluation.eval['precision'])[..., -1]  # [IoU, recall, class, size], of 100 detections
    precision = np.where(precision > -1, precision, np.nan)
    values = dict(zip(COCO_NAMES, (float(x) if x > -1 else np.nan for x in evaluation.stats), strict=True))
    # A class has objects of a size or it has not, so all entries of its curves are NaN or none is.
    class_ap, class_ap50 = precision[..., 0].mean((0, 1)), precision[0, ..., 0].mean(0)
    return CocoScores(values, class_ap, class_ap50, precision[..., 1:].mean((0, 1)))


def list_coco_results(rows: Rows, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Lists detections as COCO's result JSON has them: image_id, category_id, bbox [x, y, width, height], score.

    Args:
      rows: of `collect_detections`.
      category_ids: COCO's id of each class; None counts from 1.
    """
    table = flatten_rows(rows)
    corners = np.concatenate([table.boxes[:, :2], table.boxes[:, 2:] - table.boxes[:, :2]], 1)
    labels = table.labels + 1 if category_ids is None else np.asarray(category_ids, np.int64)[table.labels]
    # Hundredths of a pixel, as fine as COCO's annotations: most of the file is digits.
    columns = (table.image_ids[table.image], labels, np.round(corners, 2), np.round(table.scores, 5))
    names = ('image_id', 'category_id', 'bbox', 'score')
    return [dict(zip(names, row, strict=True)) for row in zip(*(x.tolist() for x in columns), strict=True)]


def _to_annotations(image, boxes, labels, **columns) -> list[dict[str, Any]]:
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    columns = {'image_id': image + 1, 'bbox': boxes, 'category_id': labels + 1, **columns}
    # From 1: pycocotools marks what is not matched by the id 0.
    columns['id'] = np.arange(1, len(boxes) + 1)
    columns.setdefault('iscrowd', np.zeros(len(boxes), int))
    values = [np.asarray(x, int if x.dtype == bool else x.dtype).tolist() for x in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
