"""Kalman filters against 8 x 8 matrices in float64, and the smoother against the joint Gaussian solved at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from canon.tracking import kalman

FORMS = ('sort', 'deep_sort', 'center_size')
BOXES = np.array([[10.0, 20, 40, 90], [200, 50, 260, 110], [5, 5, 9, 40]])


def make_model(form):
    return {'sort': kalman.sort_motion, 'deep_sort': kalman.deep_sort_motion, 'center_size': kalman.center_size_motion}[
        form
    ]()


def measure(form, box):
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    last = {'sort': (w * h, w / h), 'deep_sort': (w / h, h), 'center_size': (w, h)}[form]
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, *last])


def noise(form, z):
    """(initial, process, measurement) variances of coordinates and velocities, as the papers print them."""
    if form == 'sort':
        return (
            np.array([10, 10, 10, 10, 1e4, 1e4, 1e4, 0]),
            np.array([1, 1, 1, 1, 0.01, 0.01, 1e-4, 0]),
            np.array([1.0, 1, 10, 10]),
        )
    h = z[3]
    if form == 'deep_sort':
        initial = [h / 10, h / 10, 1e-2, h / 10, h / 16, h / 16, 1e-5, h / 16]
        process = [h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]
        return np.square(initial), np.square(process), np.square([h / 20, h / 20, 1e-1, h / 20])
    sides = np.array([z[2], h, z[2], h])
    return (
        np.concatenate([sides / 10, sides / 16]) ** 2, np.concatenate([sides / 20, sides / 160]) ** 2, (sides / 20) ** 2
    )  # fmt: skip


class MatrixFilter:
    """The filter with full matrices, for one track."""

    def __init__(self, form, box):
        self.form = form
        z = measure(form, box)
        self.x, self.p = np.concatenate([z, np.zeros(4)]), np.diag(noise(form, z)[0])
        self.f, self.h = np.eye(8) + np.eye(8, k=4), np.eye(4, 8)

    def predict(self):
        if self.form == 'sort' and self.x[2] + self.x[6] <= 0:
            self.x[6] = 0
        q = np.diag(noise(self.form, self.x[:4])[1])
        self.x, self.p = self.f @ self.x, self.f @ self.p @ self.f.T + q

    def update(self, box):
        s = self.projected()
        gain = self.p @ self.h.T @ np.linalg.inv(s)
        self.x = self.x + gain @ (measure(self.form, box) - self.h @ self.x)
        self.p = (np.eye(8) - gain @ self.h) @ self.p

    def projected(self):
        return self.h @ self.p @ self.h.T + np.diag(noise(self.form, self.x[:4])[2])

    def distance(self, box):
        surprise = measure(self.form, box) - self.h @ self.x
        return surprise @ np.linalg.inv(self.projected()) @ surprise


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
