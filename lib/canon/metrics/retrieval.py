"""Retrieval metrics: rank-k accuracy (CMC) and mean average precision of a gallery sorted by similarity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canon.errors import UsageError


def score_retrieval(
    similarity: np.ndarray,
    query_labels: np.ndarray,
    gallery_labels: np.ndarray,
    excluded: np.ndarray | None = None,
    ranks: Sequence[int] = (1, 5),
) -> dict[str, float]:
    """Scores how a gallery is sorted for each query: Zheng et al. 2015, "Scalable person re-identification".

    rank_k is the share of queries with a true match among the k most similar entries. The average precision of a query
    with R true matches at the ranks r_1 < ... < r_R is the mean of i / r_i. Entries of equal similarity keep the order
    of the gallery.

    Args:
      similarity: [Q, G], the larger the more alike.
      query_labels: identities [Q].
      gallery_labels: identities [G].
      excluded: bool [Q, G], entries that are left out for a query, such as the query itself. None: none.
      ranks: the k of rank_k.

    Returns:
      {'rank_1': ..., 'mAP': ..., 'queries': number of queries with a true match; the others do not count}. Without
      such queries the scores are NaN.

    Raises:
      UsageError: shapes disagree.

    >>> score_retrieval(np.array([[0.9, 0.8, 0.1]]), np.array([7]), np.array([3, 7, 7]))['mAP']
    0.5833333333333333
    """
    similarity = np.asarray(similarity)
    shape = len(query_labels), len(gallery_labels)
    if similarity.shape != shape or (excluded is not None and np.shape(excluded) != shape):
        shapes = (
            f'similarity {list(similarity.shape)}, excluded {None if excluded is None else list(np.shape(excluded))}'
        )
        raise UsageError(f'score_retrieval: {shapes}, expected {list(shape)} of {shape[0]} queries, {shape[1]} entries')
    included = np.ones(shape, bool) if excluded is None else ~np.asarray(excluded, bool)
    order = np.argsort(np.where(included, -similarity, np.inf), axis=1, kind='stable')
    true = (np.asarray(query_labels)[:, None] == np.asarray(gallery_labels)) & included
    true = np.take_along_axis(true, order, 1)  # excluded entries are last, and are no matches
    counts = true.sum(1)
    true, counts = true[counts > 0], counts[counts > 0]
    if not len(counts):
        return {f'rank_{k}': float('nan') for k in ranks} | {'mAP': float('nan'), 'queries': 0.0}
    precision = true.cumsum(1) / np.arange(1, shape[1] + 1)
    scores = {f'rank_{k}': float(true[:, :k].any(1).mean()) for k in ranks}
    return scores | {'mAP': float(((precision * true).sum(1) / counts).mean()), 'queries': float(len(counts))}
