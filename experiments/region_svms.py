"""Binds a stage that fits one linear SVM per class to the features of the stage 'features'."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from canon import named
from canon.tasks.detection.region_features import FeatureFiles
from canon.tasks.detection.region_svms import RegionClassifiers, SvmSettings, fit_region_svms
from canon.train.artefacts import Artefacts
from experiments import regions


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `svms.npz`, the classifiers of all classes: hard negatives are mined for all in one pass."""
    settings = named.call(SvmSettings, config.svms, 'svms')
    files = FeatureFiles(regions.find_artefacts(stages, 'features'), 'train', [settings.layer])
    source = regions.load_split(config, 'train')

    def write(path: Path) -> None:
        def report(done: int) -> None:
            artefacts.report(done, len(source))

        np.savez(path, **fit_region_svms(files, regions.list_class_names(source), settings, report)._asdict())

    fitted = read_svms(artefacts.compute('svms.npz', write))
    return {'examples_per_class': float(fitted.examples.mean())}


def read_svms(path: Path) -> RegionClassifiers:
    """Reads the classifiers."""
    with np.load(path) as file:
        return RegionClassifiers(**file)
