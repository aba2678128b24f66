"""Writes tests/models/golden/{googlenet,inception_v3,inception_v4}.npz: what torchvision and timm compute.

python tools/golden/inception_torch.py      (needs torch, torchvision, timm and numpy, nothing of Canon but its tests)

Weights and images are drawn by the rule of tests/models/drawn.py. Of each network: the keys and shapes of its state;
logits and a digest of each stage, evaluated at two sizes; one training pass's logits, auxiliary ones too, and a digest
of each running statistic after it, in the order of the keys. Normalising by a small batch magnifies rounding (torch's
own logits in float32 are 3e-5 from those in float64), so the training pass is computed in float64.
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

GOOGLENET = {'conv1': 'conv1', 'conv3': 'conv2'} | {
    f'inception{name}': f'inception_{name}' for name in ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b')
}
V3 = {'Conv2d_2b_3x3': 'conv_2b', 'Conv2d_4a_3x3': 'conv_4a'} | {
    f'Mixed_{name}': f'mixed_{name}' for name in ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')
}
V4 = {'features.2': 'stem_conv3', 'features.5': 'stem_mixed3'}
V4 |= {f'features.{6 + i}': f'inception_a{i + 1}' for i in range(4)} | {'features.10': 'reduction_a'}
V4 |= {f'features.{11 + i}': f'inception_b{i + 1}' for i in range(7)} | {'features.18': 'reduction_b'}
V4 |= {f'features.{19 + i}': f'inception_c{i + 1}' for i in range(3)}


def load(network):
    state = network.state_dict()
    tensors = {k: torch.from_numpy(draw_parameter(k, v.shape)) for k, v in state.items() if not k.endswith('tracked')}
    network.load_state_dict(state | tensors)
    return {k: tuple(v.shape) for k, v in tensors.items()}


def nhwc(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def compute_evaluation(network, stages, size):
    outputs = {}
    hooks = [
        network.get_submodule(theirs).register_forward_hook(
            lambda _m, _i, y, name=ours: outputs.update({name: nhwc(y)})
        )
        for theirs, ours in stages.items()
    ]
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(images(*size).transpose(0, 3, 1, 2)))
    for hook in hooks:
        hook.remove()
    return {'logits': logits.numpy()} | {name: digest(outputs[name]) for name in stages.values()}


def compute_training_pass(network, size, heads):
    """Computes in float64; 'own_errors' is how far torch's float32 logits are from that, relative to the largest."""
    names = ('logits', *heads)
    single, _ = passed(network, size, torch.float32)
    double, state = passed(network, size, torch.float64)
    rows = dict(zip(names, double, strict=True))
    rows['own_errors'] = np.array([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(single, double, strict=True)])
    rows['statistics'] = np.stack([digest(v.numpy(), 8) for k, v in state.items() if '.running_' in k])
    return {k: v.astype(np.float32) for k, v in rows.items()}


def passed(network, size, dtype):
    """The outputs of one training pass from the drawn state, and the state after it."""
    load(network.float())
    with torch.no_grad():
        out = network.to(dtype).train()(torch.from_numpy(images(*size).transpose(0, 3, 1, 2)).to(dtype))
    return [y.numpy() for y in (out if isinstance(out, tuple) else (out,))], network.state_dict()


def write(name, shapes, **parts):
    flat = {f'{part}/{key}': value for part, rows in parts.items() for key, value in rows.items()}
    flat['keys'], flat['shapes'] = np.array(list(shapes)), np.array([','.join(map(str, s)) for s in shapes.values()])
    path = ROOT / f'tests/models/golden/{name}.npz'
    np.savez_compressed(path, **flat)
    print(path.name, path.stat().st_size)


def googlenet(transform_input=False):
    return torchvision.models.googlenet(
        weights=None, init_weights=False, transform_input=transform_input, dropout=0.0, dropout_aux=0.0
    )


def inception_v3(transform_input=False, aux_logits=True):
    return torchvision.models.inception_v3(
        weights=None, init_weights=False, transform_input=transform_input, aux_logits=aux_logits, dropout=0.0
    )


def main():
    torch.manual_seed(0)
    network, other = googlenet(), googlenet(transform_input=True)
    shapes = load(network)
    load(other)
    write(
        'googlenet',
        shapes,
        small=compute_evaluation(network, GOOGLENET, (2, 65, 80)),
        large=compute_evaluation(other, GOOGLENET, (1, 224, 224)),
        train=compute_training_pass(network, (4, 72, 88), ('auxiliary_4d', 'auxiliary_4a')),
    )
    network, other = inception_v3(), inception_v3(transform_input=True)
    shapes = load(network)
    load(other)
    timms = timm.create_model('inception_v3', pretrained=False, aux_logits=True).state_dict()
    assert {k: tuple(v.shape) for k, v in timms.items() if not k.endswith('tracked')} == shapes  # one set of names
    write(
        'inception_v3',
        shapes,
        small=compute_evaluation(network, V3, (2, 75, 107)),
        large=compute_evaluation(other, V3, (1, 299, 299)),
        train=compute_training_pass(inception_v3(aux_logits=False), (2, 107, 123), ()),
        heads=compute_training_pass(network, (2, 299, 299), ('auxiliary',)),
    )
    network = timm.create_model('inception_v4', pretrained=False)
    shapes = load(network)
    write(
        'inception_v4',
        shapes,
        small=compute_evaluation(network, V4, (2, 75, 107)),
        large=compute_evaluation(network, V4, (1, 299, 299)),
        train=compute_training_pass(network, (2, 107, 123), ()),
    )


if __name__ == '__main__':
    main()
