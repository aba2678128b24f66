"""Muon: orthogonalised momentum for matrices, Adam for all other parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.tree_util import tree_flatten_with_path
from optax import GradientTransformation, chain

from canon.backend import cpu_form
from canon.errors import UsageError
from canon.named import compile_pattern, suggest
from canon.optim.adam import adamw
from canon.optim.core import (
    Tree,
    accept_names,
    lerp,
    path_name,
    per_leaf,
    refuse_buckets,
    to_integer,
    to_number,
    wide,
    zeros,
)
from canon.optim.decay import add_decayed_weights
from canon.optim.groups import partition_by
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.schedules import Schedule

T = TypeVar('T')
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: the steepest polynomial at zero that stays bounded


class MuonState(NamedTuple):
    """Holds the momentum of `scale_by_muon`."""

    mu: Tree


@accept_names(beta='momentum', ns_steps='steps')
def muon(
    learning_rate: float | Schedule = 0.02,
    *,
    momentum: float = 0.95,
    nesterov: bool = True,
    steps: int = 5,
    weight_decay: float = 0.0,
    scale: str = 'width',
    adam_where: str | None = None,
    adam_learning_rate: float | Schedule = 3e-4,
    adam_b1: float = 0.9,
    adam_b2: float = 0.95,
) -> GradientTransformation:
    """m <- momentum m + (1 - momentum) g; theta <- theta - epsilon_k (scale NS(m) + weight_decay theta).

    Jordan et al. 2024 (github.com/KellerJordan/Muon). NS is an iteration of Newton and Schulz that brings all singular
    values near 1. A kernel of more than two dimensions is taken as the matrix [all other axes, outputs], HWIO as
    [H W I, O], as its author advises for convolutions. `optax.contrib.muon` applies it to leaves of two dimensions
    only, which in a Flax ResNet is the classifier. Vectors and scalars are updated by AdamW.

    Args:
      learning_rate: epsilon_k of the matrices, a number or a schedule.
      momentum: decay of m.
      nesterov: orthogonalises the look-ahead of m.
      steps: iterations of Newton-Schulz.
      weight_decay: of all parameters.
      scale: 'width' is sqrt(max(1, outputs / inputs)), the author's; 'rms' is 0.2 sqrt(max(inputs, outputs)), for which
        Adam's rates are right (Liu et al. 2025, eq. 4).
      adam_where: regex of the paths of matrices that AdamW updates; the author advises it for embeddings and the last
        layer ('embedding|^head').
      adam_learning_rate: of AdamW.
      adam_b1: of AdamW.
      adam_b2: of AdamW.
    """

    def owners(params):
        refuse_buckets(params, 'muon')
        leaves = tree_flatten_with_path(params)[0]
        names = [path_name(path) for path, _ in leaves]
        by_adam = [adam_where is not None and compile_pattern(adam_where).search(name) is not None for name in names]
        if adam_where is not None and names and not any(by_adam):
            raise UsageError(f'adam_where={adam_where!r} matches no parameter{suggest(adam_where, names)}')
        # 0 is Muon's group, 1 AdamW's: a vector has no singular values to equalise.
        return [int(yes or jnp.ndim(p) < 2) for yes, (_, p) in zip(by_adam, leaves, strict=True)]

    matrices = chain(
        scale_by_muon(momentum=momentum, nesterov=nesterov, steps=steps, scale=scale),
        add_decayed_weights(weight_decay),
        scale_by_learning_rate(learning_rate),
    )
    rest = adamw(adam_learning_rate, adam_b1, adam_b2, weight_decay=weight_decay)
    return partition_by(owners, {'muon': matrices, 'adam': rest})


@accept_names(beta='momentum', ns_steps='steps')
def scale_by_muon(
    *, momentum: float = 0.95, nesterov: bool = True, steps: int = 5, scale: str = 'width'
) -> GradientTransformation:
    """u <- scale NS(m), for leaves of at least two dimensions. See `muon`."""
    momentum = to_number('momentum', momentum, below=1.0)
    steps = to_integer('steps', steps, traced=True)
    if scale not in ('width', 'rms'):
        raise UsageError(f'scale={scale!r} must be width or rms{suggest(scale, ("width", "rms"))}')

    def init(params):
        refuse_buckets(params, 'muon')
        return MuonState(zeros(params))

    def update(updates, state, params=None):
        def kernel(path, u, m):
            if u.ndim < 2:
                raise UsageError(f'{path} has shape {u.shape}; muon is for matrices, give it to adam')
            u = wide(u)
            m = lerp(m, u, momentum)
            # Rows are all axes but the outputs: a convolution is the matrix that it applies to patches.
            matrix = (lerp(u, m, 1 - momentum) if nesterov else m).reshape(-1, u.shape[-1])
            inputs, outputs = matrix.shape
            factor = max(1, outputs / max(inputs, 1)) ** 0.5 if scale == 'width' else 0.2 * max(matrix.shape) ** 0.5
            return factor * orthogonalize(matrix, steps).reshape(u.shape), m

        updates, mu = per_leaf(kernel, updates, state.mu, paths=True)
        return updates, MuonState(mu)

    return GradientTransformation(init, update)


def orthogonalize(matrix: jax.Array, steps: int = 5, eps: float = 1e-7) -> jax.Array:
    """Maps a matrix [m, n] = U S V^T to U S' V^T with S' in about [0.7, 1.2] (Newton-Schulz); 0 stays 0.

    X <- a X + (b A + c A^2) X with A = X X^T, from X = matrix / ||matrix||, on the smaller side of the matrix. It is
    computed in the type of the matrix; the author uses bfloat16.
    """
    # X X^T is then of the smaller of the two sizes.
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    # Divides by the largest entry first: squares overflow from 1.8e19 on.
    largest = jnp.max(jnp.abs(x), initial=0)
    largest = jnp.where(largest == 0, 1, largest)
    x = x / largest
    # eps / largest, since x was divided by it: together matrix / (||matrix|| + eps).
    x = x / (jnp.sqrt(jnp.sum(x * x)) + eps / largest)
    # The products of A need float32, which TPU and GPU round to fewer bits.
    by_gram = cpu_form() and x.dtype.itemsize >= 4 and 2 * x.shape[0] <= x.shape[1]
    x = _iterate_gram(x, steps) if by_gram else _repeat(_iterate, x, steps)
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def _iterate(x: jax.Array) -> jax.Array:
    a, b, c = COEFFICIENTS
    gram = x @ x.T
    return a * x + (b * gram + c * gram @ gram) @ x


def _iterate_gram(x: jax.Array, steps: int) -> jax.Array:
    """Repeats `_iterate` on A alone: X becomes Q X, and A becomes P A P with P = a I + b A + c A^2.

    The long side of X is multiplied twice instead of in each step. Singular values of less than 1e-4 of the largest
    are mapped with a relative error of up to 1e-3, since A has their squares.
    """
    a, b, c = COEFFICIENTS

    def iterate(state):
        gram, product = state
        p = b * gram + c * gram @ gram + a * jnp.eye(len(gram), dtype=gram.dtype)
        return p @ gram @ p, p @ product

    _, product = _repeat(iterate, (x @ x.T, jnp.eye(x.shape[0], dtype=x.dtype)), steps)
    return product @ x


def _repeat(function: Callable[[T], T], value: T, steps: int) -> T:
    if not isinstance(steps, int):
        return jax.lax.fori_loop(0, steps, lambda _, value: function(value), value)
    for _ in range(steps):  # unrolled: XLA fuses across the steps
        value = function(value)
    return value
