"""Figures of a classifier's inside: its first filters, its feature maps and the distributions of its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from canon import backend, plots

_MAP_IMAGES = 3  # images whose feature maps are drawn
_HISTOGRAM_IMAGES = 8  # images whose activations are counted


def draw_network(
    model: Any, make_input: Callable[[Any], jax.Array], params: Any, mutable: Any, batch: Any
) -> dict[str, Any]:
    """Draws a network's filters, feature maps and activations on the first images of a batch.

    What a model lacks is left out: filters if it does not begin with a convolution of grey or RGB images, feature maps
    and activations if it has no method `features`.

    Args:
      model: a linen module.
      make_input: from a batch to what the model takes.
      params: of the model.
      mutable: its other collections, such as 'batch_stats'.
      batch: with 'image' and 'mask'.

    Returns:
      {title: matplotlib Figure}.
    """
    images = batch['image'][np.flatnonzero(batch['mask'])[:_HISTOGRAM_IMAGES]]
    # Of several crops of each image, the first.
    images = images[:, 0] if images.ndim == 5 else images
    variables = {'params': params, **mutable}
    figures = {}
    name, kernels = first_filters(model, variables, make_input({'image': images[:1]}))
    if kernels is not None:
        figures['filters'] = plots.draw_filters(kernels, name)
    stages = compute_stages(model, make_input, variables, images)
    maps = {name: x[:_MAP_IMAGES] for name, x in stages.items() if x.ndim == 4 and min(x.shape[1:3]) > 1}
    if maps:
        figures['feature maps'] = plots.draw_feature_maps(images[:_MAP_IMAGES], maps)
    if stages:
        figures['activations'] = plots.draw_histograms(stages)
    return figures


def compute_stages(
    model: Any, make_input: Callable[[Any], jax.Array], variables: Any, images: np.ndarray
) -> dict[str, np.ndarray]:
    """Computes {stage: its values}, in the order of the network; empty for a model without `features`."""
    # A method of the class: a network may have a field of that name, such as the widths of its layers.
    if not callable(getattr(type(model), 'features', None)):
        return {}
    names: list[str] = []

    def features(variables, images):
        stages = model.apply(variables, make_input({'image': images}), method='features')
        names[:] = stages  # a dict that leaves jit is sorted by its keys
        return list(stages.values())

    values = backend.jit(features)(variables, images)
    return dict(zip(names, map(np.asarray, values), strict=True))


def first_filters(model: Any, variables, images: jax.Array) -> tuple[str, np.ndarray | None]:
    """Finds (name, kernel [h, w, 1 or 3, N]) of the convolution applied to the images; None if it cannot be shown."""
    kernels: list[tuple[str, np.ndarray]] = []

    def record(call, args, kwargs, context):
        kernel = context.module.variables.get('params', {}).get('kernel')
        # Of a 2D convolution; a dense layer's has two dimensions.
        if getattr(kernel, 'ndim', 0) == 4:
            kernels.append(('/'.join(context.module.path), np.asarray(kernel)))
        return call(*args, **kwargs)

    with nn.intercept_methods(record):  # the order of calls, which the tree of parameters does not keep
        jax.eval_shape(lambda x: model.apply(variables, x, train=False), images)
    if not kernels or kernels[0][1].shape[2] not in (1, 3) or max(kernels[0][1].shape[:2]) == 1:
        return '', None
    return kernels[0]
