"""NeRF's train step in microbatches, compared with the same step without and with torch; the hash grid with NeRF.

    python -m benchmarks.nerf [--rounds=5] [--only=vanilla_64,vanilla_1024,hash,view] [--torch=PYTHON]

vanilla_64, vanilla_1024: 64 and 1,024 rays, 64 coarse and 64 more fine samples, two networks of 8 x 256, Adam. Canon's
side is the default on a CPU, microbatches of 16 rays; `whole` is the same step without them, torch's is eager.
hash: a step of `configs/nerf/traced.py` (12 levels of 2^15 rows, occupancy grid, Adam) that evaluates 12,288 points,
compared with the whole step of 64 rays, which evaluates as many: the ratio is per point. view: 100 x 100 pixels from
that hash grid, in at most 2,000 ms. How the sides take turns: benchmarks/beside.py. Measured: docs/view_synthesis.md.
"""

from collections.abc import Callable

import jax

from benchmarks import beside
from benchmarks.beside import Work
from canon import backend, models, optim
from canon.data.scenes import views as scenes
from canon.data.scenes.ray_batches import sample_rays, view_rays
from canon.rendering import RenderSettings
from canon.tasks.view_synthesis import RadianceLoss, predict_in_chunks, radiance_field_task
from canon.train import bind, make_step
from canon.train.step import init_state
from experiments import configs, view_synthesis

SAMPLES = RenderSettings(coarse=64, fine=64)


def vanilla(rays: int, microbatch: int | None) -> Callable:
    """A donated step of the published network."""
    views = scenes.load_views('traced', size=16, views=4)
    task = radiance_field_task(models.make('nerf.nerf'), views, SAMPLES, RadianceLoss(microbatch=microbatch))
    return stepper(task, optim.adam(5e-4), sample_rays(views, 0, 0, rays))


def hash_config():
    config = configs.load(str(configs.ROOT / 'configs/nerf/traced.py'))
    config.data.batch_size, config.render.budget, config.data.source.views = 1024, 12, 4
    config.data.evals.test.views, config.data.evals.test.split = 1, 'train'
    return config


def hashed() -> Callable:
    """A donated step of the hash grid; its occupancy is full, so that every slot is a point inside of the box."""
    config = hash_config()
    experiment = bind(view_synthesis.make(config), config)
    return stepper(experiment.task, experiment.tx, experiment.train[0])


def stepper(task, tx, batch) -> Callable:
    held = [init_state(task, tx, 0, batch)]
    step = backend.jit(make_step(task, tx, 0), donate_argnums=0)
    compiled = step.lower(held[0], batch).compile()

    def call():
        held[0], metrics = compiled(held[0], batch)
        return metrics

    return call


def view() -> Callable:
    """A whole picture, after some steps have shown the occupancy grid what is empty."""
    config = hash_config()
    experiment = bind(view_synthesis.make(config), config)
    state = init_state(experiment.task, experiment.tx, 0, experiment.train[0])
    step = jax.jit(make_step(experiment.task, experiment.tx, 0), donate_argnums=0)
    for i in range(200):
        state, _ = step(state, experiment.train[i])
    views = scenes.load_views('traced', size=config.data.source.size, views=4)
    run = jax.jit(predict_in_chunks(experiment.task))
    batch = view_rays(views, 0)
    return lambda: run(state.params, state.mutable, batch)


WORKS = {
    'vanilla_64': Work(
        {'canon': lambda: vanilla(64, None), 'whole': lambda: vanilla(64, 0)}, 2, {'whole': 0.85, 'torch': 0.4}
    ),
    'vanilla_1024': Work(
        {'canon': lambda: vanilla(1024, None), 'whole': lambda: vanilla(1024, 0)}, 1, {'whole': 0.85, 'torch': 0.7}
    ),
    'hash': Work({'canon': hashed, 'nerf': lambda: vanilla(64, 0)}, 2, {'nerf': 0.15}),
    'view': Work({'canon': view}, 1, {'canon': 2000}),
}


if __name__ == '__main__':
    beside.main(str(__doc__), WORKS, 'benchmarks.nerf', 'nerf_torch.py')
