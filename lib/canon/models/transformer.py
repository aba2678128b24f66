"""The Transformer: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention is all you need",
2017 (arXiv 1706.03762), and its decoder alone as a language model.

Post-norm, sinusoidal positions, embeddings times sqrt(d_model), one matrix for both embeddings and the output layer
(section 3.4), no biases in attention, dropout on embeddings plus positions and on every sub-layer's output (5.4).

With a vocabulary of 37,000: base 63,045,632 parameters (the paper's Table 3 says 65 M; attention's biases and a head's
widths do not explain the rest), big 214,171,648 (213 M). BLEU on newstest2014 En-De 27.3 and 28.4, En-Fr 38.1 and 41.8
(Table 2), with a beam of 4, a length penalty of 0.6 and the last 5 or 20 checkpoints averaged.

All positions at once, for training, and step by step with a cache, for `canon.ops.decoding`:

    logits = model.apply(variables, source, lengths, inputs)             # inputs: the target behind a first token
    memory, state = model.apply(variables, source, lengths, 50, method='start')
    step = lambda state, tokens: model.apply(variables, memory, state, tokens, method='step')
    decoding.beam_search(step, state, first, length=50, end=2, beams=4)  # inside jax.jit

`apply(..., mutable=['attention'])` also returns every head's weights: {'attention': {block: {'self', 'cross': [B, h, T,
S]}}}. A token outside of the vocabulary makes its row's logits NaN.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.named import DropRate
from canon.nn import Dense
from canon.nn.attention import Cache, MultiHeadAttention
from canon.ops import attention


class Shape(NamedTuple):
    """What every block of a Transformer is told; names as in the paper's Table 3."""

    d_model: int
    d_ff: int
    heads: int
    d_k: int
    d_v: int
    dropout: float
    attention_dropout: float
    norm: str  # 'post': LN(x + f(x)), as in the paper; 'pre': x + f(LN(x)), and LN at the end
    bias: bool  # in attention
    activation: str | Callable
    dtype: Any


class Memory(NamedTuple):
    """What decoding looks at and does not change: the source's keys and values, layer by layer, and its mask."""

    layers: tuple[Cache, ...]
    mask: jax.Array  # [B, 1, S]


class State(NamedTuple):
    """What decoding has written: `position` tokens, a scalar, as keys and values, layer by layer."""

    position: jax.Array
    layers: tuple[Cache, ...]


class Block(linen.Module):
    """Self-attention, attention to a memory (`cross`), and a feed-forward network, each with a residual around it."""

    shape: Shape
    cross: bool = False

    def setup(self):
        s = self.shape
        keywords: dict[str, Any] = dict(dropout=s.attention_dropout, use_bias=s.bias, dtype=s.dtype)
        dense: dict[str, Any] = dict(dtype=s.dtype, kernel_init=init.glorot_uniform())
        self.attention = MultiHeadAttention(s.heads, s.d_k, s.d_v, s.d_model, **keywords)
        self.attention_norm = _norm(s)
        if self.cross:
            self.cross_attention = MultiHeadAttention(s.heads, s.d_k, s.d_v, s.d_model, **keywords)
            self.cross_norm = _norm(s)
        self.wide = Dense(s.d_ff, **dense)
        self.narrow = Dense(s.d_model, **dense)
        self.feed_norm = _norm(s)
        self.drop = linen.Dropout(s.dropout)

    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array | None,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """x [B, T, d]; mask [B, T, T] or what broadcasts to it; memory [B, S, d] with its mask [B, 1, S]."""
        x = self._residual(
            self.attention_norm, x, lambda y: self._seen('self', self.attention, y, y, mask, train), train
        )
        if memory is not None:
            across = partial(self._seen, 'cross', self.cross_attention, memory=memory, mask=memory_mask, train=train)
            x = self._residual(self.cross_norm, x, across, train)
        return self._residual(self.feed_norm, x, self.feed_forward, train)

    def extend(
        self, x: jax.Array, cache: Cache, position: jax.Array, memory: Cache | None, memory_mask: jax.Array | None
    ) -> tuple[jax.Array, Cache]:
        """`__call__` under a causal mask, for x [R, T, d] that goes on at `position`.

        R is a multiple of the memory's rows: hypotheses on one source are more queries of one row, there once.
        """
        held = [cache]

        def own(y: jax.Array) -> jax.Array:
            y, held[0] = self.attention.extend(y, cache, position)
            return y

        def across(y: jax.Array, memory: Cache) -> jax.Array:
            together = y.reshape(len(memory.keys), -1, y.shape[-1])
            return self.cross_attention.look(together, memory, memory_mask).reshape(y.shape)

        x = self._residual(self.attention_norm, x, own)
        if memory is not None:
            x = self._residual(self.cross_norm, x, partial(across, memory=memory))
        return self._residual(self.feed_norm, x, self.feed_forward), held[0]

    def feed_forward(self, x: jax.Array) -> jax.Array:
        """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2: eq. 2."""
        return self.narrow(ops.activation(self.shape.activation)(self.wide(x)))

    def _residual(self, norm: linen.Module, x: jax.Array, f: Callable, train: bool = False) -> jax.Array:
        if self.shape.norm == 'pre':
            return x + self.drop(f(norm(x)), deterministic=not train)
        return norm(x + self.drop(f(x), deterministic=not train))

    def _seen(self, name: str, layer: MultiHeadAttention, y, memory, mask, train: bool) -> jax.Array:
        """The attention, whose weights are kept where 'attention' is asked for."""
        if self.is_initializing() or not self.is_mutable_collection('attention'):
            return layer(y, memory, mask, train)
        y, weights = layer(y, memory, mask, train, weights=True)
        self.sow('attention', name, weights, reduce_fn=lambda _, new: new, init_fn=lambda: None)
        return y


def _norm(shape: Shape) -> linen.LayerNorm:
    return linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=shape.dtype)


class Embedding(linen.Module):
    """Tokens [B, T] -> [B, T, d]: their vectors times sqrt(d), plus the places' sinusoids. Also the output layer.

    Parameter `embedding` [vocab, d], from N(0, 1 / d), so that both uses begin with the size of 1.
    """

    vocab: int
    shape: Shape

    def setup(self):
        start = init.normal(self.shape.d_model**-0.5)
        self.embedding = self.param('embedding', start, (self.vocab, self.shape.d_model), jnp.float32)
        self.drop = linen.Dropout(self.shape.dropout)

    def __call__(
        self, tokens: jax.Array, train: bool = False, position: int | jax.Array = 0, size: int | None = None
    ) -> jax.Array:
        """position: the first token's place, of `size` that there are."""
        d, length = self.shape.d_model, tokens.shape[1]
        places = lax.dynamic_slice_in_dim(jnp.asarray(ops.sinusoids(size or length, d)), position, length)
        x = jnp.take(self.embedding, tokens, axis=0) * d**0.5 + places
        return self.drop(x.astype(self.shape.dtype or x.dtype), deterministic=not train)

    def logits(self, x: jax.Array) -> jax.Array:
        """x E^T, float32 at least."""
        kind = jnp.promote_types(x.dtype, jnp.float32)
        return ops.dense.product(x, self.embedding.astype(x.dtype).T, kind)


class Decoder(linen.Module):
    """Blocks under a causal mask, behind an embedding and before the output layer; with `cross`, over a memory."""

    vocab: int
    layers: int
    shape: Shape
    cross: bool
    tied: bool

    def setup(self):
        self.blocks = [Block(self.shape, self.cross, name=f'block{i}') for i in range(1, self.layers + 1)]
        if self.shape.norm == 'pre':
            self.norm = _norm(self.shape)
        if not self.tied:
            self.output = Dense(self.vocab, dtype=self.shape.dtype, kernel_init=init.glorot_uniform())

    def __call__(
        self,
        embedding: Embedding,
        tokens: jax.Array,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Logits [B, T, vocab]: those at t are of the token behind tokens[:, t]."""
        x, mask = embedding(tokens, train), attention.causal_mask(tokens.shape[1])
        for block in self.blocks:
            x = block(x, mask, memory, memory_mask, train)
        return self._logits(embedding, x)

    def project(self, memory: jax.Array, mask: jax.Array) -> Memory:
        return Memory(tuple(block.cross_attention.project(memory) for block in self.blocks), mask)

    def empty(self, rows: int, size: int) -> State:
        if size < 1:
            raise UsageError(f'a cache of size={size} holds no token')
        return State(jnp.zeros((), jnp.int32), tuple(block.attention.empty(rows, size) for block in self.blocks))

    def extend(
        self, embedding: Embedding, state: State, tokens: jax.Array, memory: Memory | None = None
    ) -> tuple[jax.Array, State]:
        """`__call__` for tokens [R, T] that go on from a state."""
        rows, size = state.layers[0].keys.shape[::2]
        sources = rows if memory is None else memory.mask.shape[0]
        if tokens.ndim != 2 or len(tokens) != rows or rows % sources:
            raise UsageError(f'tokens {tokens.shape} do not go on from {rows} rows over {sources} sources')
        if tokens.shape[1] > size:
            raise UsageError(f'{tokens.shape[1]} tokens do not fit into a cache of {size}; make a larger one')
        x, caches = embedding(tokens, False, state.position, size), []
        mask = None if memory is None else memory.mask
        for i, block in enumerate(self.blocks):
            seen = None if memory is None else memory.layers[i]
            x, cache = block.extend(x, state.layers[i], state.position, seen, mask)
            caches.append(cache)
        return self._logits(embedding, x), State(state.position + tokens.shape[1], tuple(caches))

    def _logits(self, embedding: Embedding, x: jax.Array) -> jax.Array:
        if self.shape.norm == 'pre':
            x = self.norm(x)
        if self.tied:
            return embedding.logits(x)
        logits = self.output(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


class Transformer(linen.Module):
    """Source tokens [B, S], of which the first lengths [B] count, and the target so far [B, T] -> logits [B, T, vocab].

    The logits at t are of the token behind target[:, t], in float32 at least.
    """

    vocab: int
    source_vocab: int | None
    layers: int
    tied: bool
    shape: Shape

    def setup(self):
        self.embedding = Embedding(self.vocab, self.shape)
        if self.source_vocab is not None:
            self.source_embedding = Embedding(self.source_vocab, self.shape)
        self.encoder = [Block(self.shape, name=f'encoder{i}') for i in range(1, self.layers + 1)]
        if self.shape.norm == 'pre':
            self.encoder_norm = _norm(self.shape)
        self.decoder = Decoder(self.vocab, self.layers, self.shape, True, self.tied)

    def __call__(self, source: jax.Array, lengths: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        memory, mask = self.encode(source, lengths, train)
        return self.decode(memory, mask, target, train)

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """The memory [B, S, d] and its mask [B, 1, S]."""
        if source.ndim != 2 or lengths.shape != source.shape[:1]:
            raise UsageError(
                f'a Transformer takes source [B, S] and lengths [B], not {source.shape} and {lengths.shape}'
            )
        mask = attention.padding_mask(lengths, source.shape[1])
        embedding = self.embedding if self.source_vocab is None else self.source_embedding
        x = embedding(source, train)
        for block in self.encoder:
            x = block(x, mask, train=train)
        return (self.encoder_norm(x) if self.shape.norm == 'pre' else x), mask

    def decode(self, memory: jax.Array, mask: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        """Logits for a target [B, T] over what `encode` gave."""
        if target.ndim != 2 or len(target) != len(memory):
            raise UsageError(f'a target for {len(memory)} sources is [{len(memory)}, T], not {target.shape}')
        return self.decoder(self.embedding, target, memory, mask, train)

    def start(self, source: jax.Array, lengths: jax.Array, size: int) -> tuple[Memory, State]:
        """What `step` needs to decode at most `size` tokens; beyond them the last place is overwritten."""
        memory = self.decoder.project(*self.encode(source, lengths))
        return memory, self.decoder.empty(len(source), size)

    def extend(self, memory: Memory, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
        """Logits [R, T, vocab] for tokens [R, T] that go on from a state of R rows, whole multiples of the sources."""
        return self.decoder.extend(self.embedding, state, tokens, memory)

    def step(self, memory: Memory, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
        """Logits [R, vocab] behind one more token [R] a row."""
        logits, state = self.extend(memory, state, tokens[:, None])
        return logits[:, 0], state


class LanguageModel(linen.Module):
    """Tokens [B, T] -> logits [B, T, vocab] of the token behind each one, float32 at least: the decoder alone."""

    vocab: int
    layers: int
    tied: bool
    shape: Shape

    def setup(self):
        self.embedding = Embedding(self.vocab, self.shape)
        self.decoder = Decoder(self.vocab, self.layers, self.shape, False, self.tied)

    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        if tokens.ndim != 2:
            raise UsageError(f'a language model takes tokens [B, T], not {tokens.shape}')
        return self.decoder(self.embedding, tokens, train=train)

    def start(self, rows: int, size: int) -> State:
        """What `step` needs to go on for at most `size` tokens; beyond them the last place is overwritten."""
        return self.decoder.empty(rows, size)

    def extend(self, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
        """Logits [B, T, vocab] for tokens [B, T], such as a prompt, that go on from a state."""
        return self.decoder.extend(self.embedding, state, tokens)

    def step(self, state: State, tokens: jax.Array) -> tuple[jax.Array, State]:
        """Logits [B, vocab] behind one more token [B] a row."""
        logits, state = self.extend(state, tokens[:, None])
        return logits[:, 0], state


# --- constructors -------------------------------------------------------------------------------------------------


def transformer(
    vocab: int,
    source_vocab: int | None = None,
    layers: int = 6,
    d_model: int = 512,
    d_ff: int = 2048,
    heads: int = 8,
    d_k: int | None = None,
    d_v: int | None = None,
    dropout: DropRate = 0.1,
    attention_dropout: DropRate = 0.0,
    norm: str = 'post',
    tied: bool = True,
    bias: bool = False,
    activation: str | Callable = 'relu',
    dtype: str | None = None,
) -> Transformer:
    """An encoder and a decoder of so many layers; base without arguments. See the paper's Table 3 for the names.

    source_vocab: the source has an embedding of its own; without it one serves both. d_k, d_v: d_model / heads without.
    norm: 'post' as in the paper, or 'pre'. tied: the output layer is the target's embedding. bias: in attention.
    Raises UsageError for widths that cannot be shared out and for another norm.
    """
    shape = _shape(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, dtype)
    _check_sizes(vocab=vocab, layers=layers, source_vocab=vocab if source_vocab is None else source_vocab)
    return Transformer(vocab, source_vocab, layers, tied, shape)


def base(
    vocab: int, source_vocab: int | None = None, dropout: DropRate = 0.1, norm: str = 'post', dtype: str | None = None
) -> Transformer:
    """Table 3's base: 6 + 6 layers, d_model 512, d_ff 2048, 8 heads of 64."""
    return transformer(vocab, source_vocab, dropout=dropout, norm=norm, dtype=dtype)


def big(
    vocab: int, source_vocab: int | None = None, dropout: DropRate = 0.3, norm: str = 'post', dtype: str | None = None
) -> Transformer:
    """Table 3's big: 6 + 6 layers, d_model 1024, d_ff 4096, 16 heads of 64; dropout 0.1 for En-Fr (section 6.1)."""
    return transformer(vocab, source_vocab, d_model=1024, d_ff=4096, heads=16, dropout=dropout, norm=norm, dtype=dtype)


def language_model(
    vocab: int,
    layers: int = 6,
    d_model: int = 512,
    d_ff: int = 2048,
    heads: int = 8,
    d_k: int | None = None,
    d_v: int | None = None,
    dropout: DropRate = 0.1,
    attention_dropout: DropRate = 0.0,
    norm: str = 'pre',
    tied: bool = True,
    bias: bool = False,
    activation: str | Callable = 'relu',
    dtype: str | None = None,
) -> LanguageModel:
    """The decoder alone, over bytes, characters or words; arguments as `transformer`'s. norm: 'pre' or 'post'."""
    shape = _shape(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, dtype)
    _check_sizes(vocab=vocab, layers=layers)
    return LanguageModel(vocab, layers, tied, shape)


def _shape(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, dtype) -> Shape:
    _check_sizes(d_model=d_model, d_ff=d_ff, heads=heads)
    if (d_k is None or d_v is None) and d_model % heads:
        raise UsageError(f'model.heads={heads} do not share out model.d_model={d_model}; give d_k and d_v')
    if d_model % 2:
        raise UsageError(f'model.d_model={d_model} must be even: sinusoidal positions come in pairs')
    if norm not in ('post', 'pre'):
        raise UsageError(f"model.norm={norm!r} is neither 'post' nor 'pre'")
    for key, share in (('dropout', dropout), ('attention_dropout', attention_dropout)):
        if not 0 <= share < 1:
            raise UsageError(f'model.{key}={share} is no share in [0, 1)')
    ops.activation(activation)
    d_k, d_v = (d_model // heads if width is None else width for width in (d_k, d_v))
    _check_sizes(d_k=d_k, d_v=d_v)
    kind = None if dtype is None else jnp.dtype(dtype)
    return Shape(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, kind)


def _check_sizes(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
