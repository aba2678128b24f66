"""Measures images per second of several loaders: batches of 128 images of 28x28, shuffled and randomly flipped.

    python -m benchmarks.loader [--seconds 2] [--rounds 3]

One process reads 60,000 images in memory, like MNIST's, and the embedded digits from disk. Canon is compared with a
plain Python loop and with Grain over single records. Rounds alternate and the median counts, so that other work on the
machine slows all alike. The exit status is 1 below the documented 20,000 images/s.
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

from canon.data import Arrays, Batches, load_source, transforms

BATCH = 128
DOCUMENTED = 20_000  # images/s


def canon(source, threads: int) -> Callable[[], Iterator]:
    """Returns Canon's batches; each call starts again from the first."""
    batches = Batches(source, BATCH, seed=0, transforms=(transforms.random_flip(),), threads=threads)
    return batches.iterate


def plain(images: np.ndarray, labels: np.ndarray) -> Iterator:
    """Yields batches of a Python loop over single images, whose one generator makes each draw depend on all before."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            flipped = [images[i][:, ::-1] if generator.random() < 0.5 else images[i] for i in rows]
            yield {'image': np.stack(flipped), 'label': labels[rows]}


class Flip(grain.transforms.RandomMap):
    """A random flip in Grain's form, with a generator for each record."""

    def random_map(self, element, rng):
        if rng.random() < 0.5:
            return {**element, 'image': element['image'][:, ::-1]}
        return element


def grain_records(source) -> Iterator:
    """Returns the batches of Grain's usual pipeline, whose transforms see one record at a time."""
    records = grain.MapDataset.source(source).seed(0).shuffle().repeat().random_map(Flip()).batch(BATCH)
    return iter(records.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def measure_rate(batches: Iterator, seconds: float) -> tuple[float, float]:
    """Returns images per second and per CPU second, after a first batch that is not counted."""
    next(batches)  # starts threads and fills caches
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
        digits = load_source('digits', data_dir=data_dir)
        loaders = {
            'canon, 2 threads': canon(memory, 2),
            'canon, no thread': canon(memory, 0),
            'plain loop': lambda: plain(images, labels),
            'grain, single records': lambda: grain_records(memory),
            'canon, digits, cached': canon(digits, 2),
            'grain, digits, from disk': lambda: grain_records(digits),
        }
        # Loaders alternate within a round: a busy minute slows all of them.
        rates = {name: [] for name in loaders}
        for _ in range(arguments.rounds):
            for name, make in loaders.items():
                rates[name].append(measure_rate(make(), arguments.seconds))

    wall, cpu = ({name: statistics.median(r[i] for r in rates[name]) for name in rates} for i in (0, 1))
    canon_rate = wall['canon, 2 threads']
    print(f'{"loader":32s}{"images/s":>12s}{"per CPU-s":>12s}{"canon is":>12s}')
    for name in wall:
        print(f'{name:32s}{wall[name]:12,.0f}{cpu[name]:12,.0f}{canon_rate / wall[name]:11.2f}x')
    print(f'documented: {DOCUMENTED:,}; {"reached" if canon_rate >= DOCUMENTED else "NOT reached"}')
    return 0 if canon_rate >= DOCUMENTED else 1


if __name__ == '__main__':
    sys.exit(main())
