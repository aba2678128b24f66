"""NeRF's train step: microbatches against none and against torch; the hash grid against NeRF; a rendered view.

    python -m benchmarks.nerf [--rounds=5] [--only=vanilla_64,vanilla_1024,hash,view] [--torch=PYTHON]

- vanilla_64, vanilla_1024: 64 and 1,024 rays, 64 coarse samples and 64 more fine ones, two networks of 8 x 256, Adam.
  Canon's side has the default of a CPU, microbatches of 16 rays; `whole` is the step without them; torch's is eager.
- hash: a step of `configs/nerf/traced.py` (12 levels of 2^15 rows, occupancy grid, Adam) that evaluates 12,288 points,
  against the whole step of 64 rays, which evaluates as many: the ratio is per point.
- view: 100 x 100 pixels from that hash grid, in at most 2,000 ms.

How the sides take turns: benchmarks/comparison.py. Results: docs/view_synthesis.md.
"""

from collections.abc import Callable

import jax

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from benchmarks.steps import compile_step
from canon import models, optim
from canon.data.scenes import views as scenes
from canon.data.scenes.ray_batches import sample_rays, view_rays
from canon.rendering import RenderSettings
from canon.tasks.view_synthesis import RadianceLoss, predict_in_chunks, radiance_field_task
from canon.train import bind, make_step
from canon.train.step import init_state
from experiments import configs, view_synthesis

SAMPLES = RenderSettings(coarse=64, fine=64)


def make_nerf_step(rays: int, microbatch: int | None) -> Callable:
    """Compiles the step of the published network."""
    views = scenes.load_views('traced', size=16, views=4)
    task = radiance_field_task(models.make_model('nerf.nerf'), views, SAMPLES, RadianceLoss(microbatch=microbatch))
    return compile_step(task, optim.adam(5e-4), sample_rays(views, 0, 0, rays))


def make_hash_config():
    """The config of the hash grid, with as many points per step as NeRF evaluates for 64 rays."""
    config = configs.load(str(configs.ROOT / 'configs/nerf/traced.py'))
    config.data.batch_size, config.render.budget, config.data.source.views = 1024, 12, 4
    config.data.evals.test.views, config.data.evals.test.split = 1, 'train'
    return config


def make_hash_step() -> Callable:
    """Compiles the step of the hash grid; all cells are occupied, so every slot of the budget is a point in the box."""
    config = make_hash_config()
    experiment = bind(view_synthesis.make(config), config)
    return compile_step(experiment.task, experiment.tx, experiment.train[0])


def make_view_renderer() -> Callable:
    """Compiles the rendering of a whole view, after some steps have emptied cells of the occupancy grid."""
    config = make_hash_config()
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
        {'canon': lambda: make_nerf_step(64, None), 'whole': lambda: make_nerf_step(64, 0)},
        2,
        {'whole': 0.85, 'torch': 0.55},
    ),
    'vanilla_1024': Work(
        {'canon': lambda: make_nerf_step(1024, None), 'whole': lambda: make_nerf_step(1024, 0)},
        1,
        {'whole': 0.85, 'torch': 0.55},
    ),
    'hash': Work({'canon': make_hash_step, 'nerf': lambda: make_nerf_step(64, 0)}, 2, {'nerf': 0.15}),
    'view': Work({'canon': make_view_renderer}, 1, {'canon': 2000}),
}
BENCHMARK = Benchmark('benchmarks.nerf', WORKS, Peer('nerf_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
