"""Binds a stage that fine-tunes a network as a classifier of regions, each warped to one size (R-CNN, section 2.3).

Its data are made of the artefacts of the stage 'proposals'. With several sizes in config.finetuning the batches take
turns in them (SPP-net, section 2.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, plots
from canon.data.detection.object_batches import list_class_names
from canon.data.detection.region_batches import RegionCrop, RegionSampling, make_region_batches
from canon.tasks.classification import classification_task, make_image_input
from canon.tasks.image_settings import reading_options
from canon.train import Experiment
from experiments import images, regions

SECTIONS = {
    'crop': {'RegionCrop': RegionCrop},
    'finetuning': {'RegionSampling': RegionSampling},
    'data.reading': {'reading_options': reading_options},
    'input': {'make_image_input': make_image_input},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment on zeros: its examples do not exist before the stage 'proposals' is finished."""
    return make_stage(config, None)


def make_stage(config: ConfigDict, stages: Mapping[str, Path] | None) -> Experiment:
    """Makes the experiment from config.data, config.proposals, config.crop, config.finetuning and config.model.

    stages: the folders of the finished ones; None makes it on zeros.
    """
    crop, sampling = regions.make_crop(config), named.call(RegionSampling, config.finetuning, 'finetuning')
    names = list_class_names(regions.load_split(config, 'train'))
    model, make_input = regions.make_network(config, names)
    about: dict[str, Any] = dict(class_names=names, image_shape=(crop.size, crop.size, 3))
    if stages is None:
        zeros = np.zeros(config.data.batch_size, np.int64)
        train = images.placeholder_data(config, {**about, 'num_examples': len(zeros)}, label=zeros)
    else:
        source = regions.load_proposed(config, 'train', stages)
        options = dict(seed=config.seed, **images.reading(config))
        train = make_region_batches(source, crop, sampling, **options)
    about['num_examples'] = train.num_examples
    read = regions.make_reader(config)
    return Experiment(classification_task(model, make_input), config.tx, train, about=about, read=read)


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws the images of a batch with their classes."""
    return {'images': plots.draw_image_batch(batch, experiment.about['class_names'])}


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded scenes of digits where its own data would have to be downloaded."""
    with config.unlocked():
        if images.take_digit_scenes(config, 11, num_examples=8):
            config.run.init_from = None  # weights would have to be downloaded, too
    return config
