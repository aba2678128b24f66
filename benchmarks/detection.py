"""Detection compared with torchvision: suppression, SSD300 and Faster R-CNN forward and in training; below 1 is better.

    python -m benchmarks.detection --torch=PYTHON [--rounds=5] [--only=nms_spread_0.5,ssd300_train]

NMS of 2,000 boxes (`tools/boxes.py` draws them) returns the indices of all that remain, sorted. SSD300 has 91 classes,
batches of 4, float32; its train step matches 8 objects per image, and ends with SGD with momentum. Faster R-CNN is
`fasterrcnn_resnet50_fpn` on images of 320x320, with frozen norms and conv1 and conv2_x not trained: one image to its
detections, and a train step of two. --torch names an interpreter with torch and torchvision, whose side is channels
last. How the sides take turns: benchmarks/comparison.py.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from benchmarks.steps import repeat
from canon import backend, optim
from canon.losses.multibox import multibox_loss
from canon.models import faster_rcnn, ssd
from canon.ops.nms import nms
from canon.tasks.detection.regions import RegionSettings, RPNSettings, faster_rcnn_task
from canon.tasks.detection.single_shot import DetectionSettings
from canon.train import At
from tools.boxes import draw_boxes, draw_objects

BATCH, SIZE, REGION_SIZE, CLASSES, OBJECTS = 4, 300, 320, 91, 8


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

    return repeat_step(step, params, tx)


def repeat_step(step: Callable, params: Any, tx: Any, *arguments: Any) -> Callable:
    """Compiles step(params, state, *arguments) -> (params, state, loss): each call takes one more step."""
    return repeat(backend.jit(step, donate_argnums=(0, 1)), [params, jax.jit(tx.init)(params)], *arguments)


def make_faster_rcnn_task():
    """Returns the task of torchvision's network, with its settings."""
    model = faster_rcnn.fasterrcnn_resnet50_fpn()
    detections = DetectionSettings(score_threshold=0.05, iou_threshold=0.5, max_detections=100)
    counts = dict(pre_nms=2000, post_nms=2000, test_pre_nms=1000, test_post_nms=1000)
    return faster_rcnn_task(
        model,
        lambda batch: batch['image'],
        detections,
        RPNSettings(**counts, min_size=1e-3, inside_only=False),
        RegionSettings(per_image=512, beta=1 / 9),
    )


def build_faster_rcnn(batch: int):
    """Returns the task, images, parameters and statistics."""
    task = make_faster_rcnn_task()
    images = np.random.default_rng(0).normal(size=(batch, REGION_SIZE, REGION_SIZE, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda key: task.init(key, {'image': images}), jax.random.key(0))
    variables = jax.device_put(jax.tree_util.tree_map_with_path(draw_leaf, shapes))
    return task, jnp.asarray(images), variables['params'], {'batch_stats': variables['batch_stats']}


def draw_leaf(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Draws a parameter with numpy, in a hundredth of the time that the initialisation takes to compile."""
    names = [entry.key for entry in path]
    if names[-1] != 'kernel':
        return np.full(leaf.shape, names[-1] in ('scale', 'var'), np.float32)
    # Small in the RPN, so that proposals are about the anchors, as many as there is room for.
    std = 1e-4 if 'rpn' in names else (2 / np.prod(leaf.shape[:-1])) ** 0.5
    return np.float32(std) * np.random.default_rng(0).standard_normal(leaf.shape, np.float32)


def detect() -> Callable:
    task, images, params, mutable = build_faster_rcnn(1)
    call = backend.jit(task.predict)
    return lambda: call(params, mutable, {'image': images})


def train_faster_rcnn() -> Callable:
    task, images, params, mutable = build_faster_rcnn(2)
    boxes, labels = map(jnp.asarray, draw_objects(2, OBJECTS, REGION_SIZE, CLASSES - 1))
    no = jnp.zeros(labels.shape, bool)
    batch = dict(image=images, boxes=boxes, labels=labels, valid=~no, difficult=no, crowd=no, mask=jnp.ones(2, bool))
    frozen = re.compile(r'backbone/backbone/conv(1|2_\d)/')
    flat = flatten_dict(params, sep='/')
    fixed = {name: flat.pop(name) for name in list(flat) if frozen.match(name)}
    tx, key = optim.momentum(1e-12), jax.random.key(0)  # the network stays as it is drawn

    # All arrays are arguments: the compiler would compute the frozen layers of a constant image in advance.
    def step(trained, state, fixed, mutable, batch):
        def loss(trained):
            mean, rest = task.loss(unflatten_dict(trained | fixed, sep='/'), mutable, batch, At(key, jnp.int32(0)))
            return mean.total / mean.weight, rest

        (value, _), grads = jax.value_and_grad(loss, has_aux=True)(trained)
        updates, state = tx.update(grads, state, trained)
        return optax.apply_updates(trained, updates), state, value

    return repeat_step(step, flat, tx, fixed, mutable, batch)


def work(build: Callable[[], Callable], calls: int, torch: float) -> Work:
    """The comparison of what `build` builds with torchvision, and the ratio to reach."""
    return Work({'canon': build}, calls, {'torch': torch})


WORKS = {
    f'nms_{kind}_{threshold}': work(functools.partial(suppress, kind, threshold), 20, 0.4)
    for kind in ('clustered', 'spread')
    for threshold in (0.5, 0.7)
}
WORKS |= {'ssd300_forward': work(forward, 1, 0.8), 'ssd300_train': work(train, 1, 1.0)}
WORKS |= {'faster_rcnn_forward': work(detect, 1, 0.9), 'faster_rcnn_train': work(train_faster_rcnn, 1, 1.0)}
BENCHMARK = Benchmark('benchmarks.detection', WORKS, Peer('detection_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
