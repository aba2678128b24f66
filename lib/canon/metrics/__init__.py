"""Accumulators that add: what a batch contributes, summed over microbatches, hosts and padding, exactly."""

from canon.metrics.calibration import Reliability, brier
from canon.metrics.classification import accuracy, class_accuracy, confusion, top_k
from canon.metrics.mean import Mean, add

__all__ = ['Mean', 'Reliability', 'accuracy', 'add', 'brier', 'class_accuracy', 'confusion', 'top_k']
