"""Losses: pure functions of arrays with one value per row or label."""

from canon.losses.classification import maximum_a_posteriori, softmax_cross_entropy
from canon.losses.ctc import ctc
from canon.losses.shapes import binary_cross_entropy, clamped_l1, code_prior, eikonal_loss, surface_loss

__all__ = [
    'binary_cross_entropy', 'clamped_l1', 'code_prior', 'ctc', 'eikonal_loss', 'maximum_a_posteriori',
    'softmax_cross_entropy', 'surface_loss',
]  # fmt: skip
