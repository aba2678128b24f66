"""Losses between domains against float64 loops, closed forms and analytic gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import losses, ops
from canon.errors import UsageError
from canon.losses import discrepancies


@pytest.fixture(scope='module')
def features():
    rng = np.random.default_rng(0)
    return rng.normal(size=(6, 3)).astype(np.float32), (rng.normal(size=(5, 3)) * 1.5 + 1).astype(np.float32)


def loop_mmd(source, target, scales, estimator, reference=None):
    """The estimator of Gretton et al. 2012, pair by pair, in float64."""
    rows = np.concatenate([source, target]).astype(np.float64)
    squares = np.array([[sum((a - b) ** 2) for b in rows] for a in rows])
    unit = squares.mean() if reference is None else reference
    n = len(source)
    sums = {'ss': [], 'tt': [], 'st': []}
    for i in range(len(rows)):
        for j in range(len(rows)):
            value = np.mean([np.exp(-squares[i, j] / (2 * s * unit)) for s in scales])
            if i < n <= j:
                sums['st'].append(value)
            elif (i < n) == (j < n) and (i != j or estimator == 'biased'):
                sums['ss' if i < n else 'tt'].append(value)
    return np.mean(sums['ss']) + np.mean(sums['tt']) - 2 * np.mean(sums['st'])


@pytest.mark.parametrize('estimator', ['biased', 'unbiased'])
@pytest.mark.parametrize('reference', [None, 1.0])
def test_mmd_against_a_loop_over_pairs(features, estimator, reference):
    scales = (0.25, 1.0, 4.0)
    value = losses.mmd(*features, scales, estimator, reference)
    np.testing.assert_allclose(value, loop_mmd(*features, scales, estimator, reference), atol=1e-6)


def test_mmd_of_a_sample_with_itself_is_zero(features):
    assert losses.mmd(features[0], features[0], estimator='biased') == pytest.approx(0, abs=1e-7)
    same = jnp.ones((4, 3))
    assert losses.mmd(same, same, estimator='unbiased') == 0
    assert np.isfinite(jax.grad(lambda x: losses.mmd(x, same))(same)).all()


def test_the_unbiased_mmd_has_the_expectation_of_the_distributions():
    """Gaussian kernel of width s between N(0, 1) and N(m, 1): E k = s / sqrt(s^2 + 2) exp(-m^2 / (2 (s^2 + 2)))."""
    rng, shift, s = np.random.default_rng(1), 1.0, 1.0
    estimate = jax.jit(lambda x, y: losses.mmd(x, y, (s**2,), 'unbiased', 1.0))
    draws = [estimate(rng.normal(size=(20, 1)), rng.normal(size=(20, 1)) + shift) for _ in range(400)]
    expected = 2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-(shift**2) / (2 * (s**2 + 2))))
    assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / 20
    equal = [estimate(rng.normal(size=(20, 1)), rng.normal(size=(20, 1))) for _ in range(400)]
    assert abs(np.mean(equal)) < 4 * np.std(equal) / 20
    assert min(equal) < 0


def test_mmd_passes_a_permutation_test(features):
    """Of two different samples it is larger than under nearly all relabellings of the rows."""
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(30, 2)), rng.normal(size=(30, 2)) + 1
    rows = jnp.concatenate([source, target])
    kernel = discrepancies.rbf_kernel(discrepancies.pairwise_squares(rows, rows))
    of_order = jax.jit(lambda order: discrepancies.mmd_of_kernel(kernel[order][:, order], 30))
    null = [of_order(rng.permutation(60)) for _ in range(200)]
    assert np.mean(np.asarray(null) >= of_order(np.arange(60))) < 0.01


def test_joint_mmd_is_the_mmd_of_the_product_kernel(features):
    source, target = features
    logits = source[:, :2] * 2, target[:, :2] * 2
    one = losses.joint_mmd([source], [target], [(0.5, 1.0)])
    np.testing.assert_allclose(one, losses.mmd(source, target, (0.5, 1.0)), rtol=1e-6)
    # One kernel a layer: exp(-a) exp(-b) = exp(-(a + b)), the kernel of the layers side by side in their units.
    rows = [np.concatenate(pair) for pair in (features, logits)]
    units = [np.sqrt(((x[:, None] - x) ** 2).sum(-1).mean()) for x in rows]
    joined = [jnp.concatenate([x / units[0], y / units[1]], 1) for x, y in zip(features, logits, strict=True)]
    both = losses.joint_mmd([source, logits[0]], [target, logits[1]], [(1.0,), (1.0,)])
    np.testing.assert_allclose(both, losses.mmd(joined[0], joined[1], (1.0,), reference=1.0), rtol=1e-4, atol=1e-6)
    # The authors' kernels: five of the features, and one of the softmax whose width is fixed.
    squares = [((x[:, None] - x).astype(np.float64) ** 2).sum(-1) for x in rows]
    wide = sum(np.exp(-squares[0] / (2 * s * squares[0].mean())) for s in (0.125, 0.25, 0.5, 1, 2)) / 5
    expected = discrepancies.mmd_of_kernel(jnp.asarray(wide * np.exp(-squares[1] / 1.68)), len(source))
    default = losses.joint_mmd([source, logits[0]], [target, logits[1]])
    np.testing.assert_allclose(default, expected, rtol=1e-4, atol=1e-6)
    # Equal marginals, other dependence: only the joint kernel sees it.
    rng = np.random.default_rng(3)
    a = jnp.where(rng.random((200, 1)) < 0.5, -1.0, 1.0)
    joint = losses.joint_mmd([a, a], [a, -a], [(1.0,), (1.0,)])
    assert joint > 0.1
    assert losses.mmd(a, -a) < 0.02


def test_coral_in_closed_form(features):
    source, target = (np.asarray(x, np.float64) for x in features)
    difference = np.cov(source.T) - np.cov(target.T)
    np.testing.assert_allclose(losses.coral(*features), (difference**2).sum() / (4 * 9), rtol=1e-5)
    expected = ((source.mean(0) - target.mean(0)) ** 2).mean() + (difference**2).mean()
    np.testing.assert_allclose(losses.mean_cov(*features), expected, rtol=1e-5)
    # 2 (C_S - C_T) moves C_S; d C_S / d x of two rows in one dimension by hand: C = (a - b)^2 / 2.
    pair, other = jnp.array([[3.0], [1.0]]), jnp.array([[0.0], [1.0]])
    gradient = jax.grad(losses.coral)(pair, other)  # C_S = 2, C_T = 1/2, so d/da (C_S - C_T)^2 / 4 = 3/4 * (a - b)
    np.testing.assert_allclose(gradient, [[1.5], [-1.5]], rtol=1e-6)


def test_errors_of_discrepancies(features):
    with pytest.raises(UsageError, match='positive widths'):
        losses.mmd(*features, scales=(1.0, 0.0))
    with pytest.raises(UsageError, match='neither'):
        losses.mmd(*features, estimator='both')  # ty: ignore[invalid-argument-type]
    with pytest.raises(UsageError, match='1 source and 5 target rows'):
        losses.mmd(features[0][:1], features[1])
    with pytest.raises(UsageError, match='at least two rows'):
        losses.coral(features[0][:1], features[1])
    with pytest.raises(UsageError, match='as many'):
        losses.joint_mmd([features[0]], [])


# --- predictions -----------------------------------------------------------------------------------------------------


def probabilities(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_losses_of_predictions_against_loops(features):
    logits, others = features[0].astype(np.float64), features[0][::-1].astype(np.float64)
    p = probabilities(logits)
    entropies = np.array([-sum(v * np.log(v) for v in row) for row in p])
    np.testing.assert_allclose(losses.entropy(logits), entropies, rtol=1e-5)
    expected = [
        np.mean([abs(a - b) for a, b in zip(*rows, strict=True)]) for rows in zip(p, probabilities(others), strict=True)
    ]
    np.testing.assert_allclose(losses.classifier_discrepancy(logits, others), expected, rtol=1e-5)
    marginal = p.mean(0)
    np.testing.assert_allclose(
        losses.information_loss(logits), entropies.mean() + (marginal * np.log(marginal)).sum(), rtol=1e-5
    )
    certain = 40 * jnp.eye(3)
    np.testing.assert_allclose(losses.information_loss(certain), -np.log(3), rtol=1e-5)


def test_class_confusion_against_a_loop(features):
    p = probabilities(features[0].astype(np.float64) / 2.5)
    certainty = np.array([1 + np.exp(sum(v * np.log(v) for v in row)) for row in p])
    certainty *= len(p) / certainty.sum()
    confusion = np.array(
        [[sum(w * row[j] * row[k] for w, row in zip(certainty, p, strict=True)) for k in range(3)] for j in range(3)]
    )
    confusion /= confusion.sum(1, keepdims=True)
    expected = sum(confusion[j, k] for j in range(3) for k in range(3) if j != k) / 3
    np.testing.assert_allclose(losses.class_confusion(features[0]), expected, rtol=1e-5)
    assert losses.class_confusion(1000 * jnp.eye(3)) == pytest.approx(0, abs=1e-6)


def test_the_maps_of_cdan(features):
    x, logits = features[0], features[0][:, :2]
    p = probabilities(logits)
    expected = np.stack([np.outer(a, b).ravel() for a, b in zip(p, x, strict=True)])
    np.testing.assert_allclose(losses.multilinear_map(x, logits), expected, rtol=1e-5)
    # The random map estimates the inner products, here over 20,000 columns.
    rng = np.random.default_rng(4)
    matrices = [jnp.asarray(rng.normal(size=(width, 20_000))) for width in (3, 2)]
    mapped = np.asarray(losses.random_multilinear_map(x, logits, *matrices))
    np.testing.assert_allclose(mapped @ mapped.T, expected @ expected.T, atol=0.25)
    gradient = jax.grad(lambda y: losses.multilinear_map(x, y).sum())(logits)
    assert not np.asarray(gradient).any()


# --- several risks ---------------------------------------------------------------------------------------------------


def test_the_penalty_of_irm_of_two_samples():
    """d/dw mean log(1 + exp(-y w z)) = -mean y z / (1 + exp(y z)) with y in {-1, 1}, squared; and softmax likewise."""
    z, labels = jnp.array([0.7, -1.3]), jnp.array([1, 1])
    slope = np.mean([-v / (1 + np.exp(v)) for v in (0.7, -1.3)])
    np.testing.assert_allclose(losses.irm_penalty(z, labels), slope**2, rtol=1e-5)
    two = jnp.stack([jnp.zeros(2), z], 1)  # logits (0, z) of two classes are the logistic model
    np.testing.assert_allclose(losses.irm_penalty(two, labels), slope**2, rtol=1e-5)
    halves = losses.irm_penalty_of_halves(z, labels)
    np.testing.assert_allclose(halves, (0.7 / (1 + np.exp(0.7))) * (-1.3 / (1 + np.exp(-1.3))), rtol=1e-5)
    # Its gradient by finite differences.
    with jax.enable_x64(True):
        at, h = np.array([0.7, -1.3]), 1e-6
        gradient = jax.grad(losses.irm_penalty)(at, labels)
        for i in range(2):
            step = h * np.eye(2)[i]
            numeric = (losses.irm_penalty(at + step, labels) - losses.irm_penalty(at - step, labels)) / (2 * h)
            np.testing.assert_allclose(gradient[i], numeric, rtol=1e-6)
    with pytest.raises(UsageError, match='two rows'):
        losses.irm_penalty_of_halves(z[:1], labels[:1])


def test_the_variance_of_risks_and_the_weights_of_groups():
    risks = jnp.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(losses.risk_variance(risks), np.var([1, 2, 6]), rtol=1e-6)
    weights = jnp.full(3, 1 / 3)
    updated = losses.update_group_weights(weights, risks, 0.1)
    expected = np.exp(0.1 * np.array([1, 2, 6]))
    np.testing.assert_allclose(updated, expected / expected.sum(), rtol=1e-6)
    np.testing.assert_array_equal(losses.update_group_weights(weights, risks, 0.0), weights)
    assert np.isfinite(losses.update_group_weights(weights, 1e6 * risks, 1.0)).all()
    with pytest.raises(UsageError, match='two domains'):
        losses.risk_variance(risks[:1])


# --- gradient reversal -----------------------------------------------------------------------------------------------


def test_gradient_reversal_against_two_explicit_gradients():
    """One gradient through the layer is the discriminator's own, and -lambda times that of the features."""
    rng = np.random.default_rng(5)
    x, features, classifier = (jnp.asarray(rng.normal(size=shape)) for shape in ((7, 4), (4, 3), (3,)))

    def loss(features, classifier, weight=None):
        h = jnp.tanh(x @ features)
        h = h if weight is None else ops.reverse_gradient(h, weight)
        return jnp.square(h @ classifier - 1).sum()

    for weight in (0.0, 0.3, 1.0):
        of_features, of_classifier = jax.grad(loss, (0, 1))(features, classifier, weight)
        explicit = jax.grad(loss, (0, 1))(features, classifier)
        np.testing.assert_allclose(of_classifier, explicit[1], rtol=1e-6)
        np.testing.assert_allclose(of_features, -weight * explicit[0], rtol=1e-5, atol=1e-6)
    assert jax.grad(loss, 2)(features, classifier, 0.5) == 0


def test_the_ramp_of_the_reversal():
    progress = np.array([0.0, 0.1, 0.5, 1.0])
    np.testing.assert_allclose(
        ops.reversal_weight(jnp.asarray(progress)), 2 / (1 + np.exp(-10 * progress)) - 1, atol=1e-6
    )
    np.testing.assert_allclose(ops.reversal_weight(1.0, 1.0, 0.5), 0.5 * (2 / (1 + np.exp(-1)) - 1), rtol=1e-6)


# --- fine-tuning -----------------------------------------------------------------------------------------------------


def test_spectral_shrinkage_is_the_sum_of_the_smallest_singular_values(features):
    with jax.enable_x64(True):
        for x in (features[0].astype(np.float64), features[0].T.astype(np.float64)):
            u, s, vt = np.linalg.svd(x, full_matrices=False)
            np.testing.assert_allclose(losses.spectral_shrinkage(x, 2), (s[-2:] ** 2).sum(), rtol=1e-9)
            gradient = jax.grad(losses.spectral_shrinkage)(x)
            np.testing.assert_allclose(gradient, 2 * s[-1] * np.outer(u[:, -1], vt[-1]), atol=1e-9)
    assert np.isfinite(jax.grad(losses.spectral_shrinkage)(jnp.zeros((4, 3)))).all()
    with pytest.raises(UsageError, match=r'in 1\.\.3'):
        losses.spectral_shrinkage(features[0], 4)


def test_distillation_is_least_at_the_teacher(features):
    teacher = features[0]
    own = losses.distillation(teacher, teacher)
    p = probabilities(teacher / 2)
    np.testing.assert_allclose(own, -(p * np.log(p)).sum(-1), rtol=1e-5)
    assert (losses.distillation(teacher + np.eye(6, 3, dtype=np.float32), teacher) > own)[:3].all()
    assert not np.asarray(jax.grad(lambda t: losses.distillation(teacher[::-1], t).sum())(teacher)).any()
