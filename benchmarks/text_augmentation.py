"""Learn to Augment: the joint step of agent and recogniser compared with the recogniser's, and the warp with a loop.

    python -m benchmarks.text_augmentation [--rounds=5] [--only=joint_step,warp]

joint_step: CRNN (8.3 million parameters) on 64 grey images of 32x100, Adadelta, with the paper's agent (N 3, R 10).
warp: 64 images of 32x100, eight points each, by moving least squares, compared with the paper's formula in numpy, one
pixel after the other, for as many. A 64th of its CPU time is what an image takes on one thread, 0.4 ms at most.
benchmarks/comparison.py explains how sides take turns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Work
from benchmarks.steps import compile_step
from canon import optim
from canon.models.crnn import crnn
from canon.ops import warps
from canon.tasks.text.augmentation import TextAugmentation, augment_task, fiducial_points
from canon.tasks.text.recognition import decode_labels, make_grey_input, recognition_task

BATCH, SIZE, LENGTH = 64, (32, 100), 8


def make_batch() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        'image': jnp.asarray(rng.integers(0, 256, (BATCH, *SIZE, 1), np.uint8)),
        'label': jnp.asarray(rng.integers(1, 37, (BATCH, LENGTH)), jnp.int32),
        'label_length': jnp.full(BATCH, LENGTH),
        'mask': jnp.ones(BATCH, bool),
    }


def compile_update(mode: Literal['none', 'learnt']) -> Callable:
    """Returns a call of one update of CRNN, whose images are augmented by `mode`."""
    grey = make_grey_input()
    task = augment_task(recognition_task(crnn(), grey), TextAugmentation(mode=mode), grey, decode_labels)
    tx = optim.make_optimizer(dict(name='adadelta', learning_rate=1.0, decay=0.9, eps=1e-6, eps_in_sqrt=True))
    return compile_step(task, tx, make_batch())


def draw_targets(count: int) -> np.ndarray:
    points = fiducial_points(SIZE, 3)
    return points + np.random.default_rng(1).uniform(-10, 10, (count, *points.shape)).astype(np.float32)


def compile_warp() -> Callable:
    points, targets, images = (
        jnp.asarray(fiducial_points(SIZE, 3)),
        jnp.asarray(draw_targets(BATCH)),
        make_batch()['image'],
    )
    run = jax.jit(lambda images, targets: warps.warp_images(images, points, targets))
    return lambda: run(images, targets)


def compile_loop() -> Callable:
    """Returns a call of the formula of Schaefer et al. 2006, pixel by pixel, for BATCH images."""
    points, (target,) = fiducial_points(SIZE, 3).astype(float), draw_targets(1).astype(float)
    image = np.asarray(make_batch()['image'])[0, ..., 0].astype(float)

    def warp_one():
        result = np.empty(SIZE)
        for row, column in np.ndindex(*SIZE):
            v = np.array([column + 0.5, row + 0.5])
            weights = 1 / np.square(target - v).sum(1)
            p_mean, q_mean = weights @ target / weights.sum(), weights @ points / weights.sum()
            p, q = (target - p_mean) @ [1, 1j], (points - q_mean) @ [1, 1j]
            turn = (weights * p.conj() * q).sum() / (weights * abs(p) ** 2).sum()
            z = q_mean @ [1, 1j] + (v - p_mean) @ [1, 1j] * turn
            x, y = np.clip(z.real - 0.5, 0, SIZE[1] - 1), np.clip(z.imag - 0.5, 0, SIZE[0] - 1)
            j, i = min(int(x), SIZE[1] - 2), min(int(y), SIZE[0] - 2)
            a, b = y - i, x - j
            upper, lower = image[i, j : j + 2] @ [1 - b, b], image[i + 1, j : j + 2] @ [1 - b, b]
            result[row, column] = (1 - a) * upper + a * lower
        return result

    return lambda: [warp_one() for _ in range(BATCH)]


WORKS = {
    'joint_step': Work(
        {'canon': lambda: compile_update('learnt'), 'recogniser': lambda: compile_update('none')},
        3,
        {'recogniser': 2.2},
    ),
    'warp': Work({'canon': compile_warp, 'loop': compile_loop}, 1, {'loop': 0.01}),
}
BENCHMARK = Benchmark('benchmarks.text_augmentation', WORKS)


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
