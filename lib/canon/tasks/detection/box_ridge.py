"""Regresses the boxes of regions linearly from their features, one ridge regression per class: R-CNN, appendix C."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from scipy import linalg

from canon import named
from canon.data.images.geometry import box_iou
from canon.tasks.detection.region_features import RegionFeatures, measure_feature_norm

_WHITENING = 1e-3  # added to the variances of the targets, as in the authors' code
_MAX_LOG = np.log(1000 / 16)  # of a change of size: a linear function of bad features may be anything


@dataclass(frozen=True)
class BoxRidgeSettings:
    """config.boxes; the defaults are those of the paper.

    Attributes:
      layer: of the features: the last one that still knows where things are.
      ridge: lambda, weight of the squared norm.
      min_iou: regions with at least this IoU with an object of the class are its examples.
      norm: to which the mean norm of the features is scaled.
    """

    layer: str = 'pool5'
    ridge: Annotated[float, named.Range(0)] = 1000.0
    min_iou: named.Probability = 0.6
    norm: named.Positive = 20.0


class BoxRegressors(NamedTuple):
    """Linear regressions of the four transformations of a region, one per class.

    Attributes:
      weights: float32 [C, D, 4]; zeros for a class without examples, which moves no box.
      biases: float32 [C, 4].
      scale: of the features.
      examples: int [C], regions that each was fitted to.
    """

    weights: np.ndarray
    biases: np.ndarray
    scale: float
    examples: np.ndarray

    def move(self, boxes: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Returns the boxes [R, C, 4] that each class predicts of boxes [R, 4] with features [R, D]."""
        scaled = features * np.float32(self.scale)
        offsets = np.stack([scaled @ w + b for w, b in zip(self.weights, self.biases, strict=True)], 1)
        return apply_transformations(boxes[:, None], offsets)


def encode_transformations(boxes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the transformations [..., 4] of boxes to targets: equations 6 to 9, float64.

    (t_x, t_y) are the distances of the centres divided by width and height, (t_w, t_h) the logarithms of the ratios of
    the sides.
    """
    (centre, sides), (other, other_sides) = (_split_box(values) for values in (boxes, targets))
    return np.concatenate([(other - centre) / sides, np.log(other_sides / sides)], -1)


def apply_transformations(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Returns the boxes [..., 4] that transformations make of boxes: equations 1 to 4, float32."""
    centre, sides = _split_box(boxes)
    moved = centre + np.asarray(offsets[..., :2], np.float64) * sides
    half = sides * np.exp(np.minimum(offsets[..., 2:], _MAX_LOG)) / 2
    return np.concatenate([moved - half, moved + half], -1).astype(np.float32)


def _split_box(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    boxes = np.asarray(boxes, np.float64)
    # A side of zero would give infinite transformations.
    return (boxes[..., :2] + boxes[..., 2:]) / 2, np.maximum(boxes[..., 2:] - boxes[..., :2], 1e-6)


def fit_box_ridge(
    files: Iterable[RegionFeatures],
    num_classes: int,
    settings: BoxRidgeSettings = BoxRidgeSettings(),
    report: Callable[[int], None] = lambda done: None,
) -> BoxRegressors:
    """Fits the regressions of all classes.

    A region is an example of the class of the object of greatest IoU. The four targets are centred and whitened before
    the fit, and the fit is transformed back, as the authors' code does: lambda then means the same for each of them.

    Args:
      files: the features of the training images; read once for the norm, and once per class.
      num_classes: C.
      settings: see `BoxRidgeSettings`.
      report: called with the number of classes that are done, may raise to interrupt.
    """
    scale = settings.norm / measure_feature_norm(files, settings.layer)
    weights, biases, counts = [], [], []
    for label in range(num_classes):
        features, targets = _collect_examples(files, label, settings, scale)
        fitted = fit_whitened_ridge(features, targets, settings.ridge)
        weights.append(fitted[0])
        biases.append(fitted[1])
        counts.append(len(targets))
        report(label + 1)
    return BoxRegressors(np.stack(weights), np.stack(biases), scale, np.array(counts))


def _collect_examples(files, label, settings, scale) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features [N, D] and the targets [N, 4] of one class."""
    features, targets = [], []
    for part in files:
        layer = part.layers[settings.layer]
        features.append(layer[:0])
        for _, rows in part.split():
            own, objects = part.labels[rows] == label + 1, part.objects[rows]
            chosen = np.flatnonzero(own & ~objects & (part.overlaps[rows] >= settings.min_iou))
            if not len(chosen):
                continue
            boxes, aims = part.boxes[rows][chosen], part.boxes[rows][own & objects]
            nearest = box_iou(boxes, aims).argmax(1)
            features.append(layer[rows][chosen])
            targets.append(encode_transformations(boxes, aims[nearest]))
    return np.concatenate(features).astype(np.float64) * scale, np.concatenate([np.zeros((0, 4)), *targets])


def fit_whitened_ridge(features: np.ndarray, targets: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Fits targets [N, 4] to features [N, D] and a constant: minimises |T (y - mean) - (x, 1) w|^2 + lambda |w|^2.

    T = (S + 0.001)^(-1/2) whitens the targets, whose covariance is S.

    Returns:
      weights float32 [D, 4] and biases float32 [4] of the targets as they are; zeros if there are no examples.
    """
    if not len(targets):
        return np.zeros((features.shape[1], 4), np.float32), np.zeros(4, np.float32)
    mean = targets.mean(0)
    centred = targets - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(targets))
    spread = np.sqrt(np.maximum(values, 0) + _WHITENING)
    whiten, back = (vectors / spread) @ vectors.T, (vectors * spread) @ vectors.T
    design = np.concatenate([features, np.ones((len(features), 1))], 1)
    count, depth = design.shape
    regular = max(ridge, 1e-9)  # 0 would leave the solution undetermined where there are few examples
    if count < depth:  # the same solution from the smaller system: X'(X X' + lambda)^-1 Y
        inner = linalg.solve(design @ design.T + regular * np.eye(count), centred @ whiten, assume_a='pos')
        solution = design.T @ inner
    else:
        gram = design.T @ design + regular * np.eye(depth)
        solution = linalg.solve(gram, design.T @ (centred @ whiten), assume_a='pos')
    solution = solution @ back
    return solution[:-1].astype(np.float32), (solution[-1] + mean).astype(np.float32)
