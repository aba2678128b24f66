"""Selection of a model for a target without labels, and the distance of domains that a classifier can tell.

A *rule* may see: source examples that are held out, with labels; target examples without labels; and what the model
computes of both. None of them sees a label of the target. The oracle does, and is reported next to the rules as the
bound that no rule reaches, never as a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import log_softmax, softmax

from canon.errors import UsageError
from canon.transfer.kernels import check_rows
from canon.transfer.logistic import fit_softmax

# Which value of a score is the better one.
RULES = {
    'source_risk': min,
    'entropy': min,
    'snd': max,
    'information': max,
    'dev': min,
}


def source_risk(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean cross entropy on held-out source examples, in nats: logits [N, C], labels [N]."""
    logits = np.asarray(logits, np.float64)
    return float(-np.take_along_axis(log_softmax(logits, -1), np.asarray(labels)[:, None], 1).mean())


def mean_entropy(logits: np.ndarray) -> float:
    """Returns the mean entropy of target predictions, in nats: logits [M, C]. A collapsed model has none either."""
    return float(_entropies(logits).mean())


def information_score(logits: np.ndarray) -> float:
    """Returns the mutual information of targets and predictions, H(mean p) - mean H(p), in nats: logits [M, C].

    Unlike the entropy alone it is 0, the worst, for a model that calls everything by one class.
    """
    mean = softmax(np.asarray(logits, np.float64), -1).mean(0)
    return float(-(mean * np.log(np.maximum(mean, 1e-300))).sum() - _entropies(logits).mean())


def _entropies(logits: np.ndarray) -> np.ndarray:
    log_p = log_softmax(np.asarray(logits, np.float64), -1)
    return -(np.exp(log_p) * log_p).sum(-1)


def soft_neighbourhood_density(logits: np.ndarray, temperature: float = 0.05) -> float:
    """Returns the mean entropy of each target's similarities to all others: Saito et al. 2021 (SND).

    With z_i the L2-normalised softmax outputs and S_ij = z_i . z_j over j != i, it is the mean entropy of
    softmax(S_i / temperature): greatest where each target has many close neighbours, as in dense clusters.

    Args:
      logits: of the targets, [M, C].
      temperature: 0.05 in the paper.

    Raises:
      UsageError: there are fewer than two targets, or the temperature is not positive.
    """
    p = softmax(np.asarray(logits, np.float64), -1)
    if len(p) < 2 or not temperature > 0:
        raise UsageError(f'soft_neighbourhood_density: {len(p)} rows, temperature={temperature}; give 2 rows or more')
    z = p / np.linalg.norm(p, axis=1, keepdims=True)
    similarity = z @ z.T
    others = ~np.eye(len(z), dtype=bool)
    return float(_entropies(similarity[others].reshape(len(z), -1) / temperature).mean())


def deep_embedded_validation(losses: np.ndarray, weights: np.ndarray) -> float:
    """Estimates the target risk from weighted source losses, with a control variate: You et al. 2019 (DEV).

    mean(w l) + eta mean(w) - eta, with eta = -cov(w l, w) / var(w): since the weights have the mean 1, the estimate has
    the same expectation and the least variance.

    Args:
      losses: l of held-out source examples, [N].
      weights: w of the same examples, as of a discriminator of features (`fit_discriminator_ratio`), [N].

    Raises UsageError if there are fewer than two examples, or the lengths differ.
    """
    losses, weights = np.asarray(losses, np.float64), np.asarray(weights, np.float64)
    if losses.shape != weights.shape or losses.ndim != 1 or len(losses) < 2:
        raise UsageError(f'losses {list(losses.shape)} and weights {list(weights.shape)} must be [N], N of at least 2')
    weighted = losses * weights
    covariance = np.cov(weighted, weights)
    # Equal weights need no correction.
    eta = -covariance[0, 1] / covariance[1, 1] if covariance[1, 1] > 0 else 0.0
    return float(weighted.mean() + eta * weights.mean() - eta)


def a_distance(source: np.ndarray, target: np.ndarray, l2: float = 1e-2, seed: int = 0) -> float:
    """Returns the proxy A-distance 2 (1 - 2 err) of a linear classifier of domains: Ben-David et al. 2007.

    0 where the domains cannot be told apart, 2 where they always can. The error is balanced over the domains, and that
    of a held-out half of each; an error above 1/2 is chance.

    Raises UsageError if the features do not fit each other or a domain has fewer than four rows.
    """
    x, t = check_rows(source, target, 4)
    rng = np.random.default_rng(seed)
    halves = [np.array_split(rows[rng.permutation(len(rows))], 2) for rows in (x, t)]
    rows = np.concatenate([half[0] for half in halves])
    labels = np.repeat([0, 1], [len(half[0]) for half in halves])
    # A larger domain must not decide the classifier: both have the weight 1.
    weights = np.concatenate([np.full(len(half[0]), 1 / len(half[0])) for half in halves])
    model = fit_softmax(rows, labels, weights, 2, l2)
    error = np.mean([np.mean(model(half[1]) != domain) for domain, half in enumerate(halves)])
    return float(2 * (1 - 2 * min(error, 0.5)))


def select_by_rules(
    scores: Mapping[str, Sequence[float]], target_accuracy: Sequence[float]
) -> dict[str, tuple[int, float]]:
    """Returns {rule: (index of the chosen model, its accuracy on the target)} of 'last', each rule, and 'oracle'.

    Args:
      scores: {rule of `RULES`: its score of each model or checkpoint, in order}. NaN is never chosen; of equal scores
        the later model is.
      target_accuracy: of each model, by which only 'oracle' chooses.

    Raises:
      UsageError: a rule is unknown, or the numbers of models differ.
    """
    accuracy = np.asarray(target_accuracy, np.float64)
    if not len(accuracy):
        raise UsageError('there is no model to select')
    chosen = {'last': len(accuracy) - 1}
    for rule, values in scores.items():
        if rule not in RULES:
            raise UsageError(f'there is no rule {rule!r}; there are {", ".join(RULES)}')
        if len(values) != len(accuracy):
            raise UsageError(f'rule {rule!r} has {len(values)} scores for {len(accuracy)} models')
        signed = np.asarray(values, np.float64) * (1 if RULES[rule] is max else -1)
        chosen[rule] = _last_argmax(signed)
    chosen['oracle'] = _last_argmax(accuracy)
    return {rule: (index, float(accuracy[index])) for rule, index in chosen.items()}


def _last_argmax(values: np.ndarray) -> int:
    finite = np.where(np.isnan(values), -np.inf, values)
    return len(finite) - 1 - int(finite[::-1].argmax())
