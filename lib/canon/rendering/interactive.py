"""Scenes that are rendered while somebody looks around in them: frames from any camera, coarse first and then fine.

    scene = radiance_scene(field, params, settings, views)
    frame = render_frame(scene, Look(scene.pose), (240, 320))      # uint8 [240, 320, 3]

`canon.rendering.viewer` serves a scene to a browser.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from canon.camera import Camera
from canon.data.scenes.framing import look_at, look_at_frame
from canon.data.scenes.ray_batches import pose_rays
from canon.data.scenes.views import Views
from canon.ops import rays as ray_ops
from canon.ops import volume_rendering as vr
from canon.rendering.radiance_fields import render_rays
from canon.rendering.samples import cast_rays
from canon.rendering.settings import RenderSettings
from canon.rendering.volumes import MODES, make_transfer_table, render_mode

CHUNK = 1024  # rays per call: a slow model on a CPU is interrupted a few times per second
_COARSE_SECONDS = 0.1  # that a frame may take while the camera moves
_COARSEST = 32  # pixels of the longer side
_FIELD_OF_VIEW = math.radians(45)
_CAMERA = Camera((1.0, 1.0), (0.0, 0.0), (1, 1))  # the rays of a frame bring their own intrinsics


class Look(NamedTuple):
    """A camera and the settings with which a scene is looked at.

    Attributes:
      pose: camera to world [3 or 4, 4], in OpenGL axes.
      field_of_view: vertical, in radians.
      mode: one of the scene's `modes`.
      near, far: limits of distance; None are the scene's own.
      crop: (low [3], high [3]) of a box outside of which nothing is shown; None is the scene's own.
      exposure: in stops, doubles the brightness per unit.
      table: transfer function [K, 4] of a volume; None is the scene's own.
      level: of an iso-surface; None is the scene's own.
      time: in [0, 1], of a scene that moves.
    """

    pose: np.ndarray
    field_of_view: float = _FIELD_OF_VIEW
    mode: str = ''
    near: float | None = None
    far: float | None = None
    crop: tuple[Sequence[float], Sequence[float]] | None = None
    exposure: float = 0.0
    table: np.ndarray | None = None
    level: float | None = None
    time: float = 0.0


class Shown(NamedTuple):
    """The arrays of a look, all given: near, far and level [], crop ([3], [3]), table [K, 4]."""

    near: ArrayLike
    far: ArrayLike
    crop: tuple[ArrayLike, ArrayLike]
    table: ArrayLike
    level: ArrayLike


class Scene(NamedTuple):
    """Something to look at from any side.

    Attributes:
      trace: (rays {name: [CHUNK, ...]}, `Shown`, mode) -> colours [CHUNK, 3].
      modes: what can be shown, the first by default.
      pose: a camera that sees all of it.
      centre, up: [3], the point around which cameras turn, and what is up there.
      limits: (near, far) of all that is shown.
      box: (low, high), each [3], that holds all of it; None if it has no bounds that a crop could move.
      points: control points (value, red, green, blue, opacity) of a transfer function; () if it has none.
      level: of an iso-surface; None if it has none.
      moves: whether it depends on the time.
      field_of_view: vertical, of its own pictures.
    """

    trace: Callable[[Mapping[str, Any], Shown, str], jax.Array]
    modes: tuple[str, ...]
    pose: np.ndarray
    centre: np.ndarray
    up: np.ndarray
    limits: tuple[float, float]
    box: tuple[np.ndarray, np.ndarray] | None = None
    points: tuple[tuple[float, ...], ...] = ()
    level: float | None = None
    moves: bool = False
    field_of_view: float = _FIELD_OF_VIEW

    def resolve(self, look: Look) -> Shown:
        """Returns the arrays of a look, with the scene's own value in place of each None."""
        low, high = look.crop or self.box or ([-1e9] * 3, [1e9] * 3)
        table = make_transfer_table(self.points) if look.table is None and self.points else look.table
        near, far = self.limits
        return Shown(
            np.float32(near if look.near is None else look.near),
            np.float32(far if look.far is None else look.far),
            (np.array(low, np.float32), np.array(high, np.float32)),
            np.zeros((2, 4), np.float32) if table is None else np.float32(table),
            np.float32((self.level or 0.0) if look.level is None else look.level),
        )


def render_frame(
    scene: Scene, look: Look, size: tuple[int, int], is_stale: Callable[[], bool] = lambda: False
) -> np.ndarray | None:
    """Renders a picture uint8 [H, W, 3], or returns None once `is_stale()` is true.

    Args:
      scene: what is rendered.
      look: from where, and how.
      size: (H, W).
      is_stale: asked between chunks of rays.
    """
    shown, mode, (height, width) = scene.resolve(look), look.mode or scene.modes[0], size
    focal = height / 2 / math.tan(look.field_of_view / 2)
    camera = Camera((focal, focal), (width / 2, height / 2), size)
    rays = pose_rays(camera, np.asarray(look.pose, np.float32), time=look.time if scene.moves else None)
    count = height * width
    intrinsics = np.broadcast_to(np.array(camera.intrinsics[:4], np.float32), (count, 4))
    rays = {**rays, 'intrinsics': intrinsics}
    colours = []
    for start in range(0, count, CHUNK):
        if is_stale():
            return None
        part = {name: _pad(x[start : start + CHUNK]) for name, x in rays.items()}
        colours.append(np.asarray(scene.trace(part, shown, mode)))
    colour = np.concatenate(colours)[:count].reshape(height, width, 3)
    if mode not in ('depth', 'opacity'):  # which are not brightness
        colour = colour * 2.0**look.exposure
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def _pad(rows: np.ndarray) -> np.ndarray:
    """Repeats the last row up to CHUNK, so that one program serves all sizes of pictures."""
    return np.concatenate((rows, np.broadcast_to(rows[-1:], (CHUNK - len(rows), *rows.shape[1:]))))


# --- kinds of scenes ------------------------------------------------------------------------------------------------


def radiance_scene(
    field: Any, params: Any, settings: RenderSettings, views: Views, grid: jax.Array | None = None
) -> Scene:
    """Makes the scene of a radiance field. Modes: 'colour', 'depth' (near is bright) and 'opacity'.

    Args:
      field: a linen module of `canon.models.nerf` or `canon.models.instant_ngp`.
      params: its parameters.
      settings: as in training; a random background is white.
      views: pictures of the scene, whose cameras give the limits and the start.
      grid: its occupancy grid, if `settings.cells`.
    """

    @partial(jax.jit, static_argnames='mode')
    def trace(params, grid, batch, shown, mode):
        # Normalised device coordinates map the near plane to 0 and infinity to 1 (NeRF, appendix C).
        rays = cast_rays(_CAMERA, settings, *((0.0, 1.0) if settings.ndc else (shown.near, shown.far)), batch)
        if not settings.ndc:
            enter, leave = ray_ops.intersect_box(rays.origins, rays.directions, *shown.crop)
            near = jnp.clip(enter, rays.near, rays.far)
            rays = rays._replace(near=near, far=jnp.clip(leave, near, rays.far))
        level = render_rays(field, params, rays, settings, None, grid)[-1]
        background = vr.background_colour(None, settings.background, (CHUNK, 3))
        colour = level.colour if background is None else vr.over(level.colour, level.opacity, background)
        hit = (rays.far > rays.near)[:, None]  # a ray that misses the crop has an empty interval
        colour = jnp.where(hit, colour, 0.0 if background is None else background)
        opacity = jnp.where(hit[:, 0], level.opacity, 0)
        return _show(colour, level.distance, opacity, shown, mode)

    scene = _frame_views(views, ('colour', 'depth', 'opacity'), lambda *arguments: trace(params, grid, *arguments))
    bounded = settings.box if settings.box and not settings.contract else None
    reach = 1.5 * float(np.linalg.norm(scene.pose[:3, 3] - scene.centre))
    low, high = ([bounded[0]] * 3, [bounded[1]] * 3) if bounded else (scene.centre - reach, scene.centre + reach)
    return scene if settings.ndc else scene._replace(box=(np.array(low, np.float32), np.array(high, np.float32)))


def task_scene(predict: Callable, params: Any, mutable: Any, views: Views) -> Scene:
    """Makes the scene of a model that renders rays itself, such as SRN or DVR; near, far and crop do not apply.

    Args:
      predict: (params, mutable, rays) -> {'colour' [B, 3], 'distance' and 'opacity' [B]}: `Task.predict`.
      params, mutable: what it has learnt.
      views: pictures of the scene.
    """

    @partial(jax.jit, static_argnames='mode')
    def trace(params, mutable, batch, shown, mode):
        outputs = predict(params, mutable, batch)
        return _show(outputs['colour'], outputs['distance'], outputs['opacity'], shown, mode)

    modes = ('colour', 'depth', 'opacity')
    return _frame_views(views, modes, lambda *arguments: trace(params, mutable, *arguments))


def _show(colour, distance, opacity, shown: Shown, mode: str) -> jax.Array:
    """Returns what a mode shows of rays, [B, 3]."""
    if mode == 'depth':
        # Between the limits rather than the frame's own extremes: depths keep their grey while the camera moves.
        nearness = 1 - jnp.clip(
            (distance - shown.near) / jnp.maximum(jnp.asarray(shown.far) - jnp.asarray(shown.near), 1e-6), 0, 1
        )
        colour = jnp.where(opacity > 0.5, nearness, 0)[:, None]
    elif mode == 'opacity':
        colour = opacity[:, None]
    return jnp.broadcast_to(colour, (len(opacity), 3))


def _frame_views(views: Views, modes: tuple[str, ...], trace: Callable) -> Scene:
    """Makes a scene that begins at the first of its pictures."""
    frame = views.frame or look_at_frame(views.poses, views.near, views.far)
    height = views.camera.size[0]
    return Scene(
        trace,
        modes,
        np.asarray(views.poses[0], float),
        np.asarray(frame.centre, float),
        np.asarray(frame.up, float),
        (float(views.near), float(views.far)),
        moves=views.times is not None,
        field_of_view=2 * math.atan(height / 2 / float(np.mean(views.camera.focal))),
    )


def volume_scene(
    values: np.ndarray,
    half: np.ndarray,
    points: Sequence[Sequence[float]],
    level: float = 0.5,
    modes: Sequence[str] = tuple(MODES),
    samples: float = 2.0,
) -> Scene:
    """Makes the scene of a volume.

    Args:
      values: [X, Y, Z] in 0..1.
      half: half sides [3] of its box.
      points: control points of its transfer function.
      level: of its iso-surface.
      modes: of `canon.rendering.volumes.MODES`.
      samples: per voxel along the longest side.
    """
    count = round(samples * max(values.shape))

    @partial(jax.jit, static_argnames='mode')
    def trace(values, half, batch, shown, mode):
        camera = _CAMERA.with_intrinsics(batch['intrinsics'])
        origins, directions = ray_ops.generate_rays(camera, batch['pose'], batch['pixel'])
        clipped = (shown.near, shown.far, *shown.crop)
        return render_mode(values, shown.table, half, shown.level, origins, directions, mode, count, clipped)

    arrays = jnp.asarray(values, jnp.float32), jnp.asarray(half, jnp.float32)
    box = np.asarray(half, np.float32)
    distance = float(np.linalg.norm(box))
    pose = look_at(2.6 * distance * np.array([0.66, -0.66, 0.36]))
    return Scene(
        lambda *arguments: trace(*arrays, *arguments),
        tuple(modes),
        pose,
        np.zeros(3),
        np.array([0.0, 0.0, 1.0]),
        (0.0, 5 * distance),
        (-box, box),
        tuple(tuple(point) for point in points) if 'emission' in modes else (),  # no other mode has colours
        level,
    )


# --- frames that follow a camera --------------------------------------------------------------------------------------


class FrameLoop:
    """Renders what a viewer looks at: a coarse frame after each change, then finer ones until the next.

    The coarse frame has as many rays as the model renders in a tenth of a second, as measured on the frames before.
    """

    def __init__(
        self,
        scene: Scene,
        read_look: Callable[[], tuple[Look, float]],
        show: Callable[[np.ndarray], None],
        finest: int = 512,
    ):
        """Prepares the loop; `run` renders in the calling thread.

        Args:
          scene: what is rendered.
          read_look: returns the newest look, and the aspect ratio W / H of the viewer's window.
          show: displays a frame uint8 [H, W, 3].
          finest: pixels of the longer side of the last frame.
        """
        self._scene, self._read_look, self._show, self.finest = scene, read_look, show, finest
        self._changed, self._stopped = threading.Event(), threading.Event()
        self._rate: float | None = None  # rays per second

    def change(self) -> None:
        """Requests frames of what is looked at now."""
        self._changed.set()

    def stop(self) -> None:
        """Ends `run`."""
        self._stopped.set()
        self._changed.set()

    def run(self) -> None:
        """Renders until `stop` is called."""
        while True:
            self._changed.wait()
            if self._stopped.is_set():
                return
            self._changed.clear()
            self.render_once()

    def render_once(self) -> list[tuple[int, int]]:
        """Renders a coarse frame and finer ones, unless something changes; returns the sizes (H, W) that were shown."""
        look, aspect = self._read_look()
        shown = []
        for size in self._choose_sizes(aspect):
            # The coarse frame is never given up: a camera that moves without a pause would show nothing.
            frame = self._time(look, size, self._changed.is_set if shown else lambda: False)
            if frame is None:
                break
            self._show(frame)
            shown.append(size)
        return shown

    def _choose_sizes(self, aspect: float) -> list[tuple[int, int]]:
        rays = (self._rate or CHUNK / _COARSE_SECONDS) * _COARSE_SECONDS
        side = math.sqrt(rays * max(aspect, 1 / aspect))  # of a frame with this many rays
        coarse = int(min(max(side, _COARSEST), self.finest))
        sides = [coarse]
        while sides[-1] < self.finest:
            sides.append(min(2 * sides[-1], self.finest))
        return [_scale(side, aspect) for side in sides]

    def _time(self, look: Look, size: tuple[int, int], is_stale: Callable[[], bool]) -> np.ndarray | None:
        began = time.perf_counter()
        frame = render_frame(self._scene, look, size, is_stale)
        if frame is not None:
            rate = math.ceil(size[0] * size[1] / CHUNK) * CHUNK / (time.perf_counter() - began)
            # The first frame includes a compilation: the rate recovers from it within a few frames.
            self._rate = rate if self._rate is None else max(0.5 * self._rate + 0.5 * rate, 0.1 * rate)
        return frame


def _scale(side: int, aspect: float) -> tuple[int, int]:
    """Returns (H, W) with a longer side of `side` pixels."""
    size = (side / aspect, side) if aspect >= 1 else (side, side * aspect)
    return max(1, round(size[0])), max(1, round(size[1]))


# --- camera paths -----------------------------------------------------------------------------------------------------


def interpolate_looks(keys: Sequence[Look], frames: int) -> list[Look]:
    """Returns looks along a smooth path through key frames: Catmull-Rom splines of positions, slerps of rotations.

    Args:
      keys: at least one; their modes, tables and crops are those of the nearest key, numbers change evenly.
      frames: of the path, the ends included.
    """
    from scipy.spatial.transform import Rotation, Slerp

    if len(keys) == 1:
        return [keys[0]] * frames
    knots = np.arange(len(keys))
    turn = Slerp(knots, Rotation.from_matrix([key.pose[:3, :3] for key in keys]))
    positions = np.array([key.pose[:3, 3] for key in keys])
    looks = []
    for at in np.linspace(0, len(keys) - 1, frames):
        i, u = min(int(at), len(keys) - 2), at - min(int(at), len(keys) - 2)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn(at).as_matrix(), _catmull_rom(positions, i, u)
        first, second = keys[i], keys[i + 1]
        mixed = {
            name: (1 - u) * getattr(first, name) + u * getattr(second, name)
            for name in ('field_of_view', 'near', 'far', 'exposure', 'level', 'time')
            if getattr(first, name) is not None and getattr(second, name) is not None
        }
        looks.append((second if u > 0.5 else first)._replace(pose=pose, **mixed))
    return looks


def _catmull_rom(points: np.ndarray, i: int, u: float) -> np.ndarray:
    """Returns the point at `u` in [0, 1] between points i and i + 1; the ends are continued straight on."""
    before = points[i - 1] if i > 0 else 2 * points[i] - points[i + 1]
    after = points[i + 2] if i + 2 < len(points) else 2 * points[i + 1] - points[i]
    a, b = points[i], points[i + 1]
    return 0.5 * (
        2 * a + (b - before) * u + (2 * before - 5 * a + 4 * b - after) * u**2 + (3 * (a - b) + after - before) * u**3
    )
