"""Optional libraries: the extra of the distribution that each room needs, and the error if it is not installed.

Modules import optional libraries as they import any other (`import trimesh`), at the top or within a function. A finder
at the end of `sys.meta_path` sees only the imports that are about to fail, and raises `MissingExtra` for those of
Canon's own modules: `canon.data.scenes.meshes needs trimesh: pip install 'canon-jax[scenes]'`.
"""

import sys
from types import FrameType
from typing import Any

from canon.errors import MissingExtra

# The extra of pyproject.toml for a room, a package or a module; the longest prefix decides. What is not listed imports
# jax, flax, optax, numpy and what they require.
SUBJECTS = {
    'canon.configuration': 'train',
    'canon.data': 'train',
    'canon.data.detection': 'detection',
    'canon.data.domains': 'images',
    'canon.data.images': 'images',
    'canon.data.pipeline.tfds': 'images',
    'canon.data.scenes': 'scenes',
    'canon.data.text': 'text',
    'canon.data.tracking': 'tracking',
    'canon.data.transforms': 'images',
    'canon.metrics.detection': 'detection',
    'canon.metrics.translation': 'text',
    'canon.plots': 'train',
    'canon.plots.saving': 'images',
    'canon.plots.tracking': 'tracking',
    'canon.progress': 'train',
    'canon.rendering.viewer': 'view',
    'canon.tasks': 'train',
    'canon.tasks.adaptation': 'images',
    'canon.tasks.classification': 'images',
    'canon.tasks.detection': 'detection',
    'canon.tasks.predictions': 'images',
    'canon.tasks.segmentation': 'images',
    'canon.tasks.shapes': 'scenes',
    'canon.tasks.surfaces': 'scenes',
    'canon.tasks.text': 'text',
    'canon.tasks.tracking': 'tracking',
    'canon.tasks.translation': 'text',
    'canon.tasks.view_synthesis': 'scenes',
    'canon.tasks.volume_rendering': 'scenes',
    'canon.train': 'train',
    'canon.train.trackers': 'trackers',
    'canon.train.trackers.event_files': 'train',
    'canon.weights': 'weights',
}


def find_extra(module: str) -> str | None:
    """Returns the extra that a module of Canon may import from, or None if it imports no optional library."""
    while module and module not in SUBJECTS:
        module = module.rpartition('.')[0]
    return SUBJECTS.get(module)


class MissingExtraFinder:
    """Finds no module; raises `MissingExtra` for a library that a module of Canon imports and nobody has found."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Returns None, which lets the import fail, unless a module of Canon that has an extra is importing."""
        # A dotted name is a part of a library that is installed; no extra would bring it.
        if '.' in name or name in sys.stdlib_module_names:
            return
        subjects = [module for module in _find_importers() if find_extra(module)]
        if subjects:
            # What the user's own import started with: `canon.tasks.detection` needs ml_collections, too, and its extra
            # brings all of it at once.
            module = subjects[-1]
            raise MissingExtra(f"{module} needs {name}: pip install 'canon-jax[{find_extra(module)}]'", name=name)


def _find_importers() -> list[str]:
    """Returns the modules of Canon that import one another, from the one whose import is executed outwards.

    Empty if that one is not Canon's.
    """
    frame: FrameType | None = sys._getframe(1)
    # `importlib` itself is not skipped: who calls `find_spec` or `import_module` asks whether a module exists.
    while frame and frame.f_globals.get('__name__') in (__name__, 'importlib._bootstrap'):
        frame = frame.f_back
    importers: list[str] = []
    while frame:
        name = frame.f_globals.get('__name__', '')
        if not importers and not name.startswith('canon.'):
            return []
        if not importers or (name.startswith('canon.') and frame.f_code.co_name == '<module>'):
            importers.append(name)
        frame = frame.f_back
    return importers


def install_finder() -> None:
    """Appends the finder to `sys.meta_path`, once. Imports that succeed never reach it, nor do those of others."""
    if not any(isinstance(finder, MissingExtraFinder) for finder in sys.meta_path):
        sys.meta_path.append(MissingExtraFinder())
