"""TrAdaBoost: boosting on a few labelled targets that lowers the weights of misleading source examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from canon import named
from canon.errors import UsageError
from canon.transfer.kernels import check_rows
from canon.transfer.logistic import fit_softmax

Classifier = Callable[[np.ndarray], np.ndarray]  # rows [N, D] -> classes [N]
Learner = Callable[[np.ndarray, np.ndarray, np.ndarray], Classifier]  # (rows, labels, weights) -> classifier


class BoostedVote(NamedTuple):
    """A weighted vote of classifiers.

    Attributes:
      classifiers: of the second half of the rounds.
      votes: log(1 / beta_t) of each.
      num_classes: C.
      source_weights: of the source examples after the last round, which add up to 1 with those of the target.
      target_weights: of the target examples.
      errors: eps_t of each round, on the target.
    """

    classifiers: tuple[Classifier, ...]
    votes: tuple[float, ...]
    num_classes: int
    source_weights: np.ndarray
    target_weights: np.ndarray
    errors: tuple[float, ...]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the classes [N] of rows [N, D]; of equal votes the larger class wins, as in the paper."""
        totals = np.zeros((len(x), self.num_classes))
        for classify, vote in zip(self.classifiers, self.votes, strict=True):
            totals[np.arange(len(x)), classify(x)] += vote
        return self.num_classes - 1 - totals[:, ::-1].argmax(1)


def tradaboost(
    source: np.ndarray,
    source_labels: np.ndarray,
    target: np.ndarray,
    target_labels: np.ndarray,
    rounds: named.Count = 20,
    learner: Learner = fit_softmax,
) -> BoostedVote:
    """Boosts with source and target examples: Dai et al. 2007 (TrAdaBoost).

    In each round a classifier is fitted to the weighted examples of both domains. Misclassified target examples gain
    weight, as in AdaBoost, by 1 / beta_t = (1 - eps_t) / eps_t; misclassified source examples lose weight by beta = 1 /
    (1 + sqrt(2 ln N / T)). The classifiers of the rounds ceil(T / 2) .. T vote with log 1 / beta_t. The paper has two
    classes, for which this vote is its inequality; with more, |h - c| is whether a class is wrong.

    Args:
      source: [N, D].
      source_labels: integers [N].
      target: [M, D], the few labelled examples of the target.
      target_labels: integers [M].
      rounds: T.
      learner: (rows, labels, weights) -> a function of rows that returns classes.

    Raises:
      UsageError: the features do not fit each other or their labels, or no round does better than chance on the target.
    """
    x, t = check_rows(source, target)
    labels = np.concatenate([np.asarray(source_labels), np.asarray(target_labels)])
    if len(labels) != len(x) + len(t):
        raise UsageError(f'{len(x)} source and {len(t)} target rows need as many labels, not {len(labels)}')
    rows, of_source = np.concatenate([x, t]), np.arange(len(labels)) < len(x)
    weights = np.full(len(labels), 1 / len(labels))
    beta = 1 / (1 + np.sqrt(2 * np.log(max(len(x), 2)) / rounds))
    members: list[tuple[Classifier, float]] = []
    errors = []
    for _ in range(rounds):
        weights /= weights.sum()
        classify = learner(rows, labels, weights)
        wrong = classify(rows) != labels
        error = (weights * wrong)[~of_source].sum() / weights[~of_source].sum()
        errors.append(float(error))
        # The paper requires eps < 1/2; a perfect round has a finite vote, that of half an example being wrong.
        bounded = float(np.clip(error, 0.5 / len(t), 0.499))
        factor = bounded / (1 - bounded)
        members.append((classify, float(np.log(1 / factor))))
        weights *= np.where(wrong, np.where(of_source, beta, 1 / factor), 1)
    if min(errors) >= 0.5:
        raise UsageError(f'no round is right for half of the {len(t)} target examples; show more of them')
    late = members[(rounds + 1) // 2 - 1 :]
    weights /= weights.sum()
    return BoostedVote(
        tuple(classify for classify, _ in late),
        tuple(vote for _, vote in late),
        int(labels.max()) + 1,
        weights[of_source],
        weights[~of_source],
        tuple(errors),
    )
