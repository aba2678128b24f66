"""Steps of adaptation compared with the plain classification step of as many images, in one run.

    python -m benchmarks.adaptation [--rounds=5] [--only=dann]

Each method's step has 64 labelled and 64 unlabelled images of 16x16, the plain step 128 labelled ones; the network
(`domain_adversarial.digit_network`, with batch normalisation), Adam and the compiler are the same. DANN is to take at
most 1.4 times the plain step; MCD makes six updates per step. How the sides take turns: benchmarks/comparison.py.
"""

from collections.abc import Callable

import numpy as np

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Work
from benchmarks.steps import compile_step
from canon import models, optim
from canon.tasks import adaptation
from canon.tasks.classification import classification_task, make_image_input
from canon.train import make_step

BATCH, SIZE, CLASSES = 64, 16, 10


def draw_rows(count: int, labelled: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(count + labelled)
    rows = {'image': rng.integers(0, 256, (count, SIZE, SIZE, 1)).astype(np.uint8), 'mask': np.ones(count, bool)}
    return {**rows, 'label': rng.integers(0, CLASSES, count)} if labelled else rows


def make_network():
    return models.make_model('domain_adversarial.digit_network', num_classes=CLASSES, norm='batch')


def train_plain() -> Callable:
    return compile_step(classification_task(make_network(), make_image_input()), optim.adam(1e-3), draw_rows(2 * BATCH))


def train_method(name: str, **arguments) -> Callable:
    parts = make_network(), make_image_input(), adaptation.make_method(name, **arguments)
    batch = {'source': draw_rows(BATCH), 'target': draw_rows(BATCH, labelled=False)}
    return compile_step(
        adaptation.adaptation_task(*parts), optim.adam(1e-3), batch, adaptation.adaptation_step(*parts) or make_step
    )


WORKS = {
    name: Work({'canon': lambda name=name, kw=kw: train_method(name, **kw), 'plain': train_plain}, 20, aims)
    for name, kw, aims in (
        ('dann', {}, {'plain': 1.4}),
        ('mean_cov', {}, {}),
        ('mmd', {}, {}),
        ('mcd', {'steps': 4}, {}),
    )
}
BENCHMARK = Benchmark('benchmarks.adaptation', WORKS)


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
