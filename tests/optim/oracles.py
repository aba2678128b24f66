"""Every optimizer once more: float64 numpy, one array, straight from the paper. Slow, plain, and not clever.

An oracle is called with (gradient, parameter) and gives the update. Run a second time on the absolute values it gives
the size of the terms that were added up, which is what a rounding error is relative to.
"""

import math

import numpy as np


class Oracle:
    def __init__(self, rate=lambda k: 1.0, **settings):
        self.rate, self.k = rate, 0
        self.__dict__.update(settings)

    def __call__(self, g, p):
        u = self.step(g, p)  # self.k is the number of updates made before this one
        self.k += 1
        return u


class Sgd(Oracle):
    def step(self, g, p):
        return -self.rate(self.k) * g


class Momentum(Oracle):
    v = 0.0

    def step(self, g, p):
        if self.inside:
            self.v = self.momentum * self.v - self.rate(self.k) * g
            return self.v
        self.v = self.momentum * self.v + g
        return -self.rate(self.k) * self.v


class Nesterov(Oracle):
    """Updates of phi = theta + momentum v, written as the difference of two of them."""

    v = 0.0

    def step(self, g, p):
        if not self.inside:
            self.v = self.momentum * self.v + g
            return -self.rate(self.k) * (g + self.momentum * self.v)
        self.v = self.momentum * self.v - self.rate(self.k) * g
        return self.momentum * self.v - self.rate(self.k) * g


class AdaGrad(Oracle):
    r = 0.0

    def step(self, g, p):
        if self.k == 0:
            self.r = self.start
        self.r = self.r + g**2
        return -self.rate(self.k) * g / (self.eps + np.sqrt(self.r))


class RmsProp(Oracle):
    r = 0.0

    def step(self, g, p):
        self.r = self.decay * self.r + (1 - self.decay) * g**2
        divisor = np.sqrt(self.r + self.eps) if self.in_sqrt else self.eps + np.sqrt(self.r)
        return -self.rate(self.k) * g / divisor


class Adadelta(Oracle):
    r = t = 0.0

    def step(self, g, p):
        self.r = self.decay * self.r + (1 - self.decay) * g**2
        if self.in_sqrt:
            u = -np.sqrt(self.t + self.eps) / np.sqrt(self.r + self.eps) * g
        else:
            u = -(self.eps + np.sqrt(self.t)) / (self.eps + np.sqrt(self.r)) * g
        self.t = self.decay * self.t + (1 - self.decay) * u**2
        return self.rate(self.k) * u


class Adam(Oracle):
    s = r = 0.0
    decay = 0.0
    base = None

    def step(self, g, p):
        t = self.k + 1
        self.s = self.b1 * self.s + (1 - self.b1) * g
        self.r = self.b2 * self.r + (1 - self.b2) * g**2
        s_hat = self.s / -np.expm1(t * np.log(self.b1)) if self.b1 else self.s
        r_hat = self.r / -np.expm1(t * np.log(self.b2))
        rate = self.rate(self.k)
        multiplier = rate if self.base is None else rate / self.base  # L&H: the schedule alone
        return -rate * s_hat / (self.eps + np.sqrt(r_hat)) - multiplier * self.decay * p


class Nadam(Oracle):
    s = r = 0.0
    product = 1.0

    def step(self, g, p):
        t = self.k + 1
        now, ahead = (self.b1 * (1 - 0.5 * 0.96 ** (n * self.psi)) for n in (t, t + 1))
        self.product *= now
        self.s = now * self.s + (1 - now) * g
        self.r = self.b2 * self.r + (1 - self.b2) * g**2
        s_hat = ahead * self.s / (1 - self.product * ahead) + (1 - now) * g / (1 - self.product)
        return -self.rate(self.k) * s_hat / (self.eps + np.sqrt(self.r / -np.expm1(t * np.log(self.b2))))


class Lamb(Adam):
    def step(self, g, p):
        rate, self.rate = self.rate, lambda k: 1.0
        decay, self.decay = self.decay, 0.0
        u = -super().step(g, p)
        self.rate, self.decay = rate, decay
        if p.ndim < 2:
            return -rate(self.k) * u
        u = u + decay * p
        sizes = np.linalg.norm(p), np.linalg.norm(u)
        return -rate(self.k) * u * (sizes[0] / sizes[1] if min(sizes) > 0 else 1.0)


class Lars(Oracle):
    v = 0.0

    def step(self, g, p):
        ratio = 1.0
        if p.ndim >= 2:
            size, divisor = np.linalg.norm(p), np.linalg.norm(g) + self.decay * np.linalg.norm(p)
            ratio = self.coefficient * size / divisor if size > 0 and divisor > 0 else 1.0
            g = g + self.decay * p
        self.v = self.momentum * self.v - self.rate(self.k) * ratio * g
        return self.v


class Lion(Oracle):
    m = 0.0

    def step(self, g, p):
        terms = self.b1 * self.m, (1 - self.b1) * g
        self.m = self.b2 * self.m + (1 - self.b2) * g
        # where the terms cancel to rounding either sign is right
        self.unsure = np.abs(sum(terms)) < 1e-5 * (np.abs(terms[0]) + np.abs(terms[1]))
        return -self.rate(self.k) * (np.sign(sum(terms)) + self.decay * p)


class ScheduleFree(Oracle):
    """SGD inside. z, x and y all kept, which the library does not; y is whatever parameter it is given."""

    total = largest = 0.0
    z = None

    def step(self, g, y):
        if self.z is None:
            self.z = y
        x = (y - (1 - self.beta) * self.z) / self.beta
        self.z = self.z - self.rate(self.k) * g
        self.largest = max(self.largest, self.rate(self.k))
        self.total += self.largest**2
        c = self.largest**2 / self.total if self.total else 0.0
        self.x = (1 - c) * x + c * self.z
        return (1 - self.beta) * self.z + self.beta * self.x - y


def drop(k):
    return 0.1 if k < 4 else 0.01


def rising(k):
    return 0.1 * min(k / 4, 1.0)


# name: (library's, oracle's)
CASES = {
    'sgd': (lambda o: o.sgd(o.step_decay(0.1, (4,))), lambda: Sgd(drop)),
    'sgd, linear decay': (
        lambda o: o.sgd(o.linear_decay(0.1, 0.001, 6)),
        lambda: Sgd(lambda k: (1 - min(k, 6) / 6) * 0.1 + min(k, 6) / 6 * 0.001),
    ),
    'momentum': (
        lambda o: o.momentum(o.step_decay(0.1, (4,)), 0.9),
        lambda: Momentum(drop, momentum=0.9, inside=True),
    ),
    'momentum, rate outside': (
        lambda o: o.momentum(o.step_decay(0.1, (4,)), 0.9, rate_inside=False),
        lambda: Momentum(drop, momentum=0.9, inside=False),
    ),
    'nesterov': (
        lambda o: o.nesterov(o.step_decay(0.1, (4,)), 0.9),
        lambda: Nesterov(drop, momentum=0.9, inside=True),
    ),
    'nesterov, theta': (
        lambda o: o.nesterov(o.step_decay(0.1, (4,)), 0.9, stored='theta'),
        lambda: Momentum(drop, momentum=0.9, inside=True),  # the gradient's place is the loop's affair
    ),
    'nesterov, rate outside': (
        lambda o: o.nesterov(o.step_decay(0.1, (4,)), 0.9, rate_inside=False),
        lambda: Nesterov(drop, momentum=0.9, inside=False),
    ),
    'adagrad': (lambda o: o.adagrad(0.1), lambda: AdaGrad(lambda k: 0.1, eps=1e-7, start=0.0)),
    'adagrad, start': (
        lambda o: o.adagrad(0.1, eps=1e-10, initial_accumulator=0.1),
        lambda: AdaGrad(lambda k: 0.1, eps=1e-10, start=0.1),
    ),
    'rmsprop': (
        lambda o: o.rmsprop(0.1),
        lambda: RmsProp(lambda k: 0.1, decay=0.9, eps=1e-6, in_sqrt=False),
    ),
    'rmsprop, eps in sqrt': (
        lambda o: o.rmsprop(0.1, 0.99, 1e-8, eps_in_sqrt=True),
        lambda: RmsProp(lambda k: 0.1, decay=0.99, eps=1e-8, in_sqrt=True),
    ),
    'adadelta': (lambda o: o.adadelta(), lambda: Adadelta(decay=0.9, eps=1e-6, in_sqrt=False)),
    'adadelta, Zeiler': (
        lambda o: o.adadelta(0.5, 0.95, eps_in_sqrt=True),
        lambda: Adadelta(lambda k: 0.5, decay=0.95, eps=1e-6, in_sqrt=True),
    ),
    'adam': (lambda o: o.adam(), lambda: Adam(lambda k: 0.001, b1=0.9, b2=0.999, eps=1e-8)),
    'adam, b1=0': (
        lambda o: o.adam(0.1, 0.0, 0.99, 1e-3),
        lambda: Adam(lambda k: 0.1, b1=0.0, b2=0.99, eps=1e-3),
    ),
    'adam, short memory': (
        lambda o: o.adam(0.1, 0.25, 0.3),
        lambda: Adam(lambda k: 0.1, b1=0.25, b2=0.3, eps=1e-8),
    ),
    'adam, long memory': (
        lambda o: o.adam(o.step_decay(0.1, (4,)), 0.95, 0.99999),
        lambda: Adam(drop, b1=0.95, b2=0.99999, eps=1e-8),
    ),
    'adamw': (
        lambda o: o.adamw(o.step_decay(0.1, (4,)), weight_decay=0.05),
        lambda: Adam(drop, b1=0.9, b2=0.999, eps=1e-8, decay=0.05),
    ),
    'adamw, the paper': (
        lambda o: o.adamw(o.step_decay(0.1, (4,)), weight_decay=0.05, base_learning_rate=0.1),
        lambda: Adam(drop, b1=0.9, b2=0.999, eps=1e-8, decay=0.05, base=0.1),
    ),
    'nadam': (
        lambda o: o.nadam(0.1),
        lambda: Nadam(lambda k: 0.1, b1=0.9, b2=0.999, eps=1e-8, psi=4e-3),
    ),
    'nadam, constant momentum': (
        lambda o: o.nadam(0.1, momentum_decay=None),
        lambda: Nadam(lambda k: 0.1, b1=0.9, b2=0.999, eps=1e-8, psi=np.inf),
    ),
    'lamb': (
        lambda o: o.lamb(0.1, weight_decay=0.1),
        lambda: Lamb(lambda k: 0.1, b1=0.9, b2=0.999, eps=1e-6, decay=0.1),
    ),
    'lars': (
        lambda o: o.lars(o.step_decay(0.1, (4,)), weight_decay=0.1),
        lambda: Lars(drop, momentum=0.9, decay=0.1, coefficient=0.001),
    ),
    'lion': (
        lambda o: o.lion(0.1, weight_decay=0.1),
        lambda: Lion(lambda k: 0.1, b1=0.9, b2=0.99, decay=0.1),
    ),
    'schedule-free': (
        lambda o: o.schedule_free(o.sgd(o.warmup(4, o.constant(0.1))), interpolation=0.9),
        lambda: ScheduleFree(rising, beta=0.9),
    ),
}

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 3, 4), (1000,), (0, 3), (3, 3, 4, 8)]


def gradients(rng, shape):
    """Twelve decades, both signs, exact zeros; float32 values."""
    size = 10.0 ** rng.uniform(-8, 4, shape)
    g = rng.choice([-1.0, 1.0], shape) * size * (rng.random(shape) > 0.15)
    return np.asarray(g * (rng.random() > 0.1), np.float32)


def worst_error(tx, oracle, shapes, seed, steps, dtype, nest=list):
    """The largest error of an update, relative to the terms it is made of, in an open loop of recorded gradients.

    nest: from the list of leaves to the tree that the transform sees.
    """
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(seed)
    params = [np.asarray(rng.normal(size=s), np.float32) for s in shapes]
    state = tx.init(nest([jnp.asarray(p, dtype) for p in params]))
    exact, sizes = [oracle() for _ in shapes], [oracle() for _ in shapes]
    worst = 0.0
    for _ in range(steps):
        grads = [gradients(rng, s) for s in shapes]
        given, at = (nest([jnp.asarray(x, dtype) for x in leaves]) for leaves in (grads, params))
        updates, state = tx.update(given, state, at)
        for u, g, p, rule, size in zip(jax.tree.leaves(updates), grads, params, exact, sizes, strict=True):
            g, p = g.astype(np.float64), p.astype(np.float64)
            expected = rule(g, p)
            scale = np.maximum(np.abs(expected), np.abs(size(np.abs(g), np.abs(p))))
            if isinstance(rule, Lamb | Lars | ScheduleFree):  # norms, and a difference to the parameter
                scale = np.maximum(scale, np.max(np.abs(expected), initial=0.0))
            if isinstance(rule, ScheduleFree):
                scale = np.maximum(scale, np.abs(p) / rule.beta)
            error = np.abs(np.asarray(u, np.float64) - expected)
            error = np.where(getattr(rule, 'unsure', False) & (error < 1), 0, error)
            assert u.dtype == dtype
            assert np.all(error[scale == 0] == 0)
            worst = max(worst, float(np.max(error / np.where(scale > 0, scale, 1), initial=0.0)))
    assert math.isfinite(worst)
    return worst
