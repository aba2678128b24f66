"""Recurrent encoder-decoders for translation: without attention, and with that of Bahdanau et al. and Luong et al.

`sutskever`: Sutskever, Vinyals & Le 2014, "Sequence to sequence learning with neural networks": a stack of LSTMs reads
the reversed source, another continues from its last state. 384 M parameters as published; En-Fr BLEU 30.59 of a single
model with a beam of 12 (Table 1).
`bahdanau`: Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and translate"
(RNNsearch): a bidirectional GRU, additive attention from the decoder's state before each word, a maxout layer. En-Fr
BLEU 26.75 on all sentences, 28.45 when trained longer; the same without attention has 17.82 (Table 1, RNNsearch-50).
`luong`: Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine translation", section 3.1:
global attention from the decoder's state after each word, h~ = tanh(W_c [c; h]), which is part of the next step's input
(input feeding, section 3.3). En-De BLEU 20.9 with dropout and 'general' scores, before unknown words are replaced
(Table 1).

All have the interface of `canon.models.protocols.TranslationModel`, as `canon.models.transformer.Transformer` does:

    logits = model.apply(variables, source, lengths, inputs)             # inputs: the target shifted right by one
    memory, state = model.apply(variables, source, lengths, 50, method='start')
    step = lambda state, tokens: model.apply(variables, memory, state, tokens, method='step')

`apply(..., mutable=['attention'])` also returns {'attention': {'cross': [B, 1, T, S]}}, the weights of each target
word. A token outside the vocabulary makes the logits of its row NaN.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.named import DropRate, suggest
from canon.nn import GRU, LSTM, RNN, Dense
from canon.nn.attention import AdditiveAttention, DotProductAttention, GeneralAttention
from canon.ops import attention

_CELLS = {'lstm': LSTM, 'gru': GRU, 'rnn': RNN}
_SCORES = ('dot', 'scaled_dot', 'general', 'concat')
_INITIALISATIONS = ('paper', 'glorot')


class EncodedSource(NamedTuple):
    """The source as attention reads it; all fields are None in a model without attention."""

    outputs: jax.Array | None  # [B, S, D], of the encoder
    projected: jax.Array | None  # [B, S, A], U h of additive attention
    mask: jax.Array | None  # [B, 1, S], False on padding


class DecoderState(NamedTuple):
    """The decoder's state, one row per hypothesis."""

    layers: Any  # the recurrent state of each layer
    fed: jax.Array | None  # [R, H], h~ of the last step, with input feeding


class _Initialisers(NamedTuple):
    kernel: Callable
    recurrent: Callable
    embedding: Callable
    alignment: tuple[Callable, Callable]  # of W and U, and of v


class RecurrentSettings(NamedTuple):
    """The hyperparameters that encoder and decoder share, and the layers made from them."""

    vocab: int
    source_vocab: int | None  # None: both languages share one embedding
    cell: str
    embed: int
    hidden: int
    layers: int
    dropout: float
    initialisers: _Initialisers
    dtype: Any

    def make_recurrent(self, **arguments: Any) -> Any:
        weights: dict[str, Any] = dict(kernel_init=self.initialisers.kernel, recurrent_init=self.initialisers.recurrent)
        return _CELLS[self.cell](
            self.hidden, self.layers, dropout=self.dropout, dtype=self.dtype, **weights, **arguments
        )

    def make_dense(self, features: int, use_bias: bool = True) -> Dense:
        return Dense(features, use_bias, self.dtype, kernel_init=self.initialisers.kernel)

    def make_additive_attention(self, features: int) -> AdditiveAttention:
        return AdditiveAttention(features, self.dtype, *self.initialisers.alignment)

    def make_embedding(self, vocab: int) -> linen.Module:
        return _Embedding(vocab, self.embed, self.initialisers.embedding, self.dtype)


class _Embedding(linen.Module):
    """Maps tokens [B, T] to vectors [B, T, embed]."""

    vocab: int
    embed: int
    embedding_init: Callable
    dtype: Any

    @linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        table = self.param('embedding', self.embedding_init, (self.vocab, self.embed), jnp.float32)
        return jnp.take(table if self.dtype is None else table.astype(self.dtype), tokens, axis=0, fill_value=jnp.nan)


class EncoderDecoder(linen.Module):
    """The common part of the models: a source [B, S] of `lengths` [B] and a target so far [B, T] give logits.

    Logits are [B, T, vocab] in float32 or wider; those at t are of the token after target[:, t]. Subclasses define
    `encode` and `decode`.
    """

    settings: RecurrentSettings

    def setup(self):
        s = self.settings
        self.embedding = s.make_embedding(s.vocab)
        if s.source_vocab is not None:
            self.source_embedding = s.make_embedding(s.source_vocab)
        self.drop = linen.Dropout(s.dropout)

    def __call__(self, source: jax.Array, lengths: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        memory, state = self.encode(source, lengths, train)
        logits, _, weights = self.decode(memory, state, target, train)
        if weights is not None and not self.is_initializing():
            # One array instead of the tuple that `sow` grows by default; the axis of heads is that of the Transformer.
            self.sow('attention', 'cross', weights[:, None], reduce_fn=lambda _, new: new, init_fn=lambda: None)
        return logits

    def start(self, source: jax.Array, lengths: jax.Array, size: int) -> tuple[EncodedSource, DecoderState]:
        """Returns (memory, state) for decoding; a recurrent state has one size, whatever `size` is."""
        del size
        return self.encode(source, lengths)

    def extend(self, memory: EncodedSource, state: DecoderState, tokens: jax.Array) -> tuple[jax.Array, DecoderState]:
        """Returns logits [R, T, vocab] for tokens [R, T] that continue from `state`; R is a multiple of the sources."""
        logits, state, _ = self.decode(memory, state, tokens)
        return logits, state

    def step(self, memory: EncodedSource, state: DecoderState, tokens: jax.Array) -> tuple[jax.Array, DecoderState]:
        """Returns logits [R, vocab] of the token after `tokens` [R], and the new state."""
        logits, state = self.extend(memory, state, tokens[:, None])
        return logits[:, 0], state

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[EncodedSource, DecoderState]:
        """Returns the encoded source and the decoder's first state."""
        raise NotImplementedError

    def decode(
        self, memory: EncodedSource, state: DecoderState, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, DecoderState, jax.Array | None]:
        """Reads target tokens [R, T] from `state`, where R = B K for K hypotheses per source.

        Returns:
          Logits [R, T, vocab], the new state, and the attention weights [B, K T, S], None without attention.
        """
        raise NotImplementedError

    def _embed_source(self, source: jax.Array, lengths: jax.Array, train: bool) -> jax.Array:
        if source.ndim != 2 or lengths.shape != source.shape[:1]:
            raise UsageError(
                f'an encoder-decoder takes source [B, S] and lengths [B], not {source.shape} and {lengths.shape}'
            )
        embedding = self.embedding if self.settings.source_vocab is None else self.source_embedding
        return self.drop(embedding(source), deterministic=not train)

    def _embed_target(self, tokens: jax.Array, train: bool) -> jax.Array:
        if tokens.ndim != 2:
            raise UsageError(f'expected the target so far, [B, T], got {tokens.shape}')
        return self.drop(self.embedding(tokens), deterministic=not train)

    def _attend(self, layer: linen.Module, memory: EncodedSource, query: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the context [R, T, D] of queries [R, T, d], and their weights [B, K T, S]."""
        assert memory.outputs is not None
        # The K hypotheses of one source become K T queries of one row, so its memory is not repeated.
        queries = query.reshape(len(memory.outputs), -1, query.shape[-1])
        projected = {} if memory.projected is None else {'projected': memory.projected}
        context, weights = layer(queries, memory.outputs, memory.mask, weights=True, **projected)
        return context.reshape(*query.shape[:2], context.shape[-1]), weights

    def _scan(
        self, step: Callable, memory: EncodedSource, state: DecoderState, x: jax.Array, train: bool
    ) -> tuple[DecoderState, Any]:
        """Scans `step(self, state, memory, x [R, I], train) -> (state, outputs)` along the time axis of x [R, T, I]."""
        # A new dropout mask per step, the same parameters; the memory is broadcast, and not copied into every step.
        scanned = linen.scan(
            lambda module, state, memory, x: step(module, state, memory, x, train),
            variable_broadcast='params',
            split_rngs={'params': False, 'dropout': True},
            in_axes=(linen.broadcast, 1),
            out_axes=1,
        )
        return scanned(self, state, memory, x)


def _widen(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _group_by_source(memory: EncodedSource, weights: jax.Array) -> jax.Array:
    """Reshapes weights [B K, T, S] to [B, K T, S]."""
    assert memory.mask is not None
    return weights.reshape(len(memory.mask), -1, weights.shape[-1])


def _reverse(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """Reverses the first lengths[b] entries of each row b of x [B, S, ...]; the padding after them stays in place."""
    position, lengths = jnp.arange(x.shape[1]), lengths[:, None]
    # A gather and not a flip, which would put the padding first.
    index = jnp.where(position < lengths, lengths - 1 - position, position)
    return jnp.take_along_axis(x, index.reshape(index.shape + (1,) * (x.ndim - 2)), 1)


class Luong(EncoderDecoder):
    """A stack of layers encodes, another decodes from its last state; attention is from the state after each word.

    Attributes:
      score: 'dot', 'scaled_dot', 'general' or 'concat'; None for no attention (Sutskever et al.).
      feed: input feeding.
      reverse: reads the source backwards.
    """

    score: str | None
    feed: bool
    reverse: bool

    def setup(self):
        super().setup()
        s = self.settings
        self.encoder, self.decoder, self.output = s.make_recurrent(), s.make_recurrent(), s.make_dense(s.vocab)
        if self.score is not None:
            self.attention = self._make_attention()
            self.combine = s.make_dense(s.hidden, use_bias=False)

    def _make_attention(self) -> linen.Module:
        s = self.settings
        if self.score == 'general':
            return GeneralAttention(s.dtype, s.initialisers.kernel)
        if self.score == 'concat':
            return s.make_additive_attention(s.hidden)
        return DotProductAttention(scaled=self.score == 'scaled_dot')

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[EncodedSource, DecoderState]:
        x = self._embed_source(source, lengths, train)
        x = _reverse(x, lengths) if self.reverse else x
        outputs, state = self.encoder(x, lengths, train=train)
        if self.score is None:
            return EncodedSource(None, None, None), DecoderState(state, None)
        outputs = _reverse(outputs, lengths) if self.reverse else outputs  # back in the order of the source
        projected = self.attention.project(outputs) if self.score == 'concat' else None
        fed = jnp.zeros((len(source), self.settings.hidden), outputs.dtype) if self.feed else None
        mask = attention.padding_mask(lengths, source.shape[1])
        return EncodedSource(outputs, projected, mask), DecoderState(state, fed)

    def decode(
        self, memory: EncodedSource, state: DecoderState, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, DecoderState, jax.Array | None]:
        x, weights = self._embed_target(tokens, train), None
        if self.feed:
            state, (h, weights) = self._scan(Luong._step_with_feeding, memory, state, x, train)
            weights = _group_by_source(memory, weights)
        else:  # the recurrence does not depend on attention, so it runs over all positions first
            h, layers = self.decoder(x, initial=state.layers, train=train)
            state = DecoderState(layers, None)
            if self.score is not None:
                h, weights = self._combine(memory, h)
        return _widen(self.output(self.drop(h, deterministic=not train))), state, weights

    def _combine(self, memory: EncodedSource, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes h~ = tanh(W_c [c; h]) (eq. 5) and the attention weights."""
        context, weights = self._attend(self.attention, memory, h)
        return jnp.tanh(self.combine(jnp.concatenate([context, h], -1))), weights

    def _step_with_feeding(
        self, state: DecoderState, memory: EncodedSource, x: jax.Array, train: bool
    ) -> tuple[DecoderState, tuple]:
        assert state.fed is not None
        x = jnp.concatenate([x, state.fed.astype(x.dtype)], -1)
        h, layers = self.decoder(x[:, None], initial=state.layers, train=train)
        h, weights = self._combine(memory, h)
        weights = weights.reshape(len(h), weights.shape[-1])
        return DecoderState(layers, h[:, 0].astype(state.fed.dtype)), (h[:, 0], weights)


class Bahdanau(EncoderDecoder):
    """A bidirectional GRU encodes; additive attention from the state before each word (appendix A of the paper).

    s_i = GRU([E y_{i-1}; c_i], s_{i-1}), s_0 = tanh(W_s h_1 of the backward direction), and the logits are
    W_o maxout(U_o s_i + V_o E y_{i-1} + C_o c_i). The output is computed from s_i, as in eq. 4 of the paper; A.2.2 has
    s_{i-1}, a state that has not yet read y_{i-1}.
    """

    align: int
    maxout: int

    def setup(self):
        super().setup()
        # Cho et al. 2014, whose GRU the paper uses, reset the state before the matrix product; cuDNN resets after it.
        s, reset = self.settings, {'reset_after': False} if self.settings.cell == 'gru' else {}
        self.encoder, self.decoder = s.make_recurrent(bidirectional=True, **reset), s.make_recurrent(**reset)
        self.bridge = s.make_dense(s.hidden)
        self.attention = s.make_additive_attention(self.align)
        self.deep, self.output = s.make_dense(2 * self.maxout), s.make_dense(s.vocab)

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[EncodedSource, DecoderState]:
        # The state of an LSTM is (h, c), that of the other cells h.
        lstm = self.settings.cell == 'lstm'
        outputs, states = self.encoder(self._embed_source(source, lengths, train), lengths, train=train)
        backward = states[-1][0] if lstm else states[-1]  # the last layer's backward direction has read it all
        first = jnp.tanh(self.bridge(backward.astype(outputs.dtype))).astype(backward.dtype)
        # The paper has a GRU; the cell of an LSTM starts at zero.
        initial = (first, jnp.zeros_like(first)) if lstm else first
        mask = attention.padding_mask(lengths, source.shape[1])
        memory = EncodedSource(outputs, self.attention.project(outputs), mask)
        # The paper has one layer: further ones start from the same state.
        return memory, DecoderState((initial,) * self.settings.layers, None)

    def decode(
        self, memory: EncodedSource, state: DecoderState, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, DecoderState, jax.Array | None]:
        y = self._embed_target(tokens, train)
        state, (h, context, weights) = self._scan(Bahdanau._step_with_attention, memory, state, y, train)
        # U_o, V_o and C_o as one matrix over the concatenation; adjacent outputs are the pairs of the maxout.
        pairs = self.deep(jnp.concatenate([h, y, context], -1))
        t = pairs.reshape(*pairs.shape[:-1], self.maxout, 2).max(-1)
        logits = _widen(self.output(self.drop(t, deterministic=not train)))
        return logits, state, _group_by_source(memory, weights)

    def _step_with_attention(
        self, state: DecoderState, memory: EncodedSource, y: jax.Array, train: bool
    ) -> tuple[DecoderState, tuple]:
        s = state.layers[-1][0] if self.settings.cell == 'lstm' else state.layers[-1]
        context, weights = self._attend(self.attention, memory, s[:, None].astype(y.dtype))
        x = jnp.concatenate([y, context[:, 0].astype(y.dtype)], -1)
        h, layers = self.decoder(x[:, None], initial=state.layers, train=train)
        return DecoderState(layers, None), (h[:, 0], context[:, 0], weights.reshape(len(y), weights.shape[-1]))


# --- constructors -------------------------------------------------------------------------------------------------


def sutskever(
    vocab: int,
    source_vocab: int | None = None,
    embed: int = 1000,
    hidden: int = 1000,
    layers: int = 4,
    dropout: DropRate = 0.0,
    cell: str = 'lstm',
    reverse: bool = True,
    start: str = 'paper',
    dtype: str | None = None,
) -> Luong:
    """Builds an encoder-decoder without attention; the defaults are the paper's.

    Args:
      vocab: tokens of the target vocabulary.
      source_vocab: tokens of the source vocabulary; if None, both languages share one embedding.
      embed: width of the embeddings.
      hidden: units of each layer.
      layers: of the encoder, and as many of the decoder.
      dropout: rate on embeddings, between layers and on the last outputs.
      cell: 'lstm', 'gru' or 'rnn'.
      reverse: reads the source backwards (section 3.3 of the paper).
      start: initialisation, 'paper' for all weights from U(-0.08, 0.08), or 'glorot' with orthogonal recurrent weights.
      dtype: of the computation ('bfloat16'); parameters stay float32.

    Raises:
      UsageError: an unknown cell or initialisation, or a size or rate out of range.
    """
    settings = _settings(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, _uniform(0.08), dtype)
    return Luong(settings, None, False, reverse)


def luong(
    vocab: int,
    source_vocab: int | None = None,
    embed: int = 1000,
    hidden: int = 1000,
    layers: int = 4,
    score: str = 'general',
    feed: bool = True,
    dropout: DropRate = 0.2,
    cell: str = 'lstm',
    reverse: bool = True,
    start: str = 'paper',
    dtype: str | None = None,
) -> Luong:
    """Builds an encoder-decoder with global attention; arguments as in `sutskever`, and three more.

    Args:
      score: of attention: 'dot', 'general', 'concat' (additive), or 'scaled_dot'.
      feed: input feeding: h~ of each step is part of the next step's input.
      start: initialisation, 'paper' for U(-0.1, 0.1), or 'glorot'.

    Raises:
      UsageError: an unknown score, or as in `sutskever`.
    """
    if score not in _SCORES:
        raise UsageError(f'model.score={score!r} is not a score of attention{suggest(score, _SCORES)}')
    settings = _settings(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, _uniform(0.1), dtype)
    return Luong(settings, score, feed, reverse)


def bahdanau(
    vocab: int,
    source_vocab: int | None = None,
    embed: int = 620,
    hidden: int = 1000,
    layers: int = 1,
    align: int = 1000,
    maxout: int = 500,
    dropout: DropRate = 0.0,
    cell: str = 'gru',
    start: str = 'paper',
    dtype: str | None = None,
) -> Bahdanau:
    """Builds RNNsearch; arguments as in `sutskever`, and two more.

    Args:
      align: width of the alignment model.
      maxout: l, the width of the maxout layer.
      start: initialisation, 'paper' for orthogonal recurrent weights and all others from N(0, 0.01^2) (appendix B.1),
        or 'glorot'.

    Raises:
      UsageError: as in `sutskever`.
    """
    _check_sizes(align=align, maxout=maxout)
    small = init.normal(0.01)
    paper = _Initialisers(small, init.orthogonal(), small, (init.normal(0.001), init.zeros))
    settings = _settings(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, paper, dtype)
    return Bahdanau(settings, align, maxout)


def _settings(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, paper, dtype) -> RecurrentSettings:
    _check_sizes(vocab=vocab, embed=embed, hidden=hidden, layers=layers)
    _check_sizes(source_vocab=vocab if source_vocab is None else source_vocab)
    if cell not in _CELLS:
        raise UsageError(f'model.cell={cell!r} is not a cell{suggest(cell, _CELLS)}')
    if start not in _INITIALISATIONS:
        raise UsageError(f'model.start={start!r} is not an initialisation{suggest(start, _INITIALISATIONS)}')
    if not 0 <= dropout < 1:
        raise UsageError(f'model.dropout={dropout} must be at least 0 and below 1')
    dense = init.glorot_uniform()
    glorot = _Initialisers(dense, init.orthogonal(), init.normal(embed**-0.5), (dense, init.normal(hidden**-0.5)))
    kind = None if dtype is None else jnp.dtype(dtype)
    initialisers = glorot if start == 'glorot' else paper
    return RecurrentSettings(vocab, source_vocab, cell, embed, hidden, layers, dropout, initialisers, kind)


def _uniform(bound: float) -> _Initialisers:
    """Returns U(-bound, bound) for all weights."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return _Initialisers(draw, draw, draw, (draw, draw))


def _check_sizes(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
