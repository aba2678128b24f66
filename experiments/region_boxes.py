"""Binds a stage that fits one ridge regression of boxes per class to the features of the stage 'features'."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from canon import named
from canon.data.detection.object_batches import list_class_names
from canon.tasks.detection.box_ridge import BoxRegressors, BoxRidgeSettings, fit_box_ridge
from canon.tasks.detection.region_features import FeatureFiles
from canon.train.artefacts import Artefacts
from experiments import regions

SECTIONS = {'boxes': {'BoxRidgeSettings': BoxRidgeSettings}}


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `boxes.npz`, the regressions of all classes."""
    settings = named.call(BoxRidgeSettings, config.boxes, 'boxes')
    files = FeatureFiles(regions.find_artefacts(stages, 'features'), 'train', [settings.layer])
    source = regions.load_split(config, 'train')
    count = len(list_class_names(source))

    report = partial(artefacts.report, total=len(source))
    fit = partial(fit_box_ridge, files, count, settings, report)
    fitted = regions.compute_arrays(artefacts, 'boxes.npz', fit, BoxRegressors)
    return {'examples_per_class': float(fitted.examples.mean())}
