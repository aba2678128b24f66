"""Self-training: a model labels the examples that it is most certain of, and the next model learns them.

Kumar, Ma & Liang, "Understanding self-training for gradual domain adaptation", 2020: along a chain of intermediate
domains, each close to the one before, the labels stay right; in one step to a distant target they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from scipy.special import softmax

from canon import named
from canon.data.domains import relabel
from canon.data.pipeline.source import Source
from canon.errors import UsageError


@dataclass(frozen=True)
class GradualSettings:
    """config.gradual.

    Attributes:
      chain: domains in the order in which a model adapts to them, the last of which is the target; the target alone is
        adaptation in one step.
      keep: share of each domain that is learnt, the most certain examples; 0.9 in the paper's experiments.
      source_steps: updates on the labelled source before the first step of the chain; `run.steps` are those of each
        step of the chain.
    """

    chain: tuple[str, ...]
    keep: Annotated[float, named.Range(0, 1, open_low=True)] = 0.9
    source_steps: int | str = 600


def check_chain(chain: tuple[str, ...], sources: Iterable[str], target: str) -> None:
    """Raises UsageError for a chain that is empty, does not end at the target, or visits a domain twice."""
    if not chain:
        raise UsageError(
            f'gradual.chain is empty: name the intermediate domains and the target {target!r} in order, or'
            f' ({target!r},) for one step'
        )
    if chain[-1] != target:
        raise UsageError(f'gradual.chain ends at {chain[-1]!r}, and data.domains.target is {target!r}; end it there')
    visited = [*sources, *chain]
    for domain in visited:
        if visited.count(domain) > 1:
            raise UsageError(f'gradual.chain visits {domain!r} twice, or begins at the source; name each domain once')


def label_most_certain(
    predict: Callable[[Mapping[str, Any]], Any], batches: Iterable[Mapping[str, Any]], source: Source, keep: float
) -> Source:
    """Returns the examples that a model is most certain of, under the classes that it predicts.

    Args:
      predict: batch -> logits [B, C].
      batches: of the examples of `source` in order, with 'image' and 'mask'.
      source: the unlabelled domain, of N examples.
      keep: share of the N examples that is kept, by the largest probability.

    Raises:
      UsageError: nothing is left.
    """
    logits = np.concatenate([np.asarray(predict(batch))[np.asarray(batch['mask'])] for batch in batches])
    certainty = softmax(logits.astype(np.float64), -1).max(-1)
    count = round(keep * len(certainty))
    rows = np.sort(np.argsort(-certainty, kind='stable')[:count])
    return relabel(source, rows, logits.argmax(-1)[rows])
