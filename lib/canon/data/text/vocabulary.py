"""Vocabularies: text as numbers and back, by bytes, characters, words or subwords.

A vocabulary is a value: what it does is decided by what `to_bytes` gives, and its `fingerprint` is the hash of that. A
run keeps both, so that a checkpoint is never read with other numbers than it was trained with.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from canon import named
from canon.data.text import text_files
from canon.errors import CanonError, UsageError

SPECIALS = ('<unk>', '<eos>')  # what a language model needs; Mikolov's PTB has both
PAIR_SPECIALS = ('<pad>', '<unk>', '<bos>', '<eos>')  # of a model that writes a sentence of its own
_SPLITS = ('spaces', 'punctuation')
_SPACE = '\u2581'  # sentencepiece's sign for a space
# Code points that are no characters and that Unicode leaves to programs: for U+2581 and '<unk>' where texts hold them.
_SPACE_SIGN, _UNKNOWN = '\ufdd1', '\ufdd2'
_BYTES = 256


class About(NamedTuple):
    """What a run stores (as a list, in `run.json`) to know its vocabulary by."""

    level: str
    size: int
    fingerprint: str


class Vocabulary:
    """Numbers of tokens: the specials first, in their order, then the symbols (or, of bytes, 256 values)."""

    level = ''

    def __init__(self, specials: Sequence[str] = SPECIALS):
        """Raises UsageError for specials that this does not know, or twice the same."""
        strange = sorted(set(specials) - set(PAIR_SPECIALS))
        if strange or len(set(specials)) != len(specials):
            raise UsageError(f'specials={tuple(specials)} are to be different ones of {", ".join(PAIR_SPECIALS)}')
        self.specials = tuple(specials)
        self.pad, self.unk, self.bos, self.eos = (
            self.specials.index(s) if s in self.specials else None for s in PAIR_SPECIALS
        )

    def __len__(self) -> int:
        raise NotImplementedError

    def encode(self, text: str) -> np.ndarray:
        """int32 [n]: `text` alone, with no special added. Raises CanonError for what has no number, without <unk>."""
        raise NotImplementedError

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, up to the specials: <pad> and <bos> vanish, <eos> ends a line, <unk> is '<unk>'."""
        raise NotImplementedError

    def extend_text(self, prompt: str, ids: Sequence[int]) -> str:
        """Returns `prompt` followed by the text of `ids`, with one space between words where words have spaces."""
        before = self.encode(prompt)
        head, text = self.decode(before), self.decode([*before, *ids])
        text = text.removeprefix(head) if text.startswith(head) else self.decode(ids)
        spaced = prompt[-1:].isspace() and not head[-1:].isspace()  # the tokens do not know of the space
        return prompt + (text.removeprefix(' ') if spaced else text)

    def stream(self, lines: Iterable[str]) -> np.ndarray:
        """int32 [n]: the lines one after the other as a language model reads them.

        Words and subwords have <eos> at the end of every line, of an empty one too (Mikolov, AWD-LSTM); characters
        and bytes have the line feed itself.
        """
        parts = [self._line(line) for line in lines]
        return np.concatenate(parts) if parts else np.zeros(0, np.int32)

    def _line(self, line: str) -> np.ndarray:
        if self.eos is None:
            raise UsageError(f"lines of {self.level}s need '<eos>' among the specials {self.specials}")
        return np.append(self.encode(line), np.int32(self.eos))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Each token as it is shown beside a picture."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """All of it, as JSON."""
        return json.dumps({'level': self.level, 'specials': self.specials, **self._fields()}).encode()

    def _fields(self) -> Mapping[str, Any]:
        return {}

    def save(self, path: str | Path) -> None:
        Path(path).write_bytes(self.to_bytes())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that are equal only for equal vocabularies."""
        return hashlib.sha256(self.to_bytes()).hexdigest()[:16]

    @property
    def about(self) -> About:
        return About(self.level, len(self), self.fingerprint)

    def _missing(self, what: str) -> int:
        if self.unk is None:
            raise CanonError(f"{what!r} is not in the vocabulary of {len(self)} {self.level}s, which has no '<unk>'")
        return self.unk

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)}, {self.fingerprint})'


class Bytes(Vocabulary):
    """The 256 bytes of UTF-8: knows every text. Bytes that are no UTF-8 are decoded as U+FFFD."""

    level = 'byte'

    def __len__(self) -> int:
        return len(self.specials) + _BYTES

    def encode(self, text: str) -> np.ndarray:
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

    def _line(self, line: str) -> np.ndarray:
        return self.encode(f'{line}\n')


class Characters(Vocabulary):
    """Each character of `symbols` a token."""

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
        codes = np.frombuffer(text.encode('utf-32-le', 'surrogatepass'), np.uint32)
        places = np.searchsorted(self._codes, codes, sorter=self._order).clip(max=len(self._codes) - 1)
        found = self._order[places]
        known = self._codes[found] == codes
        if known.all():
            return (found + len(self.specials)).astype(np.int32)
        unknown = self._missing(text[int(np.argmin(known))])
        return np.where(known, found + len(self.specials), unknown).astype(np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        shown = [*({'<eos>': '\n', '<unk>': '<unk>'}.get(s, '') for s in self.specials), *self.symbols]
        return ''.join(shown[i] for i in map(int, ids))

    def tokens(self, ids: Iterable[int]) -> list[str]:
        shown = [*self.specials, *({'\n': '⏎', ' ': '␣'}.get(c, c) for c in self.symbols)]
        return [shown[i] for i in map(int, ids)]

    def _line(self, line: str) -> np.ndarray:
        return self.encode(f'{line}\n')

    def _fields(self) -> Mapping[str, Any]:
        return {'symbols': ''.join(self.symbols)}


class Words(Vocabulary):
    """Each word of `symbols` a token.

    split: 'spaces', as the tokenised PTB and WikiText are written, or 'punctuation', where a run of letters and digits
    is a word and every other sign is one, each with its combining marks. A word of the text that is spelt like a
    special ('<unk>' in PTB) is it.
    """

    level = 'word'

    def __init__(self, symbols: Sequence[str], split: str = 'spaces', specials: Sequence[str] = SPECIALS):
        super().__init__(specials)
        self.symbols, self.split = tuple(symbols), split
        self._find = _splitter(split)
        self._shown = (*self.specials, *self.symbols)
        _check_symbols(self, all(self.symbols))
        self._numbers = {word: i for i, word in enumerate(self._shown)}

    def __len__(self) -> int:
        return len(self._shown)

    def encode(self, text: str) -> np.ndarray:
        words = self._find(text)
        try:
            return np.array([self._numbers[word] for word in words], np.int32)
        except KeyError as error:
            unknown = self._missing(error.args[0])
            return np.array([self._numbers.get(word, unknown) for word in words], np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        """Words between single spaces: what `split='punctuation'` took apart stays apart."""
        dropped = {self.pad, self.bos}
        text = ' '.join('\n' if i == self.eos else self._shown[i] for i in map(int, ids) if i not in dropped)
        return re.sub(' ?\n ?', '\n', text)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self._shown[i] for i in map(int, ids)]

    def _fields(self) -> Mapping[str, Any]:
        return {'symbols': self.symbols, 'split': self.split}


class Subwords(Vocabulary):
    """The pieces of a sentencepiece model (Kudo and Richardson 2018), which holds the specials itself."""

    level = 'subword'

    def __init__(self, model: bytes):
        """model: as sentencepiece serialises it. Raises CanonError for bytes that are none."""
        import sentencepiece

        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError) as error:
            raise CanonError(f'these {len(model)} bytes are no sentencepiece model; train it again') from error
        count = len(self._pieces)
        numbered = {s: self._pieces.piece_to_id(s) for s in PAIR_SPECIALS}
        present = [s for s, i in numbered.items() if 0 <= i < count and self._pieces.id_to_piece(i) == s]
        super().__init__(sorted(present, key=numbered.__getitem__))
        self.model = model
        self._adds_space = self._pieces.id_to_piece(self._pieces.encode('a')[0]).startswith(_SPACE)  # before a line

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._pieces.encode(text.replace(_SPACE, _SPACE_SIGN).replace('<unk>', _UNKNOWN)), np.int32)

    def decode(self, ids: Iterable[int]) -> str:
        lines: list[list[int]] = [[]]
        for i in map(int, ids):
            if i == self.eos:
                lines.append([])
            elif i not in (self.pad, self.bos):
                lines[-1].append(i)
        return '\n'.join(map(self._decode_line, lines))

    def _decode_line(self, ids: list[int]) -> str:
        """As sentencepiece decodes, but for unknown pieces, for which it writes a sign with spaces around it."""
        text = b''.join(map(self._spell, ids)).decode(errors='replace').replace(_SPACE, ' ')
        return (
            text.removeprefix(' ' if self._adds_space else '').replace(_SPACE_SIGN, _SPACE).replace(_UNKNOWN, '<unk>')
        )

    def _spell(self, i: int) -> bytes:
        piece = self._pieces.id_to_piece(i)
        if self._pieces.is_byte(i):  # written as '<0x41>'
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
    """A vocabulary of the text `lines`, the same for the same text.

    level: 'byte', 'character', 'word' or 'subword'.
    size: of the whole, specials included; the most frequent symbols are taken. None takes all, of subwords there is
    no such thing. min_count: symbols that are rarer are <unk>.
    split: of words. model_type: 'unigram' or 'bpe'; byte_fallback: unknown characters as bytes; both of subwords.
    Characters have the line feed that ends every line.

    Raises UsageError for a size that the text cannot fill (it says how many there are), an empty text, an unknown
    level.
    """
    if level == 'byte':
        return Bytes(specials)
    if level == 'subword':
        return _subwords(lines, size, specials, model_type, byte_fallback)
    if level not in ('character', 'word'):
        raise UsageError(f"level={level!r} is none of 'byte', 'character', 'word', 'subword'")
    counts: Counter[str] = Counter()
    find = _splitter(split) if level == 'word' else lambda line: f'{line}\n'
    for line in lines:
        counts.update(find(line))
    if level == 'word':
        for special in specials:
            counts.pop(special, None)
    chosen = _most_frequent(counts, level, size, min_count, specials)
    return Words(chosen, split, specials) if level == 'word' else Characters(chosen, specials)


def read(path: str | Path) -> Vocabulary:
    """The vocabulary that `save` wrote. Raises UsageError for a missing file, CanonError for another's."""
    file = text_files.named_path(path)
    if not file.is_file():
        raise UsageError(f'there is no vocabulary {file}')
    return from_bytes(text_files.read_bytes(file), str(file))


def from_bytes(data: bytes, name: str = 'a vocabulary') -> Vocabulary:
    """The inverse of `to_bytes`; `name` is for errors."""
    try:
        spec = json.loads(data)
        level = spec.pop('level')
        if level == 'subword':
            return Subwords(base64.b64decode(spec['model']))
        return {'byte': Bytes, 'character': Characters, 'word': Words}[level](**spec)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CanonError(f'{name} is no vocabulary of ours ({error}); build it again') from error


def check(stored: Sequence[Any], now: Vocabulary, where: str) -> None:
    """Raises CanonError unless `stored`, an `About` that the run `where` kept, is that of the vocabulary `now`."""
    before = About(*stored)
    if before != now.about:
        told = ' and '.join(f'{a.size} {a.level}s ({a.fingerprint})' for a in (before, now.about))
        raise CanonError(
            f'{where} was trained with another vocabulary than this text and these settings give: {told};'
            ' give it the ones it had, or begin in another folder'
        )


def _splitter(split: str):
    if split not in _SPLITS:
        raise UsageError(f'split={split!r}: words have no such split{named.suggest(str(split), _SPLITS)}')
    return str.split if split == 'spaces' else _word_or_sign().findall


@cache
def _word_or_sign() -> re.Pattern[str]:
    """A run of letters and digits, or one other sign; each with the marks that combine with it.

    Python's \\w leaves out combining marks (Hindi's vowel signs, Arabic's points, decomposed accents), and the joiners
    U+200C and U+200D, which stand inside of words: they never begin one (Unicode Annex 29, rule WB4).
    """
    codes = [i for i in range(sys.maxunicode + 1) if unicodedata.category(chr(i))[0] == 'M'] + [0x200C, 0x200D]
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
        raise UsageError(f'{len(symbols)} {vocabulary.level}s of a vocabulary: one stands twice or is no such thing')


def _most_frequent(counts: Counter[str], level: str, size: int | None, min_count: int, specials) -> list[str]:
    """Symbols by falling count; of equal ones, the one that sorts first."""
    ranked = sorted((s for s, n in counts.items() if n >= min_count), key=lambda s: (-counts[s], s))
    room = len(ranked) if size is None else size - len(specials)
    if room > len(ranked):
        rare = f' that occur {min_count} times' if min_count > 1 else ''
        raise UsageError(
            f'a vocabulary of size={size} is larger than the text allows: {len(ranked)} different {level}s{rare} and'
            f' {len(specials)} specials make {len(ranked) + len(specials)}; lower size, or leave it out to take all'
        )
    if room < 1 and ranked:
        raise UsageError(f'size={size} leaves no room for {level}s beside the {len(specials)} specials; raise it')
    return ranked[:room]


def _subwords(lines: Iterable[str], size: int | None, specials, model_type: str, byte_fallback: bool) -> Subwords:
    """Nothing is normalised and one thread counts: the same text gives the same bytes, and decoding gives it back."""
    import sentencepiece

    Vocabulary(specials)  # raises for unknown ones
    if size is None:
        raise UsageError('subwords need a size: the number of pieces, specials included')
    if '<unk>' not in specials:
        raise UsageError("subwords need '<unk>' among their specials")
    if model_type not in ('unigram', 'bpe'):
        raise UsageError(f"model_type={model_type!r} is neither 'unigram' nor 'bpe'")
    text = [line.replace(_SPACE, _SPACE_SIGN) for line in lines if line.strip()]
    if not text:
        raise UsageError('a vocabulary of subwords needs a text; it is empty')
    written = io.BytesIO()
    numbers: dict[str, Any] = {f'{s[1:-1]}_id': specials.index(s) if s in specials else -1 for s in PAIR_SPECIALS}
    pieces: dict[str, Any] = {f'{s[1:-1]}_piece': s for s in PAIR_SPECIALS}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(text), model_writer=written, vocab_size=size, model_type=model_type,
            byte_fallback=byte_fallback, character_coverage=1.0, normalization_rule_name='identity',
            remove_extra_whitespaces=False, num_threads=1, minloglevel=2, max_sentence_length=1 << 20,
            **numbers, **pieces,
        )  # fmt: skip
    except RuntimeError as error:
        raise UsageError(_why_not(size, str(error))) from error
    return Subwords(written.getvalue())


def _why_not(size: int, told: str) -> str:
    most = re.search(r'value <= (\d+)', told)
    if most:
        return f'a vocabulary of size={size} is larger than the text allows; set it to at most {most[1]}'
    least = re.search(r'(\d+) vs (\d+)', told)
    if least and 'smaller' in told:
        return f'size={size} is smaller than the {least[2]} characters and specials of the text; raise it'
    return f'sentencepiece makes no {size} pieces of this text: {told.splitlines()[0]}'
