"""Reading the words of lexica, near the best path or all of them, against scoring every word."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from canon.data import Alphabet
from canon.errors import UsageError
from canon.ops.ctc import best_path, score_labels
from canon.tasks.text.lexicon_reading import (
    LexiconReader,
    OwnLexiconReader,
    make_language_decoder,
    make_lexicon_reader,
    read_with_lexicon,
)
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
    # Lexica of their own: 25 of the words for each row, with case and signs, in the same order, as some are tied.
    places = np.stack([np.sort(rng.choice(len(words), 25, replace=False)) for _ in range(12)])
    own = [[words[p].upper() + '!' for p in row] for row in places]
    caseless = Alphabet('abc', ignore_case=True)
    chosen = (places[..., None] == np.arange(len(words))).any(1)
    for distance in (0, 1, None):

        def find(allowed, distance=distance):
            limit = 99 if distance is None else distance
            return [
                words[int(np.where((row <= limit) & may, score, -np.inf).argmax())]
                if ((row <= limit) & may).any()
                else path
                for row, may, score, path in zip(apart, allowed, scores, paths, strict=True)
            ]

        assert LexiconReader(words, alphabet, distance).read(log_probs) == find(np.ones_like(chosen))
        reader = OwnLexiconReader(own[::-1], caseless, distance)
        index = np.arange(12)[::-1]
        assert reader.read(log_probs, index) == find(chosen)
    readings = read_with_lexicon(log_probs, reader, index)
    assert [alphabet.decode(row) for row in readings.labels] == find(chosen)
    np.testing.assert_array_equal(readings.lengths, [len(text) for text in find(chosen)])
    best = [scores[row, words.index(text)] for row, text in enumerate(find(chosen))]
    np.testing.assert_allclose(readings.log_probs, best, rtol=1e-5)
    assert LexiconReader(['abcabc', 'x'], alphabet, 1).read(log_probs[:1]) == ['']  # no word is near
    with pytest.raises(UsageError, match='distance=-1'):
        LexiconReader(words, alphabet, -1)


def test_lexica_by_the_names_that_a_config_gives(tmp_path):
    class Words:
        def __init__(self, *lexica):
            self.lexica = lexica

        def __len__(self):
            return len(self.lexica)

        def __getitem__(self, index):
            return {'label': np.array([3, 1, 0], np.int32)}

        def read_lexicon(self, index):
            return self.lexica[index]

    alphabet = Alphabet('abc', ignore_case=True)
    (tmp_path / 'words.txt').write_text('Abba\ncab\n\nabba!\n')
    source = Words(('A', 'b'), ('c!', 'C', 'cc', 'ab'))
    for name, distance, description in (
        ('own', None, 'own lexica of 2 to 3 words'),
        ('full', 1, 'full lexicon of 1 words within 1 edit'),  # ca, from the labels
        (str(tmp_path / 'words.txt'), 3, 'lexicon words.txt of 2 words within 3 edits'),
    ):
        assert make_lexicon_reader(name, source, alphabet, distance).description == description
    assert make_lexicon_reader('none', source, alphabet) is None
    with pytest.raises(UsageError, match=r'the set has no lexicon of its own for every image'):
        make_lexicon_reader('own', Words(('a',), ()), alphabet)
    with pytest.raises(UsageError, match=r'the own lexica have no word for every image'):
        make_lexicon_reader('own', Words(('a',), ('!',)), alphabet)
    with pytest.raises(UsageError, match=r"the lexicon words\.txt has no word of the characters 'xyz'"):
        make_lexicon_reader(str(tmp_path / 'words.txt'), source, Alphabet('xyz'))
    with pytest.raises(UsageError, match=r'other\.txt'):
        make_lexicon_reader(str(tmp_path / 'other.txt'), source, alphabet)


def test_a_character_model_reads_what_the_words_are_made_of():
    """The second frame is undecided between b and c; after an a the words have only c."""
    alphabet = Alphabet('abc')
    log_probs = jnp.log(jnp.array([[[0.02, 0.94, 0.02, 0.02], [0.02, 0.02, 0.5, 0.46]]]))
    for weight, expected in ((0.0, 'ab'), (1.0, 'ac')):
        decode = make_language_decoder(['ac', 'cac', 'ba'], alphabet, order=2, beam_width=6, weight=weight)
        readings = quick_jit(decode)(log_probs)
        assert [alphabet.decode(row) for row in readings.labels] == [expected]
        assert readings.lengths.tolist() == [2]
