"""Data on the host: sources of examples, transforms, batches by number. Knows no model and imports no jax."""

from canon.data import order, transforms
from canon.data.batches import Batches, Once
from canon.data.keys import Key, rng
from canon.data.loading import load
from canon.data.order import balanced, in_order, shuffled
from canon.data.source import Arrays, Cached, Info, Source, cached, labels
from canon.data.transforms import Mapped, Transform

__all__ = [
    'Arrays', 'Batches', 'Cached', 'Info', 'Key', 'Mapped', 'Once', 'Source', 'Transform',
    'balanced', 'cached', 'in_order', 'labels', 'load', 'order', 'rng', 'shuffled', 'transforms',
]  # fmt: skip
