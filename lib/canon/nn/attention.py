"""Attention layers over `canon.ops.attention`, from queries of a sequence [B, T, d] to a memory [B, S, d].

Masks are boolean, True where a query may attend, and broadcast to [B, T, S]. With `weights=True` a layer returns
(context, weights). Parameters are float32; `dtype` is that of the computation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.nn.layers import Dense, DenseGeneral
from canon.ops import attention, dense


class DotProductAttention(nn.Module):
    """Scores q^T k (Luong et al. 2015, 'dot'); the memory has the width d of the query.

    scaled: multiplies the scores by d^-0.5.
    """

    scaled: bool = False

    @nn.compact
    def __call__(self, query: jax.Array, memory: jax.Array, mask: jax.Array | None = None, weights: bool = False):
        scale = query.shape[-1] ** -0.5 if self.scaled else 1.0
        return attention.dot_product(query, memory, memory, mask, scale, weights)


class GeneralAttention(nn.Module):
    """Scores q^T W k (Luong et al. 2015, 'general'); parameter `kernel` W [d_query, d_memory]."""

    dtype: Any = None
    kernel_init: Callable = init.glorot_uniform()

    @nn.compact
    def __call__(self, query: jax.Array, memory: jax.Array, mask: jax.Array | None = None, weights: bool = False):
        kernel = self.param('kernel', self.kernel_init, (query.shape[-1], memory.shape[-1]), jnp.float32)
        query, memory, kernel = promote_dtype(query, memory, kernel, dtype=self.dtype)
        # The query is multiplied by W and not the memory: a decoder has one query per step, and S keys.
        return attention.dot_product(dense.product(query, kernel), memory, memory, mask, weights=weights)


class AdditiveAttention(nn.Module):
    """Scores v^T tanh(W s + U h) (Bahdanau et al. 2015) with v of `features`; parameters `query` W, `memory` U and `v`.

    U h is the same at every step of decoding: `method='project'` computes it once, for the argument `projected`.
    Initialised as in appendix B.1: W and U from N(0, 0.001^2) and v zero, so that attention starts uniform.
    """

    features: int
    dtype: Any = None
    kernel_init: Callable = init.normal(0.001)
    v_init: Callable = init.zeros

    def setup(self):
        keywords: dict[str, Any] = dict(use_bias=False, dtype=self.dtype, kernel_init=self.kernel_init)
        self.query = Dense(self.features, **keywords)
        self.memory = Dense(self.features, **keywords)
        self.v = self.param('v', self.v_init, (self.features,), jnp.float32)

    def project(self, memory: jax.Array) -> jax.Array:
        """Returns U h, [B, S, features]."""
        return self.memory(memory)

    def __call__(
        self,
        query: jax.Array,
        memory: jax.Array,
        mask: jax.Array | None = None,
        weights: bool = False,
        projected: jax.Array | None = None,
    ):
        projected = self.project(memory) if projected is None else projected
        query = self.query(query)
        # The two projections cast to the type of the computation; v belongs to no layer that would.
        scores = attention.additive_scores(query, projected, self.v.astype(query.dtype))
        return attention.attend(scores, memory, mask, weights=weights)


class KeyValueCache(NamedTuple):
    """The projected memory of one attention layer: keys [B, h, M, d_k] and values [B, h, M, d_v]."""

    keys: jax.Array
    values: jax.Array

    @classmethod
    def empty(
        cls, batch_size: int, heads: int, size: int, d_k: int, d_v: int, dtype: Any = jnp.float32
    ) -> 'KeyValueCache':
        """Returns a cache of zeros with room for `size` positions."""
        # Of its final size from the start: a cache that grew would change the shapes of every step, and compile it
        # again.
        shape = (batch_size, heads, size)
        return cls(jnp.zeros((*shape, d_k), dtype), jnp.zeros((*shape, d_v), dtype))


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O (Vaswani et al. 2017, section 3.2.2).

    Parameters `query`, `key` [d, h, d_k], `value` [d, h, d_v] and `output` [h, d_v, features], without biases as in the
    paper; torch has them (`use_bias`).

    All positions at once: `layer(x)` is self-attention, `layer(x, memory)` attends to a memory. Step by step: `extend`
    writes new positions into a `KeyValueCache` and attends causally; `project` computes the keys and values of a memory
    once, and `attend` attends to them.

    Attributes:
      heads: h.
      d_k: width of a head's queries and keys.
      d_v: width of a head's values.
      features: of the output; h d_v if None.
      use_bias: adds biases to all four projections.
      dropout: rate on the attention weights in training (not in the paper's text; its authors' code has it).
      dtype: of the computation.
      kernel_init: of all four projections.
    """

    heads: int = 8
    d_k: int = 64
    d_v: int = 64
    features: int | None = None
    use_bias: bool = False
    dropout: float = 0.0
    dtype: Any = None
    kernel_init: Callable = init.glorot_uniform()

    def setup(self):
        keywords: dict[str, Any] = dict(use_bias=self.use_bias, dtype=self.dtype, kernel_init=self.kernel_init)
        # linen initialises a kernel [d, h, d_k] as the matrix [d, h d_k], so Glorot's fan-out is that of all heads.
        self.query = DenseGeneral((self.heads, self.d_k), **keywords)
        self.key = DenseGeneral((self.heads, self.d_k), **keywords)
        self.value = DenseGeneral((self.heads, self.d_v), **keywords)
        features = self.heads * self.d_v if self.features is None else self.features
        self.output = DenseGeneral(features, (-2, -1), **keywords)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self,
        query: jax.Array,
        memory: jax.Array | None = None,
        mask: jax.Array | None = None,
        train: bool = False,
        weights: bool = False,
    ):
        """Attends from query [B, T, d] to memory [B, S, d]; to itself if None.

        Args:
          query: [B, T, d].
          memory: [B, S, d].
          mask: boolean, broadcasts to [B, T, S] or [B, h, T, S].
          train: applies dropout.
          weights: also returns the weights [B, h, T, S].

        Returns:
          [B, T, features], or (that, weights).
        """
        cache = self.project(query if memory is None else memory)
        return self.attend(query, cache, mask, train, weights)

    def project(self, memory: jax.Array) -> KeyValueCache:
        """Computes the keys and values of a memory [B, S, d]."""
        return KeyValueCache(self.key(memory).swapaxes(1, 2), self.value(memory).swapaxes(1, 2))

    def attend(
        self,
        query: jax.Array,
        cache: KeyValueCache,
        mask: jax.Array | None = None,
        train: bool = False,
        weights: bool = False,
    ):
        """Attends from query [B, T, d] to keys and values of `project` or `extend`; arguments as in `__call__`."""
        heads = self.query(query).swapaxes(1, 2)
        # A mask [B, T, S] gets an axis of heads; [B, h, T, S] has one, and [T, S] broadcasts as it is.
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        # Dropout needs the weights themselves, which the fused attention of an accelerator never forms.
        dropping = train and self.dropout > 0
        attended = attention.scaled_dot_product(heads, *cache, mask=mask, weights=weights or dropping)
        context, probabilities = attended if weights or dropping else (attended, None)
        if dropping:
            # The context without dropout is not used then, and XLA removes it; the weights are returned before dropout.
            dropped = self.drop(probabilities, deterministic=False)
            context = dropped.astype(cache.values.dtype) @ cache.values
        context = self.output(context.swapaxes(1, 2))
        return (context, probabilities) if weights else context

    def extend(self, x: jax.Array, cache: KeyValueCache, position: jax.Array) -> tuple[jax.Array, KeyValueCache]:
        """Applies causal self-attention to new positions and appends their keys and values to the cache.

        Beyond the end of the cache the last positions are overwritten, since an index under `jit` cannot be checked.

        Args:
          x: the new positions [B, T, d].
          cache: the preceding positions.
          position: the number of positions in the cache, an integer scalar.

        Returns:
          The output [B, T, features] and the new cache.

        Raises:
          UsageError: T is larger than the cache.
        """
        new, size = x.shape[1], cache.keys.shape[2]
        if new > size:
            raise UsageError(f'{new} positions do not fit into a cache of {size}; make a larger one')
        keys, values = self.project(x)
        cache = KeyValueCache(
            lax.dynamic_update_slice_in_dim(cache.keys, keys.astype(cache.keys.dtype), position, 2),
            lax.dynamic_update_slice_in_dim(cache.values, values.astype(cache.values.dtype), position, 2),
        )
        # The causal mask also hides the room beyond the new positions, which holds the cache's zeros.
        return self.attend(x, cache, attention.causal_mask(new, size, position)), cache
