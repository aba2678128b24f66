"""Sequence memory: the copy and the adding problem, and how the gradient of a recurrent network decays over time.

Both problems put a gap between the inputs that matter and the output that needs them. A network that carries nothing
over the gap reaches the `baseline` of the problem, and no less.

    problem = PROBLEMS['adding']
    model = SequenceReadout(canon.nn.LSTM(64), problem.features)
    task = memory_task(model, problem)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from canon import losses, named, plots
from canon.data import Generated
from canon.metrics import Mean
from canon.nn import Dense
from canon.train import At, Evaluator, Task

LETTERS, COPIED = 8, 10  # letters of the copy problem's alphabet, and how many each sequence copies
BLANK, DELIMITER, SYMBOLS = LETTERS, LETTERS + 1, LETTERS + 2


@dataclass(frozen=True)
class MemorySettings:
    """config.data. problem: 'copy' or 'adding'. gap: steps over which the network has to remember.
    batch_size: sequences per step. test_batches: batches of the evaluator.
    """

    problem: str
    gap: Annotated[int, named.Range(2)] = 50
    batch_size: named.Count = 32
    test_batches: named.Count = 10


class MemoryProblem(NamedTuple):
    """A problem that needs memory over `gap` steps.

    Attributes:
      draw: (rng, batch_size, gap) -> a batch with 'input' float32 [B, T, I] and 'target' [B] or [B, T].
      features: outputs of the network per step.
      measure: (outputs [B, T, features], target) -> the loss and further metrics.
      baseline: gap -> the least loss without memory.
    """

    draw: Callable[[np.random.Generator, int, int], dict[str, np.ndarray]]
    features: int
    measure: Callable[[jax.Array, jax.Array], tuple[Mean, dict[str, Mean]]]
    baseline: Callable[[int], float]


def draw_copy_batch(rng: np.random.Generator, batch_size: int, gap: int) -> dict[str, np.ndarray]:
    """Draws sequences of the copy problem (Arjovsky et al. 2016, section 5.1), of T = gap + 20 steps.

    'input' [B, T, 10], one-hot: ten letters out of eight, gap - 1 blanks, a delimiter and ten blanks. 'target' int32
    [B, T]: blanks, and the ten letters again at the end.
    """
    letters = rng.integers(LETTERS, size=(batch_size, COPIED), dtype=np.int32)
    symbols = np.full((batch_size, gap + 2 * COPIED), BLANK, np.int32)
    target = symbols.copy()
    symbols[:, :COPIED], symbols[:, COPIED + gap - 1], target[:, -COPIED:] = letters, DELIMITER, letters
    return {'input': np.eye(SYMBOLS, dtype=np.float32)[symbols], 'target': target}


def draw_adding_batch(rng: np.random.Generator, batch_size: int, gap: int) -> dict[str, np.ndarray]:
    """Draws sequences of the adding problem (Le et al. 2015, section 4.1), of T = gap steps.

    'input' [B, T, 2]: a number in [0, 1] and a flag, which is 1 at one step of the first half and at one of the second
    (Arjovsky et al. 2016, section 5.2). 'target' float32 [B]: the sum of the two flagged numbers.
    """
    rows, half = np.arange(batch_size), gap // 2
    # The flagged steps are in different halves, so that they are never the same.
    value, flag = rng.uniform(size=(batch_size, gap)), np.zeros((batch_size, gap))
    flag[rows, rng.integers(half, size=batch_size)] = 1
    flag[rows, rng.integers(half, gap, size=batch_size)] = 1
    inputs = np.stack([value, flag], -1).astype(np.float32)
    return {'input': inputs, 'target': (value * flag).sum(1).astype(np.float32)}


def _measure_copy(outputs: jax.Array, target: jax.Array) -> tuple[Mean, dict[str, Mean]]:
    """Returns the mean cross entropy of all steps; `accuracy` is that of the ten letters alone."""
    correct = outputs[:, -COPIED:].argmax(-1) == target[:, -COPIED:]
    return Mean.of(losses.softmax_cross_entropy(outputs, target)), {'accuracy': Mean.of(correct)}


def _measure_adding(outputs: jax.Array, target: jax.Array) -> tuple[Mean, dict[str, Mean]]:
    """Returns the squared error of the last step's output."""
    return Mean.of(jnp.square(outputs[:, -1, 0] - target)), {}


def _copy_baseline(gap: int) -> float:
    """Returns the loss of ten letters by chance, all else right: 10 ln 8 / (gap + 20) nats per step."""
    return COPIED * np.log(LETTERS) / (gap + 2 * COPIED)


def _adding_baseline(gap: int) -> float:
    """Returns the error of always answering the mean: the variance of a sum of two uniform numbers, 2 / 12."""
    return 1 / 6


PROBLEMS = {
    'copy': MemoryProblem(draw_copy_batch, SYMBOLS, _measure_copy, _copy_baseline),
    'adding': MemoryProblem(draw_adding_batch, 1, _measure_adding, _adding_baseline),
}


class SequenceReadout(linen.Module):
    """A recurrent layer (`canon.nn.Recurrent`) and a linear readout of its outputs: [B, T, I] -> [B, T, features]."""

    layer: Any
    features: int

    def setup(self):
        self.output = Dense(self.features)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        return self.output(self.layer(inputs)[0])

    def step(self, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        """Runs the recurrent layer for one step: (outputs [B, H], next state) of x [B, I]."""
        return self.layer.step(state, x)


def memory_task(model: Any, problem: MemoryProblem) -> Task:
    """Makes the task of solving a memory problem by a `SequenceReadout`; batches as `problem.draw` returns them."""

    def loss(params, mutable, batch, at):
        outputs = model.apply({'params': params}, batch['input'])
        mean, metrics = problem.measure(outputs, batch['target'])
        return mean, (mutable, metrics)

    return Task(
        init=lambda key, batch: {'params': model.init(key, jnp.asarray(batch['input']))['params']},
        loss=loss,
        predict=lambda params, mutable, batch: model.apply({'params': params}, batch['input']),
    )


def memory_evaluator(task: Task, model: Any, initial: Any, batches: Generated, baseline: float) -> Evaluator:
    """Evaluates a memory task, and the gradient over time before and after training.

    The metrics are those of the loss, `baseline`, `relative_loss` (loss / baseline), and `gradient_lag_k` and
    `initial_gradient_lag_k` (see `gradient_by_lag`) of k = 1, 2, 4, ...

    Args:
      task: a `memory_task` of `model`.
      model: a `SequenceReadout`.
      initial: its parameters before training.
      batches: finite data.
      baseline: the loss without memory.
    """

    def measure(params, mutable, batch):
        # The loss draws nothing at random, so it needs no key.
        loss, (_, metrics) = task.loss(params, mutable, batch, At(None, 0))
        gradients = {
            'gradient': gradient_by_lag(model, params, batch['input']),
            'initial_gradient': gradient_by_lag(model, initial, batch['input']),
        }
        return {'loss': loss, **metrics}, gradients

    def finish(sums):
        means, gradients = sums
        values = {name: float(mean.value) for name, mean in means.items()}
        values |= {'baseline': baseline, 'relative_loss': values['loss'] / baseline}
        for name, mean in gradients.items():
            values |= {f'{name}_lag_{k}': float(mean.value[k]) for k in _powers_of_two(len(mean.value))}
        return values

    def draw(params, mutable, sums):
        labels = {'initial_gradient': 'before', 'gradient': 'after'}
        lines = {f'{labels[name]}/norm of the gradient': list(enumerate(m.value)) for name, m in sums[1].items()}
        return {'gradient': plots.draw_curves(lines, 'time lag')}

    return Evaluator(batches, measure, finish, draw)


def gradient_by_lag(model: Any, params: Any, inputs: jax.Array) -> Mean:
    """Computes the mean norm of u^T dh_T / ds_{T-k}, [T], for the time lags k = 0, 1, ..., T - 1.

    u is a random direction per row, the same for all lags, and s the whole state, an LSTM's (h, c). Over directions
    the mean square of the norm is |dh_T / ds_{T-k}|^2 / H (Frobenius), which is 1 at lag 0.

    Args:
      model: a `SequenceReadout`.
      params: its parameters.
      inputs: sequences [B, T, I].
    """
    rows, steps = inputs.shape[:2]
    start = jax.tree.map(lambda s: s.astype(inputs.dtype), model.layer.start(rows))
    # The gradient by a zero that is added to the state after each step is that by the state itself.
    offsets = jax.tree.map(lambda s: jnp.zeros((steps, *s.shape)), start)
    # A fixed key: the same directions before and after training, and for all lags.
    direction = jax.random.normal(jax.random.key(0), (rows, model.layer.hidden))
    direction /= jnp.linalg.norm(direction, axis=-1, keepdims=True)

    def project_last(offsets):
        def step(state, now):
            x, offset = now
            _, state = model.apply({'params': params}, state, x, method='step')
            return jax.tree.map(jnp.add, state, offset), None

        last, _ = jax.lax.scan(step, start, (inputs.swapaxes(0, 1), offsets))
        hidden = last[-1][0] if isinstance(last[-1], tuple) else last[-1]  # of the top layer; an LSTM's state is (h, c)
        return (direction * hidden).sum()

    gradients = jax.tree.leaves(jax.grad(project_last)(offsets))
    # Over all parts of the state: an LSTM passes its gradient through h and through c.
    squares = jnp.stack([jnp.square(g).sum(-1) for g in gradients]).sum(0)  # [T, B]
    return Mean(jnp.sqrt(squares[::-1]).sum(1), jnp.asarray(rows, jnp.float32))


def _powers_of_two(limit: int) -> list[int]:
    return [1 << n for n in range(limit.bit_length()) if 1 << n < limit]
