"""`Camera`, shared by `canon.data` and `canon.ops.rays`: neither needs the other for it, and it needs no JAX."""

from __future__ import annotations

from typing import Any, NamedTuple


class Camera(NamedTuple):
    """A pinhole camera with OpenCV's distortion, in pixels; pixel (column i, row j) covers [i, i + 1) x [j, j + 1).

    focal: (fx, fy). centre: (cx, cy), the principal point. size: (H, W). distortion: (), or k1, k2, p1, p2. A camera
    per ray has arrays in their place: focal and centre [.., 2], and four distortions [..] (`with_intrinsics`).
    """

    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()

    @property
    def intrinsics(self) -> tuple[float, ...]:
        """fx, fy, cx, cy, k1, k2, p1, p2."""
        return (*self.focal, *self.centre, *self.distortion, *(0.0,) * (4 - len(self.distortion)))

    def with_intrinsics(self, intrinsics: Any) -> Camera:
        """Returns a camera of this size with intrinsics [.., 4] (fx, fy, cx, cy), or [.., 8] with k1, k2, p1, p2."""
        lens = tuple(intrinsics[..., i] for i in range(4, intrinsics.shape[-1]))
        return self._replace(focal=intrinsics[..., :2], centre=intrinsics[..., 2:4], distortion=lens)

    def resized(self, size: tuple[int, int]) -> Camera:
        """The same view on a picture of another size (H, W)."""
        y, x = (new / old for new, old in zip(size, self.size, strict=True))
        focal, centre = (self.focal[0] * x, self.focal[1] * y), (self.centre[0] * x, self.centre[1] * y)
        return self._replace(focal=focal, centre=centre, size=size)

    def scaled(self, by: float) -> Camera:
        """The same view at H by, W by, rounded to whole pixels."""
        height, width = (max(1, round(n * by)) for n in self.size)
        return self.resized((height, width))
