"""A small experiment with all that makes a step hard to repeat: dropout, augmentation, BatchNorm, masks, EMA."""

import copy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from canon import metrics, optim
from canon.train import Evaluator, Experiment, Task

CLASSES = 3


class Net(nn.Module):
    batch_norm: bool = True
    dropout: float = 0.3
    width: int = 16

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(self.width, (3, 3), use_bias=not self.batch_norm)(x)  # BN cancels a bias: pure noise to Adam
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.relu(x).reshape(len(x), -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(CLASSES)(x)


class Stream:
    """Batches drawn from (seed, step), with random masks; labels depend on the images, so that there is something to
    learn."""

    def __init__(self, batch_size=16, length=None, seed=0, num_examples=64):
        self.batch_size, self.length, self.seed, self.num_examples = batch_size, length, seed, num_examples
        self.rows = slice(None)

    def for_process(self, index, count):
        part = copy.copy(self)
        part.rows = slice(index * self.batch_size // count, (index + 1) * self.batch_size // count)
        return part

    def __len__(self):
        if self.length is None:
            raise TypeError('endless')
        return self.length

    def __getitem__(self, step):
        rng = np.random.default_rng((self.seed, step))
        image = rng.normal(size=(self.batch_size, 6, 6, 1)).astype(np.float32)
        label = np.argmax(image[:, :CLASSES, 0, 0], axis=1)
        batch = {'image': image, 'label': label.astype(np.int32), 'mask': rng.random(self.batch_size) < 0.7}
        return {name: value[self.rows] for name, value in batch.items()}

    def iterate(self, start=0):
        step = start
        while self.length is None or step < self.length:
            yield self[step]
            step += 1


def task(net=None):
    net = net or Net()

    def init(key, batch):
        return net.init(key, batch['image'], train=False)

    def loss(params, mutable, batch, at):
        augment, drop = jax.random.split(at.key)
        image = batch['image'] + 0.1 * jax.random.normal(augment, batch['image'].shape)
        logits, mutable = net.apply(
            {'params': params, **mutable}, image, train=True, rngs={'dropout': drop}, mutable=list(mutable)
        )
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch['label'][:, None], 1)[:, 0]
        accuracy = metrics.accuracy(logits, batch['label'], batch['mask'])
        return metrics.Mean.of(nll, batch['mask']), (mutable, {'accuracy': accuracy})

    def predict(params, mutable, batch):
        return net.apply({'params': params, **mutable}, batch['image'], train=False)

    return Task(init, loss, predict)


def evaluator(of, length=3):
    def measure(params, mutable, batch):
        logits = of.predict(params, mutable, batch)
        return {
            'accuracy': metrics.accuracy(logits, batch['label'], batch['mask']),
            'confusion': metrics.confusion(logits, batch['label'], batch['mask']),
        }

    return Evaluator(Stream(length=length, seed=9), measure, lambda sums: {'accuracy': sums['accuracy'].value})


def experiment(net=None, tx=None, batch_size=16, **changes):
    of = task(net)
    tx = tx or optim.make_optimizer(
        dict(
            chain=('clip', 'adam', 'ema'),
            clip=dict(name='clip_by_global_norm', max_norm=1.0),
            adam=dict(learning_rate=dict(name='cosine', init=1e-2, final=0.0, steps=40)),
            ema=dict(decay=0.9),
        )
    )
    made = Experiment(of, tx, Stream(batch_size), {'test': evaluator(of)})
    return made._replace(**changes)


def linear(**changes):
    """Softmax regression by SGD on the same data: it compiles in a fraction of the time, for tests of the loop."""
    of = linear_task()
    return Experiment(of, optim.sgd(0.1), Stream(), {'test': evaluator(of)})._replace(**changes)


def linear_task():
    def predict(params, mutable, batch):
        dense = params['Dense_0']
        return batch['image'].reshape(len(batch['image']), -1) @ dense['kernel'] + dense['bias']

    def init(key, batch):
        kernel = 0.1 * jax.random.normal(key, (batch['image'][0].size, CLASSES))
        return {'params': {'Dense_0': {'kernel': kernel, 'bias': jnp.zeros(CLASSES)}}}

    def loss(params, mutable, batch, at):
        logits = predict(params, mutable, batch)
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), batch['label'][:, None], 1)[:, 0]
        accuracy = metrics.accuracy(logits, batch['label'], batch['mask'])
        return metrics.Mean.of(nll, batch['mask']), (mutable, {'accuracy': accuracy})

    return Task(init, loss, predict)


def make(config):
    """The toy experiment, with one more evaluator that sorts the rows of each process on the host."""
    toy_experiment = experiment()

    def measure(params, mutable, batch):
        logits = np.asarray(toy_experiment.task.predict(params, mutable, batch))
        order = np.argsort(logits.max(-1))
        return {
            'top': metrics.Mean(logits.max(-1)[batch['mask']].sum(dtype=np.float64), batch['mask'].sum()),
            'rows': metrics.Rows.of((order.astype(np.int8), logits[:, 0], batch['label']), batch['mask']),
        }

    def finish(sums):
        rows = np.array([(first, label) for _, first, label in sums['rows'].each()])
        trend = (rows[:, 0] * np.arange(len(rows))).mean()  # depends on the order of the rows
        return {'top': sums['top'].value, 'trend': trend, 'label': (rows[:, 1] * np.arange(len(rows))).mean()}

    host = Evaluator(Stream(length=3, seed=9), measure, finish, on_host=True)
    return toy_experiment._replace(evals={**toy_experiment.evals, 'host': host})


def config(steps=10, **run):
    run = dict(steps=steps, log_every=5, checkpoint=dict(every=5, keep=3), log=()) | run
    return dict(seed=3, run=run)
