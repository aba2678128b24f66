"""Volume rendering: the emission-absorption integral along a ray, and its quadrature.

    C(r) = integral of T(t) sigma(r(t)) c(r(t), d) dt,   T(t) = exp(-integral of sigma up to t)

Max 1995; Mildenhall et al. 2020 (NeRF), eq. 1 and 3. Everything that yields a density and a colour is composited here:
networks, grids, voxel volumes. On N intervals [t_i, t_i+1] with constant density and colour the integral is exactly

    alpha_i = 1 - exp(-sigma_i delta_i),  T_i = exp(-sum_{j < i} sigma_j delta_j),  w_i = T_i alpha_i,  C = sum w_i c_i

and sum w_i = 1 - T_N. T is computed as the exponential of a sum and not as the product of 1 - alpha, whose gradient
divides by 1 - alpha: densities may be zero or infinite, and values and gradients stay finite.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from canon.errors import UsageError

_INFINITE_DELTA = 1e10  # length of the last interval when samples are points: nothing is visible beyond it
_OPAQUE_DEPTH = 1e4  # an optical depth with transmittance 0 even in float64, small enough for exact sums


class Rendered(NamedTuple):
    """Colours, depths and opacities of rays.

    colour: [..., C]. depth: [...], sum w t, not divided by the opacity. opacity: [...], sum w. weights: [..., N].
    """

    colour: jax.Array
    depth: jax.Array
    opacity: jax.Array
    weights: jax.Array

    @property
    def disparity(self) -> jax.Array:
        """1 / (depth / opacity), as in the original NeRF; 0 for rays through empty space."""
        # Empty space has an opacity of 0 up to rounding; the inner `where` avoids 0 / 0 in its gradient.
        visible = self.opacity > 1e-10
        return jnp.where(visible, self.opacity / jnp.where(visible, jnp.maximum(self.depth, 1e-10), 1), 0)

    @property
    def distance(self) -> jax.Array:
        """depth / opacity, the mean distance of what is visible; 0 for rays through empty space."""
        visible = self.opacity > 1e-10
        return jnp.where(visible, self.depth / jnp.where(visible, self.opacity, 1), 0)


def intervals(t: jax.Array, directions: jax.Array, last: float = _INFINITE_DELTA) -> jax.Array:
    """Returns the lengths delta [..., N], in world units, of the intervals that start at distances t [..., N].

    Args:
      t: distances in units of `directions`, ascending.
      directions: ray directions [..., 3] of any length.
      last: length of the last interval. The default extends it to infinity, as NeRF's code does; 0 excludes it. For
        interval edges [..., N + 1], take `intervals(t, directions, 0)[..., :-1]`.
    """
    delta = jnp.concatenate((jnp.diff(t, axis=-1), jnp.full_like(t[..., :1], last)), -1)
    return delta * jnp.linalg.norm(directions, axis=-1, keepdims=True)


def weights(density: jax.Array, delta: jax.Array) -> jax.Array:
    """Returns w_i = T_i alpha_i [..., N], the contribution of each interval: NeRF, eq. 3.

    density, delta: [..., N], non-negative.
    """
    if density.shape[-1] != delta.shape[-1]:
        raise UsageError(f'{density.shape[-1]} densities need as many interval lengths, got {delta.shape[-1]}')
    depths = optical_depths(density, delta)
    # An exclusive cumulative sum by shifting: `cumsum(depths) - depths` cancels against a last depth of 1e4.
    before = jnp.concatenate((jnp.zeros_like(depths[..., :1]), jnp.cumsum(depths[..., :-1], -1)), -1)
    return jnp.exp(-before) * -jnp.expm1(-depths)


def optical_depths(density: jax.Array, delta: jax.Array) -> jax.Array:
    """Returns sigma_i delta_i [..., N], capped at 1e4, where transmittance is 0 anyway."""
    # Each factor is capped before the product: an infinite density over length 0 absorbs nothing, and neither does
    # empty space of infinite length. Without the caps these are 0 inf, and their gradient is NaN.
    largest = jnp.finfo(density.dtype).max / 4
    product = jnp.minimum(density, largest) * jnp.clip(delta, 0, largest)
    return jnp.where(product < _OPAQUE_DEPTH, product, _OPAQUE_DEPTH)


def alpha_weights(alpha: jax.Array) -> jax.Array:
    """Returns w_i = alpha_i prod_{j < i} (1 - alpha_j), front to back; alpha [..., N] in [0, 1]."""
    transmittance = jnp.cumprod(1 - alpha, -1)
    return alpha * jnp.concatenate((jnp.ones_like(transmittance[..., :1]), transmittance[..., :-1]), -1)


def correct_opacity(alpha: jax.Array, length, reference) -> jax.Array:
    """Converts an opacity over `reference` to one over `length`: 1 - (1 - alpha)^(length / reference)."""
    transparent = alpha < 1
    return jnp.where(transparent, -jnp.expm1(jnp.log1p(-jnp.where(transparent, alpha, 0)) * (length / reference)), 1)


def accumulate_along_rays(weights: jax.Array, colours: jax.Array, t: jax.Array, background=None) -> Rendered:
    """Accumulates colour, depth and opacity along rays: sums weighted by `weights`.

    Args:
      weights: [..., N], from `weights` or `alpha_weights`.
      colours: [..., N, C].
      t: distances [..., N] of the samples.
      background: a number or [..., C], visible through the remaining 1 - opacity; None is black, 1.0 white.
    """
    opacity = weights.sum(-1)
    colour = (weights[..., None] * colours).sum(-2)
    if background is not None:
        colour = over(colour, opacity, background)
    return Rendered(colour, (weights * t).sum(-1), opacity, weights)


def over(colour: jax.Array, opacity: jax.Array, background) -> jax.Array:
    """Composites a premultiplied colour [..., C] with opacity [...] over a background: Porter & Duff's `over`."""
    return colour + (1 - opacity)[..., None] * background


def background_colour(key: jax.Array | None, kind: str | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Returns background colours of `shape`, or None for black.

    kind: 'white', 'black' (also None), or 'random': one colour per ray drawn with `key`, and white if `key` is None, as
    when images are rendered. Against a random background the scene cannot stand in for empty space with a colour of
    its own, so empty space is learnt to be empty.
    """
    if kind not in (None, 'white', 'black', 'random'):
        raise UsageError(f"background={kind!r} is not one of 'white', 'black', 'random'")
    if kind in (None, 'black'):
        return None
    return jax.random.uniform(key, shape) if kind == 'random' and key is not None else jnp.ones(shape)
