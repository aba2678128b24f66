"""Writes tests/models/golden/mobilenet_v2.npz and mobilenet_v1.npz: what torchvision's MobileNetV2 and timm's MobileNet
compute with the weights and images of tests/models/drawn.py, and mobilenet_keys.npz: timm's keys of V2 at width 1.4.

python -m tools.golden.mobilenet_torch      (from the root of the repository; needs torch, torchvision, timm and numpy)
"""

import timm
import torchvision

from tests.models.drawn import draw_small_projections
from tools.golden import inception_torch
from tools.golden.inception_torch import compute_evaluation, compute_training_pass, load, write

V2 = {'features.0': 'conv1', 'features.1': 'bottleneck1', 'features.3': 'bottleneck2', 'features.6': 'bottleneck3'}
V2 |= {'features.10': 'bottleneck4', 'features.13': 'bottleneck5', 'features.16': 'bottleneck6'}
V2 |= {'features.17': 'bottleneck7', 'features.18': 'conv_last'}
V1 = {'bn1': 'conv1', 'blocks.0.0': 'block1', 'blocks.1.0': 'block2', 'blocks.1.1': 'block3', 'blocks.2.1': 'block5'}
V1 |= {'blocks.3.0': 'block6', 'blocks.3.5': 'block11', 'blocks.4.0': 'block12', 'blocks.4.1': 'block13'}


def main():
    inception_torch.draw_parameter = draw_small_projections
    for name, network, stages in (
        ('mobilenet_v2', torchvision.models.mobilenet_v2(weights=None, dropout=0.0), V2),
        ('mobilenet_v1', timm.create_model('mobilenetv1_100', pretrained=False), V1),
    ):
        shapes = load(network)
        write(
            name,
            shapes,
            small=compute_evaluation(network, stages, (2, 64, 80)),
            odd=compute_evaluation(network, stages, (1, 97, 97)),
            train=compute_training_pass(network, (4, 72, 88), ()),
        )
    write('mobilenet_keys', load(timm.create_model('mobilenetv2_140', pretrained=False)))


if __name__ == '__main__':
    main()
