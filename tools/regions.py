"""Regions, features and outputs that both sides of benchmarks/regions.py draw by a rule. numpy only."""

import numpy as np

SIZE, STRIDES = 800, (4, 8, 16, 32, 64)
GRIDS = tuple((-(-SIZE // s), -(-SIZE // s)) for s in STRIDES)
ANCHOR_SIZES = ((32,), (64,), (128,), (256,), (512,))


def draw_features() -> tuple[np.ndarray, np.ndarray]:
    """Draws features [1, 50, 50, 256] and a cotangent of their pooled regions [1, 512, 7, 7, 256], float32."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(shape, np.float32) for shape in ((1, 50, 50, 256), (1, 512, 7, 7, 256)))  # ty: ignore[invalid-return-type]


def draw_regions(count: int = 512) -> np.ndarray:
    """Draws boxes [count, 4] of 16 to 400 pixels within an image of 800 x 800."""
    rng = np.random.default_rng(1)
    sizes = np.exp(rng.uniform(np.log(16), np.log(400), (count, 2)))
    low = rng.uniform(0, SIZE - sizes)
    return np.concatenate([low, low + sizes], -1).astype(np.float32)


def draw_proposal_outputs() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draws objectness [1, A_l] and offsets [1, A_l, 4] per level: 40 objects, around which anchors score high."""
    rng = np.random.default_rng(2)
    centres, sides = rng.uniform(40, SIZE - 40, (40, 2)), np.exp(rng.uniform(np.log(24), np.log(400), 40))
    scores, offsets = [], []
    for (rows, columns), stride, (size,) in zip(GRIDS, STRIDES, ANCHOR_SIZES, strict=True):
        places = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * stride
        distance = np.abs(places[:, None] - centres).max(-1) / sides + np.abs(np.log(size / sides))
        quality = np.repeat(-3 * distance.min(1), 3)  # three aspect ratios at each place
        scores.append((quality + 0.5 * rng.standard_normal(len(quality)))[None].astype(np.float32))
        offsets.append(0.1 * rng.standard_normal((1, len(quality), 4), np.float32))
    return scores, offsets
