"""Names of the MobileNets' parameters: V2 in torchvision, which numbers blocks in one sequence; V1 and V2 in timm."""

import re

from canon.models.mobilenet import BLOCKS, ROWS
from canon.weights.layout import Names

_TIMM = {'conv1': 'conv_stem', 'conv_last': 'conv_head', 'bn_last': 'bn2'}
_TORCHVISION = {
    'conv1': 'features.0.0',
    'bn1': 'features.0.1',
    'conv_last': 'features.18.0',
    'bn_last': 'features.18.1',
    'classifier': 'classifier.1',
}


def _torchvision(path: str) -> str:
    """Translates bottleneck2_1/project_bn to features.2.conv.3; the very first block has no expansion."""
    match = re.fullmatch(r'bottleneck(\d)_(\d)/(.*)', path)
    if match is None:
        return _TORCHVISION.get(path, path)
    row, place, layer = int(match[1]), int(match[2]), match[3]
    block = sum(count for _, _, count, _ in ROWS[: row - 1]) + place
    kind, _, norm = layer.partition('_')
    step = ('expand', 'depthwise', 'project').index(kind) - (block == 1)  # the first block begins with its depthwise
    if kind == 'project':  # a plain convolution and norm; the others are nested in a ConvNormActivation
        return f'features.{block}.conv.{step + bool(norm)}'
    return f'features.{block}.conv.{step}.{int(bool(norm))}'


def _timm_v2(path: str) -> str:
    """Translates bottleneck2_1/project_bn to blocks.1.0.bn3."""
    match = re.fullmatch(r'bottleneck(\d)_(\d)/(.*)', path)
    if match is None:
        return _TIMM.get(path, path)
    row, place, layer = int(match[1]), int(match[2]), match[3]
    # timm numbers the layers of a block: without an expansion its projection is conv_pw and its norms bn1 and bn2.
    first = {'depthwise': 'conv_dw', 'depthwise_bn': 'bn1', 'project': 'conv_pw', 'project_bn': 'bn2'}
    later = {'expand': 'conv_pw', 'expand_bn': 'bn1', 'depthwise': 'conv_dw', 'depthwise_bn': 'bn2'}
    later |= {'project': 'conv_pwl', 'project_bn': 'bn3'}
    return f'blocks.{row - 1}.{place - 1}.{(first if row == 1 else later)[layer]}'


def _timm_v1(path: str) -> str:
    """Translates block3/pointwise_bn to blocks.1.1.bn2: timm begins a stage where the channels change."""
    match = re.fullmatch(r'block(\d+)/(.*)', path)
    if match is None:
        return _TIMM.get(path, path)
    channels = [c for c, _ in BLOCKS]
    width = channels[int(match[1]) - 1]
    stage, place = sorted(set(channels)).index(width), int(match[1]) - 1 - channels.index(width)
    layers = {'depthwise': 'conv_dw', 'depthwise_bn': 'bn1', 'pointwise': 'conv_pw', 'pointwise_bn': 'bn2'}
    return f'blocks.{stage}.{place}.{layers[match[2]]}'


_V1_BLOCKS = tuple(f'block{i}' for i in range(1, len(BLOCKS) + 1))
_V2_BLOCKS = tuple(f'bottleneck{r}_{i}' for r, row in enumerate(ROWS, 1) for i in range(1, row[2] + 1))
_V2 = ('conv1', *_V2_BLOCKS, 'conv_last', 'classifier')

TORCHVISION = {'mobilenet.mobilenet_v2': Names(_torchvision, required=_V2)}
TIMM = {
    'mobilenet.mobilenet_v1': Names(_timm_v1, required=('conv1', *_V1_BLOCKS, 'classifier')),
    'mobilenet.mobilenet_v2': Names(_timm_v2, required=_V2),
}
