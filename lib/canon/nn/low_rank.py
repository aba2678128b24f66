"""LoRA: low-rank adapters of the kernels of any Dense or Conv, on the tree of parameters and not within the layers.

    adapters = init_adapters(key, params, rank=4, where='attention/.*kernel$')
    logits = model.apply({'params': merge_adapters(params, adapters)}, x)

No layer knows of adapters, so any model of any library can be adapted, and what is merged is the plain tree again.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from canon import named
from canon.errors import UsageError

_SEPARATOR = '/'


def init_adapters(key: jax.Array, params: Any, rank: named.Count, where: str = 'kernel$') -> dict[str, Any]:
    """Returns {path of a kernel: {'a': [fan-in, r], 'b': [r, outputs]}}: Hu et al. 2022, section 4.1.

    a is drawn from N(0, 1 / fan-in) and b is 0, so that training starts from the given network. A kernel [h, w, c, o]
    of a convolution is the matrix [h w c, o].

    Args:
      key: of the initialisation.
      params: nested dicts of arrays.
      rank: r.
      where: regex of the paths of the adapted kernels.

    Raises:
      UsageError: the regex matches no parameter, or one that is not a kernel, or r is more than the rank of a kernel.
    """
    leaves = flatten_dict(params, sep=_SEPARATOR)
    pattern = named.compile_pattern(where, 'where')
    chosen = sorted(path for path in leaves if pattern.search(path))
    if not chosen:
        raise UsageError(f'where={where!r} matches no parameter{named.suggest(where, leaves)}')
    adapters = {}
    for path, own in zip(chosen, jax.random.split(key, len(chosen)), strict=True):
        shape = jnp.shape(leaves[path])
        if len(shape) < 2:
            raise UsageError(f'{path} {list(shape)} is not a kernel; adapt kernels alone: where={where!r}')
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if not 1 <= rank <= min(rows, columns):
            raise UsageError(f'rank={rank} must be in 1..{min(rows, columns)} for {path} {list(shape)}')
        dtype = jnp.result_type(leaves[path])
        a = jax.random.normal(own, (rows, rank), dtype) / math.sqrt(rows)
        adapters[path] = {'a': a, 'b': jnp.zeros((rank, columns), dtype)}
    return adapters


def merge_adapters(params: Any, adapters: dict[str, Any], alpha: float | None = None) -> Any:
    """Returns the tree of `params` with W + alpha / r a b in place of each adapted kernel W.

    Args:
      params: nested dicts of arrays.
      adapters: of `init_adapters`.
      alpha: of the scale alpha / r; None is r, the scale 1.

    Raises:
      UsageError: an adapter belongs to no kernel, or to one of another shape.
    """
    leaves = dict(flatten_dict(params, sep=_SEPARATOR))
    for path, adapter in adapters.items():
        a, b = adapter['a'], adapter['b']
        shape = jnp.shape(leaves[path]) if path in leaves else None
        if shape is None or (math.prod(shape[:-1]), shape[-1]) != (a.shape[0], b.shape[1]):
            raise UsageError(f'the adapter of {path} fits no kernel there: {"none" if shape is None else list(shape)}')
        scale = 1.0 if alpha is None else alpha / a.shape[1]
        leaves[path] = leaves[path] + scale * (a @ b).reshape(shape)
    return unflatten_dict(leaves, sep=_SEPARATOR)


def count_adapters(adapters: dict[str, Any]) -> int:
    """Returns the number of parameters of adapters: r (fan-in + outputs) per kernel."""
    return sum(leaf.size for leaf in jax.tree.leaves(adapters))
