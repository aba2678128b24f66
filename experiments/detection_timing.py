"""Binds a last stage that detects the objects of images one by one, and measures how long each part of that takes.

Metrics of the evaluator 'test': 'test/map50', and the medians over images 'test/seconds_proposals',
'test/seconds_features' and 'test/seconds_heads', whose sum is 'test/seconds_per_image'. See
`canon.tasks.detection.timing` for the parts.

The detector is that of the stage 'svms', R-CNN or SPP-net, if there is one; otherwise the network of
config.timing.network. Everything is computed of the images: no file of an earlier stage is read but weights. Images are
searched as the transforms of the evaluator leave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from canon import named
from canon.data.detection.object_batches import ObjectPipeline, ObjectSettings, ProposalSettings, list_class_names
from canon.metrics import detection
from canon.tasks import detection as tasks
from canon.tasks.detection import timing
from canon.tasks.detection.region_detection import RegionSelection
from canon.tasks.detection.region_features import FeatureSettings
from canon.train.artefacts import Artefacts
from experiments import images, region_features, regions

SECTIONS = {'data.evals.*': {'DetectionEvaluation': tasks.DetectionEvaluation}}


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Detects and evaluates; nothing is kept but the metrics."""
    steps, metrics = _make_steps(config, stages), {}
    for name in sorted(config.data.evals):
        source, settings = regions.load_split(config, name), regions.evaluation(config, name)
        objects = named.call(ObjectSettings, config.data.objects, 'data.objects')
        # Nothing is read ahead: a thread that decodes would take part of the time that is measured.
        pipeline = ObjectPipeline(1, objects, sizes=images.batch_sizes(config), reading=dict(threads=0))
        batches = list(pipeline.make_evaluation(source, settings.transforms, f'data.evals.{name}').iterate())
        measured = timing.time_detector(steps, batches, report=partial(artefacts.report, total=len(source)))
        matches = detection.match_detections(measured.rows)
        score = detection.score_voc(matches, len(list_class_names(source)), settings.year).mean_ap
        metrics |= {f'{name}/{key}': value for key, value in {'map50': score, **measured.summarise()}.items()}
    return metrics


def _make_steps(config: ConfigDict, stages: Mapping[str, Path]) -> list[timing.Step]:
    if 'svms' in stages:
        settings = named.call(FeatureSettings, config.features, 'features')
        describe = region_features.make_describer(config, stages, settings)
        classify, move, _ = regions.read_heads(config, stages)
        selection = named.call(RegionSelection, config.detect, 'detect')
        steps = timing.make_svm_steps(describe, classify, move, selection)
        return [_make_search(config, config.proposals.get('max_boxes', 2000)), *steps]
    model, make_input = regions.make_network(config)
    sections = dict(detect=tasks.DetectionSettings, regions=tasks.RegionSettings, rpn=tasks.RPNSettings)
    if config.system.name != 'faster_rcnn':
        del sections['rpn']
    settings = [named.call(kind, config.get(section, {}), section) for section, kind in sections.items()]
    variables = regions.read_variables(stages, config.timing.network)
    steps = timing.make_network_steps(model, make_input, variables, *settings)
    if 'rpn' in sections:
        return steps
    return [_make_search(config, named.call(ProposalSettings, config.data.proposals, 'data.proposals').most), *steps]


def _make_search(config: ConfigDict, most: int) -> timing.Step:
    return timing.make_search_step(regions.bind_proposer(config)[0], most)
