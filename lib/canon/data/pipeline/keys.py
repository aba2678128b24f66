"""Random generators: streams by name, and one stream per example for its augmentation.

The augmentation of an example is a function of the seed, the visit and the example alone, so neither the threads, the
hosts nor the rest of the batch change it. Philox counts in 256 bits; visit and example are written into the upper half
of its counter, seed and link into its key, so no two streams overlap and nothing needs hashing.
"""

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from canon.errors import CanonError
from canon.named import suggest

# The random streams that do not belong to one example. A stream's number goes into its seed, so a new stream takes
# the next free number, and a number never changes: it would change every run that draws from the stream.
STREAMS = {
    'shuffled order': 0,  # of (seed, epoch)
    'balanced rounds': 1,  # of (seed, stretch)
    'balanced groups': 2,  # of (seed, group, cycle)
    'window lengths': 3,  # of (seed, epoch)
    'interleaved turns': 4,  # of (seed, epoch)
    'rays': 5,  # of (seed, step, 0)
    # Of (seed, step, row), and what is drawn once per run: of (seed, shape) and of (seed,). Since trailing zeros do not
    # count, the pool of shape n and row 0 of step n begin with the same bits; a stream of its own for pools would be
    # cleaner, but would change every run that learns shapes.
    'shape batches': 6,
    'shape observations': 7,  # of (shape,): what an evaluator shows of a held-out shape
    'shape surfaces': 8,  # of (shape,): the points at which meshes are compared
    'shape volumes': 9,  # of (): the points at which an extracted mesh is scored
    'volume pixels': 10,  # of (seed, step)
    'interleaved draws': 11,  # of (seed, block)
    'digit scenes': 12,  # of (seed, split, scene)
    'region batches': 13,  # of (seed, step)
    'rendered words': 14,  # of (seed,): the seed of the keys of all words
    'digit sequences': 15,  # of (seed, split, sequence)
    'sequence frames': 16,  # of (seed, split, sequence, frame): the noise of a picture
    'sequence detections': 17,  # of (seed, split, sequence, frame)
    'class groups': 18,  # of (seed, step)
    'association pairs': 19,  # of (seed, step)
    'domain splits': 20,  # of (seed, which division)
    'rendered digits': 21,  # of (split, digit)
    'coloured digits': 22,  # of (seed, domain)
}
_MASK = (1 << 64) - 1
_local = threading.local()


class Key(NamedTuple):
    """Identifies the randomness of one link of a chain of transforms, for one example on one visit."""

    seed: int  # of the run
    visit: int  # how often the example was drawn before
    id: int  # index in the source
    link: int = 0  # number of the random transform in its chain


def stream(name: str, *numbers: int) -> np.random.Generator:
    """Returns a generator of the random stream `name` (a key of `STREAMS`), at `numbers`, usually (seed, step).

    Streams of different names are independent of each other. Numbers must not be negative, and trailing zeros do not
    count: `stream(name, 1)` and `stream(name, 1, 0)` draw the same (numpy's SeedSequence pads with zeros).

    Raises CanonError for a name that is not registered.
    """
    if name not in STREAMS:
        raise CanonError(
            f'there is no random stream {name!r}{suggest(name, STREAMS)}; register it in {__name__}.STREAMS'
        )
    return np.random.default_rng((STREAMS[name], *numbers))


def rng(key: Key) -> np.random.Generator:
    """Returns a new generator for `key`, in 11 us; `default_rng((seed, visit, id))` takes 20."""
    return np.random.Generator(np.random.Philox(**_words(key)))


def borrowed_rng(key: Key) -> np.random.Generator:
    """Returns the stream of `rng(key)` in 2 us: the thread's only generator, valid until it is borrowed again."""
    if not hasattr(_local, 'generator'):
        _local.bits = np.random.Philox(key=0)
        _local.generator = np.random.Generator(_local.bits)
        _local.state = _local.bits.state | {'buffer_pos': 4, 'has_uint32': 0, 'uinteger': 0}
        _local.state['state'] = _words(key)
    # The arrays are written in place: making them takes longer than all the rest.
    seed, visit, example, link = key
    words = _local.state['state']
    words['key'][0], words['key'][1] = seed & _MASK, link
    words['counter'][2], words['counter'][3] = visit, example
    _local.bits.state = _local.state
    return _local.generator


def uniforms(keys: Sequence[Key], count: int) -> np.ndarray:
    """Returns float64 [len(keys), count] in [0, 1): of each key the first numbers that `rng(key).random()` gives."""
    out = np.empty((len(keys), count))
    for row, key in zip(out, keys, strict=True):
        borrowed_rng(key).random(out=row)
    return out


def _words(key: Key) -> dict[str, np.ndarray]:
    seed, visit, example, link = key
    return {
        'key': np.array((seed & _MASK, link), np.uint64),
        'counter': np.array((0, 0, visit, example), np.uint64),
    }
