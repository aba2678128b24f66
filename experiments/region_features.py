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

SECTIONS = {'features': {'FeatureSettings': tasks.FeatureSettings}, 'scales': {'MapScales': tasks.MapScales}}


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Computes `<split>-<number>.npz` for every few images of each split; objects are regions in training alone."""
    settings = named.call(tasks.FeatureSettings, config.features, 'features')
    describe = make_describer(config, stages, settings)
    sources = {name: regions.load_proposed(config, name, stages) for name in regions.list_splits(config)}
    parts = {
        (name, f'{name}-{k:05d}.npz'): numbers
        for name, source in sources.items()
        for k, numbers in enumerate(settings.divide(len(source)))
    }
    there = [path for _, name in parts if (path := artefacts.folder / name).exists()]
    if len(there) < len(parts):
        needed = sum(tasks.estimate_bytes(source, describe) for source in sources.values())
        needed -= sum(path.stat().st_size for path in there)
        artefacts.require_space(needed, f'the features of {", ".join(settings.layers)}')
    metrics, files = {}, {name: [] for name in sources}
    for (split, name), numbers in parts.items():
        write = partial(_write, sources[split], numbers, describe, split, artefacts)
        files[split].append(artefacts.compute(name, write))
    for split, paths in files.items():
        metrics |= tasks.summarise_features(paths, split)
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
