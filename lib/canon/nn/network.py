"""The interface of image networks: how they are called, how their stages are named, and checks of their images."""

import flax.linen as nn
import jax

from canon.errors import UsageError


class Network(nn.Module):
    """A network from images [B, H, W, C] to logits [B, num_classes], and a backbone with named stages.

    A subclass defines `__call__(images, train=False, features=False)`, which with `features` returns its stages
    instead of the logits: {name: [B, h, w, channels]}, in the order of the network, without the classifier. The names
    are the literature's ('conv4_x' of a ResNet, 'conv5' of a VGG), `canon.nn.trace.trace_stages` lists them with
    their strides and channels, and `docs/networks.md` has them all.

    As a classifier: `model.apply(variables, images)`; its stages: `model.apply(variables, images, method='features')`.
    As a backbone within another module:

        class Detector(nn.Module):
            backbone: Network

            @nn.compact
            def __call__(self, images, train=False):
                stages = self.backbone.features(images, train)
                ...stages['conv4_x']...

    Its parameters are then in params['backbone'], without those of the classifier, and `canon.weights.reader(name,
    at='backbone')` fills them from published weights. Auxiliary classifiers `sow` their logits into the collection
    'auxiliary', in training only and never with `features`.
    """

    def features(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """Returns {stage: [B, h, w, channels]}, in the order of the network."""
        # One traced body for both: a stage cannot differ from what the classifier sees.
        return self(images, train, features=True)


def check_images(images: jax.Array, least: int, network: str, channels: int | None = None) -> None:
    """Checks that images are [B, H, W, C] of at least `least` pixels per side, and of `channels` unless None.

    Raises UsageError, naming the network, otherwise.
    """
    # Checked before the first layer: a window that does not fit would name a map deep inside the network.
    if images.ndim != 4:
        raise UsageError(f'{network} takes images [B, H, W, C], not {images.shape}')
    if min(images.shape[1:3]) < least:
        raise UsageError(
            f'{network} takes images of at least {least}x{least}, not {images.shape[1]}x{images.shape[2]}; resize them'
        )
    if channels is not None and images.shape[-1] != channels:
        raise UsageError(f'{network} takes images of {channels} channels, not {images.shape[-1]}')
