"""A rectifier of word images: a spatial transformer whose warp is a thin-plate spline.

Shi, Wang, Lyu, Yao, Bai, "Robust scene text recognition with automatic rectification" (RARE), 2016 (arXiv 1603.03915),
section 3.1, in the form of deep-text-recognition-benchmark (Baek et al. 2019): four convolutions with BatchNorm and two
linear layers predict where the fiducial points of a straight word, equally spaced along its upper and lower border, are
in the image; the spline through them says where each pixel of the rectified image comes from.
"""

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.nn.layers import BatchNorm, Conv, Dense
from canon.nn.network import check_images
from canon.ops import warps


class Rectifier(linen.Module):
    """Images [B, H, W, C] -> rectified images of the same size.

    It does not start as the identity: see `init_points`.

    Attributes:
      fiducials: points, an even number of at least 4; half of them on the upper border, from left to right, then half
        on the lower one.
      channels: of the four convolutions of the localisation network.
      hidden: units of its first linear layer.
    """

    fiducials: int = 20
    channels: tuple[int, ...] = (64, 128, 256, 512)
    hidden: int = 256

    def setup(self):
        for number, channels in enumerate(self.channels, 1):
            setattr(self, f'conv{number}', Conv(channels, 3, padding=1, use_bias=False))
            setattr(self, f'bn{number}', BatchNorm())
        self.fc1 = Dense(self.hidden)
        # The kernel is zero, so that all images start from the same points, figure 6 (a) of the paper.
        start = init_points(self.fiducials).ravel()
        bias_init = lambda key, shape, dtype: jnp.asarray(start, dtype)  # noqa: E731
        self.fc2 = Dense(2 * self.fiducials, kernel_init=init.zeros, bias_init=bias_init)

    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        if self.fiducials < 4 or self.fiducials % 2:
            raise UsageError(f'fiducials={self.fiducials} must be an even number of at least 4')
        check_images(images, 8, 'the rectifier')
        points = self.locate(images, train)
        height, width = images.shape[1:3]
        # Coordinates are from -1 to 1 at the borders of the rectified image, whose pixels are at their centres.
        centres = [(2 * np.arange(n) + 1) / n - 1 for n in (width, height)]
        grid = np.stack(np.meshgrid(*centres), -1).reshape(-1, 2).astype(np.float32)
        places = warps.thin_plate_spline(jnp.asarray(grid), jnp.asarray(border_points(self.fiducials)), points)
        # In the image -1 and 1 are the centres of the outermost pixels (torch's align_corners), as the benchmark's
        # weights were trained.
        size = jnp.array([width, height], jnp.float32)
        pixels = (places + 1) / 2 * (size - 1) + 0.5
        return warps.sample_bilinear(images, pixels.reshape(len(images), height, width, 2)).astype(images.dtype)

    def locate(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Predicts the fiducial points in the image, float32 [B, fiducials, 2], as (x, y) from -1 to 1."""
        for number in range(1, len(self.channels) + 1):
            x = getattr(self, f'conv{number}')(x)
            x = ops.relu(getattr(self, f'bn{number}')(x, train))
            if number < len(self.channels):
                x = ops.max_pool(x, 2)
        x = x.astype(jnp.float32).mean((1, 2))
        return self.fc2(ops.relu(self.fc1(x))).reshape(len(x), self.fiducials, 2)


def border_points(count: int) -> np.ndarray:
    """Returns the fiducial points of a rectified image, float32 [count, 2]: its upper border, then its lower one."""
    x = np.linspace(-1, 1, count // 2)
    return np.concatenate([np.stack([x, np.full(len(x), y)], -1) for y in (-1.0, 1.0)]).astype(np.float32)


def init_points(count: int) -> np.ndarray:
    """Returns the points in the image that the network starts with, float32 [count, 2].

    The upper ones slope from the middle to the upper border, the lower ones from the lower border to the middle.
    """
    x = np.linspace(-1, 1, count // 2)
    upper, lower = np.linspace(0, -1, len(x)), np.linspace(1, 0, len(x))
    return np.concatenate([np.stack([x, upper], -1), np.stack([x, lower], -1)]).astype(np.float32)
