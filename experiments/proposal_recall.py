"""Binds a stage that compares the proposals of earlier ones: recall and mAP against their number, seconds per image.

    recall=dict(experiment='proposal_recall')
    compared=dict(stages=('rpn', 'search'), counts=(10, 100, 1000), detector='detector')

The mAP is that of one network, of the stage `compared.detector`, which classifies the proposals of each stage; None
leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from canon import backend
from canon.data.detection.proposals import pair_objects, read_proposals
from canon.errors import UsageError
from canon.metrics.detection import measure_proposals
from canon.named import suggest, to_plain
from canon.tasks.detection.proposal_evaluation import score_proposal_counts
from canon.train.artefacts import Artefacts
from canon.train.workdir import read_mapping
from experiments import detection, images, regions


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Compares config.compared.stages on the images of every evaluator, at config.compared.counts proposals."""
    counts, metrics, detect = tuple(config.compared.counts), {}, None
    for name in config.data.evals:
        source, curves, scores = images.load_images(config, config.data.evals[name].split), {}, {}
        for number, stage in enumerate(config.compared.stages):
            artefacts.report(number, len(config.compared.stages))
            if stage not in stages:
                raise UsageError(f'compared.stages names {stage!r}, which is not finished{suggest(stage, stages)}')
            found = read_proposals(stages[stage] / 'artefacts' / f'{name}.npz')
            curves[stage] = measured = measure_proposals(pair_objects(source, found), counts)
            values = {'recall': measured.recall().tolist()}
            if config.compared.get('detector'):
                experiment = _bind(config, stages, stage, max(counts))
                # Compiled once for all stages, for which it is the same function.
                detect = detect or _make_detector(experiment.task.predict, stages, config.compared.detector)
                year, batches = config.data.evals[name].get('year', 2010), experiment.evals[name].data
                classes = len(experiment.about['class_names'])
                values['map50'] = scores[stage] = score_proposal_counts(
                    detect, list(batches.iterate()), counts, classes, year
                )
            for key, column in values.items():
                metrics |= {f'{name}/{key}_{stage}_{n}': x for n, x in zip(counts, column, strict=True)}
            seconds = (read_mapping(stages[stage] / 'status.json').get('metrics') or {}).get('seconds_per_image')
            metrics |= {} if seconds is None else {f'{name}/seconds_{stage}': seconds}
        regions.save_recall(artefacts, f'{name} recall', curves, scores or None)
    return metrics


def _bind(config: ConfigDict, stages: Mapping[str, Path], stage: str, most: int) -> Any:
    """Returns the experiment of the network as a Fast R-CNN on the proposals of a stage."""
    own = ConfigDict(to_plain(config))
    own.system, own.data.proposals = dict(name='fast_rcnn'), dict(stage=stage, most=most)
    return detection.make_stage(own, stages)


def _make_detector(predict: Callable, stages: Mapping[str, Path], network: str) -> Callable:
    variables = jax.device_put(regions.read_variables(stages, network))
    return partial(backend.jit(predict), variables.pop('params'), variables)
