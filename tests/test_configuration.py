"""Config files and overrides as a library user reads them, without `experiments/`."""

import pytest
from ml_collections import ConfigDict

from canon import configuration, named
from canon.configuration import files
from canon.errors import UsageError

CONFIG = """
from ml_collections import ConfigDict


def get_config(arg=''):
    return ConfigDict(dict(
        width=3 if arg == 'smoke' else 64,  # of the layers
        tx=dict(name='adam', learning_rate=0.1),
        shape=dict(radius=1.0),
    ))
"""


def circle(radius: float, centre: tuple[float, float] = (0.0, 0.0)):
    """A circle.

    Args:
      radius: in metres.
      centre: of the circle.
    """


SECTIONS = {'shape': {'circle': circle}}


@pytest.fixture
def file(tmp_path):
    (tmp_path / 'circles.py').write_text(CONFIG)
    return f'{tmp_path}/circles.py'


def test_a_config_is_loaded_and_changed(file):
    config = configuration.load_config(f'{file}:smoke')
    assert config.width == 3
    pairs, others = configuration.read_flags(['--config.shape.centre=(1, 2.5)', 'x', '--config.tx.b1', '0.8'])
    assert others == ['x']
    changed = configuration.apply_overrides(config, pairs, SECTIONS)
    assert changed == {'shape.centre': (1, 2.5), 'tx.b1': 0.8}
    assert (config.shape.centre, config.tx.b1) == ((1, 2.5), 0.8)
    with pytest.raises(UsageError, match=r"no key 'shape\.center'; did you mean 'shape\.centre'"):
        configuration.apply_overrides(config, [('shape.center', '0')], SECTIONS)


def test_its_keys_are_described(file):
    lines = '\n'.join(configuration.describe_keys(configuration.load_config(file), file, SECTIONS))
    assert '--config.width=64  (a whole number)\n        of the layers' in lines
    assert '--config.shape.centre=(0.0, 0.0)*  (a tuple)\n        of the circle' in lines
    assert '--config.shape.radius=1.0  (a number)\n        in metres' in lines
    assert 'shape: tests.test_configuration.circle\n    A circle.' in lines


SHARED = """
from ml_collections import ConfigDict

BORDER = dict(
    thickness=1,  # in pixels
)
BORDER = dict(BORDER)


def make(shape):
    return ConfigDict(dict(
        width=3,  # of the shared file
        depth=4,  # of all layers
        shape=shape,
        border=dict(BORDER),
    ))
"""
DERIVED = """
from configs.circles._shared import make


def get_config(arg=''):
    config = make(shape=dict(
        radius=1.0,  # in feet
        centre=(0.0, 0.0), corners=3,  # of one of the two
    ))
    config.width = 5  # of the config itself
    config.shape.colour, config.shape.angle = 'red', 0.5  # of both
    if arg == 'smoke':
        config.depth = 1  # of the smoke run alone
    return config
"""


def test_comments_of_imported_files_assignments_and_arguments(tmp_path):
    folder = tmp_path / 'configs/circles'
    folder.mkdir(parents=True)
    (folder / '_shared.py').write_text(SHARED)
    (folder / '_other.py').write_text(SHARED.replace('of all layers', 'of a file that nothing imports'))
    (folder / 'derived.py').write_text(DERIVED)
    comments = files.read_comments(f'{folder}/derived.py:smoke')
    assert comments.own == {
        'width': 'of the config itself',
        'depth': 'of all layers',
        'border.thickness': 'in pixels',
        'shape.colour': 'of both',
        'shape.angle': 'of both',
    }
    assert comments.shared == {'shape.radius': 'in feet'}


def test_an_evaluator_with_data_of_its_own_is_described_by_their_function(file):
    config = configuration.load_config(file)
    config.data = ConfigDict(dict(name='digits', evals=dict(test=dict(name='digit_lines', source=dict(split='test')))))
    lines = '\n'.join(configuration.describe_keys(config, file))
    assert 'data.evals.test.source: canon.data.text.digit_lines.digit_lines' in lines


def test_the_split_of_the_data_is_no_argument_of_their_section(file):
    config = configuration.load_config(file)
    config.data = ConfigDict(dict(name='digits', source={}, train=dict(split='train')))
    assert 'data.source.split' not in configuration.known_keys(config)
    with pytest.raises(UsageError, match=r"no key 'data\.source\.split'; did you mean 'data\.train\.split'"):
        configuration.apply_overrides(config, [('data.source.split', 'test')])


def test_the_sections_of_a_stage_are_those_of_the_config():
    config = ConfigDict(dict(tx=dict(name='adam', b1=0.5), stages=dict(late=dict(tx=dict(learning_rate=0.1)))))
    assert configuration.find_function(config, 'stages.late.tx').__name__ == 'adam'
    assert configuration.apply_overrides(config, [('stages.late.tx.b2', '0.9')]) == {'stages.late.tx.b2': 0.9}
    assert config.stages.late.tx.b2 == 0.9
    with pytest.raises(UsageError, match=r"no key 'stages\.late\.tx\.b3'; did you mean"):
        configuration.apply_overrides(config, [('stages.late.tx.b3', '0.9')])


def test_a_file_that_does_not_exist_suggests_known_ones(tmp_path):
    with pytest.raises(UsageError, match=r"no config at cicles\.py; did you mean 'circles\.py'"):
        configuration.load_config('cicles.py', ['circles.py'])


def test_a_section_of_an_experiment_adds_data_sets():
    def mine(split: str = 'train', colour: str = 'red'):
        return []

    config = ConfigDict(dict(data=dict(name='mine', source=dict())))
    assert configuration.find_function(config, 'data.source', {'data.source': {'mine': mine}}) is mine
    config.data.name = 'digits'  # one that all experiments share
    assert configuration.find_function(config, 'data.source', {'data.source': {'mine': mine}}).__name__ == 'digits'
    nothing = named.Catalogue('text', ('canon.data.text',), lambda function: False)
    assert configuration.find_function(config, 'data.source', {'data.source': nothing}) is None


def test_nested_configs_are_read_and_merged():
    config = ConfigDict(dict(a=dict(b=1, c=dict(d=2))))
    assert configuration.get_value(config, 'a.c.d') == 2
    assert configuration.get_value(config, 'a.x.d') is None
    assert dict(configuration.list_leaves(config)) == {'a.b': 1, 'a.c.d': 2}
    merged = configuration.merge({'a': {'b': 1, 'c': 2}}, {'a': {'c': 3}, 'd': {'e': 4}})
    assert merged == {'a': {'b': 1, 'c': 3}, 'd': {'e': 4}}


def test_runs_have_folders_of_their_own(tmp_path):
    first, second = (configuration.run_folder('configs/a/b.py:smoke', {'seed': s}, tmp_path) for s in (0, 1))
    assert first.parent == second.parent == tmp_path / 'a' / 'b-smoke'
    assert first != second
    assert configuration.run_folder('configs/a/b.py', {}, tmp_path) == tmp_path / 'a' / 'b' / 'default'
