"""Detection compared with torchvision: non-maximum suppression, and SSD300 forward and in training; below 1 is better.

    python -m benchmarks.detection --torch=PYTHON [--rounds=5] [--only=nms_spread_0.5,ssd300_train]

NMS of 2,000 boxes (`tools/boxes.py` draws them) returns the indices of all that remain, sorted. SSD300 has 91 classes,
batches of 4, float32; its train step matches 8 objects per image, and ends with SGD with momentum. --torch names an
interpreter with torch and torchvision, whose side is channels last. How the sides take turns: benchmarks/beside.py.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import beside
from benchmarks.beside import Work
from canon import backend, optim
from canon.losses.multibox import multibox_loss
from canon.models import ssd
from canon.ops.nms import nms
from tools.boxes import draw_boxes, draw_objects

BATCH, SIZE, CLASSES, OBJECTS = 4, 300, 91, 8


def suppress(kind: str, threshold: float) -> Callable:
    boxes, scores = map(jnp.asarray, draw_boxes(kind, 2000))
    call = jax.jit(functools.partial(nms, iou_threshold=threshold, max_outputs=2000))
    return lambda: call(boxes, scores)


def build_ssd():
    model = ssd.ssd300(num_classes=CLASSES, sizes='coco', clip='sizes')
    images = jnp.asarray(np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3)), jnp.float32)
    return model, images, backend.jit(model.init)(jax.random.key(0), images)['params']


def forward() -> Callable:
    model, images, params = build_ssd()
    call = backend.jit(lambda params, images: model.apply({'params': params}, images))
    return lambda: call(params, images)


def train() -> Callable:
    model, images, params = build_ssd()
    boxes, labels = map(jnp.asarray, draw_objects(BATCH, OBJECTS, SIZE, CLASSES - 1))
    valid, priors, tx = jnp.ones(labels.shape, bool), model.priors(SIZE, SIZE), optim.momentum(1e-3)

    def step(params, state):
        def loss(params):
            outputs = model.apply({'params': params}, images, True)
            sums = multibox_loss(outputs['offsets'], outputs['logits'], priors, boxes, labels, valid)
            return (sums.localisation + sums.confidence) / jnp.maximum(sums.positives, 1)

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    held = [params, jax.jit(tx.init)(params)]
    compiled = backend.jit(step, donate_argnums=(0, 1))

    def call():
        *held[:], value = compiled(*held)
        return value

    return call


def work(build: Callable[[], Callable], calls: int, torch: float) -> Work:
    """The comparison of what `build` builds with torchvision, and the ratio to reach."""
    return Work({'canon': build}, calls, {'torch': torch})


WORKS = {
    f'nms_{kind}_{threshold}': work(functools.partial(suppress, kind, threshold), 20, 0.4)
    for kind in ('clustered', 'spread')
    for threshold in (0.5, 0.7)
}
WORKS |= {'ssd300_forward': work(forward, 1, 0.8), 'ssd300_train': work(train, 1, 1.0)}


if __name__ == '__main__':
    beside.main(str(__doc__), WORKS, 'benchmarks.detection', 'detection_torch.py')
