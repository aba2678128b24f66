"""Weights of fully convolutional networks: a classifier's layers as convolutions, and torchvision's names.

The surgery of Long et al. 2015, section 3.1: a fully connected layer on a map of h x w is a convolution with a window
of that size, so a classifier slides over a larger image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from canon.errors import UsageError
from canon.named import suggest
from canon.weights import files, published
from canon.weights.layout import Names, nest_leaves, rename_tensors
from canon.weights.resnet import TORCHVISION as RESNETS

# The classifiers that the networks of `canon.models.fcn` are made of.
CLASSIFIERS = {
    'fcn.fcn32s': 'vgg.vgg16',
    'fcn.fcn16s': 'vgg.vgg16',
    'fcn.fcn8s': 'vgg.vgg16',
    'fcn.fcn_googlenet': 'googlenet.googlenet',
    'fcn.fcn_resnet50': 'resnet.resnet50',
}
_HEADS = {'head': 'classifier', 'auxiliary': 'aux_classifier'}
_LAYERS = {'conv': 0, 'bn': 1, 'score': 4}  # in torchvision's Sequential; 2 and 3 are ReLU and dropout


def convolutionalise(variables: Mapping[str, Any], windows: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Turns fully connected layers into convolutions: kernels [h w C, N] become [h, w, C, N], the rest stays.

    A layer on a flattened map [h, w, C], rows first, has the map's size as its window; one on the units of the layer
    before has (1, 1). `VGG` and `AlexNet` of `canon.models` flatten so.

    >>> import numpy as np
    >>> dense = {'params': {'fc6': {'kernel': np.zeros((7 * 7 * 512, 4096)), 'bias': np.zeros(4096)}}}
    >>> convolutionalise(dense, {'fc6': (7, 7)})['params']['fc6']['kernel'].shape
    (7, 7, 512, 4096)

    Args:
      variables: {'params': ...} of a classifier, other collections too.
      windows: {path of a layer, 'fc6' or 'head/fc6': (h, w)}.

    Returns:
      New variables; arrays that are not reshaped are the same objects.

    Raises:
      UsageError: there is no such layer, or its kernel is not of a fully connected layer on a map of that size.
    """
    params = dict(flatten_dict(variables['params'], sep='/'))
    for layer, window in windows.items():
        key = f'{layer}/kernel'
        if key not in params:
            layers = [name.removesuffix('/kernel') for name in params if name.endswith('/kernel')]
            raise UsageError(f'the variables have no layer {layer!r} with a kernel{suggest(layer, layers)}')
        shape, area = params[key].shape, math.prod(window)
        # Divisibility is all that can be checked: C is known to the layer before only.
        if len(shape) != 2 or shape[0] % area:
            raise UsageError(
                f'the kernel of {layer!r} has the shape {tuple(shape)}; a fully connected layer on a map of '
                f'{window[0]}x{window[1]} has [{area} C, N]'
            )
        params[key] = params[key].reshape(*window, shape[0] // area, shape[1])
    return {**variables, 'params': unflatten_dict(params, sep='/')}


def fcn_reader(model: str, backbone: str | None = None) -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Makes the function with which an `Experiment` reads published weights into a network of `canon.models.fcn`.

    Files of torchvision's segmentation network fill all of `fcn.fcn_resnet50`. A file of the backbone's classifier
    fills `backbone`, and fc6 and fc7 as convolutions where the network has them; the rest keeps its initialisation.

    Args:
      model: the network, 'fcn.fcn8s'.
      backbone: the classifier's constructor; None for that of `CLASSIFIERS`.

    Returns:
      A function as `canon.weights.reader` makes.
    """
    classifier = backbone or CLASSIFIERS.get(model)

    def read(source: str, leaves: Mapping[str, Any]) -> dict[str, Any] | None:
        if not files.is_weights(source):
            return None
        if classifier is None:
            raise UsageError(f'no published weights are known for model {model!r}{suggest(model, CLASSIFIERS)}')
        tensors = files.strip_prefixes(files.read(source))
        # Both files have a ResNet's layers; in the segmentation network's they are under 'backbone'.
        if model in TORCHVISION and 'backbone.conv1.weight' in tensors:
            return rename_tensors(tensors, nest_leaves(leaves), TORCHVISION[model])
        # The file is read as the classifier's: our leaves take the names of that network.
        inside = {_classifier_name(name): name for name in leaves if _is_of_classifier(name)}
        like = nest_leaves({name: leaves[ours] for name, ours in inside.items()})
        arrays = rename_tensors(tensors, like, published.choose_names(tensors, classifier, like))
        rest = {name: leaf for name, leaf in leaves.items() if name not in inside.values()}
        # The arrays have our order already, rows [h, w, C]: to reshape them is the whole surgery. One of another size
        # passes unchanged, so that the caller's check of shapes names it.
        return rest | {
            inside.get(name, name): array.reshape(leaves[inside[name]].shape)
            if name in inside and array.size == leaves[inside[name]].size
            else array
            for name, array in arrays.items()
        }

    return read


def _is_of_classifier(name: str) -> bool:
    return name.removeprefix('batch_stats/').startswith('backbone/') or name.startswith(('fc6/', 'fc7/'))


def _classifier_name(name: str) -> str:
    return name.replace('backbone/', '', 1)


def _torchvision_module(path: str) -> str:
    """Translates backbone/conv3_1/bn1 to backbone.layer2.0.bn1, and head/score to classifier.4."""
    first, _, rest = path.partition('/')
    if first == 'backbone':
        return f'backbone.{RESNETS["resnet.resnet50"].module(rest)}'
    return f'{_HEADS[first]}.{_LAYERS[rest]}'


TORCHVISION = {'fcn.fcn_resnet50': Names(_torchvision_module, required=('backbone/conv1', 'head/conv', 'head/score'))}
