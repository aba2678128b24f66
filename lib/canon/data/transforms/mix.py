"""Transforms of two examples."""

import numpy as np

from canon import named
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import CanonError, UsageError


def mixup(
    num_classes: named.Count, alpha: float = 0.2, p: named.Probability = 1.0, field: str = 'image', label: str = 'label'
) -> Transform:
    """lambda x + (1 - lambda) x' of images and of one-hot labels, lambda from Beta(alpha, alpha), x' any example.

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", eq. 2. The partner x' is drawn from the whole source
    and has gone through the links before this one with its own randomness for this visit. The authors' code mixes a
    batch with itself instead; here the result is, as everything, a function of (seed, visit, id), whatever the batch
    and the hosts, at the price of a second example read. Images must be of one shape by now. uint8 stays uint8,
    rounded; `label`, an integer or a distribution [num_classes], becomes a float32 distribution. For losses that take
    one, such as `softmax_cross_entropy` with `soft_labels` (`loss.soft_labels=True` in a config).
    """
    if not alpha > 0:
        raise UsageError(f'mixup: alpha={alpha} is not positive')
    eye = np.eye(num_classes, dtype=np.float32)

    def soft(example, key):
        value = np.asarray(example[label])
        if value.ndim:
            return value.astype(np.float32)
        if not 0 <= value < num_classes:
            raise CanonError(f'example {key.id}: {label} {value} is not in 0..{num_classes - 1}')
        return eye[value]

    def apply(example, key, others):
        generator = borrowed_rng(key)
        chance, share, partner = generator.random(), generator.beta(alpha, alpha), int(generator.integers(len(others)))
        if chance >= p:
            return {**example, label: soft(example, key)}
        other = others[partner]
        a, b = example[field], other[field]
        if a.shape != b.shape or a.dtype != b.dtype:
            told = f'{a.dtype} {a.shape} and {partner} of {b.dtype} {b.shape}'
            raise CanonError(f'mixup: example {key.id} has {field!r} of {told}; resize or crop before')
        mixed = np.float32(share) * a + np.float32(1 - share) * b
        mixed = np.rint(mixed).astype(np.uint8) if a.dtype == np.uint8 else mixed.astype(a.dtype)
        both = np.float32(share) * soft(example, key) + np.float32(1 - share) * soft(other, key._replace(id=partner))
        return {**example, field: mixed, label: both}

    return Transform(apply, random=True, pairs=True)
