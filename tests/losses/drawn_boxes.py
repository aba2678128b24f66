"""Priors, objects and predictions that both sides of the detection goldens compute from a rule. numpy only."""

import numpy as np

SIZE = 96  # of the images, in pixels


def draw_priors() -> np.ndarray:
    """Corner boxes float32 [2 * 36 + 9, 4]: two shapes on a grid of 6 x 6, one on a grid of 3 x 3."""
    boxes = []
    for cells, shapes in ((6, ((20.0, 20.0), (28.0, 14.0))), (3, ((48.0, 48.0),))):
        for y, x in np.ndindex(cells, cells):
            cx, cy = (x + 0.5) * SIZE / cells, (y + 0.5) * SIZE / cells
            boxes += [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for w, h in shapes]
    return np.array(boxes, np.float32)


def draw_objects(rng: np.random.Generator, counts, most: int, classes: int) -> dict[str, np.ndarray]:
    """Objects padded to `most` per image; the image b has counts[b]."""
    sizes = rng.uniform(10, 60, (len(counts), most, 2))
    centres = rng.uniform(sizes / 2, SIZE - sizes / 2)
    valid = np.arange(most) < np.asarray(counts)[:, None]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1).astype(np.float32)
    labels = rng.integers(classes, size=valid.shape).astype(np.int32)
    return {'boxes': np.where(valid[..., None], boxes, 0), 'labels': np.where(valid, labels, 0), 'valid': valid}


def draw_predictions(priors: int, seed: int = 12) -> dict[str, np.ndarray]:
    """Four images with 4, 0, 2 and 1 objects of three classes, and a detector's outputs for them.

    No two objects of the default seed have the same best prior: torchvision would give it to the last of them.
    """
    rng = np.random.default_rng(seed)
    objects = draw_objects(rng, (4, 0, 2, 1), 5, 3)
    offsets = rng.standard_normal((4, priors, 4)).astype(np.float32)
    logits = (2 * rng.standard_normal((4, priors, 4))).astype(np.float32)
    return {**objects, 'offsets': offsets, 'logits': logits}
