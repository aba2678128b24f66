"""Word accuracy against the size of the lexicon, by exact scores and by the words near the best path, in one pass.

Shi et al. 2015, section 2.3.3. Each image has a lexicon of its own: N words, its text among them, as those of IIIT5K
and SVT. The others are the first ones of a list, so that lexica of several sizes are nested, and scoring the longest
one gives the readings of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from canon.data.text.alphabets import Alphabet
from canon.errors import UsageError
from canon.metrics import Mean
from canon.metrics.text_scores import edit_distances
from canon.ops.ctc import best_path, score_labels
from canon.tasks.text.lexicon_reading import encode_lexica
from canon.tasks.text.lexicons import BKTree, encode_texts

_GROUPS = (6, 10)  # characters up to which words are scored together: padding them to the longest takes twice as long


class LexiconSizes:
    """Measures what is read with lexica of several sizes.

    lexica = LexiconSizes(words, alphabet, sizes=(50, 1000))
    means = lexica.measure(task.predict(params, mutable, batch), ['hotel', 'street'])
    print(means['exact_50'].value, means['within_3_1000'].value, means['scored_3_1000'].value)
    """

    def __init__(
        self, words: Iterable[str], alphabet: Alphabet, sizes: Sequence[int], distances: Sequence[int] = (1, 2, 3)
    ):
        """
        Args:
          words: from which lexica are taken, in this order; characters that the alphabet lacks are removed.
          alphabet: of classes 1, 2, ...
          sizes: words of each lexicon.
          distances: edits between the best path and a word, at most.

        Raises:
          UsageError: there are fewer words than the largest size, or a size or a distance is too small.
        """
        self.words = list(dict.fromkeys(text for text in map(alphabet.filter, words) if text))
        self.alphabet, self.sizes, self.distances = alphabet, tuple(sizes), tuple(distances)
        if not self.sizes or min(self.sizes) < 1 or min(self.distances, default=0) < 0:
            raise UsageError(f'lexicon.sizes={self.sizes} start at 1, and lexicon.distances={self.distances} at 0')
        if len(self.words) < max(self.sizes):
            raise UsageError(f'lexicon.sizes has {max(self.sizes):,}, and the list has {len(self.words):,} words')
        self._places = {word: place for place, word in enumerate(self.words)}
        self._tree = BKTree(self.words)
        self._groups = _group_by_length(self.words, alphabet)

    def measure(self, log_probs: jax.Array | np.ndarray, targets: Sequence[str]) -> dict[str, Mean]:
        """Reads the images of a batch with every lexicon.

        Args:
          log_probs: of the classes in each frame, [B, T, C]; class 0 is the blank.
          targets: the text of each image, of the alphabet's characters.

        Returns:
          'exact_N', the share of images whose text is the most probable word of the lexicon of N; 'within_D_N', the
          same among its words within D edits of the best path; and 'scored_D_N', the mean number of these. A text that
          needs more frames than there are is never read.
        """
        log_probs = jnp.asarray(log_probs)
        frames = jnp.full(len(log_probs), log_probs.shape[1])
        scores = np.empty((len(log_probs), len(self.words)), np.float32)
        for places, labels, lengths in self._groups:
            scores[:, places] = _score(log_probs, frames, labels, lengths)
        own_labels = encode_lexica([[text] for text in targets], self.alphabet, 1, max(map(len, targets)))
        own_scores = np.asarray(_score(log_probs, frames, *own_labels))[:, 0]
        best = np.asarray(_best_path(log_probs, frames).labels)
        sums: dict[str, float] = {}
        for row, target in enumerate(targets):
            text = self.alphabet.decode(best[row])
            for name, value in self._measure_row(scores[row], own_scores[row], text, target).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: Mean(np.float32(total), np.float32(len(targets))) for name, total in sums.items()}

    def _measure_row(self, scores: np.ndarray, own: float, text: str, target: str) -> dict[str, float]:
        """Measures one image.

        Args:
          scores: log probabilities of the words, [W].
          own: that of its text.
          text: the label of its best path.
          target: its text.
        """
        place = self._places.get(target, len(self.words))
        others = np.append(scores, -np.inf)
        others[place] = -np.inf  # an image's own word is not one of the others
        edits = np.full(len(self.words) + 1, np.iinfo(np.int32).max)
        for word, distance in self._tree.find(text, max(self.distances, default=0)):
            edits[self._places[word]] = distance
        edits[place] = np.iinfo(np.int32).max
        own_edits = int(edit_distances(*encode_texts([target]), *encode_texts([text]))[0])
        # Words of the list that a lexicon of N has: one fewer, unless the image's own is among them.
        ends = {size: size if place < size else size - 1 for size in self.sizes}
        values = {f'exact_{size}': float(own > _largest(others[:end])) for size, end in ends.items()}
        for distance in self.distances:
            near, is_own_near = edits <= distance, own_edits <= distance
            for size, end in ends.items():
                rivals = others[:end][near[:end]]
                values[f'within_{distance}_{size}'] = float(is_own_near and own > _largest(rivals))
                values[f'scored_{distance}_{size}'] = float(len(rivals) + is_own_near)
        return values


def _group_by_length(words: Sequence[str], alphabet: Alphabet) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns (places int [n], labels int32 [n, L], lengths int32 [n]) of short, middle and long words."""
    lengths = np.array([len(word) for word in words])
    groups = np.searchsorted(_GROUPS, lengths)  # the first bound that a length does not exceed
    encoded = []
    for group in np.unique(groups):
        places = np.flatnonzero(groups == group)
        chosen = [words[place] for place in places]
        labels, sizes = encode_lexica([chosen], alphabet, len(chosen), int(lengths[places].max()))
        encoded.append((places, labels[0], sizes[0]))
    return encoded


def _largest(scores: np.ndarray) -> float:
    return float(scores.max(initial=-np.inf))


_score, _best_path = jax.jit(score_labels), jax.jit(best_path)
