"""Figures of adaptation: the features of both domains before and after, and how far a classifier tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax
import numpy as np

from canon import backend, metrics, plots, transfer
from canon.data.pipeline.source import Source, read_examples
from canon.errors import CanonError
from canon.tasks.adaptation.instances import WEIGHT
from canon.tasks.adaptation.scores import DomainFeatures, read_columns, select_from_log
from canon.train import Evaluator

Embedding = Literal['pca', 'tsne']


def add_pictures(
    evaluator: Evaluator,
    start: Callable[[], tuple[Any, Any]],
    embedding: Embedding = 'pca',
    labelled: Mapping[str, Source] = {},
) -> Evaluator:
    """Returns an evaluator of rules that also measures the A-distance and draws the features before and after.

    `a_distance` is the proxy A-distance of the features of the held-out source and the target
    (`transfer.a_distance`): 0 where a linear classifier cannot tell the domains apart, 2 where it always can.

    Args:
      evaluator: of `rules_evaluator`.
      start: returns (params, mutable) from which training began.
      embedding: into the plane, of scikit-learn: 'pca' (principal components) or 'tsne', which takes seconds.
      labelled: {domain: source} of training; of those whose examples have weights, the extremes are drawn.
    """

    def finish(rows):
        columns = read_columns(rows)
        domains = columns.features[~columns.is_target], columns.features[columns.is_target]
        return {**evaluator.finish(rows), 'a_distance': transfer.a_distance(*domains)}

    def draw(params, mutable, rows):
        before, after = _measure(evaluator, *start()), read_columns(rows)
        titles = 'before', 'after'
        panels = {
            title: embed_in_plane(c.features, embedding) for title, c in zip(titles, (before, after), strict=True)
        }
        classes = {'before': before.classes, 'after': after.classes}
        kind = 'principal components' if embedding == 'pca' else 't-SNE'
        figure = plots.draw_domain_features(panels, after.is_target, classes, f'features: {kind}')
        return {'features': figure, **draw_weights(labelled)}

    return evaluator._replace(finish=finish, draw=draw)


def draw_weights(labelled: Mapping[str, Source]) -> dict[str, Any]:
    """Draws the examples of greatest and least weight of each domain whose examples have weights."""
    figures = {}
    for name, source in labelled.items():
        if WEIGHT in source[0]:
            examples = read_examples(source, range(len(source)))
            images, weights = (np.stack([example[key] for example in examples]) for key in ('image', WEIGHT))
            title = f'{name}: the greatest weights, then the least (their mean is 1)'
            figures[f'weights of {name}'] = plots.draw_example_weights(images, weights, title=title)
    return figures


def embed_in_plane(features: np.ndarray, embedding: Embedding = 'pca') -> np.ndarray:
    """Returns points [N, 2] of features [N, D] by scikit-learn, in float64.

    The same features give the same points: t-SNE begins from the principal components.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float64)
    if embedding == 'pca':
        return PCA(2, svd_solver='full').fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(2, init='pca', random_state=0, perplexity=perplexity).fit_transform(features).astype(np.float64)


def summarise_selection(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the accuracy on the target of 'last', the choice of each rule, and 'oracle', for `Experiment.summarise`.

    Empty where no step has both an evaluation of the target and the scores of the rules.
    """
    try:
        return {rule: accuracy for rule, (_, accuracy) in select_from_log(rows).items()}
    except CanonError:
        return {}


def _measure(evaluator: Evaluator, params: Any, mutable: Any) -> DomainFeatures:
    measure = backend.jit(evaluator.measure)
    sums = [jax.device_get(measure(params, mutable, batch)) for batch in evaluator.data.iterate()]
    return read_columns(metrics.Rows(tuple(part for rows in sums for part in rows.parts)))
