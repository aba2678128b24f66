"""Overrides that everyone tries: what signatures allow, what a new name replaces, and what is refused in one line."""

import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from canon.configuration import run_folder
from canon.errors import UsageError
from experiments import configs, overrides
from launch.flags import find_run, to_flags

DIGITS = f'{configs.ROOT}/configs/classification/lenet_digits.py'
PREFIX = 'data.train.transforms'


def changed(*flags, source=DIGITS):
    """The config and the values after `--config.FLAG` for each of the flags."""
    config = overrides.load(source)
    pairs, rest = overrides.read_flags([f'--config.{flag}' for flag in flags])
    assert not rest
    return config, overrides.apply(config, pairs)


@pytest.mark.parametrize(
    ('flags', 'path', 'section'),
    [
        (['tx.b1=0.8', 'tx.learning_rate=0.1'], 'tx', dict(name='adam', b1=0.8, learning_rate=0.1)),
        (
            ['tx.weight_decay=1e-2', 'tx.learning_rate=1', 'tx.name=adamw'],
            'tx',
            dict(name='adamw', learning_rate=1.0, weight_decay=0.01),
        ),
        (
            ['tx.learning_rate.name=cosine', 'tx.learning_rate.init=0.1', 'tx.learning_rate.steps=100%'],
            'tx.learning_rate',
            dict(name='cosine', init=0.1, steps='100%'),
        ),
        (
            ['tx.chain=clip,adam', 'tx.clip.name=clip_by_global_norm', 'tx.clip.max_norm=1', 'tx.adam.learning_rate=2'],
            'tx',
            dict(
                chain=('clip', 'adam'),
                clip=dict(name='clip_by_global_norm', max_norm=1.0),
                adam=dict(learning_rate=2.0),
            ),
        ),
        (
            ['model.activation=tanh'],
            'model',
            dict(name='lenet.lenet5', num_classes=10, dropout=0.2, dtype=None, activation='tanh'),
        ),
        (['model.name=lenet.lenet5_1998'], 'model', dict(name='lenet.lenet5_1998', num_classes=10, dtype=None)),
        (['loss.name=maximum_a_posteriori', 'loss.j=0.2'], 'loss', dict(name='maximum_a_posteriori', j=0.2)),
        (
            ['data.name=folder', 'data.source.path=/photos', 'data.source.max_pixels=1000000'],
            'data.source',
            dict(path='/photos', unreadable=None, max_pixels=1000000),
        ),
        (['loss.soft_labels=true'], 'loss', dict(label_smoothing=0.0, soft_labels=True)),
        ([f"{PREFIX}.chain=('resize',)"], PREFIX, dict(chain=('resize',), resize=dict(size=32))),
        (
            [f'{PREFIX}.chain=resize,random_flip', f'{PREFIX}.random_flip.p=0.3'],
            PREFIX,
            dict(chain=('resize', 'random_flip'), resize=dict(size=32), random_flip=dict(p=0.3)),
        ),
    ],
    ids=str,
)  # fmt: skip
def test_signatures_decide_what_may_be_set_and_what_a_name_drops(flags, path, section):
    config, _ = changed(*flags)
    for part in path.split('.'):
        config = config[part]
    assert config.to_dict() == section


def test_an_experiment_states_the_functions_of_its_own_sections():
    config, values = changed('data.evals.test.scales=28,32', 'data.evals.test.flip')
    assert values == {'data.evals.test.scales': (28, 32), 'data.evals.test.flip': True}
    assert config.data.evals.test.scales == (28, 32)
    with pytest.raises(UsageError, match=r"did you mean 'data\.evals\.test\.flip'"):
        changed('data.evals.test.flop=1')


def test_a_number_replaces_a_schedule_and_a_schedule_the_number_again():
    config, _ = changed('tx.learning_rate=0.1')
    overrides.apply(config, [('tx.learning_rate.name', 'constant'), ('tx.learning_rate.value', '0.2')])
    assert config.tx.learning_rate.to_dict() == dict(name='constant', value=0.2)


def test_a_name_replaces_a_chain():
    config, _ = changed('tx.chain=clip,adam', 'tx.clip.name=clip_by_global_norm', 'tx.clip.max_norm=1')
    overrides.apply(config, [('tx.name', 'sgd'), ('tx.learning_rate', '0.5')])
    assert config.tx.to_dict() == dict(name='sgd', learning_rate=0.5)


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['tx.b3=1'], "no key 'tx.b3'; did you mean 'tx.b2' or 'tx.b1'"),
        (['tx.name=sgd', 'tx.b1=0.9'], "no key 'tx.b1'"),
        (['model.activatoin=tanh'], "did you mean 'model.activation'"),
        (['data.zzz=1'], "no key 'data.zzz'; there are data.batch_size, data.data_dir"),
        (['tx=3'], '--config.tx=3: tx is a section; its keys are learning_rate, name'),
        (['tx.b1=high'], '--config.tx.b1=high: must be a number'),
        (['seed=1.5'], '--config.seed=1.5: must be a whole number'),
        (['tx.learning_rate=1', 'tx.learning_rate.init=1'], '--config.tx.learning_rate replaces what'),
        (['model.num_classes.x=1'], "no key 'model.num_classes.x'"),
        (['input.mean=((1,'], '--config.input.mean=((1,: must be a tuple'),
    ],
)
def test_keys_that_no_signature_has_are_refused(flags, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        changed(*flags)


@pytest.mark.parametrize(
    ('value', 'text', 'read'),
    [
        ((0.5,), '0.5', (0.5,)),
        ((0.3,), '(3e-1,)', (0.3,)),
        (((1, 2), (3, 4)), '((1, 2), (3, 4))', ((1, 2), (3, 4))),
        (('a', 'b'), 'c,d', ('c', 'd')),
        (('a',), '/a/b.obj', ('/a/b.obj',)),
        (False, 'true', True),
        (True, 'F', False),
        (1.0, '1e-3', 0.001),
        ('x', '3', '3'),
    ],
)
def test_values_are_read_by_the_type_they_replace(value, text, read):
    config = ConfigDict(dict(experiment='none', key=value))
    assert overrides.apply(config, [('key', text)]) == {'key': read}
    assert config.key == read


def test_flags_are_read_in_every_form():
    words = [
        '--config.a',
        '1',
        '-config.b=x=y',
        '--config.c',
        '--noconfig.d',
        'x.py:smoke',
        '--config.e',
        '-0.5',
        '--f',
    ]
    pairs, rest = overrides.read_flags([*words, '--config.a=2'])
    assert pairs == [('b', 'x=y'), ('c', 'true'), ('d', 'false'), ('e', '-0.5'), ('a', '2')]
    assert rest == ['x.py:smoke', '--f']


@pytest.mark.parametrize(
    ('point', 'flags'),
    [
        ({'input.mean': 0.5}, ['--config.input.mean=(5e-1,)']),
        ({'input.mean': (0.3,)}, ['--config.input.mean=(3e-1,)']),
        ({'run.log': ()}, ['--config.run.log=()']),
        ({'tx.b1': np.float32(0.5)}, ['--config.tx.b1=0.5']),
        ({'run.shard.rules': (('a', (None, 'data')),)}, ["--config.run.shard.rules=(('a', (None, 'data')),)"]),
    ],
)
def test_a_run_is_found_however_its_values_are_written(tmp_path, point, flags):
    """As a sweep finds what its own runs left: the folder is a function of the values, not of their text."""
    _, values = changed(*(flag.removeprefix('--config.') for flag in flags))
    folder = run_folder(DIGITS, values, tmp_path)
    folder.mkdir(parents=True)
    (folder / 'run.json').write_text('{"config": "c.py"}')
    for written in (flags, to_flags(point)):
        found = find_run(DIGITS, written, tmp_path)
        assert found
        assert found.folder == folder
    assert find_run(DIGITS, [*flags, '--config.seed=7'], tmp_path) is None


def test_help_describes_every_key_of_a_config():
    text = '\n'.join(overrides.describe(overrides.load(DIGITS), DIGITS))
    assert re.search(r'--config\.data\.batch_size=64  \(a whole number\)\n +over all devices', text)  # its comment
    assert re.search(r'--config\.model\.dropout=0\.2  \(a number at least 0 and below 1\)\n +on F6', text)
    assert re.search(r'--config\.tx\.b1=0\.9\*  \(a number\)\n +decay of mu', text)  # the signature's
    assert re.search(r"--config\.run\.log_every=.*\(.*a length such as '2 epochs'\)", text)
    assert re.search(r'--config\.loss\.label_smoothing=0\.0 .*\n +share of the target', text)
    assert re.search(r'\n  tx: canon\.optim\.adam\.adam\n    mu <- b1 mu', text)
    # The comment of a line with several keys is not that of each, where a signature says more.
    assert re.search(r'--config\.run\.checkpoint\.mode=max .*\n +whether', text)


def list_undocumented(source, chosen=()):
    """Returns how many keys --help lists, and those of them that have no sentence."""
    config = overrides.load(source)
    overrides.apply(config, [tuple(flag.split('=')) for flag in chosen])
    lines = [*overrides.describe(config, source), '']
    keys = [i for i, line in enumerate(lines) if line.startswith('    --config.')]
    return len(keys), [f'{source}: {lines[i].strip()}' for i in keys if not lines[i + 1].startswith(8 * ' ')]


@pytest.mark.parametrize(
    ('source', 'chosen'),
    [
        ('classification/resnet_cifar.py', ['tx.name=sgd']),
        ('detection/rcnn_digits.py:smoke', []),  # six stages
        ('tracking/deep_sort_learnt.py:smoke', []),
        ('adaptation/dann_digits.py:smoke', ['method.name=mcc']),
        ('translation/catalogue.py:smoke', ['model.name=seq2seq.luong']),
        ('claims/word_readers.py', []),  # forms, benchmarks, stages of the engine
        ('claims/nerf_parts.py', []),
        ('text_recognition/gb2312.py:smoke', []),  # a chain of stages below data.source
    ],
)
def test_help_has_a_sentence_for_every_key(source, chosen):
    """Also for keys of the chosen model, optimizer, method and stages."""
    count, missing = list_undocumented(f'{configs.ROOT}/configs/{source}', chosen)
    assert count > 50
    assert not missing


@pytest.mark.slow
def test_help_has_a_sentence_for_every_key_of_every_config():
    missing = []
    for file in (f'{configs.ROOT}/{name}' for name in configs.find()):
        arguments = getattr(configs.load_module(file), 'ARGUMENTS', ('smoke',))
        for source in (file, *(f'{file}:{argument}' for argument in arguments)):
            missing += list_undocumented(source)[1]
    assert not missing
