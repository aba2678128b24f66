"""Kalman filters against 8 x 8 matrices in float64, and the smoother against the joint Gaussian solved at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from canon.tracking import kalman
from tests.tracking.matrix_filter import MatrixFilter, measure, noise

FORMS = ('sort', 'deep_sort', 'center_size')
BOXES = np.array([[10.0, 20, 40, 90], [200, 50, 260, 110], [5, 5, 9, 40]])


def make_model(form):
    return {'sort': kalman.sort_motion, 'deep_sort': kalman.deep_sort_motion, 'center_size': kalman.center_size_motion}[
        form
    ]()


def matrices(estimate, index):
    """The mean [8] and covariance [8, 8] of one track."""
    p, c, v = np.asarray(estimate.covariance)[index]
    return np.asarray(estimate.mean)[index].reshape(8), np.block([[np.diag(p), np.diag(c)], [np.diag(c), np.diag(v)]])


@pytest.mark.parametrize('form', FORMS)
def test_filters_equal_the_matrix_form(form):
    """Tracks miss some detections; one shrinks until SORT's area would become negative."""
    rng, model = np.random.default_rng(0), make_model(form)
    estimate, references = kalman.initiate(model, BOXES), [MatrixFilter(form, box) for box in BOXES]
    boxes = BOXES.copy()
    for t in range(12):
        boxes = boxes + rng.normal(2, 1, (3, 1)) + rng.normal(0, 0.5, (3, 4))
        boxes[1, 2:] = boxes[1, :2] + np.maximum((boxes[1, 2:] - boxes[1, :2]) * 0.6, 0.5)
        observed = rng.random(3) < 0.6 if t > 1 else np.ones(3, bool)
        estimate = kalman.predict(model, estimate)
        for reference in references:
            reference.predict()
        distance = kalman.gating_distance(model, estimate, boxes)
        expected = [[reference.distance(box) for box in boxes] for reference in references]
        np.testing.assert_allclose(distance, expected, rtol=1e-9)
        estimate = kalman.update(model, estimate, boxes, observed)
        for i in np.flatnonzero(observed):
            references[i].update(boxes[i])
        for i, reference in enumerate(references):
            mean, covariance = matrices(estimate, i)
            np.testing.assert_allclose(mean, reference.x, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(covariance, reference.p, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(kalman.to_boxes(model, kalman.initiate(model, BOXES)), BOXES)


def test_jax_arrays_give_what_numpy_gives():
    model = kalman.deep_sort_motion()

    def track(boxes):
        estimate = kalman.predict(model, kalman.initiate(model, boxes))
        return kalman.update(model, estimate, boxes + 3), kalman.gating_distance(model, estimate, boxes, True)

    computed, expected = jax.jit(track)(jnp.asarray(BOXES, jnp.float32)), track(BOXES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), computed, expected)


def test_an_impossible_estimate_has_no_box():
    z = np.array([[5.0, 5, -1, 1], [5, 5, 1, -1], [5, 5, 4, 1]])
    boxes = kalman.sort_motion().to_corners(z)
    assert np.isnan(boxes[:2]).any(-1).all()
    np.testing.assert_allclose(boxes[2], [4, 4, 6, 6])


def test_gates_are_quantiles():
    for degrees, gate in kalman.CHI2_95.items():
        assert gate == pytest.approx(chi2.ppf(0.95, degrees), abs=1e-4)


def test_the_smoother_solves_the_joint_gaussian():
    """The mode of all states at once, from the sum of the information of prior, motion and detections."""
    rng, model, steps = np.random.default_rng(1), kalman.sort_motion(), 9
    boxes = BOXES[0] + np.arange(steps)[:, None] * 3 + rng.normal(0, 1, (steps, 4))
    observed = np.array([1, 1, 0, 1, 0, 0, 1, 1, 0], bool)
    filtered = [kalman.initiate(model, boxes[:1])]
    predicted = filtered[:]
    for t in range(1, steps):
        predicted.append(kalman.predict(model, filtered[-1]))
        filtered.append(kalman.update(model, predicted[-1], boxes[t : t + 1], observed[t : t + 1]))
    smoothed = kalman.smooth(filtered, predicted)

    z = np.array([measure('sort', box) for box in boxes])
    initial, process, detection = (np.asarray(v) for v in noise('sort', z[0]))
    size = 7  # r has no velocity
    f, h = np.eye(8)[:size, :size] + np.eye(8, k=4)[:size, :size], np.eye(4, size)
    information, target = np.zeros((steps * size,) * 2), np.zeros(steps * size)
    blocks = [slice(t * size, (t + 1) * size) for t in range(steps)]
    information[blocks[0], blocks[0]] += np.diag(1 / initial[:size])
    target[blocks[0]] += np.concatenate([z[0], np.zeros(3)]) / initial[:size]
    for t in range(1, steps):
        weight = np.diag(1 / process[:size])
        before, now = blocks[t - 1], blocks[t]
        information[before, before] += f.T @ weight @ f
        information[before, now] -= f.T @ weight
        information[now, before] -= weight @ f
        information[now, now] += weight
        if observed[t]:
            information[now, now] += h.T @ np.diag(1 / detection) @ h
            target[now] += h.T @ (z[t] / detection)
    covariance = np.linalg.inv(information)
    mean = covariance @ target
    for t in range(steps):
        computed_mean, computed_covariance = matrices(smoothed[t], 0)
        np.testing.assert_allclose(computed_mean[:size], mean[blocks[t]], rtol=1e-7, atol=1e-7)
        expected = covariance[blocks[t], blocks[t]]
        np.testing.assert_allclose(computed_covariance[:size, :size], expected, rtol=1e-6, atol=1e-6)
