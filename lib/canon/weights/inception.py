"""Names of Inception v3's parameters in torchvision and timm, and of Inception v4's in timm.

timm's inception_v3.tf_in1k and its siblings have no auxiliary head: load them with `auxiliary=False`.
"""

import re

from canon.weights.layout import Names, substitute

_V3 = Names(
    substitute(
        (r'^conv_(\d\w)/', r'Conv2d_\1_?/'),
        ('(1a|2a|2b|4a)_[?]', r'\1_3x3'),
        ('3b_[?]', '3b_1x1'),
        ('^mixed_', 'Mixed_'),
        ('^head/', 'AuxLogits/'),
    ),
    required=(
        *(f'conv_{place}' for place in ('1a', '2a', '2b', '3b', '4a')),
        *(f'mixed_{place}' for place in ('5b', '5c', '5d', '6a', '6b', '6c', '6d', '6e', '7a', '7b', '7c')),
        'fc',
    ),
)

_V4_FIRST = {  # index of the first block of a kind in timm's `features`
    'stem_conv': 0, 'stem_mixed': 3, 'inception_a': 6, 'reduction_a': 10, 'inception_b': 11, 'reduction_b': 18,
    'inception_c': 19,
}  # fmt: skip
_V4_BRANCHES = {  # in the order of timm's branch0, branch1, ...
    'stem_mixed': ('branch3x3', 'branch7x7'),
    'inception_a': ('branch1x1', 'branch3x3', 'branch3x3dbl', 'branch_pool'),
    'reduction_a': ('branch3x3', 'branch3x3dbl'),
    'inception_b': ('branch1x1', 'branch7x7', 'branch7x7dbl', 'branch_pool'),
    'reduction_b': ('branch3x3', 'branch7x7'),
    'inception_c': ('branch1x1', 'branch3x3', 'branch3x3dbl', 'branch_pool'),
}
_V4_PLACE = re.compile(r'^(\w+?)(?:_(\d)([ab]?))?$')


def _v4(path: str) -> str:
    """Translates 'inception_b2/branch7x7_3/conv' to 'features.12.branch1.2.conv'."""
    if path == 'fc':
        return 'last_linear'
    block, *branch, leaf = path.split('/')
    kind = block.rstrip('0123456789')
    module = f'features.{_V4_FIRST[kind] + int(block.removeprefix(kind) or 1) - 1}'
    if not branch:
        return f'{module}.{leaf}'
    if block in ('stem_mixed1', 'stem_mixed3'):  # one convolution and a pooling
        return f'{module}.conv.{leaf}'
    name, place, letter = _V4_PLACE.findall(branch[0])[0]
    branch_path = f'{module}.branch{_V4_BRANCHES[kind].index(name)}'
    if name == 'branch_pool':
        return f'{branch_path}.1.{leaf}'  # after the pooling
    joint = '_' if kind == 'inception_c' else '.'  # timm's Inception-C names branches 'branch1_0', not 'branch1.0'
    return f'{branch_path}{joint}{int(place) - 1}{letter}.{leaf}' if place else f'{branch_path}.{leaf}'


_V4_COUNTS = {'stem_conv': 3, 'stem_mixed': 3, 'inception_a': 4, 'inception_b': 7, 'inception_c': 3}
_V4_BLOCKS = [f'{kind}{i}' for kind, count in _V4_COUNTS.items() for i in range(1, count + 1)]

TORCHVISION = {'inception.inception_v3': _V3}
TIMM = {
    'inception.inception_v3': _V3,
    'inception.inception_v4': Names(_v4, required=(*_V4_BLOCKS, 'reduction_a', 'reduction_b', 'fc')),
}
