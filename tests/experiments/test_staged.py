"""A config in stages: what each stage is made of, where it begins, and what is refused."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from canon.configuration import make_stage_config
from canon.errors import UsageError
from canon.models import vgg
from canon.named import to_plain
from canon.train import run_stages
from canon.train.init_from import read_model
from experiments import configs, staged

CONFIG = 'configs/classification/vgg_shallow_to_deep.py'


@pytest.fixture
def config(root):
    values = to_plain(configs.load(f'{root}/configs/classification/lenet_digits.py:smoke'))
    values['experiment'] = 'staged'
    values['run'] = dict(steps=2)
    values['data']['evals'] = {}
    values['stages'] = dict(
        experiment='classification',
        chain=('small', 'large'),
        small=dict(model=dict(activation='relu'), run=dict(steps=1), tx=dict(learning_rate=0.1)),
        large=dict(run=dict(init_from=dict(new='^output/'))),
    )
    values['tx'] = dict(name='sgd', learning_rate=0.0)
    return ConfigDict(values)


def test_stages_are_the_config_with_their_own_keys_over_it(config):
    small, large = (make_stage_config(config, name) for name in ('small', 'large'))
    assert (small.model.activation, small.run.steps) == ('relu', 1)
    assert 'activation' not in large.model
    assert large.run.steps == 2
    assert (large.run.init_from.stage, large.run.init_from.new) == ('small', '^output/')
    assert 'init_from' not in small.run
    for stage in (small, large):
        assert stage.experiment == 'classification'
        assert 'stages' not in stage
        assert stage.data.batch_size == 64


def test_a_run_hands_its_parameters_on(config, tmp_path):
    fitted = run_stages(staged.make(config), config, tmp_path, quiet=True)
    assert fitted.workdir == tmp_path / '1-large'
    assert json.loads((tmp_path / '0-small' / 'status.json').read_text())['step'] == 1
    small, large = read_model(tmp_path / '0-small'), read_model(tmp_path / '1-large')
    for name, value in small.items():
        assert np.array_equal(value, large[name]) != name.startswith('output/'), name


def config_of_first(config):
    """The config with its second stage alone."""
    alone = to_plain(config)
    alone['stages']['chain'] = ('large',)
    return ConfigDict(alone)


def test_what_is_refused(config):
    with pytest.raises(UsageError, match=r'stages\.large\.run\.init_from: no stage comes before; give it a path'):
        make_stage_config(config_of_first(config), 'large')
    config.stages.chain = ('small', 'larg')
    with pytest.raises(UsageError, match=r"stages\.chain names 'larg', which is not a stage; did you mean 'large'"):
        staged.make(config)
    config.stages.chain = ('small',)
    with pytest.raises(UsageError, match=r'stages\.large is not in stages\.chain; there are small'):
        staged.make(config)
    del config.stages.experiment
    with pytest.raises(UsageError, match=r'stages\.experiment is missing'):
        staged.make(config)


@pytest.mark.parametrize('argument', ['', ':smoke'])
def test_vgg_d_begins_from_a(argument, root):
    config = configs.load(f'{root}/{CONFIG}{argument}')
    assert config.stages.D.run.init_from.new == vgg.SHALLOW_TO_DEEP['new']
    a, d = (make_stage_config(config, name) for name in ('A', 'D'))
    assert (a.model.name, d.model.name) == ('vgg.vgg11', 'vgg.vgg16')
    assert jax.tree.structure(dict(a.model)) == jax.tree.structure(dict(d.model))
    assert d.run.init_from.stage == 'A'
