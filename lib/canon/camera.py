"""`Camera`, on the ground floor: `canon.data` reads cameras and `canon.ops.rays` casts rays through them."""

from __future__ import annotations

from typing import Any, NamedTuple


class Camera(NamedTuple):
    """A pinhole camera with OpenCV's distortion, in pixels; pixel (column i, row j) covers [i, i + 1) x [j, j + 1).

    One camera per ray has arrays instead of numbers: focal and centre [..., 2], distortions [...] (`with_intrinsics`).

    Attributes:
      focal: focal lengths (fx, fy).
      centre: the principal point (cx, cy).
      size: (H, W).
      distortion: (k1, k2, p1, p2), or () for none.
    """

    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()

    @property
    def intrinsics(self) -> tuple[float, ...]:
        """(fx, fy, cx, cy, k1, k2, p1, p2)."""
        return (*self.focal, *self.centre, *self.distortion, *(0.0,) * (4 - len(self.distortion)))

    def with_intrinsics(self, intrinsics: Any) -> Camera:
        """Returns a camera of this size with intrinsics [..., 4] (fx, fy, cx, cy), or [..., 8] with k1, k2, p1, p2."""
        # Distortions stay separate arrays, so that a camera without any has the empty tuple in every case.
        lens = tuple(intrinsics[..., i] for i in range(4, intrinsics.shape[-1]))
        return self._replace(focal=intrinsics[..., :2], centre=intrinsics[..., 2:4], distortion=lens)

    def resize(self, size: tuple[int, int]) -> Camera:
        """Returns the camera of the same view on a picture of another size (H, W)."""
        # Pixel coordinates start at the corner of the picture, so the principal point scales like the sides.
        y, x = (new / old for new, old in zip(size, self.size, strict=True))
        focal, centre = (self.focal[0] * x, self.focal[1] * y), (self.centre[0] * x, self.centre[1] * y)
        return self._replace(focal=focal, centre=centre, size=size)

    def scale(self, factor: float) -> Camera:
        """Returns the camera of the same view with sides `factor` times as long, rounded to whole pixels."""
        height, width = (max(1, round(n * factor)) for n in self.size)
        return self.resize((height, width))
