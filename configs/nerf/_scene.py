"""What the NeRF configs share: the embedded scene, what is measured on it, and the recipe of the original network."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs._fitted import falling, run

NARROW = dict(layers=4, width=64, skip=1, view_width=32)  # of `:smoke`


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
    """View synthesis of the embedded scene, size x size; held-out views are 8 unless `evals` says else.

    at_least: of test/psnr, for the ledger. source, train: more of config.data.source and config.data.train.
    """
    evals = evals or dict(test=dict(split='test', views=8))
    train_defaults = dict(split='train', views=placeholder(int), crop_steps=0, single_view=False)
    return ConfigDict(
        dict(
            experiment='view_synthesis',
            seed=0,
            data=dict(
                name='traced',
                path=placeholder(str),
                source=dict(size=size, **(source or {})),
                batch_size=batch_size,
                pixel_center=0.5,
                opaque=False,
                train=train_defaults | dict(train or {}),
                evals=evals,
            ),
            model=model,
            render=render,
            loss=dict(coarse=1.0, microbatch=placeholder(int), occlusion=0.0, occlusion_range=10, frequency_steps=0)
            | dict(loss or {}),
            tx=tx,
            run=run(steps, evals, every),
            target=dict(metric='test/psnr', at_least=at_least),
        )
    )


def skipping(coarse: int) -> dict[str, Any]:
    """How a field in a grid is rendered: once, in the occupied cells of 32^3."""
    once = dict(coarse=coarse, fine=0, shared=True, casting='intervals', background='random')
    return once | dict(box=(-1.3, 1.3), cells=32, budget=10, thin=0.01, decay=0.8)


def adam(rate: float, final: float = 0.1, **more) -> dict[str, Any]:
    """Adam whose rate falls exponentially, to `final` of what it was at the end of the run."""
    return dict(name='adam', **more, learning_rate=falling(rate, final))
