"""Binds a stage that proposes regions: the artefacts are one file of proposals per split.

config.proposals has the name of the proposer, its arguments, and `workers`, the number of processes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from canon.data.detection.proposals import compute_proposals, pair_objects, read_proposals
from canon.metrics.detection import measure_proposals
from canon.train.artefacts import Artefacts
from experiments import regions

SECTIONS = {'proposals': regions.PROPOSALS}

_TIMED = 3  # images that are proposed again to measure the time, whatever an earlier run has done


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `<split>.npz` for the training images and those of every evaluator; reports their recall."""
    proposer, workers = regions.bind_proposer(config)
    metrics, curves = {}, {}
    for name in regions.list_splits(config):
        source = regions.load_split(config, name)
        journal = artefacts.folder / f'{name}.part'
        options = dict(proposer=proposer, workers=workers, report=artefacts.report, journal=journal)
        path = artefacts.compute(f'{name}.npz', partial(compute_proposals, source, **options))
        journal.unlink(missing_ok=True)  # not before the artefact is in place
        measured = measure_proposals(pair_objects(source, read_proposals(path)))
        curves[name] = measured
        metrics |= {
            f'{name}/recall50': float(measured.recall(0.5)[-1]),
            f'{name}/recall70': float(measured.recall(0.7)[-1]),
            f'{name}/proposals': float(measured.mean_count[-1]),
        }
    images = [source[i]['image'] for i in range(min(_TIMED, len(source)))]
    began = time.perf_counter()
    for image in images:
        proposer(image)
    metrics['seconds_per_image'] = (time.perf_counter() - began) / len(images)
    regions.save_recall(artefacts, 'recall', curves)
    return metrics
