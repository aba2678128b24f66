"""sweep, table, ledger and submit, around a stand-in main."""

import json
import signal

import numpy as np
import pytest
from PIL import Image

from canon.errors import UsageError
from canon.train.runs import Run, find_runs, read_run
from launch import table
from launch.flags import find_run, to_flags
from tests.launch.test_door import wait_until


def test_flags_state_the_values_that_main_reads():
    overrides = {'a': 1e-3, 'b.c': 'x', 'd': True, 'e': (1, 2), 'f': np.float64(0.5), 'g': np.arange(2), 'h': 3}
    words = ['a=0.001', 'b.c=x', 'd=true', 'e=(1, 2)', 'f=0.5', 'g=(0, 1)', 'h=3']
    assert to_flags(overrides) == [f'--config.{word}' for word in words]
    with pytest.raises(UsageError, match='k: a sweep gives'):
        to_flags({'k': {'l': 1}})


def test_a_sweep_runs_every_point_once(house):
    config = house.config('a', sweep=True)
    done = house.call('sweep', config, '--jobs=2', '--config.seed=3')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sorted(line[:5] for line in lines[:3]) == ['[1/3]', '[2/3]', '[3/3]']
    assert any('test/accuracy 0.9  rate=0.001' in line for line in lines)
    assert lines[3].startswith('3 of 3 done, 0 failed. ./launch.sh table runs/toy/a')
    logs = sorted((house.root / 'runs/toy/a/sweep').iterdir())
    assert [log.name for log in logs] == ['000-rate=0.001.log', '001-rate=0.01.log', '002-rate=0.1.log']
    assert 'a line of the log' in logs[0].read_text()
    assert house.call('sweep', config, '--config.seed=3').returncode == 0
    assert len(find_runs(house.root / 'runs')) == 3
    found = find_run(str(house.root / config), ['--config.rate=1e-3', '--config.seed', '3'], house.root / 'runs')
    assert found
    assert found.state == 'done'


def test_points_that_fail_are_listed_and_the_others_run(house):
    text = "\n\ndef sweep():\n    for t in ('', 'fail', 'rubbish'):\n        yield {'trouble': t}\n"
    path = house.config('a')
    house.config('a', text=(house.root / path).read_text() + text)
    done = house.call('sweep', path)
    assert done.returncode == 1
    assert 'failed' in done.stdout.splitlines()[1]
    assert 'error: the loss is not finite  trouble=fail  runs/toy/a/sweep/001-trouble=fail.log' in done.stdout
    assert 'broken' in done.stdout.splitlines()[2]
    assert '1 of 3 done, 1 failed, 1 not finished' in done.stdout


def test_a_sweep_that_is_stopped_stops_its_runs(house):
    process = house.launch('sweep', house.config('a', trouble='sleep', sweep=True), '--jobs=2', wait=False)
    wait_until(lambda: len(list(house.root.glob('runs/toy/a/*/status.json'))) == 2)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert out.count('stopped') == 2
    assert '0 of 3 done, 0 failed, 3 not finished (the same command resumes)' in out
    assert len(list(house.root.glob('runs/toy/a/*/status.json'))) == 2


def test_a_sweep_prints_its_commands(house):
    done = house.call('sweep', house.config('a', sweep=True), '--engine=print', '--force')
    assert [line.split('--config=', 1)[1] for line in done.stdout.splitlines()] == [
        f'configs/toy/a.py --force --config.rate={rate}' for rate in (0.001, 0.01, 0.1)
    ]


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['toy/plain.py'], 'configs/toy/plain.py has no sweep()'),
        (['toy/empty.py'], 'gave nothing'),
        (['toy/words.py'], "sweep() gave 'rate'; it yields dicts"),
        (['toy/plain.py', '--job=2'], "no option '--job'; did you mean '--jobs'"),
        (['toy/plain.py', '--jobs=two'], "--jobs: invalid int value: 'two'"),
        (['toy/plain.py', '--workdir=x'], '--workdir does not go with sweep'),
        (['toy/plian.py'], "did you mean 'configs/toy/plain.py'"),
        (['toy/syntax.py'], 'syntax.py cannot be read: SyntaxError'),
    ],
)
def test_a_sweep_refuses_in_one_line(house, words, message):
    house.config('plain')
    house.config('empty', text='def get_config(): pass\n\ndef sweep(): return []\n')
    house.config('words', text="def get_config(): pass\n\ndef sweep(): return ['rate']\n")
    house.config('syntax', text='def get_config(:')
    done = house.call('sweep', f'configs/{words[0]}', *words[1:])
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count('\n') == 1


def test_a_table_is_sorted_and_drawn(house):
    config = house.config('a', sweep=True)
    house.call('sweep', config)
    for trouble in ('fail', 'rubbish'):
        house.run(config, f'--config.trouble={trouble}')
    (house.root / 'runs/toy/a/broken').mkdir()
    (house.root / 'runs/toy/a/broken/run.json').write_text('{"config": ')
    done = house.call('table', 'runs')
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.split('\n\n')[0].splitlines()
    assert head.split() == [
        'config',
        'rate',
        'trouble',
        'test/accuracy',
        'test/loss',
        'step',
        'seconds',
        'state',
        'run',
    ]
    assert rows[0].split()[1:3] == ['0.01', '-']
    assert 'failed 3/9: the loss is not finite' in done.stdout
    assert done.stdout.count('broken') == 3  # two runs, one of which is called so
    with Image.open(house.root / 'runs/table.png') as picture:
        assert picture.size == (720, 480)
    by_rate = house.call('table', 'runs', '--sort=rate').stdout.splitlines()
    assert by_rate[1].split()[1] == '0.001'
    by_loss = house.call('table', 'runs', '--metric=test/loss').stdout.splitlines()
    assert by_loss[1].split()[1] == '0.01'  # the smallest first


def test_a_sweep_over_words_and_seeds_is_drawn(house):
    config = house.config('a')
    for trouble in ('a', 'b'):
        for seed in (1, 2):
            house.run(config, f'--config.trouble={trouble}', f'--config.seed={seed}')
    done = house.call('table', 'runs/toy/a')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'runs/toy/a/table.png'


def test_a_picture_has_each_run_at_the_value_of_its_config(tmp_path):
    """A run that leaves the swept key to its config is drawn at that value; one without the key is not drawn."""
    all_runs = [
        Run(tmp_path, 'c.py', {'rate': 0.1}, {}, 'done', metrics={'loss': 1.0}, values={'rate': 0.1}),
        Run(tmp_path, 'c.py', {}, {}, 'done', metrics={'loss': 2.0}, values={'rate': 0.2}),
        Run(tmp_path, 'c.py', {'seed': 1}, {}, 'done', metrics={'loss': 4.0}, values={'rate': 0.2, 'seed': 1}),
        Run(tmp_path, 'd.py', {}, {}, 'done', metrics={'loss': 9.0}, values={}),
    ]
    figures = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, '_save', lambda figure, path: figures.append(figure) or path)
        table.draw(all_runs, 'loss', tmp_path / 'table.png')
    lines = [line.get_xydata().tolist() for line in figures[0].axes[0].lines if line.get_linestyle() == '-']
    assert lines == [[[0.1, 1.0], [0.2, 3.0]]]


def test_keys_that_change_together_are_one_name_of_a_line(tmp_path):
    pairs = [('m', 'u'), ('r', 'u'), ('u', 'm')]
    all_runs = [
        Run(tmp_path, 'c.py', {'form': form, 'source': source, 'both': [source, target], 'target': target}, {}, 'done')
        for form in ('x', 'y')
        for source, target in pairs
    ]
    assert table._drop_dependent(all_runs, ['source', 'both', 'target']) == ['source']
    assert table._drop_dependent(all_runs, ['target', 'source', 'form']) == ['target', 'source', 'form']
    assert table._drop_dependent(all_runs[:1], ['source']) == []


def test_seeds_are_one_row_with_the_mean_and_its_standard_error(tmp_path):
    def make(form, seed, *values, state='done'):
        metrics = dict(zip(('target/accuracy', 'summary/oracle'), values, strict=True))
        return Run(tmp_path, 'c.py', {'form': form, 'data.source.seed': seed, 'seed': seed}, {}, state, metrics=metrics)

    runs = [make('a', 0, 1.0, 2.0), make('a', 1, 2.0, 2.0), make('a', 2, 4.0, 5.0), make('b', 0, 3.0, 7.0)]
    runs.append(make('b', 1, 9.0, 9.0, state='failed'))
    names, rows = table.average_seeds(runs, 'target/accuracy')
    assert names == ['form', 'target/accuracy', '+-', 'summary/oracle', '+-', 'runs']
    (a, *first, number), (b, *second, one) = rows
    assert (a, number, b, one) == ('a', 3, 'b', 1)
    # The standard deviations of (1, 2, 4) and (2, 2, 5), divided by the root of 3.
    assert first == pytest.approx([7 / 3, (7 / 3) ** 0.5 / 3**0.5, 3.0, 1.0])
    assert second == [3.0, None, 7.0, None]


def test_a_run_keeps_the_values_of_its_config(tmp_path):
    (tmp_path / 'run.json').write_text('{"config": "c.py"}')
    (tmp_path / 'config.json').write_text('{"seed": 3, "tx": {"name": "adam", "learning_rate": {"init": 0.1}}}')
    assert read_run(tmp_path).values == {'seed': 3, 'tx.name': 'adam', 'tx.learning_rate.init': 0.1}


def test_a_run_in_stages_is_one_row(tmp_path):
    for stage, state in (('0-first', 'done'), ('1-second', 'running')):
        folder = tmp_path / 'x' / 'default' / stage
        folder.mkdir(parents=True)
        (folder / 'run.json').write_text(json.dumps({'config': 'c.py', 'overrides': {}}))
        (folder / 'status.json').write_text(json.dumps({'state': state}))
    (run,) = find_runs(tmp_path)
    assert (run.folder, run.state) == (tmp_path / 'x' / 'default', 'running')


def test_a_table_refuses_in_one_line(house, tmp_path):
    config = house.config('a')
    (house.root / 'empty').mkdir()
    for words, status, message in (
        (['empty'], 1, 'no runs below empty'),
        (['nowhere'], 2, 'no folder nowhere'),
    ):
        done = house.call('table', *words)
        assert (done.returncode, done.stderr.count('\n')) == (status, 1)
        assert message in done.stderr
    house.run(config)
    assert 'no picture' in house.call('table', 'runs').stdout
    for word in ('--sort=test/acuracy', '--metric=test/acuracy'):
        done = house.call('table', 'runs', word)
        assert done.returncode == 2
        assert "did you mean 'test/accuracy'" in done.stderr


def test_the_ledger_runs_what_states_a_target_and_keeps_the_rest(house):
    house.config('good')
    house.config('slow', ci=False)
    house.config('short', at_least=1.5)
    house.config('fails', trouble='fail')
    house.config('none', text='from ml_collections import ConfigDict\n\ndef get_config(arg): return ConfigDict()\n')
    house.config('unreadable', text='def get_config(arg): raise KeyError("x")\n')
    done = house.call('ledger', '--ci', '--save')
    assert done.returncode == 1
    assert '1 of 4 reach their target' in done.stdout
    page = (house.root / 'docs/ledger.md').read_text()
    assert '| configs/toy/good.py | test/accuracy | >= 0.9 | 1 | ' in page
    assert '| configs/toy/short.py | test/accuracy | >= 1.5 | 1 | ' in page
    assert 'error: the loss is not finite' in page
    assert 'KeyError' in page
    assert 'none.py' not in page
    assert 'slow.py' not in page
    assert str(house.root) not in page
    (house.root / 'configs/toy/fails.py').unlink()
    done = house.call('ledger', 'slow|good', '--save')
    assert done.returncode == 0
    page = (house.root / 'docs/ledger.md').read_text()
    assert [word in page for word in ('slow.py', 'good.py', 'short.py', 'fails.py')] == [True, True, True, False]
    assert not (house.root / 'runs').exists()


def test_the_ledger_leaves_the_published_page_alone_unless_it_is_saved(house):
    house.config('good')
    (house.root / 'docs').mkdir()
    (house.root / 'docs/ledger.md').write_text('as published')
    done = house.call('ledger')
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith('written to runs/ledger.md')
    assert 'good.py' in (house.root / 'runs/ledger.md').read_text()
    assert (house.root / 'docs/ledger.md').read_text() == 'as published'


def test_the_ledger_refuses_in_one_line(house):
    house.config('good')
    for word, message in (('goood', "no config matches 'goood'"), ('(', 'not a regular expression')):
        done = house.call('ledger', word)
        assert (done.returncode, done.stderr.count('\n')) == (2, 1)
        assert message in done.stderr


def test_slurm_without_slurm_is_one_line(house, tmp_path):
    config = house.config('a')
    (tmp_path / 'bin').mkdir()
    for name in ('bash', 'dirname', 'readlink', 'cat'):
        (tmp_path / 'bin' / name).symlink_to(f'/bin/{name}' if name in ('bash', 'cat') else f'/usr/bin/{name}')
    done = house.launch('slurm', config, PATH=str(tmp_path / 'bin'))  # importing submitit resets all logging
    assert (done.returncode, done.stderr.count('\n')) == (1, 1), done.stderr
    assert 'no sbatch here' in done.stderr
    for word, message in (
        ('--taks=2', "did you mean '--tasks'"),
        ('--tasks=0', 'at least 1'),
        ('--sbatch==1', 'KEY=VALUE'),
    ):
        done = house.call('slurm', config, word)
        assert (done.returncode, done.stderr.count('\n')) == (2, 1)
        assert message in done.stderr
