"""What a recurrent network keeps over a gap: the copy and the adding task, and its gradient against the time lag.

config.data: `task` ('copy' or 'adding'), `gap`, `batch_size`, `test_batches`. config.model: `cell` ('rnn', 'lstm' or
'gru'), `hidden` and what the layer takes besides (`forget_bias`, `activation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import losses, named, nn, optim, plots
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import At, Evaluator, Experiment, Task
from canon.train.runs import Run
from canon.train.shard import process_shard
from experiments.claims.classification import done

LETTERS, COPIED = 8, 10
BLANK, DELIMITER, SYMBOLS = LETTERS, LETTERS + 1, LETTERS + 2
_Gap = Annotated[int, named.Range(2)]
_CELLS = {'rnn': nn.RNN, 'lstm': nn.LSTM, 'gru': nn.GRU}
_TEST = 1 << 40  # the first batch of the test stream; no step reaches it


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model and config.tx -> one of the two tasks."""
    d = config.data
    named.check(named.plain(d.task), str, 'data.task')
    if d.task not in TASKS:
        raise UsageError(f'data.task={d.task!r} is none of {", ".join(TASKS)}{named.near(d.task, TASKS)}')
    of, features = TASKS[d.task]
    for key, hint in (('gap', _Gap), ('batch_size', named.Count), ('test_batches', named.Count)):
        named.check(named.plain(d[key]), hint, f'data.{key}')
    reader = _reader(features=features, **named.plain(config.model))
    task = memory_task(reader, d.task)
    batch = partial(_numbered, of, config.seed, d.batch_size, d.gap)
    start = task.init(jax.random.key(config.seed), batch(0))['params']
    test = Generated(lambda i: batch(_TEST + i), length=d.test_batches, shard=process_shard())
    evals = {'test': memory_evaluator(task, reader, start, test, baseline(d.task, d.gap))}
    train = Generated(batch, batch_size=d.batch_size, shard=process_shard())
    return Experiment(task, optim.make(config.tx), train, evals)


def offline(config: ConfigDict) -> ConfigDict:
    """Its data are made, not downloaded."""
    return config


# --- the two tasks ------------------------------------------------------------------------------------------------


def copying(rng: np.random.Generator, batch_size: int, gap: int) -> dict[str, np.ndarray]:
    """Arjovsky et al. 2016, section 5.1: heard [B, gap + 20, 10], one-hot, and the answer [B, gap + 20], int32.

    Ten of eight letters, gap - 1 blanks, a delimiter, ten blanks; the answer is blank until the letters come again.
    """
    letters = rng.integers(LETTERS, size=(batch_size, COPIED), dtype=np.int32)
    tokens = np.full((batch_size, gap + 2 * COPIED), BLANK, np.int32)
    answer = tokens.copy()
    tokens[:, :COPIED], tokens[:, COPIED + gap - 1], answer[:, -COPIED:] = letters, DELIMITER, letters
    return {'heard': np.eye(SYMBOLS, dtype=np.float32)[tokens], 'answer': answer}


def adding(rng: np.random.Generator, batch_size: int, gap: int) -> dict[str, np.ndarray]:
    """Le et al. 2015, section 4.1: heard [B, gap, 2], numbers of [0, 1] and two flags; the answer [B] is their sum.

    The flags are up at one place of the first half and at one of the second, as in Arjovsky et al. 2016, section 5.2.
    """
    rows, half = np.arange(batch_size), gap // 2
    value, flag = rng.uniform(size=(batch_size, gap)), np.zeros((batch_size, gap))
    flag[rows, rng.integers(half, size=batch_size)] = 1
    flag[rows, rng.integers(half, gap, size=batch_size)] = 1
    heard = np.stack([value, flag], -1).astype(np.float32)
    return {'heard': heard, 'answer': (value * flag).sum(1).astype(np.float32)}


TASKS = {'copy': (copying, SYMBOLS), 'adding': (adding, 1)}


def _numbered(of, seed: int, batch_size: int, gap: int, number: int) -> dict[str, np.ndarray]:
    return of(np.random.default_rng((seed, number)), batch_size, gap)


def baseline(task: str, gap: int) -> float:
    """The loss of who remembers nothing: 10 ln 8 / (gap + 20) nats a step, and the variance of a sum of two, 1/6."""
    return COPIED * np.log(LETTERS) / (gap + 2 * COPIED) if task == 'copy' else 1 / 6


# --- the network --------------------------------------------------------------------------------------------------


class Reader(linen.Module):
    """A recurrent layer and a linear map of its outputs to `features`."""

    layer: Any
    features: int

    def setup(self):
        self.output = nn.Dense(self.features)

    def __call__(self, heard: jax.Array) -> jax.Array:
        """[B, T, I] -> [B, T, features]"""
        return self.output(self.layer(heard)[0])

    def step(self, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        return self.layer.step(state, x)


def _reader(features: int, cell: str, **layer: Any) -> Reader:
    named.check(cell, str, 'model.cell')
    if cell not in _CELLS:
        raise UsageError(f'model.cell={cell!r} is none of {", ".join(_CELLS)}{named.near(cell, _CELLS)}')
    return Reader(named.call(_CELLS[cell], layer, f'model.cell={cell!r}'), features)


def memory_task(reader: Reader, task: str) -> Task:
    """'copy': the mean cross entropy of all steps, `accuracy` that of the ten letters; 'adding': the square error."""

    def measured(said, answer) -> tuple[Mean, dict[str, Mean]]:
        if task == 'adding':
            return Mean.of(jnp.square(said[:, -1, 0] - answer)), {}
        right = said[:, -COPIED:].argmax(-1) == answer[:, -COPIED:]
        return Mean.of(losses.softmax_cross_entropy(said, answer)), {'accuracy': Mean.of(right)}

    def loss(params, mutable, batch, at):
        found, told = measured(reader.apply({'params': params}, batch['heard']), batch['answer'])
        return found, (mutable, told)

    return Task(
        init=lambda key, batch: {'params': reader.init(key, jnp.asarray(batch['heard']))['params']},
        loss=loss,
        predict=lambda params, mutable, batch: reader.apply({'params': params}, batch['heard']),
    )


def memory_evaluator(task: Task, reader: Reader, start: Any, data: Generated, blind: float) -> Evaluator:
    """loss; blind: that of who remembers nothing; share: loss / blind; lag_k: |d s_T / d s_{T-k}|, k = 1, 2, 4..

    start_lag_k: the same of the parameters `start`, before training.
    """

    def measure(params, mutable, batch):
        found, (_, told) = task.loss(params, mutable, batch, At(None, 0))
        lags = {name: gradients(reader, p, batch['heard']) for name, p in (('', params), ('start_', start))}
        return {'loss': found, **told}, lags

    def finish(sums):
        told, lags = sums
        found = {name: float(mean.value) for name, mean in told.items()}
        found |= {'blind': blind, 'share': found['loss'] / blind}
        for name, mean in lags.items():
            found |= {f'{name}lag_{k}': float(mean.value[k]) for k in _powers(len(mean.value))}
        return found

    def pictures(params, mutable, sums):
        lines = {('before' if name else 'after') + '/norm of the gradient': list(enumerate(mean.value))
                 for name, mean in sums[1].items()}  # fmt: skip
        return {'gradient': plots.curves(lines, 'time lag')}

    return Evaluator(data, measure, finish, pictures)


def gradients(reader: Reader, params: Any, heard: jax.Array) -> Mean:
    """The mean norm of u^T d h_T / d s_{T-k}, [T], of k = 0, 1, .., T - 1: how much the end tells of k steps before.

    u is a direction of its own for each row, the same for all lags; s is the whole state, an LSTM's (h, c). Over
    directions the mean square of the norm is |d h_T / d s_{T-k}|^2 / H, which is 1 at lag 0.
    """
    rows, steps = heard.shape[:2]
    state = jax.tree.map(lambda s: s.astype(heard.dtype), reader.layer.start(rows))
    nudges = jax.tree.map(lambda s: jnp.zeros((steps, *s.shape)), state)
    direction = jax.random.normal(jax.random.key(0), (rows, reader.layer.hidden))
    direction /= jnp.linalg.norm(direction, axis=-1, keepdims=True)

    def last(nudges):
        def step(state, given):
            x, nudge = given
            _, state = reader.apply({'params': params}, state, x, method='step')
            return jax.tree.map(jnp.add, state, nudge), None

        end, _ = jax.lax.scan(step, state, (heard.swapaxes(0, 1), nudges))
        hidden = end[-1][0] if isinstance(end[-1], tuple) else end[-1]
        return (direction * hidden).sum()

    leaves = jax.tree.leaves(jax.grad(last)(nudges))
    squares = jnp.stack([jnp.square(g).sum(-1) for g in leaves]).sum(0)  # [T, B]
    return Mean(jnp.sqrt(squares[::-1]).sum(1), jnp.asarray(rows, jnp.float32))


def _powers(size: int) -> list[int]:
    return [1 << n for n in range(size.bit_length()) if 1 << n < size]


# --- the picture of the sweep -------------------------------------------------------------------------------------


def picture(found: Sequence[Run], task: str) -> Figure:
    """Left, loss over the blind one's against the gap, a line a cell; right, the gradient against the lag."""
    points: dict[str, dict[int, list[tuple[float, Mapping[str, float]]]]] = {}
    for run, config in done(found):
        if config['data']['task'] == task:
            metrics = run.metrics
            by_gap = points.setdefault(config['model']['cell'], {})
            by_gap.setdefault(config['data']['gap'], []).append((metrics['test/share'], metrics))
    figure = Figure(figsize=(9.2, 3.8), layout='constrained')
    left, right = figure.subplots(1, 2)
    for i, (cell, by_gap) in enumerate(sorted(points.items(), reverse=True)):
        gaps = sorted(by_gap)
        medians = [plots.middle([share for share, _ in by_gap[gap]]) for gap in gaps]
        left.plot(gaps, medians, 'o-', color=f'C{i}', label=cell)
        _, metrics = by_gap[gaps[-1]][0]
        for prefix, style in (('test/lag_', '-'), ('test/start_lag_', ':')):
            lags = sorted((int(key[len(prefix) :]), value) for key, value in metrics.items() if key.startswith(prefix))
            right.plot(*zip(*lags, strict=True), style, color=f'C{i}', label=cell + (' at its start' * (style == ':')))
    left.axhline(1, color='k', linestyle=':', linewidth=1)
    left.set(xlabel='gap', ylabel='loss / that of who remembers nothing', xscale='log', yscale='log', title=task)
    right.set(xlabel='time lag k', ylabel='|d h(T) / d s(T - k)|', xscale='log', yscale='log')
    right.set_title(f'gradient, gap {gaps[-1]}')
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    left.set_xticks(gaps, [str(gap) for gap in gaps])
    left.minorticks_off()
    return figure
