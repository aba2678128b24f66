"""Binds a stage that fine-tunes the layers after SPP-net's pyramid on the proposals of whole images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import data, named
from canon.data.detection.object_batches import ObjectSettings
from canon.data.images.checks import infer_image_shape
from canon.tasks.detection.region_heads import region_head_task
from canon.tasks.detection.regions import RegionSettings
from canon.train import Experiment
from experiments import images, region_finetuning, regions

offline = region_finetuning.offline


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment on zeros: its proposals do not exist before their stage is finished."""
    return make_stage(config, None)


def make_stage(config: ConfigDict, stages: Mapping[str, Path] | None) -> Experiment:
    """Makes the experiment from config.data, config.proposals, config.regions and config.model.

    stages: the folders of the finished ones; None makes it on zeros.
    """
    source = regions.load_split(config, 'train')
    names = regions.list_class_names(source)
    model, make_input = regions.make_network(config, names)
    objects = named.call(ObjectSettings, config.data.objects, 'data.objects')
    transforms = (
        *data.transforms.make_transforms(config.data.train.transforms, 'data.train.transforms'),
        data.transforms.pad_boxes(objects.most, overflow=objects.overflow),
    )
    about: dict[str, Any] = dict(class_names=names, num_examples=len(source))
    about['image_shape'] = infer_image_shape(source, transforms, 'data.train')
    count = named.to_plain(config.proposals).get('max_boxes', 2000)
    if stages is None:
        shape = config.data.batch_size, objects.most
        fields: dict[str, np.ndarray] = {flag: np.zeros(shape, bool) for flag in ('difficult', 'crowd', 'valid')}
        fields |= dict(boxes=np.zeros((*shape, 4), np.float32), labels=np.zeros(shape, np.int32))
        fields |= dict(image_id=np.zeros(shape[0], np.int64), original_size=np.zeros((shape[0], 2), np.int32))
        fields['proposals'] = np.zeros((shape[0], count, 4), np.float32)
        fields['proposals_valid'] = np.zeros((shape[0], count), bool)
        train = images.placeholder_data(config, about, **fields)
    else:
        proposed = regions.load_proposed(config, 'train', stages)
        chain = (*transforms, data.transforms.pad_proposals(count))
        train = data.Batches(proposed, seed=config.seed, transforms=chain, **images.reading(config))
    settings = named.call(RegionSettings, config.regions, 'regions')
    task = region_head_task(model, make_input, settings)
    return Experiment(task, config.tx, train, about=about, read=regions.make_reader(config))
