"""The task: softmax classification by any linen module, of one view of an image or of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError

from canon import losses, metrics, named
from canon.errors import UsageError
from canon.train import Task


def scaled_images(
    mean: float | Sequence[float] = (0.0,), std: float | Sequence[float] = (1.0,)
) -> Callable[[Any], jax.Array]:
    """images(batch): 'image' uint8 [..., C] as float32, to [0, 1], then by `mean` and `std`, one or one a channel.

    It is done on the device: a byte a pixel crosses the bus. Raises UsageError where the channels are others.
    """
    shift, scale = np.asarray(mean, np.float32).reshape(-1), np.asarray(std, np.float32).reshape(-1)
    if not np.isfinite(shift).all():
        raise UsageError(f'input.mean={mean} must be finite')
    if not (scale > 0).all():
        raise UsageError(f'input.std={std} must be positive')

    def images(batch):
        channels = batch['image'].shape[-1]
        for key, values in (('mean', shift), ('std', scale)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f'input.{key} has {len(values)} values, but the images have {channels} channel'
                    f'{"s" if channels > 1 else ""}; give one, or {channels}'
                )
        return (batch['image'].astype(jnp.float32) / 255 - shift) / scale

    return images


Loss = Callable[[jax.Array, jax.Array], jax.Array]  # logits [B, C], labels -> [B]


def softmax_cross_entropy(label_smoothing: named.Probability = 0.0, soft_labels: bool = False) -> Loss:
    return partial(losses.softmax_cross_entropy, label_smoothing=label_smoothing, soft_labels=soft_labels)


def maximum_a_posteriori(j: named.Positive = 0.1) -> Loss:
    """LeNet-5's own, of labels that are integers."""
    return partial(losses.maximum_a_posteriori, j=j)


LOSSES = {'softmax_cross_entropy': softmax_cross_entropy, 'maximum_a_posteriori': maximum_a_posteriori}


def make_loss(spec: Mapping[str, Any]) -> Loss:
    """config.loss without `auxiliary`: its `name`, softmax_cross_entropy where it has none, and the arguments."""
    arguments = named.plain(spec)
    name = arguments.pop('name', 'softmax_cross_entropy')
    if name not in LOSSES:
        raise UsageError(f'loss.name={name!r} is unknown{named.near(name, LOSSES)}')
    return named.call(LOSSES[name], arguments, 'loss')


def classification_task(
    model: Any,
    images: Callable[[Any], jax.Array],
    loss: Loss = losses.softmax_cross_entropy,
    auxiliary: float = 0.3,
    soft_labels: bool = False,
) -> Task:
    """Classifies batches with 'image' [B, H, W, C], 'label' integers [B] and 'mask' bool [B] by `model`.

    Args:
      model: a linen module.
      images: from a batch to what the model takes.
      loss: of training.
      auxiliary: the weight of each auxiliary classifier, whose logits the model sows into the collection 'auxiliary'
        (0.3: Szegedy et al. 2015, "Going deeper with convolutions", section 5).
      soft_labels: whether labels may be distributions [B, num_classes]; `loss` must take them, too.

    `predict` gives scores [B, num_classes] whose softmax is the prediction: the logits; of a batch of crops
    [B, K, H, W, C] the logarithm of the mean of the K softmaxes (Krizhevsky et al. 2012, section 4.1); of a model
    that answers with a map [B, h, w, num_classes] the mean over the map (Simonyan & Zisserman 2015, section 3.2).
    """

    def init(key, batch):
        variables = dict(model.init(key, images({'image': batch['image'][:1]}), train=False))
        variables.pop('auxiliary', None)
        return variables

    def training_loss(params, mutable, batch, at):
        logits, new = apply_network(
            model,
            {'params': params, **mutable},
            images(batch),
            train=True,
            rngs={'dropout': at.key},
            mutable=[*mutable, 'auxiliary'],
        )
        new = dict(new)
        heads = [(1.0, logits), *((auxiliary, head) for head in jax.tree.leaves(new.pop('auxiliary', {})))]
        per_image = sum(w * loss(over_map(z), batch['label']) for w, z in heads)
        accuracy = metrics.accuracy(over_map(logits), batch['label'], batch['mask'], soft_labels)
        return metrics.Mean.of(jnp.asarray(per_image), batch['mask']), (new, {'accuracy': accuracy})

    def predict(params, mutable, batch):
        def scores(shown):
            logits = apply_network(model, {'params': params, **mutable}, images({'image': shown}), train=False)
            return over_map(logits).astype(jnp.float32)

        if batch['image'].ndim == 5:  # a crop at a time: 150 of them at once would not go into memory
            return mean_posterior(jax.lax.map(scores, jnp.moveaxis(batch['image'], 1, 0)), axis=0)
        return scores(batch['image'])

    return Task(init, training_loss, predict)


def apply_network(model: Any, variables: Mapping[str, Any], images: jax.Array, **options: Any) -> Any:
    """`model.apply`. Raises UsageError for images of other channels, or another size, than the parameters are for."""
    try:
        return model.apply(variables, images, **options)
    except ScopeParamShapeError as error:
        told = 'x'.join(map(str, images.shape[1:]))
        raise UsageError(
            f'the parameters are not for images of {told}; give images of the size and the channels of the training'
        ) from error


def many_views(predict: Callable, scales: Sequence[int] = (), flip: bool = False) -> Callable:
    """`predict` averaged over several sizes of the images, and over their mirror images.

    scales: lengths of the shorter side; the images are made smaller on the device, bilinearly, antialiased. Posteriors
    are averaged, as Simonyan & Zisserman 2015 (sections 3.2 and 4.2) do over scales and mirror images.
    """

    def views(params, mutable, batch):
        shown = [_shrunk(batch['image'], size) for size in scales] or [batch['image']]
        shown += [x[..., ::-1, :] for x in shown] if flip else []
        scores = [predict(params, mutable, {**batch, 'image': x}) for x in shown]
        return scores[0] if len(scores) == 1 else mean_posterior(jnp.stack(scores), axis=0)

    return views


def mean_posterior(logits: jax.Array, axis: int) -> jax.Array:
    """The logarithm of the mean over `axis` of softmax(logits): the softmax of it is that mean."""
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis) - np.log(logits.shape[axis])


def over_map(logits: jax.Array) -> jax.Array:
    """[B, h, w, C] -> the mean [B, C]; [B, C] as it is."""
    return logits.mean((1, 2)) if logits.ndim == 4 else logits


def _shrunk(images: jax.Array, size: int) -> jax.Array:
    """[..., H, W, C] with a shorter side of `size`, as float32 in 0..255."""
    *front, height, width, channels = images.shape
    shorter = min(height, width)
    if size > shorter:
        raise UsageError(f'scales: {size} is more than the images have, {height}x{width}; resize them to the largest')
    if size == shorter:
        return images
    shape = (*front, round(height * size / shorter), round(width * size / shorter), channels)
    return jax.image.resize(images.astype(jnp.float32), shape, 'bilinear')
