"""`rnn`, `lstm` and `gru`: the equations, the shapes and the checks of each."""

from __future__ import annotations

import jax

from canon.errors import UsageError
from canon.named import suggest
from canon.ops.recurrence.cells import SLOPES, ChoGRUCell, GRUCell, LSTMCell, RNNCell
from canon.ops.recurrence.scan import run_cell


def rnn(
    x: jax.Array,
    kernel: jax.Array,
    recurrent: jax.Array,
    bias: jax.Array | None = None,
    initial: jax.Array | None = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    activation: str = 'tanh',
) -> tuple[jax.Array, jax.Array]:
    """Runs the network of Elman 1990: s_t = f(x_t U + s_{t-1} W + b).

    Args:
      x: sequences [B, T, I].
      kernel: U [I, H].
      recurrent: W [H, H].
      bias: b [H]; zero if None.
      initial: s_0 [B, H]; zero if None.
      lengths: steps of each sequence, [B] integers; all T if None.
      reverse: runs from the end of each sequence to its start.
      activation: f, 'tanh', 'relu', 'sigmoid' or 'linear'.

    Returns:
      the states [B, T, H] and the last one [B, H].

    Raises:
      UsageError: shapes do not fit, a length is beyond T, or there is no such activation.
    """
    # The backward pass knows the value of the activation and not its argument, so the slope must be a function of it.
    if activation not in SLOPES:
        raise UsageError(f'no recurrence has the activation {activation!r}{suggest(activation, SLOPES)}')
    start = None if initial is None else (initial,)
    # Cells carry tuples of states, of which this one has a single entry.
    outputs, (state,) = run_cell(RNNCell(activation), x, kernel, (recurrent,), bias, start, lengths, reverse)
    return outputs, state


def lstm(
    x: jax.Array,
    kernel: jax.Array,
    recurrent: jax.Array,
    bias: jax.Array | None = None,
    initial: tuple[jax.Array, jax.Array] | None = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    cell_kernel: jax.Array | None = None,
    cell_bias: jax.Array | None = None,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Runs the LSTM of Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, without peepholes.

    i, f, g, o = x_t kernel + h_{t-1} recurrent + bias
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t), or sigmoid(o) tanh(c_t cell_kernel + cell_bias)

    Args:
      x: sequences [B, T, I].
      kernel: [I, 4 H], gates in torch's order i, f, g, o.
      recurrent: [H, 4 H].
      bias: [4 H]; zero if None.
      initial: (h_0, c_0), each [B, H]; zeros if None.
      lengths: steps of each sequence, [B] integers; all T if None.
      reverse: runs from the end of each sequence to its start.
      cell_kernel: [H, H], a linear map of the cell before the output, which the LSTM of the literature does not
        have; the identity if None.
      cell_bias: [H], its bias; zero if None.

    Returns:
      the outputs h [B, T, H] and the last (h, c).

    Raises:
      UsageError: shapes do not fit or a length is beyond T.
    """
    # None is a tree without leaves: a cell without the map compiles to a program without it.
    _check_extra(recurrent, cell_kernel=cell_kernel, cell_bias=cell_bias)
    weights = (recurrent, cell_kernel, cell_bias)
    outputs, (h, c) = run_cell(LSTMCell(), x, kernel, weights, bias, initial, lengths, reverse)
    return outputs, (h, c)


def gru(
    x: jax.Array,
    kernel: jax.Array,
    recurrent: jax.Array,
    bias: jax.Array | None = None,
    candidate_bias: jax.Array | None = None,
    initial: jax.Array | None = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
    reset_after: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Runs the GRU of Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder".

    r = sigmoid(x_r + h W_r), z = sigmoid(x_z + h W_z), where x_. = x_t kernel + bias
    n = tanh(x_n + r (h W_n + candidate_bias)) with `reset_after`, tanh(x_n + (r h) W_n) without
    h' = (1 - z) n + z h (Bahdanau et al. 2015 exchange z and 1 - z)

    Args:
      x: sequences [B, T, I].
      kernel: [I, 3 H], gates in torch's order r, z, n.
      recurrent: [H, 3 H].
      bias: [3 H]; zero if None.
      candidate_bias: [H], only with `reset_after`; zero if None.
      initial: h_0 [B, H]; zero if None.
      lengths: steps of each sequence, [B] integers; all T if None.
      reverse: runs from the end of each sequence to its start.
      reset_after: whether the reset gate follows the recurrent product, as in torch and cuDNN, or precedes it, as in
        the paper.

    Returns:
      the outputs h [B, T, H] and the last one [B, H].

    Raises:
      UsageError: shapes do not fit, a length is beyond T, or a bias is given that this form does not have.
    """
    # Before the product a second bias would only add up with that of x.
    if candidate_bias is not None and not reset_after:
        raise UsageError('reset_after=False has no candidate_bias; leave it out')
    _check_extra(recurrent, candidate_bias=candidate_bias)
    start = None if initial is None else (initial,)
    weights = (recurrent, candidate_bias) if reset_after else (recurrent,)
    # Two cells, since their products differ: one with [H, 3 H], or [H, 2 H] and then [H, H], which waits for r.
    cell = GRUCell() if reset_after else ChoGRUCell()
    outputs, (state,) = run_cell(cell, x, kernel, weights, bias, start, lengths, reverse)
    return outputs, state


def _check_extra(recurrent: jax.Array, **extra: jax.Array | None) -> None:
    """Raises UsageError unless kernels are [H, H] and biases [H]."""
    # The weights that all cells have are checked in `run_cell`.
    for name, value in extra.items():
        shape = recurrent.shape[:1] * (2 if name.endswith('kernel') else 1)
        if value is not None and value.shape != shape:
            raise UsageError(f'{name} {value.shape} should be {shape}, since recurrent is {recurrent.shape}')
