"""SRN and DVR bound to configs: a few steps learn, and what is refused."""

import jax
import pytest

from canon.data.scenes import views as sources
from canon.errors import UsageError
from canon.train import bind, make_step
from canon.train.step import init_state
from experiments import configs, view_synthesis


@pytest.fixture(scope='module')
def ball():
    return sources.load_views('traced', 'train', size=24, views=3, only=(1,))


def small(root, name, **changes):
    config = configs.load(f'{root}/configs/surfaces/{name}.py:smoke')
    sizes = {'data.source.size': 16, 'data.source.views': 4, 'data.batch_size': 64, 'data.evals.test.views': 1}
    narrow = {'model.width': 8, **({'model.blocks': 1, 'render.count': 16} if name == 'dvr' else {'model.steps': 2})}
    config.update_from_flattened_dict({**sizes, **narrow, **changes})
    return config


@pytest.mark.slow
@pytest.mark.parametrize('name', ['srn', 'dvr'])
def test_a_few_steps_learn_and_are_measured(root, name):
    config = small(root, name, **{'data.batch_size': 256, 'model.width': 32})
    experiment = bind(view_synthesis.make(config), config)
    state = init_state(experiment.task, experiment.tx, 0, experiment.train[0])
    step = jax.jit(make_step(experiment.task, experiment.tx, 0))
    state, first = step(state, experiment.train[0])
    for i in range(1, 150):
        state, last = step(state, experiment.train[i])
    assert last['loss'].value < 0.6 * first['loss'].value
    evaluator = experiment.evals['test']
    metrics = evaluator.finish(jax.device_get(jax.jit(evaluator.measure)(state.params, {}, evaluator.data[0])))
    assert {'psnr', 'depth_error'} <= set(metrics)
    assert ('mask_iou' in metrics) == (name == 'dvr')
    (prediction,) = view_synthesis.predict(config, experiment, state.params, {}, '2x16')
    assert prediction.text.startswith('2 frames of 16x16')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'render.name': 'dvrr'}, r"render\.name='dvrr'; did you mean 'dvr'"),
        ({'render.background': 'grey'}, r"render\.background='grey' must be"),
        ({'loss.colour': 1.0, 'render.name': 'srn'}, 'loss.*takes no such key'),
        ({'render.count': 0}, r'render\.count=0 must be a whole number at least 1'),
        ({'render.secant': -1}, r'render\.secant=-1 must be'),
        ({'render.box': (1.0, -1.0)}, r'render\.box=.* must be .low, high. with low below high'),
        ({'loss.free': float('nan')}, r'loss\.free=nan must be'),
    ],
)
def test_what_is_refused(root, changes, message):
    with pytest.raises(UsageError, match=message):
        view_synthesis.make(small(root, 'dvr', **changes))


def test_pictures_without_masks_are_refused(root, monkeypatch, ball):
    opaque = ball._replace(images=ball.images[..., :3])
    monkeypatch.setattr(sources, 'load_views', lambda *_, **__: opaque)
    with pytest.raises(UsageError, match='needs pictures with alpha, which masks the object'):
        view_synthesis.make(small(root, 'dvr'))
