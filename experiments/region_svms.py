"""Binds a stage that fits one linear SVM per class to the features of the stage 'features'."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from canon import named
from canon.data.detection.object_batches import list_class_names
from canon.tasks.detection.region_features import FeatureFiles
from canon.tasks.detection.region_svms import RegionClassifiers, SvmSettings, fit_region_svms
from canon.train.artefacts import Artefacts
from experiments import regions

SECTIONS = {'svms': {'SvmSettings': SvmSettings}}


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `svms.npz`, the classifiers of all classes: hard negatives are mined for all in one pass."""
    settings = named.call(SvmSettings, config.svms, 'svms')
    files = FeatureFiles(regions.find_artefacts(stages, 'features'), 'train', [settings.layer])
    source = regions.load_split(config, 'train')

    report = partial(artefacts.report, total=len(source))
    fit = partial(fit_region_svms, files, list_class_names(source), settings, report)
    fitted = regions.compute_arrays(artefacts, 'svms.npz', fit, RegionClassifiers)
    return {'examples_per_class': float(fitted.examples.mean())}
