"""Association against scipy on the problem as the papers state it: random, tied, gated and empty."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from canon.tracking import affinity
from canon.tracking.association import (
    assign_cascade,
    assign_max_weight,
    assign_min_cost,
    assign_then_gate,
    match_mutual_best,
    sinkhorn,
    sinkhorn_log,
)

SHAPE, PROBLEMS = (9, 7), 120
assign_batch = jax.jit(jax.vmap(assign_max_weight))


@pytest.fixture(scope='module')
def problems():
    """Weights [120, 9, 7]: random, tied, sparse as IoUs are, negative, and empty ones."""
    rng = np.random.default_rng(0)
    weights = rng.random((PROBLEMS, *SHAPE)).astype(np.float32)
    weights[1::4] = np.round(weights[1::4] * 4) / 4
    weights[2::4] *= rng.random(weights[2::4].shape) < 0.3
    weights[3::4] -= 0.5
    weights[8::24], weights[16::24, :, 2] = 0, np.nan
    weights[20::24, 3:] = -1
    return weights


@pytest.fixture(scope='module')
def assigned(problems):
    return np.asarray(assign_batch(problems))


def total(weights, columns):
    rows = np.flatnonzero(columns >= 0)
    assert len(set(columns[rows].tolist())) == len(rows)
    return weights[rows, columns[rows]].astype(np.float64).sum()


def test_both_forms_reach_the_largest_weight(problems, assigned):
    """A row or column may remain unmatched, so that nothing is gained by weights below 0."""
    for weights, columns in zip(problems, assigned, strict=True):
        clipped = np.where(weights > 0, weights, 0)
        best = total(clipped, _pad(linear_sum_assignment(clipped, maximize=True), len(weights)))
        for found in (columns, assign_max_weight(weights)):
            assert total(clipped, found) == pytest.approx(best, abs=1e-5)
            rows = np.flatnonzero(found >= 0)
            assert (weights[rows, found[rows]] > 0).all()


def test_without_ties_both_forms_find_the_same_pairs(problems, assigned):
    for weights, columns in zip(problems[0::4], assigned[0::4], strict=True):
        np.testing.assert_array_equal(columns, assign_max_weight(weights))


def _pad(pairs, count):
    columns = np.full(count, -1)
    columns[pairs[0]] = pairs[1]
    return columns


@pytest.mark.parametrize('shape', [(0, 3), (3, 0), (0, 0)])
def test_empty_problems(shape):
    for xp in (np, jnp):
        weights = xp.ones(shape)
        rules = (
            assign_max_weight, match_mutual_best, functools.partial(assign_min_cost, max_cost=1.0),
            functools.partial(assign_then_gate, min_affinity=0.1),
            functools.partial(assign_cascade, max_cost=1.0, levels=xp.zeros(shape[0], int)),
        )  # fmt: skip
        for rule in rules:
            np.testing.assert_array_equal(rule(weights), np.full(shape[0], -1))


def test_a_limit_of_cost_solves_the_augmented_problem(problems):
    """lapjv's `cost_limit`: an (N + M)^2 problem whose further rows and columns cost half of the limit each."""
    limit, (n, m) = 0.6, SHAPE
    for cost in np.abs(problems[:40]):
        cost = np.nan_to_num(cost, nan=2.0)
        augmented = np.full((n + m, n + m), limit / 2)
        augmented[n:, m:] = 0
        augmented[:n, :m] = cost
        pairs = linear_sum_assignment(augmented)
        best = augmented[pairs].sum()
        found = assign_min_cost(cost, limit)
        unmatched = (found < 0).sum() + m - (found >= 0).sum()
        assert total(cost, found) + limit / 2 * unmatched == pytest.approx(best, abs=1e-5)


def test_gated_costs_equal_clipping_and_rejecting(problems):
    """DeepSORT's form: costs above the gate are set just above it, and what is assigned there is dropped."""
    for cost in np.nan_to_num(problems[0:40:4], nan=2.0):
        clipped = np.where(cost > 0.3, 0.3 + 1e-5, cost).astype(np.float64)
        columns = _pad(linear_sum_assignment(clipped), len(cost))
        columns[clipped[np.arange(len(cost)), columns] > 0.3] = -1
        np.testing.assert_array_equal(assign_min_cost(cost, 0.3), columns)


def test_the_gate_after_the_assignment(problems):
    """An acceptable pair may be lost to a better total, unless no pairs above the gate compete."""
    weights = np.array([[0.5, 0.45], [0.45, 0.0]])
    assert assign_then_gate(weights, 0.46).tolist() == [0, -1]  # one pair above the gate: it stays
    competing = np.array([[0.5, 0.47, 0.0], [0.47, 0.0, 0.0], [0.0, 0.0, 0.9]])
    assert assign_then_gate(competing, 0.46).tolist() == [1, 0, 2]
    gate = jax.jit(jax.vmap(lambda w: assign_then_gate(w, 0.4)))
    sample = problems[0:40:4]
    np.testing.assert_array_equal(gate(sample), [assign_then_gate(w, 0.4) for w in sample])


def test_rounds_of_mutual_best_are_greedy(problems):
    rounds = jax.jit(jax.vmap(match_mutual_best))(problems)
    once = jax.jit(jax.vmap(functools.partial(match_mutual_best, max_rounds=1)))(problems)
    for weights, columns, mutual in zip(problems, np.asarray(rounds), np.asarray(once), strict=True):
        np.testing.assert_array_equal(match_mutual_best(weights), columns)
        np.testing.assert_array_equal(match_mutual_best(weights, 1), mutual)
        clipped = np.where(weights > 0, weights, 0)
        for row in np.flatnonzero(mutual >= 0):
            assert clipped[row, mutual[row]] == clipped[row].max() == clipped[:, mutual[row]].max()
    for weights, columns in zip(problems[0::4], np.asarray(rounds)[0::4], strict=True):
        left, greedy = np.where(weights > 0, weights, 0), np.full(len(weights), -1)
        while left.max() > 0:
            row, column = np.unravel_index(left.argmax(), left.shape)
            greedy[row] = column
            left[row], left[:, column] = 0, 0
        np.testing.assert_array_equal(columns, greedy)


def test_a_cascade_serves_low_levels_first(problems):
    levels = np.array([2, 0, 1, 1, 0, 5, 2, 1, 0])
    cascade = jax.jit(jax.vmap(lambda cost: assign_cascade(cost, 0.5, jnp.asarray(levels))))
    sample = problems[[0, 4, 12]]  # without ties
    for cost, compiled in zip(sample, np.asarray(cascade(sample)), strict=True):
        expected, free = np.full(len(cost), -1), np.ones(cost.shape[1], bool)
        for level in range(6):
            rows, columns = np.flatnonzero(levels == level), np.flatnonzero(free)
            found = assign_min_cost(cost[rows][:, columns], 0.5)
            expected[rows[found >= 0]] = columns[found[found >= 0]]
            free[expected[expected >= 0]] = False
        np.testing.assert_array_equal(assign_cascade(cost, 0.5, levels), expected)
        np.testing.assert_array_equal(compiled, expected)


def test_sinkhorn_becomes_the_assignment_and_keeps_its_sums(problems, assigned):
    """Learnt weights of both signs; padded rows and columns are zero."""
    sample = problems[3:60:4]
    soft = jax.jit(jax.vmap(functools.partial(sinkhorn, temperature=0.004, iterations=400)))(sample)
    soft = np.asarray(soft)
    np.testing.assert_allclose(soft[:, :-1].sum(2), 1, atol=0.02)
    np.testing.assert_allclose(soft[:, :, :-1].sum(1), 1, atol=0.02)
    for weights, plan in zip(sample, soft, strict=True):
        best = total(np.where(weights > 0, weights, 0), assign_max_weight(weights))
        assert (plan[:-1, :-1] * weights).sum() == pytest.approx(best, abs=0.05)
    padded = jax.jit(sinkhorn)(sample[0], rows=np.arange(9) < 4, columns=np.arange(7) < 3)
    inner = jax.jit(sinkhorn)(sample[0][:4, :3])
    np.testing.assert_allclose(padded[:4, :3], inner[:4, :3], atol=1e-5)
    assert not np.asarray(padded[4:9]).any()
    assert not np.asarray(padded[:, 3:7]).any()
    empty = {'rows': np.zeros(9, bool), 'columns': np.zeros(7, bool)}
    assert not np.asarray(jax.jit(jax.grad(lambda w: sinkhorn(w, **empty).sum()))(sample[0])).any()


def test_the_gradient_of_sinkhorn():
    """By central differences in float64."""
    rng = np.random.default_rng(3)
    weights, direction, cotangent = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.normal(size=(5, 4))
    with jax.enable_x64(True):
        value = jax.jit(lambda w: (sinkhorn(w, 0.5, 20) * cotangent).sum())
        slope = (np.asarray(jax.jit(jax.grad(value))(weights)) * direction).sum()
        h = 1e-6
        expected = (value(weights + h * direction) - value(weights - h * direction)) / (2 * h)
        np.testing.assert_allclose(slope, expected, rtol=1e-7)


def test_a_learnt_weight_of_what_is_unmatched_shifts_the_assignment(problems):
    """Matching gains its weight instead of that of the row and of the column, and fills the corner: w - unmatched."""
    sample = problems[3:60:4]
    plans = jax.jit(jax.vmap(functools.partial(sinkhorn, temperature=0.004, iterations=400, unmatched=0.2)))(sample)
    for weights, plan in zip(sample, np.asarray(plans), strict=True):
        gained = weights - 0.2
        best = total(np.where(gained > 0, gained, 0), assign_max_weight(gained))
        assert (plan[:-1, :-1] * gained).sum() == pytest.approx(best, abs=0.05)


def test_sinkhorn_maximises_its_objective():
    """A plan of the same sums, moved along any circuit of four entries, has a smaller sum of weights and entropy."""
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(3, 4))
    with jax.enable_x64(True):
        log_plan = np.asarray(sinkhorn_log(weights, 0.5, 500, unmatched=-0.3))
    scores = np.full((4, 5), -0.3)
    scores[:3, :4] = weights

    def objective(plan):
        return (plan * scores).sum() - 0.5 * (plan * np.log(plan)).sum()

    plan = np.exp(log_plan)
    np.testing.assert_allclose(plan.sum(1), [1, 1, 1, 4], atol=1e-9)
    np.testing.assert_allclose(plan.sum(0), [1, 1, 1, 1, 3], atol=1e-9)
    for _ in range(50):
        rows, columns = rng.choice(4, 2, replace=False), rng.choice(5, 2, replace=False)
        move = np.zeros_like(plan)
        move[rows[0], columns[0]] = move[rows[1], columns[1]] = 1
        move[rows[0], columns[1]] = move[rows[1], columns[0]] = -1
        assert objective(plan + 1e-3 * plan[np.ix_(rows, columns)].min() * move) < objective(plan)


def test_affinities():
    """Closed forms, numpy against JAX, and boxes of no area or no number."""
    a = np.array([[0.0, 0, 10, 10], [5, 5, 5, 5], [np.nan, 0, 1, 1]])
    b = np.array([[0.0, 0, 10, 5], [20, 0, 30, 10]])
    np.testing.assert_allclose(affinity.compute_iou(a, b), [[0.5, 0], [0, 0], [0, 0]])
    np.testing.assert_allclose(affinity.compute_giou(a, b)[0], [0.5, -1 / 3])
    for measure in (affinity.compute_iou, affinity.compute_giou):
        np.testing.assert_allclose(jax.jit(measure)(a[:2], b), measure(a[:2], b), atol=1e-6)
    assert jax.jit(affinity.compute_iou)(a, b)[2].tolist() == [0, 0]
    assert affinity.compute_iou(a[:0], b).shape == (0, 2)
    x, y = np.array([[3.0, 4], [0, 0]]), np.array([[4.0, 3], [-3, -4]])
    np.testing.assert_allclose(affinity.compute_cosine_similarity(x, y), [[0.96, -1], [0, 0]])
    galleries = affinity.normalize_embeddings(np.array([[[1.0, 0], [0, 1]], [[1, 0], [0, 1]]]))
    filled = np.array([[True, True], [False, False]])
    nearest = affinity.compute_gallery_similarity(galleries, filled, affinity.normalize_embeddings(y))
    np.testing.assert_allclose(nearest, [[0.8, -0.6], [-1, -1]])
    np.testing.assert_allclose(affinity.fuse_score(np.full((1, 2), 0.5), np.array([1, 0.5])), [[0.5, 0.25]])
    np.testing.assert_allclose(affinity.fuse_motion(np.ones(1), np.full(1, 3.0), 0.25), [1.5])
