"""Boxes and scores that both sides of benchmarks/detection.py draw by a rule. numpy only."""

import numpy as np


def draw_boxes(kind: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws (boxes [count, 4], scores [count]), float32, on an image of 800 x 800 pixels.

    kind: 'clustered' around 40 objects of 40 to 90 pixels, as a detector's candidates are; 'spread' evenly.
    """
    rng = np.random.default_rng(0)
    centres, sizes = rng.uniform(0, 800, (count, 2)), rng.uniform(20, 60, (count, 2))
    if kind == 'clustered':
        objects = rng.integers(0, 40, count)
        centres = rng.uniform(0, 800, (40, 2))[objects] + 8 * rng.normal(size=(count, 2))
        sizes = rng.uniform(40, 90, (40, 2))[objects] * np.exp(0.15 * rng.normal(size=(count, 2)))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], 1)
    return boxes.astype(np.float32), rng.random(count).astype(np.float32)


def draw_objects(batch: int, count: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the objects of a batch: boxes [batch, count, 4] within the image, and labels [batch, count] from 0."""
    rng = np.random.default_rng(1)
    low, high = rng.uniform(0, 0.6 * size, (batch, count, 2)), rng.uniform(0.1 * size, 0.4 * size, (batch, count, 2))
    return np.concatenate([low, low + high], -1).astype(np.float32), rng.integers(0, classes, (batch, count))
