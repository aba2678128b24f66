"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from optax import GradientTransformation, chain

from canon.optim.core import (
    Tree,
    cast,
    explain_names,
    lerp,
    next_count,
    one_minus_power,
    per_leaf,
    ratio,
    refuse_buckets,
    times,
    to_integer,
    to_number,
    wide,
    wide_dtype,
    zero_count,
    zeros,
)
from canon.optim.decay import add_decayed_weights
from canon.optim.learning_rate import scale_by_learning_rate
from canon.optim.schedules import Schedule


class Side(NamedTuple):
    """One side of a matrix: the average of G G^T (or G^T G) and its eigenvectors, as columns."""

    gram: jax.Array
    basis: jax.Array


class SoapState(NamedTuple):
    """Holds the moments of `scale_by_soap`, and the bases in which the second one is kept."""

    count: jax.Array
    mu: Tree  # first moment of the gradients, not rotated
    nu: Tree  # second moment of the rotated gradients
    sides: tuple  # for each leaf (left, right), each a Side or None


@explain_names
def soap(
    learning_rate: float | Schedule = 0.003,
    b1: float = 0.95,
    b2: float = 0.95,
    eps: float = 1e-8,
    *,
    weight_decay: float = 0.01,
    where: str | None = None,
    every: int = 10,
    max_size: int = 4096,
) -> GradientTransformation:
    """Adam on Q_L^T G Q_R, rotated back, where Q are the eigenvectors of the averages of G G^T and G^T G.

    Vyas et al. 2024, algorithm 3. Every `every` updates the bases are refined by one step of power iteration and a QR
    decomposition (algorithm 4), and the second moments are permuted with the eigenvalues. A kernel of more than two
    dimensions is the matrix [all other axes, outputs]. A side longer than `max_size` is not rotated, and neither are
    vectors, for which this is Adam. Decay is decoupled, as in `adamw`. optax has no SOAP. The first update is made in
    the basis of the first gradient; the authors' code skips it.

    Args:
      learning_rate: epsilon_k, a number or a schedule.
      b1: decay of the first moment.
      b2: decay of the second moment and of the averages of G G^T.
      eps: added to the root of the second moment.
      weight_decay: coefficient of the decay.
      where: regex of the paths of the parameters to decay; all if None.
      every: updates between refinements of the bases.
      max_size: of a side that is rotated.
    """
    return chain(
        scale_by_soap(b1, b2, eps, every=every, max_size=max_size),
        add_decayed_weights(weight_decay, where=where),
        scale_by_learning_rate(learning_rate),
    )


def scale_by_soap(
    b1: float = 0.95, b2: float = 0.95, eps: float = 1e-8, *, every: int = 10, max_size: int = 4096
) -> GradientTransformation:
    """u <- the direction of `soap`."""
    b1, b2 = to_number('b1', b1, below=1.0), to_number('b2', b2, below=1.0)
    eps, max_size = to_number('eps', eps), to_integer('max_size', max_size, least=0)
    every = to_integer('every', every, traced=True)

    def init(params):
        refuse_buckets(params, 'soap')
        sides = tuple(_init_sides(p, max_size) for p in jax.tree.leaves(params))
        return SoapState(zero_count(), zeros(params), zeros(params), sides)

    def update(updates, state, params=None):
        count = next_count(state.count)
        correct_mu, correct_nu = 1 / one_minus_power(b1, count), 1 / one_minus_power(b2, count)

        def kernel(u, mu, nu, sides):
            u = wide(u)
            g = _matrix(u)
            sides = tuple(_update_gram(side, g if i == 0 else g.T, b2) for i, side in enumerate(sides))
            sides, nu = _update_bases(sides, _matrix(nu), count, every)
            # mu stays in the basis of the parameters and is rotated for the step; squares cannot be rotated later.
            mu = lerp(mu, u, b1)
            nu = lerp(nu, _rotate(g, sides) ** 2, b2)
            divisor = jnp.sqrt(times(correct_nu, nu)) + cast(eps, u)
            direction = ratio(times(correct_mu, _rotate(_matrix(mu), sides)), divisor)
            return _rotate(direction, sides, back=True).reshape(u.shape), mu, nu.reshape(u.shape), sides

        treedef = jax.tree.structure(updates)
        # `per_leaf` checks the shapes; it cannot map over `sides`, which has two entries per leaf.
        checked = per_leaf(lambda u, mu, nu: (u, mu, nu), updates, state.mu, state.nu)
        sides = treedef.unflatten(list(state.sides))
        columns = [treedef.flatten_up_to(tree) for tree in (*checked, sides)]
        rows = [kernel(*row) for row in zip(*columns, strict=True)]
        new = list(zip(*rows, strict=True)) if rows else [()] * 4
        return treedef.unflatten(new[0]), SoapState(count, treedef.unflatten(new[1]), treedef.unflatten(new[2]), new[3])

    return GradientTransformation(init, update)


def _matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1]) if x.ndim >= 2 else x.reshape(1, -1)


def _init_sides(p, max_size: int) -> tuple[Side | None, Side | None]:
    if jnp.ndim(p) < 2:
        return None, None
    sizes = (jnp.size(p) // max(p.shape[-1], 1), p.shape[-1])
    square = lambda n: jnp.zeros((n, n), wide_dtype(p))  # noqa: E731
    left, right = (Side(square(n), jnp.eye(n, dtype=wide_dtype(p))) if 1 < n <= max_size else None for n in sizes)
    return left, right


def _update_gram(side: Side | None, g: jax.Array, decay: float) -> Side | None:
    if side is None:
        return None
    gram = g @ g.T
    # An overflow, from gradients of 1.8e19 on, would destroy the average for good: such a product is skipped.
    gram = jnp.where(jnp.all(jnp.isfinite(gram)), gram, side.gram)
    return Side(lerp(side.gram, gram, decay), side.basis)


def _update_bases(sides, nu, count, every: int):
    """Updates the bases at the first update and at every `every`-th; returns the sides, and nu in the new order."""

    def decompose(sides, nu):
        # `eigh` sorts ascending; the largest eigenvalue comes first, as `refine` keeps it.
        return tuple(s and Side(s.gram, jnp.linalg.eigh(s.gram)[1][:, ::-1]) for s in sides), nu

    def refine(sides, nu):
        new = []
        for axis, side in enumerate(sides):
            if side is not None:
                # Rayleigh quotients: the eigenvalues as the present basis estimates them.
                values = jnp.sum(side.basis * (side.gram @ side.basis), axis=0)
                order = jnp.argsort(-values)
                nu = jnp.take(nu, order, axis=axis)
                side = Side(side.gram, jnp.linalg.qr(side.gram @ side.basis[:, order])[0])
            new.append(side)
        return tuple(new), nu

    if all(side is None for side in sides):
        return sides, nu
    branch = jnp.where(count == 1, 0, jnp.where(count % every == 0, 1, 2))
    return jax.lax.switch(branch, (decompose, refine, lambda sides, nu: (sides, nu)), sides, nu)


def _rotate(x: jax.Array, sides, back: bool = False) -> jax.Array:
    left, right = sides
    if left is not None:
        x = (left.basis if back else left.basis.T) @ x
    if right is not None:
        x = x @ (right.basis.T if back else right.basis)
    return x
