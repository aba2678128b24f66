"""Binds a stage that computes proposals with the region proposal network of an earlier stage: one file per split.

    proposals=dict(experiment='network_proposals', network='rpn', system=dict(name='rpn'))

The files are those of `experiments/region_proposals.py`, in pixels of the images before their transforms.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon import data
from canon.data.detection.object_batches import make_evaluation_batches
from canon.data.detection.proposals import pair_objects, read_proposals, write_proposals
from canon.data.detection.sized_batches import fill_size
from canon.metrics.detection import measure_proposals
from canon.tasks import detection as tasks
from canon.train.workdir import read_mapping
from experiments import detection, images, regions

_COUNTS = (10, 100, 300, 2000)  # proposals per image of which the recall is reported


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Any) -> dict[str, float]:
    """Computes `<split>.npz` for the training images and those of every evaluator; reports their recall."""
    variables = regions.read_variables(stages, config.network)
    experiment = detection.without_data(config, read_mapping(stages[config.network] / 'run.json')['experiment'])
    model = experiment.task.predict, variables.pop('params'), variables
    # Of an evaluator: augmentation has no place here.
    first, metrics, batches = min(config.data.evals), {}, None
    spec, sizes = config.data.evals[first].get('transforms'), images.batch_sizes(config)

    def transforms(size=None):
        chain = data.transforms.make_transforms(fill_size(spec, size), f'data.evals.{first}.transforms')
        return (tasks.record_image(), *chain)

    splits = {'train': config.data.train.split} | {name: config.data.evals[name].split for name in config.data.evals}
    for name, split in splits.items():
        source = images.load_images(config, split)
        batches = make_evaluation_batches(source, transforms=transforms, sizes=sizes, **images.reading(config))
        path = artefacts.compute(f'{name}.npz', partial(_write, config.network, model, batches, len(source), artefacts))
        recall = measure_proposals(pair_objects(source, read_proposals(path)), _COUNTS).recall()
        metrics |= {f'{name}/recall_{count}': float(x) for count, x in zip(_COUNTS, recall, strict=True)}
    assert batches is not None
    return metrics | {'seconds_per_image': tasks.time_prediction(*model, batches[0])}


def _write(network: str, model: tuple, batches: Any, total: int, artefacts: Any, path: Path) -> None:
    report = partial(artefacts.report, total=total)
    write_proposals(path, tasks.compute_network_proposals(*model, batches.iterate(), network, report))
