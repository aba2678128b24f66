"""The ResNets of ImageNet as torchvision publishes them; timm calls their parameters the same."""

import re

from canon.weights.layout import Names


def _module(path: str) -> str:
    """conv3_1/shortcut_bn -> layer2.0.downsample.1"""
    if found := re.fullmatch(r'conv(\d)_(\d+)/(.*)', path):
        layer, block = int(found[1]) - 1, int(found[2]) - 1
        inner = {'shortcut': 'downsample.0', 'shortcut_bn': 'downsample.1'}.get(found[3], found[3])
        return f'layer{layer}.{block}.{inner}'
    return path


TORCHVISION = {f'resnet.resnet{layers}': Names(_module) for layers in (18, 34, 50, 101, 152)}
TIMM = TORCHVISION
