"""Multilayer perceptrons of tanh units on small images: classification, or reconstruction through a bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from canon import losses, metrics
from canon.errors import UsageError
from canon.named import suggest
from canon.train import Evaluator, Task

GOALS = ('classify', 'reconstruct')


class Perceptron(nn.Module):
    """[B, n] -> [B, outputs]: tanh layers and a linear one, with LeCun-normal weights and zero biases."""

    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x):
        for units in self.hidden:
            x = nn.tanh(nn.Dense(units)(x))
        return nn.Dense(self.outputs)(x)


def perceptron_task(hidden: Sequence[int], goal: str, classes: int, pixels: int) -> Task:
    """Makes the task of a perceptron on 'image' uint8 [B, H, W, C], 'label' int [B] and 'mask' bool [B].

    Args:
      hidden: units of the hidden layers.
      goal: 'classify', with the cross entropy per image as loss and the metric `accuracy`; or 'reconstruct', with the
        squared error per image, summed over its pixels (0 is black, 1 white).
      classes: number of labels.
      pixels: values per image, H W C.

    Raises:
      UsageError: there is no such goal.
    """
    if goal not in GOALS:
        raise UsageError(f'net.goal={goal!r} must be one of {", ".join(GOALS)}{suggest(goal, GOALS)}')
    model = Perceptron(tuple(hidden), classes if goal == 'classify' else pixels)

    def loss(params, mutable, batch, at):
        means = _measure(model, goal, params, batch)
        return means.pop('loss'), (mutable, means)  # what is left are the metrics

    return Task(
        init=lambda key, batch: model.init(key, _flatten_images(batch)[:1]),
        loss=loss,
        predict=lambda params, mutable, batch: model.apply({'params': params}, _flatten_images(batch)),
    )


def perceptron_evaluator(task: Task, batches: Any) -> Evaluator:
    """Evaluates a `perceptron_task` by the loss and the metrics of training."""

    def measure(params, mutable, batch):
        # No randomness: a perceptron has no dropout, so the loss of training is that of the evaluation.
        loss, (_, means) = task.loss(params, mutable, batch, None)
        return {'loss': loss, **means}

    return Evaluator(batches, measure, lambda sums: {name: mean.value for name, mean in sums.items()})


def _measure(model: Perceptron, goal: str, params: Any, batch: Any) -> dict[str, metrics.Mean]:
    pixels = _flatten_images(batch)
    outputs = jnp.asarray(model.apply({'params': params}, pixels))  # asarray narrows the type for the checker
    if goal == 'reconstruct':
        return {'loss': metrics.Mean.of(jnp.sum((outputs - pixels) ** 2, axis=1), batch['mask'])}
    loss = metrics.Mean.of(losses.softmax_cross_entropy(outputs, batch['label']), batch['mask'])
    return {'loss': loss, 'accuracy': metrics.accuracy(outputs, batch['label'], batch['mask'])}


def _flatten_images(batch: Any) -> jax.Array:
    images = batch['image']
    return images.reshape(len(images), -1).astype(jnp.float32) / 255
