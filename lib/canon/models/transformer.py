"""The Transformer: Vaswani, Shazeer, Parmar, Uszkoreit, Jones, Gomez, Kaiser, Polosukhin, "Attention is all you need",
2017 (arXiv 1706.03762), and its decoder alone as a language model.

Post-norm, sinusoidal positions, embeddings times sqrt(d_model), one matrix for both embeddings and the output layer
(section 3.4), no biases in attention, dropout on embeddings plus positions and on every sub-layer's output (5.4).

With a vocabulary of 37,000: base 63,045,632 parameters (the paper's Table 3 says 65 M; neither biases in attention nor
other widths of the heads explain the difference), big 214,171,648 (213 M). BLEU on newstest2014 En-De 27.3 and 28.4,
En-Fr 38.1 and 41.8 (Table 2), with a beam of 4, a length penalty of 0.6 and the mean of the last 5 or 20 checkpoints.

All positions at once, for training, and token by token with a cache, for `canon.ops.decoding`:

    logits = model.apply(variables, source, lengths, inputs)             # inputs: the target shifted right by one
    memory, state = model.apply(variables, source, lengths, 50, method='start')
    step = lambda state, tokens: model.apply(variables, memory, state, tokens, method='step')
    decoding.beam_search(step, state, first, length=50, end=2, beams=4)  # inside jax.jit

`apply(..., mutable=['attention'])` also returns the weights of every head: {'attention': {block: {'self', 'cross':
[B, h, T, S]}}}. A token outside the vocabulary makes the logits of its row NaN.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers as init

from canon import ops
from canon.errors import UsageError
from canon.models.protocols import LanguageOutput
from canon.named import DropRate
from canon.nn import Dense
from canon.nn.attention import KeyValueCache, MultiHeadAttention
from canon.ops import attention


class BlockSettings(NamedTuple):
    """The hyperparameters that all blocks share, named as in the paper's Table 3."""

    d_model: int
    d_ff: int
    heads: int
    d_k: int
    d_v: int
    dropout: float
    attention_dropout: float
    norm: str  # 'post': LN(x + f(x)), as in the paper; 'pre': x + f(LN(x)), and LN after the last block
    bias: bool  # in attention
    activation: str | Callable
    dtype: Any


class SourceCache(NamedTuple):
    """The encoded source as decoding reads it: keys and values for the cross-attention of each layer, and the mask."""

    layers: tuple[KeyValueCache, ...]
    mask: jax.Array  # [B, 1, S]


class DecoderCache(NamedTuple):
    """The tokens decoded so far: their number, a scalar, and the keys and values of self-attention in each layer."""

    position: jax.Array
    layers: tuple[KeyValueCache, ...]


class TransformerBlock(linen.Module):
    """Self-attention, attention to the source (if `cross`) and a feed-forward network, each with a residual path."""

    settings: BlockSettings
    cross: bool = False

    def setup(self):
        s = self.settings
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
        """Applies the block to all positions at once.

        Args:
          x: [B, T, d_model].
          mask: boolean, broadcasts to [B, T, T]; True where a position attends.
          memory: the encoded source [B, S, d_model], if the block has cross-attention.
          memory_mask: [B, 1, S], False on padding.
          train: applies dropout.
        """
        # Queries and memory are the same normalised positions: with pre-norm, f sees LN(x) on both sides.
        attend = partial(self._attend, 'self', self.attention, mask=mask, train=train)
        x = self._residual(self.attention_norm, x, lambda y: attend(y, memory=y), train)
        if memory is not None:
            cross = partial(self._attend, 'cross', self.cross_attention, memory=memory, mask=memory_mask, train=train)
            x = self._residual(self.cross_norm, x, cross, train)
        return self._residual(self.feed_norm, x, self.feed_forward, train)

    def extend(
        self,
        x: jax.Array,
        cache: KeyValueCache,
        position: jax.Array,
        memory: KeyValueCache | None,
        memory_mask: jax.Array | None,
    ) -> tuple[jax.Array, KeyValueCache]:
        """Applies the block to positions [position, position + T) under a causal mask.

        Args:
          x: [R, T, d_model], where R is a multiple of the memory's rows.
          cache: keys and values of the preceding positions.
          position: the number of positions in the cache, an integer scalar.
          memory: keys and values of the source.
          memory_mask: [B, 1, S], False on padding.

        Returns:
          The output [R, T, d_model] and the cache with the new positions.
        """

        # A closure, since the residual path calls a function of one argument and the cache is a second result.
        def attend_to_itself(y: jax.Array) -> jax.Array:
            nonlocal cache
            y, cache = self.attention.extend(y, cache, position)
            return y

        def attend_to_source(y: jax.Array, source: KeyValueCache) -> jax.Array:
            # The hypotheses of one source become more queries of one row, so its keys are not repeated.
            queries = y.reshape(len(source.keys), -1, y.shape[-1])
            return self.cross_attention.attend(queries, source, memory_mask).reshape(y.shape)

        x = self._residual(self.attention_norm, x, attend_to_itself)
        if memory is not None:
            x = self._residual(self.cross_norm, x, partial(attend_to_source, source=memory))
        return self._residual(self.feed_norm, x, self.feed_forward), cache

    def feed_forward(self, x: jax.Array) -> jax.Array:
        """Returns FFN(x) = max(0, x W_1 + b_1) W_2 + b_2 (eq. 2)."""
        return self.narrow(ops.activation(self.settings.activation)(self.wide(x)))

    def _residual(self, norm: linen.Module, x: jax.Array, f: Callable, train: bool = False) -> jax.Array:
        """Returns LN(x + f(x)), or x + f(LN(x)) with pre-norm; f(.) is dropped out before the sum (section 5.4)."""
        if self.settings.norm == 'pre':
            return x + self.drop(f(norm(x)), deterministic=not train)
        return norm(x + self.drop(f(x), deterministic=not train))

    def _attend(self, name: str, layer: MultiHeadAttention, y, memory, mask, train: bool) -> jax.Array:
        """Applies an attention layer; stores its weights if the caller has made the collection 'attention' mutable."""
        # Only on demand: with the weights the fused attention of an accelerator cannot be used.
        if self.is_initializing() or not self.is_mutable_collection('attention'):
            return layer(y, memory, mask, train)
        y, weights = layer(y, memory, mask, train, weights=True)
        # The last weights replace earlier ones, where `sow` would append to a tuple.
        self.sow('attention', name, weights, reduce_fn=lambda _, new: new, init_fn=lambda: None)
        return y


def _norm(settings: BlockSettings) -> linen.LayerNorm:
    # E[x^2] - E[x]^2, linen's fast variance, cancels where the mean is large.
    return linen.LayerNorm(epsilon=1e-5, use_fast_variance=False, dtype=settings.dtype)


class PositionedEmbedding(linen.Module):
    """Maps tokens [B, T] to sqrt(d) E[token] + sinusoids [B, T, d]; its transpose may be the output layer.

    Parameter `embedding` E [vocab, d] from N(0, 1 / d): both its uses then start with unit variance.
    """

    vocab: int
    settings: BlockSettings

    def setup(self):
        d = self.settings.d_model
        self.embedding = self.param('embedding', init.normal(d**-0.5), (self.vocab, d), jnp.float32)
        self.drop = linen.Dropout(self.settings.dropout)

    def __call__(
        self, tokens: jax.Array, train: bool = False, position: int | jax.Array = 0, size: int | None = None
    ) -> jax.Array:
        """Embeds tokens at the positions [position, position + T) of a sequence of at most `size`; T if None."""
        d, length = self.settings.d_model, tokens.shape[1]
        # The table is a constant of the program, so a position that is known only at run time is a slice and not a
        # sine.
        positions = lax.dynamic_slice_in_dim(jnp.asarray(ops.sinusoids(size or length, d)), position, length)
        # Scaled by sqrt(d) (section 3.4): entries of variance 1 / d become as large as those of the sinusoids.
        x = jnp.take(self.embedding, tokens, axis=0) * d**0.5 + positions
        # Narrowed after the sum: bfloat16 has too few digits to add small differences between positions.
        return self.drop(x.astype(self.settings.dtype or x.dtype), deterministic=not train)

    def logits(self, x: jax.Array) -> jax.Array:
        """Returns x E^T in float32 or wider."""
        # The product may be of bfloat16, its sums are float32: the loss normalises over the whole vocabulary.
        kind = jnp.promote_types(x.dtype, jnp.float32)
        return ops.dense.product(x, self.embedding.astype(x.dtype).T, kind)


class TransformerDecoder(linen.Module):
    """Embedding, blocks under a causal mask and output layer; with `cross` they also attend to an encoded source."""

    vocab: int
    layers: int
    settings: BlockSettings
    cross: bool
    tied: bool

    def setup(self):
        self.blocks = [TransformerBlock(self.settings, self.cross, name=f'block{i}') for i in range(1, self.layers + 1)]
        if self.settings.norm == 'pre':
            self.norm = _norm(self.settings)
        if not self.tied:
            self.output = Dense(self.vocab, dtype=self.settings.dtype, kernel_init=init.glorot_uniform())

    def __call__(
        self,
        embedding: PositionedEmbedding,
        tokens: jax.Array,
        memory: jax.Array | None = None,
        memory_mask: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Decodes all positions at once.

        Args:
          embedding: of the target's tokens.
          tokens: [B, T].
          memory: the encoded source [B, S, d_model].
          memory_mask: [B, 1, S], False on padding.
          train: applies dropout.

        Returns:
          Logits [B, T, vocab] of the token after each one, and the hidden states [B, T, d_model] before that layer.
        """
        x, mask = embedding(tokens, train), attention.causal_mask(tokens.shape[1])
        for block in self.blocks:
            x = block(x, mask, memory, memory_mask, train)
        return self._logits(embedding, x)

    def project(self, memory: jax.Array, mask: jax.Array) -> SourceCache:
        """Computes the keys and values of a source once, for all steps of decoding."""
        return SourceCache(tuple(block.cross_attention.project(memory) for block in self.blocks), mask)

    def extend(
        self, embedding: PositionedEmbedding, state: DecoderCache, tokens: jax.Array, memory: SourceCache | None = None
    ) -> tuple[jax.Array, DecoderCache]:
        """Decodes tokens [R, T] that continue from `state`; returns logits [R, T, vocab] and the new state."""
        # Keys are [R, h, M, d_k]: rows and room of the cache.
        rows, size = state.layers[0].keys.shape[::2]
        sources = rows if memory is None else memory.mask.shape[0]
        if tokens.ndim != 2 or len(tokens) != rows or rows % sources:
            raise UsageError(f'tokens {tokens.shape} do not continue {rows} rows over {sources} sources')
        if tokens.shape[1] > size:
            raise UsageError(f'{tokens.shape[1]} tokens do not fit into a cache of {size}; make a larger one')
        x, caches = embedding(tokens, False, state.position, size), []
        mask = None if memory is None else memory.mask
        for i, block in enumerate(self.blocks):
            source = None if memory is None else memory.layers[i]
            x, cache = block.extend(x, state.layers[i], state.position, source, mask)
            caches.append(cache)
        logits, _ = self._logits(embedding, x)
        return logits, DecoderCache(state.position + tokens.shape[1], tuple(caches))

    def _logits(self, embedding: PositionedEmbedding, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Pre-norm leaves the residual stream unnormalised, so its scale grows with depth until this last norm.
        if self.settings.norm == 'pre':
            x = self.norm(x)
        if self.tied:
            return embedding.logits(x), x
        logits = self.output(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), x


def _empty_cache(s: BlockSettings, layers: int, rows: int, size: int) -> DecoderCache:
    """Returns a cache of zeros with room for `size` positions; a function of the shapes, which needs no parameters."""
    if size < 1:
        raise UsageError(f'a cache of size={size} holds no token')
    # The layers share one array of zeros, since arrays are immutable.
    empty = KeyValueCache.empty(rows, s.heads, size, s.d_k, s.d_v, s.dtype or jnp.float32)
    return DecoderCache(jnp.zeros((), jnp.int32), (empty,) * layers)


class Transformer(linen.Module):
    """Encoder and decoder (`canon.models.protocols.TranslationModel`); see `transformer` for the fields.

    Source tokens [B, S], of which the first lengths [B] count, and the target so far [B, T] give logits [B, T, vocab],
    float32 or wider; those at t are of the token after target[:, t].
    """

    vocab: int
    source_vocab: int | None
    layers: int
    tied: bool
    settings: BlockSettings

    def setup(self):
        self.embedding = PositionedEmbedding(self.vocab, self.settings)
        if self.source_vocab is not None:
            self.source_embedding = PositionedEmbedding(self.source_vocab, self.settings)
        self.encoder = [TransformerBlock(self.settings, name=f'encoder{i}') for i in range(1, self.layers + 1)]
        if self.settings.norm == 'pre':
            self.encoder_norm = _norm(self.settings)
        self.decoder = TransformerDecoder(self.vocab, self.layers, self.settings, True, self.tied)

    def __call__(self, source: jax.Array, lengths: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        memory, mask = self.encode(source, lengths, train)
        return self.decode(memory, mask, target, train)

    def encode(self, source: jax.Array, lengths: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Returns the encoded source [B, S, d_model] and its mask [B, 1, S]."""
        if source.ndim != 2 or lengths.shape != source.shape[:1]:
            raise UsageError(
                f'a Transformer takes source [B, S] and lengths [B], not {source.shape} and {lengths.shape}'
            )
        mask = attention.padding_mask(lengths, source.shape[1])
        # With a joint vocabulary both languages share one embedding (section 3.4).
        embedding = self.embedding if self.source_vocab is None else self.source_embedding
        x = embedding(source, train)
        for block in self.encoder:
            x = block(x, mask, train=train)
        return (self.encoder_norm(x) if self.settings.norm == 'pre' else x), mask

    def decode(self, memory: jax.Array, mask: jax.Array, target: jax.Array, train: bool = False) -> jax.Array:
        """Returns logits [B, T, vocab] for a target [B, T], given what `encode` returned."""
        if target.ndim != 2 or len(target) != len(memory):
            raise UsageError(f'a target for {len(memory)} sources is [{len(memory)}, T], not {target.shape}')
        logits, _ = self.decoder(self.embedding, target, memory, mask, train)
        return logits

    def start(self, source: jax.Array, lengths: jax.Array, size: int) -> tuple[SourceCache, DecoderCache]:
        """Returns (memory, state) to decode at most `size` tokens; further ones overwrite the last position."""
        # The source's keys and values do not change while decoding, so they are computed here, once.
        memory = self.decoder.project(*self.encode(source, lengths))
        return memory, _empty_cache(self.settings, self.layers, len(source), size)

    def extend(self, memory: SourceCache, state: DecoderCache, tokens: jax.Array) -> tuple[jax.Array, DecoderCache]:
        """Returns logits [R, T, vocab] for tokens [R, T] that continue from `state`; R is a multiple of the sources."""
        return self.decoder.extend(self.embedding, state, tokens, memory)

    def step(self, memory: SourceCache, state: DecoderCache, tokens: jax.Array) -> tuple[jax.Array, DecoderCache]:
        """Returns logits [R, vocab] of the token after `tokens` [R], and the new state."""
        logits, state = self.extend(memory, state, tokens[:, None])
        return logits[:, 0], state


class CausalTransformer(linen.Module):
    """The decoder alone, a language model (`canon.models.protocols.LanguageModel`) of independent windows."""

    vocab: int
    layers: int
    tied: bool
    settings: BlockSettings
    carries_state: ClassVar[bool] = False

    def setup(self):
        self.embedding = PositionedEmbedding(self.vocab, self.settings)
        self.decoder = TransformerDecoder(self.vocab, self.layers, self.settings, False, self.tied)

    def __call__(
        self, tokens: jax.Array, state: None = None, train: bool = False, lengths: jax.Array | None = None
    ) -> LanguageOutput:
        """Reads a window [B, T]. `lengths` changes nothing: under the causal mask padding is never attended to."""
        del lengths
        if tokens.ndim != 2:
            raise UsageError(f'a language model takes tokens [B, T], not {tokens.shape}')
        if state is not None:
            raise UsageError('the windows of a Transformer are independent: it takes no state; see `extend`')
        logits, hidden = self.decoder(self.embedding, tokens, train=train)
        return LanguageOutput(logits, None, hidden, hidden)

    def start(self, batch_size: int, length: int) -> DecoderCache:
        """Returns an empty cache for at most `length` tokens per row; further ones overwrite the last position."""
        return _empty_cache(self.settings, self.layers, batch_size, length)

    def extend(self, state: DecoderCache, tokens: jax.Array) -> tuple[jax.Array, DecoderCache]:
        """Returns logits [B, T, vocab] for tokens [B, T] that continue from `state`, and the new state."""
        return self.decoder.extend(self.embedding, state, tokens)

    def step(self, state: DecoderCache, tokens: jax.Array) -> tuple[jax.Array, DecoderCache]:
        """Returns logits [B, vocab] of the token after `tokens` [B], and the new state."""
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
    """Builds the encoder-decoder; the defaults are the paper's base model, the names those of its Table 3.

    Args:
      vocab: tokens of the target vocabulary.
      source_vocab: tokens of the source vocabulary; if None, both languages share one embedding.
      layers: of the encoder, and as many of the decoder.
      d_model: width of the residual stream.
      d_ff: width of the feed-forward network.
      heads: of each attention.
      d_k: width of a head's queries and keys; d_model / heads if None.
      d_v: width of a head's values; d_model / heads if None.
      dropout: rate on embeddings and on the output of every sub-layer.
      attention_dropout: rate on attention weights (not in the paper's text; its authors' code has it).
      norm: 'post' as in the paper, or 'pre'.
      tied: uses the target's embedding as output layer.
      bias: whether attention has biases.
      activation: of the feed-forward network.
      dtype: of the computation ('bfloat16'); parameters stay float32.

    Raises:
      UsageError: widths that the heads do not divide, an unknown norm, or a size or rate out of range.
    """
    settings = _settings(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, dtype)
    _check_sizes(vocab=vocab, layers=layers, source_vocab=vocab if source_vocab is None else source_vocab)
    return Transformer(vocab, source_vocab, layers, tied, settings)


def base(
    vocab: int, source_vocab: int | None = None, dropout: DropRate = 0.1, norm: str = 'post', dtype: str | None = None
) -> Transformer:
    """Builds the base model of Table 3: 6 + 6 layers, d_model 512, d_ff 2048, 8 heads of 64."""
    return transformer(vocab, source_vocab, dropout=dropout, norm=norm, dtype=dtype)


def big(
    vocab: int, source_vocab: int | None = None, dropout: DropRate = 0.3, norm: str = 'post', dtype: str | None = None
) -> Transformer:
    """Builds the big model of Table 3: 6 + 6 layers, d_model 1024, d_ff 4096, 16 heads of 64; for En-Fr dropout=0.1."""
    return transformer(vocab, source_vocab, d_model=1024, d_ff=4096, heads=16, dropout=dropout, norm=norm, dtype=dtype)


def causal_transformer(
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
) -> CausalTransformer:
    """Builds the decoder alone as a language model; arguments as of `transformer`, but pre-norm by default."""
    settings = _settings(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, dtype)
    _check_sizes(vocab=vocab, layers=layers)
    return CausalTransformer(vocab, layers, tied, settings)


def _settings(
    d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, dtype
) -> BlockSettings:
    _check_sizes(d_model=d_model, d_ff=d_ff, heads=heads)
    # Widths of heads that are given need not add up to d_model (Table 3, row B).
    if (d_k is None or d_v is None) and d_model % heads:
        raise UsageError(f'model.heads={heads} does not divide model.d_model={d_model}; give d_k and d_v')
    if d_model % 2:
        raise UsageError(f'model.d_model={d_model} must be even: sinusoidal positions come in pairs')
    if norm not in ('post', 'pre'):
        raise UsageError(f"model.norm={norm!r} is neither 'post' nor 'pre'")
    for key, rate in (('dropout', dropout), ('attention_dropout', attention_dropout)):
        if not 0 <= rate < 1:
            raise UsageError(f'model.{key}={rate} must be at least 0 and below 1')
    # Raises for an unknown name, before anything is traced.
    ops.activation(activation)
    d_k, d_v = (d_model // heads if width is None else width for width in (d_k, d_v))
    _check_sizes(d_k=d_k, d_v=d_v)
    kind = None if dtype is None else jnp.dtype(dtype)
    return BlockSettings(d_model, d_ff, heads, d_k, d_v, dropout, attention_dropout, norm, bias, activation, kind)


def _check_sizes(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
