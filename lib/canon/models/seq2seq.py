"""Recurrent encoder-decoders that translate: without attention, and with Bahdanau's and Luong's.

`sutskever`: Sutskever, Vinyals & Le 2014, "Sequence to sequence learning with neural networks": a stack of LSTMs reads
the reversed source, another goes on from its last state. 384 M parameters as published; En-Fr BLEU 30.59 of one model
with a beam of 12 (Table 1).
`bahdanau`: Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and translate"
(RNNsearch): a GRU in both directions, additive attention from the decoder's state before each word, a maxout layer.
En-Fr BLEU 26.75 of all sentences, 28.45 trained on, where the same without attention has 17.82 (Table 1, RNNsearch-50).
`luong`: Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine translation", section 3.1:
global attention from the decoder's state after each word, h~ = tanh(W_c [c; h]), which is fed to the next step's input
(3.3). En-De BLEU 20.9 with dropout and 'general' scores before unknown words are replaced (Table 1).

All are called as `canon.models.transformer.Transformer` is:

    logits = model.apply(variables, source, lengths, inputs)             # inputs: the target behind a first token
    memory, state = model.apply(variables, source, lengths, 50, method='start')
    step = lambda state, tokens: model.apply(variables, memory, state, tokens, method='step')

`apply(..., mutable=['attention'])` also returns {'attention': {'cross': [B, 1, T, S]}}, each target word's weights.
A token outside of the vocabulary makes its row's logits NaN.
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
_STARTS = ('paper', 'glorot')


class Memory(NamedTuple):
    """What decoding looks at and does not change; all None without attention."""

    outputs: jax.Array | None  # [B, S, D], of the encoder
    projected: jax.Array | None  # [B, S, A], for additive scores
    mask: jax.Array | None  # [B, 1, S]


class State(NamedTuple):
    """What a step hands on, a row for each hypothesis: the layers' states, and h~ [R, H] where it is fed back."""

    layers: Any
    fed: jax.Array | None


class _Inits(NamedTuple):
    """Where weights start."""

    kernel: Callable
    recurrent: Callable
    embedding: Callable
    alignment: tuple[Callable, Callable]  # W and U, and v


class Shape(NamedTuple):
    """What all of these are told."""

    vocab: int
    source_vocab: int | None  # None: one embedding serves both
    cell: str
    embed: int
    hidden: int
    layers: int
    dropout: float
    inits: _Inits
    dtype: Any

    def recurrent(self, **more: Any) -> Any:
        inits: dict[str, Any] = dict(kernel_init=self.inits.kernel, recurrent_init=self.inits.recurrent)
        return _CELLS[self.cell](self.hidden, self.layers, dropout=self.dropout, dtype=self.dtype, **inits, **more)

    def dense(self, features: int, use_bias: bool = True) -> Dense:
        return Dense(features, use_bias, self.dtype, kernel_init=self.inits.kernel)

    def additive(self, features: int) -> AdditiveAttention:
        return AdditiveAttention(features, self.dtype, *self.inits.alignment)

    def embedding(self, vocab: int) -> linen.Module:
        return _Embedding(vocab, self.embed, self.inits.embedding, self.dtype)


class _Embedding(linen.Module):
    """Tokens [B, T] -> vectors [B, T, embed]."""

    vocab: int
    embed: int
    start: Callable
    dtype: Any

    @linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        table = self.param('embedding', self.start, (self.vocab, self.embed), jnp.float32)
        return jnp.take(table if self.dtype is None else table.astype(self.dtype), tokens, axis=0, fill_value=jnp.nan)


class EncoderDecoder(linen.Module):
    """What the models share: source [B, S] of `lengths` [B], target so far [B, T] -> logits [B, T, vocab], float32.

    The logits at t are of the token behind target[:, t].
    """

    shape: Shape

    def setup(self):
        s = self.shape
        self.embedding = s.embedding(s.vocab)
        if s.source_vocab is not None:
            self.source_embedding = s.embedding(s.source_vocab)
        self.drop = linen.Dropout(s.dropout)

    def __call__(self, source: jax.Array, lengths: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        memory, state = self.encode(source, lengths, train)
        logits, _, weights = self.decode(memory, state, target, train)
        if weights is not None and not self.is_initializing():
            self.sow('attention', 'cross', weights[:, None], reduce_fn=lambda _, new: new, init_fn=lambda: None)
        return logits

    def start(self, source: jax.Array, lengths: jax.Array, size: int) -> tuple[Memory, State]:
        """What `step` needs; `size`, the most tokens that will be decoded, bounds nothing here."""
        del size
        return self.encode(source, lengths)

    def extend(self, memory: Memory, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
        """Logits [R, T, vocab] for tokens [R, T] that go on from a state of R rows, whole multiples of the sources."""
        logits, state, _ = self.decode(memory, state, tokens)
        return logits, state

    def step(self, memory: Memory, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
        """Logits [R, vocab] behind one more token [R] a row."""
        logits, state = self.extend(memory, state, tokens[:, None])
        return logits[:, 0], state

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[Memory, State]:
        raise NotImplementedError

    def decode(
        self, memory: Memory, state: State, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, State, jax.Array | None]:
        """(logits, state, weights [B, K T, S]) for tokens [R, T], R = B K."""
        raise NotImplementedError

    def _source(self, source: jax.Array, lengths: jax.Array, train: bool) -> jax.Array:
        """The source's vectors [B, S, embed]."""
        if source.ndim != 2 or lengths.shape != source.shape[:1]:
            raise UsageError(
                f'an encoder-decoder takes source [B, S] and lengths [B], not {source.shape} and {lengths.shape}'
            )
        embedding = self.embedding if self.shape.source_vocab is None else self.source_embedding
        return self.drop(embedding(source), deterministic=not train)

    def _target(self, tokens: jax.Array, train: bool) -> jax.Array:
        if tokens.ndim != 2:
            raise UsageError(f'the target so far is [B, T], not {tokens.shape}')
        return self.drop(self.embedding(tokens), deterministic=not train)

    def _look(self, layer: linen.Module, memory: Memory, query: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(context [R, T, D], weights [B, K T, S]) of query [R, T, d]: a source's hypotheses are queries of one row."""
        assert memory.outputs is not None
        together = query.reshape(len(memory.outputs), -1, query.shape[-1])
        more = {} if memory.projected is None else {'projected': memory.projected}
        context, weights = layer(together, memory.outputs, memory.mask, weights=True, **more)
        return context.reshape(*query.shape[:2], context.shape[-1]), weights

    def _over_time(self, step: Callable, memory: Memory, state: State, x: jax.Array, train: bool) -> tuple[State, Any]:
        """`step(self, state, memory, x [R, I], train) -> (state, outputs)` along the second axis of x."""
        scanned = linen.scan(
            lambda module, state, memory, x: step(module, state, memory, x, train),
            variable_broadcast='params',
            split_rngs={'params': False, 'dropout': True},
            in_axes=(linen.broadcast, 1),
            out_axes=1,
        )
        return scanned(self, state, memory, x)


def _wide(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _by_source(memory: Memory, weights: jax.Array) -> jax.Array:
    """Weights [B K, T, S] as [B, K T, S]."""
    assert memory.mask is not None
    return weights.reshape(len(memory.mask), -1, weights.shape[-1])


def _reversed(x: jax.Array, lengths: jax.Array) -> jax.Array:
    """The first lengths[b] entries of row b, the last one first; what stands behind them stays."""
    place, lengths = jnp.arange(x.shape[1]), lengths[:, None]
    at = jnp.where(place < lengths, lengths - 1 - place, place)
    return jnp.take_along_axis(x, at.reshape(at.shape + (1,) * (x.ndim - 2)), 1)


class Luong(EncoderDecoder):
    """One stack reads, another writes from the first one's last state; attention is from the state after each word.

    score: 'dot', 'scaled_dot', 'general', 'concat', or None for no attention at all (Sutskever). feed: input feeding.
    reverse: the source is read backwards.
    """

    score: str | None
    feed: bool
    reverse: bool

    def setup(self):
        super().setup()
        s = self.shape
        self.encoder, self.decoder, self.output = s.recurrent(), s.recurrent(), s.dense(s.vocab)
        if self.score is not None:
            self.attention = self._attention()
            self.combine = s.dense(s.hidden, use_bias=False)

    def _attention(self) -> linen.Module:
        s = self.shape
        if self.score == 'general':
            return GeneralAttention(s.dtype, s.inits.kernel)
        if self.score == 'concat':
            return s.additive(s.hidden)
        return DotProductAttention(scaled=self.score == 'scaled_dot')

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[Memory, State]:
        x = self._source(source, lengths, train)
        x = _reversed(x, lengths) if self.reverse else x
        outputs, state = self.encoder(x, lengths, train=train)
        if self.score is None:
            return Memory(None, None, None), State(state, None)
        outputs = _reversed(outputs, lengths) if self.reverse else outputs
        projected = self.attention.project(outputs) if self.score == 'concat' else None
        fed = jnp.zeros((len(source), self.shape.hidden), outputs.dtype) if self.feed else None
        return Memory(outputs, projected, attention.padding_mask(lengths, source.shape[1])), State(state, fed)

    def decode(
        self, memory: Memory, state: State, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, State, jax.Array | None]:
        x, weights = self._target(tokens, train), None
        if self.feed:
            state, (h, weights) = self._over_time(Luong._fed_step, memory, state, x, train)
            weights = _by_source(memory, weights)
        else:
            h, layers = self.decoder(x, initial=state.layers, train=train)
            state = State(layers, None)
            if self.score is not None:
                h, weights = self._attended(memory, h)
        return _wide(self.output(self.drop(h, deterministic=not train))), state, weights

    def _attended(self, memory: Memory, h: jax.Array) -> tuple[jax.Array, jax.Array]:
        """h~ = tanh(W_c [c; h]): eq. 5."""
        context, weights = self._look(self.attention, memory, h)
        return jnp.tanh(self.combine(jnp.concatenate([context, h], -1))), weights

    def _fed_step(self, state: State, memory: Memory, x: jax.Array, train: bool) -> tuple[State, tuple]:
        assert state.fed is not None
        x = jnp.concatenate([x, state.fed.astype(x.dtype)], -1)
        h, layers = self.decoder(x[:, None], initial=state.layers, train=train)
        h, weights = self._attended(memory, h)
        by_row = weights.reshape(len(h), weights.shape[-1])
        return State(layers, h[:, 0].astype(state.fed.dtype)), (h[:, 0], by_row)


class Bahdanau(EncoderDecoder):
    """A GRU reads both ways, additive attention looks from the state before each word: the paper's appendix A.

    s_i = GRU([E y_{i-1}; c_i], s_{i-1}), s_0 = tanh(W_s h_1 backwards), and the logits are W_o maxout(U_o s_i +
    V_o E y_{i-1} + C_o c_i). The output sees s_i, as in eq. 4; in A.2.2 it is s_{i-1}, where a state would not know the
    word it has just read.
    """

    align: int
    maxout: int

    def setup(self):
        super().setup()
        s, reset = self.shape, {'reset_after': False} if self.shape.cell == 'gru' else {}
        self.encoder, self.decoder = s.recurrent(bidirectional=True, **reset), s.recurrent(**reset)
        self.bridge = s.dense(s.hidden)
        self.attention = s.additive(self.align)
        self.deep, self.output = s.dense(2 * self.maxout), s.dense(s.vocab)

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[Memory, State]:
        outputs, states = self.encoder(self._source(source, lengths, train), lengths, train=train)
        back = states[-1][0] if self.shape.cell == 'lstm' else states[-1]  # of the last layer's backward direction
        first = jnp.tanh(self.bridge(back.astype(outputs.dtype))).astype(back.dtype)
        entry = (first, jnp.zeros_like(first)) if self.shape.cell == 'lstm' else first
        mask = attention.padding_mask(lengths, source.shape[1])
        return Memory(outputs, self.attention.project(outputs), mask), State((entry,) * self.shape.layers, None)

    def decode(
        self, memory: Memory, state: State, tokens: jax.Array, train: bool = False
    ) -> tuple[jax.Array, State, jax.Array | None]:
        y = self._target(tokens, train)
        state, (h, context, weights) = self._over_time(Bahdanau._one_step, memory, state, y, train)
        pieces = self.deep(jnp.concatenate([h, y, context], -1))
        t = pieces.reshape(*pieces.shape[:-1], self.maxout, 2).max(-1)
        logits = _wide(self.output(self.drop(t, deterministic=not train)))
        return logits, state, _by_source(memory, weights)

    def _one_step(self, state: State, memory: Memory, y: jax.Array, train: bool) -> tuple[State, tuple]:
        s = state.layers[-1][0] if self.shape.cell == 'lstm' else state.layers[-1]
        context, weights = self._look(self.attention, memory, s[:, None].astype(y.dtype))
        x = jnp.concatenate([y, context[:, 0].astype(y.dtype)], -1)
        h, layers = self.decoder(x[:, None], initial=state.layers, train=train)
        return State(layers, None), (h[:, 0], context[:, 0], weights.reshape(len(y), weights.shape[-1]))


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
    """No attention. start: 'paper', all weights from U(-0.08, 0.08), or 'glorot' with orthogonal recurrent ones."""
    shape = _shape(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, _same(0.08), dtype)
    return Luong(shape, None, False, reverse)


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
    """Global attention. score: 'dot', 'general', 'concat', or 'scaled_dot'. start: 'paper', U(-0.1, 0.1), or 'glorot'.

    Raises UsageError for an unknown score.
    """
    if score not in _SCORES:
        raise UsageError(f'model.score={score!r} is no score{suggest(score, _SCORES)}')
    shape = _shape(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, _same(0.1), dtype)
    return Luong(shape, score, feed, reverse)


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
    """RNNsearch. align: width of the alignment model. maxout: l, the width of the maxout layer.

    start: 'paper', recurrent weights orthogonal and all others from N(0, 0.01^2) (appendix B.1), or 'glorot'.
    """
    _check_sizes(align=align, maxout=maxout)
    small = init.normal(0.01)
    paper = _Inits(small, init.orthogonal(), small, (init.normal(0.001), init.zeros))
    shape = _shape(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, paper, dtype)
    return Bahdanau(shape, align, maxout)


def _shape(vocab, source_vocab, cell, embed, hidden, layers, dropout, start, paper, dtype) -> Shape:
    _check_sizes(vocab=vocab, embed=embed, hidden=hidden, layers=layers)
    _check_sizes(source_vocab=vocab if source_vocab is None else source_vocab)
    if cell not in _CELLS:
        raise UsageError(f'model.cell={cell!r} is no cell{suggest(cell, _CELLS)}')
    if start not in _STARTS:
        raise UsageError(f'model.start={start!r} is no start{suggest(start, _STARTS)}')
    if not 0 <= dropout < 1:
        raise UsageError(f'model.dropout={dropout} is no share in [0, 1)')
    dense = init.glorot_uniform()
    ours = _Inits(dense, init.orthogonal(), init.normal(embed**-0.5), (dense, init.normal(hidden**-0.5)))
    kind = None if dtype is None else jnp.dtype(dtype)
    inits = ours if start == 'glorot' else paper
    return Shape(vocab, source_vocab, cell, embed, hidden, layers, dropout, inits, kind)


def _same(half: float) -> _Inits:
    """All of them U(-half, half)."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -half, half)

    return _Inits(draw, draw, draw, (draw, draw))


def _check_sizes(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
