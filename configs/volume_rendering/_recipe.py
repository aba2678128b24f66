"""Shared settings of the configs of volumes: keys of files, four held-out views, and Adam with a decaying rate."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs._fitted import falling, run


def config(
    data: Mapping[str, Any],
    model: Mapping[str, Any],
    render: Mapping[str, Any],
    rate: float,
    steps: int,
    target: Mapping[str, Any],
    loss: Mapping[str, Any] | None = None,
) -> ConfigDict:
    """Returns a config.

    Args:
      data: name, source, views, picture and batch_size.
      model: what is learned, the arguments of `RecoverySettings`.
      render: the arguments of `RayCastingSettings`.
      rate: initial learning rate, which decays to a tenth.
      steps: of training.
      target: the metric that counts as a success.
      loss: the arguments of `RecoveryLoss`.
    """
    return ConfigDict(
        dict(
            experiment='volume_rendering',
            seed=0,
            data=dict(
                path=placeholder(str),  # a .npy, .nii or .nii.gz; or raw voxels with their shape and dtype
                shape=placeholder(tuple),  # (X, Y, Z) of raw voxels
                dtype=placeholder(str),  # of raw voxels, such as 'int16' or '>u2'
                spacing=placeholder(tuple),  # of voxels along x, y, z
                frame=placeholder(int),  # of a file with a fourth axis
                fill=placeholder(float),  # replaces voxels that are NaN or infinite
                evals=dict(test=dict(split='test', views=4)),
                **data,
            ),
            model=model,
            render=render,
            loss=loss or {},
            tx=dict(name='adam', learning_rate=falling(rate)),
            run=run(steps),
            target=target,
        )
    )
