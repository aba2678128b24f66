"""Binds a stage that factorises the head of a trained detector at several ranks: precision and time of each."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon import plots
from canon.models.fast_rcnn import truncate_svd
from canon.named import to_plain
from canon.tasks.detection import time_prediction
from canon.train import evaluate
from canon.train.artefacts import Artefacts
from canon.train.shard import make_local_mesh, put, replicated_sharding
from experiments import detection, regions

_LAYERS = ('fc6', 'fc7')
_COLUMNS = ('ranks', 'map50', 'seconds_per_image')


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Writes `ranks.csv`, a row per entry of config.svd.ranks; reports {'test/map50', 'rank_64_32/map50', ...}."""
    path = artefacts.compute('ranks.csv', lambda path: _write(path, config, stages, artefacts))
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    points = {'': {row['ranks']: (float(row['seconds_per_image']), [float(row['map50'])]) for row in rows}}
    labels: dict[str, Any] = dict(xlabel='seconds per image', ylabel='mAP at 0.5', title='ranks of fc6 and fc7')
    regions.save_figures(artefacts, {'ranks': plots.draw_score_by_cost(points, **labels)})
    metrics = {f'rank_{row["ranks"]}/{name}': float(row[name]) for row in rows for name in _COLUMNS[1:]}
    return metrics | {'test/map50': float(rows[0]['map50'])}


def _write(path: Path, config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> None:
    trained = regions.read_variables(stages, config.svd.network)
    ranks = to_plain(config.svd.ranks)
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for done, pair in enumerate(ranks):
            artefacts.report(done, len(ranks))
            writer.writerow(
                ['full' if pair is None else '_'.join(map(str, pair)), *_evaluate(config, stages, trained, pair)]
            )


def _evaluate(config: ConfigDict, stages: Mapping[str, Path], variables: Any, pair: tuple[int, int] | None) -> tuple:
    """Returns (mAP, seconds per image) with the head factorised to two ranks; as it is for None."""
    variables, config = dict(variables), ConfigDict(to_plain(config))
    if pair is not None:
        by_layer = dict(zip(_LAYERS, pair, strict=True))
        variables, config.model.svd_ranks = truncate_svd(variables, by_layer), by_layer
    experiment, params = detection.make_stage(config, stages), variables.pop('params')
    # On a mesh of this process: in a job of several the others wait, and could not join a computation.
    evaluator, mesh = experiment.evals['test'], make_local_mesh()
    params, variables = put((params, variables), replicated_sharding(mesh))
    metrics = evaluate(evaluator, params, variables, mesh).metrics
    seconds = time_prediction(experiment.task.predict, params, variables, next(iter(evaluator.data.iterate())))
    return metrics['map50'], seconds
