"""`Camera`: what data read and rays start from, so it stands outside of both rooms and needs no JAX."""

from __future__ import annotations

from typing import NamedTuple


class Camera(NamedTuple):
    """A pinhole camera with OpenCV's distortion, in pixels; pixel (column i, row j) covers [i, i + 1) x [j, j + 1).

    focal: (fx, fy). centre: (cx, cy), the principal point. size: (H, W). distortion: (), or k1, k2, p1, p2.
    """

    focal: tuple[float, float]
    centre: tuple[float, float]
    size: tuple[int, int]
    distortion: tuple[float, ...] = ()

    def resized(self, size: tuple[int, int]) -> Camera:
        """The same view on a picture of another size (H, W)."""
        y, x = (new / old for new, old in zip(size, self.size, strict=True))
        focal, centre = (self.focal[0] * x, self.focal[1] * y), (self.centre[0] * x, self.centre[1] * y)
        return self._replace(focal=focal, centre=centre, size=size)

    def scaled(self, by: float) -> Camera:
        """The same view at H by, W by, rounded to whole pixels."""
        height, width = (max(1, round(n * by)) for n in self.size)
        return self.resized((height, width))
