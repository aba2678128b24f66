"""Recurrent language models, with the regularisers of AWD-LSTM.

Zaremba, Sutskever & Vinyals 2014, "Recurrent neural network regularization"; Merity, Keskar & Socher 2018,
"Regularizing and optimizing LSTM language models" (AWD-LSTM), whose section 4 names the rates below; Press & Wolf 2017
for tying the output layer to the embedding.

Tokens [B, T] -> logits [B, T, vocab] of the token after each one, from a carried state: truncated backpropagation
through time continues from where the previous window ended. Step by step, for `canon.ops.decoding`:

    state = model.start(rows)
    logits, state = model.apply(variables, state, prompt, method='extend')
    step = lambda state, tokens: model.apply(variables, state, tokens, method='step')
"""

from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init
from jax.tree_util import keystr

from canon.errors import UsageError
from canon.named import DropRate, suggest
from canon.nn import GRU, LSTM, RNN, Dense
from canon.ops import dense

_CELLS = {'lstm': LSTM, 'gru': GRU, 'rnn': RNN}


class Read(NamedTuple):
    """logits [B, T, vocab]; the state after; the last layer's outputs [B, T, H] as they are, and after dropout."""

    logits: jax.Array
    state: Any
    outputs: jax.Array
    dropped: jax.Array


class RecurrentLM(linen.Module):
    """An embedding, recurrent layers, and an output layer. See `language_model` for the fields."""

    vocab: int
    cell: str
    embed: int
    hidden: int
    layers: int
    tied: bool
    dropout: float
    dropout_input: float
    dropout_hidden: float
    dropout_embedding: float
    dtype: Any

    def setup(self):
        self.embedding = self.param('embedding', _uniform, (self.vocab, self.embed), jnp.float32)
        self.recurrent = [_CELLS[self.cell](width, dtype=self.dtype) for width in self.widths]
        if self.tied:
            self.bias = self.param('bias', init.zeros, (self.vocab,), jnp.float32)
        else:
            self.output = Dense(self.vocab, kernel_init=_uniform, dtype=self.dtype)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the layers."""
        return (self.hidden,) * (self.layers - 1) + (self.embed if self.tied else self.hidden,)

    def __call__(
        self, tokens: jax.Array, state: Any = None, train: bool = False, lengths: jax.Array | None = None
    ) -> Read:
        """Reads a window [B, T] from `state`: that of `start` or of the previous window; zeros if None.

        lengths: [B], where each row's tokens end and its padding begins; the returned state is the one there.
        """
        if tokens.ndim != 2:
            raise UsageError(f'a language model takes tokens [B, T], not {tokens.shape}')
        state = self.start(len(tokens)) if state is None else state
        x = self._drop(jnp.take(self._embedding(train), tokens, axis=0, fill_value=jnp.nan), self.dropout_input, train)
        after, outputs = [], x
        for place, (layer, before) in enumerate(zip(self.recurrent, state, strict=True), 1):
            outputs, last = layer(x, lengths, initial=before)
            after.append(last)
            x = self._drop(outputs, self.dropout if place == self.layers else self.dropout_hidden, train)
        logits = dense.product(x, self.embedding.T.astype(x.dtype)) + self.bias if self.tied else self.output(x)
        return Read(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), tuple(after), outputs, x)

    def start(self, rows: int) -> Any:
        """The state before the first token, zeros, layer by layer as the layers have it. Needs no variables."""
        return tuple(_CELLS[self.cell](width, parent=None).start(rows) for width in self.widths)

    def extend(self, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Logits [B, T, vocab] for tokens [B, T], such as a prompt, that go on from a state."""
        read = self(tokens, state)
        return read.logits, read.state

    def step(self, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Logits [B, vocab] after one more token [B] per row."""
        logits, state = self.extend(state, tokens[:, None])
        return logits[:, 0], state

    def _embedding(self, train: bool) -> jax.Array:
        """The table, in training without some words: each dropped in all of its places (section 4.3)."""
        table = self.embedding if self.dtype is None else self.embedding.astype(self.dtype)
        return self._masked(table, self.dropout_embedding, (self.vocab, 1)) if train else table

    def _drop(self, x: jax.Array, rate: float, train: bool) -> jax.Array:
        """One mask for all steps of a window (Gal & Ghahramani 2016; section 4.2): "locked" in the authors' code."""
        return self._masked(x, rate, (x.shape[0], 1, x.shape[2])) if train else x

    def _masked(self, x: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
        return _without(x, rate, shape, self.make_rng('dropout')) if rate else x


def language_model(
    vocab: int,
    cell: str = 'lstm',
    embed: int = 200,
    hidden: int = 200,
    layers: int = 2,
    tied: bool = False,
    dropout: DropRate = 0.0,
    dropout_input: DropRate = 0.0,
    dropout_hidden: DropRate = 0.0,
    dropout_embedding: DropRate = 0.0,
    dtype: str | None = None,
) -> RecurrentLM:
    """Zaremba et al.'s small LSTM without arguments; cell: 'lstm', 'gru' or 'rnn' (Mikolov et al. 2010).

    tied: the output layer is the embedding's transpose, and the last layer as wide as that. dropout: rate on the last
    layer's outputs, dropout_input on embeddings, dropout_hidden between layers, each one mask a window;
    dropout_embedding: of whole words. dtype: of the computation ('bfloat16'); parameters and states stay float32.
    Raises UsageError for another cell, sizes below 1 and rates outside [0, 1).
    """
    if cell not in _CELLS:
        raise UsageError(f'model.cell={cell!r} is unknown{suggest(cell, _CELLS)}')
    for key, size in (('vocab', vocab), ('embed', embed), ('hidden', hidden), ('layers', layers)):
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
    rates: dict[str, Any] = dict(
        dropout=dropout,
        dropout_input=dropout_input,
        dropout_hidden=dropout_hidden,
        dropout_embedding=dropout_embedding,
    )
    for key, rate in rates.items():
        if not 0 <= rate < 1:
            raise UsageError(f'model.{key}={rate} is no share in [0, 1)')
    kind = None if dtype is None else jnp.dtype(dtype)
    return RecurrentLM(vocab, cell, embed, hidden, layers, tied, **rates, dtype=kind)


def awd_lstm(
    vocab: int,
    embed: int = 400,
    hidden: int = 1150,
    layers: int = 3,
    dropout: DropRate = 0.4,
    dropout_input: DropRate = 0.4,
    dropout_hidden: DropRate = 0.25,
    dropout_embedding: DropRate = 0.1,
    dtype: str | None = None,
) -> RecurrentLM:
    """AWD-LSTM as its authors' README trains it on PTB: tied, 24,210,800 parameters with 10,000 words
    (theirs prints 24,221,600: cuDNN has two biases for every one here).

    On WikiText-2 dropout_hidden=0.2 and dropout_input=0.65. The drop of recurrent weights is apart: `weight_drop`.
    """
    rates = dropout, dropout_input, dropout_hidden, dropout_embedding
    return language_model(vocab, 'lstm', embed, hidden, layers, True, *rates, dtype)


def weight_drop(params: Any, rate: float, key: jax.Array) -> Any:
    """The parameters without a share `rate` of the recurrent weights, the others divided by 1 - rate.

    DropConnect on hidden-to-hidden matrices, one mask a window: Merity et al. 2018, section 2.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    keys = jax.random.split(key, len(leaves))
    drop = [(rate if 'recurrent' in keystr(path[-1:]) else 0.0) for path, _ in leaves]
    return treedef.unflatten([_without(x, r, x.shape, k) for (_, x), r, k in zip(leaves, drop, keys, strict=True)])


def _without(x: jax.Array, rate: float, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """x with a mask of `shape` dropped."""
    if not rate:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, shape), x / (1 - rate), 0).astype(x.dtype)


def _uniform(key, shape, dtype=jnp.float32) -> jax.Array:
    """U(-0.1, 0.1), as AWD-LSTM's embedding and Zaremba et al.'s small model."""
    return jax.random.uniform(key, shape, dtype, -0.1, 0.1)
