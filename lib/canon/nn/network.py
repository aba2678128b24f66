"""What the networks of `canon.models` share: how they are called, and what they say of images that do not fit."""

import flax.linen as nn
import jax

from canon.errors import UsageError


class Network(nn.Module):
    """Images [B, H, W, C] -> logits [B, num_classes], or the named stages on the way.

    A network writes `__call__(images, train=False, features=False)`, which with `features` returns its stages in
    order, {name: [B, H, W, C]}, without the classifier; `model.apply(variables, images, method='features')` asks.
    Auxiliary classifiers `sow` their logits into the collection 'auxiliary', in training only.
    """

    def features(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """{stage: [B, H, W, C]}, in the order of the network."""
        return self(images, train, features=True)


def check_images(images: jax.Array, least: int, what: str, channels: int | None = None) -> None:
    """Raises UsageError unless images are [B, H, W, C], at least `least` pixels a side, of `channels` where given."""
    if images.ndim != 4:
        raise UsageError(f'{what} takes images [B, H, W, C], not {images.shape}')
    if min(images.shape[1:3]) < least:
        raise UsageError(
            f'{what} takes images of at least {least}x{least}, not {images.shape[1]}x{images.shape[2]}; resize them'
        )
    if channels is not None and images.shape[-1] != channels:
        raise UsageError(f'{what} takes images of {channels} channels, not {images.shape[-1]}')
