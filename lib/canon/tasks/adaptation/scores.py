"""Scores of a model by every rule of selection, and the accuracy on the target that only the oracle may see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from canon import transfer


class ModelOutputs(NamedTuple):
    """What a model computes of one split of a domain."""

    features: np.ndarray  # [N, D]
    logits: np.ndarray  # [N, C]


def collect_outputs(compute: Callable[[Any], tuple[Any, Any]], batches: Iterable[Any]) -> ModelOutputs:
    """Computes (features, logits) of the real rows of all batches.

    Args:
      compute: batch -> (features [B, D], logits [B, C]).
      batches: with 'mask'.
    """
    features, logits = [], []
    for batch in batches:
        pair = compute(batch)
        for rows, values in zip((features, logits), pair, strict=True):
            rows.append(np.asarray(values)[np.asarray(batch['mask'])])
    return ModelOutputs(np.concatenate(features), np.concatenate(logits))


def score_model(source: ModelOutputs, source_labels: np.ndarray, target: ModelOutputs) -> dict[str, float]:
    """Returns the score of each rule of `transfer.RULES`, from which no label of the target is seen.

    Args:
      source: outputs of held-out source examples.
      source_labels: their labels [N].
      target: outputs of target examples, which may be those of training: they have no labels to be learnt by heart.
    """
    labels = np.asarray(source_labels)
    own = -np.take_along_axis(log_softmax(np.asarray(source.logits, np.float64), -1), labels[:, None], 1)[:, 0]
    weights = transfer.fit_discriminator_ratio(source.features, target.features, l2=1e-2)(source.features)
    return {
        'source_risk': transfer.source_risk(source.logits, labels),
        'entropy': transfer.mean_entropy(target.logits),
        'snd': transfer.soft_neighbourhood_density(target.logits),
        'information': transfer.information_score(target.logits),
        'dev': transfer.deep_embedded_validation(own, weights),
    }
