"""Train steps of LSTM, GRU and vanilla RNN beside flax's cells in nn.RNN, and beside torch: below 1 is better.

    python -m benchmarks.recurrence [--rounds=5] [--only=lstm_256,gru_650] [--torch=PYTHON]

One layer as wide as its inputs, float32: 32 sequences of 100 steps with H = 256, and 20 of 35 with H = 650 (the medium
network of Zaremba et al. 2014). A step is forward, the gradient of the outputs' mean square by all parameters, and
SGD. linen's side is the cell one would take, with the compiler's default options: OptimizedLSTMCell, GRUCell,
SimpleCell. How the sides take turns: benchmarks/beside.py.
"""

from collections.abc import Callable
from typing import Any

from benchmarks import beside
from benchmarks.beside import Work

if __name__ == '__main__':
    beside.restart('benchmarks.recurrence')

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from canon import nn
from canon.ops import backend
from canon.weights import recurrent

SIZES = {256: (32, 100), 650: (20, 35)}
CELLS = {
    'lstm': (nn.LSTM, linen.OptimizedLSTMCell),
    'gru': (nn.GRU, linen.GRUCell),
    'rnn': (nn.RNN, linen.SimpleCell),
}


def train(kind: str, hidden: int) -> tuple[Callable, Callable]:
    """Both sides, with the same weights; they must agree on the gradient's size."""
    layer, cell = CELLS[kind]
    ours, peer = layer(hidden), linen.RNN(cell(hidden))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(*SIZES[hidden], hidden)), jnp.float32)
    variables = peer.init(jax.random.key(0), x)
    ((_, inner),) = variables['params'].items()
    same = {'params': {'forward_0': jax.tree.map(jnp.asarray, recurrent.from_flax(inner))}}
    return (
        trainer(lambda v: ours.apply(v, x)[0], same, backend.compiler_options()),
        trainer(lambda v: peer.apply(v, x), variables, {}),
    )


def trainer(outputs: Callable, variables: Any, options: dict) -> Callable:
    """One donated step of SGD."""

    def step(variables):
        value, gradient = jax.value_and_grad(lambda v: jnp.square(outputs(v)).mean())(variables)
        return jax.tree.map(lambda v, g: v - 0.1 * g, variables, gradient), value

    held = [variables]
    compiled = jax.jit(step, donate_argnums=0, compiler_options=options).lower(variables).compile()

    def call():
        held[0], value = compiled(held[0])
        return value

    return call


AIMS = {'lstm': (0.7, 1.0), 'gru': (1.0, 1.0), 'rnn': (0.9, 0.8)}
WORKS = {
    f'{kind}_{hidden}': Work(lambda kind=kind, hidden=hidden: train(kind, hidden), 3, *AIMS[kind])
    for kind in CELLS
    for hidden in SIZES
}


if __name__ == '__main__':
    beside.main(str(__doc__), WORKS, 'recurrence_torch.py')
