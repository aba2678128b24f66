"""Proposals that a trained network computes for whole data sets: step 2 of the alternating training of Faster R-CNN."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from canon import backend
from canon.data import Once, Source, Transform
from canon.data.detection.proposals import ProposalSet, digest_image
from canon.data.transforms import keep_fields, record_placement
from canon.tasks.detection.evaluation import Predict
from canon.tasks.detection.prediction import INPUTS, detect_images

_DIGEST = 'digest'  # of the image before all transforms: a file of proposals is read by it


def compute_network_proposals(
    predict: Predict,
    params: Any,
    mutable: Any,
    source: Source,
    transforms: Sequence[Transform],
    batch_size: int,
    settings: str,
    report: Callable[[int, int], None] | None = None,
) -> ProposalSet:
    """Computes the proposals of all images of a source, in pixels of the images before the transforms.

    Args:
      predict: as `Task.predict` of a detector: its boxes are the proposals, whatever their class.
      params: its first argument.
      mutable: its second.
      source: images, decoded.
      transforms: of an evaluator, which give all images one size.
      batch_size: images per call of `predict`.
      settings: describes the network, for errors of readers.
      report: (done, total), called after every image; it may raise to interrupt.
    """
    fields = keep_fields(('image', 'original_size', 'placement', _DIGEST))
    chain = (record_placement(), Transform(_add_digest), *transforms, fields)
    digests: list[bytes] = []

    def remember_digests(batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            digests.extend(row.tobytes() for row in batch.pop(_DIGEST)[batch['mask']])
            yield batch

    boxes = [np.zeros((0, 4), np.float32)]
    batches = remember_digests(Once(source, batch_size, chain, memory_limit=0).iterate())
    for done, image in enumerate(detect_images(predict, params, mutable, batches), 1):
        boxes.append(image.boxes)
        if report is not None:
            report(done, len(source))
    counts = [len(found) for found in boxes[1:]]
    return ProposalSet(settings, digests, counts, np.concatenate(boxes))


def time_prediction(predict: Predict, params: Any, mutable: Any, batch: Mapping[str, Any], repeats: int = 3) -> float:
    """Returns the seconds per image of `predict` on a batch, the least of a few calls after its compilation."""
    infer = backend.jit(predict)
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    jax.block_until_ready(infer(params, mutable, inputs))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(infer(params, mutable, inputs))
        seconds.append(time.perf_counter() - began)
    return min(seconds) / len(batch['image'])


def _add_digest(example: dict[str, Any], key: Any) -> dict[str, Any]:
    return {**example, _DIGEST: np.frombuffer(digest_image(example['image']), np.uint8)}
