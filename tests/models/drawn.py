"""Weights and images that both sides of a golden compute from a rule, and the digest that is stored of what comes out.

numpy only: `tools/golden/*_torch.py` import it too.
"""

import re
import zlib

import numpy as np


def draw_parameter(key: str, shape) -> np.ndarray:
    """The parameter that torch calls `key`, of torch's `shape`, float32. Activations keep their size with depth."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    kind = key.rpartition('.')[2]
    if kind == 'running_var':
        value = rng.uniform(0.8, 1.2, shape)
    elif kind in ('running_mean', 'bias'):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:  # the scale of a normalisation
        value = rng.uniform(0.8, 1.2, shape)
    else:
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return value.astype(np.float32)


def draw_small_projections(key: str, shape) -> np.ndarray:
    """As `draw_parameter`, but torchvision's MobileNetV2 has a quarter of it in its projections.

    No ReLU halves what they put out, and sums of them would be clipped by the next ReLU6 almost everywhere, whose small
    results then carry the rounding of large arguments.
    """
    value = draw_parameter(key, shape)
    return value / 4 if len(shape) == 4 and re.search(r'conv\.[12]\.weight$', key) else value


def draw_detector_parameter(key: str, shape) -> np.ndarray:
    """As `draw_parameter`, but smaller in torchvision's Faster R-CNN where values would leave the range of use.

    Sums of residual blocks would grow with depth; logits would be 0 or 1 as probabilities, and boxes would be clipped.
    """
    scales = {
        r'bn3\.weight$': 0.25,
        r'cls_logits\.weight$': 0.05,
        r'rpn.*bbox_pred\.weight$': 0.02,
        r'cls_score\.weight$': 0.15,
        r'predictor\.bbox_pred\.weight$': 0.05,
    }
    value = draw_parameter(key, shape)
    return value * next((np.float32(scale) for pattern, scale in scales.items() if re.search(pattern, key)), 1)


def images(batch: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """float32 [B, H, W, C], about standard normal, smooth enough to look like nothing in particular."""
    rng = np.random.default_rng((batch, height, width, channels))
    return rng.standard_normal((batch, height, width, channels)).astype(np.float32)


def digest(values: np.ndarray, count: int = 64) -> np.ndarray:
    """[count + 1]: `count` values of an array at places drawn by its (NHWC) shape; last, its largest |value|."""
    flat = np.asarray(values, np.float32).ravel()
    places = np.random.default_rng(values.shape).integers(0, flat.size, count)
    return np.append(flat[places], np.abs(flat).max())


def distance(ours: np.ndarray, golden: np.ndarray) -> float:
    """Largest difference of two digests, relative to the largest |value| of the whole array."""
    return float(np.abs(digest(ours, len(golden) - 1) - golden).max() / golden[-1])
