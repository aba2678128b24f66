"""Surfaces instead of volumes: a ray shows the one place where it ends. SRN learns where; DVR finds a level.

config.render.name: 'srn' or 'dvr', with the fields of `Marching`; config.model names a network that fits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from canon import models, named
from canon.camera import Camera
from canon.data.scenes.views import axial
from canon.errors import UsageError
from canon.metrics import Mean
from canon.named import Count, NonNegative, Positive, Range
from canon.ops import rays, surfaces
from canon.ops import volume_rendering as vr
from canon.train import Evaluator, Experiment, Task
from experiments import view_synthesis
from experiments.view_synthesis.rendering import Rendering, batch_camera


@dataclass(frozen=True)
class Marching:
    """config.render: background: 'white' or 'black', behind the pictures. And of DVR: count, secant: even intervals of
    a ray, and refinements (`canon.ops.surfaces`); box: (low, high), the walls of what is learnt."""

    name: str
    background: str = 'white'
    count: Count = 64
    secant: Annotated[int, Range(0)] = 8
    box: tuple[float, float] = (-1.2, 1.2)

    def __post_init__(self):
        if self.name not in TASKS:
            raise UsageError(f'render.name={self.name!r}{named.suggest(self.name, TASKS)}')
        if self.background not in ('white', 'black'):
            raise UsageError(f"render.background={self.background!r} is neither 'white' nor 'black'")
        if not self.box[0] < self.box[1]:
            raise UsageError(f'render.box={self.box} is (low, high): low lies below high')


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model, config.render, config.loss and config.tx -> a surface that looks as the views do."""
    views = view_synthesis._views(config, config.data.train.get('split', 'train'), config.data.train.get('views'))
    if views.images.shape[-1] != 4:
        raise UsageError(f'render.name={config.render.name} wants pictures with alpha, which say where the object is')
    how = _how(config)
    return view_synthesis.assembled(
        config, views, task, lambda task, held, center: surface_evaluator(task, held, how, center)
    )


def task(config: ConfigDict, views: Any) -> Task:
    """The task of config.render.name, seen by the views' camera."""
    how = _how(config)
    kind, weights = TASKS[how.name]
    given = named.call(weights, dict(config.get('loss', {})), 'loss')
    return kind(models.make(**config.model), views, how, given)


def _how(config: ConfigDict) -> Marching:
    return named.call(Marching, dict(config.render), 'render')


def _rays(camera: Camera, batch: Any) -> tuple[jax.Array, jax.Array]:
    return rays.generate_rays(batch_camera(camera, batch), batch['pose'], batch['at'])


def _over(colour: jax.Array, opacity: jax.Array, how: Marching) -> jax.Array:
    return vr.over(colour * opacity[:, None], opacity, 1.0 if how.background == 'white' else 0.0)


# --- SRN ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SRNLoss:
    """config.loss: image: the weight of the squared error of colours in -1..1; behind: of the squared depth of what is
    behind the camera. As the authors' code has it: Sitzmann et al. 2019, eq. 6, without a prior of codes."""

    image: NonNegative = 200.0
    behind: NonNegative = 10.0


def srn_task(model: Any, views: Any, how: Marching, weights: SRNLoss) -> Task:
    """`predict` gives colours, distances, and an opacity of 1: what is seen behind an object is learnt as well."""

    def init(key, batch):
        origins, ways = _rays(views.camera, jax.tree.map(lambda x: x[:1], batch))
        return {'params': model.init(key, origins, ways)['params']}

    def loss(params, mutable, batch, at):
        truth = batch['colour'].astype(jnp.float32) / 255
        truth = _over(truth[:, :3], truth[:, 3], how)
        colour, t = model.apply({'params': params}, *_rays(views.camera, batch), at.key)
        error = jnp.square(colour - truth).mean(-1)
        each = 4 * weights.image * error + weights.behind * jnp.square(jnp.minimum(t, 0))
        return Mean.of(each), (mutable, {'mse': Mean.of(error)})

    def predict(params, mutable, batch):
        colour, t = model.apply({'params': params}, *_rays(views.camera, batch))
        return {'colour': colour, 'distance': t, 'opacity': jnp.ones_like(t)}

    return Task(init, loss, predict)


# --- DVR ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DVRLoss:
    """config.loss: weights of what is summed over rays, as in the authors' code. colour: of |colour - truth| where one
    hits and should. free: of the cross-entropy of being occupied, where a ray should miss, at what it hits or else
    anywhere on it. occupied: of not being, anywhere on a ray that should hit and does not. normal: of the distance
    between the normals of a place that is hit and of one within `nearby` of it."""

    colour: NonNegative = 1.0
    free: NonNegative = 1.0
    occupied: NonNegative = 1.0
    normal: NonNegative = 0.05
    nearby: Positive = 1e-3


def dvr_task(model: Any, views: Any, how: Marching, weights: DVRLoss) -> Task:
    """Niemeyer et al. 2020, section 3.4. The colour's gradient moves the surface by the implicit one of its depth."""

    def occupancy(params, points):
        return model.apply({'params': params}, points)[0]

    def beam(batch):
        origins, ways = _rays(views.camera, batch)
        near, far = rays.intersect_box(origins, ways, *how.box)
        return origins, ways, jnp.clip(near, views.near, views.far), jnp.clip(far, views.near, views.far)

    def init(key, batch):
        return {'params': model.init(key, jnp.zeros((1, 3)))['params']}

    def seen(params, beam):
        found = surfaces.find_first_crossing(occupancy, params, *beam, how.count, how.secant)
        points = beam[0] + found.t[:, None] * beam[1]
        return found, points, model.apply({'params': params}, points)[1]

    def loss(params, mutable, batch, at):
        cast = beam(batch)
        origins, ways, near, far = cast
        truth = batch['colour'].astype(jnp.float32) / 255
        inside = truth[:, 3] > 0.5
        found, points, colour = seen(params, cast)
        keys = jax.random.split(at.key, 3)
        anywhere = [origins + _between(k, near, far)[:, None] * ways for k in keys[:2]]
        off = jnp.abs(colour - truth[:, :3]).sum(-1)
        at = jnp.where(found.hit[:, None], jax.lax.stop_gradient(points), anywhere[0])
        free = jax.nn.softplus(occupancy(params, at))  # the cross-entropy with 0
        occupied = jax.nn.softplus(-occupancy(params, anywhere[1]))  # and with 1
        parts = {
            'colour': jnp.where(inside & found.hit, off, 0),
            'free': jnp.where(inside, 0, free),
            'occupied': jnp.where(inside & ~found.hit, occupied, 0),
        }
        if weights.normal:
            bend = bending(occupancy, params, points, weights.nearby, keys[2])
            parts['normal'] = jnp.where(found.hit, bend, 0)
        each = sum(getattr(weights, name) * part for name, part in parts.items())
        told = {name: Mean.of(part) for name, part in parts.items()}
        return Mean.of(each), (mutable, told | {'mask': Mean.of(found.hit == inside)})

    def predict(params, mutable, batch):
        found, _, colour = seen(params, beam(batch))
        opacity = found.hit.astype(colour.dtype)
        return {'colour': _over(colour, opacity, how), 'distance': found.t, 'opacity': opacity}

    return Task(init, loss, predict)


def bending(occupancy: Callable, params: Any, points: jax.Array, nearby: float, key: jax.Array) -> jax.Array:
    """|n(p) - n(q)| [P] for q even in a cube of side `nearby` about p, n the unit gradient; 0 where it is flat."""
    points = jax.lax.stop_gradient(points)
    moved = points + nearby * (jax.random.uniform(key, points.shape) - 0.5)

    def normals(at):
        slope = jax.grad(lambda x: occupancy(params, x).sum())(at)
        return slope / jnp.sqrt((slope * slope).sum(-1, keepdims=True) + 1e-10)

    square = jnp.square(normals(points) - normals(moved)).sum(-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _between(key: jax.Array, near: jax.Array, far: jax.Array) -> jax.Array:
    return near + (far - near) * jax.random.uniform(key, near.shape)


TASKS: dict[str, tuple[Callable[..., Task], type]] = {'srn': (srn_task, SRNLoss), 'dvr': (dvr_task, DVRLoss)}


# --- measured -----------------------------------------------------------------------------------------------------


def surface_evaluator(task: Task, views: Any, how: Marching, center: float = 0.5) -> Evaluator:
    """That of views, and where they have depths: depth_error, the mean distance along the camera's axis where a ray
    hits and should; DVR: mask_iou, what both the object and the rendering cover, of what either does."""

    def given(i):
        if views.depths is None or any(views.camera.distortion):
            return {}
        return {'depth': axial(views.depths[i], views.camera).ravel()}

    def more(found, batch):
        told = {}
        hit, inside = found['opacity'] > 0.5, batch['colour'][:, 3] > 127
        if 'depth' in batch:
            both = hit & inside & jnp.isfinite(batch['depth'])
            told['depth_error'] = Mean.of(jnp.abs(found['distance'] - jnp.where(both, batch['depth'], 0)), both)
        if how.name == 'dvr':
            told['mask_iou'] = Mean((hit & inside).sum() * 1.0, (hit | inside).sum() * 1.0)
        return told

    return view_synthesis.view_evaluator(task, views, Rendering(background=how.background), center, given, more)
