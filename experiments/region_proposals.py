"""A stage that computes proposals for the images of a config: by selective search, or by a network of an earlier stage.

    proposals=dict(experiment='region_proposals', data=dict(proposals=dict(name='selective_search', most=2000)))

The images are those of config.data.train and of all config.data.evals. The artefact is one file, in which later stages
find the proposals of an image by its pixels: config.data.proposals.stage='proposals'. With name='rpn' the network is
that of the stage `network`, whose config has the model and the system of this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon import data, named
from canon.data.detection import proposals
from canon.data.detection.object_batches import PROPOSALS, ProposalSettings
from canon.errors import UsageError
from canon.metrics import detection as metrics
from canon.tasks.detection import compute_network_proposals
from canon.train import load_trained
from canon.train.workdir import read_mapping
from experiments import detection, images

_COUNTS = (10, 100, 300, 2000)  # proposals per image of which the recall is reported


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Any) -> dict[str, float]:
    """Computes the file, and returns the recall of the evaluators' images: {'<evaluator>/recall_300': ...}."""
    evals = named.to_plain(config.data.evals)
    splits = [config.data.train.split, *(settings['split'] for settings in evals.values())]
    sources = {split: images.load_images(config, split) for split in dict.fromkeys(splits)}
    path = artefacts.folder / PROPOSALS
    network = config.get('network')
    if network is None:
        settings = ProposalSettings.parse(config.data.proposals)
        assert settings is not None
        workers = config.data.get('reading', {}).get('workers', 0)
        for source in sources.values():  # the file is completed by each
            computed = proposals.compute_proposals(source, path, settings.make_proposer(), workers, artefacts.report)
    else:
        artefacts.compute(PROPOSALS, lambda part: _propose(config, network, stages, sources, part, artefacts.report))
        computed = proposals.read_proposals(path)
    return {
        f'{name}/recall_{count}': recall
        for name, settings in evals.items()
        for count, recall in _measure_recall(sources[settings['split']], computed).items()
    }


def _propose(config, network: str, stages, sources, part: Path, report) -> None:
    """Writes the proposals of a trained network."""
    if network not in stages:
        raise UsageError(f'network={network!r} is not a finished stage{named.suggest(network, stages)}')
    experiment = detection.without_data(config, read_mapping(stages[network] / 'run.json')['experiment'])
    trained = load_trained(experiment, config, stages[network])
    model = experiment.task.predict, trained.params, trained.mutable
    first = config.data.evals[min(config.data.evals)]  # augmentation has no place here
    transforms = data.transforms.make_transforms(first.get('transforms'), 'data.evals.*.transforms')
    sets = [
        compute_network_proposals(*model, source, transforms, config.data.batch_size, network, report)
        for source in sources.values()
    ]
    proposals.write_proposals(part, proposals.join_proposals(sets))


def _measure_recall(source: data.Source, computed: proposals.ProposalSet) -> dict[int, float]:
    examples = (source[i] for i in range(len(source)))
    rows = ((computed.find(example['image']), example['boxes'], example['labels']) for example in examples)
    return dict(zip(_COUNTS, metrics.measure_proposals(rows, _COUNTS).recall().tolist(), strict=True))
