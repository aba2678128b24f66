"""Detections of single images: in pixels of the original files, and packed into one array for export."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, named, plots
from canon.data import Once, Transform, image_files
from canon.data.images.videos import VideoFiles
from canon.data.pipeline.source import Example
from canon.data.transforms import record_placement
from canon.metrics import Rows, detection
from canon.tasks.detection.evaluation import Predict
from canon.tasks.predictions import Prediction, join_frames

_TOLERANCES = (0.1, 0.1, 0.1, 0.1, 0.001, 0)  # of corners in pixels, score and label of the same detection
# What `predict` of some detector reads of a batch: the last two tell where the images are on their canvases.
INPUTS = ('image', 'proposals', 'proposals_valid', 'placement', 'original_size')


class ImageDetections(NamedTuple):
    """The detections of one image, best first.

    Attributes:
      image: uint8 [H, W, 3], as the network receives it; None if it is no longer needed.
      canvas_boxes: float32 [K, 4] in pixels of `image`.
      boxes: float32 [K, 4] in pixels of the file.
      scores: float32 [K].
      labels: int32 [K].
    """

    image: np.ndarray | None
    canvas_boxes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def fields(self) -> dict[str, np.ndarray]:
        """Returns boxes in pixels of the file, scores and labels by name, as figures take them."""
        return {'boxes': self.boxes, 'scores': self.scores, 'labels': self.labels}

    def list_rows(self, names: Sequence[str]) -> list[dict[str, str]]:
        """Lists the detections as rows of a table: class, score, and x0, y0, x1, y1 in pixels of the file."""
        rows = []
        for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True):
            corners = dict(zip(('x0', 'y0', 'x1', 'y1'), (f'{x:.1f}' for x in box), strict=True))
            rows.append({'class': names[label], 'score': f'{score:.4f}', **corners})
        return rows


@dataclass(frozen=True)
class PictureSettings:
    """config.predict.

    Attributes:
      min_score: detections of lower scores are neither drawn nor listed.
    """

    min_score: named.Probability = 0.3


def detect_images(
    predict: Predict, params: Any, mutable: Any, batches: Any, min_score: float = 0.0
) -> Iterator[ImageDetections]:
    """Yields the detections of every row of the batches that is not padding.

    Args:
      predict: as `Task.predict` of a detector.
      params: its first argument.
      mutable: its second.
      batches: an iterable of batches with 'image' and 'mask', perhaps 'placement', 'original_size' and proposals.
      min_score: detections of lower scores are left out.
    """
    infer = backend.jit(predict)
    params, mutable = jax.device_put((params, mutable))  # once, not with every batch
    for batch in batches:
        inputs = {name: batch[name] for name in INPUTS if name in batch}
        found = jax.tree.map(np.asarray, infer(params, mutable, inputs))
        # The last batch is filled up to the compiled size.
        rows = np.flatnonzero(batch['mask'])
        found, batch = ({name: values[rows] for name, values in fields.items()} for fields in (found, batch))
        count = len(rows)
        nothing = {'boxes': np.zeros((count, 0, 4), np.float32), 'labels': np.zeros((count, 0), np.int32)}
        # The evaluator's mapping to pixels of the file, with images that have no objects.
        collected = detection.collect_detections(found, {**batch, **nothing, 'valid': np.zeros((count, 0), bool)})
        for i, row in enumerate(collected.each()):
            # Detections have a fixed number of rows, of which the rest are zeros.
            chosen = found['valid'][i] & (found['scores'][i] >= min_score)
            boxes = row['detections']['boxes'][chosen].astype(np.float32)
            rest = (found[name][i][chosen] for name in ('scores', 'labels'))
            yield ImageDetections(batch['image'][i], found['boxes'][i][chosen], boxes, *rest)


def number_images(paths: Sequence[Path]) -> list[int]:
    """Returns the numbers that name the files, as COCO's do (000000000139.jpg), or their places if not all do."""
    stems = [path.stem for path in paths]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdigit() and int(stem) < 2**31]
    return numbers if len(set(numbers)) == len(stems) else list(range(len(stems)))


def collect_rows(predictions: Sequence[ImageDetections], image_ids: Sequence[int] | None = None) -> Rows:
    """Collects detections of images as `Rows` of boxes in pixels of the files; ids are 0, 1, ... if None."""
    parts = Rows(())
    ids = range(len(predictions)) if image_ids is None else image_ids
    for number, image in zip(ids, predictions, strict=True):
        found = {'boxes': image.boxes, 'scores': image.scores, 'labels': image.labels}
        found['valid'] = np.ones(len(image.scores), bool)
        batch = {'boxes': np.zeros((1, 0, 4)), 'labels': np.zeros((1, 0), np.int32), 'valid': np.zeros((1, 0), bool)}
        found = {name: value[None] for name, value in found.items()}
        parts = parts + detection.collect_detections(found, {**batch, 'image_id': np.array([number])})
    return parts


def predict_files(
    predict: Predict,
    params: Any,
    mutable: Any,
    files: image_files.Files | VideoFiles,
    transforms: Sequence[Transform],
    batch_size: int,
    names: Sequence[str],
    settings: PictureSettings,
    category_ids: Sequence[int] | None = None,
) -> Iterator[Prediction]:
    """Yields predictions of image files: pictures in their size with boxes, rows of a table, COCO's JSON at last.

    The pictures of a video's frames are joined to one video.

    A row has the file, its image_id as of `number_images`, and what `ImageDetections.list_rows` gives.

    Args:
      predict: as `Task.predict` of a detector.
      params: its first argument.
      mutable: its second.
      files: the images, or the frames of a video.
      transforms: of an evaluator, which give all images one size.
      batch_size: images per call of `predict`.
      names: of the classes.
      settings: of the pictures.
      category_ids: COCO's id of each class; None counts from 1.
    """
    named_files = (files, transforms, batch_size, names, settings, category_ids)
    return join_frames(_predict_each(predict, params, mutable, *named_files), files, '_boxes.png')


def _predict_each(
    predict: Predict,
    params: Any,
    mutable: Any,
    files: Any,
    transforms: Sequence[Transform],
    batch_size: int,
    names: Sequence[str],
    settings: PictureSettings,
    category_ids: Sequence[int] | None,
) -> Iterator[Prediction]:
    decoded = _DecodedFiles(files)
    # The sizes of the files are recorded before the transforms: boxes are mapped back to them. Nothing is read ahead
    # (threads=0), so that the pixels of one batch of files are in memory at a time, whatever their sizes.
    chain = (record_placement(), *transforms)
    batches = Once(decoded, batch_size, chain, threads=0, memory_limit=0)
    found = detect_images(predict, params, mutable, batches.iterate(), settings.min_score)
    ids = number_images(files.paths)
    # Pictures keep the folders below the common one, so that equal names do not overwrite each other.
    root, results = Path(os.path.commonpath([path.parent for path in files.paths])), []
    for number, (path, image) in enumerate(zip(files.paths, found, strict=True)):
        results.append(image._replace(image=None))  # a folder may hold more pixels than the memory
        for row in image.list_rows(names):
            yield Prediction(row={'file': str(path), 'image_id': ids[number], **row})
        pixels = decoded.take(number)
        picture = plots.overlay_detections(pixels, image.fields(), names)
        yield Prediction(files={f'{path.relative_to(root).with_suffix("")}_boxes.png': picture})
    count = sum(len(image.scores) for image in results)
    coco = json.dumps(detection.list_coco_results(collect_rows(results, ids), category_ids))
    yield Prediction(files={'detections.json': coco}, text=f'{count} objects in {len(results)} images')


class _DecodedFiles:
    """A source that keeps the pixels of every file it has decoded until they are taken, to be drawn."""

    def __init__(self, files: image_files.Files | VideoFiles):
        self.files, self.info = files, files.info
        self._pixels: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        example = self.files[index]
        self._pixels[index] = example['image']
        return example

    def take(self, index: int) -> np.ndarray:
        """Returns the pixels uint8 [H, W, 3] of a file, and forgets them."""
        return self._pixels.pop(index)


def pack_detections(detections: Mapping[str, jax.Array]) -> jax.Array:
    """Packs detections into float32 [B, D, 6]: x0, y0, x1, y1, score, label; score 0 and label -1 where not valid."""
    # One array of floats: a served model has one output, and labels below 2^24 are exact in
    # float32. -1 marks padding, since 0 is a class.
    labels = jnp.where(detections['valid'], detections['labels'], -1).astype(jnp.float32)
    return jnp.concatenate([detections['boxes'], detections['scores'][..., None], labels[..., None]], -1)


def compare_packed(outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str:
    """Describes how packed detections differ from expected ones, wherever in an image they stand.

    Two programs round differently, so detections of nearly equal scores change places, and those at the thresholds of
    scores and overlaps may come and go. A detection agrees with the first one of its image and class, not yet taken,
    whose corners and score are within 0.1 pixels and 0.001.

    Args:
      outputs: float32 [B, D, 6] each, as of `pack_detections`.
      expected: likewise, of the same images.
    """
    agreeing, count, largest = 0, 0, 0.0
    for rows, references in zip(
        (rows for batch in outputs for rows in batch), (rows for batch in expected for rows in batch), strict=True
    ):
        rows, references = rows[rows[:, 5] >= 0], references[references[:, 5] >= 0]
        count += max(len(rows), len(references))
        differences = np.abs(rows[:, None] - references[None])  # [D, D', 6]
        close = (differences <= _TOLERANCES).all(-1)
        taken = np.zeros(len(references), bool)
        for i in range(len(rows)):
            candidates = np.flatnonzero(close[i] & ~taken)
            if len(candidates):
                taken[candidates[0]] = True
                largest = max(largest, float(differences[i, candidates[0]].max()))
        agreeing += int(taken.sum())
    return f'{agreeing} of {count} detections in noise agree with the model, corners and scores to {largest:.1e}'
