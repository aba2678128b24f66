"""Binds a stage that fits one ridge regression of boxes per class to the features of the stage 'features'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from canon import named
from canon.tasks.detection.box_ridge import BoxRegressors, BoxRidgeSettings, fit_box_ridge
from canon.tasks.detection.region_features import FeatureFiles
from canon.train.artefacts import Artefacts
from experiments import regions


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `boxes.npz`, the regressions of all classes."""
    settings = named.call(BoxRidgeSettings, config.boxes, 'boxes')
    files = FeatureFiles(regions.find_artefacts(stages, 'features'), 'train', [settings.layer])
    source = regions.load_split(config, 'train')
    count = len(regions.list_class_names(source))

    def write(path: Path) -> None:
        def report(done: int) -> None:
            artefacts.report(done, len(source))

        np.savez(path, **fit_box_ridge(files, count, settings, report)._asdict())

    fitted = read_boxes(artefacts.compute('boxes.npz', write))
    return {'examples_per_class': float(fitted.examples.mean())}


def read_boxes(path: Path) -> BoxRegressors:
    """Reads the regressions."""
    with np.load(path) as file:
        return BoxRegressors(**file)
