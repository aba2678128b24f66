"""Measures what `fit` adds to the jitted step: LeNet-5 on the digits, both in one run, as a ratio.

    python -m benchmarks.loop [--steps=300] [--batch_size=64]

The bare step runs repeatedly on one batch that is on the device, two steps in flight as in `fit`; `fit` also reads,
augments, transfers, logs and watches. Rounds alternate, so that a busy machine slows both.
"""

import argparse
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path

import jax
import numpy as np

from canon.train import fit, lengths
from canon.train.log import read_rows
from canon.train.setup import make_setup
from experiments import classification, configs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--batch_size', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    config = configs.load('configs/classification/lenet_digits.py')
    config.data.batch_size = options.batch_size
    config.run = dict(steps=options.steps, log_every=50, log=('tensorboard',))
    experiment = classification.make(config)
    bare, in_fit, data_waits, cpu = [], [], [], []
    for _ in range(options.rounds):
        start = time.process_time()
        bare.append(time_bare_step(experiment, config, options.steps))
        middle = time.process_time()
        total, data = time_step_in_fit(experiment, config)
        cpu.append((time.process_time() - middle) / (middle - start))
        in_fit.append(total)
        data_waits.append(data)
    ratios = [b / a for a, b in zip(bare, in_fit, strict=True)]
    print(f'bare jitted step   {1e3 * statistics.median(bare):8.3f} ms')
    print(
        f'step within fit    {1e3 * statistics.median(in_fit):8.3f} ms, '
        f'{1e3 * statistics.median(data_waits):.3f} ms of it in next()'
    )
    print(f'ratio of CPU time  {statistics.median(cpu):8.3f}  (both with set-up; steadier on a busy machine)')
    print(f'ratio              {statistics.median(ratios):8.3f}  (rounds: {", ".join(f"{r:.3f}" for r in ratios)})')


def time_bare_step(experiment, config, steps: int) -> float:
    """Returns seconds per step of the compiled update on one batch that is on the device."""
    setup = make_setup(experiment, lengths.resolve(config, None, None))
    state, step = setup.initial_state(), setup.compiled_step()
    in_flight = deque()
    for i in range(steps + 10):
        if i == 10:  # compilation and warm-up are over
            start = time.perf_counter()
        state, metrics = step(state, setup.first)
        in_flight.append(metrics)
        if len(in_flight) > 2:  # reading a metric waits for its step; two may run meanwhile
            np.asarray(in_flight.popleft())
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / steps


def time_step_in_fit(experiment, config) -> tuple[float, float]:
    """Returns seconds per step within `fit`, and how many of them the loader's next() takes."""
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment._replace(evals={}), config, folder, quiet=True)  # evaluations are not part of the step
        rows = [r for r in read_rows(Path(folder) / 'metrics.jsonl') if 'train/step_seconds' in r][
            1:
        ]  # the first interval compiles
        return tuple(statistics.mean(r[f'train/{k}_seconds'] for r in rows) for k in ('step', 'data'))


if __name__ == '__main__':
    main()
