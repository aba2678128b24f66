"""Losses of embeddings and of soft assignments against loops over rows, and their gradients by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import losses
from canon.tracking import sinkhorn_log

IDENTITIES = np.array([3, 3, 3, 5, 5, 8, 8, 1])  # of the last row there is only one


@pytest.fixture(scope='module')
def embeddings():
    return np.random.default_rng(0).normal(size=(len(IDENTITIES), 6))


def triplets(embeddings, identities, margin, valid):
    """One anchor after the other, over all pairs of a positive and a negative, of which the worst counts."""
    values, counted = [], []
    for a in range(len(identities)):
        distance = np.linalg.norm(embeddings - embeddings[a], axis=1)
        worst = None
        for p in range(len(identities)):
            for n in range(len(identities)):
                good = identities[p] == identities[a] != identities[n] and p != a
                if good and valid[a] and valid[p] and valid[n]:
                    gap = distance[p] - distance[n]
                    value = np.log1p(np.exp(gap)) if margin is None else max(0.0, margin + gap)
                    worst = value if worst is None else max(worst, value)
        values.append(0.0 if worst is None else worst)
        counted.append(worst is not None)
    return values, counted


@pytest.mark.parametrize('margin', [None, 0.5])
def test_the_batch_hard_triplet_loss_is_the_worst_of_all_triplets(margin, embeddings):
    valid = np.arange(len(IDENTITIES)) != 1
    found, counted = losses.batch_hard_triplet(embeddings, IDENTITIES, margin, valid)
    expected, expected_counted = triplets(embeddings, IDENTITIES, margin, valid)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_array_equal(counted, expected_counted)
    assert counted.tolist() == [True, False, True, True, True, True, True, False]


def difference(function, at, direction, h=1e-6):
    return (function(at + h * direction) - function(at - h * direction)) / (2 * h)


def test_the_gradient_of_the_triplet_loss(embeddings):
    direction = np.random.default_rng(1).normal(size=embeddings.shape)
    with jax.enable_x64(True):
        value = jax.jit(lambda x: losses.batch_hard_triplet(x, IDENTITIES)[0].sum())
        slope = (np.asarray(jax.grad(value)(embeddings)) * direction).sum()
        np.testing.assert_allclose(slope, difference(value, embeddings, direction), rtol=1e-6)
    # Where two embeddings of one identity are equal, the distance has no derivative.
    equal = jax.grad(lambda x: losses.batch_hard_triplet(x, IDENTITIES)[0].sum())(jnp.ones((len(IDENTITIES), 6)))
    assert np.isfinite(equal).all()


COLUMNS, ROWS, REAL = np.array([2, -1, 0, 1]), np.array([1, 1, 1, 0], bool), np.array([1, 1, 1, 1, 0], bool)


def likelihood(weights, unmatched):
    return losses.assignment_nll(sinkhorn_log(weights, 1.0, 30, ROWS, REAL, unmatched), COLUMNS, ROWS, REAL)


def test_the_likelihood_of_an_assignment_term_by_term():
    """Matches (0, 2) and (2, 0); row 1 and columns 1 and 3 have none; row 3 and column 4 are padding."""
    weights = np.random.default_rng(2).normal(size=(4, 5)).astype(np.float32)
    log_plan = np.asarray(sinkhorn_log(weights, 1.0, 30, ROWS, REAL, 0.3))
    total, count = likelihood(weights, 0.3)
    expected = -(log_plan[0, 2] + log_plan[2, 0] + log_plan[1, 5] + log_plan[4, 1] + log_plan[4, 3])
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == 5
    # A plan that puts all mass where it belongs costs nothing.
    right = np.zeros((4, 5), np.float32)
    right[0, 2] = right[2, 0] = 40
    assert likelihood(right, 20.0)[0] < 0.1


def test_the_gradient_of_the_likelihood():
    """By the weights and by that of what is unmatched; padding has none."""
    rng = np.random.default_rng(3)
    weights, direction = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    with jax.enable_x64(True):
        value = jax.jit(lambda w, u: likelihood(w, u)[0])
        of_weights, of_unmatched = jax.grad(value, (0, 1))(weights, 0.3)
        expected = difference(lambda w: value(w, 0.3), weights, direction)
        np.testing.assert_allclose((np.asarray(of_weights) * direction).sum(), expected, rtol=1e-6)
        np.testing.assert_allclose(of_unmatched, difference(lambda u: value(weights, u), 0.3, 1.0), rtol=1e-6)
    assert not np.asarray(of_weights)[3].any()
    assert not np.asarray(of_weights)[:, 4].any()
