"""What the configs of volumes share: whose pictures are taken, and Adam with a rate that falls to a tenth."""

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
    """data: name, source, views, picture and batch_size; four held-out views are measured twice."""
    own = dict(
        path=placeholder(str),  # a .npy, .nii, .nii.gz; or raw voxels, with their shape and dtype
        shape=placeholder(tuple),
        dtype=placeholder(str),
        spacing=placeholder(tuple),
        frame=placeholder(int),
        fill=placeholder(float),
    )
    return ConfigDict(
        dict(
            experiment='volume_rendering',
            seed=0,
            data=dict(own, **data, evals=dict(test=dict(split='test', views=4))),
            model=model,
            render=render,
            loss=loss or {},
            tx=dict(name='adam', learning_rate=falling(rate)),
            run=run(steps),
            target=target,
        )
    )
