"""Weights of SSD: torchvision's names, and a VGG-16 classifier as the backbone, its fc6 and fc7 reduced."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from canon.errors import UsageError
from canon.named import suggest
from canon.weights import files, published
from canon.weights.layout import Names, nest_leaves, rename_tensors

CLASSIFIER = 'vgg.vgg16'
MODELS = ('ssd.ssd300', 'ssd.ssd512')

# Numbers within torchvision's `features` of VGG-16, which end before pool4; pool4 is number 0 of `extra.0`, so conv5_1
# is 1. Number 7 there is a Sequential of pool5 (0), fc6 (1), ReLU (2) and fc7 (3).
_COLUMNS = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (1, 3, 5)}
_REDUCED = {'fc6': 'backbone.extra.0.7.1', 'fc7': 'backbone.extra.0.7.3'}
_HEADS = {'logits': 'classification_head', 'offsets': 'regression_head'}


def _torchvision_module(path: str) -> str:
    """Translates backbone/conv5_2 to backbone.extra.0.3 and conv8_2_logits to the third classification head."""
    first, _, rest = path.partition('/')
    if path == 'l2_norm':
        return 'backbone'  # its parameter is 'scale_weight' there
    if first == 'backbone' and rest in _REDUCED:
        return _REDUCED[rest]
    if match := re.fullmatch(r'backbone/conv(\d)_(\d)', path):
        column, row = map(int, match.groups())
        return f'backbone.{"extra.0" if column == 5 else "features"}.{_COLUMNS[column][row - 1]}'
    if match := re.fullmatch(r'conv(\d+)_([12])', path):
        return f'backbone.extra.{int(match[1]) - 7}.{2 * (int(match[2]) - 1)}'
    if match := re.fullmatch(r'(conv4|fc7|conv(\d+)_2)_(logits|offsets)', path):
        place = {'conv4': 0, 'fc7': 1}.get(match[1]) if match[2] is None else int(match[2]) - 6
        return f'head.{_HEADS[match[3]]}.module_list.{place}'
    raise KeyError(path)


TORCHVISION = {'ssd.ssd300': Names(_torchvision_module, required=('backbone/conv1_1', 'l2_norm', 'conv11_2'))}


def ssd_reader(model: str) -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Makes the function with which an `Experiment` reads published weights into `ssd.ssd300` or `ssd.ssd512`.

    torchvision's file of an SSD300 fills the whole network. A file of a VGG-16 classifier fills the backbone, fc6 and
    fc7 reduced by `reduce_layers`; the rest keeps its initialisation. For `ssd.ssd` on another backbone take
    `canon.weights.reader(name, at='backbone')`.

    Args:
      model: the network.

    Returns:
      A function as `canon.weights.reader` makes.

    Raises:
      UsageError: `model` is another network.
    """
    if model not in MODELS:
        raise UsageError(f'no published weights are known for model {model!r}{suggest(model, MODELS)}')

    def read(source: str, leaves: Mapping[str, Any]) -> dict[str, Any] | None:
        if not files.is_weights(source):
            return None
        tensors = files.strip_prefixes(files.read(source))
        # The scale of the L2 normalisation tells torchvision's SSD300 from classifiers, which have none.
        if model in TORCHVISION and 'backbone.scale_weight' in tensors:
            return rename_tensors(tensors, nest_leaves(leaves), TORCHVISION[model])
        inside = {name.removeprefix('backbone/'): leaf for name, leaf in leaves.items() if name.startswith('backbone/')}
        like = nest_leaves(inside)
        arrays = rename_tensors(tensors, like, published.choose_names(tensors, CLASSIFIER, like))
        rest = {name: leaf for name, leaf in leaves.items() if not name.startswith('backbone/')}
        return rest | {f'backbone/{k}' if k in inside else k: v for k, v in reduce_layers(arrays).items()}

    return read


def reduce_layers(leaves: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reduces fc6 and fc7 of VGG-16 to the convolutions of SSD (section 3): every third tap, every fourth unit.

    Args:
      leaves: {'fc6/kernel': [7 * 7 * 512, 4096], 'fc7/kernel': [4096, 4096], biases and others}.

    Returns:
      The same with fc6 [3, 3, 512, 1024] and fc7 [1, 1, 1024, 1024]; other leaves, and kernels [h, w, C, N], as they
      are.
    """
    reduced = dict(leaves)
    # Taps 0, 3 and 6 of 7: on pool5's map, of stride 16 and no longer 32, their spacing is 6, the dilation of fc6. The
    # inputs of fc7 are the units of fc6, so every fourth of both axes remains. torchvision draws both layers instead.
    for layer, window, steps in (('fc6', 7, (3, 3, 1, 4)), ('fc7', 1, (1, 1, 4, 4))):
        kernel = reduced.get(f'{layer}/kernel')
        if kernel is None or kernel.ndim != 2:
            continue
        convolution = kernel.reshape(window, window, -1, kernel.shape[1])
        reduced[f'{layer}/kernel'] = convolution[tuple(slice(None, None, step) for step in steps)]
        reduced[f'{layer}/bias'] = reduced[f'{layer}/bias'][::4]
    return reduced
