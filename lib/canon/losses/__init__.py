"""Losses: pure functions of arrays, with one value per row or label, or with sums over a batch of objects."""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use
from canon.losses.assignment import assignment_nll
from canon.losses.boxes import smooth_l1
from canon.losses.classification import maximum_a_posteriori, softmax_cross_entropy
from canon.losses.ctc import ctc
from canon.losses.discrepancies import classifier_discrepancy, coral, joint_mmd, mean_cov, mmd
from canon.losses.domain_classes import (
    class_confusion,
    entropy,
    entropy_weights,
    information_loss,
    multilinear_map,
    random_multilinear_map,
)
from canon.losses.finetuning import distillation, spectral_shrinkage
from canon.losses.invariance import irm_penalty, irm_penalty_of_halves, risk_variance, update_group_weights
from canon.losses.metric_learning import batch_hard_triplet, find_hardest
from canon.losses.multibox import multibox_loss
from canon.losses.regions import region_loss, rpn_loss
from canon.losses.shapes import binary_cross_entropy, clamped_l1, code_prior, eikonal_loss, surface_loss
from canon.losses.yolo import yolo_loss

__all__ = [
    'assignment_nll', 'batch_hard_triplet', 'binary_cross_entropy', 'clamped_l1', 'class_confusion',
    'classifier_discrepancy', 'code_prior', 'coral', 'ctc', 'distillation', 'eikonal_loss', 'entropy',
    'entropy_weights', 'find_hardest', 'information_loss', 'irm_penalty', 'irm_penalty_of_halves', 'joint_mmd',
    'maximum_a_posteriori', 'mean_cov', 'mmd', 'multibox_loss', 'multilinear_map', 'random_multilinear_map',
    'region_loss', 'risk_variance', 'rpn_loss', 'smooth_l1', 'softmax_cross_entropy', 'spectral_shrinkage',
    'surface_loss', 'update_group_weights', 'yolo_loss',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
