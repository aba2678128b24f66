"""BLEU and chrF by sacrebleu, with the signature that says how they were computed: without it no two compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from canon.errors import UsageError
from canon.named import suggest

# Languages written without spaces between words, by their ISO 639 codes: 13a takes a whole sentence for one word.
_TOKENIZERS = {
    **dict.fromkeys(('zh', 'zho', 'chi', 'cmn', 'yue'), 'zh'),
    **dict.fromkeys(('ja', 'jpn', 'th', 'tha', 'km', 'khm', 'lo', 'lao', 'my', 'mya', 'bo', 'bod'), 'char'),
}


class Score(NamedTuple):
    """value: 0 to 100. signature: sacrebleu's, 'nrefs:1|case:mixed|...'."""

    value: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = '13a', lowercase: bool = False) -> Score:
    """Corpus BLEU (Papineni et al. 2002; Post 2018) of detokenised sentences, one reference each.

    tokenize: a tokenizer of sacrebleu's, '13a' (that of WMT's mteval), 'zh', 'char', 'intl', 'ja-mecab', ...; see
    `bleu_tokenizer`. Raises UsageError for unequal numbers of sentences, or none, and as `check_tokenizer` does.
    """
    _check(hypotheses, references)
    metric = _bleu(tokenize, lowercase=lowercase)
    score = metric.corpus_score(list(hypotheses), [list(references)])
    return Score(score.score, str(metric.get_signature()))


def bleu_tokenizer(language: str | None) -> str:
    """Returns the tokenizer by which BLEU of translations into `language` ('de', 'zh_CN', 'zh-Hans') is computed.

    '13a' unless the language is written without spaces: 'zh' for Chinese, 'char' for Japanese, Thai, Khmer, Lao,
    Burmese and Tibetan. (sacrebleu's own for Japanese, 'ja-mecab', needs a package of its own.)
    """
    return _TOKENIZERS.get(re.split(r'[-_.]', (language or '').lower())[0], '13a')


def check_tokenizer(tokenize: str) -> None:
    """Raises UsageError for a tokenizer that sacrebleu does not have, or whose package or model is missing."""
    _bleu(tokenize)


def _bleu(tokenize: str, **options: Any) -> Any:
    from sacrebleu.metrics import BLEU  # 0.2 s

    if tokenize not in BLEU.TOKENIZERS:
        raise UsageError(f'sacrebleu has no tokenizer {tokenize!r}{suggest(str(tokenize), BLEU.TOKENIZERS)}')
    try:
        return BLEU(tokenize=tokenize, **options)
    except (ImportError, RuntimeError, OSError) as error:
        reason = ' '.join(str(error).split())
        raise UsageError(f'the tokenizer {tokenize!r} of sacrebleu is not ready: {reason}') from error


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
