"""Shared by the NeRF configs: the embedded scene, its evaluation, and the recipe of the original network."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs._fitted import falling, run

NARROW = dict(layers=4, width=64, skip=1, view_width=32)  # the network of `:smoke`


def config(
    *,
    model: Mapping[str, Any],
    render: Mapping[str, Any],
    tx: Mapping[str, Any],
    steps: int,
    at_least: float,
    size: int,
    batch_size: int,
    source: Mapping[str, Any] | None = None,
    train: Mapping[str, Any] | None = None,
    evals: Mapping[str, Mapping[str, Any]] | None = None,
    loss: Mapping[str, Any] | None = None,
    every: str = '50%',
) -> ConfigDict:
    """View synthesis of the embedded scene.

    Args:
      model, render, tx: those blocks of the config.
      steps: of the run.
      at_least: target for test/psnr, in dB.
      size: pictures are size x size.
      batch_size: rays per step.
      source, train, loss: override or add keys of config.data.source, config.data.train and config.loss.
      evals: config.data.evals; 8 held-out views if None.
      every: interval of the evaluations.
    """
    evals = evals or dict(test=dict(split='test', views=8))
    train_defaults = dict(
        split='train',
        views=placeholder(int),  # views to train on, evenly spaced; None for all
        crop_steps=0,  # first steps that sample the central half of the pictures alone
        single_view=False,  # all rays of a step from one view
    )
    loss_defaults = dict(
        coarse=1.0,  # weight of the coarse rendering's error
        microbatch=placeholder(int),  # rays per gradient; None: as fit a CPU's cache, and all elsewhere; 0: all
        occlusion=0.0,  # weight of FreeNeRF's penalty on density close to the cameras
        occlusion_range=10,  # samples of a ray that the penalty covers
        frequency_steps=0,  # steps over which FreeNeRF reveals the frequencies; 0: all from the start
    )
    return ConfigDict(
        dict(
            experiment='view_synthesis',
            seed=0,
            data=dict(
                name='traced',  # 'traced' (embedded), 'blender', 'ngp', 'llff', 'colmap' or 'capture'
                path=placeholder(str),  # the folder, except for 'traced'
                source=dict(size=size, **(source or {})),  # arguments of the reader
                batch_size=batch_size,  # rays per step
                pixel_center=0.5,  # 0.0 casts rays through pixel corners, as the original code does
                opaque=False,  # pictures without alpha already show render.background
                train=train_defaults | dict(train or {}),
                evals=evals,
            ),
            model=model,
            render=render,  # see canon.rendering.RenderSettings
            loss=loss_defaults | dict(loss or {}),
            tx=tx,
            run=run(steps, evals, every),
            target=dict(metric='test/psnr', at_least=at_least),
        )
    )


def skipping(coarse: int) -> dict[str, Any]:
    """config.render of a field in a grid: one level of `coarse` intervals, in the occupied cells of 32^3."""
    one_level = dict(coarse=coarse, fine=0, shared=True, casting='intervals', background='random')
    return one_level | dict(
        box=(-1.3, 1.3),  # the walls of the scene
        cells=32,  # of the occupancy grid, per axis
        budget=10,  # samples per ray, on average
        thin=0.01,  # optical depth below which an interval is empty
        decay=0.8,  # of a cell's remembered density per update
    )


def adam(rate: float, final: float = 0.1, **arguments) -> dict[str, Any]:
    """Adam with a learning rate that decays exponentially from `rate` to `final` times that over the run."""
    return dict(name='adam', **arguments, learning_rate=falling(rate, final))
