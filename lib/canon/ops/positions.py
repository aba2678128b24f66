"""Positional encodings, which are added to the vectors of a sequence."""

import numpy as np

from canon.errors import UsageError


def sinusoids(length: int, features: int) -> np.ndarray:
    """Returns PE(p, 2i) = sin(p / 10000^(2i / d)), PE(p, 2i + 1) = cos(...), [length, d] (Vaswani et al. 2017, 3.5).

    A float32 constant, computed in double precision on the host: in float32 the angle of position 10,000 would be off
    by up to 0.0005. Raises UsageError for an odd number of features.
    """
    if features < 2 or features % 2:
        raise UsageError(f'{features} features are not pairs of a sine and a cosine; make the number even')
    angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(0, features, 2) / features)
    return np.stack((np.sin(angles), np.cos(angles)), -1).reshape(length, features).astype(np.float32)
