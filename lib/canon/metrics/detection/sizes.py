"""The sizes of objects: small, medium and large."""

from __future__ import annotations

from canon.errors import UsageError

COCO_SIZES = (32.0**2, 96.0**2)  # areas in pixels^2 between small and medium, and between medium and large objects
SIZE_NAMES = ('small', 'medium', 'large')


def check_sizes(sizes: tuple[float, float], what: str) -> None:
    """Raises UsageError, which begins with `what`, unless the two areas are positive and in order."""
    if len(sizes) != 2 or not 0 < sizes[0] < sizes[1]:
        raise UsageError(f'{what}: sizes={tuple(sizes)} must be two areas in pixels^2, positive and in order')
