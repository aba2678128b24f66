"""Vocabularies: text to token ids and back, by bytes, characters, words or subwords.

A vocabulary is a value: `to_bytes` determines all it does, and `fingerprint` is a hash of that. A run stores the
fingerprint, so that a checkpoint is never used with other ids than it was trained with.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import sys
import unicodedata
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon import named
from canon.data.text import text_files
from canon.errors import CanonError, UsageError
from canon.progress import make_bar, show_progress

SPECIALS = ('<unk>', '<eos>')  # of language models; Mikolov's PTB has both
PAIR_SPECIALS = ('<pad>', '<unk>', '<bos>', '<eos>')  # of translation, whose sentences are padded and start with <bos>
_SPLITS = ('spaces', 'punctuation')
_SPACE = '\u2581'  # how sentencepiece writes a space
# Noncharacters, which Unicode reserves for internal use, stand for U+2581 and '<unk>' that occur in a text itself.
_LITERAL_SPACE, _LITERAL_UNK = '\ufdd1', '\ufdd2'
_BYTES = 256


class About(NamedTuple):
    """The identity of a vocabulary, which a run stores in `run.json` as a list."""

    level: str
    size: int
    fingerprint: str


class Vocabulary:
    """Maps text to token ids: those of the specials first, in their order, then those of the symbols (or 256 bytes).

    Attributes:
      level: 'byte', 'character', 'word' or 'subword'.
      specials: tokens that are not text.
      pad: id of <pad>, which fills up a batch; None in a vocabulary without it, and so for the other three.
      unk: id of <unk>, which stands for unknown symbols.
      bos: id of <bos>, before the first token of a sentence.
      eos: id of <eos>, the end of a line or sentence.
    """

    level = ''

    def __init__(self, specials: Sequence[str] = SPECIALS):
        """Raises UsageError for unknown or repeated specials."""
        unknown = sorted(set(specials) - set(PAIR_SPECIALS))
        if unknown or len(set(specials)) != len(specials):
            raise UsageError(f'specials={tuple(specials)} must be distinct tokens of {", ".join(PAIR_SPECIALS)}')
        self.specials = tuple(specials)
        self.pad, self.unk, self.bos, self.eos = (
            self.specials.index(s) if s in self.specials else None for s in PAIR_SPECIALS
        )

    def __len__(self) -> int:
        raise NotImplementedError

    def encode(self, text: str) -> np.ndarray:
        """Returns the ids of `text`, int32 [n]; no special is added.

        Raises CanonError for an unknown symbol if the vocabulary has no <unk>.
        """
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`: <pad> and <bos> are dropped, <eos> ends a line, <unk> is written '<unk>'."""
        raise NotImplementedError

    def extend_text(self, prompt: str, ids: Sequence[int]) -> str:
        """Returns `prompt` followed by the text of `ids`, with one space between words where words have spaces."""
        # Ids are decoded after those of the prompt, not alone: only there is it decided whether a space precedes a
        # word.
        prompt_ids = self.encode(prompt)
        decoded_prompt, text = self.decode(prompt_ids), self.decode([*prompt_ids, *ids])
        text = text.removeprefix(decoded_prompt) if text.startswith(decoded_prompt) else self.decode(ids)
        # Tokens of words do not hold the space at the end of a prompt, so the text begins with it once more.
        repeated = prompt[-1:].isspace() and not decoded_prompt[-1:].isspace()
        return prompt + (text.removeprefix(' ') if repeated else text)

    def stream(self, lines: Iterable[str]) -> np.ndarray:
        """Returns the lines in sequence as a language model reads them, int32 [n].

        Words and subwords have <eos> at the end of every line, empty ones included (Mikolov, AWD-LSTM); characters and
        bytes have the line feed itself.
        """
        parts = [self._encode_line(line) for line in show_progress(lines, 'encoding', 'line')]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def _encode_line(self, line: str) -> np.ndarray:
        if self.eos is None:
            raise UsageError(f"lines of {self.level}s need '<eos>' among the specials {self.specials}")
        return np.append(self.encode(line), np.int32(self.eos))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Returns each token as text for figures."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """Returns the vocabulary as JSON; `from_bytes` is the inverse."""
        return json.dumps({'level': self.level, 'specials': self.specials, **self._fields()}).encode()

    def _fields(self) -> Mapping[str, Any]:
        return {}

    def save(self, path: str | Path) -> None:
        """Writes the vocabulary atomically: a process that reads at the same time finds the whole file or none."""
        file = Path(path)
        part = file.with_name(f'.{file.name}.{uuid.uuid4().hex}.part')  # of this process alone
        try:
            part.write_bytes(self.to_bytes())
            os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of 16 hexadecimal digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    @property
    def about(self) -> About:
        """The level, the size and the fingerprint."""
        return About(self.level, len(self), self.fingerprint)

    def _unknown_id(self, symbol: str) -> int:
        if self.unk is None:
            raise CanonError(f"{symbol!r} is not in the vocabulary of {len(self)} {self.level}s, which has no '<unk>'")
        return self.unk

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)}, {self.fingerprint})'


class ByteVocabulary(Vocabulary):
    """The 256 bytes of UTF-8, which encode every text. Ids that are not UTF-8 are decoded as U+FFFD."""

    level = 'byte'

    def __len__(self) -> int:
        return len(self.specials) + _BYTES

    def encode(self, text: str) -> np.ndarray:
        # The specials come first, so byte b is token b + len(specials).
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32) + len(self.specials)

    def decode(self, ids: Iterable[int]) -> str:
        first = len(self.specials)
        parts = (bytes([i - first]) if i >= first else self._special(i).encode() for i in map(int, ids))
        return b''.join(parts).decode(errors='replace')

    def _special(self, i: int) -> str:
        return {'<eos>': '\n', '<unk>': '<unk>'}.get(self.specials[i], '')

    def tokens(self, ids: Iterable[int]) -> list[str]:
        first = len(self.specials)
        return [repr(bytes([i - first]))[2:-1] if i >= first else self.specials[i] for i in map(int, ids)]

    def _encode_line(self, line: str) -> np.ndarray:
        return self.encode(f'{line}\n')


class CharacterVocabulary(Vocabulary):
    """One token per character of `symbols`."""

    level = 'character'

    def __init__(self, symbols: Sequence[str], specials: Sequence[str] = SPECIALS):
        super().__init__(specials)
        self.symbols = tuple(symbols)
        self._codes = np.array([ord(c) for c in self.symbols], np.uint32)
        _check_symbols(self, all(len(c) == 1 for c in self.symbols))
        self._order = np.argsort(self._codes)

    def __len__(self) -> int:
        return len(self.specials) + len(self.symbols)

    def encode(self, text: str) -> np.ndarray:
        # UTF-32 has one number per character, so that a binary search finds the ids of all of them without a Python
        # loop.
        codes = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
        # The place of an unknown character is that of its successor, or beyond the end; comparing the codes tells it.
        ranks = np.searchsorted(self._codes, codes, sorter=self._order).clip(max=len(self._codes) - 1)
        indices = self._order[ranks]
        known = self._codes[indices] == codes
        if known.all():
            return (indices + len(self.specials)).astype(np.int32)
        unknown = self._unknown_id(text[int(np.argmin(known))])
        return np.where(known, indices + len(self.specials), unknown).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        spellings = [*({'<eos>': '\n', '<unk>': '<unk>'}.get(s, '') for s in self.specials), *self.symbols]
        return ''.join(spellings[i] for i in map(int, ids))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        spellings = [*self.specials, *({'\n': '⏎', ' ': '␣'}.get(c, c) for c in self.symbols)]
        return [spellings[i] for i in map(int, ids)]

    def _encode_line(self, line: str) -> np.ndarray:
        return self.encode(f'{line}\n')

    def _fields(self) -> Mapping[str, Any]:
        return {'symbols': ''.join(self.symbols)}


class WordVocabulary(Vocabulary):
    """One token per word of `symbols`.

    split: 'spaces', for text that is already tokenised, as PTB and WikiText are; or 'punctuation', where each run of
    letters and digits and each other character is a word, with its combining marks. A word that is spelt like a special
    ('<unk>' in PTB) is that special.
    """

    level = 'word'

    def __init__(self, symbols: Sequence[str], split: str = 'spaces', specials: Sequence[str] = SPECIALS):
        super().__init__(specials)
        self.symbols, self.split = tuple(symbols), split
        self._split_words = _make_splitter(split)
        self._spellings = (*self.specials, *self.symbols)
        _check_symbols(self, all(self.symbols))
        self._ids = {word: i for i, word in enumerate(self._spellings)}

    def __len__(self) -> int:
        return len(self._spellings)

    def encode(self, text: str) -> np.ndarray:
        words = self._split_words(text)
        # Nearly all lines have known words only: the exception is cheaper than a test per word.
        try:
            return np.array([self._ids[word] for word in words], np.int32)
        except KeyError as error:
            unknown = self._unknown_id(error.args[0])
            return np.array([self._ids.get(word, unknown) for word in words], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Returns words with single spaces between them; what `split='punctuation'` separated is not joined again."""
        dropped = {self.pad, self.bos}
        text = ' '.join('\n' if i == self.eos else self._spellings[i] for i in map(int, ids) if i not in dropped)
        return re.sub(' ?\n ?', '\n', text)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._spellings[i] for i in map(int, ids)]

    def _fields(self) -> Mapping[str, Any]:
        return {'symbols': self.symbols, 'split': self.split}


class SubwordVocabulary(Vocabulary):
    """The pieces of a sentencepiece model (Kudo and Richardson 2018), in which the specials are included."""

    level = 'subword'

    def __init__(self, model: bytes):
        """Reads a serialised sentencepiece model. Raises CanonError for bytes that are not one."""
        import sentencepiece

        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError) as error:
            raise CanonError(
                f'these {len(model)} bytes are not a sentencepiece model; build the vocabulary again'
            ) from error
        count = len(self._pieces)
        ids = {s: self._pieces.piece_to_id(s) for s in PAIR_SPECIALS}
        present = [s for s, i in ids.items() if 0 <= i < count and self._pieces.id_to_piece(i) == s]
        super().__init__(sorted(present, key=ids.__getitem__))
        self.model = model
        # Models made elsewhere may add a space in front of each line.
        self._adds_space = self._pieces.id_to_piece(self._pieces.encode('a')[0]).startswith(_SPACE)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> np.ndarray:
        # Otherwise a text that contains U+2581 would be decoded with a space, and one with '<unk>' with the token.
        text = text.replace(_SPACE, _LITERAL_SPACE).replace('<unk>', _LITERAL_UNK)
        return np.array(self._pieces.encode(text), np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        lines: list[list[int]] = [[]]
        for i in map(int, ids):
            if i == self.eos:
                lines.append([])
            elif i not in (self.pad, self.bos):
                lines[-1].append(i)
        return '\n'.join(map(self._decode_line, lines))

    def _decode_line(self, ids: list[int]) -> str:
        """Decodes as sentencepiece does, except that <unk> has no spaces around it."""
        text = b''.join(map(self._spell, ids)).decode(errors='replace').replace(_SPACE, ' ')
        return (
            text.removeprefix(' ' if self._adds_space else '')
            .replace(_LITERAL_SPACE, _SPACE)
            .replace(_LITERAL_UNK, '<unk>')
        )

    def _spell(self, i: int) -> bytes:
        piece = self._pieces.id_to_piece(i)
        if self._pieces.is_byte(i):  # spelt '<0x41>'
            return bytes([int(piece[3:5], 16)])
        return b'' if self._pieces.is_control(i) else b'<unk>' if i == self.unk else piece.encode()

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._pieces.id_to_piece(i) for i in map(int, ids)]

    def _fields(self) -> Mapping[str, Any]:
        return {'model': base64.b64encode(self.model).decode()}


def build(
    lines: Iterable[str],
    level: str = 'word',
    size: named.Count | None = None,
    min_count: named.Count = 1,
    specials: Sequence[str] = SPECIALS,
    split: str = 'spaces',
    model_type: str = 'unigram',
    byte_fallback: bool = False,
) -> Vocabulary:
    """Builds a vocabulary from a text; the same text gives the same vocabulary.

    Args:
      lines: the text. The line feed that ends a line is one of the characters.
      level: 'byte', 'character', 'word' or 'subword'.
      size: tokens, specials included; the most frequent symbols are taken. None takes all; subwords need a size.
      min_count: symbols that occur less often are unknown.
      specials: tokens that are not text.
      split: of words: 'spaces' or 'punctuation' (see `WordVocabulary`).
      model_type: of subwords: 'unigram' or 'bpe'.
      byte_fallback: of subwords: encodes unknown characters as bytes.

    Raises:
      UsageError: the text is empty or has too few symbols for `size`, or an argument is unknown.
    """
    if level == 'byte':
        return ByteVocabulary(specials)
    if level == 'subword':
        return _subwords(lines, size, specials, model_type, byte_fallback)
    if level not in ('character', 'word'):
        raise UsageError(f"level={level!r} is none of 'byte', 'character', 'word', 'subword'")
    counts: Counter[str] = Counter()
    split_line = _make_splitter(split) if level == 'word' else lambda line: f'{line}\n'
    for line in show_progress(lines, f'vocabulary of {level}s', 'line'):
        counts.update(split_line(line))
    if level == 'word':
        # PTB has '<unk>' as a word already; it is the special, and must not take a second id.
        for special in specials:
            counts.pop(special, None)
    symbols = _select_most_frequent(counts, level, size, min_count, specials)
    return WordVocabulary(symbols, split, specials) if level == 'word' else CharacterVocabulary(symbols, specials)


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Reads a vocabulary that `save` wrote. Raises UsageError for a missing file, CanonError for any other file."""
    file = text_files.expand_path(path)
    if not file.is_file():
        raise UsageError(f'there is no vocabulary {file}')
    return from_bytes(text_files.read_bytes(file), str(file))


def from_bytes(data: bytes, name: str = 'a vocabulary') -> Vocabulary:
    """Restores a vocabulary from its `to_bytes`. `name` is for errors, which are CanonError."""
    try:
        spec = json.loads(data)
        level = spec.pop('level')
        if level == 'subword':
            return SubwordVocabulary(base64.b64decode(spec['model']))
        return {'byte': ByteVocabulary, 'character': CharacterVocabulary, 'word': WordVocabulary}[level](**spec)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CanonError(f'{name} is not a vocabulary of Canon ({error}); build it again') from error


def check_unchanged(stored: Sequence[Any], current: Vocabulary, where: str) -> None:
    """Raises CanonError unless `stored`, an `About` that the run `where` kept, is that of the vocabulary `current`."""
    before = About(*stored)
    if before != current.about:
        sizes = ' and '.join(f'{a.size} {a.level}s ({a.fingerprint})' for a in (before, current.about))
        raise CanonError(
            f'{where} was trained with another vocabulary than this text and these settings give: {sizes};'
            ' restore the text and the settings, or start in another folder'
        )


def _make_splitter(split: str):
    if split not in _SPLITS:
        raise UsageError(f'split={split!r} is not a way to split words{named.suggest(str(split), _SPLITS)}')
    return str.split if split == 'spaces' else _compile_word_pattern().findall


@cache
def _compile_word_pattern() -> re.Pattern[str]:
    """Returns the pattern of a word: a run of letters and digits, or one other character, with its combining marks.

    Python's \\w excludes combining marks (vowel signs of Hindi, points of Arabic, decomposed accents), and the joiners
    U+200C and U+200D, which occur within words and never begin one (Unicode Annex 29, rule WB4).
    """
    codes = [i for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] == 'M'] + [0x200C, 0x200D]
    # As ranges, which keep the pattern short.
    runs: list[list[int]] = []
    for code in sorted(codes):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    marks = ''.join(f'\\U{first:08x}-\\U{last:08x}' for first, last in runs)
    return re.compile(rf'\w[\w{marks}]*|[^\w\s][{marks}]*')


def _check_symbols(vocabulary: Any, well_formed: bool) -> None:
    symbols = vocabulary.symbols
    if not symbols:
        raise UsageError(f'a vocabulary of {vocabulary.level}s needs at least one; the text is empty')
    if not well_formed or len(set(symbols)) != len(symbols):
        raise UsageError(f'the vocabulary of {len(symbols)} {vocabulary.level}s has a duplicate or malformed token')


def _select_most_frequent(counts: Counter[str], level: str, size: int | None, min_count: int, specials) -> list[str]:
    """Returns symbols by decreasing count, and those of equal count in the order of their code points."""
    ranked = sorted((s for s, n in counts.items() if n >= min_count), key=lambda s: (-counts[s], s))
    room = len(ranked) if size is None else size - len(specials)
    if room > len(ranked):
        rare = f' that occur {min_count} times' if min_count > 1 else ''
        raise UsageError(
            f'a vocabulary of size={size} is larger than the text allows: {len(ranked)} different {level}s{rare} and'
            f' {len(specials)} specials make {len(ranked) + len(specials)}; lower size, or leave it out to take all'
        )
    if room < 1 and ranked:
        raise UsageError(f'size={size} leaves no room for {level}s next to the {len(specials)} specials; raise it')
    return ranked[:room]


def _subwords(
    lines: Iterable[str], size: int | None, specials, model_type: str, byte_fallback: bool
) -> SubwordVocabulary:
    """Trains sentencepiece without normalisation, so that decoding restores the text.

    It runs in one thread: with more, the same text may give another model.
    """
    import sentencepiece

    Vocabulary(specials)  # raises for unknown ones
    if size is None:
        raise UsageError('subwords need a size: the number of pieces, specials included')
    if '<unk>' not in specials:
        raise UsageError("subwords need '<unk>' among their specials")
    if model_type not in ('unigram', 'bpe'):
        raise UsageError(f"model_type={model_type!r} is neither 'unigram' nor 'bpe'")
    text = [line.replace(_SPACE, _LITERAL_SPACE) for line in lines if line.strip()]
    if not text:
        raise UsageError('a vocabulary of subwords needs a text; it is empty')
    written = io.BytesIO()
    numbers: dict[str, Any] = {f'{s[1:-1]}_id': specials.index(s) if s in specials else -1 for s in PAIR_SPECIALS}
    pieces: dict[str, Any] = {f'{s[1:-1]}_piece': s for s in PAIR_SPECIALS}
    try:
        with make_bar(len(text), 'vocabulary of subwords', 'line') as bar:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_count_sentences(text, bar), model_writer=written, vocab_size=size,
                model_type=model_type, byte_fallback=byte_fallback, character_coverage=1.0,
                normalization_rule_name='identity', remove_extra_whitespaces=False, num_threads=1, minloglevel=2,
                max_sentence_length=1 << 20, **numbers, **pieces,
            )  # fmt: skip
    except RuntimeError as error:
        raise UsageError(_explain_failure(size, str(error))) from error
    return SubwordVocabulary(written.getvalue())


def _count_sentences(text: Sequence[str], bar: Any) -> Iterator[str]:
    """Yields sentences to sentencepiece; then the bar shows that it trains, of which sentencepiece reports nothing."""
    for sentence in text:
        yield sentence
        bar.update()
    bar.set_postfix_str('all read, training')


def _explain_failure(size: int, message: str) -> str:
    """Turns an error of sentencepiece into one that names the key and the fix."""
    most = re.search(r'value <= (\d+)', message)
    if most:
        return f'a vocabulary of size={size} is larger than the text allows; set it to at most {most[1]}'
    least = re.search(r'(\d+) vs (\d+)', message)
    if least and 'smaller' in message:
        return f'size={size} is smaller than the {least[2]} characters and specials of the text; raise it'
    return f'sentencepiece cannot make {size} pieces of this text: {message.splitlines()[0]}'
