"""Names of AlexNet's parameters in torchvision; timm does not publish it."""

from canon.weights.layout import Names, substitute

_MODULES = dict(
    conv1='features.0', conv2='features.3', conv3='features.6', conv4='features.8', conv5='features.10',
    fc6='classifier.1', fc7='classifier.4', fc8='classifier.6',
)  # fmt: skip

TORCHVISION = {
    'alexnet.alexnet_one_tower': Names(
        substitute(*((f'^{ours}$', theirs) for ours, theirs in _MODULES.items())),
        flattened={'fc6': (6, 6)},
        required=tuple(_MODULES),
    )
}
