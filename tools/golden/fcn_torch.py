"""Writes tests/models/golden/fcn_resnet50.npz: what torchvision's FCN-ResNet50 computes, with its auxiliary head.

python tools/golden/fcn_torch.py      (needs torch, torchvision and numpy, nothing of Canon but its tests)

Weights and images are drawn by the rule of tests/models/drawn.py. Of two sizes: every third pixel of the logits of both
heads, so that pixels have all phases of the interpolation by eight. And the keys and shapes of the network's state.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.models.drawn import draw_parameter, images  # noqa: E402

SIZES = {'odd': (2, 65, 80), 'square': (1, 96, 96)}


def main():
    network = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    ).eval()
    state = {k: v for k, v in network.state_dict().items() if not k.endswith('tracked')}
    tensors = {k: torch.from_numpy(draw_parameter(k, v.shape)) for k, v in state.items()}
    network.load_state_dict(network.state_dict() | tensors)
    flat = {'keys': np.array(list(state)), 'shapes': np.array([','.join(map(str, v.shape)) for v in state.values()])}
    for part, size in SIZES.items():
        with torch.no_grad():
            out = network(torch.from_numpy(images(*size).transpose(0, 3, 1, 2)))
        for ours, theirs in (('logits', 'out'), ('auxiliary', 'aux')):
            flat[f'{part}/{ours}'] = out[theirs].numpy().transpose(0, 2, 3, 1)[:, ::3, ::3]
    path = ROOT / 'tests/models/golden/fcn_resnet50.npz'
    np.savez_compressed(path, **flat)
    print(path.name, path.stat().st_size)


if __name__ == '__main__':
    main()
