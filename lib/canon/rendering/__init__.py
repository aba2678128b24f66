"""Renderers: from rays and a field or a volume to pictures. Pure functions of arrays, for any task and any loss."""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use
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

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
