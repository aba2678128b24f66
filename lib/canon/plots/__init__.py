"""Pictures from arrays: numpy in, matplotlib `Figure` out, no global state (nothing here touches pyplot).

They load on first use: matplotlib takes a second to import.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canon.plots.alignment import alignments
    from canon.plots.animation import Animation
    from canon.plots.annotated import scenes
    from canon.plots.bars import class_accuracy, reliability
    from canon.plots.images import confusion_matrix, gallery
    from canon.plots.insides import feature_maps, filters, histograms
    from canon.plots.lines import curves
    from canon.plots.shapes import shaded, slices
    from canon.plots.surfaces import Ground, paths, walk
    from canon.plots.sweeps import best_of, middle, sweep
    from canon.plots.text import readings, spikes, surprise, translations

_HOMES = {
    'alignment': ('alignments',),
    'animation': ('Animation',),
    'annotated': ('scenes',),
    'bars': ('class_accuracy', 'reliability'),
    'images': ('confusion_matrix', 'gallery'),
    'insides': ('feature_maps', 'filters', 'histograms'),
    'lines': ('curves',),
    'shapes': ('shaded', 'slices'),
    'surfaces': ('Ground', 'paths', 'walk'),
    'sweeps': ('best_of', 'middle', 'sweep'),
    'text': ('readings', 'spikes', 'surprise', 'translations'),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    'Animation', 'Ground', 'alignments', 'best_of', 'class_accuracy', 'confusion_matrix', 'curves', 'feature_maps',
    'filters', 'gallery', 'histograms', 'middle', 'paths', 'readings', 'reliability', 'scenes', 'shaded', 'slices',
    'spikes', 'surprise', 'sweep', 'translations', 'walk',
]  # fmt: skip


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f'canon.plots.{_HOME[name]}'), name)
    raise AttributeError(f'module canon.plots has no attribute {name!r}')
