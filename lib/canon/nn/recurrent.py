"""Recurrent layers over `canon.ops.recurrence`: RNN, LSTM and GRU, stacked, in both directions, with lengths.

    outputs, state = LSTM(256, layers=2).apply(variables, x, lengths=lengths, initial=state)
    outputs, state = LSTM(256, layers=2).apply(variables, state, x[:, 0], method='step')

x [B, T, I] -> outputs [B, T, H], of two directions [B, T, 2 H], zero beyond a sequence's `lengths` [B]. The state is a
tuple with one entry for each layer, and of two directions for each layer's forward and backward one, in torch's order:
[B, H], of an LSTM (h, c). It is float32 whatever `dtype`, that of the computation, is; so are the parameters.

Parameters of layer k: `forward_k` and `backward_k` with `kernel` [I, n H], `recurrent` [H, n H] and `bias` [n H], gates
as in `canon.ops.recurrence`; `canon.weights.recurrent` converts torch's and flax's. They start as in Keras: each gate's
kernel by Glorot & Bengio 2010, its recurrent one orthogonal (Saxe et al. 2014), biases zero but for `forget_bias`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.nn.layers import Dense
from canon.ops import activation, recurrence


class _Direction(nn.Module):
    """One layer in one direction. extra: {parameter that only this cell has: (its initializer, its shape)}."""

    scan: Callable
    hidden: int
    gates: int
    use_bias: bool
    dtype: Any
    kernel_init: Callable
    recurrent_init: Callable
    bias_init: Callable
    extra: Mapping[str, tuple[Callable, tuple[int, ...]]]

    @nn.compact
    def __call__(self, x: jax.Array, initial: Any, lengths: Any, reverse: bool) -> tuple[jax.Array, Any]:
        width = self.gates * self.hidden
        shapes = {
            'kernel': (_by_gates(self.kernel_init, self.gates), (x.shape[-1], width)),
            'recurrent': (_by_gates(self.recurrent_init, self.gates), (self.hidden, width)),
            **({'bias': (self.bias_init, (width,))} if self.use_bias else {}),
            **self.extra,
        }
        params = {name: self.param(name, start, shape, jnp.float32) for name, (start, shape) in shapes.items()}
        x, *values = promote_dtype(x, *params.values(), dtype=self.dtype)
        return self.scan(x, **dict(zip(params, values, strict=True)), initial=initial, lengths=lengths, reverse=reverse)


def _by_gates(start: Callable, gates: int) -> Callable:
    """An initializer of [I, n H] that draws each gate's [I, H] on its own."""

    def draw(key, shape, dtype):
        part = (shape[0], shape[1] // gates)
        return jnp.concatenate([start(k, part, dtype) for k in jax.random.split(key, gates)], 1)

    return draw


class Recurrent(nn.Module):
    """What the layers share.

    hidden: H. layers: stacked, each over the outputs of the one below. bidirectional: each layer reads both ways.
    dropout: rate, in training, on the outputs of all layers but the last, as torch has it (rng 'dropout'); locked:
    one mask for all steps (Gal & Ghahramani 2016). `setup` raises UsageError for sizes and rates that make no sense.
    """

    hidden: int
    layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    locked: bool = False
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Callable = init.glorot_uniform()
    recurrent_init: Callable = init.orthogonal()

    def cell(self) -> dict[str, Any]:
        """`scan`, `gates`, `bias_init` and `extra` of a `_Direction`."""
        raise NotImplementedError

    def setup(self):
        if self.hidden < 1 or self.layers < 1:
            raise UsageError(f'hidden={self.hidden} and layers={self.layers} must be at least 1')
        if not 0 <= self.dropout < 1:
            raise UsageError(f'dropout={self.dropout} is no share in [0, 1)')
        keywords: dict[str, Any] = dict(
            hidden=self.hidden,
            use_bias=self.use_bias,
            dtype=self.dtype,
            kernel_init=self.kernel_init,
            recurrent_init=self.recurrent_init,
            **self.cell(),
        )
        self.forward = [_Direction(**keywords) for _ in range(self.layers)]
        if self.bidirectional:
            self.backward = [_Direction(**keywords) for _ in range(self.layers)]
        self.drop = nn.Dropout(self.dropout, (1,) if self.locked else ())

    def __call__(
        self, x: jax.Array, lengths: jax.Array | None = None, initial: Any = None, train: bool = False
    ) -> tuple[jax.Array, Any]:
        """x [B, T, I] -> (outputs, state at each sequence's end); initial: the state to go on from, zeros without.

        Raises UsageError for shapes that do not fit, and lengths beyond T where they are known.
        """
        if x.ndim != 3:
            raise UsageError(f'{type(self).__name__} takes sequences [B, T, I], not {x.shape}')
        ways = 1 + self.bidirectional
        before = (None,) * (ways * self.layers) if initial is None else tuple(initial)
        if len(before) != ways * self.layers:
            raise UsageError(f'initial holds {len(before)} states, not one for each of {ways * self.layers}')
        state = []
        for layer in range(self.layers):
            if layer:
                x = self.drop(x, deterministic=not train)
            found = [self.forward[layer](x, before[ways * layer], lengths, False)]
            if self.bidirectional:
                found.append(self.backward[layer](x, before[ways * layer + 1], lengths, True))
            x = found[0][0] if len(found) == 1 else jnp.concatenate([outputs for outputs, _ in found], -1)
            state += [last for _, last in found]
        return x, tuple(state)

    def step(self, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        """One step from a state, with x [B, I]: (outputs [B, H], the state after). Not of two directions."""
        if self.bidirectional:
            raise UsageError('a bidirectional layer reads whole sequences; it has no step')
        if x.ndim != 2:
            raise UsageError(f'a step takes [B, I], not {x.shape}')
        outputs, state = self(x[:, None], initial=state)
        return outputs[:, 0], state

    @nn.nowrap
    def start(self, rows: int) -> Any:
        """The state before the first step, zeros, for so many sequences. Needs no variables."""
        zeros = jnp.zeros((rows, self.hidden), jnp.float32)
        return (self._entry(zeros),) * (self.layers * (1 + self.bidirectional))

    @nn.nowrap
    def _entry(self, zeros: jax.Array) -> Any:
        return zeros


class RNN(Recurrent):
    """s_t = f(U x_t + W s_{t-1} + b), and with `features` the output map o_t = f(V s_t): the project's notes, 5.1.

    activation: f, 'tanh', 'relu', 'sigmoid' or 'linear'. features: of o_t; parameter `output/kernel` V [H, features]
    stands behind the last layer (and both of its directions). Without, the outputs are the states, as torch's are.
    """

    activation: str = 'tanh'
    features: int | None = None

    def cell(self) -> dict[str, Any]:
        scan = partial(recurrence.rnn, activation=self.activation)
        return dict(scan=scan, gates=1, bias_init=init.zeros, extra={})

    def setup(self):
        super().setup()
        if self.features is not None:
            if self.features < 1:
                raise UsageError(f'features={self.features} must be at least 1')
            self.output = Dense(self.features, False, self.dtype, kernel_init=self.kernel_init)

    def __call__(
        self, x: jax.Array, lengths: jax.Array | None = None, initial: Any = None, train: bool = False
    ) -> tuple[jax.Array, Any]:
        states, last = super().__call__(x, lengths, initial, train)
        if self.features is None:
            return states, last
        outputs = activation(self.activation)(self.output(states))
        if lengths is not None:
            outputs = jnp.where((jnp.arange(x.shape[1]) < jnp.asarray(lengths)[:, None])[..., None], outputs, 0)
        return outputs, last


class LSTM(Recurrent):
    """Hochreiter & Schmidhuber 1997; a state is (h, c). See `canon.ops.recurrence.lstm`.

    forget_bias: where the forget gate's bias starts; 1 keeps the past at first (Gers et al. 2000; Jozefowicz et al.
    2015). torch and flax start at 0. It is the start alone: nothing is added later.
    cell_map: h_t = o_t tanh(W c_t + b), the notes' (5.2), with parameters `cell_kernel` [H, H] and `cell_bias` [H].
    """

    forget_bias: float = 1.0
    cell_map: bool = False

    def cell(self) -> dict[str, Any]:
        def bias_init(key, shape, dtype):
            return jnp.zeros(shape, dtype).at[self.hidden : 2 * self.hidden].set(self.forget_bias)

        size = self.hidden
        extra = {'cell_kernel': (self.kernel_init, (size, size)), 'cell_bias': (init.zeros, (size,))}
        return dict(scan=recurrence.lstm, gates=4, bias_init=bias_init, extra=extra if self.cell_map else {})

    @nn.nowrap
    def _entry(self, zeros: jax.Array) -> Any:
        return zeros, zeros


class GRU(Recurrent):
    """Cho et al. 2014. See `canon.ops.recurrence.gru`.

    reset_after: the reset gate stands behind the recurrent product, as in torch and cuDNN, with the parameter
    `candidate_bias` [H] inside it; False is the paper's, with the reset ahead of the product.
    """

    reset_after: bool = True

    def cell(self) -> dict[str, Any]:
        scan = partial(recurrence.gru, reset_after=self.reset_after)
        extra = {'candidate_bias': (init.zeros, (self.hidden,))} if self.reset_after and self.use_bias else {}
        return dict(scan=scan, gates=3, bias_init=init.zeros, extra=extra)
