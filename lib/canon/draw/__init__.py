"""Pictures from arrays: numpy in, matplotlib `Figure` out, no global state (nothing here touches pyplot)."""

from canon.draw.curves import curves
from canon.draw.images import confusion_matrix, gallery

__all__ = ['confusion_matrix', 'curves', 'gallery']
