"""Weights of detectors by regions: torchvision's names, and a classifier as the backbone and the head.

torchvision publishes `fasterrcnn_resnet50_fpn` under names that its code has changed since; both are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from canon.errors import UsageError
from canon.named import suggest
from canon.weights import files, published
from canon.weights.layout import Names, nest_leaves, rename_tensors
from canon.weights.resnet import TORCHVISION as RESNETS

# The classifiers whose weights the networks of the papers start from.
CLASSIFIERS = {
    'fast_rcnn.fast_rcnn_vgg16': 'vgg.vgg16',
    'faster_rcnn.faster_rcnn_vgg16': 'vgg.vgg16',
    'faster_rcnn.faster_rcnn_resnet50_c4': 'resnet.resnet50',
    'faster_rcnn.fasterrcnn_resnet50_fpn': 'resnet.resnet50',
}

_FPN = 'faster_rcnn.fasterrcnn_resnet50_fpn'
_LAYERS = {
    'rpn/objectness': 'rpn.head.cls_logits',
    'rpn/offsets': 'rpn.head.bbox_pred',
    'head/fc6': 'roi_heads.box_head.fc6',
    'head/fc7': 'roi_heads.box_head.fc7',
    'logits': 'roi_heads.box_predictor.cls_score',
    'offsets': 'roi_heads.box_predictor.bbox_pred',
}
_BLOCKS = {'lateral': 'inner_blocks', 'smooth': 'layer_blocks'}


def _fpn_names(inside: str, convolution: str) -> Names:
    """Makes torchvision's names.

    Args:
      inside: of the convolution within a block of the pyramid: '.0' since torchvision 0.14, before that ''.
      convolution: the name of the RPN's 3x3 convolution.
    """

    def module(path: str) -> str:
        """Translates backbone/backbone/conv2_1/bn1 to backbone.body.layer1.0.bn1, backbone/lateral2 to the first."""
        if path in _LAYERS:
            return _LAYERS[path]
        if path == 'rpn/conv':
            return convolution
        _, _, rest = path.partition('backbone/')
        if rest.startswith('backbone/'):
            return f'backbone.body.{RESNETS["resnet.resnet50"].module(rest.removeprefix("backbone/"))}'
        # The levels are numbered from the finest on, P2; the name ends in one digit.
        return f'backbone.fpn.{_BLOCKS[rest[:-1]]}.{int(rest[-1]) - 2}{inside}'

    required = ('backbone/backbone/conv1', 'backbone/lateral2', 'rpn/conv', 'head/fc6', 'logits')
    return Names(module, flattened={'head/fc6': (7, 7)}, required=required)


TORCHVISION = {_FPN: _fpn_names('.0', 'rpn.head.conv.0.0'), f'{_FPN} before 0.14': _fpn_names('', 'rpn.head.conv')}


def region_reader(
    model: str, classifier: str | None = None
) -> Callable[[str, Mapping[str, Any]], dict[str, Any] | None]:
    """Makes the function with which an `Experiment` reads published weights into a detector by regions.

    A file of torchvision's detector fills all of `faster_rcnn.fasterrcnn_resnet50_fpn`. A file of a classifier fills
    the backbone, and the layers of the head that the classifier has: fc6 and fc7 of a VGG, conv5_x of a ResNet. The
    rest keeps its initialisation.

    Args:
      model: the network, 'faster_rcnn.faster_rcnn_vgg16'.
      classifier: the constructor that the file is published for; None takes that of `CLASSIFIERS`.

    Returns:
      A function as `canon.weights.reader` makes.

    Raises:
      UsageError: `classifier` is None, and `model` is not one of `CLASSIFIERS`.
    """
    name = classifier or CLASSIFIERS.get(model)
    if name is None:
        raise UsageError(f'no published weights are known for model {model!r}{suggest(model, CLASSIFIERS)}')

    def read(source: str, leaves: Mapping[str, Any]) -> dict[str, Any] | None:
        if not files.is_weights(source):
            return None
        tensors = files.strip_prefixes(files.read(source))
        # Classifiers have no box predictor.
        if model == _FPN and 'roi_heads.box_predictor.cls_score.weight' in tensors:
            variables = nest_leaves(leaves)
            return rename_tensors(tensors, variables, published.choose_names(tensors, model, variables))
        inside = {}
        for leaf in leaves:
            if (ours := _find_in_classifier(leaf, leaves, name)) is not None:
                inside[ours] = leaf
        like = nest_leaves({ours: leaves[leaf] for ours, leaf in inside.items()})
        arrays = rename_tensors(tensors, like, published.choose_names(tensors, name, like))
        rest = {leaf: value for leaf, value in leaves.items() if leaf not in inside.values()}
        return rest | {inside.get(key, key): array for key, array in arrays.items()}

    return read


def _find_in_classifier(leaf: str, leaves: Mapping[str, Any], classifier: str) -> str | None:
    """Returns the name that a leaf of a detector has in the classifier, or None if it is not of the classifier."""
    collection = 'batch_stats/' if leaf.startswith('batch_stats/') else ''
    path = leaf.removeprefix(collection)
    nested = any('backbone/backbone/' in other for other in leaves)  # a pyramid, whose own layers are not
    prefix = 'backbone/backbone/' if nested else 'backbone/'
    if path.startswith(prefix):
        return collection + path.removeprefix(prefix)
    # A ResNet's classifier has no fc6, and the two layers on a pyramid are none of a VGG's.
    belongs = path.startswith('head/conv5_') or (not nested and not classifier.startswith('resnet.'))
    return collection + path.removeprefix('head/') if path.startswith('head/') and belongs else None
