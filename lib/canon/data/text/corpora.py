"""Corpora for language models: splits of running text, line by line.

`corpus(name, ...)` gives a function from a split to its lines, read anew at every call, so that a text larger than
memory can still be counted and numbered.
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
from canon.data.text import text_files
from canon.errors import UsageError

SPLITS = ('train', 'valid', 'test')
_FILES = {'ptb': 'ptb.{}.txt', 'wikitext': 'wiki.{}.tokens', 'text': '{}.txt'}
_PARAGRAPH = 60  # characters from which on a paragraph is taken to be prose that is quoted, not chance
_HELD_OUT = {
    'test': ('binary', 'calls', 'import', 'raise', 'typesmapping'),
    'valid': (
        'booleans', 'dict', 'exprlists', 'global', 'objects', 'operator-summary', 'power', 'slicings', 'strings',
        'subscriptions', 'typesmethods',
    ),
}  # fmt: skip


class Corpus:
    """`corpus.lines(split)`: the lines of 'train', 'valid' or 'test', without their ends."""

    def __init__(self, name: str, lines: Callable[[str], Iterable[str]]):
        self.name, self._lines = name, lines

    def lines(self, split: str) -> Iterator[str]:
        """Raises UsageError for an unknown or empty split."""
        empty = True
        for line in self._lines(split):
            empty = False
            yield line
        if empty:
            raise UsageError(f'corpus {self.name!r} has no text in {split!r}')

    def about(self) -> dict[str, Any]:
        """Of each split its lines, words and characters (with line feeds), and of all the hash of the text."""
        told: dict[str, Any] = {'name': self.name}
        digest = hashlib.sha256()
        for split in SPLITS:
            counts = [0, 0, 0]
            for line in self.lines(split):
                counts = [counts[0] + 1, counts[1] + len(line.split()), counts[2] + len(line) + 1]
                digest.update(f'{line}\n'.encode())
            told[split] = dict(zip(('lines', 'words', 'characters'), counts, strict=True))
        return told | {'sha256': digest.hexdigest()[:16]}

    def __repr__(self) -> str:
        return f'Corpus({self.name})'


def corpus(name: str, data_dir: str | os.PathLike | None = None, **kwargs: Any) -> Corpus:
    """The corpus `name`: 'pydoc' (embedded), 'text' (path=), 'ptb' (path=), 'wikitext' (path=), or a TFDS set of texts
    that is prepared in array_record ('lm1b', 'wiki40b/en', 'tiny_shakespeare').

    kwargs: of `pydoc`, `text`, `ptb`, `wikitext` or `tfds`. Raises UsageError for what does not exist.
    """
    own = {'pydoc': pydoc, 'text': text, 'ptb': ptb, 'wikitext': wikitext}
    if name in own:
        return named.call(own[name], kwargs, f'data {name!r}')
    return named.call(tfds, {'name': name, 'data_dir': data_dir, **kwargs}, f'data {name!r}')


def pydoc() -> Corpus:
    """The English of CPython's own documentation, `pydoc_data.topics`: what `help('if')` prints. Needs no download.

    Paragraphs that several topics quote are kept once, the held-out topics' first, so that nothing of more than 60
    characters stands in two splits. Topics are held out by name (`_HELD_OUT`), by whole topics. The text is that of the
    interpreter that runs, and grows from version to version; a run should keep `about()`, which has its hash, and
    baselines are computed on it in the same run. With 3.11.7: 79 topics of 464,970 characters become

        train  43,373 words  308,400 characters
        valid   4,561 words   34,339 characters
        test    5,270 words   35,494 characters
    """
    return Corpus(f'pydoc {platform.python_version()}', _pydoc_lines)


def text(
    path: str, train: str | None = None, valid: str | None = None, test: str | None = None, held_out: float = 0.05
) -> Corpus:
    """Any UTF-8 text, plain or .gz.

    path: a folder that holds `train.txt`, `valid.txt` and `test.txt` (or the names given as train=, valid=, test=), or
    one file, of which the last lines are held out: the fraction `held_out` for test, as much before it for valid.
    """
    root = text_files.named_path(path)
    if root.is_dir():
        names = {s: n or _FILES['text'].format(s) for s, n in zip(SPLITS, (train, valid, test), strict=True)}
        return _folder('text', root, names)
    if train or valid or test:
        raise UsageError(f'train=, valid= and test= name files of a folder, and {root} is none')
    if not 0 < held_out < 0.5:
        raise UsageError(f'held_out={held_out} must be between 0 and 0.5: it is taken twice')
    return Corpus(f'text {root.name}', functools.partial(_fraction, root, held_out))


def ptb(path: str) -> Corpus:
    """Mikolov's Penn Treebank: the folder of `ptb.{train,valid,test}.txt`, a sentence a line.

    929k, 73k and 82k words, <eos> included, 10,000 different ones.
    """
    return _folder('ptb', text_files.named_path(path), {s: _FILES['ptb'].format(s) for s in SPLITS})


def wikitext(path: str) -> Corpus:
    """WikiText-2 or WikiText-103 (Merity et al. 2017): the folder of `wiki.{train,valid,test}.tokens`.

    Empty lines and titles count as text, as in AWD-LSTM: WikiText-2's training part is 2,088,628 words with <eos>.
    """
    return _folder('wikitext', text_files.named_path(path), {s: _FILES['wikitext'].format(s) for s in SPLITS})


def tfds(
    name: str,
    data_dir: str | os.PathLike | None = None,
    field: str = 'text',
    train: str = 'train',
    valid: str = 'validation',
    test: str = 'test',
) -> Corpus:
    """The lines of the field `field` of a TFDS set; train, valid, test: its own splits, sliced ('train[90%:]')."""
    from canon.data.pipeline import tfds  # brings tensorflow_datasets: 0.6 s

    directory = tfds.resolve_dir(data_dir)
    theirs = {'train': train, 'valid': valid, 'test': test}

    def lines(split):
        source = tfds.read(name, _split(theirs, split, name), directory)
        if field not in source.features:
            raise UsageError(f'data {name!r} has no field {field!r}{named.suggest(field, source.features)}')
        for i in range(len(source)):
            yield from str(source[i][field]).split('\n')

    return Corpus(name, lines)


def _folder(name: str, root: Path, files: Mapping[str, str]) -> Corpus:
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}; data {name!r} wants one with {", ".join(files.values())}')
    for file in files.values():
        if not text_files.either(root / file).is_file():
            raise UsageError(f'{root} has no {file}{named.suggest(file, [p.name for p in root.iterdir()])}')
    return Corpus(
        f'{name} {root.name}', lambda split: text_files.lines(text_files.either(root / _split(files, split, name)))
    )


def _split(known: Mapping[str, str], split: str, name: str) -> str:
    if split not in known:
        raise UsageError(f'corpus {name!r} has no split {split!r}{named.suggest(split, known)}')
    return known[split]


def _fraction(root: Path, held_out: float, split: str) -> list[str]:
    lines = list(text_files.lines(root))
    tail = round(held_out * len(lines))
    if not tail:
        raise UsageError(f'held_out={held_out} of the {len(lines)} lines of {root} is none; raise it')
    train, test = len(lines) - 2 * tail, len(lines) - tail
    bounds = {'train': slice(train), 'valid': slice(train, test), 'test': slice(test, None)}
    _split(dict.fromkeys(bounds, ''), split, str(root))
    return lines[bounds[split]]


def _pydoc_lines(split: str) -> list[str]:
    return _split(_pydoc(), split, 'pydoc').split('\n')


@functools.cache
def _pydoc() -> dict[str, str]:
    """{split: text}."""
    from pydoc_data.topics import topics

    seen: set[str] = set()
    found: dict[str, list[str]] = {'train': [], **{split: [] for split in _HELD_OUT}}
    owner = {topic: split for split, held_out in _HELD_OUT.items() for topic in held_out}
    order = {split: i for i, split in enumerate((*_HELD_OUT, 'train'))}
    for topic in sorted(topics, key=lambda t: (order[owner.get(t, 'train')], t)):
        for paragraph in topics[topic].strip().split('\n\n'):
            if len(paragraph) <= _PARAGRAPH or paragraph.strip() not in seen:
                found[owner.get(topic, 'train')].append(paragraph.strip('\n'))
            seen.add(paragraph.strip())
    if not all(found.values()):
        logging.getLogger('canon').warning('pydoc_data.topics of Python %s lacks topics', platform.python_version())
    return {split: '\n\n'.join(paragraphs) for split, paragraphs in found.items()}
