"""Metrics as accumulators: each batch contributes sums that add exactly over microbatches, hosts and padding."""

from typing import TYPE_CHECKING

from canon.lazy import load_on_use
from canon.metrics.calibration import Reliability, brier
from canon.metrics.classification import accuracy, class_accuracy, confusion, top_k, valid_labels
from canon.metrics.language import bits_per, perplexity
from canon.metrics.mean import Mean, add
from canon.metrics.ngram import KneserNey
from canon.metrics.retrieval import score_retrieval
from canon.metrics.rows import Rows
from canon.metrics.text import character_error_rate, edit_distance, word_accuracy, word_error_rate
from canon.metrics.text_scores import count_edits, normalise_distances, score_texts, simplify_text
from canon.metrics.translation import bleu, bleu_tokenizer, check_tokenizer, chrf
from canon.metrics.views import psnr, ssim

__all__ = [
    'KneserNey', 'Mean', 'Reliability', 'Rows', 'accuracy', 'add', 'bits_per', 'bleu', 'bleu_tokenizer', 'brier',
    'character_error_rate', 'check_tokenizer', 'chrf', 'class_accuracy', 'confusion', 'count_edits', 'edit_distance',
    'normalise_distances', 'perplexity', 'psnr', 'score_retrieval', 'score_texts', 'simplify_text', 'ssim', 'top_k',
    'valid_labels', 'word_accuracy', 'word_error_rate',
]  # fmt: skip

if not TYPE_CHECKING:  # with a `__getattr__`, type checkers would accept any name
    __getattr__, __dir__ = load_on_use(__name__)
