"""A point on a surface over the plane, as an experiment: the surfaces that optimizers are drawn on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import named, optim, plots
from canon.data import Generated
from canon.errors import UsageError
from canon.metrics import Mean
from canon.train import Evaluator, Experiment, Task


class Surface(NamedTuple):
    """height: [..., 2] -> [...]; its minima [m, 2]; where walks begin; x0, x1, y0, y1 of a picture."""

    height: Callable
    minima: tuple[tuple[float, float], ...]
    start: tuple[float, float]
    box: tuple[float, float, float, float]


def ravine(p):
    """(x^2 + 50 y^2) / 2: a quadratic of condition 50."""
    return (p[..., 0] ** 2 + 50 * p[..., 1] ** 2) / 2


def rosenbrock(p):
    """(1 - x)^2 + 100 (y - x^2)^2: a bent valley with an almost level floor (Rosenbrock 1960)."""
    x, y = p[..., 0], p[..., 1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(p):
    """(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2: a plain between steep walls (Beale 1958)."""
    x, y = p[..., 0], p[..., 1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle(p):
    """x^2 / 2 + y^4 / 4 - y^2 / 2: a saddle at the origin, height 0, between two minima of height -1/4."""
    x, y = p[..., 0], p[..., 1]
    return x**2 / 2 + y**4 / 4 - y**2 / 2


SURFACES: Mapping[str, Surface] = {
    'ravine': Surface(ravine, ((0.0, 0.0),), (-3.5, 1.0), (-4.0, 1.5, -1.4, 1.4)),
    'rosenbrock': Surface(rosenbrock, ((1.0, 1.0),), (-1.2, 1.0), (-1.8, 1.6, -0.6, 1.8)),
    'beale': Surface(beale, ((3.0, 0.5),), (1.0, 1.5), (-0.5, 4.0, -1.2, 1.8)),
    'saddle': Surface(saddle, ((0.0, 1.0), (0.0, -1.0)), (1.5, 1e-3), (-1.2, 1.8, -1.5, 1.5)),
}


def make(config: ConfigDict) -> Experiment:
    """config.surface: its `name`, and a `start` (x, y) in place of the surface's own."""
    surface, start = _surface(config)

    def init(key, batch):
        return {'params': {'point': jnp.asarray(start, jnp.float32)}}

    def loss(params, mutable, batch, at):
        return Mean.of(surface.height(params['point'])), (mutable, {})

    def measure(params, mutable, batch):
        return Mean.of(surface.height(params['point']))

    nothing = Generated(lambda step: {})
    once = Generated(lambda step: {}, length=1)
    task = Task(init, loss, lambda params, mutable, batch: params['point'])
    evals = {'surface': Evaluator(once, measure, lambda mean: {'loss': mean.value})}
    return Experiment(task, optim.make(config.tx), nothing, evals)


def together(experiment: Experiment, config: ConfigDict) -> Experiment:
    """The rivals' experiment, with every rival's way kept in `mutable['paths']` [steps + 1, 2] and drawn at the end.

    A way consists of the points that would be evaluated (`optim.eval_params`): theta of Nesterov's momentum, the
    average of `schedule_free`.
    """
    surface, start = _surface(config)
    steps, base, step = config.run.steps, experiment.task, experiment.step
    assert step is not None

    def init(key, batch):
        variables = base.init(key, batch)
        way = jnp.tile(jnp.asarray(start, jnp.float32), (steps + 1, 1))
        return {**variables, 'paths': {name: way for name in variables['params']}}

    def recorded(state, batch):
        state, metrics = step(state, batch)
        seen, ways = optim.eval_params(state.params, state.opt), state.mutable['paths']
        ways = {name: way.at[state.step].set(seen[name]['point']) for name, way in ways.items()}
        return state._replace(mutable={**state.mutable, 'paths': ways}), metrics

    def pictures(params, mutable, sums):
        ways = {name: np.asarray(mutable['paths'][name]) for name in params}
        labels = {name: f'{name}  {sums[name].value:.2g}' for name in ways}
        ground = plots.Ground(surface.height, surface.box, surface.minima)
        title = f'{config.surface.name}, {steps} steps: optimizer and final loss'
        return {'paths': plots.paths(ground, ways, labels, title), 'walk': plots.walk(ground, ways, labels)}

    evals = {name: evaluator._replace(draw=pictures) for name, evaluator in experiment.evals.items()}
    return experiment._replace(task=base._replace(init=init), step=recorded, evals=evals)


def _surface(config: ConfigDict) -> tuple[Surface, tuple[float, ...]]:
    name = config.surface.name
    if name not in SURFACES:
        raise UsageError(f'surface.name={name!r} is no surface{named.suggest(name, SURFACES)}')
    start = tuple(config.surface.get('start') or SURFACES[name].start)
    if len(start) != 2:
        raise UsageError(f'surface.start={start} must be a point (x, y)')
    return SURFACES[name], start
