"""Renderers: from rays and a field or a volume to pictures. Pure functions of arrays, for any task and any loss."""

from canon.rendering.radiance_fields import (
    LevelOutput,
    composite,
    init_occupancy,
    query_field,
    render_level,
    render_rays,
    update_occupancy,
)
from canon.rendering.samples import Rays, Samples, batch_camera, cast_rays
from canon.rendering.settings import CASTING, RenderSettings

__all__ = [
    'CASTING', 'LevelOutput', 'Rays', 'RenderSettings', 'Samples', 'batch_camera', 'cast_rays', 'composite',
    'init_occupancy', 'query_field', 'render_level', 'render_rays', 'update_occupancy',
]  # fmt: skip
