"""BLEU and chrF by sacrebleu, with the signature that says how they were computed: without it no two compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from canon.errors import UsageError


class Score(NamedTuple):
    """value: 0 to 100. signature: sacrebleu's, 'nrefs:1|case:mixed|...'."""

    value: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = '13a', lowercase: bool = False) -> Score:
    """Corpus BLEU (Papineni et al. 2002; Post 2018) of detokenised sentences, one reference each.

    Raises UsageError for unequal numbers of sentences, or none.
    """
    from sacrebleu.metrics import BLEU  # 0.2 s

    _check(hypotheses, references)
    metric = BLEU(tokenize=tokenize, lowercase=lowercase)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score.score, str(metric.get_signature()))


def chrf(hypotheses: Sequence[str], references: Sequence[str], word_order: int = 0) -> Score:
    """Corpus chrF2 (Popović 2015), F of character 6-grams, beta 2; `word_order=2` is chrF++. Errors as `bleu`."""
    from sacrebleu.metrics import CHRF

    _check(hypotheses, references)
    metric = CHRF(word_order=word_order)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score.score, str(metric.get_signature()))


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not len(references):
        raise UsageError(f'{len(hypotheses)} translations of {len(references)} references; they must be equal')
