"""Volume rendering as an experiment: what a config binds, what is predicted and what is refused."""

import imageio.v3 as imageio
import jax
import numpy as np
import pytest

from canon.errors import UsageError
from canon.tasks import predictions
from experiments import configs, overrides, volume_rendering


def small(root, name, **changes):
    config = configs.load(f'{root}/configs/volume_rendering/{name}.py:smoke')
    sizes = {'data.source.size': 12, 'data.picture': 12, 'data.views': 6, 'data.batch_size': 128, 'render.count': 16}
    config.update_from_flattened_dict({**sizes, **changes})
    return config


@pytest.mark.parametrize('name', ['phantom', 'transfer'])
def test_a_config_is_bound(root, name):
    experiment = volume_rendering.make(small(root, name))
    batch = experiment.train[0]
    variables = jax.jit(experiment.task.init)(jax.random.key(0), batch)
    predicted = jax.eval_shape(experiment.task.predict, variables['params'], {}, batch)
    assert predicted['colour'].shape == batch['colour'].shape == (128, 1 if name == 'phantom' else 3)
    assert set(variables['params']) == {'volume' if name == 'phantom' else 'table'}
    assert len(experiment.evals['test'].data) == 4


def test_a_file_and_what_is_recovered_are_drawn(root, tmp_path, capsys, monkeypatch):
    config = small(root, 'phantom', **{'model.vertices': 6})
    experiment = volume_rendering.make(config)
    params = jax.jit(experiment.task.init)(jax.random.key(0), experiment.train[0])['params']
    ball = 1 - np.linalg.norm(np.stack(np.meshgrid(*(np.linspace(-1, 1, 9),) * 3)), axis=0)
    np.save(tmp_path / 'ball.npy', ball)
    calls_of_drawing = []

    def draw_volume(values, half, table=None, name=''):  # the real one is tested in tests/tasks
        calls_of_drawing.append((values, table))
        return {'orbit.gif': np.random.default_rng(0).integers(256, size=(2, 12, 12, 3), dtype=np.uint8)}, name

    monkeypatch.setattr(volume_rendering, 'draw_volume', draw_volume)
    for source, text in ((str(tmp_path / 'ball.npy'), 'ball.npy'), ('learnt', 'learnt')):
        output = tmp_path / 'out' / text
        predictions.write_predictions(volume_rendering.predict(config, experiment, params, {}, source), output)
        assert capsys.readouterr().out.startswith(text)
        assert imageio.imread(output / 'orbit.gif').shape == (2, 12, 12, 3)
    (file_values, file_table), (values, table) = calls_of_drawing
    np.testing.assert_allclose(file_values, (ball - ball.min()) / np.ptp(ball), rtol=1e-6)
    assert file_table is None
    np.testing.assert_allclose(values, np.full((6, 6, 6), 0.1), rtol=1e-6)
    assert table.shape == (256, 4)
    with pytest.raises(UsageError, match='no volume at'):
        list(volume_rendering.predict(config, experiment, params, {}, str(tmp_path / 'none.npy')))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'render.mode': 'xrey'}, "render.mode='xrey' must be one of .*did you mean 'xray'"),
        ({'render.mode': 'surface'}, "render.mode='surface' cannot be learned from"),
        ({'model.learn': ('table',)}, "model.learn has 'table', and X-rays have no transfer function"),
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


def test_keys_left_to_their_defaults_can_be_overridden(root):
    """Every key of the task's own sections, also those that the config does not state."""
    config = configs.load(f'{root}/configs/volume_rendering/transfer.py:smoke')
    keys = {'render.absorption': '2.0', 'model.vertices': '20', 'loss.variation': '0.5'}
    values = overrides.apply(config, list(keys.items()))
    assert values == {'render.absorption': 2.0, 'model.vertices': 20, 'loss.variation': 0.5}
    with pytest.raises(UsageError, match='no key'):
        overrides.apply(config, [('render.absorbtion', '2.0')])
