"""Reading near the best path, against scoring every word of the lexicon."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from canon.data import Alphabet
from canon.errors import UsageError
from canon.ops.ctc import best_path, score_labels
from canon.tasks.text.lexicon_reading import LexiconReader, make_language_decoder
from canon.tasks.text.lexicons import edit_distances, encode_texts
from tests.quick import quick_jit


def test_it_reads_what_scoring_every_near_word_reads():
    rng = np.random.default_rng(0)
    alphabet = Alphabet('abc')
    words = list(dict.fromkeys(''.join(rng.choice(list('abc'), rng.integers(1, 5))) for _ in range(60)))
    log_probs = jnp.asarray(log_softmax(3 * rng.normal(size=(12, 7, 4)), -1), jnp.float32)
    log_probs = log_probs.at[0].set(jnp.log(jnp.array([0.97, 0.01, 0.01, 0.01])))  # blanks: far from long words
    lengths = jnp.full(12, 7)
    codes, sizes = encode_texts(words)
    labels = np.where(codes > 0, codes - ord('a') + 1, 0)
    scores = np.asarray(score_labels(log_probs, lengths, jnp.asarray(labels), jnp.asarray(sizes)))
    paths = [alphabet.decode(row) for row in best_path(log_probs, lengths).labels]
    apart = np.stack([edit_distances(codes, sizes, *encode_texts([path])) for path in paths])
    for distance in (0, 1, 99):
        expected = [
            words[int(np.where(row <= distance, score, -np.inf).argmax())] if (row <= distance).any() else path
            for row, score, path in zip(apart, scores, paths, strict=True)
        ]
        assert LexiconReader(words, alphabet, distance).read(log_probs) == expected
    assert LexiconReader(['abcabc', 'x'], alphabet, 1).read(log_probs[:1]) == ['']  # no word is near
    with pytest.raises(UsageError, match='distance=-1'):
        LexiconReader(words, alphabet, -1)


def test_a_character_model_reads_what_the_words_are_made_of():
    """The second frame is undecided between b and c; after an a the words have only c."""
    alphabet = Alphabet('abc')
    log_probs = jnp.log(jnp.array([[[0.02, 0.94, 0.02, 0.02], [0.02, 0.02, 0.5, 0.46]]]))
    for weight, expected in ((0.0, 'ab'), (1.0, 'ac')):
        decode = make_language_decoder(['ac', 'cac', 'ba'], alphabet, order=2, beam_width=6, weight=weight)
        readings = quick_jit(decode)(log_probs)
        assert [alphabet.decode(row) for row in readings.labels] == [expected]
        assert readings.lengths.tolist() == [2]
