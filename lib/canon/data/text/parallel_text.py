"""Parallel text for translation: sentence pairs as text, as tokens of two vocabularies, and as batches by length."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from canon import named
from canon.data.pipeline import splits
from canon.data.pipeline.batches import Batches, Once
from canon.data.pipeline.mixing import Concatenated, Interleaved
from canon.data.pipeline.source import Example, Info
from canon.data.text import catalogues, text_files, vocabulary
from canon.data.text.vocabulary import Vocabulary
from canon.errors import CanonError, UsageError
from canon.progress import show_progress

Sentences = list[tuple[str, str]]
LONGER = ('skip', 'cut', 'refuse')

PARALLEL_TEXTS = named.Catalogue(
    'parallel text',
    ('canon.data.text',),
    lambda function: named.get_return_type(function) == Sentences and named.accepts(function, 'split'),
)


def load_pairs(name: str, split: str = 'train', data_dir: str | os.PathLike | None = None, **kwargs: Any) -> Sentences:
    """Loads the sentence pairs (source, target) of one split.

    Args:
      name: of a public function of `canon.data.text` that takes `split` and returns `Sentences`: 'files' (path=,
        source=, target=) or 'catalogue' (package=, language=; embedded). 'package.module:function' is such a function
        of any other module. All other names are those of TFDS sets of translations, prepared in array_record:
        'wmt14_translate/de-en', with source=, target=.
      split: may be sliced, 'train[:1000]'.
      data_dir: of TFDS sets; `~/tensorflow_datasets` if None.
      **kwargs: further arguments of the function.

    Raises:
      UsageError: the data do not exist, or the split is empty.
      CanonError: a file cannot be read.
    """
    base, first, last = splits.parse_split(split)
    function = PARALLEL_TEXTS.get(name)
    if function is None:
        return named.call(tfds_pairs, {'name': name, 'split': split, 'data_dir': data_dir, **kwargs}, f'data {name!r}')
    pairs = named.call(function, {'split': base, **kwargs}, f'data {name!r}')
    part = pairs[splits.to_slice(first, last, len(pairs))]
    if not part:
        raise UsageError(f'data {name!r} has no sentences in {split!r}')
    return part


def check_held_out_sentences(train: str, split: str, where: str, **arguments: Any) -> None:
    """Raises UsageError if the split of an evaluator shares sentences with the training split.

    where: the evaluator's section of the config. **arguments: of `load_pairs`, except for the split.
    """
    if share_sentences(train, split, **arguments):
        raise UsageError(
            f'{where}.split={split!r} shares sentences with data.train.split={train!r}: hold some out, as'
            f" 'train[:90%]' and 'train[90%:]', or say {where}.trained_on=True"
        )


def share_sentences(
    first: str, second: str, name: str, data_dir: str | os.PathLike | None = None, **kwargs: Any
) -> bool:
    """Whether two splits of the data `name` share sentence pairs; the other arguments are those of `load_pairs`."""
    if splits.share_examples(first, second, None):
        return True
    (base, _, slice1), (other, _, slice2) = first.partition('['), second.partition('[')
    # Counting may open a large set, so it is done only for slices by numbers of the same split.
    counted = [place for place in re.findall(r'-?\d+%?', slice1 + slice2) if not place.endswith('%')]
    if base != other or not counted:  # slices by percentages compare without the number of pairs
        return False
    own = PARALLEL_TEXTS.get(name) is not None
    total = len(load_pairs(name, base, data_dir, **kwargs)) if own else len(_open_tfds(name, base, data_dir))
    return splits.share_examples(first, second, total)


def files(path: str, source: str, target: str, split: str = 'train') -> Sentences:
    """Reads two parallel files, `path/<split>.<source>` and `path/<split>.<target>`, plain or .gz: train.de, train.en.

    Pairs with an empty side are left out and counted in a warning.

    Args:
      path: the folder.
      source: the ending of the source files, as 'de'.
      target: the ending of the target files, as 'en'.
      split: the name of both files without the ending.

    Raises:
      UsageError: a file is missing or empty.
      CanonError: the files differ in length, or are not UTF-8.
    """
    root = text_files.require_folder(path)
    sides = [
        text_files.find_compressed(text_files.expand_path(root / f'{split}.{language}'))
        for language in (source, target)
    ]
    for file in sides:
        if not file.is_file():
            names = [p.name.removesuffix('.gz') for p in root.iterdir()]
            raise UsageError(f'{root} has no {file.name}{named.suggest(file.name, names)}')
    # A missing line is None: files of different lengths are not parallel from some line on, and must not be cut to fit.
    rows = list(zip_longest(*map(text_files.read_lines, sides)))
    counts = [sum(row[i] is not None for row in rows) for i in (0, 1)]
    if counts[0] != counts[1]:
        raise CanonError(
            f'{sides[0]} has {counts[0]} lines and {sides[1]} {counts[1]}; parallel files have equally many'
        )
    pairs = [(a.strip(), b.strip()) for a, b in rows if a.strip() and b.strip()]
    if len(pairs) < len(rows):
        log = logging.getLogger('canon')
        log.warning(
            '%s: %d of %d pairs have an empty side and are left out', sides[0], len(rows) - len(pairs), len(rows)
        )
    return pairs


def catalogue(
    package: str = 'jupyterlab-language-pack-fr-FR',
    language: str = 'fr_FR',
    split: str = 'train',
    domain: str | None = None,
    accelerators: str = '',
) -> Sentences:
    """Reads English messages and their translations from an installed package: real sentences without a download.

    A hash of the English letters and digits in lower case decides the split of a pair (`assign_split`), so that
    sentences that differ only in punctuation ('Edit', 'Edit...') are in the same split: 85 % train, 5 % valid, 10 %
    test.

    The default is the French interface of JupyterLab and its extensions (BSD licence, 0.2 MB, no dependencies). Version
    4.5.post3 has 3,236 different sentences of 107,513 characters, 2,744 to train, 173 and 319 held out; 3,101 have at
    most 20 words on both sides, 445 have one word, 192 are spelt the same in both languages. A larger package is
    gramps, a program for genealogy in 40 languages (GPL, 53 MB, accelerators='_'): version 6.0.8 has 7,012 sentences in
    French and 7,017 in German.

    Args:
      package: the name by which pip installs it.
      language: the name of its folder in the package: 'de', 'pt_BR'.
      split: 'train', 'valid' or 'test'.
      domain: one of its catalogues; None takes all.
      accelerators: characters that mark the access key of a menu entry, '_' in GTK: see `catalogues.read_pairs`.

    Raises:
      UsageError: the package is not installed, or has no such catalogue.
    """
    if split not in ('train', 'valid', 'test'):
        raise UsageError(f'data catalogue has no split {split!r}{named.suggest(split, ("train", "valid", "test"))}')
    return [pair for pair in _catalogue(package, language, domain, accelerators) if assign_split(pair[0]) == split]


@functools.cache  # three splits are one reading and one warning
def _catalogue(package: str, language: str, domain: str | None, accelerators: str) -> Sentences:
    paths = catalogues.find_installed(package, language, domain)
    return catalogues.read_pairs(paths, accelerators, f'{package} {language}')


def assign_split(sentence: str) -> str:
    """Returns 'train', 'valid' or 'test' for 85 %, 5 % and 10 % of all sentences, by a hash of letters and digits."""
    # A hash and not the position, so that a new version of the package leaves sentences in their splits.
    letters = re.sub(r'[\W_]+', ' ', sentence.lower()).strip()
    bucket = int.from_bytes(hashlib.sha256((letters or sentence).encode()).digest()[:8], 'big') % 20
    return 'test' if bucket < 2 else 'valid' if bucket < 3 else 'train'


def tfds_pairs(
    name: str, source: str, target: str, split: str = 'train', data_dir: str | os.PathLike | None = None
) -> Sentences:
    """Reads the fields `source` and `target` ('de', 'en') of one split of a TFDS set: 'wmt14_translate/de-en'."""
    records = _open_tfds(name, split, data_dir)
    for field in (source, target):
        if field not in records.features:
            raise UsageError(f'data {name!r} has no field {field!r}{named.suggest(field, records.features)}')
    rows = (records[i] for i in range(len(records)))
    return [(str(row[source]), str(row[target])) for row in rows]


def _open_tfds(name: str, split: str, data_dir: str | os.PathLike | None) -> Any:
    from canon.data.pipeline import tfds  # imports tensorflow_datasets: 0.6 s

    return tfds.open_prepared(name, split, tfds.resolve_dir(data_dir))


class Languages(NamedTuple):
    """The vocabularies of both languages; the same one twice if they share it."""

    source: Vocabulary
    target: Vocabulary

    @property
    def first_token(self) -> int:
        """The decoder's input before the first token: <bos>, or <eos> in a vocabulary without it."""
        first = self.target.bos if self.target.bos is not None else self.target.eos
        if first is None:
            raise UsageError("vocabularies of translation need '<eos>' among their specials")
        return first

    @property
    def source_size(self) -> int | None:
        """Tokens of the source vocabulary, None if it is also the target's: `source_vocab` of a translation model."""
        return None if self.source == self.target else len(self.source)


def build_languages(
    pairs: Iterable[tuple[str, str]], shared: bool = False, path: str | os.PathLike | None = None, **settings: Any
) -> Languages:
    """Builds the vocabularies of both languages, or reads them from files.

    The same pairs give the same vocabularies, and files are written atomically. Several processes may therefore be
    given the same path at once: whether one builds or reads what another has built makes no difference.

    Args:
      pairs: sentences to train on; not iterated over if the vocabularies are read.
      shared: builds one vocabulary of both languages.
      path: a file, for two vocabularies `path.source` and `path.target`; read if they exist, and else written.
      **settings: arguments of `canon.data.text.vocabulary.build`.

    Raises:
      UsageError: an argument does not fit.
      CanonError: a file is not a vocabulary.
    """
    paths = [] if path is None else [Path(path).expanduser()]
    if paths and not shared:
        paths = [paths[0].with_name(f'{paths[0].name}.{side}') for side in ('source', 'target')]
    if paths and all(file.is_file() for file in paths):
        sides = [vocabulary.read_vocabulary(file) for file in paths]
        return Languages(sides[0], sides[-1])  # one file, if they share it
    pairs = list(pairs)  # iterated over twice, and perhaps a generator
    texts = [[text for pair in pairs for text in pair]] if shared else [list(side) for side in zip(*pairs, strict=True)]
    arguments = {'specials': vocabulary.PAIR_SPECIALS, **settings}
    sides = [named.call(vocabulary.build, {'lines': lines, **arguments}, 'vocabulary') for lines in texts]
    for file, side in zip(paths, sides, strict=bool(paths)):
        file.parent.mkdir(parents=True, exist_ok=True)
        side.save(file)
    return Languages(sides[0], sides[-1])


class Pairs:
    """Sentence pairs as tokens: a source of examples of one shape.

    An example has source int32 [S] and target int32 [T], of which the first source_length and target_length (int32)
    count. Both end with <eos>, followed by <pad> (0 in a vocabulary without it). S and T are `max_length`, or the bound
    of a bucket.
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
        """Encodes the sentences.

        Args:
          sentences: pairs of text.
          source: vocabulary of the first language.
          target: vocabulary of the second language.
          max_length: tokens of a sentence on either side, <eos> included.
          longer: how pairs with a longer side are treated: 'skip' leaves them out (`skipped` counts them), 'cut' takes
            their first max_length - 1 tokens and <eos> (`cut` counts them), both with a warning; 'refuse' raises.
          info: name and split, for messages.

        Raises:
          UsageError: a vocabulary has no <eos>, no pair is short enough, or `longer` is unknown.
          CanonError: a pair is refused.
        """
        if longer not in LONGER:
            raise UsageError(f'longer={longer!r} is none of {", ".join(map(repr, LONGER))}')
        if source.eos is None or target.eos is None:
            raise UsageError("vocabularies of translation need '<eos>' among their specials")
        if max_length < 2:
            raise UsageError(f'max_length={max_length} must be at least 2, for a word and <eos>')
        self.vocabularies, self.max_length, self.info = (source, target), max_length, info
        self.shape = (max_length, max_length)
        encoded = [
            (np.append(source.encode(a), source.eos), np.append(target.encode(b), target.eos))
            for a, b in show_progress(sentences, 'encoding', 'pair')
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
        kept_ids = [i for i, long in enumerate(over) if not (long and longer == 'skip')]
        self.sentences = [sentences[i] for i in kept_ids]
        self._tokens = [tuple(_shorten(side, max_length) for side in encoded[i]) for i in kept_ids]
        if any(over):
            log = logging.getLogger('canon')
            result = 'left out' if self.skipped else 'cut'
            log.warning('%d of %d pairs are longer than max_length=%d and %s', sum(over), len(over), max_length, result)
        if not kept_ids:
            raise UsageError(f'none of {len(over)} sentence pairs has at most max_length={max_length} tokens')

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> Example:
        example: Example = {}
        rows = zip(('source', 'target'), self._tokens[index], self.vocabularies, self.shape, strict=True)
        for name, tokens, words, size in rows:
            padded = np.full(size, words.pad or 0, np.int32)
            padded[: len(tokens)] = tokens
            example |= {name: padded, f'{name}_length': np.int32(len(tokens))}
        return example

    def lengths(self) -> np.ndarray:
        """Returns the tokens of each source and target, <eos> included: int [n, 2]."""
        return np.array([[len(a), len(b)] for a, b in self._tokens])

    def buckets(self, bounds: Sequence[int]) -> list[Pairs]:
        """Groups the pairs by their longer side: up to bounds[0], up to bounds[1], ..., each padded to its bound.

        Empty groups are left out. Raises UsageError for bounds that do not rise, or are all below the longest pair.
        """
        bounds = list(bounds)
        longest = self.lengths().max(1)
        if not bounds or bounds != sorted(set(bounds)) or bounds[-1] < longest.max():
            raise UsageError(f'buckets={tuple(bounds)} must rise to the longest pair, {longest.max()} tokens')
        # The first bound that is at least the length.
        groups = np.searchsorted(bounds, longest)
        return [self._select(np.flatnonzero(groups == i), b) for i, b in enumerate(bounds) if (groups == i).any()]

    def _select(self, ids: np.ndarray, bound: int) -> Pairs:
        # Without `__init__`: the sentences are encoded already.
        part = object.__new__(Pairs)
        part.vocabularies, part.max_length, part.info = self.vocabularies, bound, self.info
        part.shape, part.skipped, part.cut = (bound, bound), 0, 0
        part.sentences = [self.sentences[i] for i in ids]
        part._tokens = [self._tokens[i] for i in ids]
        return part

    def __repr__(self) -> str:
        return f'Pairs({self.info.name}, {self.info.split}, {len(self)} pairs of at most {self.max_length} tokens)'


class Buckets(Interleaved):
    """Endless training batches, each of one bucket: few shapes and little padding. A function of (seed, step) alone.

    An epoch has ceil(n_k / B) batches of the k-th bucket, in an order drawn again each epoch; each bucket walks through
    its own permutations as `Batches` does, so a pair is drawn at most once more than another of its bucket.
    """

    def __init__(
        self,
        parts: Sequence[Pairs],
        batch_size: named.Count | None = None,
        seed: int = 0,
        threads: Annotated[int, named.Range(0)] = 2,
        tokens: named.Count | None = None,
        multiple: named.Count = 8,
    ):
        """Groups pairs into batches, by their number or by their tokens.

        Args:
          parts: of `Pairs.buckets`.
          batch_size: pairs per batch, of all processes together.
          seed: of the order.
          threads: that prepare batches in the background.
          tokens: instead of batch_size, tokens per batch on either side, padding included: a bucket then has
            tokens // bound pairs per batch.
          multiple: by which numbers of pairs that `tokens` decides are divisible (rounded down, but at least this); the
            number of devices must divide it.

        Raises:
          UsageError: both or neither of batch_size and tokens are given, or as in `Batches`.
        """
        if (batch_size is None) == (tokens is None):
            raise UsageError(f'batch_size={batch_size} and tokens={tokens}: batches are of one or of the other')
        # By `tokens`: of shorter sentences more, so that a step takes about the same time and memory in every bucket.
        rows = [batch_size or max((tokens or 0) // part.max_length // multiple * multiple, multiple) for part in parts]
        # `Interleaved` prepares whole batches ahead, so the buckets need no threads of their own.
        data = [Batches(part, b, seed, threads=0) for part, b in zip(parts, rows, strict=True)]
        steps = [-(-len(part) // b) for part, b in zip(parts, rows, strict=True)]
        mean = sum(n * b for n, b in zip(steps, rows, strict=True)) / sum(steps)
        size = batch_size or max(round(mean / multiple), 1) * multiple  # an average; steps per epoch are exact
        super().__init__(data, seed=seed, shuffled=True, batch_size=size, threads=threads)


def group_by_length(
    sentences: Sequence[tuple[str, str]],
    languages: Languages,
    buckets: tuple[named.Count, ...],
    longer: str = 'skip',
    where: str = 'buckets',
) -> tuple[list[Pairs], dict[str, int]]:
    """Encodes sentences and groups them by length, for `Buckets` and `BucketsOnce`.

    Args:
      sentences: pairs of text.
      languages: their vocabularies.
      buckets: the longest side of the pairs in each group, in tokens with <eos>.
      longer: how pairs beyond the last bucket are treated, as of `Pairs`.
      where: name of `buckets` in messages.

    Returns:
      the groups, and {'train': the number of pairs, 'longer': those that were left out or cut}.

    Raises:
      UsageError: the buckets do not rise, or as in `Pairs`.
    """
    if not buckets or list(buckets) != sorted(set(buckets)):
        raise UsageError(f'{where}={tuple(buckets)} must be lengths that rise, such as (10, 24)')
    pairs = Pairs(sentences, *languages, max_length=buckets[-1], longer=longer)
    return pairs.buckets(buckets), dict(train=len(pairs), longer=pairs.skipped + pairs.cut)


class BucketsOnce(Concatenated):
    """Evaluation batches: each pair once, bucket after bucket; 'mask' as in `Once`."""

    def __init__(self, parts: Sequence[Pairs], batch_size: int):
        super().__init__([Once(part, batch_size, threads=0) for part in parts], threads=0)


def _shorten(tokens: np.ndarray, max_length: int) -> np.ndarray:
    """Returns the first max_length - 1 tokens and the last, which is <eos>."""
    return tokens if len(tokens) <= max_length else np.append(tokens[: max_length - 1], tokens[-1])
