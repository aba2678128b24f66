"""Completion of launch.sh: bash's function as bash runs it, zsh at a terminal, and what is offered."""

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from canon import configuration
from experiments import overrides
from launch import complete

LENET = 'configs/classification/lenet_digits.py'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of keys; nothing is listed in the background."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(complete, '_start_listing', lambda path: None)
    return tmp_path / 'canon/keys'


@pytest.mark.parametrize(
    ('words', 'candidates'),
    [
        (['sw'], ['sweep']),
        (['run', 'conf'], ['configs/']),
        (['run', 'configs/cla'], ['configs/claims/', 'configs/classification/']),
        (['data', 'configs/classification/lenet_d'], [LENET]),
        (['run', f'{LENET}:'], [f'{LENET}:smoke']),
        (['run', 'configs/tracking/_'], []),  # shared parts are no configs
        (['sweep', LENET, '--j'], ['--jobs=']),
        (['sweep', LENET, '--minu'], ['--minutes=']),  # of Slurm
        (['sweep', LENET, '--ig'], ['--ignore-sweep']),
        (['sweep', LENET, '--workd'], []),
        (['eval', '--st'], ['--step=']),
        (['run', LENET, '--fo'], ['--force']),
        (['completion', ''], ['bash', 'zsh']),
        (['table', ''], []),  # folders, which the shell completes
        (['run', 'nothing.py', '--config.'], []),
    ],
)
def test_what_is_offered(root, cache, words, candidates):
    assert complete.complete(words, root) == candidates


def test_verbs_and_configs_of_another_folder(root, tmp_path):
    assert complete.complete([''], root)[:3] == ['run', 'eval', 'predict']
    (tmp_path / 'mine.py').write_text("ARGUMENTS = ('smoke', 'large')\n\ndef get_config(arg=''): ...\n")
    (tmp_path / 'other.py').write_text('')
    assert complete.complete(['run', 'mi'], tmp_path) == ['mine.py']
    assert complete.complete(['run', 'mine.py:'], tmp_path) == ['mine.py:large', 'mine.py:smoke']


def test_keys_are_kept_and_listed_again_when_a_file_changes(root, cache, monkeypatch):
    """First the keys that the config states, then, from the cache, those of signatures, too."""
    offered = complete.complete(['run', LENET, '--config.tx.'], root)
    assert '--config.tx.learning_rate.then.init=' in offered
    assert '--config.tx.b1=' not in offered
    complete.write_keys(str(root / LENET))
    offered = complete.complete(['run', LENET, '--config.tx.'], root)
    assert '--config.tx.b1=' in offered
    started = []
    monkeypatch.setattr(complete, '_start_listing', started.append)
    assert complete.complete(['run', LENET, '--config.tx.'], root) == offered
    assert not started
    (file,) = cache.iterdir()
    file.write_text('before\ntx.old')
    assert complete.complete(['run', LENET, '--config.tx.'], root) == ['--config.tx.old=']  # at once, as it was
    assert started == [root / LENET]


@pytest.fixture(scope='module')
def listed(root, tmp_path_factory):
    """A cache with the keys and values of LENET."""
    folder = tmp_path_factory.mktemp('cache')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', str(folder))
        complete.write_keys(str(root / LENET))
    return folder


@pytest.mark.parametrize(
    ('current', 'values'),
    [
        ('tx.name=nad', ['tx.name=nadam']),
        ('tx.learning_rate.name=cos', ['tx.learning_rate.name=cosine']),
        ('model.name=lenet.lenet5', ['model.name=lenet.lenet5', 'model.name=lenet.lenet5_1998']),
        ('data.name=digit_l', ['data.name=digit_lines']),
        ('experiment=view', ['experiment=view_synthesis']),
        ('model.dtype=b', ['model.dtype=bfloat16']),
        ('data.evals.test.flip=', ['data.evals.test.flip=true', 'data.evals.test.flip=false']),
        ('data.train.transforms.chain=resize,random_fl', ['data.train.transforms.chain=resize,random_flip']),
        ('run.log=wandb,', ['run.log=wandb,mlflow', 'run.log=wandb,tensorboard']),  # each tracker once
        ('run.steps=', []),
        ('nothing=', []),
    ],
)
def test_values_of_keys(root, listed, monkeypatch, current, values):
    monkeypatch.setenv('XDG_CACHE_HOME', str(listed))
    monkeypatch.setattr(complete, '_start_listing', lambda path: None)
    candidates = complete.complete(['run', LENET, f'--config.{current}'], root)
    assert candidates == [f'--config.{value}' for value in values]


def test_values_of_a_literal_and_of_forms(root):
    config = overrides.load(str(root / 'configs/claims/region_systems.py'))
    sections = overrides.find_sections(config)
    assert configuration.list_choices(config, 'form', sections) == ['Fast R-CNN', 'Faster R-CNN', 'R-CNN', 'SPP-net']
    assert configuration.list_choices(config, 'data.objects.overflow', sections) == ['error', 'truncate']
    assert configuration.list_choices(config, 'proposals.name', sections) == ['selective_search', 'sliding_windows']
    assert configuration.list_choices(config, 'run.steps', sections) == []


def test_runs_for_workdir(tmp_path):
    run = tmp_path / 'runs/task/small/default'
    for folder in (run, run / '0-first', run / 'checkpoints', tmp_path / 'runs/task/.hidden'):
        folder.mkdir(parents=True)
    for folder in (run, run / '0-first'):
        (folder / 'config.json').write_text('{}')
    steps = {
        '': 'runs/',
        'runs/task/s': 'runs/task/small/',
        'runs/task/small/': 'runs/task/small/default',  # a run, which may be the whole
        'runs/task/small/default/': 'runs/task/small/default/0-first',  # its stages, and not its checkpoints
        f'{tmp_path}/runs/t': f'{tmp_path}/runs/task/',
    }
    for current, candidate in steps.items():
        assert f'--workdir={candidate}' in complete.complete(['eval', f'--workdir={current}'], tmp_path)
        assert candidate in complete.complete(['eval', '--workdir', current], tmp_path)
    assert complete.complete(['eval', '--workdir=runs/task/small/default/'], tmp_path) == [
        '--workdir=runs/task/small/default/0-first'
    ]
    assert complete.complete(['eval', '--workdir=runs/task/.'], tmp_path) == []


def test_nothing_but_the_standard_library_is_imported(root):
    code = 'import sys; sys.path.insert(0, "launch"); import complete; complete.complete(["run", "c"], complete.ROOT)'
    code += '; print([m for m in sys.modules if m.partition(".")[0] in ("jax", "numpy", "ml_collections", "canon")])'
    done = subprocess.run([sys.executable, '-S', '-c', code], cwd=root, capture_output=True, text=True)
    assert done.stdout == '[]\n', done.stderr


def print_completion(root, shell):
    keys = {'CANON_VENV': sys.prefix, 'CANON_PREPARE': 'no'}
    command = [str(root / 'launch.sh'), 'completion', shell]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **keys})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ('line', 'replies'),
    [
        ('./launch.sh sw', ['sweep']),
        (f'./launch.sh run {LENET}:', ['smoke']),  # readline replaces what follows the colon
        (f'./launch.sh sweep {LENET} --jo', ['--jobs=']),
        ('./launch.sh run configs/cla', ['configs/claims/', 'configs/classification/']),
        (f'./launch.sh run {LENET} --config.tx.name=nad', ['nadam']),  # and what follows the equals sign
        (f'./launch.sh run {LENET} --config.run.log=wandb,m', ['wandb,mlflow']),
    ],
)
def test_the_function_of_bash(root, listed, line, replies):
    code = (
        f'{print_completion(root, "bash")}\n'
        f'COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}\n'
        "COMP_WORDBREAKS=$' \\t\\n\"\\'><=;|&(:'\n"
        '_canon_launch\nprintf "%s\\n" "${COMPREPLY[@]}"\ncomplete -p launch.sh\n'
    )
    env = {**os.environ, 'XDG_CACHE_HOME': str(listed)}
    done = subprocess.run(['bash', '--norc', '-c', code], capture_output=True, text=True, cwd=root, env=env)
    *offered, registered = done.stdout.splitlines()
    assert offered == replies, done.stderr
    assert registered == 'complete -o default -F _canon_launch launch.sh'


@pytest.mark.skipif(not shutil.which('zsh'), reason='there is no zsh')
def test_zsh_at_a_terminal(root, listed, tmp_path):
    """The line is typed into an interactive zsh; after a Tab it is complete."""
    (tmp_path / 'completion.zsh').write_text(print_completion(root, 'zsh'))
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 200))  # a line that is wider than the terminal would be shown in parts
    keys = {'ZDOTDIR': str(tmp_path), 'HOME': str(tmp_path), 'TERM': 'dumb', 'PS1': '$ ', 'XDG_CACHE_HOME': str(listed)}
    process = subprocess.Popen(
        ['zsh', '-f', '-i'], stdin=follower, stdout=follower, stderr=follower, cwd=root, env={**os.environ, **keys},
        start_new_session=True,
    )  # fmt: skip
    try:
        os.write(leader, b'autoload -Uz compinit && compinit -u; . $ZDOTDIR/completion.zsh; echo re""ady\n')
        read_until(leader, 'ready\r\n')
        os.write(leader, b'launch.sh run configs/classification/lenet_di\t')
        assert 'lenet_digits.py' in read_until(leader, 'lenet_digits.py')
        os.write(leader, b':sm\t')
        read_until(leader, ':smoke')
        os.write(leader, b' --fo\t')
        read_until(leader, '--force')
        os.write(leader, f'\x15launch.sh run {LENET} --config.tx.name=nad\t'.encode())  # another line
        read_until(leader, '--config.tx.name=nadam')
    finally:
        process.kill()
        process.wait()
        os.close(leader)
        os.close(follower)


def read_until(file, text, seconds=60.0):
    """Reads a terminal until `text` has been written; typed characters are echoed one by one."""
    read, end = '', time.monotonic() + seconds
    while text not in read:
        assert time.monotonic() < end, read
        if select.select([file], [], [], 0.1)[0]:
            read += os.read(file, 4096).decode(errors='replace')
    return read


def test_the_files_of_both_shells_name_no_place_of_this_checkout(root):
    for shell in ('bash', 'zsh'):
        assert str(Path(root)) not in (root / f'launch/completion.{shell}').read_text()
