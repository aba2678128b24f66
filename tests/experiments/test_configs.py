"""Every config builds and takes one abstract step, so that none rots."""

import importlib

import pytest

from canon.errors import UsageError
from canon.train import Experiment
from canon.train.setup import prepare
from experiments import configs


def sources():
    for file in configs.find():
        arguments = getattr(configs.module(str(configs.ROOT / file)), 'ARGUMENTS', ('smoke',))
        yield from (file, *(f'{file}:{argument}' for argument in arguments))


def shrunk_first():
    """The full forms take seconds each to trace: they are left to CI where there is a shrunk one."""
    for source in sources():
        path, _, argument = source.partition(':')
        slow = argument != 'smoke' and f'{path}:smoke' in sources()
        yield pytest.param(source, marks=pytest.mark.slow if slow else ())


@pytest.mark.parametrize('source', shrunk_first())
def test_every_config_takes_an_abstract_step(source, root, tmp_path_factory):
    config = configs.load(f'{root}/{source}')
    module = importlib.import_module(f'experiments.{config.experiment}')
    if 'data' in config and 'data_dir' in config.data:
        config.data.data_dir = str(tmp_path_factory.getbasetemp() / 'tfds')
    made = module.make(module.offline(config))
    if source.endswith(':imagenette'):  # the paper's form, which is traced, with other data
        return
    stages = [made] if isinstance(made, Experiment) else [made[0].make(None)[0]]
    for experiment in stages:
        setup = prepare(experiment, config)  # evaluates the shapes of init and of one step
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


def test_every_point_of_every_sweep_is_a_key_of_its_config(root):
    for file in configs.find():
        if hasattr(configs.module(f'{root}/{file}'), 'sweep'):
            config = configs.load(f'{root}/{file}')
            for point in configs.points(f'{root}/{file}'):
                config.update_from_flattened_dict(point)


def test_an_argument_that_a_config_does_not_take(root):
    with pytest.raises(UsageError, match="takes no argument 'smok'; did you mean 'smoke'"):
        configs.load(f'{root}/configs/classification/lenet_digits.py:smok')


def test_data_that_are_not_here_are_replaced_by_random_images(root):
    from experiments import classification

    config = configs.load(f'{root}/configs/classification/lenet_digits.py')
    config.data.name = 'mnist'
    config.data.data_dir = '/nonexistent'
    with pytest.raises(UsageError, match=r'launch\.sh prepare mnist'):
        classification.make(config)
    prepare(classification.make(classification.offline(config)), config)
