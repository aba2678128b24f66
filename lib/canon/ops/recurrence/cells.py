"""One step of each cell, forward and backward, in terms of a `Layout`.

A backward step carries the gradient of the state alone, and returns that of z, the gates' arguments. The gradient of
the weights is then one product of all z with all states (`weight_gradients`), outside the loop: inside, it would read
and write an array as large as the weights at every step.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from canon.ops.activations import ACTIVATIONS, sigmoid
from canon.ops.recurrence.layouts import Layout

State = tuple[jax.Array, ...]

SLOPES = {  # derivative of an activation, by its value
    'tanh': lambda s: 1 - s * s,
    'relu': lambda s: (s > 0).astype(s.dtype),
    'sigmoid': lambda s: s * (1 - s),
    'linear': jnp.ones_like,
}


class Cell(Protocol):
    """A recurrent cell. z is x kernel + bias, by gates, or its gradient, joined (see `Layout`)."""

    @property
    def gates(self) -> int:
        """n, the number of products with the input."""
        ...

    @property
    def states(self) -> int:
        """The number of arrays in the state."""
        ...

    def arrange(self, layout: Layout, weights: tuple, transposed: bool) -> tuple:
        """Returns the weights as forward steps multiply by them, or as backward steps do."""

    def forward(self, layout: Layout, w: tuple, z: tuple, state: State) -> tuple[State, tuple]:
        """Returns the next state, and the values that `backward` needs."""

    def backward(self, layout: Layout, w: tuple, saved: tuple, old: State, dnew: State) -> tuple[State, Any, tuple]:
        """Returns the gradients of the old state and, joined, of z; and what else `weight_gradients` needs."""

    def weight_gradients(
        self, layout: Layout, saved: tuple, old: State, dz: Any, extra: tuple, weights: tuple
    ) -> tuple[tuple, Any]:
        """Returns the gradients of the weights and of z = x kernel + bias, from the arrays of all steps."""


class RNNCell(NamedTuple):
    """s' = f(z + s W)."""

    activation: str
    gates: int = 1
    states: int = 1

    def arrange(self, layout, weights, transposed):
        return (layout.arrange(weights[0], transposed),)

    def forward(self, layout, w, z, state):
        (a,) = layout.multiply(state[0], w[0])
        s = ACTIVATIONS[self.activation](z[0] + a)
        return (s,), (s,)

    def backward(self, layout, w, saved, old, dnew):
        dz = layout.join((dnew[0] * SLOPES[self.activation](saved[0]),))
        return (layout.multiply_transposed(dz, w[0]),), dz, ()

    def weight_gradients(self, layout, saved, old, dz, extra, weights):
        return (layout.sum_outer(old[0], dz),), dz


class LSTMCell(NamedTuple):
    """(h, c)' of the gates i, f, g, o; m is the argument of the last tanh, c or a linear map of it."""

    gates: int = 4
    states: int = 2

    def arrange(self, layout, weights, transposed):
        recurrent, kernel, bias = weights
        kernel = None if kernel is None else layout.arrange(kernel, transposed)
        return layout.arrange(recurrent, transposed), kernel, None if bias is None else layout.broadcast(bias)

    def forward(self, layout, w, z, state):
        h, c = state
        i, f, g, o = (x + a for x, a in zip(z, layout.multiply(h, w[0]), strict=True))
        i, f, g, o = sigmoid(i), sigmoid(f), jnp.tanh(g), sigmoid(o)
        c = f * c + i * g
        m = c if w[1] is None else layout.multiply(c, w[1])[0]
        m = jnp.tanh(m if w[2] is None else m + w[2])
        return (o * m, c), (i, f, g, o, m)

    def backward(self, layout, w, saved, old, dnew):
        # `c` is the old cell; the gradient of the new one, dc, also receives what h = o tanh(m) passes down.
        (i, f, g, o, m), (dh, dc), c = saved, dnew, old[1]
        do = dh * m * o * (1 - o)
        dm = dh * o * (1 - m * m)
        dc = dc + (dm if w[1] is None else layout.multiply_transposed(layout.join((dm,)), w[1]))
        dz = layout.join((dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), do))
        extra = () if w[1] is None and w[2] is None else (layout.join((dm,)),)
        return (layout.multiply_transposed(dz, w[0]), dc * f), dz, extra

    def weight_gradients(self, layout, saved, old, dz, extra, weights):
        i, f, g, *_ = saved
        # The new cell is not saved: it is a product and a sum of what is.
        kernel = None if weights[1] is None else layout.sum_outer(f * old[1] + i * g, extra[0])
        bias = None if weights[2] is None else layout.sum_steps(extra[0])
        return (layout.sum_outer(old[0], dz), kernel, bias), dz


class GRUCell(NamedTuple):
    """The GRU with the reset gate after the recurrent product; q = h W_n + candidate_bias, u the update gate."""

    gates: int = 3
    states: int = 1

    def arrange(self, layout, weights, transposed):
        recurrent, bias = weights
        return layout.arrange(recurrent, transposed), None if bias is None else layout.broadcast(bias)

    def forward(self, layout, w, z, state):
        h = state[0]
        r, u, q = layout.multiply(h, w[0])
        q = q if w[1] is None else q + w[1]
        r, u = sigmoid(z[0] + r), sigmoid(z[1] + u)
        n = jnp.tanh(z[2] + r * q)
        # (1 - u) n + u h with one product instead of two.
        return (n + u * (h - n),), (r, u, n, q)

    def backward(self, layout, w, saved, old, dnew):
        (r, u, n, q), h, dh = saved, old[0], dnew[0]
        dn = dh * (1 - u) * (1 - n * n)
        dr, du = dn * q * r * (1 - r), dh * (h - n) * u * (1 - u)
        da = layout.join((dr, du, dn * r))  # of h W: the candidate's differs from that of z by the factor r
        return (dh * u + layout.multiply_transposed(da, w[0]),), da, (dn,)

    def weight_gradients(self, layout, saved, old, dz, extra, weights):
        dr, du, dq = layout.split(dz, 3)
        bias = None if weights[1] is None else layout.sum_steps(layout.join((dq,)))
        return (layout.sum_outer(old[0], dz), bias), layout.join((dr, du, extra[0]))


class ChoGRUCell(NamedTuple):
    """The GRU with the reset gate before the recurrent product."""

    gates: int = 3
    states: int = 1

    def arrange(self, layout, weights, transposed):
        gates, candidate = jnp.split(weights[0], [2 * weights[0].shape[0]], 1)
        return layout.arrange(gates, transposed), layout.arrange(candidate, transposed)

    def forward(self, layout, w, z, state):
        h = state[0]
        r, u = (sigmoid(x + a) for x, a in zip(z[:2], layout.multiply(h, w[0]), strict=True))
        n = jnp.tanh(z[2] + layout.multiply(r * h, w[1])[0])
        return (n + u * (h - n),), (r, u, n)

    def backward(self, layout, w, saved, old, dnew):
        (r, u, n), h, dh = saved, old[0], dnew[0]
        dn = dh * (1 - u) * (1 - n * n)
        drh = layout.multiply_transposed(layout.join((dn,)), w[1])  # the gradient of r h
        dr, du = drh * h * r * (1 - r), dh * (h - n) * u * (1 - u)
        dh = dh * u + drh * r + layout.multiply_transposed(layout.join((dr, du)), w[0])
        return (dh,), layout.join((dr, du, dn)), ()

    def weight_gradients(self, layout, saved, old, dz, extra, weights):
        # The candidate multiplies r h and not h, so its gradient is an outer product of its own.
        dr, du, dn = layout.split(dz, 3)
        gates = layout.sum_outer(old[0], layout.join((dr, du)))
        candidate = layout.sum_outer(saved[0] * old[0], layout.join((dn,)))
        return (jnp.concatenate([gates, candidate], 1),), dz
