"""Parallel text for translation: sentences with their translations, as text, as numbers, as batches by length."""

from __future__ import annotations

import copy
import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Annotated, Any

import numpy as np

from canon import named
from canon.data.pipeline import splits
from canon.data.pipeline.batches import Batch, Batches, Once
from canon.data.pipeline.mixing import Interleaved
from canon.data.pipeline.source import Example, Info
from canon.data.text import catalogues, text_files
from canon.data.text.vocabulary import Vocabulary
from canon.errors import CanonError, UsageError

Sentences = list[tuple[str, str]]
LONGER = ('skip', 'cut', 'refuse')


PARALLEL_TEXTS = named.Catalogue(
    'parallel text',
    ('canon.data.text',),
    lambda function: named.returns(function) == Sentences and named.accepts(function, 'split'),
)


def load(name: str, split: str = 'train', data_dir: str | os.PathLike | None = None, **kwargs: Any) -> Sentences:
    """Loads the sentence pairs (source, target) of one split.

    Args:
      name: of a public function of `canon.data.text` that takes `split` and returns `Sentences`: 'files' (path=,
        source=, target=) or 'catalogue' (package=, language=; embedded). 'package.module:function' is such a function
        of any other module. All other names are those of TFDS sets of translations, prepared in array_record:
        'wmt14_translate/de-en', with source=, target=.
      split: may be sliced, 'train[:1000]'.
      data_dir: of TFDS sets; `~/tensorflow_datasets` if None.
      kwargs: further arguments of the function.

    Raises UsageError for what does not exist, CanonError for files that cannot be read.
    """
    base, first, last = splits.parse(split)
    function = PARALLEL_TEXTS.get(name)
    if function is None:
        return named.call(tfds, {'name': name, 'split': split, 'data_dir': data_dir, **kwargs}, f'data {name!r}')
    pairs = named.call(function, {'split': base, **kwargs}, f'data {name!r}')
    part = pairs[splits.bounds(first, last, len(pairs))]
    if not part:
        raise UsageError(f'data {name!r} has no sentences in {split!r}')
    return part


def files(path: str, source: str, target: str, split: str = 'train') -> Sentences:
    """Two files line by line, `path/<split>.<source>` and `path/<split>.<target>`, plain or .gz: train.de, train.en.

    Pairs with an empty side are left out and counted in a warning. Raises UsageError for a missing or empty file,
    CanonError for files of different length, with both counts, and for what is no UTF-8.
    """
    root = text_files.named_path(path)
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}')
    sides = [text_files.either(text_files.named_path(root / f'{split}.{language}')) for language in (source, target)]
    for file in sides:
        if not file.is_file():
            there = [p.name.removesuffix('.gz') for p in root.iterdir()]
            raise UsageError(f'{root} has no {file.name}{named.suggest(file.name, there)}')
    rows = list(zip_longest(*map(text_files.lines, sides)))
    counts = [sum(row[i] is not None for row in rows) for i in (0, 1)]
    if counts[0] != counts[1]:
        raise CanonError(
            f'{sides[0]} has {counts[0]} lines and {sides[1]} {counts[1]}; parallel text has as many in both'
        )
    found = [(a.strip(), b.strip()) for a, b in rows if a.strip() and b.strip()]
    if len(found) < len(rows):
        log = logging.getLogger('canon')
        log.warning(
            '%s: %d of %d pairs have an empty side and are left out', sides[0], len(rows) - len(found), len(rows)
        )
    return found


def catalogue(
    package: str = 'jupyterlab-language-pack-fr-FR',
    language: str = 'fr_FR',
    split: str = 'train',
    domain: str | None = None,
    accelerators: str = '',
) -> Sentences:
    """English to `language` from the gettext catalogues of an installed package: real sentences without a download.

    package: as pip calls it. language: as its folder ('de', 'pt_BR'). domain: one of its catalogues; None is all.
    accelerators: signs that underline the key of a menu, as '_' of GTK: see `catalogues.pairs`.
    A pair's split is decided by the hash of its English letters and digits in lower case (`part`), so that neither a
    sentence nor its twin with another sign ('Edit', 'Edit...') stands in two: 85 % train, 5 % valid, 10 % test.

    The default is what JupyterLab and its extensions say (BSD licence, 0.2 MB, no dependencies). Version 4.5.post3 has
    3,236 different sentences of 107,513 characters, 2,744 to train, 173 and 319 held out; 3,101 have at most 20 words
    on both sides, 445 have one, 192 are spelt the same.
    A larger one is gramps, a program for genealogy in 40 languages (GPL, 53 MB, accelerators='_'): version 6.0.8 has
    7,012 in French, 7,017 in German.
    """
    if split not in ('train', 'valid', 'test'):
        raise UsageError(f'data catalogue has no split {split!r}{named.suggest(split, ("train", "valid", "test"))}')
    return [pair for pair in _catalogue(package, language, domain, accelerators) if part(pair[0]) == split]


@functools.cache  # three splits are one reading and one warning
def _catalogue(package: str, language: str, domain: str | None, accelerators: str) -> Sentences:
    found = catalogues.installed(package, language, domain)
    return catalogues.pairs(found, accelerators, f'{package} {language}')


def part(sentence: str) -> str:
    """'train', 'valid' or 'test': 85 %, 5 % and 10 % of all sentences, equal for those that differ in signs only."""
    letters = re.sub(r'[\W_]+', ' ', sentence.lower()).strip()
    place = int.from_bytes(hashlib.sha256((letters or sentence).encode()).digest()[:8], 'big') % 20
    return 'test' if place < 2 else 'valid' if place < 3 else 'train'


def tfds(
    name: str, source: str, target: str, split: str = 'train', data_dir: str | os.PathLike | None = None
) -> Sentences:
    """The fields `source` and `target` ('de', 'en') of one split of a TFDS set: 'wmt14_translate/de-en'."""
    from canon.data.pipeline import tfds  # brings tensorflow_datasets: 0.6 s

    directory = tfds.resolve_dir(data_dir)
    records = tfds.read(name, split, directory)
    for field in (source, target):
        if field not in records.features:
            raise UsageError(f'data {name!r} has no field {field!r}{named.suggest(field, records.features)}')
    rows = (records[i] for i in range(len(records)))
    return [(str(row[source]), str(row[target])) for row in rows]


class Pairs:
    """Sentence pairs as numbers: a source of examples of one shape.

    source: int32 [S], of which source_length int32 count; target: int32 [T], target_length. Both end with <eos>, then
    comes <pad> (0 where a vocabulary has none). S and T are `max_length`, or those of a bucket.
    """

    in_memory = True

    def __init__(
        self,
        sentences: Sequence[tuple[str, str]],
        source: Vocabulary,
        target: Vocabulary,
        max_length: int = 50,
        longer: str = 'skip',
        info: Info = Info(),
    ):
        """
        Args:
          max_length: tokens of a sentence on either side, <eos> included.
          longer: what becomes of pairs with a longer side: 'skip' leaves them out (`skipped` counts them), 'cut' takes
            their first max_length - 1 tokens and <eos> (`cut` counts them), both with a warning; 'refuse' is an error.

        Raises UsageError for vocabularies without <eos>, no pairs, an unknown `longer`, CanonError for a refused pair.
        """
        if longer not in LONGER:
            raise UsageError(f'longer={longer!r} is none of {", ".join(map(repr, LONGER))}')
        if source.eos is None or target.eos is None:
            raise UsageError("vocabularies of translation need '<eos>' among their specials")
        if max_length < 2:
            raise UsageError(f'max_length={max_length} holds no word and its <eos>')
        self.vocabularies, self.max_length, self.info = (source, target), max_length, info
        self.shape = (max_length, max_length)
        encoded = [
            (np.append(source.encode(a), source.eos), np.append(target.encode(b), target.eos)) for a, b in sentences
        ]
        over = [max(len(a), len(b)) > max_length for a, b in encoded]
        if longer == 'refuse' and any(over):
            i = over.index(True)
            a, b = map(len, encoded[i])
            raise CanonError(
                f'pair {i + 1}, {sentences[i][0][:40]!r}, has {a} and {b} tokens, more than max_length={max_length};'
                " raise it, or say longer='skip'"
            )
        self.skipped = sum(over) if longer == 'skip' else 0
        self.cut = sum(over) if longer == 'cut' else 0
        kept = [i for i, long in enumerate(over) if not (long and longer == 'skip')]
        self.sentences = [sentences[i] for i in kept]
        self._tokens = [tuple(_shorten(side, max_length) for side in encoded[i]) for i in kept]
        if any(over):
            log = logging.getLogger('canon')
            done = 'left out' if self.skipped else 'cut'
            log.warning('%d of %d pairs are longer than max_length=%d and %s', sum(over), len(over), max_length, done)
        if not kept:
            raise UsageError(f'none of {len(over)} sentence pairs has at most max_length={max_length} tokens')

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> Example:
        example: Example = {}
        rows = zip(('source', 'target'), self._tokens[index], self.vocabularies, self.shape, strict=True)
        for name, tokens, vocabulary, size in rows:
            padded = np.full(size, vocabulary.pad or 0, np.int32)
            padded[: len(tokens)] = tokens
            example |= {name: padded, f'{name}_length': np.int32(len(tokens))}
        return example

    def lengths(self) -> np.ndarray:
        """int [n, 2]: tokens of source and target, <eos> included."""
        return np.array([[len(a), len(b)] for a, b in self._tokens])

    def buckets(self, bounds: Sequence[int]) -> list[Pairs]:
        """The pairs by their longer side: up to bounds[0], up to bounds[1], ..., each with that shape; no empty ones.

        Raises UsageError for bounds that do not rise or leave out the longest pair.
        """
        bounds = list(bounds)
        longest = self.lengths().max(1)
        if not bounds or bounds != sorted(set(bounds)) or bounds[-1] < longest.max():
            raise UsageError(f'buckets={tuple(bounds)} must rise to the longest pair, {longest.max()} tokens')
        places = np.searchsorted(bounds, longest)
        return [self._part(np.flatnonzero(places == i), bound) for i, bound in enumerate(bounds) if (places == i).any()]

    def _part(self, ids: np.ndarray, bound: int) -> Pairs:
        part = object.__new__(Pairs)
        part.vocabularies, part.max_length, part.info = self.vocabularies, bound, self.info
        part.shape, part.skipped, part.cut = (bound, bound), 0, 0
        part.sentences = [self.sentences[i] for i in ids]
        part._tokens = [self._tokens[i] for i in ids]
        return part

    def __repr__(self) -> str:
        return f'Pairs({self.info.name}, {self.info.split}, {len(self)} pairs of at most {self.max_length} tokens)'


class Buckets(Interleaved):
    """Training batches without end, each of one bucket: few shapes, little padding. A function of (seed, step) alone.

    An epoch has ceil(n_k / B) batches of the k-th bucket, in an order drawn again each epoch; each bucket walks through
    its own permutations as `Batches` does, so a pair is drawn at most once more than another of its bucket.
    """

    def __init__(
        self,
        parts: Sequence[Pairs],
        batch_size: named.Count | None = None,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        threads: Annotated[int, named.Range(0)] = 2,
        tokens: named.Count | None = None,
        multiple: named.Count = 8,
    ):
        """
        Args:
          parts: of `Pairs.buckets`.
          batch_size: pairs per batch, of all processes together; or else
          tokens: places of a batch on either side, so that a bucket of short pairs has more of them: tokens // bound,
            rounded down to a multiple of `multiple`, which the devices must divide, and at least that.

        Raises UsageError for both or neither of the two, and as `Batches` does.
        """
        if (batch_size is None) == (tokens is None):
            raise UsageError(f'batch_size={batch_size} and tokens={tokens}: batches are of one or of the other')
        rows = [batch_size or max((tokens or 0) // part.max_length // multiple * multiple, multiple) for part in parts]
        data = [Batches(part, b, seed, shard=shard, threads=0) for part, b in zip(parts, rows, strict=True)]
        steps = [-(-len(part) // b) for part, b in zip(parts, rows, strict=True)]
        mean = sum(n * b for n, b in zip(steps, rows, strict=True)) / sum(steps)
        size = batch_size or max(round(mean / multiple), 1) * multiple  # about; an epoch is exact
        super().__init__(data, seed=seed, shuffled=True, batch_size=size, threads=threads)


class BucketsOnce:
    """Each pair once, bucket after bucket, for evaluation; 'mask' as in `Once`."""

    def __init__(self, parts: Sequence[Pairs], batch_size: int, shard=(0, 1)):
        self.parts = [Once(part, batch_size, shard=shard, threads=0) for part in parts]
        self.batch_size, self.num_examples = batch_size, sum(len(part) for part in parts)

    def for_process(self, index: int, count: int) -> BucketsOnce:
        """Returns the same data whose batches hold only the rows of process `index` of `count`."""
        part = copy.copy(self)
        part.parts = [each.for_process(index, count) for each in self.parts]
        return part

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Batch:
        for part in self.parts:
            if 0 <= index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(f'batch {index} beyond the last')

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        return (self[i] for i in range(start, len(self)))


def _shorten(tokens: np.ndarray, max_length: int) -> np.ndarray:
    """The first max_length - 1 tokens and the last, which is <eos>."""
    return tokens if len(tokens) <= max_length else np.append(tokens[: max_length - 1], tokens[-1])
