"""Turns scores of regions into detections, and detections of a whole set into metrics, on the host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """config.detect: which scored regions are detections. The limits are per image, and keep the best; None has none.

    The authors of R-CNN and SPP-net also keep no more than 40 and 5 regions per class and image on average over the
    whole set, which saves them memory; that is left out here.

    Attributes:
      score_threshold: lower scores are not. Those of SVMs are given by the logistic function, which keeps their order:
        0.27 and 0.73 at the margins.
      iou_threshold: of non-maximum suppression within a class.
      candidates_per_class: regions that enter it; 100 in R-CNN's code.
      max_per_class: detections of a class; 100 in SPP-net's code.
      max_detections: detections of all classes together; 100 in the code of Fast R-CNN and all that followed.
    """

    score_threshold: named.Probability = 0.15
    iou_threshold: named.Probability = 0.3
    candidates_per_class: named.Count | None = 100
    max_per_class: named.Count | None = None
    max_detections: named.Count | None = None

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
            best = np.argsort(-scores[rows, label], kind='stable')[: self.candidates_per_class]
            rows = rows[np.sort(best)]  # in their first order, which decides between equal scores
            rows = rows[suppress(own[rows], scores[rows, label], self.iou_threshold)[: self.max_per_class]]
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


class RegionDetections(NamedTuple):
    """Holds the detections of a detector on all images.

    Attributes:
      rows: that `canon.metrics.detection` scores.
      seconds: that scoring and selecting took, without the reading of features.
    """

    rows: Rows
    seconds: float


def detect_regions(
    source: Source,
    files: Iterable[RegionFeatures],
    detectors: Mapping[str, tuple[ScoreRegions, RegionSelection]],
) -> dict[str, RegionDetections]:
    """Detects the objects of all images that have features, by several detectors in one pass over the files.

    Args:
      source: of the images, with their objects.
      files: the features of the regions.
      detectors: by name; each scores the regions of an image and selects its detections.

    Returns:
      The detections by name.
    """
    rows, seconds = {name: Rows(()) for name in detectors}, dict.fromkeys(detectors, 0.0)
    for part in files:
        for number, regions in part.split():
            example = source[number]
            count = len(example['labels'])
            batch = {
                name: example[name] for name in ('boxes', 'labels', 'difficult', 'crowd', 'area') if name in example
            }
            batch |= {'valid': np.ones(count, bool), 'image_id': np.asarray(example.get('image_id', number))}
            for name, (score, selection) in detectors.items():
                began = time.perf_counter()
                scores, boxes = score(part, regions)
                found = selection.select(boxes, scores, example['image'].shape[:2])
                seconds[name] += time.perf_counter() - began
                found['valid'] = np.ones(len(found['scores']), bool)
                pair = ({key: value[None] for key, value in fields.items()} for fields in (found, batch))
                rows[name] = rows[name] + detection.collect_detections(*pair)
    return {name: RegionDetections(rows[name], seconds[name]) for name in detectors}


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
