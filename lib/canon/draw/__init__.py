"""Pictures from arrays: numpy in, matplotlib `Figure` out, no global state (nothing here touches pyplot).

They load on first use: matplotlib takes a second to import.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from canon.draw.images import confusion_matrix, gallery
    from canon.draw.lines import curves

_HOME = {'confusion_matrix': 'images', 'curves': 'lines', 'gallery': 'images'}

__all__ = ['confusion_matrix', 'curves', 'gallery']


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f'canon.draw.{_HOME[name]}'), name)
    raise AttributeError(f'module canon.draw has no attribute {name!r}')
