"""Every config builds and takes one abstract step, so that none rots."""

import re

import pytest

from canon import models
from canon.configuration import check_values, find_missing_key
from canon.errors import UsageError
from canon.train.setup import make_setup
from experiments import configs
from launch.sweep import read_points
from tests.experiments.offline import make_offline


def sources():
    for file in configs.find():
        arguments = getattr(configs.load_module(str(configs.ROOT / file)), 'ARGUMENTS', ('smoke',))
        yield from (file, *(f'{file}:{argument}' for argument in arguments))


def shrunk_first():
    """A full form takes seconds to trace, a shrunk one a second: CI traces all, the fast tests one per experiment."""
    traced = set()
    for source in sorted(sources(), key=lambda source: str(source).startswith('configs/claims/')):
        experiment = configs.load(str(configs.ROOT / source)).experiment
        fast = source.endswith(':smoke') and experiment not in traced
        traced |= {experiment} if fast else set()
        yield pytest.param(source, marks=() if fast else pytest.mark.slow)


@pytest.mark.parametrize('source', shrunk_first())
def test_every_config_takes_an_abstract_step(source, root, tmp_path_factory):
    config = configs.load(f'{root}/{source}')
    experiment, config = make_offline(config, tmp_path_factory.getbasetemp() / 'tfds')
    if source.endswith(':imagenette'):  # the paper's form, which is traced, with other data
        return
    setup = make_setup(experiment, config)  # evaluates the shapes of init and of one step
    if experiment.train is None:  # such as a tracker: nothing is trained, and no step is taken
        assert setup.step is None
        assert experiment.evals
        return
    assert setup.names[0] == 'loss'
    assert int(setup.settings.steps) > 0
    for name in setup.settings.evals:
        assert name in experiment.evals


@pytest.mark.parametrize('file', configs.find())
def test_every_config_has_a_smoke_run_with_a_target_that_is_measured(file, root):
    config = configs.load(f'{root}/{file}:smoke')
    evaluator, _, _ = config.target.metric.partition('/')
    assert evaluator in config.run.evals
    assert {'at_least', 'at_most'} & set(config.target)


def selecting_metrics(run):
    """Yields the metrics by which a run selects weights or stops."""
    checkpoint, early_stop = run.get('checkpoint') or {}, run.get('early_stop') or {}
    yield from filter(None, (checkpoint.get('best'), early_stop.get('metric')))


def test_no_recipe_selects_by_the_test_images(root):
    """The split that selects a checkpoint or stops a run is not the one whose result is reported."""
    checked, wrong = 0, []
    for source in sources():
        config = configs.load(f'{root}/{source}').to_dict()
        evals = config.get('data', {}).get('evals', {})
        for metric in selecting_metrics(config['run']):
            name = metric.partition('/')[0]
            split = evals.get(name, {}).get('split', name)
            checked += 1
            if 'test' in str(split):  # '2007-test', too
                wrong.append(f'{source}: {metric} of {split}')
    assert checked > 10
    assert not wrong


def test_every_point_of_every_sweep_is_a_key_of_its_config(root):
    for file in configs.find():
        if hasattr(configs.load_module(f'{root}/{file}'), 'sweep'):
            config = configs.load(f'{root}/{file}')
            for point in read_points(f'{root}/{file}'):
                config.update_from_flattened_dict(point)


def test_an_unknown_argument_of_a_config_is_refused(root):
    with pytest.raises(UsageError, match="takes no argument 'smok'; did you mean 'smoke'"):
        configs.load(f'{root}/configs/classification/lenet_digits.py:smok')


def test_missing_data_are_replaced_by_random_images_offline(root):
    from experiments import classification

    config = configs.load(f'{root}/configs/classification/lenet_digits.py')
    config.data.name = 'mnist'
    config.data.data_dir = '/nonexistent'
    with pytest.raises(UsageError, match=r'launch\.sh prepare mnist'):
        classification.make(config)
    make_setup(classification.make(classification.offline(config)), config)


DIGITS = 'configs/classification/lenet_digits.py:smoke'


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ({'data.batch_size': 0}, 'data.batch_size=0 must be a whole number at least 1'),
        ({'data.batch_size': 10**40}, 'data.batch_size=100000000000... must be a whole number below 2^63'),
        (
            {'model.num_classes': 10**9},
            'model.num_classes=1000000000 must be a whole number at least 1 and at most 10000000',
        ),
        ({'data.batch_size': -3}, 'data.batch_size=-3 must be a whole number at least 1'),
        ({'data.reading.threads': -1}, 'data.reading.threads=-1 must be a whole number at least 0 and at most 256'),
        (
            {'data.reading.threads': 100_000},
            'data.reading.threads=100000 must be a whole number at least 0 and at most',
        ),
        ({'data.reading.workers': -1}, 'data.reading.workers=-1 must be a whole number at least 0'),
        ({'model.dtype': 'float33'}, "model.dtype='float33' is not a floating-point type; did you mean 'float3"),
        ({'model.dtype': 'int8'}, "model.dtype='int8' is not a floating-point type; there are bfloat16, float16"),
        ({'tx.mu_dtype': 'float33'}, "tx.mu_dtype='float33' is not a floating-point type"),
        ({'model.dropout': 2.0}, 'model.dropout=2.0 must be a number at least 0 and below 1'),
        ({'model.num_classes': 0}, 'model.num_classes=0 must be a whole number at least 1'),
        ({'loss.label_smoothing': 1.5}, 'loss.label_smoothing=1.5 must be a number at least 0 and at most 1'),
        ({'run.mesh': dict(data=0)}, 'run.mesh.data=0 must be a number of devices, or -1'),
        ({'model': 3}, 'model=3 must be a section'),
        ({'input': 'x'}, "input='x' must be a section"),
    ],
    ids=str,
)
def test_values_that_no_experiment_takes_are_one_line_that_names_the_key(flags, message, root):
    from canon.tasks.classification import make_loss

    config = configs.load(f'{root}/{DIGITS}')
    with config.unlocked(), config.ignore_type():
        for key, value in flags.items():
            *path, name = key.split('.')
            section = config
            for part in path:
                section = section[part]
            section[name] = value

    def make():
        check_values(config)
        models.make_model(**config.model)
        make_loss(**config.loss)

    with pytest.raises(UsageError, match='^' + re.escape(message)):
        make()


@pytest.mark.parametrize('key', ['data', 'data.train', 'data.batch_size', 'model', 'tx', 'loss', 'input'])
def test_a_section_that_is_missing_is_named(key, root):
    from experiments import classification

    config = configs.load(f'{root}/{DIGITS}')
    path, _, name = key.rpartition('.')
    with config.unlocked():
        del (config[path] if path else config)[name]
    with pytest.raises((AttributeError, KeyError)) as caught:
        classification.make(config)
    assert find_missing_key(caught.value, config) == key


def test_another_error_is_not_taken_for_a_missing_key(root):
    config = configs.load(f'{root}/{DIGITS}')
    for error in (AttributeError('x'), KeyError('data')):
        with pytest.raises((AttributeError, KeyError)) as caught:
            raise error
        assert find_missing_key(caught.value, config) is None


@pytest.mark.parametrize(('returned', 'shown'), [('None', 'None'), ('dict(a=1)', "{'a': 1}")])
def test_a_config_is_a_config_dict(returned, shown, tmp_path):
    (tmp_path / 'c.py').write_text(f'def get_config(arg=""): return {returned}\n')
    with pytest.raises(UsageError, match=re.escape(f'get_config returns a ConfigDict, not {shown}')):
        configs.load(f'{tmp_path}/c.py')
