"""Accumulators that add: what a batch contributes, summed over microbatches, hosts and padding, exactly."""

from canon.metrics.classification import accuracy, confusion, top_k
from canon.metrics.mean import Mean, add

__all__ = ['Mean', 'accuracy', 'add', 'confusion', 'top_k']
