"""Losses: pure functions of arrays, with one value per row or label, or with sums over a batch of objects."""

from canon.losses.assignment import assignment_nll
from canon.losses.boxes import smooth_l1
from canon.losses.classification import maximum_a_posteriori, softmax_cross_entropy
from canon.losses.ctc import ctc
from canon.losses.metric_learning import batch_hard_triplet, find_hardest
from canon.losses.multibox import multibox_loss
from canon.losses.regions import region_loss, rpn_loss
from canon.losses.shapes import binary_cross_entropy, clamped_l1, code_prior, eikonal_loss, surface_loss
from canon.losses.yolo import yolo_loss

__all__ = [
    'assignment_nll', 'batch_hard_triplet', 'binary_cross_entropy', 'clamped_l1', 'code_prior', 'ctc', 'eikonal_loss',
    'find_hardest', 'maximum_a_posteriori', 'multibox_loss', 'region_loss', 'rpn_loss', 'smooth_l1',
    'softmax_cross_entropy', 'surface_loss', 'yolo_loss',
]  # fmt: skip
