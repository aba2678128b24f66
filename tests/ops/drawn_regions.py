"""Features, regions and outputs of networks that tests and goldens draw by a rule, and pooling as plain loops.

numpy only: `tools/golden/regions_torch.py` imports it too.
"""

import numpy as np

STRIDE, GRID = 16, (9, 12)  # of one map: an image of 144 x 192 pixels
STRIDES = (4, 8, 16, 32)  # of a pyramid
ANCHOR_SIZES = ((24,), (48,), (96,))
SETTINGS = ((2, False, (7, 7)), (2, True, (3, 2)), (1, False, (2, 5)), (3, True, (4, 4)))  # of RoIAlign


def draw_features(grid=GRID, channels: int = 5, seed: int = 0) -> np.ndarray:
    """Maps [2, *grid, channels] in -4..4, float32, all different: which of equal maxima has the gradient is open."""
    values = np.random.default_rng(seed).permutation(2 * grid[0] * grid[1] * channels)
    return (8 * values.reshape(2, *grid, channels) / values.size - 4).astype(np.float32)


def draw_regions(seed: int = 0) -> np.ndarray:
    """Boxes [2, 14, 4], float32, for images of 144 x 192: usual, at borders, outside, without area, tiny, all of it."""
    rng = np.random.default_rng((7, seed))
    low = rng.uniform(-10, (170, 120), (2, 14, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 100, (2, 14, 2))], -1)
    boxes[0, :6] = (
        (0, 0, 192, 144), (-50, -60, -20, -20), (300, 20, 350, 60), (40, 50, 40, 50), (64, 30, 64, 90), (31, 31, 33, 33)
    )  # fmt: skip
    boxes[1, :3] = (-24, -40, 40, 24), (176, 136, 200, 150), (24, 8, 56, 72)  # the last one has halves when rounded
    return boxes.astype(np.float32)


def draw_pyramid(seed: int = 3) -> tuple[list[np.ndarray], np.ndarray]:
    """Maps [2, 128 / stride, 160 / stride, 3] and boxes [2, 12, 4] of all sizes, some of exactly a level's size."""
    maps = [draw_features((128 // s, 160 // s), 3, seed + s) for s in STRIDES]
    rng = np.random.default_rng((8, seed))
    sizes = np.exp(rng.uniform(np.log(4), np.log(900), (2, 12, 1))) * rng.uniform(0.7, 1.4, (2, 12, 2))
    sizes[0, :4, :] = np.array([28, 56, 112, 448])[:, None]
    low = rng.uniform(-5, 60, (2, 12, 2))
    return maps, np.concatenate([low, low + sizes], -1).astype(np.float32)


def draw_outputs(counts, images: int = 2, seed: int = 5) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Objectness [images, A_l], different everywhere, and offsets [images, A_l, 4] per level."""
    rng = np.random.default_rng((9, seed))
    scores = rng.permutation(images * sum(counts)).reshape(images, -1)
    scores = (8 * (scores / scores.size - 0.5)).astype(np.float32)
    offsets = (0.4 * rng.normal(size=(images, sum(counts), 4))).astype(np.float32)
    offsets[:, ::17, 2:] = 6  # beyond the bound of sizes
    offsets[:, 5::23, 2:] = -14  # below the least size
    ends = np.cumsum(counts)[:-1]
    return np.split(scores, ends, 1), np.split(offsets, ends, 1)


def loop_align(features, boxes, output_size, scale, samples=2, aligned=False) -> np.ndarray:
    """RoIAlign sample by sample, in the precision of the features: [H, W, C], [R, 4] -> [R, h, w, C]."""
    height, width, channels = features.shape
    out = np.zeros((len(boxes), *output_size, channels), features.dtype)

    def interpolate(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return np.zeros(channels, features.dtype)
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        i, j = int(y), int(x)
        value = np.zeros(channels, features.dtype)
        for row, u in ((i, 1 - y + i), (i + 1, y - i)):
            for column, v in ((j, 1 - x + j), (j + 1, x - j)):
                if u and v:
                    value += u * v * features[row, column]
        return value

    for r, box in enumerate(boxes.astype(features.dtype)):
        x0, y0, x1, y1 = box * scale - (0.5 if aligned else 0)
        w, h = (x1 - x0, y1 - y0) if aligned else (max(x1 - x0, 1), max(y1 - y0, 1))
        for i, j in np.ndindex(output_size):
            for a, b in np.ndindex(samples, samples):
                y = y0 + h * (i + (a + 0.5) / samples) / output_size[0]
                x = x0 + w * (j + (b + 0.5) / samples) / output_size[1]
                out[r, i, j] += interpolate(y, x) / samples**2
    return out


def loop_pool(features, spans, bins, first=0) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of the bins of regions, and the gradient of their sum weighted by first + 1, 2, ... in their order.

    features: [H, W, C]; spans: (y0, y1, x0, x1) of each region, in pixels of the map, the ends exclusive; bins: (h, w).
    """
    height, width, channels = features.shape
    out, gradient = np.zeros((len(spans), *bins, channels), features.dtype), np.zeros(features.shape)
    for number, (r, i, j, c) in enumerate(np.ndindex(out.shape)):
        y0, y1, x0, x1 = spans[r]
        rows = [y0 + i * (y1 - y0) // bins[0], y0 - (-(i + 1) * (y1 - y0) // bins[0])]
        columns = [x0 + j * (x1 - x0) // bins[1], x0 - (-(j + 1) * (x1 - x0) // bins[1])]
        (top, bottom), (left, right) = np.clip(rows, 0, height), np.clip(columns, 0, width)
        cell = features[top:bottom, left:right, c]
        if cell.size:
            y, x = np.unravel_index(cell.argmax(), cell.shape)
            out[r, i, j, c] = cell[y, x]
            gradient[top + y, left + x, c] += first + number + 1
    return out, gradient
