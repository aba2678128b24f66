"""The ResNets of ImageNet as torchvision publishes them; timm calls their parameters the same."""

import re

from canon.weights.layout import Names

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _names(layers: int) -> Names:
    """Of the network of that many layers: from 50 on a block has three convolutions."""
    convolutions, blocks = 3 if layers >= 50 else 2, []
    for stage, depth in enumerate(_DEPTHS[layers], start=2):
        blocks += [f'conv{stage}_{block}' for block in range(1, depth + 1)]
    required = [f'{block}/conv{i}' for block in blocks for i in range(1, convolutions + 1)]

    def module(path: str) -> str:
        """conv3_1/shortcut_bn -> layer2.0.downsample.1"""
        found = re.fullmatch(r'conv(\d)_(\d+)/(.*)', path)
        if found is None:
            return path
        block, layer = path.split('/')[0], found[3]
        if block not in blocks or (layer in ('conv3', 'bn3') and convolutions == 2):
            raise KeyError(path)
        inner = {'shortcut': 'downsample.0', 'shortcut_bn': 'downsample.1'}.get(layer, layer)
        return f'layer{int(found[1]) - 1}.{int(found[2]) - 1}.{inner}'

    return Names(module, required=('conv1', 'bn1', *required, 'fc'))


TORCHVISION = {f'resnet.resnet{layers}': _names(layers) for layers in _DEPTHS}
TIMM = TORCHVISION
