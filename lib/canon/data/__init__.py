"""Data on the host: sources of examples, transforms, batches by number. Knows no model and imports no jax."""

from canon.data import files, order, transforms
from canon.data.batches import Batches, Once
from canon.data.chain import Mapped, Transform
from canon.data.keys import Key, rng
from canon.data.loading import OWN, load
from canon.data.made import Fake, Generated
from canon.data.order import balanced, in_order, shuffled
from canon.data.source import Arrays, Cached, Info, Source, cached, labels
from canon.data.text import Alphabet

__all__ = [
    'OWN', 'Alphabet', 'Arrays', 'Batches', 'Cached', 'Fake', 'Generated', 'Info', 'Key', 'Mapped', 'Once', 'Source',
    'Transform', 'balanced', 'cached', 'files', 'in_order', 'labels', 'load', 'order', 'rng', 'shuffled', 'transforms',
]  # fmt: skip
