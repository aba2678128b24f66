"""What `fit` adds to the jitted step: LeNet-5 on the digits, both in one run, as a ratio.

    python -m benchmarks.loop [--steps=300] [--batch_size=64]

The step alone runs on one placed batch, over and over, two in flight as in `fit`; `fit` reads, augments, places,
logs and watches besides. Rounds alternate, so that a busy machine slows both.
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
from canon.train.setup import prepare
from experiments import classification, configs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=300)
    parser.add_argument('--batch_size', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    config = configs.load('configs/classification/lenet_digits.py')
    config.data.batch_size = options.batch_size
    config.run = dict(steps=options.steps, log_every=50, tensorboard=True)
    experiment = classification.make(config)
    alone, looped, waited, cpu = [], [], [], []
    for _ in range(options.rounds):
        began = time.process_time()
        alone.append(step_alone(experiment, config, options.steps))
        middle = time.process_time()
        total, data = step_in_fit(experiment, config)
        cpu.append((time.process_time() - middle) / (middle - began))
        looped.append(total)
        waited.append(data)
    ratios = [b / a for a, b in zip(alone, looped, strict=True)]
    print(f'jitted step alone  {1e3 * statistics.median(alone):8.3f} ms')
    print(
        f'a step of fit      {1e3 * statistics.median(looped):8.3f} ms, '
        f'{1e3 * statistics.median(waited):.3f} ms in next()'
    )
    print(
        f'ratio of CPU time  {statistics.median(cpu):8.3f}  (set-up included on both sides; steadier where others run)'
    )
    print(f'ratio              {statistics.median(ratios):8.3f}  (rounds: {", ".join(f"{r:.3f}" for r in ratios)})')


def step_alone(experiment, config, steps: int) -> float:
    """Seconds a step of the compiled update on one batch that is in place."""
    setup = prepare(experiment, lengths.resolve(config, None, None))
    state, step = setup.initial_state(), setup.compiled_step()
    waiting = deque()
    for i in range(steps + 10):
        if i == 10:
            began = time.perf_counter()
        state, metrics = step(state, setup.first)
        waiting.append(metrics)
        if len(waiting) > 2:
            np.asarray(waiting.popleft())
    jax.block_until_ready(state)
    return (time.perf_counter() - began) / steps


def step_in_fit(experiment, config) -> tuple[float, float]:
    """Seconds a step inside `fit`, and of them in the loader's next()."""
    with tempfile.TemporaryDirectory() as folder:
        fit(experiment._replace(evals={}), config, folder, quiet=True)
        rows = [r for r in read_rows(Path(folder) / 'metrics.jsonl') if 'train/step_seconds' in r][1:]
        return tuple(statistics.mean(r[f'train/{k}_seconds'] for r in rows) for k in ('step', 'data'))


if __name__ == '__main__':
    main()
