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

from canon import data, named
from canon.data.detection.proposals import read_proposals, write_proposals
from canon.errors import UsageError
from canon.metrics.detection import measure_proposals
from canon.tasks import detection as tasks
from canon.train import load_trained
from canon.train.workdir import read_mapping
from experiments import detection, images

_COUNTS = (10, 100, 300, 2000)  # proposals per image of which the recall is reported


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Any) -> dict[str, float]:
    """Computes `<split>.npz` for the training images and those of every evaluator; reports their recall."""
    if config.network not in stages:
        known = named.suggest(config.network, stages)
        raise UsageError(f'network={config.network!r} is not a finished stage{known}; reorder stages.chain')
    experiment = detection.without_data(config, read_mapping(stages[config.network] / 'run.json')['experiment'])
    trained = load_trained(experiment, config, stages[config.network])
    # Those of an evaluator: augmentation has no place here.
    first = min(config.data.evals)
    spec = named.to_plain(config.data.evals[first]).get('transforms')
    transforms = data.transforms.make_transforms(spec, f'data.evals.{first}.transforms')
    metrics = {}
    splits = {'train': config.data.train.split} | {name: config.data.evals[name].split for name in config.data.evals}
    for name, split in splits.items():
        source = images.load_images(config, split)

        def write(path: Path, source: data.Source) -> None:
            model = experiment.task.predict, trained.params, trained.mutable
            options = config.data.batch_size, str(config.network), artefacts.report
            write_proposals(path, tasks.compute_network_proposals(*model, source, transforms, *options))

        found = read_proposals(artefacts.compute(f'{name}.npz', partial(write, source=source)))
        examples = (source[i] for i in range(len(source)))
        rows = ((found.find(example['image']), example['boxes'], example['labels']) for example in examples)
        recall = measure_proposals(rows, _COUNTS).recall()
        metrics |= {f'{name}/recall_{count}': float(x) for count, x in zip(_COUNTS, recall, strict=True)}
    images_only = data.transforms.keep_fields(('image',))
    batches = data.Once(source, config.data.batch_size, (*transforms, images_only), memory_limit=0)
    model = experiment.task.predict, trained.params, trained.mutable
    return metrics | {'seconds_per_image': tasks.time_prediction(*model, batches[0])}
