"""Images a second from each loader, side by side: batches of 128 images of 28x28, shuffled, flipped at random.

    python -m benchmarks.loader [--seconds 2] [--rounds 3]

One process, 60,000 images in memory like MNIST's, and the embedded digits from disk. The peers are what one would
write without Canon: a plain Python loop, and Grain over single records. Rounds alternate and the median counts, so
that what else runs on the machine falls on all alike. Exit status 1 below 20,000 images/s, the figure promised.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import grain
import numpy as np

from canon.data import Arrays, Batches, load, transforms

BATCH = 128
PROMISED = 20_000


def canon(source, threads: int) -> Callable[[], Iterator]:
    """Our batches, made anew at each call, as `start` is wherever the last call stopped."""
    batches = Batches(source, BATCH, seed=0, transforms=(transforms.random_flip(),), threads=threads)
    return batches.iterate


def plain(images: np.ndarray, labels: np.ndarray) -> Iterator:
    """A Python loop over single images, one generator for all: fast, but what it draws depends on what it drew."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            flipped = [images[i][:, ::-1] if generator.random() < 0.5 else images[i] for i in rows]
            yield {'image': np.stack(flipped), 'label': labels[rows]}


class Flip(grain.transforms.RandomMap):
    """A random flip as Grain writes it, with a generator for each record."""

    def random_map(self, element, rng):
        if rng.random() < 0.5:
            return {**element, 'image': element['image'][:, ::-1]}
        return element


def grain_records(source) -> Iterator:
    """Grain's usual pipeline: every step sees one record."""
    records = grain.MapDataset.source(source).seed(0).shuffle().repeat().random_map(Flip()).batch(BATCH)
    return iter(records.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def rate(batches: Iterator, seconds: float) -> tuple[float, float]:
    """(images a second, images a second of CPU) after a first batch that is not counted."""
    next(batches)
    count, wall, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        count += len(next(batches)['label'])
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--seconds', type=float, default=2, help='of each loader in each round')
    parser.add_argument('--rounds', type=int, default=3)
    arguments = parser.parse_args()

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60_000, 28, 28, 1), np.uint8)
    labels = generator.integers(0, 10, 60_000)
    memory = Arrays({'image': images, 'label': labels})
    with tempfile.TemporaryDirectory() as data_dir:
        digits = load('digits', data_dir=data_dir)
        loaders = {
            'canon, 2 threads': canon(memory, 2),
            'canon, no thread': canon(memory, 0),
            'plain loop': lambda: plain(images, labels),
            'grain, single records': lambda: grain_records(memory),
            'canon, digits, kept': canon(digits, 2),
            'grain, digits, from disk': lambda: grain_records(digits),
        }
        rates = {name: [] for name in loaders}
        for _ in range(arguments.rounds):
            for name, make in loaders.items():
                rates[name].append(rate(make(), arguments.seconds))

    wall, cpu = ({name: statistics.median(r[i] for r in rates[name]) for name in rates} for i in (0, 1))
    ours = wall['canon, 2 threads']
    print(f'{"loader":32s}{"images/s":>12s}{"per CPU-s":>12s}{"canon is":>12s}')
    for name in wall:
        print(f'{name:32s}{wall[name]:12,.0f}{cpu[name]:12,.0f}{ours / wall[name]:11.2f}x')
    print(f'promised: {PROMISED:,}; {"kept" if ours >= PROMISED else "NOT kept"}')
    return 0 if ours >= PROMISED else 1


if __name__ == '__main__':
    sys.exit(main())
