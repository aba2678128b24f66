"""NeRF: a scene as a network from a place and a direction to a density and a colour.

Mildenhall, Srinivasan, Tancik, Barron, Ramamoorthi & Ng 2020, "NeRF: representing scenes as neural radiance fields for
view synthesis". 595,844 parameters a network, of which there are two, coarse and fine. On the eight synthetic scenes of
800x800 the paper has a mean PSNR of 31.01 dB, on the eight forward-facing captures 26.50.

Besides, what answers two of its weaknesses: D-NeRF (Pumarola et al. 2021), a scene that moves; mip-NeRF (Barron et al.
2021), cones instead of rays. What few views ask for (FreeNeRF) is a mask over the same network's frequencies.

A field is called with `Samples`, the viewing directions and whatever a `Samples` leaves out; it gives the density
before its activation [..] and the colour [.., 3] in [0, 1]. `field.density` is that activation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.nn import Dense
from canon.ops import frequencies as fq
from canon.ops import rays


class Samples(NamedTuple):
    """Where a field is asked.

    points: [.., N, 3]. ways: [.., 3], the rays' directions, of any length. variance: [.., N, 3] about the points, of
    cones. times: [.., 1] in [0, 1]. progress: the share of the frequencies' schedule that is gone, for FreeNeRF.
    """

    points: jax.Array
    ways: jax.Array
    variance: jax.Array | None = None
    times: jax.Array | None = None
    progress: jax.Array | None = None


def _softplus(raw: jax.Array) -> jax.Array:
    """log(1 + exp(raw - 1)): mip-NeRF, section 3.3; smooth, and small at the start."""
    return jax.nn.softplus(raw - 1)


class NeRF(linen.Module):
    """See `nerf` for the fields."""

    layers: int
    width: int
    skip: int | None
    levels: int
    view_levels: int
    view_width: int
    density: Callable[[jax.Array], jax.Array]
    colour_padding: float = 0.0
    cones: bool = False

    @linen.compact
    def __call__(self, at: Samples) -> tuple[jax.Array, jax.Array]:
        """Densities before their activation [.., N], and colours [.., N, 3]."""
        inputs = self._encoded(at)
        h = inputs
        for layer in range(self.layers):
            h = linen.relu(_dense(self.width, f'layer_{layer}')(h))
            if layer == self.skip:
                h = jnp.concatenate((inputs, h), -1)
        density = _dense(1, 'density_out')(h)[..., 0]
        if self.view_levels >= 0:
            mask = None if at.progress is None else fq.frequency_mask(at.progress, self.view_levels)
            views = fq.positional_encoding(rays.normalise(at.ways), self.view_levels, mask)[..., None, :]
            h = _dense(self.width, 'bottleneck')(h)
            h = jnp.concatenate((h, jnp.broadcast_to(views, (*h.shape[:-1], views.shape[-1]))), -1)
            h = linen.relu(_dense(self.view_width, 'view')(h))
        colour = linen.sigmoid(_dense(3, 'colour')(h))
        return density, colour * (1 + 2 * self.colour_padding) - self.colour_padding

    def _encoded(self, at: Samples) -> jax.Array:
        if not self.cones:
            mask = None if at.progress is None else fq.frequency_mask(at.progress, self.levels)
            return fq.positional_encoding(at.points, self.levels, mask)
        if at.variance is None:
            raise UsageError('mip_nerf is asked with cones, not with points: set render.casting=cones')
        return fq.integrated_positional_encoding(at.points, at.variance, self.levels)


class Deformed(linen.Module):
    """A canonical field asked where a network says that a place stood at time 0: D-NeRF. See `d_nerf`."""

    canonical: NeRF
    layers: int
    width: int
    skip: int | None
    levels: int
    time_levels: int

    @property
    def density(self) -> Callable[[jax.Array], jax.Array]:
        return self.canonical.density

    @linen.compact
    def __call__(self, at: Samples) -> tuple[jax.Array, jax.Array]:
        if at.times is None:
            raise UsageError('d_nerf wants times, which these views do not have; take data with an optional motion')
        times = fq.positional_encoding(at.times, self.time_levels)[..., None, :]
        places = fq.positional_encoding(at.points, self.levels)
        inputs = jnp.concatenate((places, jnp.broadcast_to(times, (*places.shape[:-1], times.shape[-1]))), -1)
        h = inputs
        for layer in range(self.layers):
            h = linen.relu(_dense(self.width, f'layer_{layer}')(h))
            if layer == self.skip:
                h = jnp.concatenate((inputs, h), -1)
        moved = Dense(3, kernel_init=init.normal(1e-3), name='moved')(h)  # all but still at first, as in Nerfies
        # At time 0 places stand where they are: the paper's eq. 2.
        moved = jnp.where(at.times[..., None, :] == 0, 0, moved)
        return self.canonical(at._replace(points=at.points + moved))


def nerf(
    layers: int = 8,
    width: int = 256,
    skip: int | None = 4,
    levels: int = 10,
    view_levels: int = 4,
    view_width: int = 128,
) -> NeRF:
    """The published network, 595,844 parameters: 8 layers of 256, the input again behind the fifth.

    levels, view_levels: frequencies of places and of directions; levels=0 is without positional encoding,
    view_levels=-1 without directions. One layer of 128 looks at the direction, as the authors' code has it, where the
    paper's supplement draws more. Raises UsageError for sizes that are none.
    """
    _check(layers=layers, width=width, view_width=view_width)
    if levels < 0:
        raise UsageError(f'model.levels={levels} is negative; 0 is without positional encoding')
    return NeRF(layers, width, skip, levels, view_levels, view_width, linen.relu)


def mip_nerf(
    layers: int = 8,
    width: int = 256,
    skip: int | None = 4,
    levels: int = 16,
    view_levels: int = 4,
    view_width: int = 128,
    colour_padding: float = 0.001,
) -> NeRF:
    """mip-NeRF's network (Barron et al. 2021): frequencies integrated over cones, softplus(x - 1), 612,740 parameters.

    One network for both levels. colour_padding: colours are in [-0.001, 1.001], so that black and white are reached.
    """
    _check(layers=layers, width=width, view_width=view_width, levels=levels)
    return NeRF(layers, width, skip, levels, view_levels, view_width, _softplus, colour_padding, cones=True)


def d_nerf(
    layers: int = 8,
    width: int = 256,
    skip: int | None = 4,
    levels: int = 10,
    time_levels: int = 10,
    view_levels: int = 4,
    view_width: int = 128,
) -> Deformed:
    """D-NeRF (Pumarola et al. 2021): (place, time) -> displacement by a second network as deep, then `nerf`."""
    _check(layers=layers, width=width, view_width=view_width)
    canonical = nerf(layers, width, skip, levels, view_levels, view_width)
    return Deformed(canonical, layers, width, skip, levels, time_levels)


def _dense(features: int, name: str) -> Dense:
    """Glorot's uniform initialisation and zero biases: Keras' defaults, which the authors' code has."""
    return Dense(features, kernel_init=init.glorot_uniform(), name=name)


def _check(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
