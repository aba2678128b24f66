"""What the configs of surfaces share: a red ball, and an orange one on a blue box, with masks, nothing to download."""

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
    """View synthesis by a surface: `steps` of Adam whose rate falls from `rate` to `final` of it."""
    return ConfigDict(
        dict(
            experiment='view_synthesis',
            seed=0,
            data=dict(
                name='traced',
                path=placeholder(str),
                source=dict(size=size, views=views, only=(1, 2, 3)),
                batch_size=batch_size,
                pixel_center=0.5,
                train=dict(split='train', views=placeholder(int)),
                evals=dict(test=dict(split='test', views=6)),
            ),
            model=model,
            render=render,
            loss=loss,
            tx=dict(
                chain=('clip', 'adam'),
                clip=dict(name='clip_by_global_norm', max_norm=max_norm),
                adam=dict(learning_rate=falling(rate, final)),
            ),
            run=run(steps),
            target=target,
        )
    )
