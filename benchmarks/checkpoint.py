"""Measures how long a save delays training: 25 M parameters with Adam (300 MB), saved while steps continue.

    python -m benchmarks.checkpoint [--parameters=25e6] [--rows=1280]

The step multiplies 1,280 rows by as many parameters as ResNet-50 has, which is the work of ResNet-50 on 8 images. It
prints the median and the longest step of `fit` without and with saves, and the time of a restore.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from canon import optim
from canon.metrics import Mean
from canon.train import Experiment, Task, fit
from canon.train.checkpoint import Checkpoints
from canon.train.guard import Watchdog
from canon.train.setup import make_setup

LAYERS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--parameters', type=float, default=25e6)
    parser.add_argument('--rows', type=int, default=1280)
    parser.add_argument('--steps', type=int, default=24)
    options = parser.parse_args()
    width = int((options.parameters / LAYERS) ** 0.5)
    experiment = Experiment(make_task(width), optim.adam(1e-4), ConstantRows(options.rows, width))
    print(f'{LAYERS * width * width / 1e6:.1f} M parameters, {options.rows} rows per batch')
    with tempfile.TemporaryDirectory() as folder:
        plain = time_steps(experiment, options.steps, f'{folder}/plain', every=10**9)
        saving = time_steps(experiment, options.steps, f'{folder}/saving', every=10)
        median = statistics.median(plain)
        print(f'without saves: median {median:.3f} s, longest {max(plain):.3f} s')
        print(f'a save every 10 steps: median {statistics.median(saving):.3f} s, longest {max(saving):.3f} s')
        print('each:', ' '.join(f'{t:.2f}' for t in saving))
        print(f'longest wait / median step: {max(saving) / median:.2f} (without saves {max(plain) / median:.2f})')
        print(f'restore: {time_restore(experiment, f"{folder}/saving"):.2f} s')


def make_task(width: int) -> Task:
    """Returns a network of `LAYERS` square matrices with tanh."""

    def init(key, batch):
        keys = jax.random.split(key, LAYERS)
        return {'params': [jax.random.normal(k, (width, width)) / width**0.5 for k in keys]}

    def loss(params, mutable, batch, at):
        x = batch['x']
        for w in params:
            x = jnp.tanh(x @ w)  # bounded, whatever the optimizer does
        return Mean.of((x - 1) ** 2), (mutable, {})

    return Task(init, loss, lambda params, mutable, batch: batch['x'])


class ConstantRows:
    """The same batch at every step."""

    def __init__(self, rows: int, width: int):
        self.x = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)

    def __getitem__(self, step):
        return {'x': self.x}

    def iterate(self, start=0):
        while True:
            yield self[start]


def time_steps(experiment: Experiment, steps: int, folder: str, every: int) -> list[float]:
    """Returns the wall seconds of each step on the host, saves included, without the first three."""
    ends = []

    def beat(self, beat=Watchdog.beat):  # the loop calls it once per step
        ends.append(time.perf_counter())
        beat(self)

    run = dict(steps=steps, log_every=10**9, checkpoint=dict(every=every), log=())
    with mock.patch.object(Watchdog, 'beat', beat):
        fit(experiment, {'run': run}, folder, quiet=True)
    return np.diff(ends)[3:].tolist()  # the first steps include compilation


def time_restore(experiment: Experiment, folder: str) -> float:
    """Returns the wall seconds of reading the newest checkpoint."""
    setup = make_setup(experiment, {'run': {'steps': 1}})
    start = time.perf_counter()
    with Checkpoints(Path(folder) / 'checkpoints', read_only=True) as checkpoints:
        jax.block_until_ready(checkpoints.restore(setup.target))
    return time.perf_counter() - start


if __name__ == '__main__':
    main()
