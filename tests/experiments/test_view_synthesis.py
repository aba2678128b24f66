"""View synthesis bound to configs: what is built, learnt, predicted and refused."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from canon.data import Generated
from canon.data.scenes import views as sources
from canon.errors import UsageError
from canon.tasks import predictions
from canon.train import NonFinite, bind, fit, make_step
from canon.train.step import init_state
from experiments import configs, view_synthesis
from experiments.claims import view_synthesis as claims


@pytest.fixture(scope='module')
def views():
    return sources.load_views('traced', 'train', size=16, views=4)


def small(root, **changes) -> ConfigDict:
    config = configs.load(f'{root}/configs/nerf/traced.py:smoke')
    config.update_from_flattened_dict({'data.source.size': 16, 'data.batch_size': 64, **changes})
    return config


@pytest.mark.slow
def test_a_few_steps_learn_and_are_measured(root):
    """Psnr is the mean over views of that of each; it rises by more than 5 dB from the first step."""
    config = small(root, **{'data.batch_size': 256, 'data.evals.test.views': 2})
    experiment = bind(view_synthesis.make(config), config)
    state = init_state(experiment.task, experiment.tx, 0, experiment.train[0])
    step = jax.jit(make_step(experiment.task, experiment.tx, 0))
    evaluator = experiment.evals['test']
    measure = jax.jit(evaluator.measure)

    def psnr(state):
        each = [measure(state.params, state.mutable, batch) for batch in evaluator.data.iterate()]
        for one in each:
            np.testing.assert_allclose(one['psnr'].total, -10 * np.log10(one['mse'].total), rtol=1e-5)
        return evaluator.finish(jax.tree.map(lambda *x: np.sum(x), *each))['psnr']

    before = psnr(state)
    for i in range(40):
        state, metrics = step(state, experiment.train[i])
    assert psnr(state) > before + 5
    assert 0 < evaluator.finish(measure(state.params, state.mutable, evaluator.data[0]))['ssim'] < 1
    assert np.isfinite(metrics['loss'].value)


def test_a_loss_that_is_no_number_stops_the_run_and_says_how_to_look(root, tmp_path):
    config = small(root, **{'run.steps': '6 steps', 'run.log_every': '2 steps', 'run.checkpoint.every': '2 steps'})
    experiment = view_synthesis.make(config)

    def batch(step):
        sound_batch = experiment.train[step]
        colour = sound_batch['colour'].astype(np.float32)
        colour[5] = np.nan if step == 4 else colour[5]
        return sound_batch | {'colour': colour}

    poisoned = experiment._replace(train=Generated(batch, 64), evals={})
    config.run.evals = {}
    with pytest.raises(NonFinite, match=rf'step 5 is not finite: .*step 4.*--workdir={tmp_path} --step=5'):
        fit(poisoned, config, tmp_path, quiet=True)


def test_an_orbit_is_written(root, tmp_path):
    import imageio.v3 as imageio

    config = small(root)
    experiment = view_synthesis.make(config)
    mutable = dict(jax.jit(experiment.task.init)(jax.random.key(0), experiment.train[0]))
    params = mutable.pop('params')
    (prediction,) = view_synthesis.predict(config, experiment, params, mutable, '3x20')
    assert prediction.text.startswith('3 frames of 20x20')
    predictions.write_predictions([prediction], tmp_path)
    assert imageio.imread(tmp_path / 'orbit.gif').shape[0] == 3
    assert (tmp_path / 'orbit.mp4').stat().st_size > 100
    with pytest.raises(UsageError, match='give the number of frames'):
        next(view_synthesis.predict(config, experiment, params, mutable, 'folder'))


def test_seconds_until_a_psnr_is_reached(tmp_path):
    """Steps 1 to 4 take 0.5 s each, 5 and 6 a whole one; 25 dB is half-way between the evaluations at 2 s and 4 s."""
    rows = [
        {'step': 2, 'train/step_seconds': 0.5},
        {'step': 4, 'train/step_seconds': 0.5},
        {'step': 4, 'test/psnr': 20.0},
        {'step': 6, 'train/step_seconds': 1.0},
        {'step': 6, 'test/psnr': 30.0},
    ]
    (tmp_path / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    seconds, values = claims.read_training_seconds(tmp_path, 'test/psnr')
    np.testing.assert_allclose(seconds, [2, 4])
    np.testing.assert_allclose(values, [20, 30])
    assert claims.interpolate_crossing(seconds, values, 25) == pytest.approx(3)
    assert claims.interpolate_crossing(seconds, values, 20) == 2
    assert claims.interpolate_crossing(seconds, values, 31) is None


def test_a_form_takes_the_place_of_the_blocks_that_it_names(root):
    config = configs.load(f'{root}/configs/claims/nerf_speed.py')
    config.form = 'grid'
    result = view_synthesis.apply_form(config)
    assert result.model.name == 'instant_ngp.voxels'
    assert result.data == config.data
    config.form = 'gird'
    with pytest.raises(UsageError, match=r"form='gird' is not one of 'grid', 'hash', 'network'"):
        view_synthesis.make(config)


def test_two_processes_share_the_rays_of_one(root, monkeypatch):
    """For training and for whole pictures, the pixels of which two devices do not divide: the last is repeated."""
    config = small(root, **{'data.source.size': 15, 'data.evals.test.views': 2})
    alone = view_synthesis.make(config)
    monkeypatch.setattr(jax, 'device_count', lambda: 2)
    together = view_synthesis.make(config)
    halves = [together.train.for_process(index, 2) for index in range(2)]
    for step in (0, 3):
        a, b = (half[step] for half in halves)
        for name, expected in alone.train[step].items():
            np.testing.assert_array_equal(np.concatenate((a[name], b[name])), expected)
    whole = alone.evals['test'].data[1]
    a, b = (together.evals['test'].data.for_process(index, 2)[1] for index in range(2))
    for name, expected in whole.items():
        assert len(a[name]) == len(b[name]) == 113
        result = np.concatenate((a[name], b[name]))
        np.testing.assert_array_equal(result[:225], expected[:225])
        np.testing.assert_array_equal(result[225:], expected[224:225])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'render.casting': 'rays'}, "render.casting='rays' is not one of"),
        ({'render.coarse': 2}, 'render.coarse=2 must be at least 4'),
        ({'render.background': 'grey'}, "background='grey' is not one of"),
        ({'render.cells': -8}, 'render.cells=-8 must be a whole number at least 0'),
        ({'render.decay': -4.0}, 'render.decay=-4.0 must be a number at least 0 and at most 1'),
        ({'render.cells': 30, 'render.fine': 0}, 'render.cells=30 must be a multiple of 4'),
        ({'render.cells': 32, 'render.fine': 8}, "render.cells needs render.casting='intervals'"),
    ],
)
def test_what_is_refused(root, changes, message):
    with pytest.raises(UsageError, match=message):
        view_synthesis.make(small(root, **changes))


def test_white_behind_pictures_without_alpha_is_refused(root, monkeypatch, views):
    opaque = views._replace(images=views.images[..., :3])
    monkeypatch.setattr(sources, 'load_views', lambda *_, **__: opaque)
    with pytest.raises(UsageError, match='needs pictures with alpha'):
        view_synthesis.make(small(root))
