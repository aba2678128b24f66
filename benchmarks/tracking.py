"""Measures trackers in frames per second of one thread: 30 objects, in numpy, scanned, and many sequences at once.

    python -m benchmarks.tracking [--rounds 5] [--frames 300] [--objects 30] [--peer FILE]

Detections are drawn: objects that move straight and cross in a picture of 1920 x 1080, 10 % missed, 2 pixels of jitter.
All forms receive the same, in turns; times are CPU times of the thread that runs them, and the median counts. `--peer`
names a Python file with `track(boxes, valid)`, boxes [T, D, 4] and valid [T, D], that is timed as another
implementation and set in relation: the published SORT has a Kalman filter object of filterpy per track, and is not
part of Canon. The exit status is 1 if a ratio to the peer is above its aim.
"""

from __future__ import annotations

import argparse
import functools
import os
import runpy
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

AIMS = {'numpy': 0.15, 'scanned': 0.06}  # of the CPU time of the published loop
VMAPPED = 8  # sequences


def draw_detections(seed: int, frames: int, objects: int) -> dict[str, np.ndarray]:
    """Returns the detections of a random sequence, [T, D, ...] with as many slots as objects."""
    rng = np.random.default_rng(seed)
    time_ = np.arange(frames)[:, None, None]
    centers = rng.uniform((0, 0), (1920, 1080), (objects, 2)) + rng.normal(0, 3, (objects, 2)) * time_
    size = np.array([1920, 1080])
    centers = np.abs((centers + size) % (2 * size) - size)  # bounces off the borders
    sizes = rng.uniform((30, 60), (90, 220), (objects, 2))
    corners = np.concatenate([centers - sizes / 2, centers + sizes / 2], -1)
    valid = rng.random((frames, objects)) > 0.1
    boxes = np.where(valid[..., None], corners + rng.normal(0, 2, corners.shape), 0)
    return {
        'boxes': boxes.astype(np.float32),
        'scores': np.where(valid, rng.uniform(0.5, 1, valid.shape), 0).astype(np.float32),
        'labels': np.zeros(valid.shape, np.int32),
        'valid': valid,
    }


def list_calls(frames: int, objects: int, peer: str | None) -> dict[str, tuple[Callable, int]]:
    """Returns {name: (call, frames that it processes)}."""
    import jax

    from canon import tracking

    detections = draw_detections(0, frames, objects)
    slots = 2 * objects
    device = jax.device_put(detections)
    many = jax.device_put({
        key: np.stack([draw_detections(seed, frames, objects)[key] for seed in range(VMAPPED)]) for key in detections
    })  # fmt: skip
    calls: dict[str, tuple[Callable, int]] = {}
    if peer:
        track = runpy.run_path(peer)['track']
        calls['peer'] = functools.partial(track, detections['boxes'], detections['valid']), frames
    for name, make in {'': tracking.sort, ' ByteTrack': tracking.byte_track, ' OC-SORT': tracking.oc_sort}.items():
        host, compiled = make(slots=slots, form='numpy'), make(slots=slots)
        scan = jax.jit(functools.partial(tracking.run, compiled))
        calls[f'numpy{name}'] = functools.partial(tracking.run, host, detections), frames
        calls[f'scanned{name}'] = lambda scan=scan: jax.block_until_ready(scan(device)), frames
        if not name:
            vmapped = jax.jit(jax.vmap(functools.partial(tracking.run, compiled)))
            calls[f'vmapped over {VMAPPED}'] = (
                lambda vmapped=vmapped: jax.block_until_ready(vmapped(many)),
                VMAPPED * frames,
            )
    return calls


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--frames', type=int, default=300)
    parser.add_argument('--objects', type=int, default=30)
    parser.add_argument('--peer', metavar='FILE', help='a Python file with track(boxes, valid)')
    parser.add_argument('--only', default='', help='names of forms, separated by commas')
    options = parser.parse_args()
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before XLA sizes its pool: one thread
    calls = list_calls(options.frames, options.objects, options.peer)
    if options.only:
        calls = {name: calls[name] for name in options.only.split(',')}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds + 1):  # the first compiles and is not counted
        for name, (call, frames) in calls.items():
            start = time.process_time()  # CPU time: other processes do not count
            call()
            seconds[name].append((time.process_time() - start) / frames)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    print(f'{options.objects} objects, {options.frames} frames, {options.rounds} rounds, one core')
    print(f'{"SORT, and others":24s}{"us/frame":>10s}{"frames/s":>10s}{"of peer":>10s}{"aim":>7s}')
    reached = True
    for name, median in medians.items():
        ratio = median / medians['peer'] if 'peer' in medians else None
        aim = AIMS.get(name)
        reached &= ratio is None or aim is None or ratio <= aim
        relation = '' if ratio is None else f'{ratio:10.3f}'
        print(f'{name:24s}{1e6 * median:10.0f}{1 / median:10,.0f}{relation:>10s}{aim or "":>7}')
    return 0 if reached else 1


if __name__ == '__main__':
    sys.exit(main())
