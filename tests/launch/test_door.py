"""launch.sh: the command of each verb, wrong usage, and the environment that it prepares once."""

import importlib
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from experiments import command_help, main
from tests.launch.conftest import House


@pytest.mark.parametrize(
    ('words', 'shown'),
    [
        ([], '-m experiments.main --config=configs/classification/lenet_digits.py'),
        (['--config.seed=1'], '--config=configs/classification/lenet_digits.py --config.seed=1'),
        (['run', 'c.py:smoke', '--config.a=x y'], r'-m experiments.main --config=c.py:smoke --config.a=x\ y'),
        (['eval', 'c.py'], '--config=c.py --mode=evaluate'),
        (['eval', '--workdir=/runs/x'], '-m experiments.main --mode=evaluate --workdir=/runs/x'),
        (['eval', '--workdir', '/x', '--step', '3'], '-m experiments.main --mode=evaluate --workdir=/x --step 3'),
        (['predict', 'c.py', '--input=/a.png'], '--mode=predict --input=/a.png'),
        (['replay', 'c.py', '--step=7'], '--mode=replay --step=7'),
        (['sweep', 'c.py', '--jobs=2'], '-m launch.sweep c.py --jobs=2'),
        (['slurm', 'c.py', '--tasks=2', '--', '--config.a=1'], '-m launch.submit c.py --tasks=2 -- --config.a=1'),
        (['table', 'runs'], '-m launch.table runs'),
        (['compare', 'a', 'b', '--output=/c.html'], '-m launch.compare a b --output=/c.html'),
        (['watch'], '-m launch.watch'),
        (['view', '--workdir=/runs/x', '--port=1'], '-m launch.view --workdir=/runs/x --port=1'),
        (['ledger', 'lenet'], '-m launch.ledger lenet'),
        (['prepare', 'digits'], '-m launch.prepare digits'),
        (['tpu', 'pod', 'c.py'], r'gcloud compute tpus tpu-vm ssh pod --worker=all --command=cd\ ~/canon'),
        (['test', '--all', '-k', 'door'], "-m pytest -n 2 --dist loadfile --no-loadscope-reorder -m '' -k door"),
        (['lint'], '-m ty check'),
        (['pins'], 'requirements.txt'),
    ],
)
def test_dry_prints_the_command(house, words, shown):
    done = house.launch(*words, '--dry')
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert not done.stderr


def test_dry_prints_how_the_environment_is_made_and_makes_nothing(house, tmp_path):
    for words, extras in ((['run', 'c.py'], r'all\,cuda12'), (['slurm', 'c.py'], r'all\,cuda12\,slurm')):
        done = house.launch(*words, '--dry', CANON_PREPARE='', CANON_VENV=str(tmp_path / 'venv'), CANON_EXTRAS='cuda12')
        assert f'-m venv {tmp_path}/venv' in done.stdout
        python = f'{tmp_path}/venv/bin/python'
        expected = rf'uv pip install -q --compile-bytecode --python {python} -c requirements.txt -e .\[{extras}\]'
        assert expected in done.stdout
    assert not (tmp_path / 'venv').exists()


def test_tfds_data_are_prepared_in_the_environment_with_tensorflow(house):
    assert (
        '.venv-tf/bin/python -m launch.prepare mnist'
        in house.launch('prepare', 'mnist', '--dry', CANON_PREPARE='').stdout
    )


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['rnu', 'c.py'], "no verb is called 'rnu'; there are run, eval"),
        (['configs/toy/a.py:smoke'], 'did you mean: ./launch.sh run configs/toy/a.py:smoke'),
        (['run'], 'run needs CONFIG'),
        (['sweep', '--jobs=2'], 'sweep needs CONFIG'),
        (['table'], 'table needs DIR'),
        (['tpu', 'pod'], 'tpu needs NAME and CONFIG'),
        (['run', 'configs/toy/b.py'], "no config at configs/toy/b.py; did you mean 'configs/toy/a.py'?"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(house, words, message):
    house.config('a')
    done = house.launch(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count('\n') == 1


def test_no_python_is_one_line(house, tmp_path):
    done = house.launch('run', 'c.py', CANON_PREPARE='', CANON_VENV=str(tmp_path / 'venv'), CANON_PYTHON='python2.0')
    assert done.returncode == 1
    assert 'needs Python 3.11 or newer' in done.stderr


def test_paths_are_relative_to_the_caller(house, tmp_path):
    inside, mine = house.config('a'), tmp_path / 'mine.py'
    mine.write_text('')
    (tmp_path / 'a.png').write_text('')
    assert f'--config={inside} ' in house.launch('eval', inside, '--dry', cwd=tmp_path).stdout
    done = house.launch('predict', 'mine.py:smoke', '--input=a.png', '--config.x=a.png', '--dry', cwd=tmp_path)
    assert f'--config={tmp_path}/mine.py:smoke ' in done.stdout
    assert f'--input={tmp_path}/a.png --config.x=a.png' in done.stdout
    done = house.launch('sweep', '--jobs', '2', 'mine.py', '--runs', 'mine', '--dry', cwd=tmp_path)
    assert f'launch.sweep --jobs 2 {tmp_path}/mine.py --runs={tmp_path}/mine' in done.stdout
    done = house.launch('table', '--metric', 'x', 'photos', '--dry', cwd=tmp_path)
    assert done.stdout.endswith('launch.table --metric x photos\n')


@pytest.mark.parametrize(
    ('words', 'shown'),
    [
        (['--input=my cat sat, 3 times'], r'--input=my\ cat\ sat\,\ 3\ times'),
        (['--input', '12x120'], '--input=12x120'),
        (['--input=train:0'], '--input=train:0'),
        (['--input=photos'], '--input={here}/photos'),
        (['--input=~/photos'], r'--input=\~/photos'),
        (['--input='], '--input='),
        (['--config.data.path=photos'], '--config.data.path={here}/photos'),
        (['--config.data.source.path', 'photos'], '--config.data.source.path={here}/photos'),
        (['--config.data.path=elsewhere'], '--config.data.path=elsewhere'),
        (['--config.data.data_dir=photos'], '--config.data.data_dir={here}/photos'),
        (['--config.model.name=photos'], '--config.model.name=photos'),
        (['--output=new'], '--output={here}/new'),
        (['--workdir', 'new'], '--workdir={here}/new'),
        (['--workdir=runs/old'], '--workdir=runs/old'),
        (['--runs=~/runs'], r'--runs=\~/runs'),
    ],
)
def test_only_paths_are_made_absolute(house, tmp_path, words, shown):
    """Sentences, sizes and splits stay as they are; runs of the checkout are found from anywhere."""
    (tmp_path / 'photos').mkdir()
    (house.root / 'runs' / 'old').mkdir(parents=True)
    (house.root / 'runs' / 'old' / 'config.json').write_text('')
    done = house.launch('predict', *words, '--dry', cwd=tmp_path)
    assert done.stdout.endswith(f'--mode=predict {shown.format(here=tmp_path)}\n'), done.stdout


HELP = (Path(__file__).parents[2] / 'launch.sh').read_text().partition("<<'END'\n")[2].partition('\nEND')[0]
VERBS = re.findall(r'^  ([a-z]+) ', HELP, re.MULTILINE)


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_help(house, verb):
    """The command that launch.sh starts for it is run in this process, which takes a tenth of the time."""
    done = house.launch(verb, '--help', '--dry')
    assert done.returncode == 0, done.stderr
    assert 'pip install' not in done.stdout
    words = done.stdout.split()
    if words[1] == '-m':
        module = importlib.import_module(words[2])
        text = describe_mode(words) if words[2] == 'experiments.main' else house.read_help(module)
    else:
        text = done.stdout  # launch.sh itself has it, and needs no environment
    assert f'./launch.sh {verb}' in text or verb == 'help'
    assert text.startswith('usage: ') or verb == 'help'
    assert re.search(rf'^(?!usage).*\./launch\.sh {verb}|^  run CONFIG', text, re.M)  # an example


def describe_mode(words):
    mode = next((word.partition('=')[2] for word in words if word.startswith('--mode=')), 'train')
    return '\n'.join(command_help.describe(mode, main._describe_flags(), None, None, []))


def test_help_of_one_verb(house):
    done = house.launch('help', 'pins')
    assert (done.returncode, done.stdout) == (0, house.launch('pins', '-h').stdout)
    assert VERBS[0] == 'run'
    assert f'there are {", ".join(VERBS)}' in house.launch('hlep').stderr


def test_exit_status_and_signals_are_passed_through(house):
    assert house.launch('run', house.config('good')).returncode == 0
    failed = house.launch('run', house.config('bad', trouble='fail'))
    assert (failed.returncode, failed.stderr) == (1, 'error: the loss is not finite\n')
    process = house.launch('run', house.config('long', trouble='sleep'), wait=False)
    wait_until((house.root / 'runs/toy/long/default/status.json').exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert '"stopped"' in (house.root / 'runs/toy/long/default/status.json').read_text()


@pytest.mark.slow
def test_two_launches_make_one_environment_and_a_third_uses_it(root, tmp_path):
    for name in ('launch.sh', 'pyproject.toml', 'requirements.txt', 'README.md', 'LICENSE', 'NOTICE'):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / 'lib', tmp_path / 'lib', ignore=shutil.ignore_patterns('__pycache__', '*.egg-info'))
    house = House(tmp_path)
    words, environment = ('test', '--version'), dict(CANON_PREPARE='', CANON_VENV='', CANON_EXTRAS='')
    launches = [house.launch(*words, wait=False, **environment) for _ in range(2)]
    outputs = [process.communicate(timeout=900) for process in launches]
    assert [process.returncode for process in launches] == [0, 0], outputs
    assert sorted('preparing .venv' in err for _, err in outputs) == [False, True]

    python = str(tmp_path / '.venv/bin/python')
    code = 'import canon; print(canon.__file__)'
    path = subprocess.run([python, '-c', code], cwd='/', capture_output=True, text=True).stdout
    assert path.startswith(str(tmp_path / 'lib'))
    third = house.launch(*words, **environment)
    assert (third.returncode, third.stderr) == (0, '')  # it prepares nothing

    # Fewer extras install nothing; other pins do.
    assert 'pip' not in house.launch('run', 'c.py', '--dry', **environment).stdout
    (tmp_path / 'requirements.txt').write_text((tmp_path / 'requirements.txt').read_text() + '\n')
    assert 'uv pip install' in house.launch('run', 'c.py', '--dry', **environment).stdout


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
