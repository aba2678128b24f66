"""The adding problem with a plain tanh RNN, as Sutskever et al. (2013) train it with momentum.

At each step the network reads a number in [0, 1] and a flag. Two flags are up, one in the first tenth of the sequence
and one in the rest of its first half; at the end the output is the mean of the two flagged numbers (Hochreiter &
Schmidhuber 1997). Without memory the least loss is that of the answer 1/2, 1/24 = 0.0417; with the later number alone
it is 1/48.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from canon.metrics import Mean
from canon.tasks.synthetic import TEST_BATCH
from canon.train import Task

INCOMING = 15  # connections per unit


def draw_mean_batch(rng: np.random.Generator, batch_size: int, length: int) -> dict[str, np.ndarray]:
    """Draws sequences: 'input' float32 [B, T, 2], numbers and flags; 'target' float32 [B], the mean of two numbers."""
    rows = np.arange(batch_size)
    value, flag = rng.uniform(size=(batch_size, length)), np.zeros((batch_size, length))
    flag[rows, rng.integers(0, length // 10, batch_size)] = 1
    flag[rows, rng.integers(length // 10, length // 2, batch_size)] = 1
    inputs = np.stack([value, flag], -1).astype(np.float32)
    return {'input': inputs, 'target': ((value * flag).sum(1) / 2).astype(np.float32)}


def adding_task(initial: Any) -> Task:
    """Makes the task of the adding problem; the loss is the squared error.

    initial: parameters as of `draw_sparse_rnn`.
    """

    def loss(params, mutable, batch, at):
        return Mean.of((run_tanh_rnn(params, batch['input']) - batch['target']) ** 2), (mutable, {})

    return Task(
        init=lambda key, batch: {'params': jax.tree.map(jnp.asarray, initial)},
        loss=loss,
        predict=lambda params, mutable, batch: run_tanh_rnn(params, batch['input']),
    )


def run_tanh_rnn(params: Any, inputs: jax.Array) -> jax.Array:
    """Runs h_t = tanh(h_{t-1} W + x_t U + b) from 0 over inputs [B, T, 2]; returns the readout of the last h, [B]."""

    def step(h, drive):
        return jnp.tanh(h @ params['recurrent'] + drive), None

    drive = jnp.swapaxes(inputs, 0, 1) @ params['input'] + params['bias']  # of all steps at once, outside the loop
    h, _ = jax.lax.scan(step, jnp.zeros(drive.shape[1:]), drive)
    return (h @ params['readout'] + params['offset'])[:, 0]


def draw_sparse_rnn(seed: int, hidden: int, radius: float) -> dict[str, np.ndarray]:
    """Draws the initialisation of Sutskever et al. 2013, section 4: sparse and scaled to a spectral radius.

    Args:
      seed: of the weights.
      hidden: units, at least `INCOMING`: each has that many incoming connections.
      radius: spectral radius of the recurrent weights; theirs is 1.1.
    """
    rng = np.random.default_rng((seed, TEST_BATCH))
    # Column j holds the incoming connections of unit j, since the step is h @ W.
    recurrent = np.zeros((hidden, hidden))
    for unit in range(hidden):
        recurrent[rng.choice(hidden, INCOMING, replace=False), unit] = rng.normal(size=INCOMING)
    recurrent *= radius / np.abs(np.linalg.eigvals(recurrent)).max()
    params = {
        'recurrent': recurrent,
        'input': 0.1 * rng.normal(size=(2, hidden)),
        'readout': 0.1 * rng.normal(size=(hidden, 1)),
        'bias': np.zeros(hidden),
        'offset': np.zeros(1),
    }
    return {name: value.astype(np.float32) for name, value in params.items()}
