"""Reading CTC with the help of words: a lexicon, whole or near the best path, or a model of characters in the beam.

Shi et al. 2015, section 2.3.3: a small lexicon is scored as a whole (`canon.ops.ctc.score_labels`), a large one near
the best path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from canon.data.text.alphabets import Alphabet
from canon.data.text.character_models import fit_character_model
from canon.data.text.engine.lexicon import read_words
from canon.errors import UsageError
from canon.metrics.text_scores import edit_distances
from canon.named import Count, NonNegative, Range
from canon.ops.ctc import Readings, best_path, prefix_beam_search, score_labels
from canon.tasks.text.lexicons import BKTree, encode_texts

PAPER_DISTANCE = 3  # edits, Shi et al. 2015
_LEAST_CANDIDATES = 8  # candidates are padded to powers of two times this, so that few programs are compiled


class LexiconReader:
    """Reads argmax over the words w of a lexicon of p(w | frames).

    With a distance, these are the words near l', the label of the most probable path: the paper takes 3 edits, with a
    lexicon of 50,000 words. They are found by a BK-tree on the host, and scored by CTC on the device. Without a near
    word the reading is l' itself.

        reader = LexiconReader(words, Alphabet(), distance=3)
        texts = reader.read(task.predict(params, mutable, batch))

    Attributes:
      words: of the lexicon, each once.
      description: for tables, 'lexicon of 50,000 words within 3 edits'.
    """

    def __init__(
        self, words: Iterable[str], alphabet: Alphabet, distance: int | None = PAPER_DISTANCE, title: str = 'lexicon'
    ):
        """
        Args:
          words: of the lexicon; characters that the alphabet lacks are removed.
          alphabet: of classes 1, 2, ...
          distance: edits between the best path and a word, at most; None scores every word.
          title: of the lexicon, for its description and for errors.

        Raises:
          UsageError: no word is left, or the distance is negative.
        """
        self.words = _filter_words(words, alphabet)
        if not self.words:
            raise UsageError(f'the {title} has no word of the characters {alphabet.characters!r}')
        self.alphabet, self.distance = alphabet, _check_distance(distance)
        self.description = f'{title} of {len(self.words):,} words{_describe_distance(distance)}'
        if distance is None:
            (self._labels,), (self._lengths,) = encode_lexica([self.words], alphabet)
        else:
            self._tree = BKTree(self.words)

    def read(self, log_probs: jax.Array, index: np.ndarray | None = None) -> list[str]:
        """Reads each row.

        Args:
          log_probs: of the classes in each frame, [B, T, C]; class 0 is the blank.
          index: not used; as of `OwnLexiconReader`.
        """
        if self.distance is None:
            return [self.words[place] for place in _find_best(log_probs, self._labels, self._lengths)]
        texts = _read_paths(log_probs, self.alphabet)
        near = [[word for word, _ in self._tree.find(text, self.distance)] for text in texts]
        return _read_among(log_probs, texts, near, self.alphabet)


class OwnLexiconReader:
    """Reads each example as the most probable word of a lexicon of its own, as IIIT5K and SVT have them.

    Attributes:
      lexica: the words of each example, each once.
      description: for tables, 'own lexica of 50 words'.
    """

    def __init__(
        self,
        lexica: Sequence[Sequence[str]],
        alphabet: Alphabet,
        distance: int | None = None,
        title: str = 'own lexica',
    ):
        """
        Args:
          lexica: words of each example.
          alphabet: of classes 1, 2, ...
          distance: edits between the best path and a word, at most; None scores every word.
          title: of the lexica, for their description and for errors.

        Raises:
          UsageError: an example has no word, or the distance is negative.
        """
        # Words that differ in signs and case alone are one.
        self.lexica = [_filter_words(words, alphabet) for words in lexica]
        if not all(self.lexica) or not self.lexica:
            raise UsageError(f'the {title} have no word for every image')
        self.alphabet, self.distance = alphabet, _check_distance(distance)
        least, most = (bound(map(len, self.lexica)) for bound in (min, max))
        sizes = f'{most:,}' if least == most else f'{least:,} to {most:,}'
        self.description = f'{title} of {sizes} words{_describe_distance(distance)}'
        if distance is None:
            self._labels, self._lengths = encode_lexica(self.lexica, alphabet)

    def read(self, log_probs: jax.Array, index: np.ndarray) -> list[str]:
        """Reads each row.

        Args:
          log_probs: of the classes in each frame, [B, T, C]; class 0 is the blank.
          index: of the examples, [B]: the place of each in `lexica`.
        """
        lexica = [self.lexica[place] for place in index]
        if self.distance is None:
            best = _find_best(log_probs, self._labels[index], self._lengths[index])
            return [words[place] for words, place in zip(lexica, best, strict=True)]
        texts = _read_paths(log_probs, self.alphabet)
        near = [_find_near(words, text, self.distance) for words, text in zip(lexica, texts, strict=True)]
        return _read_among(log_probs, texts, near, self.alphabet)


AnyLexiconReader = LexiconReader | OwnLexiconReader


def make_lexicon_reader(
    lexicon: str, source: Any, alphabet: Alphabet, distance: int | None = None, where: str = 'the set'
) -> AnyLexiconReader | None:
    """Makes the reader of a lexicon that a config names, None for none.

    Args:
      lexicon: 'none'; 'own', the lexicon of each example (`source.read_lexicon(index)`); 'full', all words of the
        source; or a file with a word per line.
      source: the examples.
      alphabet: of classes 1, 2, ...
      distance: edits between the best path and the words that are scored, at most; None scores every word.
      where: the name of the set, for errors.

    Raises:
      UsageError: there is no such file, or an example has no lexicon.
    """
    if lexicon == 'none':
        return None
    if lexicon == 'own':
        read_lexicon = getattr(source, 'read_lexicon', None)
        lexica = [read_lexicon(i) for i in range(len(source))] if read_lexicon else []
        if not lexica or not all(lexica):
            raise UsageError(
                f"{where} has no lexicon of its own for every image: lexicon must be 'none', 'full' or a file (IIIT5K "
                "has lexica with source.lexicon='small' or 'medium')"
            )
        return OwnLexiconReader(lexica, alphabet, distance)
    if lexicon == 'full':
        return LexiconReader(list_texts(source, alphabet), alphabet, distance, 'full lexicon')
    return LexiconReader(read_words(lexicon, alphabet)[0], alphabet, distance, f'lexicon {Path(lexicon).name}')


def list_texts(source: Any, alphabet: Alphabet) -> list[str]:
    """Lists the texts of all examples; where a source has no `read_text`, they are read from its labels."""
    read_text = getattr(source, 'read_text', None)
    return [read_text(i) if read_text else alphabet.decode(source[i]['label']) for i in range(len(source))]


def read_with_lexicon(log_probs: jax.Array, reader: AnyLexiconReader, index: np.ndarray | None = None) -> Readings:
    """Reads the words of a lexicon as labels [B, T], their lengths [B] and their exact log probabilities [B].

    It searches on the host, so that it cannot be compiled.

    Args:
      log_probs: of the classes in each frame, [B, T, C].
      reader: of the lexicon.
      index: of the examples, [B], for lexica of their own.
    """
    words = [[text] for text in reader.read(log_probs, index)]  # ty: ignore[invalid-argument-type]
    # No reading is longer than the frames: a shape that does not depend on what is read.
    labels, lengths = encode_lexica(words, reader.alphabet, longest=log_probs.shape[1])
    scores = _score(log_probs, _full_lengths(log_probs), labels, lengths)
    return Readings(jnp.asarray(labels[:, 0]), jnp.asarray(lengths[:, 0]), scores[:, 0])


def make_language_decoder(
    words: Iterable[str],
    alphabet: Alphabet,
    order: Annotated[int, Range(1)] = 3,
    beam_width: Count = 10,
    weight: NonNegative = 1.0,
    insertion_bonus: float = 0.0,
) -> Callable[[jax.Array], Readings]:
    """Returns a decoder of CTC that prefers texts which a model of characters, fitted to words, finds probable.

    It takes log probabilities [B, T, C] to the best reading of each row, as
    `canon.tasks.text.recognition.decode_labels` does; the log probability is the sum that `prefix_beam_search` states.

    Args:
      words: that the model is fitted to (`fit_character_model`).
      alphabet: of classes 1, 2, ...
      order: characters of the longest n-grams.
      beam_width: prefixes that the beam keeps.
      weight: of the model; 0 ignores it.
      insertion_bonus: per character.
    """
    table = jnp.asarray(fit_character_model(words, alphabet, order))

    def decode(log_probs: jax.Array) -> Readings:
        lengths = jnp.full(len(log_probs), log_probs.shape[1])
        beam = prefix_beam_search(
            log_probs, lengths, beam_width, language_model=table, weight=weight, insertion_bonus=insertion_bonus
        )
        return Readings(*(x[:, 0] for x in beam))

    return decode


def encode_lexica(
    lexica: Sequence[Sequence[str]], alphabet: Alphabet, count: int | None = None, longest: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes lists of words: labels int32 [n, count, longest], and their lengths int32 [n, count], 0 for no word.

    Args:
      lexica: words that the alphabet can encode.
      alphabet: of classes 1, 2, ...
      count: words of the longest list, or more; None for those.
      longest: characters of the longest word, or more; None for those.
    """
    count = max(map(len, lexica), default=0) if count is None else count
    longest = max((len(word) for words in lexica for word in words), default=0) if longest is None else longest
    labels, lengths = np.zeros((len(lexica), count, longest), np.int32), np.zeros((len(lexica), count), np.int32)
    for row, words in enumerate(lexica):
        for place, word in enumerate(words):
            encoded = alphabet.encode(word, longest)
            labels[row, place], lengths[row, place] = encoded['label'], encoded['label_length']
    return labels, lengths


def _filter_words(words: Iterable[str], alphabet: Alphabet) -> list[str]:
    return list(dict.fromkeys(text for text in map(alphabet.filter, words) if text))


def _check_distance(distance: int | None) -> int | None:
    if distance is not None and distance < 0:
        raise UsageError(f'distance={distance} must not be negative')
    return distance


def _describe_distance(distance: int | None) -> str:
    return '' if distance is None else f' within {distance} edit{"s" if distance != 1 else ""}'


def _find_near(words: Sequence[str], text: str, distance: int) -> list[str]:
    """Returns the words within a distance of a text, the nearest first."""
    apart = edit_distances(*encode_texts(words), *encode_texts([text]))
    order = np.argsort(apart, kind='stable')
    return [words[place] for place in order[: int((apart <= distance).sum())]]


def _read_among(
    log_probs: jax.Array, texts: Sequence[str], near: Sequence[Sequence[str]], alphabet: Alphabet
) -> list[str]:
    """Reads each row as the most probable of its near words, and as its text if there are none.

    Of equally probable words the nearest is read, then the first of the lexicon.
    """
    most = max(map(len, near), default=0)
    if not most:
        return list(texts)
    count = _LEAST_CANDIDATES
    while count < most:
        count *= 2
    longest = -_LEAST_CANDIDATES * (-max(len(word) for words in near for word in words) // _LEAST_CANDIDATES)
    chosen = _find_best(log_probs, *encode_lexica(near, alphabet, count, longest))
    return [words[place] if words else text for words, place, text in zip(near, chosen, texts, strict=True)]


def _read_paths(log_probs: jax.Array, alphabet: Alphabet) -> list[str]:
    return [alphabet.decode(row) for row in np.asarray(_best_path(log_probs, _full_lengths(log_probs)).labels)]


def _find_best(log_probs: jax.Array, labels: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Finds the word that CTC finds most probable in a lexicon: its place, int [B]; the first of a tie.

    Args:
      log_probs: [B, T, C].
      labels: [N, L], the same for all rows, or [B, N, L].
      lengths: of the words, [N] or [B, N]; 0 for no word.
    """
    scores = np.asarray(_score(log_probs, _full_lengths(log_probs), labels, lengths))
    return np.where(lengths > 0, scores, -np.inf).argmax(1)


def _full_lengths(log_probs: jax.Array) -> np.ndarray:
    return np.full(len(log_probs), log_probs.shape[1], np.int32)


_best_path, _score = jax.jit(best_path), jax.jit(score_labels)
