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
_LEAST_RIDGE = 1e-9  # 0 would leave the solution undetermined where there are few examples
_BLOCK = 1024  # examples that join the moments at once
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
    memory: int = 8 << 30,
) -> BoxRegressors:
    """Fits the regressions of all classes.

    A region is an example of the class of the object of greatest IoU. As in the authors' code, objects are examples
    too, which need not move, and the four targets are centred and whitened before the fit, which is transformed back:
    lambda then means the same for each of them.

    Args:
      files: the features of the training images; read once for the norm, and once for all classes.
      num_classes: C.
      settings: see `BoxRidgeSettings`.
      report: called with the number of images that are done, may raise to interrupt.
      memory: in bytes, of the moments of all classes, [D + 1, D + 1] float64 each; where they need more, the files are
        read once for every few classes.
    """
    scale = settings.norm / measure_feature_norm(files, settings.layer)
    weights, biases, counts = [], [], []
    while len(counts) < num_classes:
        for examples in _collect_examples(files, range(len(counts), num_classes), settings, scale, memory, report):
            fitted = examples.fit(settings.ridge)
            weights.append(fitted[0])
            biases.append(fitted[1])
            counts.append(examples.count)
    return BoxRegressors(np.stack(weights), np.stack(biases), scale, np.array(counts))


def _collect_examples(files, labels, settings, scale, memory, report) -> list[_ClassExamples]:
    """Returns the examples of the first of the classes `labels`, as many as fit into the memory."""
    classes: list[_ClassExamples] = []
    done = 0
    for part in files:
        layer = part.layers[settings.layer]
        if not classes:
            depth = layer.shape[1]
            room = max(memory // (8 * (depth + 1) ** 2), 1)
            classes = [_ClassExamples(depth, scale) for _ in labels[:room]]
        for _, rows in part.split():
            own, objects = part.labels[rows], part.objects[rows]
            chosen = part.overlaps[rows] >= settings.min_iou
            for label in np.unique(own[chosen]).tolist():
                if not 0 <= (place := label - 1 - labels[0]) < len(classes):
                    continue
                examples = np.flatnonzero(chosen & (own == label))
                boxes, aims = part.boxes[rows][examples], part.boxes[rows][objects & (own == label)]
                nearest = box_iou(boxes, aims).argmax(1)
                classes[place].add(layer[rows][examples], encode_transformations(boxes, aims[nearest]))
            done += 1
            report(done)
    return classes


class _ClassExamples:
    """The examples of one class: as they are while they are few, then the moments X'X and X'Y of all but the last."""

    def __init__(self, depth: int, scale: float):
        self.depth, self.scale, self.count = depth, scale, 0
        self.features: list[np.ndarray] = []  # not in the moments yet
        self.targets: list[np.ndarray] = []  # of all
        self.waiting = 0
        self.moments: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, features: np.ndarray, targets: np.ndarray) -> None:
        """Adds features float32 [N, D] and targets float64 [N, 4]."""
        self.features.append(features)
        self.targets.append(targets)
        self.count += len(features)
        self.waiting += len(features)
        # Fewer examples than columns are smaller than their moments, and solved without them.
        if self.waiting >= (self.depth + 1 if self.moments is None else _BLOCK):
            self._condense()

    def fit(self, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weights and biases of `fit_whitened_ridge`."""
        if self.moments is None:
            features = np.concatenate([np.zeros((0, self.depth)), *self.features]) * self.scale
            return fit_whitened_ridge(features, np.concatenate([np.zeros((0, 4)), *self.targets]), ridge)
        if self.waiting:
            self._condense()
        return _solve_moments(*self.moments, np.concatenate(self.targets), ridge)

    def _condense(self) -> None:
        design = _append_ones(np.concatenate(self.features).astype(np.float64) * self.scale)
        targets = np.concatenate(self.targets)[self.count - self.waiting :]
        new = design.T @ design, design.T @ targets
        if self.moments is None:
            self.moments = new
        else:
            for moment, part in zip(self.moments, new, strict=True):
                moment += part  # in place: they are large
        self.features, self.waiting = [], 0


def fit_whitened_ridge(features: np.ndarray, targets: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Fits targets [N, 4] to features [N, D] and a constant: minimises |T (y - mean) - (x, 1) w|^2 + lambda |w|^2.

    T = (S + 0.001)^(-1/2) whitens the targets, whose covariance is S.

    Returns:
      weights float32 [D, 4] and biases float32 [4] of the targets as they are; zeros if there are no examples.
    """
    if not len(targets):
        return np.zeros((features.shape[1], 4), np.float32), np.zeros(4, np.float32)
    design = _append_ones(features)
    count, depth = design.shape
    if count >= depth:
        return _solve_moments(design.T @ design, design.T @ targets, targets, ridge)
    # The same solution from the smaller system: X'(X X' + lambda)^-1 Y.
    mean, whiten, back = _whiten(targets)
    regular = max(ridge, _LEAST_RIDGE) * np.eye(count)
    inner = linalg.solve(design @ design.T + regular, (targets - mean) @ whiten, assume_a='pos')
    return _restore(design.T @ inner, mean, back)


def _solve_moments(
    gram: np.ndarray, cross: np.ndarray, targets: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the fit of `fit_whitened_ridge` from X'X, X'Y and Y, where the last column of X is 1."""
    mean, whiten, back = _whiten(targets)
    # X'(Y - 1 mean'): X'1 is the last column of X'X.
    centred = (cross - gram[:, -1:] * mean) @ whiten
    regular = gram.copy()
    np.fill_diagonal(regular, regular.diagonal() + max(ridge, _LEAST_RIDGE))
    return _restore(linalg.solve(regular, centred, assume_a='pos', overwrite_a=True), mean, back)


def _whiten(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the mean of targets [N, 4], the matrix [4, 4] that whitens them, and its inverse."""
    mean = targets.mean(0)
    centred = targets - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(targets))
    spread = np.sqrt(np.maximum(values, 0) + _WHITENING)
    return mean, (vectors / spread) @ vectors.T, (vectors * spread) @ vectors.T


def _restore(solution: np.ndarray, mean: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns weights and biases of the targets as they are from the solution [D + 1, 4] of whitened ones."""
    solution = solution @ back
    return solution[:-1].astype(np.float32), (solution[-1] + mean).astype(np.float32)


def _append_ones(features: np.ndarray) -> np.ndarray:
    return np.concatenate([features, np.ones((len(features), 1))], 1)
