"""Known density ratios, eigen-decompositions written out, and selection rules against their definitions."""

import doctest

import numpy as np
import pytest
import scipy.linalg
from scipy.optimize import minimize

from canon import transfer
from canon.errors import UsageError
from canon.transfer import density_ratios, kernels


@pytest.fixture(scope='module')
def gaussians():
    """x ~ N(0, 1), t ~ N(0.7, 0.8^2): the ratio is known everywhere."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 1, (400, 1)), rng.normal(0.7, 0.8, (400, 1))


def true_ratio(x):
    x = x[:, 0]
    return np.exp(-((x - 0.7) ** 2) / (2 * 0.64) + x**2 / 2) / 0.8


def test_the_example_of_the_package():
    result = doctest.testmod(transfer)
    assert result.attempted
    assert not result.failed


# --- density ratios --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'estimate',
    [
        lambda x, t: transfer.kernel_mean_matching(x, t, width=0.5),
        lambda x, t: transfer.fit_kliep(x, t, centres=40)(x),
        lambda x, t: transfer.fit_ulsif(x, t, centres=40)(x),
        lambda x, t: transfer.fit_discriminator_ratio(x, t, quadratic=True)(x),
    ],
    ids=['KMM', 'KLIEP', 'uLSIF', 'discriminator'],
)
def test_a_known_density_ratio_is_recovered(estimate, gaussians):
    x, t = gaussians
    weights, truth = estimate(x, t), true_ratio(x)
    assert np.corrcoef(weights, truth)[0, 1] > 0.9
    assert weights.mean() == pytest.approx(1, abs=0.15)
    # A weighted mean over the source is one over the target, 0.7 instead of 0.
    assert np.average(x[:, 0], weights=weights) == pytest.approx(0.7, abs=0.12)
    assert np.sqrt(np.mean((weights - truth) ** 2)) < 0.45 * truth.std()


def test_the_relative_ratio_is_bounded(gaussians):
    x, t = gaussians
    truth = true_ratio(x)
    truth = truth / (0.3 * truth + 0.7)
    weights = transfer.fit_ulsif(x, t, alpha=0.3, centres=40)(x)
    assert np.corrcoef(weights, truth)[0, 1] > 0.95
    assert weights.max() < 1.1 / 0.3
    assert transfer.effective_count(weights) > transfer.effective_count(true_ratio(x))


def test_the_discriminator_of_two_gaussians_is_linear_regression_in_closed_form():
    """With equal covariances log p_t / p_x = m (x - m / 2): the coefficients approach m."""
    rng = np.random.default_rng(1)
    x, t = rng.normal(0, 1, (4000, 1)), rng.normal(0.5, 1, (2000, 1))
    ratio = transfer.fit_discriminator_ratio(x, t, l2=0)
    at = np.array([[-1.0], [0.25], [1.0]])
    np.testing.assert_allclose(np.log(ratio(at)), 0.5 * (at[:, 0] - 0.25), atol=0.1)


def test_kernel_mean_matching_solves_its_quadratic_program():
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(12, 2)), rng.normal(size=(15, 2)) + 0.5
    weights = transfer.kernel_mean_matching(x, t, width=1.0, bound=2.0, epsilon=0.1)
    kernel, kappa = kernels.gaussian_kernel(x, x, 1.0), 12 / 15 * kernels.gaussian_kernel(x, t, 1.0).sum(1)
    within = [{'type': 'ineq', 'fun': lambda w, s=s: s * (w.sum() - 12) + 1.2} for s in (1, -1)]
    found = minimize(
        lambda w: w @ kernel @ w / 2 - kappa @ w,
        np.ones(12),
        jac=lambda w: kernel @ w - kappa,
        bounds=[(0, 2)] * 12,
        constraints=within,
        method='SLSQP',
        options={'ftol': 1e-12, 'maxiter': 500},
    )
    np.testing.assert_allclose(weights, found.x, atol=2e-3)
    assert weights @ kernel @ weights / 2 - kappa @ weights <= found.fun + 1e-6
    assert weights.min() >= 0
    assert weights.max() <= 2 + 1e-9
    assert abs(weights.sum() - 12) <= 1.2 + 1e-6


def test_kliep_is_a_maximum_under_its_constraint(gaussians):
    x, t = (rows[:60] for rows in gaussians)
    ratio = density_ratios._maximise_likelihood(x, t, t[:10], 0.8)
    assert ratio(x).mean() == pytest.approx(1)
    best = np.log(ratio(t)).mean()
    rng = np.random.default_rng(3)
    for _ in range(50):
        other = ratio._replace(coefficients=ratio.coefficients * np.exp(rng.normal(0, 0.3, len(ratio.coefficients))))
        other = other._replace(coefficients=other.coefficients / other(x).mean())
        assert np.log(other(t)).mean() <= best + 1e-4


def test_errors_of_ratios(gaussians):
    x, t = gaussians
    with pytest.raises(UsageError, match='positive width'):
        transfer.kernel_mean_matching(x, t, width=0.0)
    with pytest.raises(UsageError, match='positive widths'):
        transfer.fit_ulsif(x, t, widths=[])
    with pytest.raises(UsageError, match='1 columns and target features 2'):
        transfer.fit_kliep(x, np.zeros((3, 2)))
    with pytest.raises(UsageError, match='3 rows cannot be divided into 5 folds'):
        transfer.fit_kliep(x, t[:3])
    with pytest.raises(UsageError, match='1 values that are not finite'):
        transfer.fit_ulsif(x, np.array([[np.nan], [1.0]]))


# --- boosting --------------------------------------------------------------------------------------------------------


def test_tradaboost_learns_from_the_source_that_agrees():
    """Half of the source has the target's labels, the other half the opposite ones: those lose their weight."""
    rng = np.random.default_rng(4)
    x, t, test = (rng.normal(size=(n, 2)) for n in (200, 40, 500))
    labels = (x[:, 0] > 0).astype(int)
    misleading = np.arange(200) >= 100
    labels[misleading] = 1 - labels[misleading]
    vote = transfer.tradaboost(x, labels, t, (t[:, 0] > 0).astype(int), rounds=20)
    truth = (test[:, 0] > 0).astype(int)
    assert np.mean(vote(test) == truth) > 0.9
    assert vote.source_weights[misleading].sum() < 0.1 * vote.source_weights[~misleading].sum()
    pooled = transfer.fit_softmax(np.concatenate([x, t]), np.concatenate([labels, (t[:, 0] > 0).astype(int)]))
    assert np.mean(vote(test) == truth) > np.mean(pooled(test) == truth)
    assert len(vote.classifiers) == 11  # rounds ceil(T / 2) .. T


def test_one_round_of_tradaboost_by_hand():
    """A learner that always says 1: eps = 1/4 on the target, whose wrong row gains 3; the wrong source loses beta."""
    labels, targets = np.array([1, 0]), np.array([1, 1, 1, 0])
    rows = np.arange(6.0)[:, None]

    def always_one(rows, labels, weights):
        return lambda x: np.ones(len(x), int)

    vote = transfer.tradaboost(rows[:2], labels, rows[2:], targets, 1, always_one)
    beta = 1 / (1 + np.sqrt(2 * np.log(2)))
    expected = np.array([1, beta, 1, 1, 1, 3])
    np.testing.assert_allclose(
        np.concatenate([vote.source_weights, vote.target_weights]), expected / expected.sum(), rtol=1e-12
    )
    assert vote.errors == pytest.approx((0.25,))
    assert vote.votes == pytest.approx((np.log(3),))
    with pytest.raises(UsageError, match='no round is right for half'):
        transfer.tradaboost(rows[:2], labels, rows[2:], np.zeros(4, int), 2, always_one)


def test_softmax_regression_at_its_minimum():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(30, 2)) * [1, 50]
    labels, weights = rng.integers(0, 3, 30), rng.random(30)
    model = transfer.fit_softmax(x, labels, weights, l2=0.1)
    z = (x - x.mean(0)) / x.std(0)
    p = np.exp(model.logits(x))
    p /= p.sum(1, keepdims=True)
    error = (weights / weights.sum())[:, None] * (p - np.eye(3)[labels])
    np.testing.assert_allclose(z.T @ error + 0.1 * model.kernel, 0, atol=1e-4)
    # A row of weight 2 counts as two rows.
    twice = np.concatenate([np.arange(30), [0]])
    a = transfer.fit_softmax(z, labels, np.where(np.arange(30) == 0, 2.0, 1.0), l2=0.0)
    b = transfer.fit_softmax(z[twice], labels[twice], l2=0.0)
    np.testing.assert_allclose(a.logits(z) - a.logits(z)[:, :1], b.logits(z) - b.logits(z)[:, :1], atol=5e-3)


# --- subspaces -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def tables():
    rng = np.random.default_rng(6)
    mix = rng.normal(size=(4, 4))
    return rng.normal(size=(25, 4)) @ mix + 1, rng.normal(size=(20, 4)) * [3, 1, 1, 0.5] - 2


def leading_directions(rows, dimensions):
    """Eigenvectors of the covariance, the largest first."""
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    return vectors[:, np.argsort(values)[::-1][:dimensions]]


def test_subspace_alignment_against_eigenvectors(tables):
    x, t = tables
    pair = transfer.align_subspaces(x, t, 2)
    p, q = (leading_directions(rows, 2) for rows in (x, t))
    # Eigenvectors have no sign: inner products of the mapped rows do not depend on it.
    expected = (x - x.mean(0)) @ p @ (p.T @ q)
    np.testing.assert_allclose(pair.map_source(x) @ pair.map_target(t).T, expected @ ((t - t.mean(0)) @ q).T, atol=1e-8)
    # M = P' Q is the least-squares alignment.
    best = np.linalg.norm(p @ (p.T @ q) - q)
    for i in range(4):
        moved = (p.T @ q).ravel() + 0.01 * np.eye(4)[i]
        assert np.linalg.norm(p @ moved.reshape(2, 2) - q) > best
    same = transfer.align_subspaces(x, x, 3)
    np.testing.assert_allclose(same.map_source(x), same.map_target(x), atol=1e-9)
    with pytest.raises(UsageError, match=r'in 1\.\.4'):
        transfer.align_subspaces(x, t, 5)


@pytest.mark.parametrize('kernel', ['linear', 'gaussian'])
def test_transfer_components_against_eigenvectors(kernel, tables):
    x, t = tables
    model = transfer.fit_transfer_components(x, t, 2, mu=0.7, kernel=kernel, width=2.0)
    rows = np.concatenate([x, t])
    k = np.array([[a @ b if kernel == 'linear' else np.exp(-((a - b) ** 2).sum() / 8) for b in rows] for a in rows])
    n, m = len(x), len(t)
    between = np.zeros((n + m, n + m))  # L, entry by entry
    for i in range(n + m):
        for j in range(n + m):
            between[i, j] = 1 / n**2 if max(i, j) < n else 1 / m**2 if min(i, j) >= n else -1 / (n * m)
    h = np.eye(n + m) - 1 / (n + m)
    values, vectors = scipy.linalg.eig(np.linalg.inv(k @ between @ k + 0.7 * np.eye(n + m)) @ k @ h @ k)
    order = np.argsort(values.real)[::-1][:2]
    for column, i in enumerate(order):
        own, expected = model.coefficients[:, column], vectors[:, i].real
        assert abs(own @ expected) / np.linalg.norm(own) / np.linalg.norm(expected) == pytest.approx(1, abs=1e-6)
    gram = model.coefficients.T @ (k @ between @ k + 0.7 * np.eye(n + m)) @ model.coefficients
    np.testing.assert_allclose(gram, np.eye(2), atol=1e-7)
    np.testing.assert_allclose(model(rows), k @ model.coefficients, atol=1e-7)
    with pytest.raises(UsageError, match='neither'):
        transfer.fit_transfer_components(x, t, 2, kernel='poly')


def test_transfer_components_bring_domains_together(tables):
    x, t = tables
    model = transfer.fit_transfer_components(x, t, 1, mu=1e-3, kernel='linear')
    a, b = model(x)[:, 0], model(t)[:, 0]
    gaps = [abs(rows[0].mean() - rows[1].mean()) / np.concatenate(rows).std() for rows in ((a, b), (x[:, 0], t[:, 0]))]
    assert gaps[0] < 0.1 < gaps[1]


def test_aligned_covariances_are_those_of_the_target(tables):
    x, t = tables
    np.testing.assert_allclose(np.cov(transfer.align_covariances(x, t, 0.0).T), np.cov(t.T), atol=1e-8)
    root = scipy.linalg.sqrtm
    covariances = [np.cov(rows.T) + np.eye(4) for rows in (x, t)]
    expected = x @ np.linalg.inv(root(covariances[0])) @ root(covariances[1])
    np.testing.assert_allclose(transfer.align_covariances(x, t), expected.real, atol=1e-8)
    with pytest.raises(UsageError, match='rank less than 4'):
        transfer.align_covariances(x * [1, 1, 1, 0], t, 0.0)


# --- selection -------------------------------------------------------------------------------------------------------


def test_scores_of_predictions():
    certain, collapsed, unsure = 50 * np.eye(4)[np.arange(40) % 4], 50 * np.eye(4)[np.zeros(40, int)], np.zeros((40, 4))
    assert transfer.mean_entropy(unsure) == pytest.approx(np.log(4))
    assert transfer.mean_entropy(collapsed) == pytest.approx(0, abs=1e-9)
    assert transfer.information_score(certain) == pytest.approx(np.log(4))
    assert transfer.information_score(collapsed) == pytest.approx(0, abs=1e-9)
    assert transfer.source_risk(np.log([[0.25, 0.75], [0.5, 0.5]]), np.array([1, 0])) == pytest.approx(
        -(np.log(0.75) + np.log(0.5)) / 2
    )


def test_soft_neighbourhood_density_against_a_loop():
    logits = np.random.default_rng(7).normal(size=(6, 3))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropies = []
    for i in range(6):
        similar = np.array([p[i] @ p[j] / np.linalg.norm(p[i]) / np.linalg.norm(p[j]) for j in range(6) if j != i])
        q = np.exp(similar / 0.05) / np.exp(similar / 0.05).sum()
        entropies.append(-(q * np.log(q)).sum())
    assert transfer.soft_neighbourhood_density(logits) == pytest.approx(np.mean(entropies))
    with pytest.raises(UsageError, match='2 rows or more'):
        transfer.soft_neighbourhood_density(logits[:1])


def test_deep_embedded_validation_has_less_variance_than_weighting(gaussians):
    """The risk of predicting 0, E_t x^2 = 0.7^2 + 0.8^2, from source losses and the true weights, 200 times."""
    rng, estimates = np.random.default_rng(8), []
    for _ in range(200):
        x = rng.normal(size=(200, 1))
        losses, weights = x[:, 0] ** 2, true_ratio(x)
        estimates.append((transfer.deep_embedded_validation(losses, weights), np.mean(losses * weights)))
    ours, plain = np.array(estimates).T
    assert ours.mean() == pytest.approx(0.49 + 0.64, abs=0.04)
    assert ours.std() < plain.std()
    assert transfer.deep_embedded_validation(np.array([1.0, 3.0]), np.ones(2)) == 2
    with pytest.raises(UsageError, match='at least 2'):
        transfer.deep_embedded_validation(np.ones(1), np.ones(1))


def test_the_a_distance_of_equal_and_of_separate_domains():
    rng = np.random.default_rng(9)
    x = rng.normal(size=(400, 3))
    assert transfer.a_distance(x[:200], x[200:]) < 0.4
    assert transfer.a_distance(x[:300], x[300:] + 20) == 2


def test_a_row_has_the_last_model_every_rule_and_the_oracle():
    scores = {'source_risk': [0.3, 0.1, 0.2], 'information': [1.0, 1.0, np.nan], 'dev': [0.5, 0.9, 0.4]}
    row = transfer.select_by_rules(scores, [0.7, 0.9, 0.8])
    assert row == {
        'last': (2, 0.8), 'source_risk': (1, 0.9), 'information': (1, 0.9), 'dev': (2, 0.8), 'oracle': (1, 0.9),
    }  # fmt: skip
    with pytest.raises(UsageError, match='no rule'):
        transfer.select_by_rules({'target_accuracy': [1]}, [1])
    with pytest.raises(UsageError, match='2 scores for 1 models'):
        transfer.select_by_rules({'snd': [1, 2]}, [1])
