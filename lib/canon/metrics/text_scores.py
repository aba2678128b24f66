"""Scores of texts that were read, as strings on the host: word accuracies, CER, WER and normalised edit distances.

Published results of scene text compare texts in lower case without anything besides the 36 digits and letters, on both
sides; those of handwriting compare them as they are. A character error rate is the sum of all edits over the sum of all
lengths, not a mean of ratios. The normalised edit distance has three conventions, which differ on short and on empty
texts (`normalise_distances`).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np

from canon.errors import UsageError
from canon.metrics.mean import Mean

Comparison = Literal['alphanumeric', 'exact']
Convention = Literal['dtrb', 'parseq', 'reference']

_OTHERS = re.compile('[^0-9a-z]')


def simplify_text(text: str) -> str:
    """Returns a text in lower case without anything besides its digits and Latin letters.

    >>> simplify_text("Don't!")
    'dont'
    """
    return _OTHERS.sub('', text.lower())


def count_edits(a: Sequence[Sequence[Hashable]], b: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """Computes the Levenshtein distances of pairs of sequences, int64 [n]: of characters, or of words.

    >>> count_edits(['kitten', 'a'], ['sitting', '']).tolist()
    [3, 1]
    """
    numbers: dict[Hashable, int] = {}  # characters and words become numbers that are equal if they are
    return edit_distances(*_pad(a, numbers), *_pad(b, numbers))


def edit_distances(a: np.ndarray, a_lengths: np.ndarray, b: np.ndarray, b_lengths: np.ndarray) -> np.ndarray:
    """Computes Levenshtein distances of pairs, int64 [P], as `edit_distance` does on a device.

    Args:
      a: [P, N], padded.
      a_lengths: [P].
      b: [P or 1, M], padded.
      b_lengths: [P or 1].
    """
    pairs, columns = len(a), np.arange(b.shape[1] + 1)
    row = np.broadcast_to(columns, (pairs, len(columns)))
    result = np.where(a_lengths == 0, b_lengths, 0)
    ends = np.broadcast_to(b_lengths, pairs)[:, None]
    for i in range(int(a_lengths.max(initial=0))):
        new = np.empty_like(row)
        new[:, 0] = i + 1
        new[:, 1:] = np.minimum(row[:, 1:] + 1, row[:, :-1] + (a[:, i : i + 1] != b))
        # Insertions within the row: a running minimum of d - column (Wagner & Fischer 1974, without its inner loop).
        row = np.minimum.accumulate(new - columns, axis=1) + columns
        result = np.where(a_lengths == i + 1, np.take_along_axis(row, ends, 1)[:, 0], result)
    return result


def _pad(sequences: Sequence[Sequence[Hashable]], numbers: dict[Hashable, int]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(sequence) for sequence in sequences], int)
    padded = np.full((len(sequences), max(lengths, default=0)), -1)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = [numbers.setdefault(item, len(numbers)) for item in sequence]
    return padded, lengths


def normalise_distances(
    edits: np.ndarray, reading_lengths: np.ndarray, reference_lengths: np.ndarray, convention: Convention
) -> np.ndarray:
    """Normalises edit distances of texts, float64 [n].

    'dtrb': 1 - edits / max(lengths), and 0 if either text is empty; of ICDAR 2019 and deep-text-recognition-benchmark
    (Baek et al. 2019). Higher is better.
    'parseq': edits / max(lengths), and 0 for two empty texts (Bautista & Atienza 2022). Lower is better; 1 minus it is
    'dtrb' unless both texts are empty.
    'reference': edits / length of the reference, which may exceed 1; of an empty one, 1 unless the reading is empty as
    well. Of ICDAR 2013 and 2015. Lower is better.

    Args:
      edits: edit distances [n].
      reading_lengths: of the texts that were read [n].
      reference_lengths: of the true texts [n].
      convention: one of the three.
    """
    if convention == 'reference':
        return np.where(reference_lengths > 0, edits / np.maximum(reference_lengths, 1), edits > 0)
    ratio = edits / np.maximum(np.maximum(reading_lengths, reference_lengths), 1)
    if convention == 'parseq':
        return ratio
    return np.where((reading_lengths > 0) & (reference_lengths > 0), 1 - ratio, 0.0)


def score_texts(
    readings: Sequence[str], references: Sequence[str], compare: Comparison = 'alphanumeric'
) -> dict[str, Mean]:
    """Scores texts that were read: accumulators that add over batches.

    Args:
      readings: the texts that were read.
      references: the true texts.
      compare: what the rates and distances compare: 'alphanumeric' simplified texts, 'exact' texts as they are.

    Returns:
      `word_accuracy_36`, the share of texts that are right after `simplify_text`, and `word_accuracy`, of those that
      are exactly right; `character_error_rate` and `word_error_rate`, edits over the length of the references;
      `ned_dtrb`, `ned_parseq` and `ned_reference`, means of `normalise_distances`.

    Raises:
      UsageError: the numbers of texts differ, or `compare` is unknown.

        >>> scores = score_texts(['Cafe', 'tea'], ['cafe!', 'ten'])
        >>> {name: float(mean.value) for name, mean in scores.items() if 'rate' not in name and 'ned' not in name}
        {'word_accuracy_36': 0.5, 'word_accuracy': 0.0}
    """
    if len(readings) != len(references):
        raise UsageError(f'{len(readings)} readings cannot be scored against {len(references)} references')
    if compare not in get_args(Comparison):
        raise UsageError(f'compare={compare!r} must be one of {", ".join(map(repr, get_args(Comparison)))}')
    simple = [[simplify_text(text) for text in side] for side in (readings, references)]
    exact = [list(readings), list(references)]
    read, true = simple if compare == 'alphanumeric' else exact
    edits = count_edits(read, true)
    lengths = [np.array([len(text) for text in side], int) for side in (read, true)]
    words = [[_split_words(text, compare) for text in side] for side in (readings, references)]
    count = len(references)
    return {
        'word_accuracy_36': _count_equal(*simple),
        'word_accuracy': _count_equal(*exact),
        'character_error_rate': _mean(edits.sum(), lengths[1].sum()),
        'word_error_rate': _mean(count_edits(*words).sum(), sum(map(len, words[1]))),
        **{
            f'ned_{name}': _mean(normalise_distances(edits, *lengths, name).sum(), count)
            for name in get_args(Convention)
        },
    }


def _split_words(text: str, compare: Comparison) -> list[str]:
    words = text.split()
    # Simplified one by one, since the spaces go with all other signs.
    return [word for word in map(simplify_text, words) if word] if compare == 'alphanumeric' else words


def _count_equal(readings: Sequence[str], references: Sequence[str]) -> Mean:
    return _mean(sum(a == b for a, b in zip(readings, references, strict=True)), len(references))


def _mean(total: float, weight: float) -> Mean:
    return Mean(np.float64(total), np.float64(weight))
