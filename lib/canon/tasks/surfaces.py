"""View synthesis with surfaces: each ray shows the one point where it ends. SRN and DVR, and their evaluator.

SRN (Sitzmann et al. 2019) learns with an LSTM where a ray ends; DVR (Niemeyer et al. 2020) finds the level set of an
occupancy network. Batches are those of `canon.data.scenes.ray_batches`, from pictures with alpha.

    task = dvr_task(models.make_model('dvr.dvr'), views, SurfaceSettings('dvr'), DVRLoss())
    evaluator = surface_evaluator(task, held_out, SurfaceSettings('dvr'))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import named
from canon.camera import Camera
from canon.data.scenes.views import Views, axial_depth
from canon.errors import UsageError
from canon.metrics import Mean
from canon.named import Count, NonNegative, Positive, Range
from canon.ops import rays, surfaces
from canon.ops import volume_rendering as vr
from canon.ops.norms import safe_norm
from canon.rendering import batch_camera
from canon.tasks.view_synthesis import ViewSystem, view_evaluator
from canon.train import Evaluator, Task


@dataclass(frozen=True)
class SurfaceSettings:
    """The rendering of a surface. In a config these are the keys of `config.render`.

    Attributes:
      name: 'srn' or 'dvr', the system.
      background: 'white' or 'black', behind the pictures.
      count: even intervals per ray in which DVR searches the surface.
      secant: DVR's refinement steps (`canon.ops.surfaces.find_first_crossing`).
      box: (low, high), the cube in which DVR searches.

    Raises:
      UsageError: an unknown name or background, or an empty box.
    """

    name: str
    background: str = 'white'
    count: Count = 64
    secant: Annotated[int, Range(0)] = 8
    box: tuple[float, float] = (-1.2, 1.2)

    def __post_init__(self):
        if self.name not in SYSTEMS:
            raise UsageError(f'render.name={self.name!r}{named.suggest(self.name, SYSTEMS)}')
        if self.background not in ('white', 'black'):
            raise UsageError(f"render.background={self.background!r} must be 'white' or 'black'")
        if not self.box[0] < self.box[1]:
            raise UsageError(f'render.box={self.box} must be (low, high) with low below high')


def check_alpha(views: Views, settings: SurfaceSettings) -> None:
    """Raises UsageError for pictures without alpha: a surface is learnt from the mask of the object."""
    if views.images.shape[-1] != 4:
        raise UsageError(f'render.name={settings.name} needs pictures with alpha, which masks the object')


def _cast_rays(camera: Camera, batch: Any) -> tuple[jax.Array, jax.Array]:
    return rays.generate_rays(batch_camera(camera, batch), batch['pose'], batch['pixel'])


def _over_background(colour: jax.Array, opacity: jax.Array, settings: SurfaceSettings) -> jax.Array:
    return vr.over(colour * opacity[:, None], opacity, 1.0 if settings.background == 'white' else 0.0)


# --- SRN ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SRNLoss:
    """Weights of SRN's loss: Sitzmann et al. 2019, eq. 6, without a prior on codes. In a config, `config.loss`.

    Attributes:
      image: of the squared error of colours in [-1, 1], as in the authors' code.
      behind: of the squared distance of points behind the camera.
    """

    image: NonNegative = 200.0
    behind: NonNegative = 10.0


def srn_task(model: Any, views: Views, settings: SurfaceSettings, weights: SRNLoss = SRNLoss()) -> Task:
    """Makes the task of SRN: the squared error of colours over the background, which is learnt as well.

    Args:
      model: `canon.models.srn`.
      views: their camera is that of the rays.
      settings: the background.
      weights: of the loss's terms.

    Returns:
      A task whose `predict` gives 'colour' [B, 3], 'distance' [B] and 'opacity' [B], which is 1.
    """

    def init(key, batch):
        origins, directions = _cast_rays(views.camera, jax.tree.map(lambda x: x[:1], batch))
        return {'params': model.init(key, origins, directions)['params']}

    def loss(params, mutable, batch, at):
        # SRN has no opacity: it learns the pictures with their background.
        target = batch['colour'].astype(jnp.float32) / 255
        target = _over_background(target[:, :3], target[:, 3], settings)
        colour, t = model.apply({'params': params}, *_cast_rays(views.camera, batch), at.key)
        error = jnp.square(colour - target).mean(-1)
        # Colours are in [0, 1] here: an error in [-1, 1] is twice as large, its square four times.
        per_ray = 4 * weights.image * error + weights.behind * jnp.square(jnp.minimum(t, 0))
        return Mean.of(per_ray), (mutable, {'mse': Mean.of(error)})

    def predict(params, mutable, batch):
        colour, t = model.apply({'params': params}, *_cast_rays(views.camera, batch))
        # SRN has no notion of empty space: every ray ends somewhere, if only on a background that it has learnt.
        return {'colour': colour, 'distance': t, 'opacity': jnp.ones_like(t)}

    return Task(init, loss, predict)


# --- DVR ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DVRLoss:
    """Weights of DVR's loss: Niemeyer et al. 2020, section 3.4. In a config, `config.loss`.

    Attributes:
      colour: of |colour - target| for rays that hit and should.
      free: of the cross-entropy with "free" for rays that should miss, at the point they hit or else at a random one.
      occupied: of the cross-entropy with "occupied" at a random point, for rays that should hit and miss.
      normal: of the distance between the normals at a hit and at a random point near it.
      nearby: side of the cube in which that point is drawn.
    """

    colour: NonNegative = 1.0
    free: NonNegative = 1.0
    occupied: NonNegative = 1.0
    normal: NonNegative = 0.05
    nearby: Positive = 1e-3


def dvr_task(model: Any, views: Views, settings: SurfaceSettings, weights: DVRLoss = DVRLoss()) -> Task:
    """Makes the task of DVR. The gradient of a colour moves the surface by that of its depth, which is implicit.

    Args:
      model: `canon.models.dvr`: (points) -> (occupancy logits, colours).
      views: pictures with alpha, whose camera, near and far are those of the rays.
      settings: the search along a ray, and the background.
      weights: of the loss's terms, each summed over rays as in the authors' code.

    Returns:
      A task whose `predict` gives 'colour' [B, 3] over the background, 'distance' [B] and 'opacity' [B], 0 or 1.
    """

    def occupancy(params, points):
        return model.apply({'params': params}, points)[0]

    def cast_and_clip(batch):
        origins, directions = _cast_rays(views.camera, batch)
        near, far = rays.intersect_box(origins, directions, *settings.box)
        return origins, directions, jnp.clip(near, views.near, views.far), jnp.clip(far, views.near, views.far)

    def init(key, batch):
        return {'params': model.init(key, jnp.zeros((1, 3)))['params']}

    def render(params, clipped_rays):
        # Differentiable in the parameters: a colour's gradient moves the point, and with it the surface.
        crossing = surfaces.find_first_crossing(occupancy, params, *clipped_rays, settings.count, settings.secant)
        points = clipped_rays[0] + crossing.t[:, None] * clipped_rays[1]
        return crossing, points, model.apply({'params': params}, points)[1]

    def loss(params, mutable, batch, at):
        clipped_rays = cast_and_clip(batch)
        origins, directions, near, far = clipped_rays
        target = batch['colour'].astype(jnp.float32) / 255
        inside = target[:, 3] > 0.5  # the object's mask
        crossing, points, colour = render(params, clipped_rays)
        *point_keys, normal_key = jax.random.split(at.key, 3)
        # Two independent points per ray, one for each of the two cross-entropies.
        random_points = [origins + _draw_between(k, near, far)[:, None] * directions for k in point_keys]
        error = jnp.abs(colour - target[:, :3]).sum(-1)
        # The point of a hit is a constant here: this loss lowers the occupancy there and does not move the point.
        free_points = jnp.where(crossing.hit[:, None], jax.lax.stop_gradient(points), random_points[0])
        free = jax.nn.softplus(occupancy(params, free_points))  # the cross-entropy with 0
        occupied = jax.nn.softplus(-occupancy(params, random_points[1]))  # the cross-entropy with 1
        terms = {
            # Each term has its own set of rays; `where` also stops gradients from the others.
            'colour': jnp.where(inside & crossing.hit, error, 0),
            'free': jnp.where(inside, 0, free),
            'occupied': jnp.where(inside & ~crossing.hit, occupied, 0),
        }
        if weights.normal:
            change = normal_change(occupancy, params, points, weights.nearby, normal_key)
            terms['normal'] = jnp.where(crossing.hit, change, 0)
        per_ray = sum(getattr(weights, name) * term for name, term in terms.items())
        metrics = {name: Mean.of(term) for name, term in terms.items()}
        return Mean.of(per_ray), (mutable, metrics | {'mask': Mean.of(crossing.hit == inside)})

    def predict(params, mutable, batch):
        crossing, _, colour = render(params, cast_and_clip(batch))
        opacity = crossing.hit.astype(colour.dtype)
        return {'colour': _over_background(colour, opacity, settings), 'distance': crossing.t, 'opacity': opacity}

    return Task(init, loss, predict)


def normal_change(occupancy: Callable, params: Any, points: jax.Array, nearby: float, key: jax.Array) -> jax.Array:
    """Returns |n(p) - n(q)| [P], with n the unit gradient and q uniform in a cube of side `nearby` around p."""
    points = jax.lax.stop_gradient(points)
    moved = points + nearby * (jax.random.uniform(key, points.shape) - 0.5)

    def normals(at):
        slope = jax.grad(lambda x: occupancy(params, x).sum())(at)
        return slope / jnp.sqrt((slope * slope).sum(-1, keepdims=True) + 1e-10)  # finite where the occupancy is flat

    return safe_norm(normals(points) - normals(moved))


def _draw_between(key: jax.Array, near: jax.Array, far: jax.Array) -> jax.Array:
    return near + (far - near) * jax.random.uniform(key, near.shape)


SYSTEMS: dict[str, tuple[Callable[..., Task], type]] = {'srn': (srn_task, SRNLoss), 'dvr': (dvr_task, DVRLoss)}


def surface_system(
    model: Any, views: Views, settings: SurfaceSettings, weights: SRNLoss | DVRLoss, pixel_center: float = 0.5
) -> ViewSystem:
    """Makes the system that `settings.name` names: its task and `surface_evaluator` for any views of a scene.

    Args:
      model: `canon.models.srn` or `canon.models.dvr`.
      views: those that are trained on.
      settings: how the surface is rendered.
      weights: of the loss's terms, of the class in `SYSTEMS`.
      pixel_center: as in training.

    Raises:
      UsageError: the views have no alpha.
    """
    check_alpha(views, settings)
    make_task, _ = SYSTEMS[settings.name]
    return ViewSystem(
        lambda views: make_task(model, views, settings, weights),
        lambda task, views: surface_evaluator(task, views, settings, pixel_center),
    )


# --- evaluation -----------------------------------------------------------------------------------------------------


def surface_evaluator(task: Task, views: Views, settings: SurfaceSettings, pixel_center: float = 0.5) -> Evaluator:
    """Evaluates whole views as `view_evaluator` does, and the surface itself.

    'depth_error' is the mean absolute error of the depth along the camera's axis over rays that hit and should, if the
    views have depths. 'mask_iou', for DVR, is the intersection over union of the rendered mask and the true one.

    Args:
      task: `srn_task` or `dvr_task`.
      views: held-out pictures with alpha.
      settings: those of the task.
      pixel_center: as in training.
    """

    def true_depths(view: int) -> dict[str, np.ndarray]:
        if views.depths is None or any(views.camera.distortion):  # `axial_depth` needs straight rays
            return {}
        return {'depth': axial_depth(views.depths[view], views.camera).ravel()}

    def surface_metrics(outputs, batch):
        metrics = {}
        hit, inside = outputs['opacity'] > 0.5, batch['colour'][:, 3] > 127
        # t is the depth along the axis, since directions have a component of 1 along it.
        if 'depth' in batch:
            valid = hit & inside & jnp.isfinite(batch['depth'])
            metrics['depth_error'] = Mean.of(jnp.abs(outputs['distance'] - jnp.where(valid, batch['depth'], 0)), valid)
        if settings.name == 'dvr':
            # Intersection over union of all pixels of all views together: counts add exactly.
            metrics['mask_iou'] = Mean((hit & inside).sum() * 1.0, (hit | inside).sum() * 1.0)
        return metrics

    return view_evaluator(task, views, settings.background, pixel_center, true_depths, surface_metrics)
