"""NeRF: a scene as a network from a position and a viewing direction to a density and a colour.

Mildenhall, Srinivasan, Tancik, Barron, Ramamoorthi & Ng 2020, "NeRF: representing scenes as neural radiance fields for
view synthesis". 595,844 parameters per network, of which there are two, coarse and fine. The paper reports a mean PSNR
of 31.01 dB on its eight synthetic scenes at 800x800, and of 26.50 dB on its eight forward-facing captures.

Variants: mip-NeRF (Barron et al. 2021) renders cones instead of rays; D-NeRF (Pumarola et al. 2021) renders scenes that
move. FreeNeRF (Yang et al. 2023), for few views, masks the frequencies of the same network.

A field maps `canon.rendering.Samples` to raw densities [..., N] and colours [..., N, 3] in [0, 1]; `field.density` is
the activation of the raw densities.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as linen
import jax
import jax.numpy as jnp
from jax.nn import initializers as init

from canon.errors import UsageError
from canon.nn import Dense
from canon.ops import frequencies as fq
from canon.ops import rays
from canon.rendering.samples import Samples


def _shifted_softplus(raw: jax.Array) -> jax.Array:
    """Computes log(1 + exp(raw - 1)): mip-NeRF, section 3.3. Smooth, and the scene starts out thin."""
    return jax.nn.softplus(raw - 1)


class NeRF(linen.Module):
    """The network of NeRF and mip-NeRF.

    Attributes:
      layers, width: of the trunk.
      skip: the layer after which the encoded input is concatenated again; None for no skip connection.
      levels, view_levels: frequencies of positions and of directions; view_levels=-1 ignores directions.
      view_width: width of the layer that sees the direction.
      density: activation of the raw density.
      colour_padding: colours lie in [-padding, 1 + padding].
      cones: encodes the Gaussians of conical frustums instead of points.
    """

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
    def __call__(self, samples: Samples) -> tuple[jax.Array, jax.Array]:
        """Returns raw densities [..., N] and colours [..., N, 3]."""
        inputs = self._encode(samples)
        h = _trunk(inputs, self.layers, self.width, self.skip)
        # Before the direction enters: the density depends on the position alone.
        density = _glorot_dense(1, 'density_out')(h)[..., 0]
        if self.view_levels >= 0:
            mask = None if samples.progress is None else fq.frequency_mask(samples.progress, self.view_levels)
            # Directions are encoded at unit length; their length is a matter of the camera.
            directions = rays.normalise_directions(samples.directions)
            views = fq.positional_encoding(directions, self.view_levels, mask)[..., None, :]
            h = _glorot_dense(self.width, 'bottleneck')(h)  # without an activation, as in the authors' code
            # A ray has one direction, which is broadcast to its samples.
            h = jnp.concatenate((h, jnp.broadcast_to(views, (*h.shape[:-1], views.shape[-1]))), -1)
            h = linen.relu(_glorot_dense(self.view_width, 'view')(h))
        colour = linen.sigmoid(_glorot_dense(3, 'colour')(h))
        # The density stays raw: noise is added before its activation.
        return density, colour * (1 + 2 * self.colour_padding) - self.colour_padding

    def _encode(self, samples: Samples) -> jax.Array:
        if not self.cones:
            mask = None if samples.progress is None else fq.frequency_mask(samples.progress, self.levels)
            return fq.positional_encoding(samples.positions, self.levels, mask)
        if samples.covariance is None:
            raise UsageError('mip_nerf encodes cones, but the samples are points: set render.casting=cones')
        return fq.integrated_positional_encoding(samples.positions, samples.covariance, self.levels)


class DeformedNeRF(linen.Module):
    """D-NeRF: a canonical field, queried at positions displaced by a network of position and time. See `d_nerf`."""

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
    def __call__(self, samples: Samples) -> tuple[jax.Array, jax.Array]:
        """Returns raw densities [..., N] and colours [..., N, 3] at the times of the samples."""
        if samples.times is None:
            raise UsageError('d_nerf needs times, which these views lack; take data of a scene that moves')
        times = fq.positional_encoding(samples.times, self.time_levels)[..., None, :]
        positions = fq.positional_encoding(samples.positions, self.levels)
        inputs = jnp.concatenate((positions, jnp.broadcast_to(times, (*positions.shape[:-1], times.shape[-1]))), -1)
        h = _trunk(inputs, self.layers, self.width, self.skip)
        # A small initialisation starts from an almost static scene, as in Nerfies.
        displacement = Dense(3, kernel_init=init.normal(1e-3), name='moved')(h)
        displacement = jnp.where(samples.times[..., None, :] == 0, 0, displacement)  # the paper's eq. 2
        return self.canonical(samples._replace(positions=samples.positions + displacement))


def nerf(
    layers: int = 8,
    width: int = 256,
    skip: int | None = 4,
    levels: int = 10,
    view_levels: int = 4,
    view_width: int = 128,
) -> NeRF:
    """Returns the published network, 595,844 parameters.

    The direction enters one layer of 128, as in the authors' code; the paper's supplement draws more layers.

    Args:
      layers, width: of the trunk.
      skip: the layer after which the encoded position is concatenated again: 4 is the fifth. None for none.
      levels: frequencies of the position; 0 is without positional encoding.
      view_levels: frequencies of the direction; -1 ignores the direction.
      view_width: width of the layer that sees the direction.

    Raises:
      UsageError: a size is not positive, or levels is negative.
    """
    _check_sizes(layers=layers, width=width, view_width=view_width)
    if levels < 0:
        raise UsageError(f'model.levels={levels} must be at least 0, which is without positional encoding')
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
    """Returns mip-NeRF's network (Barron et al. 2021), 612,740 parameters, which serves both levels.

    Args:
      layers, width, skip, view_levels, view_width: as in `nerf`.
      levels: frequencies of the integrated positional encoding.
      colour_padding: colours lie in [-padding, 1 + padding], so that the sigmoid can reach black and white.
    """
    _check_sizes(layers=layers, width=width, view_width=view_width, levels=levels)
    return NeRF(layers, width, skip, levels, view_levels, view_width, _shifted_softplus, colour_padding, cones=True)


def d_nerf(
    layers: int = 8,
    width: int = 256,
    skip: int | None = 4,
    levels: int = 10,
    time_levels: int = 10,
    view_levels: int = 4,
    view_width: int = 128,
) -> DeformedNeRF:
    """Returns D-NeRF's two networks (Pumarola et al. 2021): a deformation network and `nerf`, both of these sizes.

    Args:
      layers, width, skip, levels, view_levels, view_width: as in `nerf`.
      time_levels: frequencies of the time.
    """
    _check_sizes(layers=layers, width=width, view_width=view_width)
    canonical = nerf(layers, width, skip, levels, view_levels, view_width)
    return DeformedNeRF(canonical, layers, width, skip, levels, time_levels)


def _trunk(inputs: jax.Array, layers: int, width: int, skip: int | None) -> jax.Array:
    """Applies `layers` ReLU layers; the input is concatenated again after layer `skip`. Called within a module."""
    h = inputs
    for layer in range(layers):
        h = linen.relu(_glorot_dense(width, f'layer_{layer}')(h))
        if layer == skip:
            h = jnp.concatenate((inputs, h), -1)  # in the order of the authors' code; published weights depend on it
    return h


def _glorot_dense(features: int, name: str) -> Dense:
    """Makes a dense layer with Keras' defaults, as in the authors' code: Glorot's uniform kernel and zero biases."""
    return Dense(features, kernel_init=init.glorot_uniform(), name=name)


def _check_sizes(**sizes: int) -> None:
    for key, size in sizes.items():
        if size < 1:
            raise UsageError(f'model.{key}={size} must be at least 1')
