"""A volume is recovered from pictures that are exact, and volumes are drawn in all modes."""

import functools

import jax
import numpy as np
import pytest

from canon import optim
from canon.data.scenes import traced, volumes
from canon.errors import UsageError
from canon.rendering.volumes import GENERIC, RayCastingSettings, make_transfer_table, render_picture
from canon.tasks.volume_rendering import (
    HeldOutViews,
    RecoveryLoss,
    RecoverySettings,
    TrueVolume,
    draw_volume,
    pixel_batches,
    recovery_evaluator,
    recovery_task,
    render_views,
)
from canon.train import make_step
from canon.train.step import init_state


def test_the_phantoms_pictures_are_exact_and_those_of_voxels_come_near():
    """The transmittance is the closed form; voxels blur the edges, half as much where they are half as large."""
    settings, camera, errors = RayCastingSettings(mode='xray', count=128), traced.pinhole_camera(16), []
    truth = TrueVolume(volumes.shepp_logan(16), settings)
    origins, directions, colours = render_views(truth, camera, 'train', 2, 0)
    np.testing.assert_allclose(colours[:, 0], np.exp(-volumes.phantom_integrals(origins, directions)), rtol=1e-6)
    assert colours.min() < 0.7
    for size in (24, 48):
        voxels = TrueVolume(volumes.shepp_logan(size)._replace(integrals=None), settings)
        errors.append(np.abs(voxels.render(origins, directions) - colours).mean())
    assert errors[1] < 0.007
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ('learn', 'error'), [('volume', 'volume_rmse'), pytest.param('table', 'table_error', marks=pytest.mark.slow)]
)
def test_a_few_steps_come_nearer(learn, error):
    if learn == 'volume':
        truth = TrueVolume(volumes.shepp_logan(12), RayCastingSettings(mode='xray', count=16))
        rate, loss = 2e-2, RecoveryLoss(variation=3e-3)
    else:
        truth = TrueVolume(volumes.marschner_lobb(12), RayCastingSettings(count=16, reference=0.1))
        rate, loss = 0.1, RecoveryLoss()
    camera = traced.pinhole_camera(12)
    task = recovery_task(truth, RecoverySettings(learn=(learn,), vertices=12), loss)
    batches = pixel_batches(truth, camera, views=6, batch_size=128)
    evaluator = recovery_evaluator(task, truth, camera, HeldOutViews(views=4), 0)
    tx = optim.adam(rate)
    state, step = jax.jit(functools.partial(init_state, task, tx, 0))(batches[0]), jax.jit(make_step(task, tx, 0))
    measure = jax.jit(evaluator.measure)

    def evaluate(state):
        return evaluator.finish(jax.device_get(measure(state.params, {}, evaluator.data[0])))

    before = evaluate(state)
    for i in range(60):
        state, _ = step(state, batches[i])
    after = evaluate(state)
    assert after['psnr'] > before['psnr'] + 3
    assert after[error] < 0.9 * before[error]
    figures = evaluator.draw(state.params, {}, None)
    assert set(figures) == {'views', 'slices' if learn == 'volume' else 'table'}


def test_the_pixels_that_fill_a_batch_do_not_count(monkeypatch):
    truth = TrueVolume(volumes.shepp_logan(8), RayCastingSettings(mode='xray', count=8))
    camera = traced.pinhole_camera(5)
    task = recovery_task(truth, RecoverySettings(vertices=6))
    params = jax.jit(task.init)(jax.random.key(0), None)['params']
    results = []
    for devices in (1, 3):
        monkeypatch.setattr(jax, 'device_count', lambda count=devices: count)
        evaluator = recovery_evaluator(task, truth, camera, HeldOutViews(views=1), 0)
        assert len(evaluator.data[0]['origin']) == evaluator.data.batch_size == {1: 25, 3: 27}[devices]
        results.append(evaluator.finish(jax.device_get(jax.jit(evaluator.measure)(params, {}, evaluator.data[0]))))
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_batches_are_functions_of_seed_and_step():
    truth = TrueVolume(volumes.shepp_logan(12), RayCastingSettings(mode='xray'))
    batches = pixel_batches(truth, traced.pinhole_camera(12), views=6, batch_size=128)
    for name, values in batches[3].items():
        np.testing.assert_array_equal(values, batches[3][name])
    assert (batches[3]['direction'] != batches[4]['direction']).any()
    halves = [batches.for_process(i, 2)[3]['colour'] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), batches[3]['colour'])


def test_a_ball_is_drawn(tmp_path):
    ball = 1 - np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, 9),) * 3)), axis=0)
    volume = volumes.Volume(ball)
    files, summary = draw_volume(volume.scaled, volume.half, size=24, frames=2, level=0.6, name='ball')
    assert summary.startswith('ball, 9x9x9')
    assert files['orbit.gif'].shape == (2, 12, 12, 3)
    assert files['modes.png'].axes[0].images[0].get_array().std() > 10
    table = make_transfer_table(GENERIC)
    lit = render_picture(volume.scaled, table, volume.half, 'surface', 24, 0.6, 0.6)
    # The level is at the radius r where 1 - r is 0.6 of the way up: a disc, seen from 4 away.
    radius = 1 - (0.6 * np.ptp(ball) + ball.min())
    share = (lit != 1).any(-1).mean()
    expected = np.pi * (np.tan(np.arcsin(radius / 4)) / np.tan(traced.ANGLE / 2) / 2) ** 2
    assert abs(share / expected - 1) < 0.15


def test_invalid_tables():
    for table in (((0.0, 1.0, 1.0, 1.0),), ((0.5, 0, 0, 0, 0), (0.2, 0, 0, 0, 0)), ((0.0, 2.0, 0, 0, 0),)):
        with pytest.raises(UsageError, match=r'render\.table has rows'):
            RayCastingSettings(table=table)
