"""Turns scores of regions into detections, and detections of a whole set into metrics, on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from canon import named
from canon.data.images.geometry import box_area, box_iou, clip_boxes
from canon.data.pipeline.source import Source
from canon.metrics import Rows, detection
from canon.tasks.detection.region_features import RegionFeatures

# From the regions of one image to their scores [R, C] and the boxes of each class [R, C, 4] or [R, 1, 4].
ScoreRegions = Callable[[RegionFeatures, slice], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class RegionSelection:
    """config.detect: which scored regions are detections.

    Attributes:
      score_threshold: lower scores are not. Those of SVMs are given by the logistic function, which keeps their order:
        0.27 and 0.73 at the margins.
      iou_threshold: of non-maximum suppression within a class.
      max_detections: per image, the best of all classes.
    """

    score_threshold: named.Probability = 0.15
    iou_threshold: named.Probability = 0.3
    max_detections: named.Count = 100

    def select(self, boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Selects the detections of one image.

        Args:
          boxes: [R, C, 4] or [R, 1, 4], in pixels; clipped, and left out if nothing is left.
          scores: [R, C].
          size: of the image (height, width).

        Returns:
          'boxes' float32 [D, 4], 'scores' float32 [D] and 'labels' int32 [D], best first.
        """
        boxes = clip_boxes(boxes, size).astype(np.float32)
        parts = []
        for label in range(scores.shape[1]):
            own = boxes[:, min(label, boxes.shape[1] - 1)]
            rows = np.flatnonzero((scores[:, label] >= self.score_threshold) & (box_area(own) > 0))
            rows = rows[suppress(own[rows], scores[rows, label], self.iou_threshold)]
            parts.append((own[rows], scores[rows, label], np.full(len(rows), label)))
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        best = np.argsort(-joined[1], kind='stable')[: self.max_detections]
        return {
            'boxes': joined[0][best],
            'scores': joined[1][best].astype(np.float32),
            'labels': joined[2][best].astype(np.int32),
        }


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Returns the rows that greedy non-maximum suppression keeps, best first; of equal scores the first row.

    The form for the host of `canon.ops.nms`, where the number of regions differs from image to image.
    """
    order, kept = np.argsort(-scores, kind='stable'), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        order = rest[box_iou(boxes[best], boxes[rest])[0] <= iou_threshold]
    return np.array(kept, np.int64)


def detect_regions(
    source: Source, files: Iterable[RegionFeatures], score: ScoreRegions, selection: RegionSelection
) -> Rows:
    """Detects the objects of all images that have features.

    Args:
      source: of the images, with their objects.
      files: the features of the regions.
      score: scores the regions of an image.
      selection: of the detections.

    Returns:
      The rows that `canon.metrics.detection` scores.
    """
    rows = Rows(())
    for part in files:
        for number, regions in part.split():
            example = source[number]
            scores, boxes = score(part, regions)
            found = selection.select(boxes, scores, example['image'].shape[:2])
            found['valid'] = np.ones(len(found['scores']), bool)
            count = len(example['labels'])
            batch = {
                name: example[name] for name in ('boxes', 'labels', 'difficult', 'crowd', 'area') if name in example
            }
            batch |= {'valid': np.ones(count, bool), 'image_id': np.asarray(example.get('image_id', number))}
            rows = rows + detection.collect_detections(*({k: v[None] for k, v in d.items()} for d in (found, batch)))
    return rows


def squash_scores(scores: np.ndarray) -> np.ndarray:
    """Returns the logistic function of scores of SVMs: in 0..1 and in the same order, as figures take them."""
    return special.expit(scores)


def score_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of all classes but the background, class 0, of logits [R, 1 + C]."""
    return special.softmax(logits, axis=1)[:, 1:]


def make_scorer(
    classifier: Callable[[Mapping[str, np.ndarray]], np.ndarray],
    regressor: Callable[[np.ndarray, Mapping[str, np.ndarray]], np.ndarray] | None = None,
) -> ScoreRegions:
    """Makes the function that scores the regions of an image.

    Args:
      classifier: from the layers of the regions to scores [R, C].
      regressor: from the boxes [R, 4] and the layers to the boxes of each class [R, C, 4]; None leaves them.
    """

    def score(part: RegionFeatures, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        layers, boxes = {name: values[rows] for name, values in part.layers.items()}, part.boxes[rows]
        moved: Any = boxes[:, None] if regressor is None else regressor(boxes, layers)
        return classifier(layers), moved

    return score
