"""Scores of texts against jiwer and rapidfuzz (tools/golden/text_jiwer.py), the device's edit distance, and by hand."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from canon.errors import UsageError
from canon.metrics import add, text_scores
from canon.metrics.text_scores import count_edits, normalise_distances, score_texts, simplify_text

GOLDEN = Path(__file__).parent / 'golden/text_jiwer.npz'


@pytest.fixture(scope='module')
def golden():
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def test_against_jiwer_and_rapidfuzz(golden):
    # A numpy array of texts drops spaces nowhere, but zeros at the end: there are none.
    readings, references = (golden[name].tolist() for name in ('readings', 'references'))
    assert count_edits(readings, references).tolist() == golden['edits'].tolist()
    scores = score_texts(readings, references, 'exact')
    assert float(scores['word_error_rate'].value) == pytest.approx(float(golden['wer']), rel=1e-12)
    # jiwer strips texts before it compares characters, as words are anyway.
    stripped = score_texts([text.strip() for text in readings], references, 'exact')
    assert float(stripped['character_error_rate'].value) == pytest.approx(float(golden['cer']), rel=1e-12)
    lengths = [np.array([len(text) for text in side]) for side in (readings, references)]
    ratios = normalise_distances(golden['edits'], *lengths, 'parseq')
    np.testing.assert_allclose(ratios, golden['normalised'], rtol=1e-12)
    assert float(scores['ned_parseq'].value) == pytest.approx(golden['normalised'].mean(), rel=1e-12)
    # One text at a time gives jiwer's rate of each, and the parts add up to the whole.
    parts = [score_texts([a], [b], 'exact') for a, b in zip(readings, references, strict=True)]
    np.testing.assert_allclose([float(part['word_error_rate'].value) for part in parts], golden['wers'], rtol=1e-12)
    total = parts[0]
    for part in parts[1:]:
        total = add(total, part)
    assert {name: float(mean.value) for name, mean in total.items()} == pytest.approx(
        {name: float(mean.value) for name, mean in scores.items()}, rel=1e-12
    )
    assert len(set(golden['edits'].tolist())) > 8
    assert '' in readings or min(map(len, readings)) < 3


def test_conventions_by_hand():
    """A wrong letter of four, one too many after two, nothing read, something read where there is nothing, neither."""
    edits, read, true = np.array([1, 1, 3, 2, 0]), np.array([4, 3, 0, 2, 0]), np.array([4, 2, 3, 0, 0])
    assert normalise_distances(edits, read, true, 'dtrb').tolist() == pytest.approx([0.75, 2 / 3, 0, 0, 0])
    assert normalise_distances(edits, read, true, 'parseq').tolist() == pytest.approx([0.25, 1 / 3, 1, 1, 0])
    assert normalise_distances(edits, read, true, 'reference').tolist() == pytest.approx([0.25, 0.5, 1, 1, 0])


def test_scores_by_hand():
    readings = ["DON'T", 'tea', 'the Cat sat', '']
    references = ['dont', 'tea', 'the cat', '5!']
    simple = {name: float(mean.value) for name, mean in score_texts(readings, references).items()}
    # dont tea thecatsat '' against dont tea thecat 5: 0 + 0 + 3 + 1 edits of 4 + 3 + 6 + 1 characters.
    assert simple['word_accuracy_36'] == 0.5
    assert simple['word_accuracy'] == 0.25
    assert simple['character_error_rate'] == pytest.approx(4 / 14)
    assert simple['word_error_rate'] == pytest.approx(2 / 5)  # a word too many, and one missing, of five
    assert simple['ned_dtrb'] == pytest.approx((1 + 1 + 6 / 9 + 0) / 4)
    exact = {name: float(mean.value) for name, mean in score_texts(readings, references, 'exact').items()}
    # DON'T-dont 5, tea 0, "the Cat sat"-"the cat" 1 + 4, ''-5! 2, of 4 + 3 + 7 + 2.
    assert exact['character_error_rate'] == pytest.approx(12 / 16)
    assert exact['word_error_rate'] == pytest.approx((1 + 0 + 2 + 1) / 5)
    assert exact['ned_parseq'] == pytest.approx((1 + 0 + 5 / 11 + 1) / 4)
    assert exact['ned_reference'] == pytest.approx((5 / 4 + 0 + 5 / 7 + 1) / 4)
    assert {exact[name] for name in ('word_accuracy_36', 'word_accuracy')} == {0.5, 0.25}


def test_empty_and_wrong_arguments():
    assert count_edits([], []).tolist() == []
    assert count_edits(['', 'ab', ''], ['abc', '', '']).tolist() == [3, 2, 0]
    assert float(score_texts([], [])['word_accuracy'].weight) == 0
    assert simplify_text('Ünïted-Çafé №5 Ⅷ') == 'ntedaf5'
    with pytest.raises(UsageError, match='1 readings cannot be scored against 0 references'):
        score_texts(['a'], [])
    with pytest.raises(UsageError, match="compare='same' must be one of 'alphanumeric', 'exact'"):
        score_texts([], [], 'same')


def test_examples_of_docstrings():
    result = doctest.testmod(text_scores)
    assert result.attempted >= 3
    assert not result.failed
