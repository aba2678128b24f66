"""Batches of rays for view synthesis: random pixels for training, whole views for evaluation, new poses to render.

A batch holds 'pose' float32 [B, 3, 4], camera to world; 'pixel' float32 [B, 2], (x, y) in the image; 'colour' uint8
[B, 3 or 4], with straight alpha if the pictures have it; 'time' float32 [B] in [0, 1] for scenes that move; and
'intrinsics' float32 [B, 4 or 8] if pictures have cameras of their own.
"""

from __future__ import annotations

import numpy as np

from canon.camera import Camera
from canon.data.pipeline.keys import stream
from canon.data.pipeline.synthetic import Generated
from canon.data.scenes.views import Views


def ray_batches(
    views: Views,
    batch_size: int,
    seed: int = 0,
    pixel_center: float = 0.5,
    crop_steps: int = 0,
    single_view: bool = False,
) -> Generated:
    """Returns endless training batches of random rays, each a function of (seed, step).

    Args:
      views: the pictures.
      batch_size: rays per batch.
      seed: of the random pixels.
      pixel_center: 0.5 casts rays through pixel centres, 0.0 through corners, as the original NeRF's code does.
      crop_steps: the first steps, which sample the central half of the pictures alone. It keeps a white background from
        taking over at the start.
      single_view: takes all rays of a batch from one view, as the original NeRF does on the synthetic scenes.
    """

    def sample(step):
        return sample_rays(views, seed, step, batch_size, pixel_center, crop_steps, single_view)

    return Generated(sample, batch_size, len(views.images) * int(np.prod(views.camera.size)))


def sample_rays(
    views: Views,
    seed: int,
    step: int,
    count: int,
    pixel_center: float = 0.5,
    crop_steps: int = 0,
    single_view: bool = False,
) -> dict[str, np.ndarray]:
    """Samples `count` pixels of the views uniformly; the arguments are those of `ray_batches`."""
    rng = stream('rays', seed, step, 0)  # a stream per step: any step can be replayed, and a resumed run continues
    height, width = views.camera.size
    margin = (height // 4, width // 4) if step < crop_steps else (0, 0)
    # With replacement: repeats are rare, and an epoch of pixels would need an order of millions of them.
    view = np.broadcast_to(rng.integers(len(views.images), size=1 if single_view else count), count)
    row = rng.integers(margin[0], height - margin[0], count)
    column = rng.integers(margin[1], width - margin[1], count)
    return _pixels(views, view, row, column, pixel_center)


def view_rays(views: Views, view: int, pixel_center: float = 0.5) -> dict[str, np.ndarray]:
    """Returns the rays of all pixels of one view, row by row."""
    row, column = (x.ravel() for x in np.indices(views.camera.size))
    return _pixels(views, np.full(len(row), view), row, column, pixel_center)


def pose_rays(
    camera: Camera, pose: np.ndarray, pixel_center: float = 0.5, time: float | None = None
) -> dict[str, np.ndarray]:
    """Returns the rays of all pixels of a new view, row by row; there is no 'colour'.

    Args:
      camera: of the view.
      pose: camera to world, [3 or 4, 4].
      pixel_center: as in `ray_batches`.
      time: of a scene that moves, in [0, 1].
    """
    row, column = (x.ravel() for x in np.indices(camera.size))
    batch: dict[str, np.ndarray] = {
        'pose': np.broadcast_to(pose[:3], (len(row), 3, 4)),
        'pixel': _pixel_coordinates(row, column, pixel_center),
    }
    return batch if time is None else batch | {'time': np.full(len(row), time, np.float32)}


def _pixels(views: Views, view, row, column, pixel_center: float) -> dict[str, np.ndarray]:
    batch: dict[str, np.ndarray] = {
        'pose': np.asarray(views.poses[view][:, :3], np.float32),
        'pixel': _pixel_coordinates(row, column, pixel_center),
        'colour': views.images[view, row, column],  # bytes: the device converts and blends them
    }
    if views.intrinsics is not None:
        batch['intrinsics'] = views.intrinsics[view]
    if views.times is not None:
        batch['time'] = np.asarray(views.times[view], np.float32)
    return batch


def _pixel_coordinates(row, column, pixel_center: float) -> np.ndarray:
    return np.stack((column, row), -1).astype(np.float32) + np.float32(pixel_center)
