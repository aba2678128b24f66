"""Renders a radiance field along rays: coarse to fine, or in the occupied cells of a grid alone.

A field is a linen module (or an object with the same two members):

    field.apply({'params': params}, samples) -> (raw density [..., N], rgb [..., N, 3]);  samples: `Samples`
    field.density(raw)                       -> density, the activation

Parameters are {network: params}, one network per level (`RenderSettings.networks`). Nothing here knows a loss or a data
set: train with `render_rays(..., key)`, render with `key=None`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from canon.ops import frequencies as fq
from canon.ops import occupancy
from canon.ops import rays as ray_ops
from canon.ops import volume_rendering as vr
from canon.rendering.samples import Rays, Samples
from canon.rendering.settings import RenderSettings

_GROUPS = 16  # of cells, one of which is updated per step; instant-ngp updates all cells every 16 steps at first


class LevelOutput(NamedTuple):
    """The output of one level, over black.

    Attributes:
      colour: [B, 3].
      distance: [B], the expected t of what is visible; 0 in empty space.
      opacity: [B].
      weights, density: [B, N] of the samples.
      complete: bool [B], the rays of which all samples were evaluated; None for all rays.
    """

    colour: jax.Array
    distance: jax.Array
    opacity: jax.Array
    weights: jax.Array
    density: jax.Array
    complete: jax.Array | None = None


def render_rays(
    field: Any,
    params: Any,
    rays: Rays,
    settings: RenderSettings,
    key: jax.Array | None = None,
    grid: jax.Array | None = None,
) -> list[LevelOutput]:
    """Renders a field along rays, coarse to fine: Mildenhall et al. 2020 (NeRF), section 5.2.

    Args:
      field: maps `Samples` to raw densities and colours, see the module.
      params: {network: parameters}.
      rays: B rays.
      settings: samples per level, and how rays are cast.
      key: draws samples and noise in training; None renders deterministically.
      grid: occupancy grid [cells, cells, cells] of densities, if `settings.cells`. Only occupied cells are evaluated.

    Returns:
      the output of each level, the finest last. With an occupancy grid there is one level.
    """
    keys = [None] * 4 if key is None else [*jax.random.split(key, 4)]
    sample_keys = keys[:2] if settings.jitter else [None] * 2
    points = settings.casting == 'points'
    knee = 2 * jnp.linalg.norm(rays.origins, axis=-1) if settings.contract else None
    # N intervals have N + 1 edges.
    distances = ray_ops.sample_stratified(
        sample_keys[0], rays.near, rays.far, settings.coarse + (not points), knee=knee
    )
    coarse_params = params[settings.networks[0]]
    if settings.cells:
        return [_render_occupied(field, coarse_params, rays, settings, distances, keys[2], grid)]
    levels = [render_level(field, coarse_params, rays, settings, distances, keys[2])]
    if settings.fine:
        weights = levels[0].weights  # `sample_pdf` stops their gradient: the coarse network learns from its own error
        if points:
            # As in NeRF's code, the weight of a point is that of the bin between its neighbouring midpoints; the first
            # and the last point have no such bin.
            midpoints = (distances[..., 1:] + distances[..., :-1]) / 2
            drawn = ray_ops.sample_pdf(sample_keys[1], midpoints, weights[..., 1:-1], settings.fine)
            distances = jnp.sort(jnp.concatenate((distances, drawn), -1), -1)
        else:
            # mip-NeRF replaces the coarse intervals, and blurs their weights lest it miss an edge between two of them.
            distances = ray_ops.sample_pdf(
                sample_keys[1], distances, ray_ops.blur_weights(weights), settings.fine + 1, stratify=True, padding=0.0
            )
        levels.append(render_level(field, params[settings.networks[1]], rays, settings, distances, keys[3]))
    return levels


def render_level(
    field: Any,
    params: Any,
    rays: Rays,
    settings: RenderSettings,
    distances: jax.Array,
    key: jax.Array | None = None,
) -> LevelOutput:
    """Renders one level of the hierarchy: queries the field along each ray and composites (NeRF, eq. 3).

    Args:
      field: maps `Samples` to raw densities and colours.
      params: parameters of this level's network.
      rays: B rays.
      settings: how rays are cast ('points', 'intervals' or 'cones') and composited.
      distances: sample distances [B, N] for 'points', interval edges [B, N + 1] otherwise.
      key: adds density noise in training; None renders deterministically.
    """
    if settings.casting == 'points':
        deltas, midpoints = vr.intervals(distances, rays.directions), distances
    else:
        deltas, midpoints = _interval_lengths_and_midpoints(distances, rays)
    positions, covariance = _positions(rays, midpoints, settings), None
    if settings.casting == 'cones':  # mip-NeRF replaces each point by a Gaussian over the conical frustum
        positions, covariance = fq.conical_frustum_gaussians(distances, rays.origins, rays.directions, rays.radii)
    samples = Samples(positions, rays.directions, covariance, rays.times, rays.progress)
    density, rgb = query_field(field, params, samples, settings, key)
    return composite(density, rgb, deltas, midpoints)


def query_field(
    field: Any, params: Any, samples: Samples, settings: RenderSettings, key: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Evaluates the densities [..., N] and colours [..., N, 3] of samples.

    Args:
      field: maps `Samples` to raw densities and colours.
      params: its parameters.
      samples: where it is evaluated.
      settings: `density_noise` applies.
      key: adds noise to raw densities; None adds none.
    """
    raw, rgb = field.apply({'params': params}, samples)
    if settings.density_noise and key is not None:
        raw = raw + settings.density_noise * jax.random.normal(key, raw.shape)
    return field.density(raw), rgb


def composite(
    density: jax.Array,
    rgb: jax.Array,
    deltas: jax.Array,
    midpoints: jax.Array,
    complete: jax.Array | None = None,
) -> LevelOutput:
    """Composites samples front to back: NeRF, eq. 3.

    Args:
      density: [B, N].
      rgb: [B, N, 3].
      deltas: interval lengths [B, N] in world units.
      midpoints: distances [B, N] of the samples.
      complete: passed on to the output.
    """
    rendered = vr.accumulate_along_rays(vr.weights(density, deltas), rgb, midpoints)
    return LevelOutput(rendered.colour, rendered.distance, rendered.opacity, rendered.weights, density, complete)


def _positions(rays: Rays, distances: jax.Array, settings: RenderSettings) -> jax.Array:
    """Returns the positions [B, N, 3] at distances [B, N], contracted if `settings.contract`."""
    positions = rays.origins[:, None] + distances[..., None] * rays.directions[:, None]
    return ray_ops.contract(positions) if settings.contract else positions


def _interval_lengths_and_midpoints(edges: jax.Array, rays: Rays) -> tuple[jax.Array, jax.Array]:
    """Returns lengths in world units and midpoints in t, each [B, N], of the intervals between edges [B, N + 1]."""
    return vr.intervals(edges, rays.directions, 0.0)[..., :-1], (edges[..., 1:] + edges[..., :-1]) / 2


# --- empty-space skipping -------------------------------------------------------------------------------------------


def init_occupancy(settings: RenderSettings) -> jax.Array:
    """Returns an occupancy grid with all cells alike, hence occupied: no cell is skipped before it was found empty."""
    return jnp.ones((settings.cells,) * 3)


def update_occupancy(
    field: Any, params: Any, settings: RenderSettings, grid: jax.Array, moving: bool, key: jax.Array
) -> jax.Array:
    """Updates a sixteenth of the occupancy grid with densities at random positions: instant-ngp, appendix E.

    Args:
      field: maps `Samples` to raw densities and colours.
      params: {network: parameters}; the first network is evaluated, without a gradient.
      settings: `box`, `cells` and `decay` apply.
      grid: [cells, cells, cells].
      moving: evaluates each cell at a random time, too.
      key: draws the cells, positions and times.
    """
    assert settings.box  # `RenderSettings` requires it of settings with cells
    position_key, time_key = jax.random.split(key)
    group, places = occupancy.sample_cells(position_key, settings.cells, _GROUPS)
    positions = settings.box[0] + places * (settings.box[1] - settings.box[0])
    times = jax.random.uniform(time_key, (len(positions), 1)) if moving else None
    any_direction = jnp.zeros_like(positions).at[:, 2].set(1)  # densities do not depend on it
    samples = Samples(positions[:, None], any_direction, None, times)
    # The grid is a cache, not a term of the loss: no gradient flows through its update.
    raw, _ = field.apply({'params': jax.lax.stop_gradient(params[settings.networks[0]])}, samples)
    return occupancy.update_cells(grid, group, field.density(raw)[:, 0], settings.decay)


def _render_occupied(field, params, rays: Rays, settings: RenderSettings, edges: jax.Array, key, grid) -> LevelOutput:
    """Renders one level in the occupied cells of `grid` alone; edges [B, N + 1].

    In training (with a key) only the samples that fit the budget are evaluated, so that every step has the same shapes.
    Without a key all occupied samples are, in as many rounds as it takes.
    """
    deltas, midpoints = _interval_lengths_and_midpoints(edges, rays)
    shape = midpoints.shape
    positions = _positions(rays, midpoints, settings)
    mask = occupancy.lookup_density(grid, _to_unit_cube(positions, settings)) >= _threshold(grid, settings, deltas)
    mask = mask & (deltas > 0)  # rays that miss the box have intervals of length 0
    size = max(shape[0] * min(settings.budget, shape[1]), shape[1])  # room for one whole ray at least

    def evaluate(index):
        # Unused slots have indices past the end: they repeat the last sample, and `unpack` drops what comes of them.
        ray = jnp.minimum(index // shape[1], shape[0] - 1)
        sample = jnp.minimum(index, shape[0] * shape[1] - 1)
        times = None if rays.times is None else rays.times[ray]
        samples = Samples(positions.reshape(-1, 1, 3)[sample], rays.directions[ray], None, times, rays.progress)
        density, rgb = query_field(field, params, samples, settings, key)
        return jnp.concatenate((density, rgb[:, 0]), -1)  # [size, 4]

    if key is not None:
        index, complete = occupancy.pack(mask, size)
        output = occupancy.unpack(evaluate(index), index, shape)
        return composite(output[..., 0], output[..., 1:], deltas, midpoints, complete)
    index, _ = occupancy.pack(mask, -(-shape[0] * shape[1] // size) * size)

    def body(state):
        number, output = state
        round_index = jax.lax.dynamic_slice_in_dim(index, number * size, size)
        return number + 1, output + occupancy.unpack(evaluate(round_index), round_index, shape)

    # The number of rounds depends on the data: a while loop, which has no reverse-mode gradient and needs none here.
    empty = jnp.zeros((*shape, 4), midpoints.dtype)
    _, output = jax.lax.while_loop(lambda state: state[0] * size < mask.sum(), body, (0, empty))
    return composite(output[..., 0], output[..., 1:], deltas, midpoints)


def _to_unit_cube(positions: jax.Array, settings: RenderSettings) -> jax.Array:
    assert settings.box
    return (positions - settings.box[0]) / (settings.box[1] - settings.box[0])


def _threshold(grid: jax.Array, settings: RenderSettings, deltas: jax.Array) -> jax.Array:
    """Returns the density at which an interval reaches the optical depth `thin`.

    Intervals of a contracted scene grow with distance, so each counts by its own length; otherwise one threshold, for
    intervals of a ray that crosses the box, serves all.
    """
    assert settings.box
    if settings.contract:
        return occupancy.occupancy_threshold(grid, settings.thin / jnp.maximum(deltas, 1e-6))
    return occupancy.occupancy_threshold(grid, settings.thin * settings.coarse / (settings.box[1] - settings.box[0]))
