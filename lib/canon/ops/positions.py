"""Where in a sequence a vector stands, as numbers that are added to it."""

import numpy as np

from canon.errors import UsageError


def sinusoids(length: int, features: int) -> np.ndarray:
    """sin(p / 10000^(2 i / d)) at 2 i and cos of it at 2 i + 1, float32 [length, d]: Vaswani et al. 2017, section 3.5.

    A constant, computed in double precision. Raises UsageError for odd features.
    """
    if features < 2 or features % 2:
        raise UsageError(f'{features} features are not pairs of a sine and a cosine')
    angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, features, 2) / features)
    return np.stack((np.sin(angles), np.cos(angles)), -1).reshape(length, features).astype(np.float32)
