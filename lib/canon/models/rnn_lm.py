"""Recurrent language models, with the regularisation of AWD-LSTM.

Zaremba, Sutskever & Vinyals 2014, "Recurrent neural network regularization"; Merity, Keskar & Socher 2018,
"Regularizing and optimizing LSTM language models" (AWD-LSTM), whose section 4 defines the rates below; Press & Wolf
2017 for tying the output layer to the embedding.

Tokens [B, T] become logits [B, T, V] of the token after each one, given the state of the previous window: truncated
backpropagation through time (`canon.models.protocols.LanguageModel`). Token by token, for `canon.ops.decoding`:

    state = model.start(batch_size, length)
    logits, state = model.apply(variables, state, prompt, method='extend')
    step = lambda state, tokens: model.apply(variables, state, tokens, method='step')
"""

from typing import Any, ClassVar

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init
from jax.tree_util import keystr

from canon.errors import UsageError
from canon.models.protocols import LanguageOutput
from canon.named import DropRate, suggest
from canon.nn import GRU, LSTM, RNN, Dense
from canon.ops import dense

_CELLS = {'lstm': LSTM, 'gru': GRU, 'rnn': RNN}


class RecurrentLM(linen.Module):
    """An embedding, recurrent layers and an output layer; see `language_model` for the fields."""

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
    carries_state: ClassVar[bool] = True

    def setup(self):
        self.embedding = self.param('embedding', _uniform, (self.vocab, self.embed), jnp.float32)
        self.recurrent = [_CELLS[self.cell](width, dtype=self.dtype) for width in self.widths]
        if self.tied:
            self.bias = self.param('bias', init.zeros, (self.vocab,), jnp.float32)
        else:
            self.output = Dense(self.vocab, kernel_init=_uniform, dtype=self.dtype)

    @property
    def widths(self) -> tuple[int, ...]:
        """The units of each layer; a tied output layer needs a last layer as wide as the embedding."""
        return (self.hidden,) * (self.layers - 1) + (self.embed if self.tied else self.hidden,)

    def __call__(
        self, tokens: jax.Array, state: Any = None, train: bool = False, lengths: jax.Array | None = None
    ) -> LanguageOutput:
        """Reads a window [B, T]; see `LanguageModel`. A token outside the vocabulary makes its row NaN."""
        if tokens.ndim != 2:
            raise UsageError(f'a language model takes tokens [B, T], not {tokens.shape}')
        state = self.start(len(tokens)) if state is None else state
        # An id beyond the vocabulary makes its row NaN, instead of passing for another word.
        x = self._drop(jnp.take(self._embedding(train), tokens, axis=0, fill_value=jnp.nan), self.dropout_input, train)
        last_states, outputs = [], x
        for number, (layer, initial) in enumerate(zip(self.recurrent, state, strict=True), 1):
            # The layers are separate modules, since dropout and widths change from layer to layer.
            outputs, last_state = layer(x, lengths, initial=initial)
            last_states.append(last_state)
            x = self._drop(outputs, self.dropout if number == self.layers else self.dropout_hidden, train)
        # Tied: the score of a word is the product of the output with the word's embedding.
        logits = dense.product(x, self.embedding.T.astype(x.dtype)) + self.bias if self.tied else self.output(x)
        # The loss normalises over the vocabulary, for which bfloat16 has too few digits.
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return LanguageOutput(logits, tuple(last_states), outputs, x)

    def start(self, batch_size: int, length: int = 0) -> Any:
        """Returns the zero state of each layer. A recurrent state has one size, whatever `length` is."""
        del length
        # `parent=None`: within a bound module linen would otherwise register the cell as a submodule.
        return tuple(_CELLS[self.cell](width, parent=None).start(batch_size) for width in self.widths)

    def extend(self, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits [B, T, V] for tokens [B, T] that continue from `state`, and the new state."""
        output = self(tokens, state)
        return output.logits, output.state

    def step(self, state: Any, tokens: jax.Array) -> tuple[jax.Array, Any]:
        """Returns logits [B, V] of the token after `tokens` [B], and the new state."""
        logits, state = self.extend(state, tokens[:, None])
        return logits[:, 0], state

    def _embedding(self, train: bool) -> jax.Array:
        """Returns the embedding matrix; in training some words are zero at all of their positions (section 4.3)."""
        table = self.embedding if self.dtype is None else self.embedding.astype(self.dtype)
        # One mask over rows of the table, so that a word is dropped at all of its positions.
        return self._drop_masked(table, self.dropout_embedding, (self.vocab, 1)) if train else table

    def _drop(self, x: jax.Array, rate: float, train: bool) -> jax.Array:
        """Drops units with one mask for all steps of a window (Gal & Ghahramani 2016; section 4.2, "locked")."""
        return self._drop_masked(x, rate, (x.shape[0], 1, x.shape[2])) if train else x

    def _drop_masked(self, x: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
        return _drop_elements(x, rate, shape, self.make_rng('dropout')) if rate else x


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
    """Builds a recurrent language model; the defaults are Zaremba et al.'s small LSTM.

    Args:
      vocab: V, tokens of the vocabulary.
      cell: 'lstm', 'gru' or 'rnn' (Mikolov et al. 2010).
      embed: width of the embedding.
      hidden: units of each layer.
      layers: number of recurrent layers.
      tied: uses the transpose of the embedding as output layer; the last layer then has `embed` units.
      dropout: rate on the outputs of the last layer.
      dropout_input: rate on embeddings.
      dropout_hidden: rate between layers. These three have one mask per window.
      dropout_embedding: rate of whole words.
      dtype: of the computation ('bfloat16'); parameters and states stay float32.

    Raises:
      UsageError: an unknown cell, a size below 1 or a rate outside [0, 1).
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
            raise UsageError(f'model.{key}={rate} must be at least 0 and below 1')
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
    """Builds AWD-LSTM with the settings of its authors' README for PTB; arguments as in `language_model`.

    Tied, 24,210,800 parameters with 10,000 words (theirs prints 24,221,600: cuDNN has two bias vectors for each of
    ours). For WikiText-2 they set dropout_hidden=0.2 and dropout_input=0.65. DropConnect on the recurrent weights is
    a transformation of the parameters, `weight_drop`, applied by the loss.
    """
    # Tied (section 4.4), with an embedding narrower than the hidden layers (section 4.5).
    rates = dropout, dropout_input, dropout_hidden, dropout_embedding
    return language_model(vocab, 'lstm', embed, hidden, layers, True, *rates, dtype)


def weight_drop(params: Any, rate: float, key: jax.Array) -> Any:
    """Zeroes each recurrent weight with probability `rate` and divides the others by 1 - rate.

    DropConnect on the hidden-to-hidden matrices, one mask per window: Merity et al. 2018, section 2.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    keys = jax.random.split(key, len(leaves))
    # The keys are split by leaf, so a leaf's mask does not depend on which others are dropped.
    rates = [(rate if 'recurrent' in keystr(path[-1:]) else 0.0) for path, _ in leaves]
    dropped = [_drop_elements(x, r, x.shape, k) for (_, x), r, k in zip(leaves, rates, keys, strict=True)]
    return treedef.unflatten(dropped)


def _drop_elements(x: jax.Array, rate: float, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    """Multiplies x by a Bernoulli mask of `shape`, which broadcasts to x, over 1 - rate."""
    if not rate:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, shape), x / (1 - rate), 0).astype(x.dtype)


def _uniform(key, shape, dtype=jnp.float32) -> jax.Array:
    """Draws from U(-0.1, 0.1), as AWD-LSTM's embedding and all weights of Zaremba et al.'s small model."""
    return jax.random.uniform(key, shape, dtype, -0.1, 0.1)
