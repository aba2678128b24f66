"""The VGG nets as torchvision and timm publish them: convolutions and norms numbered in one sequence, then the head.

timm keeps the first two of its fully connected layers as convolutions.
"""

from canon.weights.layout import Names

_ROWS = {'vgg11': (1, 1, 2, 2, 2), 'vgg13': (2, 2, 2, 2, 2), 'vgg16': (2, 2, 3, 3, 3), 'vgg19': (2, 2, 4, 4, 4)}
_HEAD = {'fc6': 'classifier.0', 'fc7': 'classifier.3', 'fc8': 'classifier.6'}
_TIMM_HEAD = {'fc6': 'pre_logits.fc1', 'fc7': 'pre_logits.fc2', 'fc8': 'head.fc'}


def _places(rows: tuple[int, ...], batch_norm: bool) -> dict[str, str]:
    """{our layer: its key}: each convolution counts one, its norm one, its ReLU one, a pooling one."""
    found, at = {}, 0
    for column, count in enumerate(rows, start=1):
        for row in range(1, count + 1):
            found[f'conv{column}_{row}'] = f'features.{at}'
            if batch_norm:
                found[f'bn{column}_{row}'] = f'features.{at + 1}'
            at += 3 if batch_norm else 2
        at += 1
    return found


def _all(head: dict[str, str], **layout) -> dict[str, Names]:
    """{entry: Names} of every net, with and without batch normalisation."""
    found = {}
    for net, rows in _ROWS.items():
        for batch_norm in (False, True):
            modules = _places(rows, batch_norm) | head
            found[f'vgg.{net}{" batch_norm" if batch_norm else ""}'] = Names(
                modules.__getitem__, required=tuple(modules), **layout
            )
    return found


TORCHVISION = _all(_HEAD, flattened={'fc6': (7, 7)})
TIMM = _all(_TIMM_HEAD, convolved={'fc6': (7, 7), 'fc7': (1, 1)})
