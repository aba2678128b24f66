"""Writes tests/models/golden/{alexnet,vgg11,vgg11_bn,vgg13,vgg16}.npz: what torchvision computes; and vgg_keys.txt.

python tools/golden/vgg_torch.py      (needs torch, torchvision, timm and numpy, nothing of Canon but its tests)

Weights and images are drawn by the rule of tests/models/drawn.py. Of each network: the keys and shapes of its state;
logits and a digest of each stage, evaluated at two sizes; of one with batch normalisation also one training step's
logits and a digest of each running statistic after it, in the order of the keys. vgg_keys.txt: what torchvision and
timm call the weights of every VGG net, and their shapes.
"""

import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.models.drawn import digest, draw_parameter, images  # noqa: E402

FOLDER = ROOT / 'tests/models/golden'
# {stage: how many layers of `features` it takes}
STAGES = {
    'alexnet': dict(conv1=2, conv2=5, conv3=8, conv4=10, conv5=12, pool5=13),
    'vgg11': dict(conv1=2, conv2=5, conv3=10, conv4=15, conv5=20, pool5=21),
    'vgg13': dict(conv1=4, conv2=9, conv3=14, conv4=19, conv5=24, pool5=25),
    'vgg16': dict(conv1=4, conv2=9, conv3=16, conv4=23, conv5=30, pool5=31),
    'vgg11_bn': dict(conv1=3, conv2=7, conv3=14, conv4=21, conv5=28, pool5=29),
}
SIZES = {'large': (1, 224, 224), 'small': (2, 100, 70)}
TRAIN = (4, 64, 72)


def shapes(network):
    return {k: tuple(v.shape) for k, v in network.state_dict().items() if not k.endswith('tracked')}


def made(name):
    network = torchvision.models.get_model(name, weights=None, dropout=0.0).eval()
    tensors = {k: torch.from_numpy(draw_parameter(k, s)) for k, s in shapes(network).items()}
    network.load_state_dict(network.state_dict() | tensors)
    return network


def batch(size):
    return torch.from_numpy(images(*size).transpose(0, 3, 1, 2))


def evaluated(network, stages, size):
    x, outputs = batch(size), {'logits': network(batch(size)).numpy()}
    for i, layer in enumerate(network.features, start=1):
        x = layer(x.clone())  # ReLUs work in place
        outputs |= {name: digest(x.numpy().transpose(0, 2, 3, 1)) for name, count in stages.items() if count == i}
    return outputs


def trained(network):
    logits = network.train()(batch(TRAIN)).numpy()
    state = network.state_dict()
    rows = [digest(state[k].numpy(), 8) for k in shapes(network) if '.running_' in k]
    return {'logits': logits, 'statistics': np.stack(rows)}


def main():
    for name, stages in STAGES.items():
        network = made(name)
        parts = {part: evaluated(network, stages, size) for part, size in SIZES.items()}
        if name.endswith('_bn'):
            parts['train'] = trained(network)
        keys = shapes(network)
        np.savez_compressed(
            FOLDER / f'{name}.npz',
            keys=np.array(list(keys)),
            shapes=np.array([','.join(map(str, s)) for s in keys.values()]),
            **{f'{part}/{row}': value for part, outputs in parts.items() for row, value in outputs.items()},
        )
    lines = []
    for name in [f'vgg{n}{bn}' for n in (11, 13, 16, 19) for bn in ('', '_bn')]:
        nets = {'torchvision': torchvision.models.get_model(name, weights=None), 'timm': timm.create_model(name)}
        for publisher, network in nets.items():
            lines += [f'{publisher} {name} {k} {",".join(map(str, s))}' for k, s in shapes(network).items()]
    (FOLDER / 'vgg_keys.txt').write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    with torch.no_grad():
        main()
