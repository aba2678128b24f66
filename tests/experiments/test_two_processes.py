"""Two processes learn what one does: each experiment whose batches are of text, lines, rays or generated sequences."""

import pytest

from experiments import configs
from tests.experiments import job, test_language_modelling, test_translation

TEXT = test_language_modelling.TEXT
SCHEDULE = dict(
    steps=4, log_every=2, evals=dict(test=dict(every='100%')), checkpoint=dict(every='100%'), tensorboard=False
)


def recurrent(folder):
    """Its windows have drawn lengths, and each row carries its state."""
    (folder / 'text.txt').write_text('\n'.join(TEXT) + '\n')
    made = test_language_modelling.config(folder / 'text.txt')
    made.data.train = dict(batch_size=4, length=8, deviation=1.0)
    made.loss = dict(activation=1.0, slowness=1.0, weight_dropout=0.2)
    return made


def translation(folder):
    test_translation.write_sentences(folder)
    changes = {'data.train.buckets': (7,), 'data.evals.test.alignments': 0}  # one shape compiles
    return test_translation.config(folder, **changes)


def text_recognition(folder):
    made = configs.load(f'{job.ROOT}/configs/text_recognition/crnn_digits.py:smoke')
    made.data.source.num_examples = 64
    made.data.train.split = 'train'
    made.data.evals = dict(test=dict(split='test[:20]'))
    made.model.features, made.model.hidden = (4, 4, 4, 4, 4, 4, 4), 4
    return made


def generated(name, **changes):
    made = configs.load(f'{job.ROOT}/configs/{name}.py:smoke')
    made.update_from_flattened_dict({'data.batch_size': 8, 'data.test_batches': 2, **changes})
    return made


def rays(name, **changes):
    """Pictures of 15 x 15 rays, which two devices do not divide."""
    made = configs.load(f'{job.ROOT}/configs/nerf/{name}.py:smoke')
    small = {'data.source.size': 15, 'data.source.samples': 1, 'data.batch_size': 64, 'data.evals.test.views': 2}
    with made.unlocked():
        made.update_from_flattened_dict({**small, **changes})
    return made


pytestmark = pytest.mark.slow  # two processes compile every experiment once more

EXPERIMENTS = {
    'recurrent': recurrent,
    'translation': translation,
    'text_recognition': text_recognition,
    'sequence_memory': lambda folder: generated('claims/memory', **{'data.gap': 5, 'model.hidden': 8}),
    'attention_retrieval': lambda folder: generated('claims/attention_scale'),
    'nerf': lambda folder: rays('vanilla', **{'render.coarse': 8, 'render.fine': 8, 'model.width': 16}),
    'hash_grid': lambda folder: rays('traced', **{'render.coarse': 16, 'model.levels': 4}),
    'optimizer_lab_adding': lambda folder: generated('optimizer_lab/nesterov_rnn'),
}
NAMES = {'recurrent': 'language_modelling', 'translation': 'translation'}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """The configs by name, and the folder in which one job of two processes has trained them."""
    folder = tmp_path_factory.mktemp('two')
    made = {}
    for name, make in EXPERIMENTS.items():
        data = folder / f'data-{name}'
        data.mkdir()
        made[name] = make(data)
        made[name].run = SCHEDULE
        if name in NAMES:
            made[name].experiment = NAMES[name]
    job.train_in_two_processes(made, folder)
    return made, folder


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_two_processes_learn_what_one_does(runs, tmp_path, name):
    """Parameters, losses and metrics of a job of two processes equal those of one."""
    made, folder = runs
    job.train(made[name], tmp_path / name)
    job.check_equal_runs(tmp_path / name, folder / name)
