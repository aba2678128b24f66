"""Two processes learn what one does: every experiment, and an evaluator that measures on the host."""

import pytest
from ml_collections import ConfigDict

from experiments import configs
from tests.experiments import job, test_detection, test_language_modelling, test_translation
from tests.train import toy

TEXT = test_language_modelling.TEXT
SCHEDULE = dict(steps=4, log_every=2, evals=dict(test=dict(every='100%')), checkpoint=dict(every='100%'), log=())


def recurrent(folder):
    """Its windows have drawn lengths, and each row carries its state."""
    (folder / 'text.txt').write_text('\n'.join(TEXT) + '\n')
    config = test_language_modelling.make_config(folder / 'text.txt')
    config.data.train = dict(batch_size=4, length=8, deviation=1.0)
    config.loss = dict(activation=1.0, slowness=1.0, weight_dropout=0.2)
    return config


def translation(folder):
    test_translation.write_sentences(folder)
    changes = {'data.train.buckets': (7,), 'data.evals.test.alignments': 0}  # one shape compiles
    return test_translation.make_config(folder, **changes)


def text_recognition(folder):
    config = configs.load(f'{job.ROOT}/configs/text_recognition/crnn_digits.py:smoke')
    config.data.source.num_examples = 64
    config.data.train.split = 'train'
    config.data.evals = dict(test=dict(split='test[:20]'))
    config.model.features, config.model.hidden = (4, 4, 4, 4, 4, 4, 4), 4
    return config


def generated(name, test_batches=2, **changes):
    config = configs.load(f'{job.ROOT}/configs/{name}.py:smoke')
    batches = {} if test_batches is None else {'data.test_batches': test_batches}
    config.update_from_flattened_dict({'data.batch_size': 8, **batches, **changes})
    return config


def rays(name, **changes):
    """Images of 15 x 15 rays, which two devices do not divide."""
    config = configs.load(f'{job.ROOT}/configs/{name}.py:smoke')
    small = {'data.source.size': 15, 'data.source.samples': 1, 'data.batch_size': 64, 'data.evals.test.views': 2}
    with config.unlocked():
        config.update_from_flattened_dict({**small, **changes})
    return config


def nerf(folder):
    config = rays('nerf/vanilla', **{'render.coarse': 8, 'render.fine': 8, 'model.width': 16})
    with config.unlocked():
        # The gradients of some weights are near zero in four steps: Adam would magnify their rounding errors.
        config.tx = dict(name='momentum', learning_rate=0.01, momentum=0.9)
    return config


def classification(folder):
    config = configs.load(f'{job.ROOT}/configs/classification/lenet_digits.py:smoke')
    config.data.batch_size, config.model.dropout = 16, 0.0
    config.data.evals = dict(test=dict(split='test[:21]', transforms=config.data.evals.test.transforms))
    return config


def shapes(folder):
    # Three held-out shapes, one at a time: two devices divide neither.
    small = {'data.family.count': 8, 'data.batch_size': 4, 'data.evals.test.count': 3, 'data.evals.test.batch_size': 1}
    small |= {'data.evals.test.points': 500, 'data.evals.test.resolution': 8, 'extract.resolution': 8}
    small |= {
        'model.layers': 3,
        'model.width': 16,
        'model.skip': 1,
        'model.code': 4,
        'system.samples': 32,
        'system.pool': 200,
    }
    small |= {'system.observed': 50, 'system.steps': 5}
    return generated('shapes/deepsdf', test_batches=None, **small)


def volume(folder):
    # Views of 11 x 11 pixels, which two devices do not divide.
    small = {'data.source.size': 12, 'data.picture': 11, 'data.views': 6, 'data.evals.test.views': 2}
    return generated(
        'volume_rendering/phantom', test_batches=None, **small, **{'render.count': 16, 'model.vertices': 8}
    )


def segmentation(folder):
    """With statistics of BatchNorm over the global batch, and 21 scenes that two processes do not divide."""
    made = configs.load(f'{job.ROOT}/configs/segmentation/digit_scenes.py:smoke')
    with made.unlocked():
        made.data.source = dict(target='segmentation', num_examples=48, height=64, width=64, sizes=(16, 40), most=3)
        made.data.evals.test.split = 'test[:21]'
        made.data.batch_size = 8
        backbone = dict(name='vgg.vgg11', width=1 / 32, batch_norm=True)
        made.model = dict(name='fcn.skip_fcn', num_classes=11, backbone=backbone, strides=(2, 4))
        # The gradients of biases that BatchNorm subtracts are rounding errors: Adam would make steps of them.
        made.tx = dict(name='momentum', learning_rate=0.02, momentum=0.9)
    return made


def detection(folder):
    """With mined negatives, N over the global batch, and 21 scenes that two processes do not divide."""
    made = test_detection.config()
    with made.unlocked():
        made.data.source.num_examples = 48
        made.data.batch_size = 8
        made.data.evals.test.split = 'test[:21]'
        made.tx = dict(name='momentum', learning_rate=0.005, momentum=0.9)  # as for segmentation
    return made


def on_host(folder):
    return ConfigDict(dict(toy.config(), module='tests.train.toy'))


pytestmark = pytest.mark.slow  # three processes compile every experiment

EXPERIMENTS = {
    'on_host': on_host,
    'classification': classification,
    'shapes': shapes,
    'volume': volume,
    'surfaces': lambda folder: rays('surfaces/dvr', **{'render.count': 8, 'model.width': 8, 'model.blocks': 1}),
    'recurrent': recurrent,
    'translation': translation,
    'text_recognition': text_recognition,
    'segmentation': segmentation,
    'detection': detection,
    'sequence_memory': lambda folder: generated('claims/memory', **{'data.gap': 5, 'model.hidden': 8}),
    'attention_retrieval': lambda folder: generated('claims/attention_scale'),
    'nerf': nerf,
    'hash_grid': lambda folder: rays('nerf/traced', **{'render.coarse': 16, 'model.levels': 4}),
    'optimizer_lab_adding': lambda folder: generated('optimizer_lab/nesterov_rnn'),
}
NAMES = {'recurrent': 'language_modelling', 'translation': 'translation'}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """The folder in which a process, and a job of two, have trained all configs."""
    folder = tmp_path_factory.mktemp('runs')
    all_configs = {}
    for name, make in EXPERIMENTS.items():
        data = folder / f'data-{name}'
        data.mkdir()
        all_configs[name] = make(data)
        all_configs[name].run = SCHEDULE
        if name in NAMES:
            all_configs[name].experiment = NAMES[name]
    job.train_with_one_and_two_processes(all_configs, folder)
    return folder


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_two_processes_learn_what_one_does(runs, name):
    """Parameters, losses and metrics of a job of two processes equal those of one."""
    job.check_equal_runs(runs / 'one' / name, runs / 'two' / name)
