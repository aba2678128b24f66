"""Attention: averages of values, weighted by a softmax over the scores of queries against keys, and its masks.

Queries are [..., T, d], keys [..., S, d], values [..., S, d_v]; the context is [..., T, d_v], the weights [..., T, S].
A mask is boolean, True where a query may attend, and broadcasts to [..., T, S]. A query whose keys are all masked gets
zeros and a zero gradient. The softmax is computed in float32 or wider, whatever the type of the inputs; the context has
the type of the values. With `weights=True` the functions return (context, weights), the weights in the softmax's type.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend
from canon.errors import UsageError
from canon.ops import dense

_NEVER = -1e30  # stands for log 0: finite, so that subtracting it from itself gives 0, not NaN


# --- scores -------------------------------------------------------------------------------------------------------


def dot_scores(query: jax.Array, keys: jax.Array, scale: float = 1.0) -> jax.Array:
    """Returns scale q^T k, [..., T, S]: Luong et al. 2015, eq. 8 'dot'; for scale d^-0.5 Vaswani et al. 2017, eq. 1."""
    _check_widths(query, keys)
    # Products of bfloat16 are summed in float32: the softmax turns an absolute error of a score into a relative one.
    return jnp.einsum('...td,...sd->...ts', query, keys, preferred_element_type=_accumulator_dtype(query)) * scale


def general_scores(query: jax.Array, keys: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns q^T W k, [..., T, S], for a kernel W [d_q, d_k]: Luong et al. 2015, eq. 8 'general'."""
    if kernel.shape != (query.shape[-1], keys.shape[-1]):
        raise UsageError(f'a kernel {kernel.shape} does not fit queries {query.shape} and keys {keys.shape}')
    return dot_scores(dense.product(query, kernel), keys)


def additive_scores(query: jax.Array, keys: jax.Array, v: jax.Array) -> jax.Array:
    """Returns v^T tanh(q + k), [..., T, S], for v [n]: Bahdanau et al. 2015, section 3.1.

    q = W s and k = U h are projected by the caller. It needs memory for [..., T, S, n]; a decoder that computes one
    step at a time needs [..., 1, S, n].
    """
    _check_widths(query, keys)
    if v.shape != query.shape[-1:]:
        raise UsageError(f'v must be {query.shape[-1:]} for queries {query.shape}, not {v.shape}')
    return jnp.tanh(query[..., :, None, :] + keys[..., None, :, :]) @ v


# --- weights and context ------------------------------------------------------------------------------------------


def softmax(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Returns weights [..., T, S], float32 or wider, whose sum over S is 1, or 0 if all keys are masked."""
    unnormalised, total = _exponentials(scores, mask)
    return unnormalised / total


def attend(scores: jax.Array, values: jax.Array, mask: jax.Array | None = None, weights: bool = False) -> Any:
    """Averages values by softmax(scores) (Bahdanau et al. 2015, eq. 5 and 6).

    Args:
      scores: [..., T, S].
      values: [..., S, d_v].
      mask: boolean, broadcasts to [..., T, S].
      weights: also returns the weights.

    Raises:
      UsageError: the shapes do not fit.
    """
    _check(scores.shape, values, mask)
    unnormalised, total = _exponentials(scores, mask)
    if weights:
        probabilities = unnormalised / total
        return _sum_weighted(probabilities, values).astype(values.dtype), probabilities
    # Dividing the context takes fewer divisions than dividing the weights: a fifth less time in training on a CPU.
    return (_sum_weighted(unnormalised, values) / total).astype(values.dtype)


def dot_product(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    mask: jax.Array | None = None,
    scale: float = 1.0,
    weights: bool = False,
) -> Any:
    """Attends by `dot_scores` (Luong et al. 2015).

    On an accelerator, and without `weights`, it calls `jax.nn.dot_product_attention`; XLA:CPU takes 1.0 to 1.8 times as
    long for that as for our form.

    Args:
      query: [..., T, d].
      keys: [..., S, d].
      values: [..., S, d_v].
      mask: boolean, broadcasts to [..., T, S].
      scale: multiplies the scores.
      weights: also returns the weights.

    Raises:
      UsageError: the shapes do not fit.
    """
    _check_widths(query, keys)
    shape = (*np.broadcast_shapes(query.shape[:-2], keys.shape[:-2]), query.shape[-2], keys.shape[-2])
    _check(shape, values, mask)
    fits = query.ndim in (3, 4) and keys.shape == values.shape and query.shape[:-2] == keys.shape[:-2]
    # jax.nn's computes the softmax of float64 inputs in float32.
    if weights or backend.cpu_form() or not fits or query.dtype == jnp.float64:
        return attend(dot_scores(query, keys, scale), values, mask, weights=weights)
    return _library_attention(query, keys, values, mask, scale)


def scaled_dot_product(
    query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array | None = None, weights: bool = False
) -> Any:
    """Returns softmax(Q K^T / sqrt(d_k)) V (Vaswani et al. 2017, eq. 1); arguments as in `dot_product`."""
    return dot_product(query, keys, values, mask, query.shape[-1] ** -0.5, weights)


def _library_attention(query, keys, values, mask, scale):
    """Calls jax.nn, which takes [B, T, h, d] and returns the mean of all values, not 0, if all keys are masked."""
    # Without an axis of heads there is one head; a mask [B, T, S] gets that axis, a mask [T, S] broadcasts as it is.
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


def _exponentials(scores: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns exp(scores - max), 0 where masked, and the sum over the last axis, 1 if all are masked."""
    scores = scores.astype(_accumulator_dtype(scores))
    if mask is not None:
        scores = jnp.where(mask, scores, _NEVER)
    # The maximum cancels in the quotient, so its gradient is zero and need not be computed.
    unnormalised = jnp.exp(scores - jax.lax.stop_gradient(scores.max(-1, keepdims=True)))
    if mask is None:
        return unnormalised, unnormalised.sum(-1, keepdims=True)
    # If all keys are masked, every score is the maximum and exp gives 1: the weights become 0 and their sum 1 below.
    unnormalised = jnp.where(mask, unnormalised, 0)
    total = unnormalised.sum(-1, keepdims=True)
    return unnormalised, jnp.where(total > 0, total, 1)


def _sum_weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    dtype = _accumulator_dtype(values)
    return jnp.einsum('...ts,...sd->...td', weights.astype(values.dtype), values, preferred_element_type=dtype)


def _accumulator_dtype(x: jax.Array):
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


# --- masks --------------------------------------------------------------------------------------------------------


def padding_mask(lengths: jax.Array, size: int) -> jax.Array:
    """Returns a mask [B, 1, size], True for the first lengths [B] keys of each row."""
    return jnp.arange(size) < lengths[:, None, None]


def causal_mask(queries: int, keys: int | None = None, start: int | jax.Array = 0) -> jax.Array:
    """Returns a mask [queries, keys], True where s <= start + t: a query attends to itself and to what precedes it.

    start: the position of the first query among the keys. `padding_mask(...) & causal_mask(...)` combines both.
    """
    keys = queries if keys is None else keys
    return jnp.arange(keys) <= start + jnp.arange(queries)[:, None]


# --- checks -------------------------------------------------------------------------------------------------------


def _check_widths(query: jax.Array, keys: jax.Array) -> None:
    if query.ndim < 2 or keys.ndim < 2 or query.shape[-1] != keys.shape[-1]:
        raise UsageError(
            f'attention takes queries [..., T, d] and keys [..., S, d], not {query.shape} and {keys.shape}'
        )


def _check(scores: tuple[int, ...], values: jax.Array, mask: jax.Array | None) -> None:
    if values.ndim < 2 or values.shape[-2] != scores[-1]:
        raise UsageError(f'{scores[-1]} keys take as many values [..., S, d_v], not {values.shape}')
    if mask is None:
        return
    if mask.dtype != bool:
        raise UsageError(f'a mask is boolean, True where a query may attend, not {mask.dtype}')
    # Broadcasting aligns the last axes, so the shapes are compared from the end.
    fits = mask.ndim <= len(scores) and all(m in (1, s) for m, s in zip(mask.shape[::-1], scores[::-1], strict=False))
    if not fits:
        raise UsageError(f'a mask {mask.shape} does not broadcast to scores {tuple(scores)}')
