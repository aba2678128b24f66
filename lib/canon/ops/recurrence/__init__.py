"""Recurrences over time: the vanilla RNN, LSTM and GRU as functions of whole sequences.

`reference` has each cell in a few lines. `rnn`, `lstm` and `gru` compute the same, faster: the cells of `cells` with
gradients by hand, in one of the `layouts`, in the loop of `scan`.

Sequences are [B, T, ...], kernels [..., n H] with the n gates side by side. With `lengths` [B] a sequence ends: beyond
its end the state is kept and the outputs are zero, and the padding reaches no output, state or gradient. `reverse`
reads each sequence from its own end. The state is float32 at least, whatever the kernels are. Gradients are in reverse
mode only, as of every `jax.custom_vjp`.
"""

from canon.ops.recurrence.functions import gru, lstm, rnn
from canon.ops.recurrence.scan import check_lengths

__all__ = ['check_lengths', 'gru', 'lstm', 'rnn']
