"""MLflow: https://mlflow.org/docs. Its own variables choose the place: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME."""

from __future__ import annotations

import io
from collections.abc import Mapping

from canon.train.runs import flatten_settings
from canon.train.trackers import TrackedRun

PACKAGE = 'mlflow'
_STATES = {'done': 'FINISHED', 'failed': 'FAILED'}
_LONGEST = 500  # characters of a parameter, the limit of older servers


def mlflow(run: TrackedRun) -> _Mlflow:
    """Sends metrics, pictures and the config to MLflow; a resumed run goes on in the same run there."""
    return _Mlflow(run)


class _Mlflow:
    """MLflow has an active run per thread, and each tracker has a thread of its own."""

    def __init__(self, run: TrackedRun):
        self._run = run

    def open(self) -> None:
        import mlflow

        self._mlflow = mlflow
        known = self._run.find_id('mlflow')
        active = mlflow.start_run(run_id=known, run_name=self._run.title)
        if known is None:
            self._run.remember_id('mlflow', active.info.run_id)
            mlflow.log_params({key: str(value)[:_LONGEST] for key, value in flatten_settings(self._run.config).items()})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(metrics), step=step)

    def log_picture(self, name: str, png: bytes, step: int) -> None:
        from PIL import Image

        self._mlflow.log_image(Image.open(io.BytesIO(png)), key=name, step=step)

    def close(self, state: str) -> None:
        self._mlflow.end_run(_STATES.get(state, 'KILLED'))
