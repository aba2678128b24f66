"""Semantic segmentation: the task, its evaluator, and prediction on images of any size.

    task = segmentation_task(models.make_model('fcn.fcn8s', num_classes=21), make_image_input(0.45, 0.25))
    evaluator = segmentation_evaluator(task.predict, batches, class_names)

The model is any linen module from images [B, H, W, C] to logits [B, H, W, num_classes]. Batches hold 'image' uint8
[B, H, W, C], 'segmentation' uint8 [B, H, W] (a class per pixel; 255 is void and does not count) and 'mask' bool [B].
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from canon import backend, losses, metrics, named, plots
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.source import Source
from canon.errors import CanonError, UsageError
from canon.metrics.segmentation import VOID, class_iu, count_pixels, score_segmentation
from canon.tasks.classification import apply_in_training, apply_network, init_network
from canon.tasks.image_settings import HeldOutImages
from canon.tasks.predictions import Prediction, join_frames
from canon.train import Evaluator, Task

_SAMPLES = 8  # images in a figure
_GALLERY_EXAMPLES = 1000  # among which the worst are chosen


@dataclass(frozen=True)
class SegmentationLoss:
    """The loss of training: the cross entropy of every pixel that has a class.

    Attributes:
      reduction: 'mean' over pixels; 'sum' over the pixels of an image, averaged over images: the unnormalised loss of
        the FCN paper, whose learning rates are of the order of 1e-10 for it.
      balance: exponent p of the classes' weights (median frequency / frequency)^p (Eigen & Fergus 2015, section 6.3.2,
        with p = 1). 0 weights all pixels alike.
      label_smoothing: as of `losses.softmax_cross_entropy`.
      auxiliary: weight of each auxiliary head, whose logits the model sows into the collection 'auxiliary'.
    """

    reduction: Literal['mean', 'sum'] = 'mean'
    balance: named.Probability = 0.0
    label_smoothing: named.Probability = 0.0
    auxiliary: named.NonNegative = 0.5


@dataclass(frozen=True)
class AnySize:
    """Settings for prediction on images of any size.

    Attributes:
      shorter_side: to which images are resized first; None keeps their size.
      multiple: images are padded at the bottom and right to a multiple of it, so that few sizes are compiled.
      sizes: (height, width) of the only sizes that are compiled; an image is padded to the smallest one that holds it.
        Empty for multiples of `multiple`.
      flip: whether the probabilities of the mirrored image are averaged in.
    """

    shorter_side: named.Count | None = None
    multiple: named.Count = 32
    sizes: tuple[tuple[int, int], ...] = ()
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class SegmentationEvaluation(HeldOutImages):
    """An entry of config.data.evals.

    Attributes:
      flip: averages the probabilities of the mirror image in.
      name: another data set than data.name, as networks that learn from SBD are evaluated on VOC.
      source: the arguments of that data set.
    """

    flip: bool = False
    name: str | None = None
    source: Mapping[str, Any] | None = None


def segmentation_task(
    model: Any,
    make_input: Callable[[Any], jax.Array],
    loss: SegmentationLoss | None = None,
    class_weights: Sequence[float] | None = None,
) -> Task:
    """Makes the task of predicting the class of every pixel.

    Args:
      model: a linen module from images to logits [B, H, W, num_classes].
      make_input: from a batch to what the model takes, such as `canon.tasks.classification.make_image_input()`.
      loss: of training; None for the mean cross entropy.
      class_weights: of the pixels of each class in the loss; None for 1. A mean is divided by the sum of the weights.

    Returns:
      A task whose `predict` gives logits [B, H, W, num_classes], float32.
    """
    settings = SegmentationLoss() if loss is None else loss

    def training_loss(params, mutable, batch, at):
        labels = batch['segmentation']
        weights = jnp.asarray(metrics.valid_labels(labels, batch['mask'], VOID), jnp.float32)
        if class_weights is not None:
            table = jnp.asarray(class_weights, jnp.float32)
            # Void is 255, beyond the table; its weight is 0 already.
            weights = weights * table[jnp.minimum(labels, len(table) - 1)]

        def of_logits(logits):
            per_pixel = losses.softmax_cross_entropy(logits, labels, settings.label_smoothing, ignore_label=VOID)
            pixels = metrics.Mean.of(per_pixel, weights)
            if settings.reduction == 'mean':
                return pixels
            # Divided by the images, not by the pixels: Caffe's unnormalised loss with a batch of one.
            return metrics.Mean(pixels.total, batch['mask'].sum().astype(jnp.float32))

        logits, auxiliary_logits, changed = apply_in_training(model, make_input, params, mutable, batch, at.key)
        total = of_logits(logits)
        for head in auxiliary_logits:
            # Heads see the same pixels, so their sums have one weight.
            total = metrics.Mean(total.total + settings.auxiliary * of_logits(head).total, total.weight)
        accuracy = metrics.accuracy(logits, labels, batch['mask'], ignore_label=VOID)
        return total, (changed, {'pixel_accuracy': accuracy})

    def predict(params, mutable, batch):
        images = make_input({'image': batch['image']})
        return apply_network(model, {'params': params, **mutable}, images, train=False).astype(jnp.float32)

    return Task(partial(init_network, model, make_input), training_loss, predict)


def average_flips(predict: Callable) -> Callable:
    """Averages the probabilities of an image and of its mirror image, mirrored back. Returns their logarithm."""

    def predict_both(params, mutable, batch):
        flipped = predict(params, mutable, {**batch, 'image': batch['image'][:, :, ::-1]})[:, :, ::-1]
        # log((p + q) / 2) from log p and log q, without leaving the
        # logarithms, in which small probabilities do not underflow.
        both = jnp.stack([predict(params, mutable, batch), flipped])
        return jax.nn.logsumexp(jax.nn.log_softmax(both), 0) - np.log(2)

    return predict_both


def median_frequency_weights(source: Source, num_classes: int, power: float = 1.0) -> list[float]:
    """Computes (median frequency / frequency of class c)^power for every class: Eigen & Fergus 2015, section 6.3.2.

    The frequency of c is its share of the pixels, void ones included, of the images that have c. Classes that no image
    has get the weight 1. Reads every example's 'segmentation' once.

    Args:
      source: of the training examples.
      num_classes: C.
      power: 1 balances the classes; less balances them in part.
    """
    pixels, area = np.zeros(num_classes), np.zeros(num_classes)
    for i in range(len(source)):
        labels = source[i]['segmentation']
        counts = np.bincount(labels.ravel(), minlength=256)[:num_classes]
        pixels += counts
        # Only images that have the class: a class that is rare among images, but large where it occurs, is not rare.
        area += labels.size * (counts > 0)
    frequency = pixels / np.maximum(area, 1)
    present = frequency > 0
    weights = np.ones(num_classes)
    if present.any():
        weights[present] = (np.median(frequency[present]) / frequency[present]) ** power
    return weights.tolist()


def check_label_map(num_classes: int) -> Transform:
    """Checks every label map before it is cached: uint8 [H, W] of the image's size, classes below C or 255.

    Raises CanonError, when applied, naming the example: in a compiled loss a class above C would be NaN without a name.
    """

    def apply(example, key):
        if 'segmentation' not in example:
            fields = ', '.join(example)
            raise UsageError(f"the examples have no field 'segmentation', a label map; they have {fields}")
        image, labels = example['image'], example['segmentation']
        if labels.dtype != np.uint8 or labels.shape != image.shape[:2]:
            raise CanonError(
                f'example {key.id}: the label map is {labels.dtype} {list(labels.shape)}, expected uint8 '
                f'{list(image.shape[:2])}, a class for each pixel of the image'
            )
        above = labels[(labels >= num_classes) & (labels != VOID)]
        if above.size:
            raise CanonError(
                f'example {key.id}: the label map has class {above.max()}, but model.num_classes={num_classes}; raise '
                f'it, or make void pixels {VOID}'
            )
        return example

    return Transform(apply)


def segmentation_evaluator(predict: Callable, batches: Any, names: Sequence[str]) -> Evaluator:
    """Measures the four metrics of the FCN paper and draws predictions, the IU of each class and their confusions.

    Metrics: `mean_iu`, `pixel_accuracy`, `mean_accuracy`, `frequency_weighted_iu`
    (`canon.metrics.segmentation.score_segmentation`), and `loss`, the mean cross entropy in nats.

    Args:
      predict: (params, mutable, batch) -> logits [B, H, W, C].
      batches: finite data.
      names: of the C classes.
    """

    def measure(params, mutable, batch):
        logits, labels = predict(params, mutable, batch), batch['segmentation']
        per_pixel = losses.softmax_cross_entropy(logits, labels, ignore_label=VOID)
        return {
            'loss': metrics.Mean.of(per_pixel, metrics.valid_labels(labels, batch['mask'], VOID)),
            'confusion': count_pixels(logits.argmax(-1), labels, len(names), batch['mask']),
        }

    def finish(sums):
        return {**score_segmentation(sums['confusion']), 'loss': sums['loss'].value}

    def draw(params, mutable, sums):
        first, worst = _select_images(predict, params, mutable, batches, len(names))
        subset = f' of the first {_GALLERY_EXAMPLES}' if batches.num_examples > _GALLERY_EXAMPLES else ''
        return {
            'predictions': _draw_rows(first, names),
            f'worst images{subset}': _draw_rows(worst, names),
            'IU by class': plots.draw_class_scores(class_iu(sums['confusion']), names, 'intersection over union'),
            'confusion matrix': plots.draw_confusion_matrix(sums['confusion'], names),
        }

    return Evaluator(batches, measure, finish, draw)


def _draw_rows(rows: Sequence[tuple], names: Sequence[str]):
    """Draws rows (image, truth, prediction, mean IU); void pixels are void in the predictions too."""
    # So that the eye compares what the metric compares.
    shown = [np.where(truth == VOID, VOID, prediction) for _, truth, prediction, _ in rows]
    return plots.draw_label_maps(
        [image for image, *_ in rows],
        {'truth': [truth for _, truth, *_ in rows], 'prediction': shown},
        names,
        [f'mean IU {score:.2f}' for *_, score in rows],
        background=find_background(names),
    )


def find_background(names: Sequence[str]) -> int:
    """Returns the class that figures leave clear: 0 if it is called 'background', else none, -1."""
    return 0 if names and names[0] == 'background' else -1


def make_palette_image(labels: np.ndarray) -> Image.Image:
    """Returns a label map uint8 [H, W] as an image whose pixels are classes, shown in the colours of Pascal VOC."""
    image = Image.fromarray(labels, mode='P')
    image.putpalette(plots.make_voc_palette().ravel().tolist())
    return image


def _select_images(predict, params, mutable, batches, num_classes: int) -> tuple[list[tuple], list[tuple]]:
    """Returns the first images and those of the lowest mean IU, worst first, as rows (image, truth, prediction, IU)."""
    infer = backend.jit(lambda p, m, b: predict(p, m, b).argmax(-1).astype(jnp.uint8))
    first, worst, count = [], [], 0
    for batch in batches.iterate():
        predictions = np.asarray(infer(params, mutable, batch))
        for i in np.flatnonzero(batch['mask']):
            truth = batch['segmentation'][i]
            score = _image_iu(truth, predictions[i], num_classes)
            row = (batch['image'][i], truth, predictions[i], score)
            if len(first) < _SAMPLES:
                first.append(row)
            if np.isfinite(score):  # an image that is void everywhere has no score
                # The count breaks ties: a heap would compare images. Negative, since the heap drops its least.
                entry = (-score, -count, row)
                (heapq.heappush if len(worst) < _SAMPLES else heapq.heappushpop)(worst, entry)
            count += 1
        if count >= _GALLERY_EXAMPLES:
            break
    return first, [row for *_, row in sorted(worst, key=lambda entry: entry[:2], reverse=True)]


def _image_iu(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> float:
    valid = truth < num_classes
    counts = np.bincount(
        truth[valid].astype(np.int64) * num_classes + prediction[valid], minlength=num_classes**2
    ).reshape(num_classes, num_classes)
    return float(np.nanmean(class_iu(counts))) if counts.any() else float('nan')


def segment(
    predict: Callable, params: Any, mutable: Any, images: Iterable[np.ndarray], settings: AnySize | None = None
) -> Iterator[np.ndarray]:
    """Yields the label map uint8 [H, W] of every image, in the image's own size.

    Args:
      predict: as `Task.predict`.
      params: its first argument.
      mutable: its second.
      images: uint8 [H, W, C] of any sizes.
      settings: how they are resized and padded; each padded size is compiled once.

    Raises:
      UsageError: no size of `settings.sizes` holds an image.
    """
    settings = AnySize() if settings is None else settings
    predict = average_flips(predict) if settings.flip else predict
    infer = backend.jit(lambda p, m, x: predict(p, m, {'image': x}))
    for image in images:
        canvas, (rows, columns) = _place(image, settings)
        logits = np.asarray(infer(params, mutable, canvas[None]))[0, :rows, :columns]
        if (rows, columns) != image.shape[:2]:
            # Scores are interpolated, not classes: edges of the label map are as smooth as the image is large.
            planes = [cv2.resize(plane, image.shape[1::-1]) for plane in np.moveaxis(logits, -1, 0)]
            logits = np.stack(planes, -1)
        yield logits.argmax(-1).astype(np.uint8)


def predict_label_maps(files: Any, label_maps: Iterable[np.ndarray], names: Sequence[str]) -> Iterator[Prediction]:
    """Yields predictions of image files: label maps as PNGs with a palette, overlays, and the classes' shares.

    The overlays of a video's frames are joined to one video.

    Args:
      files: `canon.data.image_files.Files`, or the frames of a video.
      label_maps: of each file, of `segment`.
      names: of the classes.
    """
    return join_frames(_predict_each(files, label_maps, names), files, '_overlay.png')


def _predict_each(files: Any, label_maps: Iterable[np.ndarray], names: Sequence[str]) -> Iterator[Prediction]:
    root = Path(os.path.commonpath([path.parent for path in files.paths]))
    for number, (path, labels) in enumerate(zip(files.paths, label_maps, strict=True)):
        shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
        place = path.relative_to(root).with_suffix('')
        overlay = plots.overlay_label_map(files[number]['image'], labels, background=find_background(names))
        yield Prediction(
            row={'file': str(path)} | {name: f'{share:.4f}' for name, share in zip(names, shares, strict=True)},
            files={f'{place}_labels.png': make_palette_image(labels), f'{place}_overlay.png': overlay},
        )


def _place(image: np.ndarray, settings: AnySize) -> tuple[np.ndarray, tuple[int, int]]:
    """Returns the image resized and padded to a multiple, and its (height, width) within."""
    height, width = image.shape[:2]
    if settings.shorter_side is not None:
        scale = settings.shorter_side / min(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (width, height), interpolation=method).reshape(height, width, -1)
    bottom, right = -height % settings.multiple, -width % settings.multiple
    if settings.sizes:
        holding = [size for size in settings.sizes if size[0] >= height and size[1] >= width]
        if not holding:
            raise UsageError(
                f'predict.sizes: none of {settings.sizes} holds an image of {height}x{width}; add a larger one'
            )
        rows, columns = min(holding, key=lambda size: size[0] * size[1])
        bottom, right = rows - height, columns - width
    # The last row and column repeat: a border of one colour would be an edge that no training image has.
    return np.pad(image, ((0, bottom), (0, right), (0, 0)), mode='edge'), (height, width)
