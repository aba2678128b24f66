"""Lists of values on the command line of `sweep`, around a stand-in main."""

from pathlib import Path

import pytest

from canon.errors import UsageError
from canon.train.runs import Run, find_runs
from launch.grid import split_values
from launch.sweep import plan
from launch.table import list_hidden

CONFIG = """
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config(arg=''):
    return ConfigDict(dict(
        rate=0.01, seed=0, trouble='', wide=False, sizes=(8, 16), limit=placeholder(int), run=dict(steps='1 epoch'),
        tx=dict(name='adam', learning_rate=0.1), transforms=dict(chain=('resize',), resize=dict(size=8)),
        target=dict(metric='test/accuracy', at_least=0.9),
    ))
"""


@pytest.fixture
def config(house):
    return str(house.root / house.config('a', text=CONFIG))


def list_flags(source, *flags, **options):
    return [point.flags for point in plan(source, [f'--config.{flag}' for flag in flags], **options)]


def test_lists_of_single_values_are_a_product(config):
    flags = list_flags(config, 'seed=0,1', 'wide=true', 'rate=1e-3;0.1')
    assert flags == [
        ['--config.wide=true', f'--config.seed={seed}', f'--config.rate={rate}']
        for seed in (0, 1)
        for rate in (0.001, 0.1)
    ]
    assert [point.label for point in plan(config, ['--config.seed=0,1', '--config.wide=true'])] == ['seed=0', 'seed=1']


@pytest.mark.parametrize(
    ('text', 'values'),
    [
        ('wide=true,false', ['wide=true', 'wide=false']),
        ("trouble='a,b',c", ['trouble=a,b', 'trouble=c']),
        ("trouble='',it's", ['trouble=', "trouble=it's"]),
        ('run.steps=5%,10%,3', ['run.steps=5%', 'run.steps=10%', 'run.steps=3']),
        ('tx.learning_rate=0.1,0.2', ['tx.learning_rate=0.1', 'tx.learning_rate=0.2']),
        ('tx.b1=0.8,0.9', ['tx.b1=0.8', 'tx.b1=0.9']),
        ('tx.name=sgd,adam', ['tx.name=sgd', 'tx.name=adam']),
        ('limit=None,2', ['limit=None', 'limit=2']),
        ('sizes=8,16;(4,);32', ['sizes=(8, 16)', 'sizes=(4,)', 'sizes=(32,)']),
        ('transforms.chain=resize;resize,random_flip', [
            "transforms.chain=('resize',)", "transforms.chain=('resize', 'random_flip')",
        ]),
        ('transforms.resize.size=8,(8, 16)', ['transforms.resize.size=8', 'transforms.resize.size=(8, 16)']),
    ],
)  # fmt: skip
def test_values_of_each_type(config, text, values):
    assert list_flags(config, text) == [[f'--config.{value}'] for value in values]


def test_a_tuple_stays_one_value(config):
    flags = list_flags(config, 'sizes=4,8', 'transforms.chain=resize,random_flip', 'seed=1,2')
    shared = ['--config.sizes=4,8', '--config.transforms.chain=resize,random_flip']
    assert flags == [[*shared, '--config.seed=1'], [*shared, '--config.seed=2']]


def test_lists_multiply_the_points_of_a_config(house):
    config = house.config('a', sweep=True)
    flags = list_flags(str(house.root / config), 'seed=1,2')
    assert flags == [[f'--config.rate={r}', f'--config.seed={s}'] for r in (0.001, 0.01, 0.1) for s in (1, 2)]
    assert list_flags(str(house.root / config), 'rate=1,2', ignore_sweep=True) == [
        ['--config.rate=1.0'],
        ['--config.rate=2.0'],
    ]
    with pytest.raises(UsageError, match=r'a.py gives rate its values; leave the flag out'):
        list_flags(str(house.root / config), 'rate=1,2')


def test_the_arguments_of_another_name_are_known(config):
    """SGD has a momentum, Adam has none: one clear error before anything runs, where a point cannot be made."""
    assert list_flags(config, 'tx.name=sgd', 'tx.momentum=0.8,0.9') == [
        ['--config.tx.name=sgd', f'--config.tx.momentum={m}'] for m in (0.8, 0.9)
    ]
    with pytest.raises(UsageError, match=r"no key 'tx\.momentum'"):
        list_flags(config, 'tx.name=sgd,adam', 'tx.momentum=0.8,0.9')


def test_equal_values_are_one_run(config):
    assert len(list_flags(config, 'rate=1e-3,0.001,0.1')) == 2


@pytest.mark.parametrize('text', ['1,,2', '1,', ';1'])
def test_an_empty_value_is_refused(text):
    with pytest.raises(UsageError, match=f'--config.seed={text}: a value of the list is empty'):
        split_values('seed', text, tuple_valued=False)


def test_lists_run_resume_and_are_tabled(house):
    config = house.config('a')
    words = ('sweep', config, '--config.rate=1e-3,0.1', '--config.wide=true')
    done = house.call(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('2 of 2 done, 0 failed. ./launch.sh table runs/toy/a')
    assert 'test/accuracy 0.9  rate=0.001' in done.stdout
    house.run(config, '--config.wide=true', '--config.rate=0.001')  # by hand: the same run
    assert len(find_runs(house.root / 'runs')) == 2
    table = house.call('table', 'runs/toy/a').stdout
    assert table.split()[0] == 'rate', 'both are wide'
    assert '--all adds wide\n' in table
    head, *rows = house.call('table', 'runs/toy/a', '--all').stdout.split('\n\n')[0].splitlines()
    assert head.split()[:2] == ['wide', 'rate']
    assert sorted(row.split()[:2] for row in rows) == [['true', '0.001'], ['true', '0.1']]
    printed = house.call(*words, '--engine=print').stdout.splitlines()
    assert printed[0].endswith('--config=configs/toy/a.py --config.wide=true --config.rate=0.001')


def test_a_table_hides_metrics_after_the_sixth_and_keys_that_all_share():
    metrics = {f'test/m{i}': float(i) for i in range(9)}
    runs = [Run(Path(str(i)), 'c.py', {'wide': True, 'rate': i}, {}, 'done', metrics=metrics) for i in range(2)]
    assert list_hidden(runs, 'test/m8') == {'wide', 'test/m5', 'test/m6', 'test/m7'}, 'the chosen metric comes first'
    assert list_hidden(runs[:1], 'test/m0') == {'test/m6', 'test/m7', 'test/m8'}, 'one run is described by its keys'


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'configs/toy/a.py has no sweep(), and no flag lists values: give --config.seed=0,1,2, or define'),
        (['--config.seed=0'], 'has no sweep(), and no flag lists values'),
        (['--config.seed=0,x'], '--config.seed=x: must be a whole number'),
        (['--config.sed=0,1'], "the config has no key 'sed'; did you mean 'seed'"),
    ],
)
def test_a_list_is_refused_in_one_line_before_anything_runs(house, words, message):
    done = house.call('sweep', house.config('a'), *words)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1)
    assert message in done.stderr
    assert not (house.root / 'runs').exists()
