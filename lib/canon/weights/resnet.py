"""Names of the parameters of ImageNet's ResNets in torchvision; timm uses the same."""

import re

from canon.weights.layout import Names

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _names(layers: int) -> Names:
    """Makes the names of the network with the given number of layers; from 50 on a block has three convolutions."""
    convolutions, blocks = 3 if layers >= 50 else 2, []
    for stage, depth in enumerate(_DEPTHS[layers], start=2):
        blocks += [f'conv{stage}_{block}' for block in range(1, depth + 1)]
    required = [f'{block}/conv{i}' for block in blocks for i in range(1, convolutions + 1)]

    def module(path: str) -> str:
        """Translates conv3_1/shortcut_bn to layer2.0.downsample.1."""
        match = re.fullmatch(r'conv(\d)_(\d+)/(.*)', path)
        if match is None:
            return path
        block, layer = path.split('/')[0], match[3]
        # A block that this depth lacks must not get a name: depths are distinguished by it.
        if block not in blocks or (layer in ('conv3', 'bn3') and convolutions == 2):
            raise KeyError(path)
        inner = {'shortcut': 'downsample.0', 'shortcut_bn': 'downsample.1'}.get(layer, layer)
        return f'layer{int(match[1]) - 1}.{int(match[2]) - 1}.{inner}'

    return Names(module, required=('conv1', 'bn1', *required, 'fc'))


TORCHVISION = {f'resnet.resnet{layers}': _names(layers) for layers in _DEPTHS}
TIMM = TORCHVISION
