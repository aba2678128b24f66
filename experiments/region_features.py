"""Binds a stage that computes the features of regions: of crops (R-CNN), or from maps of whole images (SPP-net).

config.features names the `layers` that are kept, the `stage` whose network computes them, and `images_per_file`: an
interrupted stage continues after the last complete file. With a section config.scales features come from maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from canon import named
from canon.data.pipeline.source import Source
from canon.tasks.detection import region_features as tasks
from canon.train.artefacts import Artefacts
from experiments import regions


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `<split>-<number>.npz` for every few images of each split; objects are regions in training alone."""
    settings = named.call(tasks.FeatureSettings, config.features, 'features')
    describe = make_describer(config, stages, settings)
    metrics = {}
    for name in regions.list_splits(config):
        source = regions.load_proposed(config, name, stages)
        files = [
            artefacts.compute(f'{name}-{k:05d}.npz', partial(_write, source, numbers, describe, name, artefacts))
            for k, numbers in enumerate(settings.divide(len(source)))
        ]
        metrics |= tasks.summarise_features(files, name)
    return metrics


def make_describer(config: ConfigDict, stages: Mapping[str, Path], settings: tasks.FeatureSettings) -> tasks.Describe:
    """Makes the function from an image and its regions to features, with the weights of the stage that is named."""
    model, make_input = regions.make_network(config)
    network: dict[str, Any] = dict(
        model=model, variables=regions.read_variables(stages, settings.stage), make_input=make_input
    )
    if 'scales' in config:
        scales = named.call(tasks.MapScales, config.scales, 'scales')
        fill = regions.mean_colour(config)
        return tasks.make_map_describer(**network, scales=scales, layers=settings.layers, fill=fill)
    return tasks.make_crop_describer(**network, crop=regions.make_crop(config), layers=settings.layers)


def _write(source: Source, numbers: range, describe, name: str, artefacts: Artefacts, path: Path) -> None:
    def report(number: int) -> None:
        artefacts.report(number, len(source))

    features = tasks.describe_images(source, numbers, describe, with_objects=name == 'train', report=report)
    tasks.write_features(path, features)
