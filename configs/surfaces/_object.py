"""Shared by the configs of surfaces: a red ball, and an orange one on a blue box, with masks. Nothing to download."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs._fitted import falling, run


def config(
    model: Mapping[str, Any],
    render: Mapping[str, Any],
    loss: Mapping[str, Any],
    rate: float,
    steps: int,
    size: int,
    views: int,
    batch_size: int,
    target: Mapping[str, Any],
    final: float = 0.1,
    max_norm: float = 10.0,
) -> ConfigDict:
    """View synthesis by a surface, trained by Adam.

    Args:
      model, render, loss, target: those blocks of the config.
      rate, final: the learning rate decays exponentially from `rate` to `final` times that.
      steps: of the run.
      size: pictures are size x size.
      views: pictures to train on.
      batch_size: rays per step.
      max_norm: of the gradient, which is clipped.
    """
    return ConfigDict(
        dict(
            experiment='view_synthesis',
            seed=0,
            data=dict(
                name='traced',  # pictures need alpha: 'traced' (embedded), 'blender' or 'ngp'
                path=placeholder(str),  # the folder, except for 'traced'
                source=dict(size=size, views=views, only=(1, 2, 3)),  # the objects to keep, see `traced.scene_objects`
                batch_size=batch_size,  # rays per step
                pixel_center=0.5,  # 0.0 casts rays through pixel corners
                train=dict(split='train', views=placeholder(int)),  # views to train on, evenly spaced; None for all
                evals=dict(test=dict(split='test', views=6)),
            ),
            model=model,
            render=render,  # see canon.tasks.surfaces.SurfaceSettings
            loss=loss,  # see canon.tasks.surfaces.SRNLoss and DVRLoss
            tx=dict(
                chain=('clip', 'adam'),
                clip=dict(name='clip_by_global_norm', max_norm=max_norm),
                adam=dict(learning_rate=falling(rate, final)),
            ),
            run=run(steps),
            target=target,
        )
    )
