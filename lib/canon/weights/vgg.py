"""Names of VGG's parameters in torchvision and timm, which number convolutions and norms in one sequence.

timm keeps the first two fully connected layers as convolutions.
"""

from canon.weights.layout import Names

_ROWS = {'vgg11': (1, 1, 2, 2, 2), 'vgg13': (2, 2, 2, 2, 2), 'vgg16': (2, 2, 3, 3, 3), 'vgg19': (2, 2, 4, 4, 4)}
_HEAD = {'fc6': 'classifier.0', 'fc7': 'classifier.3', 'fc8': 'classifier.6'}
_TIMM_HEAD = {'fc6': 'pre_logits.fc1', 'fc7': 'pre_logits.fc2', 'fc8': 'head.fc'}


def _number_layers(rows: tuple[int, ...], batch_norm: bool) -> dict[str, str]:
    """Returns {our layer: its key}; convolutions, norms, ReLUs and poolings each take one number."""
    keys, number = {}, 0
    for column, count in enumerate(rows, start=1):
        for row in range(1, count + 1):
            keys[f'conv{column}_{row}'] = f'features.{number}'
            if batch_norm:
                keys[f'bn{column}_{row}'] = f'features.{number + 1}'
            number += 3 if batch_norm else 2  # with the ReLU
        number += 1  # the pooling
    return keys


def _name_nets(head: dict[str, str], **layout) -> dict[str, Names]:
    """Returns {entry: Names} of every net, with and without batch normalisation."""
    entries = {}
    for net, rows in _ROWS.items():
        for batch_norm in (False, True):
            modules = _number_layers(rows, batch_norm) | head
            entries[f'vgg.{net}{" batch_norm" if batch_norm else ""}'] = Names(
                modules.__getitem__, required=tuple(modules), **layout
            )
    return entries


# Both flatten the 7x7 map channel first; timm reads it as a convolution.
TORCHVISION = _name_nets(_HEAD, flattened={'fc6': (7, 7)})
TIMM = _name_nets(_TIMM_HEAD, convolved={'fc6': (7, 7), 'fc7': (1, 1)})
