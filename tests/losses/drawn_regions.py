"""Proposals and outputs that both sides of the goldens of detection by regions compute from a rule. numpy only."""

import numpy as np

from tests.losses.drawn_boxes import SIZE, draw_objects, draw_priors

CLASSES, PROPOSALS = 3, 20


def draw_rpn() -> dict[str, np.ndarray]:
    """Three images with 4, 0 and 2 objects, and the outputs of a region proposal network for the priors' boxes."""
    rng = np.random.default_rng(21)
    objects = draw_objects(rng, (4, 0, 2), 5, CLASSES)
    anchors = draw_priors()
    outputs = rng.standard_normal((3, len(anchors), 5)).astype(np.float32)
    return {**objects, 'anchors': anchors, 'objectness': outputs[..., 0], 'offsets': outputs[..., 1:]}


def draw_head() -> dict[str, np.ndarray]:
    """The same objects with proposals around them, and outputs of a head for all proposals, then all objects."""
    rng = np.random.default_rng(22)
    objects = draw_objects(np.random.default_rng(21), (4, 0, 2), 5, CLASSES)
    chosen = rng.integers(0, 4, (3, PROPOSALS))
    near = np.take_along_axis(objects['boxes'], chosen[..., None], 1) + 4 * rng.standard_normal((3, PROPOSALS, 4))
    low = rng.uniform(0, SIZE / 2, (3, PROPOSALS, 2))
    anywhere = np.concatenate([low, low + rng.uniform(8, SIZE / 2, (3, PROPOSALS, 2))], -1)
    wide = (near[..., 2:] - near[..., :2] > 4).all(-1, keepdims=True)  # not the boxes of zeros that pad the objects
    regions = np.where(wide & (np.arange(PROPOSALS) % 2 == 0)[:, None], near, anywhere)
    count = PROPOSALS + objects['boxes'].shape[1]
    logits = (2 * rng.standard_normal((3, count, 1 + CLASSES))).astype(np.float32)
    offsets = rng.standard_normal((3, count, 1 + CLASSES, 4)).astype(np.float32)
    return {**objects, 'regions': regions.astype(np.float32), 'logits': logits, 'offsets': offsets}
