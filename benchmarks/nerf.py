"""NeRF's train step in microbatches, beside the same step without and beside torch; the hash grid beside NeRF.

    python -m benchmarks.nerf [--rounds=5] [--only=vanilla_64,vanilla_1024,hash,view] [--torch=PYTHON]

vanilla_64, vanilla_1024: so many rays, 64 coarse samples and 64 fine ones more, two networks of 8 x 256, Adam. Canon's
side is the default on a CPU, microbatches of 16 rays; its peer is the same step without them, torch's the same, eager.
hash: a step of `configs/nerf/traced.py` (12 levels of 2^15 rows, occupancy grid, Adam) that asks 12,288 points, beside
vanilla_64 without microbatches, which asks as many: the ratio is that per point. view: 100 x 100 pixels from that hash
grid, in seconds. Below 1 is better; how sides take turns: benchmarks/beside.py. Measured:
docs/view_synthesis.md.
"""

import argparse
import os
import statistics
from collections.abc import Callable

from benchmarks import beside
from benchmarks.beside import Work

if __name__ == '__main__':
    beside.restart('benchmarks.nerf')

import jax

from canon import models, optim
from canon.data import views as scenes
from canon.ops import backend
from canon.train import make_step
from canon.train.step import init_state
from experiments import configs, view_synthesis
from experiments.view_synthesis.rendering import Rendering

SAMPLES = Rendering(coarse=64, fine=64)
VIEW = 2.0  # seconds


def vanilla(rays: int, microbatch: int | None) -> Callable:
    """A donated step of the published network."""
    views = scenes.load('traced', size=16, views=4)
    learning = view_synthesis.Learning(microbatch=microbatch)
    task = view_synthesis.view_task(models.make('nerf.nerf'), views, SAMPLES, learning)
    return stepper(task, optim.adam(5e-4), view_synthesis.random_rays(views, 0, 0, rays))


def hash_config():
    config = configs.load(str(configs.ROOT / 'configs/nerf/traced.py'))
    config.data.batch_size, config.render.budget, config.data.source.views = 1024, 12, 4
    config.data.evals.test.views, config.data.evals.test.split = 1, 'train'
    return config


def hashed() -> Callable:
    """A donated step of the hash grid; its occupancy is full, so that every slot is a point inside of the box."""
    experiment = view_synthesis.make(hash_config())
    return stepper(experiment.task, experiment.tx, experiment.train[0])


def stepper(task, tx, batch) -> Callable:
    held = [init_state(task, tx, 0, batch)]
    step = jax.jit(make_step(task, tx, 0), donate_argnums=0, compiler_options=backend.compiler_options())
    compiled = step.lower(held[0], batch).compile()

    def call():
        held[0], metrics = compiled(held[0], batch)
        return metrics

    return call


def view() -> Callable:
    """A whole picture, after some steps have shown the occupancy grid what is empty."""
    config = hash_config()
    experiment = view_synthesis.make(config)
    state = init_state(experiment.task, experiment.tx, 0, experiment.train[0])
    step = jax.jit(make_step(experiment.task, experiment.tx, 0), donate_argnums=0)
    for i in range(200):
        state, _ = step(state, experiment.train[i])
    views = scenes.load('traced', size=config.data.source.size, views=4)
    run = jax.jit(view_synthesis.renderer(experiment.task))
    batch = view_synthesis.picture_rays(views, 0)
    return lambda: run(state.params, state.mutable, batch)


WORKS = {
    'vanilla_64': Work(lambda: (vanilla(64, None), vanilla(64, 0)), 2, 0.85, 0.4),
    'vanilla_1024': Work(lambda: (vanilla(1024, None), vanilla(1024, 0)), 1, 0.85, 0.7),
    'hash': Work(lambda: (hashed(), vanilla(64, 0)), 2, 0.15, 0.0),
}
PEERS = {'vanilla_64': 'without', 'vanilla_1024': 'without', 'hash': 'NeRF'}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default=','.join((*WORKS, 'view')), help='names of works, with commas')
    parser.add_argument('--torch', metavar='PYTHON', help='an interpreter that has torch')
    options = parser.parse_args()
    chosen = options.only.split(',')
    torch = beside.Torch(options.torch, 'nerf_torch.py') if options.torch else None
    rows = []
    for name in (name for name in WORKS if name in chosen):
        work = WORKS[name]
        times = beside.measure(name, work, options.rounds, torch if work.torch else None)
        for side, label, aim in (('linen', PEERS[name], work.linen), ('torch', 'torch', work.torch)):
            if side in times:
                ours, other = (statistics.median(wall for wall, _ in times[s]) for s in ('canon', side))
                ratios = beside.ratio(times, side, 0), beside.ratio(times, side, 1)
                rows.append(
                    (name, label, f'{1e3 * ours:.0f}', f'{1e3 * other:.0f}', *map('{:.2f}'.format, ratios), aim)
                )
    print(f'\n{"":14s}{"beside":>9s}{"ms":>9s}{"its ms":>9s}{"wall":>8s}{"CPU":>8s}{"aim":>8s}')
    for name, *columns, aim in rows:
        print(f'{name:14s}' + ''.join(f'{c:>{w}s}' for c, w in zip(columns, (9, 9, 9, 8, 8), strict=True)) + f'{aim:8}')
    if 'view' in chosen:
        call = view()
        call()
        wall, cpu = zip(*(beside.seconds(call, 1) for _ in range(options.rounds)), strict=True)
        print(f'{"view":14s}{statistics.median(wall):.2f} s, {statistics.median(cpu):.2f} s of CPU time; aim {VIEW} s')
    print(f'load at the end {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores')


if __name__ == '__main__':
    main()
