"""Names of GoogLeNet's parameters in torchvision (`variant='torchvision'`)."""

from canon.weights.layout import Names, substitute

_MODULE = substitute(
    # The order matters: torchvision counts the 1x1 before conv2 as its conv2, and so conv2 as conv3.
    (r'^conv2/', 'conv3/'),
    (r'^conv2_reduce/', 'conv2/'),
    (r'^inception_', 'inception'),
    ('branch1x1', 'branch1'),
    ('branch3x3_1', 'branch2/0'),
    ('branch3x3_2', 'branch2/1'),
    ('branch5x5_1', 'branch3/0'),
    ('branch5x5_2', 'branch3/1'),
    ('branch_pool', 'branch4/1'),
    ('^head_4a', 'aux1'),
    ('^head_4d', 'aux2'),
)
_BLOCKS = ('3a', '3b', '4a', '4b', '4c', '4d', '4e', '5a', '5b')
TORCHVISION = {
    'googlenet.googlenet': Names(
        _MODULE,
        {'head_4a/fc1': (4, 4), 'head_4d/fc1': (4, 4)},
        required=('conv1', 'conv2_reduce', 'conv2', *(f'inception_{block}' for block in _BLOCKS), 'fc'),
    )
}
