"""Proposals that a trained network computes for whole data sets: step 2 of the alternating training of Faster R-CNN."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from canon import backend
from canon.data import Transform
from canon.data.detection.proposals import ProposalSet, digest_image
from canon.data.transforms import record_placement
from canon.tasks.detection.evaluation import Predict
from canon.tasks.detection.prediction import INPUTS, detect_images

_DIGEST = 'digest'  # of the image before all transforms: a file of proposals is read by it
_FIELDS = ('image', 'original_size', 'placement', 'mask')


def compute_network_proposals(
    predict: Predict,
    params: Any,
    mutable: Any,
    batches: Iterable[Mapping[str, Any]],
    settings: str,
    report: Callable[[int], None] | None = None,
) -> ProposalSet:
    """Computes the proposals of all images, in pixels of the images before the transforms.

    Args:
      predict: as `Task.predict` of a detector: its boxes are the proposals, whatever their class.
      params: its first argument.
      mutable: its second.
      batches: of images in any order, whose transforms begin with `record_image`; 'mask' is false for padding.
      settings: describes the network, for errors of readers.
      report: called with the number of images that are done; it may raise to interrupt.
    """
    digests: list[bytes] = []

    def remember_digests() -> Iterator[Any]:
        for batch in batches:
            digests.extend(row.tobytes() for row in batch[_DIGEST][batch['mask']])
            yield {name: batch[name] for name in _FIELDS}

    boxes = [np.zeros((0, 4), np.float32)]
    for done, image in enumerate(detect_images(predict, params, mutable, remember_digests()), 1):
        boxes.append(image.boxes)
        if report is not None:
            report(done)
    counts = [len(found) for found in boxes[1:]]
    return ProposalSet(settings, digests, counts, np.concatenate(boxes))


def record_image() -> Transform:
    """Keeps an image alone, with its size, its identity as a placement, and the digest by which proposals are found."""

    def apply(example: dict[str, Any], key: Any) -> dict[str, Any]:
        placed = record_placement().apply(example, key)
        digest = np.frombuffer(digest_image(example['image']), np.uint8)
        return {**{name: placed[name] for name in _FIELDS if name in placed}, _DIGEST: digest}

    return Transform(apply)


def time_prediction(predict: Predict, params: Any, mutable: Any, batch: Mapping[str, Any], repeats: int = 3) -> float:
    """Returns the seconds per image of `predict` on a batch, the least of a few calls after its compilation."""
    infer = backend.jit(predict)
    params, mutable = jax.device_put((params, mutable))  # copies of numpy weights are not timed
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    jax.block_until_ready(infer(params, mutable, inputs))
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(infer(params, mutable, inputs))
        seconds.append(time.perf_counter() - began)
    return min(seconds) / len(batch['image'])
