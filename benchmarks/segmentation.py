"""FCN-ResNet50 compared with torchvision's in one run: below 1 is better.

    python -m benchmarks.segmentation [--rounds=5] [--only=fcn_resnet50_forward] --torch=PYTHON

Forward passes of four images of 224 pixels in float32, without the auxiliary head, and the bilinear upsampling of its
scores alone. --torch names an interpreter with torch and torchvision, whose side is channels last. How the sides take
turns: benchmarks/comparison.py.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from canon import backend, ops
from canon.models import fcn

BATCH, SIZE, CLASSES = 4, 224, 21


def draw_array(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def make_forward() -> Callable:
    x, model = draw_array(BATCH, SIZE, SIZE, 3), fcn.fcn_resnet50(num_classes=CLASSES)
    variables = backend.jit(model.init)(jax.random.key(0), x)
    call = backend.jit(model.apply)
    return lambda: call(variables, x)


def make_deconvolution() -> Callable:
    """FCN-8s's last layer: kernel 16, stride 8, from 34 x 34 scores to 224 x 224 after the crop of 31."""
    x = draw_array(BATCH, 34, 34, CLASSES)
    call = backend.jit(lambda x: ops.bilinear_deconv(x, 16, 8, 31, (SIZE, SIZE)))
    return lambda: call(x)


WORKS = {
    'fcn_resnet50_forward': Work({'canon': make_forward}, 1, {'torch': 0.9}),
    'bilinear_deconv': Work({'canon': make_deconvolution}, 20, {'torch': 0.5}),
}
BENCHMARK = Benchmark('benchmarks.segmentation', WORKS, Peer('segmentation_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
