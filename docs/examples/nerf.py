"""Trains a radiance field on the embedded scene and renders it from new poses, with the library alone.

    python docs/examples/nerf.py --folder=nerf_example        # 30 s of CPU time

Leaves view.png and orbit.gif next to what every run leaves (report.html, checkpoints). For the original NeRF take

    field = models.make_model('nerf.nerf')
    settings = RenderSettings(coarse=64, fine=128)
"""

import argparse
from pathlib import Path

from PIL import Image

from canon import models
from canon.data import views as scenes
from canon.data.scenes.ray_batches import ray_batches
from canon.rendering import RenderSettings
from canon.tasks.view_synthesis import radiance_field_task, render_novel_views, view_evaluator
from canon.train import Experiment, fit


def main(folder: Path, steps: int, size: int, rays: int) -> None:
    train = scenes.load_views('traced', 'train', size=size, views=100)  # or 'blender', 'colmap', ... with path=
    held_out = scenes.load_views('traced', 'test', size=size, views=4)

    # A dense grid of features with small networks, and an occupancy grid that skips empty space.
    field = models.make_model('instant_ngp.voxels', vertices=48, low=-1.3, high=1.3)
    sampling = dict(coarse=64, fine=0, shared=True, casting='intervals')
    skipping = dict(box=(-1.3, 1.3), cells=32, budget=10, decay=0.8)
    settings = RenderSettings(**sampling, **skipping, background='random')

    task = radiance_field_task(field, train, settings)
    rate = dict(name='exponential', init=2e-2, decay=0.1, steps='100%')  # falls to a tenth over the run
    experiment = Experiment(
        task=task,
        tx=dict(name='adam', learning_rate=rate, b2=0.99, eps=1e-15),
        train=ray_batches(train, rays, seed=0),
        evals={'test': view_evaluator(task, held_out)},
    )
    fitted = fit(experiment, dict(seed=0, run=dict(steps=steps, log_every='10%')), folder)
    print(f'held-out PSNR {fitted.metrics["test/psnr"]:.1f} dB')

    orbit = render_novel_views(task, fitted.state.params, fitted.state.mutable, train, frames=16)
    frames = [Image.fromarray(frame) for frame in orbit]
    frames[0].save(folder / 'view.png')
    frames[0].save(folder / 'orbit.gif', save_all=True, append_images=frames[1:], duration=80, loop=0)


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--folder', type=Path, default=Path('nerf_example'))
    parser.add_argument('--steps', type=int, default=400)
    parser.add_argument('--size', type=int, default=64, help='of the pictures, in pixels')
    parser.add_argument('--rays', type=int, default=1024, help='per step')
    main(**vars(parser.parse_args()))
