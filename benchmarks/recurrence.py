"""Train steps of LSTM, GRU and vanilla RNN compared with flax's cells in nn.RNN, and with torch: below 1 is better.

    python -m benchmarks.recurrence [--rounds=5] [--only=lstm_256,gru_650] [--torch=PYTHON]

One layer as wide as its inputs, float32: 32 sequences of 100 steps with H = 256, and 20 of 35 with H = 650 (the medium
network of Zaremba et al. 2014). A step is the forward pass, the gradient of the outputs' mean square by all parameters,
and SGD. For flax the fastest cells are used, with the compiler's default options: OptimizedLSTMCell, GRUCell and
SimpleCell. How the sides alternate: benchmarks/comparison.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import comparison
from benchmarks.comparison import ALL_FORMS, Benchmark, Peer, Work
from benchmarks.steps import repeat
from canon import backend, nn
from canon.weights import recurrent

SIZES = {256: (32, 100), 650: (20, 35)}
CELLS = {
    'lstm': (nn.LSTM, linen.OptimizedLSTMCell),
    'gru': (nn.GRU, linen.GRUCell),
    'rnn': (nn.RNN, linen.SimpleCell),
}


def make_train_step(kind: str, hidden: int, side: str) -> Callable:
    """Returns the train step of one side; both sides start from the same weights."""
    layer, cell = CELLS[kind]
    ours, peer = layer(hidden), linen.RNN(cell(hidden))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(*SIZES[hidden], hidden)), jnp.float32)
    variables = peer.init(jax.random.key(0), x)
    ((_, inner),) = variables['params'].items()
    same = {'params': {'forward_0': jax.tree.map(jnp.asarray, recurrent.cell_from_flax(inner))}}
    if side == 'canon':
        return compile_step(lambda v: ours.apply(v, x)[0], same, backend.compiler_options())
    return compile_step(lambda v: peer.apply(v, x), variables, {})


def compile_step(outputs: Callable, variables: Any, options: dict) -> Callable:
    """Compiles a step of SGD with donated variables."""

    def step(variables):
        value, gradient = jax.value_and_grad(lambda v: jnp.square(outputs(v)).mean())(variables)
        return jax.tree.map(lambda v, g: v - 0.1 * g, variables, gradient), value

    return repeat(jax.jit(step, donate_argnums=0, compiler_options=options), [variables])


AIMS = {
    ('lstm', 256): {'linen': 0.75, 'torch': 1.1},
    ('lstm', 650): {'linen': 0.75, 'torch': 1.0},
    ('gru', 256): {'linen': 1.0, 'torch': 0.55},
    ('gru', 650): {'linen': 1.0, 'torch': 0.55},
    ('rnn', 256): {'linen': 0.9, 'torch': 0.6},
    ('rnn', 650): {'linen': 0.9, 'torch': 0.6},
}
WORKS = {
    f'{kind}_{hidden}': Work(
        {side: functools.partial(make_train_step, kind, hidden, side) for side in ('canon', 'linen')},
        3,
        AIMS[kind, hidden],
    )
    for kind in CELLS
    for hidden in SIZES
}
BENCHMARK = Benchmark('benchmarks.recurrence', WORKS, Peer('recurrence_torch.py', settings=ALL_FORMS))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
