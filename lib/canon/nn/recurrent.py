"""Recurrent layers over `canon.ops.recurrence`: RNN, LSTM and GRU, stacked, in one or both directions.

    outputs, state = LSTM(256, layers=2).apply(variables, x, lengths=lengths, initial=state)
    outputs, state = LSTM(256, layers=2).apply(variables, state, x[:, 0], method='step')

x [B, T, I] becomes outputs [B, T, H], of two directions [B, T, 2 H], zero beyond the `lengths` [B]. The state is a
tuple with one entry per layer, or per layer and direction (forward, backward) in torch's order: [B, H], of an LSTM
(h, c). It is float32 whatever the `dtype` of the computation; so are the parameters.

Parameters of layer k are `forward_k` and `backward_k` with `kernel` [I, n H], `recurrent` [H, n H] and `bias` [n H];
`canon.weights.recurrent` converts those of torch and flax. They are initialised as in Keras, each gate on its own:
Glorot uniform kernels (Glorot & Bengio 2010), orthogonal recurrent kernels (Saxe et al. 2014), and zero biases except
`forget_bias`.
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
    """One layer in one direction. extra: {parameter that only this cell has: (initializer, shape)}."""

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
            'kernel': (_init_by_gates(self.kernel_init, self.gates), (x.shape[-1], width)),
            'recurrent': (_init_by_gates(self.recurrent_init, self.gates), (self.hidden, width)),
            **({'bias': (self.bias_init, (width,))} if self.use_bias else {}),
            **self.extra,
        }
        params = {
            name: self.param(name, initializer, shape, jnp.float32) for name, (initializer, shape) in shapes.items()
        }
        # The state stays float32 (canon.ops.recurrence): only inputs and parameters are cast.
        x, *values = promote_dtype(x, *params.values(), dtype=self.dtype)
        # Parameters have the names of the function's arguments.
        return self.scan(x, **dict(zip(params, values, strict=True)), initial=initial, lengths=lengths, reverse=reverse)


def _init_by_gates(init_gate: Callable, gates: int) -> Callable:
    """Returns an initializer of [I, n H] that draws the [I, H] of each gate on its own."""

    def initialise(key, shape, dtype):
        # Glorot's and the orthogonal rule depend on the shape: drawn at once, [H, n H] would have other fans, and be
        # orthogonal across gates only.
        part = (shape[0], shape[1] // gates)
        return jnp.concatenate([init_gate(k, part, dtype) for k in jax.random.split(key, gates)], 1)

    return initialise


class Recurrent(nn.Module):
    """The base class of recurrent layers.

    Attributes:
      hidden: H, units per layer and direction.
      layers: stacked, each over the outputs of the one below.
      bidirectional: runs each layer in both directions and concatenates their outputs.
      dropout: rate in training on the outputs of all layers but the last, as in torch (rng 'dropout').
      locked: the same dropout mask at every step (Gal & Ghahramani 2016).
      use_bias: adds biases.
      dtype: of the computation; that of inputs and parameters if None.
      kernel_init: of the input kernels, each gate on its own.
      recurrent_init: of the recurrent kernels, each gate on its own.

    Raises:
      UsageError: in `setup`, a size or a rate is out of range.
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
        """Returns `scan`, `gates`, `bias_init` and `extra` of a `_Direction`."""
        raise NotImplementedError

    def setup(self):
        if self.hidden < 1 or self.layers < 1:
            raise UsageError(f'hidden={self.hidden} and layers={self.layers} must be at least 1')
        if not 0 <= self.dropout < 1:
            raise UsageError(f'dropout={self.dropout} must be at least 0 and below 1')
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
        self.drop = nn.Dropout(self.dropout, (1,) if self.locked else ())  # axis 1 is time

    def __call__(
        self, x: jax.Array, lengths: jax.Array | None = None, initial: Any = None, train: bool = False
    ) -> tuple[jax.Array, Any]:
        """Runs the layers over sequences.

        Args:
          x: [B, T, I].
          lengths: steps of each sequence, [B] integers; all T if None.
          initial: the state before the first step; zeros if None.
          train: whether dropout is applied.

        Returns:
          the outputs and the state after the last step of each sequence.

        Raises:
          UsageError: shapes do not fit, or a length is beyond T.
        """
        if x.ndim != 3:
            raise UsageError(f'{type(self).__name__} takes sequences [B, T, I], not {x.shape}')
        directions = 1 + self.bidirectional
        count = directions * self.layers
        start = (None,) * count if initial is None else tuple(initial)
        if len(start) != count:
            raise UsageError(f'initial holds {len(start)} states, not one for each of {count}')
        state = []
        for layer in range(self.layers):
            # Between layers only: neither the inputs nor the last outputs are dropped, as in torch.
            if layer:
                x = self.drop(x, deterministic=not train)
            results = [self.forward[layer](x, start[directions * layer], lengths, False)]
            if self.bidirectional:
                results.append(self.backward[layer](x, start[directions * layer + 1], lengths, True))
            x = jnp.concatenate([outputs for outputs, _ in results], -1) if self.bidirectional else results[0][0]
            # Layer by layer, forward before backward: torch's order.
            state += [last for _, last in results]
        return x, tuple(state)

    def step(self, state: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        """Runs one step of x [B, I]: (outputs [B, H], next state). Only for one direction."""
        if self.bidirectional:
            raise UsageError('a bidirectional layer reads whole sequences; it has no step')
        if x.ndim != 2:
            raise UsageError(f'a step takes [B, I], not {x.shape}')
        outputs, state = self(x[:, None], initial=state)  # a sequence of one step
        return outputs[:, 0], state

    @nn.nowrap
    def start(self, rows: int) -> Any:
        """Returns the state before the first step, zeros, of B = `rows` sequences. Needs no variables."""
        zeros = jnp.zeros((rows, self.hidden), jnp.float32)
        return (self._layer_state(zeros),) * (self.layers * (1 + self.bidirectional))

    @nn.nowrap
    def _layer_state(self, zeros: jax.Array) -> Any:
        return zeros


class RNN(Recurrent):
    """The vanilla RNN (Elman 1990): s_t = f(U x_t + W s_{t-1} + b). See `canon.ops.recurrence.rnn`.

    Attributes:
      activation: f, 'tanh', 'relu', 'sigmoid' or 'linear'.
      features: width of an output map o_t = f(V s_t) after the last layer, with the parameter `output/kernel` V.
        If None, the outputs are the states, as in torch.
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
        if lengths is not None:  # f(0) need not be 0
            outputs = jnp.where((jnp.arange(x.shape[1]) < jnp.asarray(lengths)[:, None])[..., None], outputs, 0)
        return outputs, last


class LSTM(Recurrent):
    """The LSTM of Hochreiter & Schmidhuber 1997; the state of a layer is (h, c). See `canon.ops.recurrence.lstm`.

    Attributes:
      forget_bias: initial bias of the forget gate. 1 keeps the past at first (Gers et al. 2000; Jozefowicz et al.
        2015); torch and flax start from 0. Only the initialisation: nothing is added later, as in TensorFlow 1.
      cell_map: a linear map of the cell before the output, h_t = o_t tanh(W c_t + b), where the literature has
        h_t = o_t tanh(c_t); parameters `cell_kernel` [H, H] and `cell_bias` [H].
    """

    forget_bias: float = 1.0
    cell_map: bool = False

    def cell(self) -> dict[str, Any]:
        def bias_init(key, shape, dtype):
            # Gates in the order i, f, g, o.
            return jnp.zeros(shape, dtype).at[self.hidden : 2 * self.hidden].set(self.forget_bias)

        size = self.hidden
        extra = {'cell_kernel': (self.kernel_init, (size, size)), 'cell_bias': (init.zeros, (size,))}
        return dict(scan=recurrence.lstm, gates=4, bias_init=bias_init, extra=extra if self.cell_map else {})

    @nn.nowrap
    def _layer_state(self, zeros: jax.Array) -> Any:
        return zeros, zeros


class GRU(Recurrent):
    """The GRU of Cho et al. 2014. See `canon.ops.recurrence.gru`.

    Attributes:
      reset_after: applies the reset gate after the recurrent product, as torch and cuDNN, with the parameter
        `candidate_bias` [H] inside it. False applies it before the product, as the paper.
    """

    reset_after: bool = True

    def cell(self) -> dict[str, Any]:
        scan = partial(recurrence.gru, reset_after=self.reset_after)
        # Only where r multiplies it: a bias outside of the reset gate would add up with that of x.
        extra = {'candidate_bias': (init.zeros, (self.hidden,))} if self.reset_after and self.use_bias else {}
        return dict(scan=scan, gates=3, bias_init=init.zeros, extra=extra)
