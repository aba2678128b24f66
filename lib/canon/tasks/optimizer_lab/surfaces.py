"""Descent of a point on a surface over the plane: functions on which the paths of optimizers can be drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from canon import optim, plots
from canon.data import Generated
from canon.metrics import Mean
from canon.train import Evaluator, Experiment, Task

PATHS = 'paths'  # where `mutable` holds the recorded paths


class Surface(NamedTuple):
    """A function of the plane.

    Attributes:
      height: points [..., 2] -> heights [...].
      minima: points of least height.
      start: where descents begin.
      box: x0, x1, y0, y1 of a figure.
    """

    height: Callable
    minima: tuple[tuple[float, float], ...]
    start: tuple[float, float]
    box: tuple[float, float, float, float]


def ravine(p):
    """(x^2 + 50 y^2) / 2: a quadratic with condition number 50."""
    return (p[..., 0] ** 2 + 50 * p[..., 1] ** 2) / 2


def rosenbrock(p):
    """(1 - x)^2 + 100 (y - x^2)^2: a curved valley with an almost level floor (Rosenbrock 1960)."""
    x, y = p[..., 0], p[..., 1]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(p):
    """(1.5 - x + x y)^2 + (2.25 - x + x y^2)^2 + (2.625 - x + x y^3)^2: a plain between steep walls (Beale 1958)."""
    x, y = p[..., 0], p[..., 1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def saddle(p):
    """x^2 / 2 + y^4 / 4 - y^2 / 2: a saddle of height 0 at the origin, between two minima of height -1/4."""
    x, y = p[..., 0], p[..., 1]
    return x**2 / 2 + y**4 / 4 - y**2 / 2


SURFACES: Mapping[str, Surface] = {
    'ravine': Surface(ravine, ((0.0, 0.0),), (-3.5, 1.0), (-4.0, 1.5, -1.4, 1.4)),
    'rosenbrock': Surface(rosenbrock, ((1.0, 1.0),), (-1.2, 1.0), (-1.8, 1.6, -0.6, 1.8)),
    'beale': Surface(beale, ((3.0, 0.5),), (1.0, 1.5), (-0.5, 4.0, -1.2, 1.8)),
    'saddle': Surface(saddle, ((0.0, 1.0), (0.0, -1.0)), (1.5, 1e-3), (-1.2, 1.8, -1.5, 1.5)),
}


def surface_experiment(surface: Surface, tx: Any) -> Experiment:
    """Makes the experiment whose one parameter is a point, {'point': [2]}, and whose loss is its height."""

    def init(key, batch):
        return {'params': {'point': jnp.asarray(surface.start, jnp.float32)}}

    def loss(params, mutable, batch, at):
        return Mean.of(surface.height(params['point'])), (mutable, {})

    def measure(params, mutable, batch):
        return Mean.of(surface.height(params['point']))

    train = Generated(lambda step: {})  # a surface needs no data
    once = Generated(lambda step: {}, length=1)
    task = Task(init, loss, lambda params, mutable, batch: params['point'])
    return Experiment(task, tx, train, {'surface': Evaluator(once, measure, lambda mean: {'loss': mean.value})})


def record_paths(experiment: Experiment, surface: Surface, steps: int, title: str = '') -> Experiment:
    """Records the path of every optimizer of a `side_by_side` experiment, [steps + 1, 2], and draws them at the end.

    A path holds the points that would be evaluated (`optim.eval_params`): theta of Nesterov's momentum, the average of
    `schedule_free`. They are in `mutable`, so that a resumed run draws the whole path.

    Args:
      experiment: of `side_by_side` on a `surface_experiment`.
      surface: that of the experiment.
      steps: of the run.
      title: of the figure.
    """
    task, make_step = experiment.task, experiment.make_step
    assert make_step is not None  # side_by_side defines one

    def init(key, batch):
        variables = task.init(key, batch)
        # A fixed size, since the state of a compiled step cannot grow; steps to come are at the start.
        path = jnp.tile(jnp.asarray(surface.start, jnp.float32), (steps + 1, 1))
        return {**variables, PATHS: {name: path for name in variables['params']}}

    def make_recording_step(task, tx, seed):
        step = make_step(task, tx, seed)

        def recording_step(state, batch):
            state, metrics = step(state, batch)
            points, paths = optim.eval_params(state.params, state.opt), state.mutable[PATHS]
            paths = {name: path.at[state.step].set(points[name]['point']) for name, path in paths.items()}
            return state._replace(mutable={**state.mutable, PATHS: paths}), metrics

        return recording_step

    def draw(params, mutable, sums):
        paths = {name: np.asarray(mutable[PATHS][name]) for name in params}
        labels = {name: f'{name}  {sums[name].value:.2g}' for name in paths}
        ground = plots.Landscape(surface.height, surface.box, surface.minima)
        return {
            'paths': plots.draw_paths(ground, paths, labels, title),
            'walk': plots.animate_paths(ground, paths, labels),
        }

    evals = {name: evaluator._replace(draw=draw) for name, evaluator in experiment.evals.items()}
    return experiment._replace(task=task._replace(init=init), make_step=make_recording_step, evals=evals)
