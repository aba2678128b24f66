"""Binds a stage that compares the proposals of earlier ones: recall against their number, and seconds per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from canon.data.detection.proposals import pair_objects, read_proposals
from canon.errors import UsageError
from canon.metrics.detection import measure_proposals
from canon.named import suggest
from canon.train.artefacts import Artefacts
from canon.train.workdir import read_mapping
from experiments import images, regions


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Compares config.compared.stages on the images of every evaluator, at config.compared.counts proposals."""
    counts, metrics = tuple(config.compared.counts), {}
    for name in config.data.evals:
        source, curves = images.load_images(config, config.data.evals[name].split), {}
        for stage in config.compared.stages:
            if stage not in stages:
                raise UsageError(f'compared.stages names {stage!r}, which is not finished{suggest(stage, stages)}')
            found = read_proposals(stages[stage] / 'artefacts' / f'{name}.npz')
            curves[stage] = measured = measure_proposals(pair_objects(source, found), counts)
            recall = zip(counts, measured.recall().tolist(), strict=True)
            metrics |= {f'{name}/recall_{stage}_{count}': value for count, value in recall}
            seconds = (read_mapping(stages[stage] / 'status.json').get('metrics') or {}).get('seconds_per_image')
            metrics |= {} if seconds is None else {f'{name}/seconds_{stage}': seconds}
        regions.save_recall(artefacts, f'{name} recall', curves)
    return metrics
