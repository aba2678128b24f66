"""Data on the host: sources of examples, transforms, batches by number. Knows no model and imports no jax."""

from canon.data import corpora, files, meshes, order, parallel, shapes, splits, transforms, views, vocabulary
from canon.data.batches import Batches, Once
from canon.data.chain import Mapped, Transform
from canon.data.keys import Key, rng
from canon.data.loading import OWN, load
from canon.data.made import Fake, Generated
from canon.data.order import balanced, in_order, shuffled
from canon.data.parallel import Buckets, BucketsOnce, Pairs
from canon.data.source import Arrays, Cached, Info, Source, cached, labels
from canon.data.streams import Streams, StreamsOnce
from canon.data.text import Alphabet
from canon.data.vocabulary import Vocabulary

__all__ = [
    'OWN', 'Alphabet', 'Arrays', 'Batches', 'Buckets', 'BucketsOnce', 'Cached', 'Fake', 'Generated', 'Info', 'Key',
    'Mapped', 'Once', 'Pairs', 'Source', 'Streams', 'StreamsOnce', 'Transform', 'Vocabulary', 'balanced', 'cached',
    'corpora', 'files', 'in_order', 'labels', 'load', 'meshes', 'order', 'parallel', 'rng', 'shapes',
    'shuffled', 'splits', 'transforms', 'views', 'vocabulary',
]  # fmt: skip
