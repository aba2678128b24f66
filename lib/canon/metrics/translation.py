"""BLEU and chrF by sacrebleu, with the signature that states how they were computed: others do not compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from canon.errors import UsageError
from canon.named import suggest

# Languages without spaces between words, by their ISO 639 codes: for 13a a whole sentence would be one word.
_TOKENIZERS = {
    **dict.fromkeys(('zh', 'zho', 'chi', 'cmn', 'yue'), 'zh'),
    **dict.fromkeys(('ja', 'jpn', 'th', 'tha', 'km', 'khm', 'lo', 'lao', 'my', 'mya', 'bo', 'bod'), 'char'),
}


class Score(NamedTuple):
    """A score of a corpus of translations."""

    value: float  # 0 to 100
    signature: str  # of sacrebleu: 'nrefs:1|case:mixed|...'


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = '13a', lowercase: bool = False) -> Score:
    """Computes corpus BLEU (Papineni et al. 2002; Post 2018).

    Args:
      hypotheses: detokenised translations.
      references: one for each.
      tokenize: a tokenizer of sacrebleu: '13a' (that of WMT's mteval), 'zh', 'char', 'intl', 'ja-mecab', ...; see
        `bleu_tokenizer`.
      lowercase: ignores case.

    Raises:
      UsageError: there are no sentences, not as many references, or as in `check_tokenizer`.
    """
    _check(hypotheses, references)
    metric = _make_bleu(tokenize, lowercase=lowercase)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score.score, str(metric.get_signature()))


def bleu_tokenizer(language: str | None) -> str:
    """Returns the tokenizer of BLEU for translations into `language` ('de', 'zh_CN', 'zh-Hans').

    It is '13a' unless the language is written without spaces: 'zh' for Chinese, 'char' for Japanese, Thai, Khmer, Lao,
    Burmese and Tibetan. ('ja-mecab', which sacrebleu recommends for Japanese, needs another package.)
    """
    return _TOKENIZERS.get(re.split(r'[-_.]', (language or '').lower())[0], '13a')


def check_tokenizer(tokenize: str) -> None:
    """Raises UsageError for a tokenizer that sacrebleu does not have, or whose package or model is missing."""
    _make_bleu(tokenize)


def _make_bleu(tokenize: str, **options: Any) -> Any:
    from sacrebleu.metrics import BLEU  # takes 0.2 s to import

    if tokenize not in BLEU.TOKENIZERS:
        raise UsageError(f'sacrebleu has no tokenizer {tokenize!r}{suggest(str(tokenize), BLEU.TOKENIZERS)}')
    try:
        return BLEU(tokenize=tokenize, **options)
    except (ImportError, RuntimeError, OSError) as error:
        reason = ' '.join(str(error).split())
        raise UsageError(f'the tokenizer {tokenize!r} of sacrebleu cannot be used: {reason}') from error


def chrf(hypotheses: Sequence[str], references: Sequence[str], word_order: int = 0) -> Score:
    """Computes corpus chrF2 (Popović 2015), the F score of character 6-grams with beta 2; chrF++ if word_order=2."""
    from sacrebleu.metrics import CHRF

    _check(hypotheses, references)
    metric = CHRF(word_order=word_order)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score.score, str(metric.get_signature()))


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references) or not len(references):
        raise UsageError(
            f'expected one reference per translation, got {len(references)} for {len(hypotheses)} translations'
        )
