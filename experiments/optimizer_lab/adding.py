"""The adding problem with a plain tanh RNN: a number heard long ago has to be kept (Hochreiter & Schmidhuber 1997).

At each of `length` steps the net hears a number of [0, 1] and a flag; two flags are up, one in the first tenth of the
sequence and one in the rest of its first half. At the end it shall say the mean of the two flagged numbers. Who
remembers nothing can say 1/2, with a loss of 1/24 = 0.0417; who remembers the later number only, of 1/48.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import optim
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import Evaluator, Experiment, Task
from canon.train.shard import process_shard

_TEST = 1 << 40  # the first batch of the test stream; no step reaches it


def make(config: ConfigDict) -> Experiment:
    """config.data: `length`, `batch_size`, `test_batches`; config.net: `hidden` units, spectral `radius`."""
    d, net = config.data, config.net
    if d.length < 10:
        raise UsageError(f'data.length={d.length}: the two flags need at least 10 steps')
    if net.hidden < _INCOMING:
        raise UsageError(f'net.hidden={net.hidden}: each unit hears {_INCOMING} others; give at least as many')
    start = initial(config.seed, net.hidden, net.radius)

    def batch(number):
        return sequences(config.seed, number, d.batch_size, d.length)

    def loss(params, mutable, batch, at):
        return Mean.of((said(params, batch['heard']) - batch['answer']) ** 2), (mutable, {})

    task = Task(
        init=lambda key, batch: {'params': jax.tree.map(jnp.asarray, start)},
        loss=loss,
        predict=lambda params, mutable, batch: said(params, batch['heard']),
    )
    test = Generated(lambda i: batch(_TEST + i), length=d.test_batches, shard=process_shard())
    measure = lambda params, mutable, batch: loss(params, mutable, batch, None)[0]  # noqa: E731
    evals = {'test': Evaluator(test, measure, lambda mean: {'loss': mean.value})}
    train = Generated(batch, batch_size=d.batch_size, shard=process_shard())
    return Experiment(task, optim.make(config.tx), train, evals)


def sequences(seed: int, number: int, batch_size: int, length: int) -> dict[str, np.ndarray]:
    """Batch `number`: heard [B, T, 2], answer [B]."""
    rng, rows = np.random.default_rng((seed, number)), np.arange(batch_size)
    value, flag = rng.uniform(size=(batch_size, length)), np.zeros((batch_size, length))
    flag[rows, rng.integers(0, length // 10, batch_size)] = 1
    flag[rows, rng.integers(length // 10, length // 2, batch_size)] = 1
    heard = np.stack([value, flag], -1).astype(np.float32)
    return {'heard': heard, 'answer': ((value * flag).sum(1) / 2).astype(np.float32)}


def said(params, heard):
    """h <- tanh(h W + x U + b), from 0 over heard [B, T, 2]; the last h's linear readout [B]."""

    def step(h, drive):
        return jnp.tanh(h @ params['recurrent'] + drive), None

    drive = jnp.swapaxes(heard, 0, 1) @ params['input'] + params['bias']
    h, _ = jax.lax.scan(step, jnp.zeros(drive.shape[1:]), drive)
    return (h @ params['readout'] + params['offset'])[:, 0]


_INCOMING = 15


def initial(seed: int, hidden: int, radius: float) -> dict[str, np.ndarray]:
    """Sutskever et al. 2013, section 4: 15 incoming connections a unit, scaled to a spectral radius (theirs 1.1)."""
    rng = np.random.default_rng((seed, _TEST))
    recurrent = np.zeros((hidden, hidden))
    for unit in range(hidden):
        recurrent[rng.choice(hidden, _INCOMING, replace=False), unit] = rng.normal(size=_INCOMING)
    recurrent *= radius / np.abs(np.linalg.eigvals(recurrent)).max()
    made = {
        'recurrent': recurrent,
        'input': 0.1 * rng.normal(size=(2, hidden)),
        'readout': 0.1 * rng.normal(size=(hidden, 1)),
        'bias': np.zeros(hidden),
        'offset': np.zeros(1),
    }
    return {name: value.astype(np.float32) for name, value in made.items()}
