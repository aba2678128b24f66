"""Data on the host: sources of examples, transforms, batches by number. Knows no model and imports no jax.

Names load on first use: what reads arrays must not wait for OpenCV, or need it.
"""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use

if TYPE_CHECKING:
    from canon.data import detection, domains, images, pipeline, scenes, text, tracking, transforms
    from canon.data.detection.sized_batches import SizedBatches, evaluate_by_size
    from canon.data.detection.tfds_boxes import load_boxes
    from canon.data.images import image_files
    from canon.data.pipeline import order, splits
    from canon.data.pipeline.batches import Batches, Once
    from canon.data.pipeline.chain import Mapped, Transform
    from canon.data.pipeline.keys import Key, rng
    from canon.data.pipeline.loading import DATA_SETS, is_own, load_source
    from canon.data.pipeline.mixing import Concatenated, Interleaved, Zipped
    from canon.data.pipeline.order import balanced, in_order, shuffled
    from canon.data.pipeline.source import Arrays, Cached, Info, Source, Subset, cache_if_small, labels
    from canon.data.pipeline.synthetic import Generated, fake
    from canon.data.scenes import meshes, shapes, views
    from canon.data.text import corpora, parallel_text, vocabulary
    from canon.data.text.alphabets import Alphabet
    from canon.data.text.parallel_text import Buckets, BucketsOnce, Pairs
    from canon.data.text.streams import Streams, StreamsOnce
    from canon.data.text.vocabulary import Vocabulary

__all__ = [
    'DATA_SETS', 'Alphabet', 'Arrays', 'Batches', 'Buckets', 'BucketsOnce', 'Cached', 'Concatenated', 'Generated',
    'Info', 'Interleaved', 'Key', 'Mapped', 'Once', 'Pairs', 'SizedBatches', 'Source', 'Streams', 'StreamsOnce',
    'Subset', 'Transform', 'Vocabulary', 'Zipped', 'balanced', 'cache_if_small', 'corpora', 'detection', 'domains',
    'evaluate_by_size', 'fake', 'image_files', 'images', 'in_order', 'is_own', 'labels', 'load_boxes', 'load_source',
    'meshes', 'order', 'parallel_text', 'pipeline', 'rng', 'scenes', 'shapes', 'shuffled', 'splits', 'text', 'tracking',
    'transforms', 'views', 'vocabulary',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
