"""Lexica of several sizes in one pass, against reading with each of them."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from canon.data import Alphabet
from canon.errors import UsageError
from canon.ops.ctc import score_labels
from canon.tasks.text.lexicon_reading import LexiconReader, encode_lexica
from canon.tasks.text.lexicon_sizes import LexiconSizes
from canon.tasks.text.lexicons import edit_distances, encode_texts


def test_every_size_reads_what_its_lexicon_reads():
    rng = np.random.default_rng(0)
    alphabet, sizes, distances = Alphabet('abc'), (1, 2, 9, 20), (0, 1)
    words = list(dict.fromkeys(''.join(rng.choice(list('abc'), rng.integers(1, 6))) for _ in range(60)))[:24]
    # Texts that are in every lexicon, in the longest only, at the very end of one, and in none.
    targets = [words[0], words[1], words[2], words[15], words[8], words[19], 'cacb', 'abab']
    log_probs = jnp.asarray(log_softmax(2 * rng.normal(size=(len(targets), 9, 4)), -1), jnp.float32)
    measured = LexiconSizes(words, alphabet, sizes, distances).measure(log_probs, targets)
    assert len(measured) == len(sizes) * (1 + 2 * len(distances))
    assert all(mean.weight == len(targets) for mean in measured.values())
    totals = dict.fromkeys(measured, 0)
    frames, paths = jnp.full(1, 9), LexiconReader(['c' * 50], alphabet, 0).read(log_probs)  # no word is near
    for row, target in enumerate(targets):
        for size in sizes:
            own = words[:size] if target in words[:size] else [target, *words[: size - 1]]
            assert len(own) == size
            scores = score_labels(
                log_probs[row : row + 1], frames, *map(jnp.asarray, encode_lexica([own], alphabet, size, 7))
            )
            totals[f'exact_{size}'] += own[int(scores[0].argmax())] == target
            for distance in distances:
                reading = LexiconReader(own, alphabet, distance).read(log_probs[row : row + 1])
                totals[f'within_{distance}_{size}'] += reading == [target]
                edits = edit_distances(*encode_texts(own), *encode_texts([paths[row]]))
                totals[f'scored_{distance}_{size}'] += (edits <= distance).sum()
    assert {name: float(mean.total) for name, mean in measured.items()} == pytest.approx(totals)
    assert 0 < totals['within_1_20'] <= totals['exact_20'] < totals['exact_2'] < totals['exact_1'] == len(targets)


def test_lists_that_are_too_short_are_refused():
    with pytest.raises(UsageError, match=r'lexicon\.sizes has 3, and the list has 2 words'):
        LexiconSizes(['a', 'b', 'b'], Alphabet('ab'), (1, 3))
    with pytest.raises(UsageError, match=r'lexicon\.sizes=\(0,\) start at 1'):
        LexiconSizes(['a'], Alphabet('ab'), (0,))
