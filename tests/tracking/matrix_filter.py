"""The Kalman filters of trackers with full matrices in float64, one track at a time."""

import numpy as np


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
