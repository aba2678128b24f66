"""Weights & Biases: https://docs.wandb.ai. Its own variables set the rest: WANDB_MODE=offline, WANDB_PROJECT."""

from __future__ import annotations

import io
from collections.abc import Mapping

from canon.train.trackers import TrackedRun

PACKAGE = 'wandb'


def wandb(run: TrackedRun) -> _Wandb:
    """Sends metrics, pictures and the config to Weights & Biases; a resumed run goes on in the same run there."""
    return _Wandb(run)


class _Wandb:
    def __init__(self, run: TrackedRun):
        self._run = run

    def open(self) -> None:
        import wandb

        self._wandb = wandb
        self._session = wandb.init(
            id=self._run.remember_id('wandb'),
            resume='allow',
            reinit='create_new',  # the stages of one process are runs of their own
            name=self._run.title,
            dir=str(self._run.workdir),
            config=dict(self._run.config),
            settings=wandb.Settings(console='off', silent=True),
        )
        # Its own counter never goes back, but a resumed run repeats steps: ours is a metric, the axis of all others.
        self._session.define_metric('step')
        self._session.define_metric('*', step_metric='step')

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._session.log({'step': step, **metrics})

    def log_picture(self, name: str, png: bytes, step: int) -> None:
        from PIL import Image

        self._session.log({'step': step, name: self._wandb.Image(Image.open(io.BytesIO(png)))})

    def close(self, state: str) -> None:
        self._session.finish(exit_code=int(state == 'failed'))
