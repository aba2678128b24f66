"""Attention: values averaged by weights that a query's scores against keys give, and the masks of it.

Queries are [..., T, d], keys [..., S, d], values [..., S, d_v]; the context is [..., T, d_v], the weights [..., T, S].
A mask is boolean, True where a query may look, and broadcasts to [..., T, S]. A query that may look nowhere gets zeros
and a zero gradient. The softmax is computed in float32 at least, whatever the inputs' type; the context is of the
values' type. With `weights` the functions return (context, weights), the weights of the softmax's type.
"""

from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend
from canon.errors import UsageError
from canon.ops import dense

_NEVER = -1e30  # log 0 that can be subtracted from itself


# --- scores -------------------------------------------------------------------------------------------------------


def dot_scores(query: jax.Array, keys: jax.Array, scale: float = 1.0) -> jax.Array:
    """scale q^T k, [..., T, S]: Luong et al. 2015, 'dot' of eq. 8; with scale d^-0.5 Vaswani et al. 2017, eq. 1."""
    _check_widths(query, keys)
    return jnp.einsum('...td,...sd->...ts', query, keys, preferred_element_type=_wide(query)) * scale


def general_scores(query: jax.Array, keys: jax.Array, kernel: jax.Array) -> jax.Array:
    """q^T W k, [..., T, S], with kernel W [d_q, d_k]: Luong et al. 2015, 'general' of eq. 8."""
    if kernel.shape != (query.shape[-1], keys.shape[-1]):
        raise UsageError(f'general_scores of query {query.shape} and keys {keys.shape} has no kernel {kernel.shape}')
    return dot_scores(dense.product(query, kernel), keys)


def additive_scores(query: jax.Array, keys: jax.Array, v: jax.Array) -> jax.Array:
    """v^T tanh(q + k), [..., T, S]: Bahdanau et al. 2015, section 3.1, with q = W s and k = U h projected already.

    v [n]. It holds [..., T, S, n]; a decoder that asks for one step at a time holds [..., 1, S, n].
    """
    _check_widths(query, keys)
    if v.shape != query.shape[-1:]:
        raise UsageError(f'additive_scores of queries {query.shape} takes v of {query.shape[-1:]}, not {v.shape}')
    return jnp.tanh(query[..., :, None, :] + keys[..., None, :, :]) @ v


# --- weights and context ------------------------------------------------------------------------------------------


def softmax(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Weights [..., T, S] in float32 at least, which sum to 1 over the last axis, or to 0 where all is masked."""
    shares, total = _shares(scores, mask)
    return shares / total


@overload
def attend(scores, values, mask=None, weights: Literal[False] = False) -> jax.Array: ...
@overload
def attend(scores, values, mask=None, *, weights: Literal[True]) -> tuple[jax.Array, jax.Array]: ...
@overload
def attend(scores, values, mask=None, *, weights: bool) -> jax.Array | tuple[jax.Array, jax.Array]: ...
def attend(scores, values, mask=None, weights=False):
    """The values averaged by softmax(scores): Bahdanau et al. 2015, eq. 5 and 6. Raises UsageError for a misfit."""
    _check(scores.shape, values, mask)
    shares, total = _shares(scores, mask)
    if weights:
        share = shares / total
        return _average(share, values).astype(values.dtype), share
    # Dividing the context takes fewer divisions than dividing the weights: a fifth less time in training on a CPU.
    return (_average(shares, values) / total).astype(values.dtype)


def dot_product(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    scale: float = 1.0,
    weights: bool = False,
):
    """Attention by `dot_scores`: Luong et al. 2015. Raises UsageError for shapes that do not fit.

    Where weights are not asked for, and off the CPU, it is `jax.nn.dot_product_attention`; XLA:CPU takes 1.0 to 1.8
    times as long over that as over ours.
    """
    _check_widths(query, keys)
    shape = (*np.broadcast_shapes(query.shape[:-2], keys.shape[:-2]), query.shape[-2], keys.shape[-2])
    _check(shape, values, mask)
    fits = query.ndim in (3, 4) and keys.shape == values.shape and query.shape[:-2] == keys.shape[:-2]
    # In float64 theirs has a softmax of float32.
    if weights or backend.cpu_form() or not fits or query.dtype == jnp.float64:
        return attend(dot_scores(query, keys, scale), values, mask, weights=weights)
    return _library(query, keys, values, mask, scale)


def scaled_dot_product(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None = None, weights: bool = False
):
    """softmax(Q K^T / sqrt(d_k)) V: Vaswani et al. 2017, eq. 1. See `dot_product`."""
    return dot_product(query, keys, values, mask, query.shape[-1] ** -0.5, weights)


def _library(query, keys, values, mask, scale):
    """As jax.nn has it: [B, T, h, d], and for a row that is masked fully the mean of all values, which we blank."""
    inputs = (query, keys, values)
    if query.ndim == 3:
        inputs = tuple(x[:, None] for x in inputs)
        mask = mask if mask is None or mask.ndim < 3 else mask[:, None]
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    context = jax.nn.dot_product_attention(*(x.swapaxes(1, 2) for x in inputs), mask=mask, scale=scale).swapaxes(1, 2)
    if mask is not None:
        context = jnp.where(mask.any(-1)[..., None], context, 0)
    return context[:, 0] if query.ndim == 3 else context


def _shares(scores: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """exp(scores - their maximum), 0 where masked, and their sum over the last axis, 1 where there are none."""
    scores = scores.astype(_wide(scores))
    if mask is not None:
        scores = jnp.where(mask, scores, _NEVER)
    shares = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    if mask is None:
        return shares, shares.sum(-1, keepdims=True)
    shares = jnp.where(mask, shares, 0)
    total = shares.sum(-1, keepdims=True)
    return shares, jnp.where(total > 0, total, 1)


def _average(shares: jax.Array, values: jax.Array) -> jax.Array:
    kind = _wide(values)
    return jnp.einsum('...ts,...sd->...td', shares.astype(values.dtype), values, preferred_element_type=kind)


def _wide(x: jax.Array):
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


# --- masks --------------------------------------------------------------------------------------------------------


def padding_mask(lengths: jax.Array, size: int) -> jax.Array:
    """[B, 1, size], True for the first lengths [B] keys of each row."""
    return jnp.arange(size) < lengths[:, None, None]


def causal_mask(queries: int, keys: int | None = None, start: int | jax.Array = 0) -> jax.Array:
    """[queries, keys], True where key s <= start + t: a query sees itself and what is before it.

    start: the place of the first query among the keys. `padding_mask(..) & causal_mask(..)` is both.
    """
    keys = queries if keys is None else keys
    return jnp.arange(keys) <= start + jnp.arange(queries)[:, None]


# --- what is refused ----------------------------------------------------------------------------------------------


def _check_widths(query: jax.Array, keys: jax.Array) -> None:
    if query.ndim < 2 or keys.ndim < 2 or query.shape[-1] != keys.shape[-1]:
        raise UsageError(f'attention takes queries [.., T, d] and keys [.., S, d], not {query.shape} and {keys.shape}')


def _check(scores: tuple[int, ...], values: jax.Array, mask: jax.Array | None) -> None:
    if values.ndim < 2 or values.shape[-2] != scores[-1]:
        raise UsageError(f'{scores[-1]} keys take as many values [.., S, d_v], not {values.shape}')
    if mask is None:
        return
    if mask.dtype != bool:
        raise UsageError(f'a mask is boolean, True where a query may look, not {mask.dtype}')
    fits = mask.ndim <= len(scores) and all(m in (1, s) for m, s in zip(mask.shape[::-1], scores[::-1], strict=False))
    if not fits:
        raise UsageError(f'a mask {mask.shape} does not broadcast to scores {tuple(scores)}')
