"""Disjoint splits of a domain, the few labelled targets of semi-supervised adaptation, and shifts of the classes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from canon import named
from canon.data.pipeline import keys, splits
from canon.data.pipeline import source as sources
from canon.data.pipeline.source import Arrays, Source, Subset
from canon.errors import UsageError


def split_rows(count: int, shares: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    """Divides rows 0 .. count - 1 into disjoint parts, in a random order.

    Args:
      count: N.
      shares: of the parts, which add up to at most 1; parts that add up to 1 cover all rows.
      seed: of the permutation.

    Returns:
      one integer array per part.

    Raises:
      UsageError: a share is not positive, or they add up to more than 1.
    """
    if not shares or min(shares) <= 0 or sum(shares) > 1 + 1e-9:
        raise UsageError(f'shares={tuple(shares)} must be positive and add up to at most 1')
    order = keys.stream('domain splits', seed).permutation(count)
    edges = np.rint(np.cumsum([0, *shares]) * count).astype(int)  # cumulative, so that neighbours meet
    return [order[a:b] for a, b in itertools.pairwise(edges)]


def divide_by_class(source: Source, share: named.Probability = 0.2, seed: int = 0) -> tuple[Source, Source]:
    """Divides a source into (the rest, a share of each class), as DomainBed holds out a fifth of every domain.

    DomainBed divides without regard to classes; here each class is divided, so that no small class is without examples
    to be selected by.

    Raises UsageError if one of the two would be empty.
    """
    rng, labels = keys.stream('domain splits', seed), sources.labels(source)
    held = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held.append(rows[: round(share * len(rows))])
    chosen = np.sort(np.concatenate(held)) if held else np.zeros(0, int)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    if not len(chosen) or not len(rest):
        raise UsageError(f'{source!r}: a share of {share} leaves one of the two parts without examples')
    return take_rows(source, rest), take_rows(source, chosen)


def show_few(source: Source, per_class: Annotated[int, named.Range(1)], seed: int = 0) -> tuple[Source, Source]:
    """Returns (`per_class` examples of each class, the rest): the labelled targets of semi-supervised adaptation.

    Raises UsageError if a class has no more than `per_class` examples.
    """
    rng, labels = keys.stream('domain splits', seed, 1), sources.labels(source)
    shown = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) <= per_class:
            raise UsageError(
                f'{source!r}: class {label} has {len(rows)} examples; show fewer than per_class={per_class}'
            )
        shown.append(rng.permutation(rows)[:per_class])
    chosen = np.sort(np.concatenate(shown))
    return take_rows(source, chosen), take_rows(source, np.setdiff1d(np.arange(len(labels)), chosen))


def draw_label_shift(source: Source, shares: Sequence[float], seed: int = 0) -> Source:
    """Returns the largest subset of a source whose classes have the given shares, without repeating an example.

    Args:
      source: the examples.
      shares: of the classes 0, 1, ..., which are scaled to add up to 1.
      seed: of the choice.

    Raises:
      UsageError: the shares do not fit the classes, or leave no examples.
    """
    labels = sources.labels(source)
    counts = np.bincount(labels, minlength=len(shares))
    ratios = np.asarray(shares, float)
    if len(counts) != len(ratios) or ratios.min() < 0 or not ratios.sum() > 0:
        raise UsageError(f'shares={tuple(shares)} must give each of the {len(counts)} classes a share of at least 0')
    ratios /= ratios.sum()
    total = min(counts[ratios > 0] / ratios[ratios > 0])
    rng = keys.stream('domain splits', seed, 2)
    rows = [
        rng.permutation(np.flatnonzero(labels == label))[: round(total * share)] for label, share in enumerate(ratios)
    ]
    chosen = np.sort(np.concatenate(rows))
    if not len(chosen):
        raise UsageError(f'{source!r}: shares={tuple(shares)} leave no examples')
    return take_rows(source, chosen)


def check_selection_split(target: str, selection: str, total: int | None = None) -> None:
    """Raises UsageError if weights would be selected by the examples that the target is scored on.

    Args:
      target: the split that is reported, such as 'test'.
      selection: the split that the selection sees, such as 'train[80%:]'.
      total: examples of the split that both slice, if it is known.
    """
    if splits.share_examples(target, selection, total):
        raise UsageError(
            f'the selection split {selection!r} shares examples with the target split {target!r}: the reported accuracy'
            " would be that of the selection; hold some out, such as 'train[80%:]'"
        )


def take_rows(source: Source, rows: np.ndarray) -> Source:
    """Returns the given examples of a source; a source in memory stays one, with its labels at hand."""
    if isinstance(source, Arrays):
        return Arrays({field: array[rows] for field, array in source.arrays.items()}, source.info)
    return Subset(source, rows.tolist())
