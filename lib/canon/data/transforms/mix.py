"""Transforms of two examples."""

import numpy as np

from canon import named
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import CanonError, UsageError


def mixup(
    num_classes: named.Count, alpha: float = 0.2, p: named.Probability = 1.0, field: str = 'image', label: str = 'label'
) -> Transform:
    """Mixes two examples, lambda x + (1 - lambda) x' in images and one-hot labels, with lambda ~ Beta(alpha, alpha).

    Zhang et al. 2018, "mixup: beyond empirical risk minimization", eq. 2. The partner x' is drawn from the whole source
    and has gone through the links before this one with its own randomness of this visit. The authors' code mixes a
    batch with itself instead; here the result is a function of (seed, visit, id), independent of the batch and of the
    processes, at the price of reading a second example.

    Args:
      num_classes: of `label`, which becomes a float32 distribution [num_classes], whether it was an integer or one
        already; a loss takes it with `soft_labels` (`loss.soft_labels=True` in a config).
      alpha: of the Beta distribution.
      p: probability of mixing.
      field: of the image. Images must have one shape by now; uint8 stays uint8, rounded.
      label: field of the label.

    Raises CanonError, when applied, for images of different shapes and for labels out of range.
    """
    if not alpha > 0:
        raise UsageError(f'mixup: alpha={alpha} is not positive')
    # A row per class: indexing it is one-hot encoding.
    eye = np.eye(num_classes, dtype=np.float32)

    def to_distribution(example, key):
        value = np.asarray(example[label])
        if value.ndim:
            return value.astype(np.float32)
        if not 0 <= value < num_classes:
            raise CanonError(f'example {key.id}: {label} {value} is not in 0..{num_classes - 1}')
        return eye[value]

    def apply(example, key, others):
        generator = borrowed_rng(key)
        # All are drawn before anything else borrows the generator: reading the partner may run transforms.
        chance, share, partner = generator.random(), generator.beta(alpha, alpha), int(generator.integers(len(others)))
        if chance >= p:
            return {**example, label: to_distribution(example, key)}
        # It may be the example itself, as in the shuffled batch of the paper's code.
        other = others[partner]
        a, b = example[field], other[field]
        if a.shape != b.shape or a.dtype != b.dtype:
            kinds = f'{a.dtype} {a.shape} and {partner} of {b.dtype} {b.shape}'
            raise CanonError(f'mixup: example {key.id} has {field!r} of {kinds}; resize or crop before')
        # In float32: Python floats would make it float64, twice the memory traffic.
        mixed = np.float32(share) * a + np.float32(1 - share) * b
        mixed = np.rint(mixed).astype(np.uint8) if a.dtype == np.uint8 else mixed.astype(a.dtype)
        first, second = to_distribution(example, key), to_distribution(other, key._replace(id=partner))
        return {**example, field: mixed, label: np.float32(share) * first + np.float32(1 - share) * second}

    return Transform(apply, random=True, pairs=True)
