"""Corpora for language models: splits of running text, line by line.

`corpus(name, ...)` returns a `Corpus`, whose lines are read again at each call, so that a text larger than memory can
be counted and encoded.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from canon import named
from canon.data.pipeline import splits
from canon.data.text import text_files
from canon.errors import UsageError

SPLITS = ('train', 'valid', 'test')
_FILES = {'ptb': 'ptb.{}.txt', 'wikitext': 'wiki.{}.tokens', 'text': '{}.txt'}
_PARAGRAPH = 60  # characters; a longer paragraph that occurs twice is a quotation, a shorter one may be chance
_HELD_OUT = {
    'test': ('binary', 'calls', 'import', 'raise', 'typesmapping'),
    'valid': (
        'booleans', 'dict', 'exprlists', 'global', 'objects', 'operator-summary', 'power', 'slicings', 'strings',
        'subscriptions', 'typesmethods',
    ),
}  # fmt: skip


class Corpus:
    """A text in three splits, 'train', 'valid' and 'test', each an iterable of lines without their ends."""

    def __init__(self, name: str, lines: Callable[[str], Iterable[str]], origins: Mapping[str, str] | None = None):
        """Describes a text by the function that reads it.

        Args:
          name: for errors and reports.
          lines: a function from a split to its lines.
          origins: {split: the file, or the slice of a data set, that it is read from}, if splits may share text.
        """
        self.name, self._lines = name, lines
        self._origins = dict(origins) if origins is not None else {split: split for split in SPLITS}

    def overlap(self, first: str, second: str) -> bool:
        """Whether two splits share text: they are the same, or are read from the same file or overlapping slices."""
        return splits.share_examples(self._origins.get(first, first), self._origins.get(second, second), None)

    def check_held_out(self, split: str, where: str) -> None:
        """Raises UsageError if a split shares text with 'train'; where: the evaluator's section of the config."""
        if self.overlap('train', split):
            raise UsageError(
                f'{where}.split={split!r} shares text with the training split of {self.name!r}: evaluate on another'
                f' split, or say {where}.trained_on=True'
            )

    def lines(self, split: str) -> Iterator[str]:
        """Yields the lines of a split. Raises UsageError for an unknown or empty one."""
        # Read lazily: a corpus may be larger than memory, and is known to be empty only after its end.
        empty = True
        for line in self._lines(split):
            empty = False
            yield line
        if empty:
            raise UsageError(f'corpus {self.name!r} has no text in {split!r}')

    def about(self) -> dict[str, Any]:
        """Returns the lines, words and characters (with line feeds) of each split, and a hash of the whole text."""
        counted: dict[str, Any] = {'name': self.name}
        digest = hashlib.sha256()
        for split in SPLITS:
            counts = [0, 0, 0]
            for line in self.lines(split):
                # A line feed counts as a character, as in bits per character.
                counts = [counts[0] + 1, counts[1] + len(line.split()), counts[2] + len(line) + 1]
                digest.update(f'{line}\n'.encode())
            counted[split] = dict(zip(('lines', 'words', 'characters'), counts, strict=True))
        return counted | {'sha256': digest.hexdigest()[:16]}

    def __repr__(self) -> str:
        return f'Corpus({self.name})'


def corpus(name: str, data_dir: str | os.PathLike | None = None, **kwargs: Any) -> Corpus:
    """Opens the corpus `name`.

    Args:
      name: of a public function of `canon.data.text` that returns a `Corpus`: 'pydoc' (embedded), 'text' (path=), 'ptb'
        (path=) or 'wikitext' (path=). 'package.module:function' is such a function of any other module. All other names
        are those of TFDS sets of texts, prepared in array_record: 'lm1b', 'wiki40b/en', 'tiny_shakespeare'.
      data_dir: where TFDS sets are; ~/tensorflow_datasets if None.
      **kwargs: arguments of the function, or of `tfds_corpus`.

    Raises:
      UsageError: the corpus does not exist, or an argument does not fit.
    """
    if function := CORPORA.get(name):
        return named.call(function, kwargs, f'data {name!r}')
    return named.call(tfds_corpus, {'name': name, 'data_dir': data_dir, **kwargs}, f'data {name!r}')


def pydoc() -> Corpus:
    """Opens the English documentation of CPython, `pydoc_data.topics`, which `help('if')` prints. Needs no download.

    Whole topics are held out, by name (`_HELD_OUT`). A paragraph that several topics quote is kept once, in a held-out
    topic if it is in one, so that no paragraph of more than 60 characters is in two splits. The text is that of the
    running interpreter and grows from version to version: a run keeps `about()`, which has its hash, and baselines are
    computed on the same text in the same run. With 3.11.7, 79 topics of 464,970 characters become

        train  43,373 words  308,400 characters
        valid   4,561 words   34,339 characters
        test    5,270 words   35,494 characters
    """
    return Corpus(f'pydoc {platform.python_version()}', _read_pydoc)


def text(
    path: str, train: str | None = None, valid: str | None = None, test: str | None = None, held_out: float = 0.05
) -> Corpus:
    """Opens any UTF-8 text, plain or .gz.

    Args:
      path: a folder, or one file, of which the last lines are held out.
      train: file name in the folder, `train.txt` if None.
      valid: file name in the folder, `valid.txt` if None.
      test: file name in the folder, `test.txt` if None.
      held_out: fraction of the lines of a single file, the last for 'test' and as many before them for 'valid'.
    """
    root = text_files.expand_path(path)
    if root.is_dir():
        names = {s: n or _FILES['text'].format(s) for s, n in zip(SPLITS, (train, valid, test), strict=True)}
        return _open_folder('text', root, names)
    if train or valid or test:
        raise UsageError(f'train=, valid= and test= name files of a folder, but {root} is not a folder')
    if not 0 < held_out < 0.5:
        raise UsageError(f'held_out={held_out} must be between 0 and 0.5: it is held out twice')
    return Corpus(f'text {root.name}', functools.partial(_read_fraction, root, held_out))


def ptb(path: str) -> Corpus:
    """Opens Mikolov's Penn Treebank: the folder of `ptb.{train,valid,test}.txt`, one sentence per line.

    929k, 73k and 82k words with <eos>, of a vocabulary of 10,000.
    """
    return _open_folder('ptb', text_files.expand_path(path), {s: _FILES['ptb'].format(s) for s in SPLITS})


def wikitext(path: str) -> Corpus:
    """Opens WikiText-2 or WikiText-103 (Merity et al. 2017): the folder of `wiki.{train,valid,test}.tokens`.

    Empty lines and titles are text, as in AWD-LSTM: the training split of WikiText-2 has 2,088,628 words with <eos>.
    """
    return _open_folder('wikitext', text_files.expand_path(path), {s: _FILES['wikitext'].format(s) for s in SPLITS})


def tfds_corpus(
    name: str,
    data_dir: str | os.PathLike | None = None,
    field: str = 'text',
    train: str = 'train',
    valid: str = 'validation',
    test: str = 'test',
) -> Corpus:
    """Opens the texts of a TFDS set.

    Args:
      name: of the set.
      data_dir: where it is prepared; ~/tensorflow_datasets if None.
      field: of its examples, the text.
      train: a split of the set for 'train', perhaps sliced: 'train[:90%]'.
      valid: a split of the set for 'valid'.
      test: a split of the set for 'test'.
    """
    from canon.data.pipeline import tfds  # imports tensorflow_datasets: 0.6 s

    directory = tfds.resolve_dir(data_dir)
    slices = {'train': train, 'valid': valid, 'test': test}

    def lines(split):
        source = tfds.open_prepared(name, _find_split(slices, split, name), directory)
        if field not in source.features:
            raise UsageError(f'data {name!r} has no field {field!r}{named.suggest(field, source.features)}')
        for i in range(len(source)):
            # At line feeds alone: `splitlines` would also split at form feeds and U+2028, which are text.
            yield from str(source[i][field]).split('\n')

    return Corpus(name, lines, slices)


def _open_folder(name: str, root: Path, files: Mapping[str, str]) -> Corpus:
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}; data {name!r} needs one with {", ".join(files.values())}')
    for file in files.values():
        if not text_files.find_compressed(root / file).is_file():
            raise UsageError(f'{root} has no {file}{named.suggest(file, [p.name for p in root.iterdir()])}')

    def lines(split: str) -> Iterator[str]:
        return text_files.read_lines(text_files.find_compressed(root / _find_split(files, split, name)))

    return Corpus(f'{name} {root.name}', lines, files)


def _find_split(known: Mapping[str, str], split: str, name: str) -> str:
    if split not in known:
        raise UsageError(f'corpus {name!r} has no split {split!r}{named.suggest(split, known)}')
    return known[split]


def _read_fraction(root: Path, held_out: float, split: str) -> list[str]:
    lines = list(text_files.read_lines(root))
    tail = round(held_out * len(lines))
    if not tail:
        raise UsageError(f'held_out={held_out} of the {len(lines)} lines of {root} is less than a line; raise it')
    # From the end, in order: a random choice of lines would put halves of one passage into different splits.
    train, test = len(lines) - 2 * tail, len(lines) - tail
    bounds = {'train': slice(train), 'valid': slice(train, test), 'test': slice(test, None)}
    _find_split(dict.fromkeys(bounds, ''), split, str(root))
    return lines[bounds[split]]


def _read_pydoc(split: str) -> list[str]:
    return _find_split(_collect_pydoc(), split, 'pydoc').split('\n')


@functools.cache
def _collect_pydoc() -> dict[str, str]:
    """Returns {split: text}."""
    from pydoc_data.topics import topics

    known: set[str] = set()  # paragraphs of the topics so far
    paragraphs: dict[str, list[str]] = {'train': [], **{split: [] for split in _HELD_OUT}}
    owner = {topic: split for split, held_out in _HELD_OUT.items() for topic in held_out}
    order = {split: i for i, split in enumerate((*_HELD_OUT, 'train'))}
    # Held-out topics first: a quoted paragraph belongs to the topic that has it first, so training gets what is left.
    for topic in sorted(topics, key=lambda t: (order[owner.get(t, 'train')], t)):
        for paragraph in topics[topic].strip().split('\n\n'):
            if len(paragraph) <= _PARAGRAPH or paragraph.strip() not in known:
                paragraphs[owner.get(topic, 'train')].append(paragraph.strip('\n'))
            known.add(paragraph.strip())
    if not all(paragraphs.values()):
        logging.getLogger('canon').warning('pydoc_data.topics of Python %s lacks topics', platform.python_version())
    return {split: '\n\n'.join(parts) for split, parts in paragraphs.items()}


CORPORA = named.Catalogue('corpus', ('canon.data.text',), lambda function: named.get_return_type(function) is Corpus)
