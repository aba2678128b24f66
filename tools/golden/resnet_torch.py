"""Writes tests/models/golden/resnet{18,34,50,101,152}.npz: what torchvision computes with the weights and images of
tests/models/drawn.py, and the keys and shapes of its state, which are timm's too.

python -m tools.golden.resnet_torch      (from the root of the repository; needs torch, torchvision, timm and numpy)
"""

import timm
import torch
import torchvision

from tools.golden.inception_torch import compute_evaluation, compute_training_pass, load, write

STAGES = {'relu': 'conv1'} | {f'layer{i}': f'conv{i + 1}_x' for i in range(1, 5)}
TRAINED = {'resnet18': (4, 72, 88), 'resnet50': (8, 96, 128)}


def made(name):
    network = torchvision.models.get_model(name, weights=None)
    return network, load(network)


def main():
    torch.manual_seed(0)
    for name in ('resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152'):
        network, shapes = made(name)
        state = timm.create_model(name, pretrained=False).state_dict()
        assert {k: tuple(v.shape) for k, v in state.items() if not k.endswith('tracked')} == shapes
        parts = {'small': compute_evaluation(network, STAGES, (2, 64, 80))}
        if name in TRAINED:
            parts['odd'] = compute_evaluation(network, STAGES, (1, 97, 97))
            parts['train'] = compute_training_pass(network, TRAINED[name], ())
        write(name, shapes, **parts)


if __name__ == '__main__':
    main()
