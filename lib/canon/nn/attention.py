"""Layers of attention over `canon.ops.attention`, for sequences [B, T, d] and memories [B, S, d].

Masks are boolean, True where a query may look, [B, T, S] or what broadcasts to it. With `weights` a layer returns
(context, weights). Parameters are float32 whatever `dtype`, that of the computation, is.
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
    """Luong et al. 2015's 'dot', q^T k, over a memory as wide as the query; scaled: by d^-0.5."""

    scaled: bool = False

    @nn.compact
    def __call__(self, query: jax.Array, memory: jax.Array, mask: jax.Array | None = None, weights: bool = False):
        scale = query.shape[-1] ** -0.5 if self.scaled else 1.0
        return attention.dot_product(query, memory, memory, mask, scale, weights)


class GeneralAttention(nn.Module):
    """Luong et al. 2015's 'general', q^T W k; parameter `kernel` [d_query, d_memory]."""

    dtype: Any = None
    kernel_init: Callable = init.glorot_uniform()

    @nn.compact
    def __call__(self, query: jax.Array, memory: jax.Array, mask: jax.Array | None = None, weights: bool = False):
        kernel = self.param('kernel', self.kernel_init, (query.shape[-1], memory.shape[-1]), jnp.float32)
        query, memory, kernel = promote_dtype(query, memory, kernel, dtype=self.dtype)
        return attention.dot_product(dense.product(query, kernel), memory, memory, mask, weights=weights)


class AdditiveAttention(nn.Module):
    """Bahdanau et al. 2015: v^T tanh(W s + U h), `features` wide; parameters `query` (W), `memory` (U) and `v`.

    U h is the same at every step of a decoder: `method='project'` computes it once, for `projected`.
    The starts are the paper's (appendix B.1): W and U from N(0, 0.001^2), v zero, so that attention begins uniform.
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
        """U h, [B, S, features]."""
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
        scores = attention.additive_scores(query, projected, self.v.astype(query.dtype))
        return attention.attend(scores, memory, mask, weights=weights)


class Cache(NamedTuple):
    """What the heads look at: keys [B, h, M, d_k] and values [B, h, M, d_v]."""

    keys: jax.Array
    values: jax.Array


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, .., head_h) W^O: Vaswani et al. 2017, section 3.2.2.

    Parameters `query`, `key` [d, h, d_k], `value` [d, h, d_v], `output` [h, d_v, features], without biases as in the
    paper; torch has them (`use_bias`). features: of the output; h d_v without. dropout: of the weights (not in
    the paper's text; its authors' code has it), in training.

    In one go: `layer(query)` is self-attention, `layer(query, memory)` looks at a memory. Step by step: `empty` makes
    a cache of zeros, `extend` writes new places into it and looks at all up to each one; `project` makes keys and
    values of a memory once, and `look` looks at them.
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
        """[B, T, features], and with `weights` [B, h, T, S]."""
        cache = self.project(query if memory is None else memory)
        return self.look(query, cache, mask, train, weights)

    @nn.nowrap
    def empty(self, rows: int, size: int, dtype: Any = jnp.float32) -> Cache:
        """A cache of `size` places, of zeros."""
        shape = (rows, self.heads, size)
        kind = self.dtype or dtype
        return Cache(jnp.zeros((*shape, self.d_k), kind), jnp.zeros((*shape, self.d_v), kind))

    def project(self, memory: jax.Array) -> Cache:
        """The keys and values of a memory [B, S, d]."""
        return Cache(self.key(memory).swapaxes(1, 2), self.value(memory).swapaxes(1, 2))

    def look(
        self,
        query: jax.Array,
        cache: Cache,
        mask: jax.Array | None = None,
        train: bool = False,
        weights: bool = False,
    ):
        """Attention of query [B, T, d] to what `project` or `extend` made."""
        heads = self.query(query).swapaxes(1, 2)
        if mask is not None and mask.ndim == 3:
            mask = mask[:, None]
        dropping = train and self.dropout > 0
        found = attention.scaled_dot_product(heads, *cache, mask=mask, weights=weights or dropping)
        context, share = found if weights or dropping else (found, None)
        if dropping:
            kept = self.drop(share, deterministic=False)
            context = kept.astype(cache.values.dtype) @ cache.values
        context = self.output(context.swapaxes(1, 2))
        return (context, share) if weights else context

    def extend(self, query: jax.Array, cache: Cache, position: jax.Array) -> tuple[jax.Array, Cache]:
        """Causal self-attention of new places [B, T, d], of which the first is number `position` (an integer scalar).

        They are written into the cache, and each looks at those before it and at itself. Raises UsageError where more
        are given than a cache holds; from a position behind its end the last places are overwritten.
        """
        new, size = query.shape[1], cache.keys.shape[2]
        if new > size:
            raise UsageError(f'{new} places do not fit into a cache of {size}; make a larger one')
        keys, values = self.project(query)
        cache = Cache(
            lax.dynamic_update_slice_in_dim(cache.keys, keys.astype(cache.keys.dtype), position, 2),
            lax.dynamic_update_slice_in_dim(cache.values, values.astype(cache.values.dtype), position, 2),
        )
        return self.look(query, cache, attention.causal_mask(new, size, position)), cache
