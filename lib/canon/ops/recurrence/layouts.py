"""Layouts: the order of a step's axes, and how many matrix products a step takes.

All compute the same. Which is fastest depends on the backend and the size of the weights, as measured by
`benchmarks/recurrence.py`. "Joined" is how a layout holds n gates together: one array, or a tuple of n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from canon.backend import cpu_form
from canon.ops import dense

_WIDE = 400  # units from which XLA:CPU prefers the weights on the left


class Layout(Protocol):
    """The order of axes and the products of a step's arrays."""

    def transpose(self, rows: jax.Array) -> jax.Array:
        """Moves [..., B, H] to this layout's order of axes, or back."""

    def broadcast(self, bias: jax.Array) -> jax.Array:
        """Returns a bias [H] in a shape that adds to a state."""

    def project(self, x: jax.Array, kernel: jax.Array, bias: jax.Array | None, gates: int) -> Any:
        """Computes x kernel + bias for all steps at once, joined: x [T, B, I], kernel [I, n H]."""

    def arrange(self, w: jax.Array, transposed: bool) -> Any:
        """Returns weights [H, n H] as `multiply` takes them, or as `multiply_transposed` does."""

    def multiply(self, h: jax.Array, w: Any) -> Sequence[jax.Array]:
        """Computes h w, by gates."""

    def multiply_transposed(self, joined: Any, w: Any) -> jax.Array:
        """Computes joined w^T."""

    def split(self, joined: Any, gates: int) -> Sequence[jax.Array]:
        """Returns the gates of a joined value."""

    def join(self, z: Sequence[jax.Array]) -> Any:
        """Returns the joined value of gates."""

    def sum_outer(self, h: jax.Array, joined: Any) -> jax.Array:
        """Sums h_t^T joined_t over all steps: [H, n H]."""

    def sum_steps(self, joined: Any) -> jax.Array:
        """Sums joined over steps and sequences: [n H]."""


class JointGates(NamedTuple):
    """States [B, H], one product for all gates: what TPU and GPU want."""

    def transpose(self, rows):
        return rows

    def broadcast(self, bias):
        return bias

    def project(self, x, kernel, bias, gates):
        y = dense.product(x, kernel)
        return y if bias is None else y + bias

    def arrange(self, w, transposed):
        return w.T if transposed else w  # outside of the loop: a transposition is one copy

    def multiply(self, h, w):
        return self.split(_product(h, w), w.shape[1] // w.shape[0])

    def multiply_transposed(self, joined, w):
        return _product(joined, w)

    def split(self, joined, gates):
        return jnp.split(joined, gates, -1)

    def join(self, z):
        return jnp.concatenate(z, -1)

    def sum_outer(self, h, joined):
        # Steps and sequences become one axis, so a single product sums over both.
        return _product(h.reshape(-1, h.shape[-1]).T, joined.reshape(-1, joined.shape[-1]))

    def sum_steps(self, joined):
        return joined.sum((0, 1))


class SplitGates(NamedTuple):
    """States [B, H], one product per gate: XLA:CPU then does not copy slices of a product in every step."""

    def transpose(self, rows):
        return rows

    def broadcast(self, bias):
        return bias

    def project(self, x, kernel, bias, gates):
        # One product per gate here too, so that the loop reads whole arrays and not slices.
        kernels = jnp.split(kernel, gates, 1)
        biases = [None] * gates if bias is None else jnp.split(bias, gates)
        return tuple(JointGates().project(x, k, b, 1) for k, b in zip(kernels, biases, strict=True))

    def arrange(self, w, transposed):
        parts = jnp.split(w, w.shape[1] // w.shape[0], 1)
        return tuple(p.T for p in parts) if transposed else tuple(parts)

    def multiply(self, h, w):
        return [_product(h, part) for part in w]

    def multiply_transposed(self, joined, w):
        return sum(_product(z, part) for z, part in zip(joined, w, strict=True))

    def split(self, joined, gates):
        return joined

    def join(self, z):
        return tuple(z)

    def sum_outer(self, h, joined):
        # Joined once, after the loop.
        return jnp.concatenate([JointGates().sum_outer(h, z) for z in joined], 1)

    def sum_steps(self, joined):
        return jnp.concatenate([z.sum((0, 1)) for z in joined])


class ColumnStates(NamedTuple):
    """States [H, B], one product for all gates with the weights on the left: fastest on XLA:CPU for wide layers."""

    def transpose(self, rows):
        return rows.swapaxes(-1, -2)

    def broadcast(self, bias):
        return bias[:, None]

    def project(self, x, kernel, bias, gates):
        # Transposed once for all steps, so that the loop reads columns.
        return JointGates().project(x, kernel, bias, gates).swapaxes(1, 2)

    def arrange(self, w, transposed):
        return w if transposed else w.T  # weights on the left are transposed in the forward step

    def multiply(self, h, w):
        return self.split(_product(w, h), w.shape[0] // w.shape[1])

    def multiply_transposed(self, joined, w):
        return _product(w, joined)

    def split(self, joined, gates):
        return jnp.split(joined, gates, -2)

    def join(self, z):
        return jnp.concatenate(z, -2)

    def sum_outer(self, h, joined):
        return JointGates().sum_outer(self.transpose(h), self.transpose(joined))

    def sum_steps(self, joined):
        return joined.sum((0, 2))


def choose_layout(hidden: int) -> Layout:
    """Returns the fastest layout on this backend for H hidden units."""
    if not cpu_form():
        return JointGates()
    return SplitGates() if hidden < _WIDE else ColumnStates()


def accumulator_type(dtype: Any) -> Any:
    """Returns the type of sums and states: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Computes a b in the narrower of their types, summed in float32 at least."""
    # A float32 state is rounded to the weights' bfloat16, not the weights widened: only narrow products are faster.
    dtype = a.dtype if a.dtype.itemsize < b.dtype.itemsize else b.dtype
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=accumulator_type(dtype))
