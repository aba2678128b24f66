"""One linear SVM per class on features of regions, with hard negatives: R-CNN, section 2.3 and appendix B."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from canon import named
from canon.data.detection.region_batches import check_class_counts
from canon.data.images.geometry import box_iou
from canon.tasks.detection.region_features import RegionFeatures, measure_feature_norm

_BLOCK = 256  # regions whose overlaps with all earlier ones are computed at once


@dataclass(frozen=True)
class SvmSettings:
    """config.svms; the defaults are those of the authors' code.

    Attributes:
      layer: of the features.
      c: weight of the hinge loss.
      bias: a constant feature of this value stands for the bias, which is regularised with the weights.
      positive_weight: of positives relative to negatives.
      negative_iou: a region is negative for a class if its IoU with every object of it is below this.
      max_overlap: of two negatives of a class in one image whose IoU is above this, the later one is left out: 0.7 in
        SPP-net (section 4.1); 1 keeps all.
      norm: to which the mean norm of the features is scaled.
      hard: a negative with at least this score is hard, and joins the examples.
      easy: a negative with a lower score leaves the examples after training.
      retrain: new negatives of a class after which it is trained again.
      seed: of liblinear's order of examples.
    """

    layer: str = 'fc7'
    c: named.Positive = 1e-3
    bias: named.Positive = 10.0
    positive_weight: named.Positive = 2.0
    negative_iou: named.Probability = 0.3
    max_overlap: named.Probability = 1.0
    norm: named.Positive = 20.0
    hard: float = -1.0001
    easy: float = -1.2
    retrain: named.Count = 2000
    seed: int = 0


class RegionClassifiers(NamedTuple):
    """Linear classifiers of regions: the score of class c is scale * features @ weights[c] + biases[c].

    Attributes:
      weights: float32 [C, D].
      biases: float32 [C].
      scale: of the features.
      examples: int [C], regions that each was last trained with.
    """

    weights: np.ndarray
    biases: np.ndarray
    scale: float
    examples: np.ndarray

    def score(self, features: np.ndarray) -> np.ndarray:
        """Returns the scores [R, C] of features [R, D]."""
        return (features * np.float32(self.scale)) @ self.weights.T + self.biases


def fit_region_svms(
    files: Iterable[RegionFeatures],
    names: Sequence[str],
    settings: SvmSettings = SvmSettings(),
    report: Callable[[int], None] = lambda done: None,
) -> RegionClassifiers:
    """Fits the SVMs of all classes in one pass over the features.

    The positives of a class are its objects alone. Negatives are mined (Felzenszwalb et al. 2010): those of the first
    images are all taken; as soon as a class has been trained, only those that it scores above the margin. It is trained
    again whenever enough of them are new, and then forgets the easy ones.

    Args:
      files: the features of the training images; read three times: for the norm, for the positives and for
        the negatives.
      names: of the classes.
      settings: see `SvmSettings`.
      report: called with the number of images that are done, may raise to interrupt.

    Raises:
      CanonError: a class has no object, or the features are all zero.
    """
    layer, count = settings.layer, len(names)
    scale = settings.norm / measure_feature_norm(files, layer)
    positives: list[list[np.ndarray]] = [[] for _ in names]
    for part in files:
        for label in range(count):
            positives[label].append(part.layers[layer][part.objects & (part.labels == label + 1)] * np.float32(scale))
    examples = [np.concatenate(parts) for parts in positives]
    check_class_counts([len(values) for values in examples], names, 'its SVM')
    classes = [_MinedClassifier(values, settings) for values in examples]
    done = 0
    for part in files:
        for _, rows in part.split():
            features = part.layers[layer][rows] * np.float32(scale)
            negatives = find_negatives(part, rows, count, settings.negative_iou)
            negatives = thin_negatives(part.boxes[rows], negatives, settings.max_overlap)
            for fitted, own in zip(classes, negatives.T, strict=True):
                fitted.mine(features[own])
            done += 1
            report(done)
    for fitted in classes:
        fitted.finish()
    weights, biases, sizes = zip(*((c.weights, c.bias, c.size) for c in classes), strict=True)
    return RegionClassifiers(np.stack(weights), np.array(biases, np.float32), scale, np.array(sizes))


def find_negatives(part: RegionFeatures, rows: slice, count: int, negative_iou: float) -> np.ndarray:
    """Returns which regions of an image are negatives of each class, bool [R, C].

    Regions whose nearest object is difficult or a crowd are none from that IoU on.
    """
    boxes, labels, objects = part.boxes[rows], part.labels[rows], part.objects[rows]
    overlap = np.zeros((len(boxes), count))
    iou = box_iou(boxes, boxes[objects])
    for column, label in enumerate(labels[objects]):
        overlap[:, label - 1] = np.maximum(overlap[:, label - 1], iou[:, column])
    ignored = (labels < 0) & (part.overlaps[rows] >= negative_iou)
    return (overlap < negative_iou) & ~ignored[:, None]


def thin_negatives(boxes: np.ndarray, negatives: np.ndarray, max_overlap: float) -> np.ndarray:
    """Leaves out negatives that overlap another one: He et al. 2014, section 4.1.

    The paper removes "any negative sample" that overlaps another one by more than 70 %. Both of a pair cannot be meant,
    so the first stays, in the order of the regions, and one that is left out removes no other.

    Args:
      boxes: of the regions of an image, [R, 4].
      negatives: of each class, bool [R, C].
      max_overlap: IoU above which two overlap.

    Returns:
      bool [R, C].
    """
    kept = negatives.copy()
    if max_overlap >= 1:
        return kept
    rows = np.flatnonzero(negatives.any(1))  # a negative of one class is one of most
    boxes = boxes[rows]
    # In blocks, since all pairs of 2,000 boxes take a hundred megabytes.
    for start in range(0, len(rows), _BLOCK):
        stop = start + _BLOCK
        overlapping = box_iou(boxes[start:stop], boxes[:stop]) > max_overlap
        for row, others in enumerate(overlapping, start):
            kept[rows[row]] &= ~kept[rows[:row][others[:row]]].any(0)
    return kept


class _MinedClassifier:
    """The SVM of one class and its examples, which are visited once, so that none is taken twice."""

    def __init__(self, positives: np.ndarray, settings: SvmSettings):
        self.positives, self.settings = positives, settings
        self.negatives: list[np.ndarray] = []
        self.new = self.size = 0
        self.weights, self.bias, self.is_trained = np.zeros(positives.shape[1], np.float32), 0.0, False

    def mine(self, features: np.ndarray) -> None:
        """Adds the hard ones of some negatives, and trains if enough are new."""
        if self.is_trained:
            features = features[features @ self.weights + self.bias > self.settings.hard]
        self.negatives.append(features)
        self.new += len(features)
        if self.new >= self.settings.retrain:
            self._train()
            self._forget()

    def finish(self) -> None:
        """Trains with what is new since the last time."""
        if self.new or not self.is_trained:
            self._train()

    def _train(self) -> None:
        from sklearn.svm import LinearSVC  # takes a second to import

        negatives = np.concatenate([self.positives[:0], *self.negatives])
        self.new, self.size, self.is_trained = 0, len(self.positives) + len(negatives), True
        if not len(negatives):  # nothing but objects: every region is one
            self.bias = 1.0
            return
        svm = LinearSVC(
            C=self.settings.c,
            loss='hinge',
            intercept_scaling=self.settings.bias,
            class_weight={1: self.settings.positive_weight},
            random_state=self.settings.seed,
            max_iter=20_000,
        )
        targets = np.repeat([1, 0], (len(self.positives), len(negatives)))
        # In float64, which liblinear computes in: a copy is made in any case.
        svm.fit(np.concatenate([self.positives, negatives]).astype(np.float64), targets)
        self.weights, self.bias = svm.coef_[0].astype(np.float32), float(svm.intercept_[0])

    def _forget(self) -> None:
        negatives = np.concatenate(self.negatives)
        self.negatives = [negatives[negatives @ self.weights + self.bias >= self.settings.easy]]
