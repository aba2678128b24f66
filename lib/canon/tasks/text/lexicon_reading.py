"""Reading CTC with the help of words: a large lexicon near the best path, or a model of characters in the beam.

Shi et al. 2015, section 2.3.3, for the lexicon; a small lexicon is scored as a whole (`canon.ops.ctc.score_labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from canon.data.text.alphabets import Alphabet
from canon.data.text.character_models import fit_character_model
from canon.errors import UsageError
from canon.named import Count, NonNegative, Range
from canon.ops.ctc import Readings, best_path, prefix_beam_search, score_labels
from canon.tasks.text.lexicons import BKTree

_LEAST_CANDIDATES = 8  # shapes are powers of two times this, so that few programs are compiled


class LexiconReader:
    """Reads argmax over the words w near l' of p(w | frames), where l' is the label of the most probable path.

    Near are words within an edit distance of l'; the paper takes 3, with a lexicon of 50,000 words. They are found by a
    BK-tree on the host, and scored by CTC on the device. Without a near word the reading is l' itself.

        reader = LexiconReader(words, Alphabet(), distance=3)
        texts = reader.read(task.predict(params, mutable, batch))
    """

    def __init__(self, words: Iterable[str], alphabet: Alphabet, distance: int = 3):
        """
        Args:
          words: of the lexicon; characters that the alphabet lacks are removed.
          alphabet: of classes 1, 2, ...
          distance: edits between the best path and a word, at most.

        Raises:
          UsageError: no word is left, or the distance is negative.
        """
        if distance < 0:
            raise UsageError(f'distance={distance} must not be negative')
        self.alphabet, self.distance = alphabet, distance
        self.tree = BKTree([text for text in map(alphabet.filter, words) if text])
        self.longest = max(map(len, self.tree.words))

    def read(self, log_probs: jax.Array, lengths: jax.Array | None = None) -> list[str]:
        """Reads each row.

        Args:
          log_probs: of the classes in each frame, [B, T, C]; class 0 is the blank.
          lengths: frames of each row [B]; all T if None.
        """
        lengths = jnp.full(len(log_probs), log_probs.shape[1]) if lengths is None else lengths
        best = np.asarray(_best_path(log_probs, lengths).labels)
        texts = [self.alphabet.decode(row) for row in best]
        near = [[word for word, _ in self.tree.find(text, self.distance)] for text in texts]
        most = max(map(len, near), default=0)
        if not most:
            return texts
        count = _LEAST_CANDIDATES
        while count < most:
            count *= 2
        chosen = np.asarray(find_best(log_probs, lengths, *encode_lexica(near, self.alphabet, count, self.longest)))
        # Of equally probable words the nearest is taken, then the first of the lexicon.
        return [words[place] if words else text for words, place, text in zip(near, chosen, texts, strict=True)]


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
    lexica: Sequence[Sequence[str]], alphabet: Alphabet, count: int, longest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Encodes lists of words: labels int32 [n, count, longest], and their lengths int32 [n, count], 0 for no word.

    Args:
      lexica: words that the alphabet can encode.
      alphabet: of classes 1, 2, ...
      count: words of the longest list, or more.
      longest: characters of the longest word, or more.
    """
    labels, lengths = np.zeros((len(lexica), count, longest), np.int32), np.zeros((len(lexica), count), np.int32)
    for row, words in enumerate(lexica):
        for place, word in enumerate(words):
            encoded = alphabet.encode(word, longest)
            labels[row, place], lengths[row, place] = encoded['label'], encoded['label_length']
    return labels, lengths


@jax.jit
def find_best(log_probs: jax.Array, frames: jax.Array, labels: jax.Array, lengths: jax.Array) -> jax.Array:
    """Finds the word that CTC finds most probable in the lexicon of each row: its place, int [B]; the first of a tie.

    Args:
      log_probs: [B, T, C].
      frames: of each row, [B].
      labels: [B, N, L].
      lengths: of the words, [B, N]; 0 for no word.
    """
    return jnp.where(lengths > 0, score_labels(log_probs, frames, labels, lengths), -jnp.inf).argmax(1)


_best_path = jax.jit(best_path)
