"""Measures what `fit` adds to the jitted step: LeNet-5 on the digits, both in one run, as a ratio.

    python -m benchmarks.loop [--steps=500] [--batch_size=64] [--threads=2]

The bare step runs repeatedly on one batch that is on the device, two steps in flight as in `fit`; `fit` also reads,
augments, transfers, logs and watches. Rounds alternate, so that a busy machine slows both; medians over windows of 50
steps, of all rounds.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections import deque

import jax
import numpy as np

from canon.train import fit, lengths
from canon.train.setup import make_setup
from experiments import classification, configs

WINDOW = 50  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=500)
    parser.add_argument('--batch_size', type=int, default=64)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    config = configs.load('configs/classification/lenet_digits.py')
    config.data.batch_size = options.batch_size
    config.data.reading.threads = options.threads
    config.run = dict(steps=options.steps, log_every=WINDOW, log=('tensorboard',))
    experiment = classification.make(config)._replace(evals={})  # evaluations are not part of the step
    bare, in_fit, ratios = Clock(), Clock(), []
    for _ in range(options.rounds):
        sides = run_bare(experiment, config, options.steps), run_in_fit(experiment, config)
        ratios.append(sides[1].median('wall') / sides[0].median('wall'))
        for clock, side in zip((bare, in_fit), sides, strict=True):
            clock.extend(side)
    for name, clock in {'bare jitted step': bare, 'step within fit': in_fit}.items():
        print(f'{name:18} {1e3 * clock.median("wall"):8.3f} ms, CPU {1e3 * clock.median("cpu"):.3f} ms')
    print(f'ratio of CPU time  {in_fit.median("cpu") / bare.median("cpu"):8.3f}')
    rounds = ', '.join(f'{ratio:.3f}' for ratio in ratios)
    print(f'ratio              {in_fit.median("wall") / bare.median("wall"):8.3f}  (rounds: {rounds})')


class Clock:
    """Wall and CPU seconds per step of windows of steps; the first window, which compiles, does not count."""

    def __init__(self):
        self.marks, self.wall, self.cpu = [], [], []

    def tick(self, step: int) -> None:
        if step % WINDOW:
            return
        self.marks.append((time.perf_counter(), time.process_time()))
        if len(self.marks) > 2:
            wall, cpu = np.subtract(self.marks[-1], self.marks[-2]) / WINDOW
            self.wall.append(float(wall))
            self.cpu.append(float(cpu))

    def extend(self, other: 'Clock') -> None:
        self.wall += other.wall
        self.cpu += other.cpu

    def median(self, what: str) -> float:
        return statistics.median(getattr(self, what))


class Timed:
    """Training data that tick a clock at every step."""

    def __init__(self, data, clock: Clock):
        self.data, self.clock = data, clock

    def __getattr__(self, name):
        return getattr(self.data, name)

    def __getitem__(self, step):
        return self.data[step]

    def for_process(self, index, count):
        return Timed(self.data.for_process(index, count), self.clock)

    def iterate(self, start=0):
        for step, batch in zip(itertools.count(start), self.data.iterate(start)):
            self.clock.tick(step)
            yield batch


def run_bare(experiment, config, steps: int) -> Clock:
    """Times the compiled update on one batch that is on the device."""
    setup = make_setup(experiment, lengths.resolve(config, None, None))
    state, step = setup.initial_state(), setup.compiled_step()
    in_flight, clock = deque(), Clock()
    for i in range(steps):
        clock.tick(i)
        state, metrics = step(state, setup.first)
        in_flight.append(metrics)
        if len(in_flight) > 2:  # reading a metric waits for its step; two may run meanwhile
            np.asarray(in_flight.popleft())
    jax.block_until_ready(state)
    return clock


def run_in_fit(experiment, config) -> Clock:
    """Times the steps within `fit`."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment._replace(train=Timed(experiment.train, clock)), config, folder, quiet=True)
    return clock


if __name__ == '__main__':
    main()
