"""Accumulators that add: what a batch contributes, summed over microbatches, hosts and padding, exactly."""

from canon.metrics.calibration import Reliability, brier
from canon.metrics.classification import accuracy, class_accuracy, confusion, top_k
from canon.metrics.mean import Mean, add
from canon.metrics.text import character_error_rate, edit_distance, word_accuracy

__all__ = [
    'Mean', 'Reliability', 'accuracy', 'add', 'brier', 'character_error_rate', 'class_accuracy', 'confusion',
    'edit_distance', 'top_k', 'word_accuracy',
]  # fmt: skip
