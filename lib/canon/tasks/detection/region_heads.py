"""The task of SPP-net's fine-tuning: the layers after the pyramid learn the classes of regions (He et al. 2014, 4.1).

The maps stay as they are: the authors do not propagate through the pooling of regions. What Fast R-CNN changed is that.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from canon.losses import softmax_cross_entropy
from canon.metrics import Mean
from canon.tasks.classification import apply_network, init_network
from canon.tasks.detection.regions import RegionSettings
from canon.tasks.detection.single_shot import MakeInput, select_objects
from canon.train import Task


def region_head_task(
    model: Any,
    make_input: MakeInput,
    regions: RegionSettings = RegionSettings(per_image=64),
    use_difficult: bool = False,
) -> Task:
    """Makes the task of classifying sampled proposals on maps that do not learn.

    Args:
      model: a linen module with `extract(images, train) -> maps` and `classify(maps, boxes, image_size, train) ->
        {'logits': [B, R, 1 + C]}`, such as `canon.models.spp_net.spp_net`.
      make_input: the network's input from a batch.
      regions: of the samples; what it states of offsets does not count.
      use_difficult: whether objects that are marked as difficult are learnt.

    Returns:
      A task whose batches have 'proposals' float32 [B, P, 4] and 'proposals_valid' bool [B, P], and whose `predict`
      gives the logits of all proposals, [B, P, 1 + C].
    """

    def forward(module, images, boxes, size, train):
        maps = jax.lax.stop_gradient(module.extract(images, train=False))
        return module.classify(maps, boxes, size, train=train)['logits']

    def loss(params, mutable, batch, at):
        size, objects = batch['image'].shape[1:3], select_objects(batch, use_difficult)
        samples = regions.assign(at.key, batch['proposals'], batch['proposals_valid'], batch, objects)

        def apply(module, images):
            return forward(module, images, samples.boxes, size, True)

        options = dict(method=apply, rngs={'dropout': jax.random.fold_in(at.key, 1)})
        logits = apply_network(model, {'params': params, **mutable}, make_input(batch), **options)
        valid = (samples.valid & batch['mask'][:, None]).astype(jnp.float32)
        right = Mean.of(logits.argmax(-1) == samples.labels, valid)
        return Mean.of(softmax_cross_entropy(logits, samples.labels), valid), (mutable, {'accuracy': right})

    def predict(params, mutable, batch):
        def apply(module, images):
            return forward(module, images, batch['proposals'], batch['image'].shape[1:3], False)

        images = make_input({'image': batch['image']})
        return apply_network(model, {'params': params, **mutable}, images, method=apply)

    return Task(partial(init_network, model, make_input), loss, predict)
