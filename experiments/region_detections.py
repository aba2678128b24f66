"""Binds the last stage of R-CNN and SPP-net: detections of the regions of every evaluator, and how good they are.

Metrics of the evaluator 'test': those of `detection_evaluator`, of SVMs and regressed boxes; 'test/map50_svm' without
the regression, 'test/map50_softmax' of the network's own classes, and 'test/seconds_per_image' of scoring, regression
and suppression.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from canon import data, named
from canon.data.detection.object_batches import list_class_names
from canon.metrics import detection
from canon.tasks import detection as tasks
from canon.tasks.detection import region_detection
from canon.tasks.detection.region_features import FeatureFiles, FeatureSettings
from canon.train.artefacts import Artefacts
from experiments import regions

SECTIONS = {
    'detect': {'RegionSelection': region_detection.RegionSelection},
    'data.evals.*': {'DetectionEvaluation': tasks.DetectionEvaluation},
}


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Detects and evaluates; nothing is kept but the metrics and the figures."""
    metrics = {}
    for name in sorted(config.data.evals):
        metrics |= {f'{name}/{key}': value for key, value in _evaluate(config, stages, artefacts, name).items()}
    return metrics


def _evaluate(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts, name: str) -> dict[str, float]:
    classify, move, layers = regions.read_heads(config, stages)
    files = FeatureFiles(regions.find_artefacts(stages, 'features'), name, sorted({*layers, 'fc7'}))
    source, settings = regions.load_split(config, name), regions.evaluation(config, name)
    names = list_class_names(source)

    variables = regions.read_variables(stages, named.call(FeatureSettings, config.features, 'features').stage)
    kernel, bias = (variables['params']['logits'][key] for key in ('kernel', 'bias'))

    def classify_by_softmax(layers):
        return region_detection.score_softmax(layers['fc7'] @ kernel + bias)

    def make_detector(classifier, regressor=None, **changes):
        selection = named.call(region_detection.RegionSelection, {**named.to_plain(config.detect), **changes}, 'detect')
        return region_detection.make_scorer(classifier, regressor), selection

    detectors = {
        'boxes': make_detector(classify, move),
        'svm': make_detector(classify),
        # Softmax probabilities have their own threshold: low, since average precision ranks even the weakest.
        'softmax': make_detector(classify_by_softmax, score_threshold=0.01),
    }
    # In one pass: the features of a large set are read from disk for longer than they are scored.
    others = region_detection.detect_regions(source, files, detectors)
    rows, seconds = others.pop('boxes')
    sums = {'detections': rows}
    batches = data.Once(source, 1, threads=0)
    evaluator = tasks.detection_evaluator(_refuse, batches, names, settings, tasks.make_draw(batches, names, settings))
    if evaluator.draw is not None:
        figures = evaluator.draw(None, None, sums)
        regions.save_figures(artefacts, {f'{name}-{title}': figure for title, figure in figures.items()})
    scores = {
        f'map50_{key}': detection.score_voc(detection.match_detections(own.rows), len(names), settings.year).mean_ap
        for key, own in others.items()
    }
    return {**evaluator.finish(sums), **scores, 'seconds_per_image': seconds / len(source)}


def _refuse(params, mutable, batch):
    raise AssertionError('detections are those of regions, not of a network')
