"""Volume rendering: C(r) = integral of T(t) sigma(r(t)) c(r(t), d) dt, T(t) = exp(-integral of sigma), as a sum.

Max 1995; Mildenhall et al. 2020 (NeRF), eq. 1 and 3. Whatever gives a density and a colour is composited by this:
networks, grids, volumes. Along a ray of N intervals [t_i, t_i+1] in which both are constant,

    alpha_i = 1 - exp(-sigma_i delta_i),  T_i = exp(-sum_{j < i} sigma_j delta_j),  w_i = T_i alpha_i,  C = sum w_i c_i

is no approximation, and sum w_i = 1 - T_N. Here T is that exponential of a sum (not the product of 1 - alpha, whose
gradient divides by 1 - alpha): densities may be 0 or infinite, and values and gradients stay finite.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

_FAR = 1e10  # the last interval, where the distances are points: behind it nothing is seen
_THICK = 1e4  # an optical depth whose transmittance is 0 in float64, and which can be added up


class Rendered(NamedTuple):
    """colour [.., C]; depth [..], the mean of t by the weights, not divided by the opacity; opacity [..] = sum of w."""

    colour: jax.Array
    depth: jax.Array
    opacity: jax.Array
    weights: jax.Array

    @property
    def disparity(self) -> jax.Array:
        """1 / (depth / opacity), as the original NeRF writes it: 0 where nothing is seen."""
        seen = self.opacity > 1e-10
        return jnp.where(seen, self.opacity / jnp.where(seen, jnp.maximum(self.depth, 1e-10), 1), 0)

    @property
    def distance(self) -> jax.Array:
        """depth / opacity: the mean t of what is seen; 0 where nothing is."""
        seen = self.opacity > 1e-10
        return jnp.where(seen, self.depth / jnp.where(seen, self.opacity, 1), 0)


def intervals(t: jax.Array, ways: jax.Array, last: float = _FAR) -> jax.Array:
    """Lengths delta [.., N] in the world's units behind each of the distances t [.., N] on rays along ways [.., 3].

    The last reaches to infinity, as in NeRF's code; last=0 leaves it out. Distances that are edges [.., N + 1] have
    the lengths `intervals(t, ways, 0)[..., :-1]`.
    """
    delta = jnp.concatenate((jnp.diff(t, axis=-1), jnp.full_like(t[..., :1], last)), -1)
    return delta * jnp.linalg.norm(ways, axis=-1, keepdims=True)


def weights(density: jax.Array, delta: jax.Array) -> jax.Array:
    """w [.., N] = T alpha, each interval's share of the ray: eq. 3 of NeRF. density, delta [.., N], not negative."""
    if density.shape[-1] != delta.shape[-1]:
        raise UsageError(f'{density.shape[-1]} densities take as many intervals, not {delta.shape[-1]}')
    return _from_depths(optical_depths(density, delta))


def optical_depths(density: jax.Array, delta: jax.Array) -> jax.Array:
    """sigma delta [.., N], at most 1e4: what is thicker lets no light through, and inf - inf, 0 inf are no numbers."""
    # Each factor is cut first: an infinite density in an interval of length 0 absorbs nothing, nor does empty space in
    # an infinite interval; and 0 inf would make the gradient NaN.
    largest = jnp.finfo(density.dtype).max / 4
    product = jnp.minimum(density, largest) * jnp.clip(delta, 0, largest)
    return jnp.where(product < _THICK, product, _THICK)


def _from_depths(depths: jax.Array) -> jax.Array:
    # The sum of those in front, shifted. `cumsum(depths) - depths` would cancel against a last depth of 1e4.
    before = jnp.concatenate((jnp.zeros_like(depths[..., :1]), jnp.cumsum(depths[..., :-1], -1)), -1)
    return jnp.exp(-before) * -jnp.expm1(-depths)


def alpha_weights(alpha: jax.Array) -> jax.Array:
    """w [.., N] of opacities alpha [.., N] in [0, 1], front to back: w_i = alpha_i prod_{j < i} (1 - alpha_j)."""
    kept = jnp.cumprod(1 - alpha, -1)
    return alpha * jnp.concatenate((jnp.ones_like(kept[..., :1]), kept[..., :-1]), -1)


def corrected(alpha: jax.Array, length, reference) -> jax.Array:
    """The opacity over `length` of what has `alpha` over `reference`: 1 - (1 - alpha)^(length / reference)."""
    clear = alpha < 1
    return jnp.where(clear, -jnp.expm1(jnp.log1p(-jnp.where(clear, alpha, 0)) * (length / reference)), 1)


def composite(shares: jax.Array, colours: jax.Array, t: jax.Array, background=None) -> Rendered:
    """What rays see: shares [.., N] of `weights`, colours [.., N, C], distances t [.., N] of the samples.

    background: [.., C], a number, or None for black; it is seen through what is left, 1 - opacity. White is 1.0.
    """
    opacity = shares.sum(-1)
    colour = (shares[..., None] * colours).sum(-2)
    if background is not None:
        colour = over(colour, opacity, background)
    return Rendered(colour, (shares * t).sum(-1), opacity, shares)


def over(colour: jax.Array, opacity: jax.Array, background) -> jax.Array:
    """A colour [.., C], weighed by its opacity [..] already, before a background."""
    return colour + (1 - opacity)[..., None] * background


def background(key: jax.Array | None, kind: str | None, shape: tuple[int, ...]) -> jax.Array | None:
    """'white', 'black' (or None), or 'random' (a colour a ray, of `key`; without one, where pictures are made, white).

    A random background teaches that nothing is there: no colour of the scene can stand for it.
    """
    if kind not in (None, 'white', 'black', 'random'):
        raise UsageError(f"background={kind!r} is none of 'white', 'black', 'random'")
    if kind in (None, 'black'):
        return None
    return jax.random.uniform(key, shape) if kind == 'random' and key is not None else jnp.ones(shape)
