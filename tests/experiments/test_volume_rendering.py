"""A volume is recovered from pictures that are exact; a file is drawn in all modes; what is refused."""

import jax
import numpy as np
import pytest

from canon.data.scenes import traced, volumes
from canon.errors import CanonError, UsageError
from canon.train import make_step
from canon.train.step import init_state
from experiments import configs, volume_rendering
from experiments.volume_rendering import Rendering, Truth


def small(root, name, **changes):
    config = configs.load(f'{root}/configs/volume_rendering/{name}.py:smoke')
    sizes = {'data.source.size': 12, 'data.picture': 12, 'data.views': 6, 'data.batch_size': 128, 'render.count': 16}
    config.update_from_flattened_dict({**sizes, **changes})
    return config


def test_the_phantoms_pictures_are_exact_and_those_of_voxels_come_near():
    """What is let through is what the closed form says; voxels blur the edges, half as much where they are half."""
    how, camera, errors = Rendering(mode='xray', count=128), traced.pinhole(16), []
    truth = Truth(volumes.shepp_logan(16), how)
    origins, ways, seen = volume_rendering._pixels(truth, camera, 'train', 2, 0)
    np.testing.assert_allclose(seen[:, 0], np.exp(-volumes.phantom_integrals(origins, ways)), rtol=1e-6)
    assert seen.min() < 0.7
    for size in (24, 48):
        cast = Truth(volumes.shepp_logan(size)._replace(integrals=None), how)(origins, ways)
        errors.append(np.abs(cast - seen).mean())
    assert errors[1] < 0.007
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize(('name', 'error'), [('phantom', 'volume_rmse'), ('transfer', 'table_error')])
def test_a_few_steps_come_nearer(root, name, error):
    config = small(root, name, **({'model.vertices': 12} if name == 'phantom' else {}))
    experiment = volume_rendering.make(config)
    state = init_state(experiment.task, experiment.tx, 0, experiment.train[0])
    step = jax.jit(make_step(experiment.task, experiment.tx, 0))
    evaluator = experiment.evals['test']
    measure = jax.jit(evaluator.measure)

    def found(state):
        return evaluator.finish(jax.device_get(measure(state.params, {}, evaluator.data[0])))

    before = found(state)
    for i in range(60):
        state, _ = step(state, experiment.train[i])
    after = found(state)
    assert after['psnr'] > before['psnr'] + 3
    assert after[error] < 0.9 * before[error]
    figures = evaluator.draw(state.params, {}, None)
    assert set(figures) == {'views', 'slices' if name == 'phantom' else 'table'}


def test_batches_are_functions_of_seed_and_step(root):
    experiment = volume_rendering.make(small(root, 'phantom'))
    for name, values in experiment.train[3].items():
        np.testing.assert_array_equal(values, experiment.train[3][name])
    assert (experiment.train[3]['way'] != experiment.train[4]['way']).any()


def test_a_file_and_what_is_learnt_are_drawn(root, tmp_path):
    import imageio.v3 as imageio

    config = small(root, 'phantom', **{'model.vertices': 6})
    experiment = volume_rendering.make(config)
    params = experiment.task.init(jax.random.key(0), experiment.train[0])['params']
    ball = 1 - np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, 9),) * 3)), axis=0)
    np.save(tmp_path / 'ball.npy', ball)
    volume = volumes.file(tmp_path / 'ball.npy')
    given = volume.scaled, volume.half
    told = volume_rendering.pictures(*given, tmp_path / 'a', size=24, frames=2, level=0.6, name='ball')
    assert told.startswith('ball, 9x9x9')
    assert imageio.imread(tmp_path / 'a' / 'orbit.gif').shape == (2, 12, 12, 3)
    assert imageio.imread(tmp_path / 'a' / 'modes.png').std() > 10
    table = volume_rendering.control(volume_rendering.ANY)
    lit = volume_rendering.view(volume.scaled, table, volume.half, 'surface', 24, 0.6, 0.6)
    # The level is at the radius r where 1 - r is 0.6 of the way up: a disc, seen from 4 away.
    radius = 1 - (0.6 * np.ptp(ball) + ball.min())
    share = (lit != 1).any(-1).mean()
    wanted = np.pi * (np.tan(np.arcsin(radius / 4)) / np.tan(traced.ANGLE / 2) / 2) ** 2
    assert abs(share / wanted - 1) < 0.15
    with pytest.raises(UsageError, match='no volume at'):
        volume_rendering.predict(config, experiment, params, {}, str(tmp_path / 'none.npy'), tmp_path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'render.mode': 'xrey'}, "render.mode='xrey' is none of .*did you mean 'xray'"),
        ({'render.mode': 'surface'}, "render.mode='surface' cannot be learnt from"),
        ({'model.learn': ('table',)}, "model.learn has 'table', and X-rays see none"),
        ({'model.learn': ('tabel',)}, "model.learn has 'tabel'; did you mean 'table'"),
        ({'data.source.size': 1}, "volume 'shepp_logan'.size=1 must be a whole number at least 2"),
        ({'data.path': ''}, 'the path of a volume is empty'),
        ({'data.evals.test.split': ''}, "there is no split ''; there are test, train, val"),
        ({'data.views': 0}, 'data.views=0 must be a whole number at least 1'),
        ({'data.batch_size': -4}, 'data.batch_size=-4 must be'),
        ({'data.picture': 0}, 'data.picture=0 must be'),
        ({'data.evals.test.views': 0}, 'data.evals.test.views=0 must be'),
        ({'render.count': 1}, 'render.count=1 must be a whole number at least 2'),
        ({'render.absorption': float('nan')}, 'render.absorption=nan must be a number above 0'),
        ({'model.vertices': -3}, 'model.vertices=-3 must be'),
        ({'loss.variation': -1.0}, 'loss.variation=-1.0 must be'),
    ],
)
def test_what_is_refused(root, changes, message):
    with pytest.raises(UsageError, match=message):
        volume_rendering.make(small(root, 'phantom', **changes))


def test_a_table_that_is_none():
    for table in (((0.0, 1.0, 1.0, 1.0),), ((0.5, 0, 0, 0, 0), (0.2, 0, 0, 0, 0)), ((0.0, 2.0, 0, 0, 0),)):
        with pytest.raises(UsageError, match=r'render\.table has rows'):
            Rendering(table=table)


def test_raw_voxels_on_the_command_line(tmp_path, monkeypatch):
    (tmp_path / 'v.raw').write_bytes(bytes(range(60)))
    with pytest.raises(CanonError, match='has 60 bytes, and 3x4x6 voxels of uint8 are 72'):
        volume_rendering.main([str(tmp_path / 'v.raw'), '--shape=3,4,6'])
    drawn = []
    monkeypatch.setattr(volume_rendering, 'pictures', lambda *given: drawn.append(given))
    volume_rendering.main([str(tmp_path / 'v.raw'), '--shape=3x4x5', '--spacing=1,1,2', '--size=8', '--level=0.5'])
    values, half, _, _, size, _, level, name = drawn[0]
    np.testing.assert_allclose(values, np.arange(60).reshape(5, 4, 3).T / 59, rtol=1e-6)
    np.testing.assert_allclose(half, [2 / 8, 3 / 8, 1])
    assert (size, level, name) == (8, 0.5, 'v.raw')
