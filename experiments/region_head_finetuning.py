"""Binds a stage that fine-tunes the layers after SPP-net's pyramid on the proposals of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, plots
from canon.data.detection.object_batches import ObjectPipeline, ObjectSettings, ProposalSettings, list_class_names
from canon.tasks.detection.region_heads import region_head_task
from canon.tasks.detection.regions import RegionSettings
from canon.train import Experiment
from experiments import images, region_finetuning, regions

SECTIONS = {'regions': {'RegionSettings': RegionSettings}, 'data.objects': {'ObjectSettings': ObjectSettings}}

offline = region_finetuning.offline


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment on zeros: its proposals do not exist before their stage is finished."""
    return make_stage(config, None)


def make_stage(config: ConfigDict, stages: Mapping[str, Path] | None) -> Experiment:
    """Makes the experiment from config.data, config.proposals, config.regions and config.model.

    stages: the folders of the finished ones; None makes it on zeros.
    """
    source = regions.load_split(config, 'train')
    names = list_class_names(source)
    model, make_input = regions.make_network(config, names)
    objects, reading = named.call(ObjectSettings, config.data.objects, 'data.objects'), images.reading(config)
    pipeline, spec = ObjectPipeline(reading.pop('batch_size'), objects, reading=reading), config.data.train.transforms
    about: dict[str, Any] = dict(class_names=names, num_examples=len(source))
    about['image_shape'] = pipeline.infer_shape(source, spec, 'data.train')
    # From here on with proposals, which the images of `source` do not have.
    pipeline = replace(pipeline, proposals=ProposalSettings(named.to_plain(config.proposals).get('max_boxes', 2000)))
    if stages is None:
        train = images.placeholder_data(config, about, **pipeline.make_zeros())
    else:
        train = pipeline.make_training(regions.load_proposed(config, 'train', stages), spec, 'data.train', config.seed)
    settings = named.call(RegionSettings, config.regions, 'regions')
    task = region_head_task(model, make_input, settings)
    return Experiment(task, config.tx, train, about=about, read=regions.make_reader(config))


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch with their boxes, and with their proposals if there are any."""
    return {'images': plots.draw_object_batch(batch, experiment.about['class_names'])}
