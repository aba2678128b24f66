"""A perceptron of tanh units on the embedded digits: it classifies them, or squeezes them through a bottleneck."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from canon import data, losses, metrics, named, optim
from canon.errors import UsageError
from canon.train import Evaluator, Experiment, Task

PIXELS, CLASSES = 64, 10


class Perceptron(nn.Module):
    """[B, n] -> [B, outputs]: tanh layers, a linear one at the end; Flax's LeCun-normal weights, zero biases."""

    hidden: Sequence[int]
    outputs: int

    @nn.compact
    def __call__(self, x):
        for units in self.hidden:
            x = nn.tanh(nn.Dense(units)(x))
        return nn.Dense(self.outputs)(x)


def make(config: ConfigDict) -> Experiment:
    """config.data: `batch_size`, `data_dir`; config.net: `hidden` layers, `goal`: 'classify' or 'reconstruct'."""
    tasks = {'classify': _classify, 'reconstruct': _reconstruct}
    goal = config.net.goal
    if goal not in tasks:
        raise UsageError(f'net.goal={goal!r} is no goal{named.suggest(goal, tasks)}')
    task, measure = tasks[goal](tuple(config.net.hidden))

    def source(split):
        return data.load('digits', split, data_dir=config.data.data_dir)

    def finish(sums):
        return {name: mean.value for name, mean in sums.items()}

    train = data.Batches(source('train'), config.data.batch_size, seed=config.seed)
    test = Evaluator(data.Once(source('test'), config.data.batch_size), measure, finish)
    return Experiment(task, optim.make(config.tx), train, {'test': test})


def _classify(hidden):
    net = Perceptron(hidden, CLASSES)

    def sums(params, batch):
        logits = jnp.asarray(net.apply({'params': params}, _pixels(batch)))
        loss = metrics.Mean.of(losses.softmax_cross_entropy(logits, batch['label']), batch['mask'])
        return {'loss': loss, 'accuracy': metrics.accuracy(logits, batch['label'], batch['mask'])}

    return _task(net, sums)


def _reconstruct(hidden):
    """The loss is the squared error of an image, summed over its pixels (0 is black, 1 white)."""
    net = Perceptron(hidden, PIXELS)

    def sums(params, batch):
        pixels = _pixels(batch)
        error = jnp.sum((net.apply({'params': params}, pixels) - pixels) ** 2, axis=1)
        return {'loss': metrics.Mean.of(error, batch['mask'])}

    return _task(net, sums)


def _task(net, sums):
    def init(key, batch):
        return net.init(key, _pixels(batch)[:1])

    def loss(params, mutable, batch, at):
        found = sums(params, batch)
        return found.pop('loss'), (mutable, found)

    def predict(params, mutable, batch):
        return net.apply({'params': params}, _pixels(batch))

    return Task(init, loss, predict), lambda params, mutable, batch: sums(params, batch)


def _pixels(batch):
    return batch['image'].reshape(-1, PIXELS).astype(jnp.float32) / 255
