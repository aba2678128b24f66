"""Pictures of the network itself, for any model whose stages can be had (`features`) and that begins with a filter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from canon import backend, plots

_SHOWN = 3  # images whose maps are drawn
_SPREAD = 8  # images whose values are counted


class Look(NamedTuple):
    """What it takes to look inside: the model, and what makes its input of a batch."""

    model: Any
    images: Callable[[Any], jax.Array]


def pictures(look: Look, params, mutable, batch) -> dict[str, Any]:
    """The first filters, the maps of a few images and how their values are spread; what a model lacks is left out."""
    rows = batch['image'][np.flatnonzero(batch['mask'])[:_SPREAD]]
    rows = rows[:, 0] if rows.ndim == 5 else rows
    variables = {'params': params, **mutable}
    drawn = {}
    name, kernels = first_filters(look.model, variables, look.images({'image': rows[:1]}))
    if kernels is not None:
        drawn['filters'] = plots.filters(kernels, name)
    values = stages(look, variables, rows)
    maps = {name: x[:_SHOWN] for name, x in values.items() if x.ndim == 4 and min(x.shape[1:3]) > 1}
    if maps:
        drawn['feature maps'] = plots.feature_maps(rows[:_SHOWN], maps)
    if values:
        drawn['activations'] = plots.histograms(values)
    return drawn


def stages(look: Look, variables, images: np.ndarray) -> dict[str, np.ndarray]:
    """{stage: its values}, in the order of the network; empty for a model without `features`."""
    if not callable(getattr(type(look.model), 'features', None)):
        return {}
    names: list[str] = []

    def run(variables, images):
        found = look.model.apply(variables, look.images({'image': images}), method='features')
        names[:] = found  # a dict that leaves jit is sorted
        return list(found.values())

    values = backend.jit(run)(variables, images)
    return dict(zip(names, map(np.asarray, values), strict=True))


def first_filters(model: Any, variables, images: jax.Array) -> tuple[str, np.ndarray | None]:
    """(name, kernel [h, w, 1 or 3, N]) of the convolution that meets the images; None where it cannot be shown."""
    met: list[tuple[str, np.ndarray]] = []

    def note(call, args, kwargs, context):
        kernel = context.module.variables.get('params', {}).get('kernel')
        if getattr(kernel, 'ndim', 0) == 4:
            met.append(('/'.join(context.module.path), np.asarray(kernel)))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(lambda x: model.apply(variables, x, train=False), images)
    if not met or met[0][1].shape[2] not in (1, 3) or max(met[0][1].shape[:2]) == 1:
        return '', None
    return met[0]
