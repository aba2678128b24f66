"""The command line as a person meets it: whole runs in processes of their own, and every wrong use of it."""

import contextlib
import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from logging import StreamHandler, getLogger
from pathlib import Path

import jax.export
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from canon.data.images.digits import held_out
from canon.errors import UsageError, run_command
from canon.train import workdir
from canon.train.init_from import read_model
from canon.train.log import read_rows
from canon.train.runs import format_result
from experiments import main, processes
from tests.quick import XLA_FLAGS

SMOKE = 'configs/classification/lenet_digits.py:smoke'


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp('tfds')


@pytest.fixture(scope='session')
def command(root, data_dir):
    """Runs main with these words and returns the finished process; the data sets live in a folder of the tests."""

    def run(*words, config=SMOKE, code=None, **options):
        start = ['-c', code] if code else ['-m', 'experiments.main']
        given = [f'--config={config}', f'--config.data.data_dir={data_dir}'] if config else []
        return subprocess.run(
            [sys.executable, *start, *given, *words], capture_output=True, text=True, cwd=root, timeout=300, **options
        )

    return run


# For processes that are started to be stopped, or to be compared with each other: most of their time is compilation.
QUICK = os.environ | {'XLA_FLAGS': XLA_FLAGS}


def reset_flags():
    """Forgets the flags of an earlier call in this process."""
    for name in main.FLAGS:
        main.FLAGS[name].unparse()


@pytest.fixture(scope='session')
def call(root, data_dir):
    """Does what `command` does in this process, which has imported JAX already."""

    def run(*words, config=SMOKE):
        flags_of_config = [f'--config={config}', f'--config.data.data_dir={data_dir}'] if config else []
        reset_flags()
        out, err = io.StringIO(), io.StringIO()
        handler, log = StreamHandler(err), getLogger('canon')
        log.addHandler(handler)
        level = log.level
        log.setLevel('INFO')
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(contextlib.chdir(root))
                stack.enter_context(pytest.MonkeyPatch.context()).setattr(processes, 'silence_libraries', lambda: None)
                stack.enter_context(contextlib.redirect_stdout(out))
                stack.enter_context(contextlib.redirect_stderr(err))
                words = ['main', *flags_of_config, *words, '--compilation_cache=']
                status = run_command(lambda: main._run(main._parse(words)))
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope='session')
def finished(command, tmp_path_factory):
    """The main job's smoke run, and whether TensorFlow was ever imported in it."""
    folder = tmp_path_factory.mktemp('runs') / 'run'
    code = (
        'import sys\nfrom experiments import main\n'
        'try:\n    main.main()\nfinally:\n    print("TENSORFLOW", "tensorflow" in sys.modules)'
    )
    done = command(f'--workdir={folder}', code=code)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_main_job_reaches_its_target(finished):
    folder, out = finished
    status = json.loads((folder / 'status.json').read_text())
    assert status['state'] == 'done'
    assert status['metrics']['test/accuracy'] >= 0.98
    last = out.splitlines()[-2]
    assert f'test/accuracy {status["metrics"]["test/accuracy"]:.4f} (target: at least 0.98)' in last
    assert last.endswith(f'Report: {folder / "report.html"}')


def test_output_in_a_pipe_is_plain_lines(finished):
    _, out = finished
    assert 'compiling the step for 1 x cpu ...' in out
    assert '\r' not in out
    assert 'steps/s' in out


def test_tensorflow_is_never_imported(finished):
    assert finished[1].splitlines()[-1] == 'TENSORFLOW False'


def test_a_run_leaves_its_files(finished):
    folder, _ = finished
    names = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file() and 'checkpoints' not in p.parts}
    expected = ('config.json', 'run.json', 'status.json', 'metrics.jsonl', 'report.html', 'figures/curves.png')
    assert set(expected) < names
    assert {'figures/test-confusion matrix.png', 'figures/test-right.png', 'figures/test-wrong.png'} < names
    assert any(name.startswith('events.out.tfevents') for name in names)
    about = json.loads((folder / 'run.json').read_text())
    assert about['config'] == SMOKE
    assert f'--workdir={folder}' in about['command']
    page = (folder / 'report.html').read_text()
    assert about['command'].split()[-1] in page
    assert page.count('data:image/png;base64,') >= 4
    row = next(r for r in read_rows(folder / 'metrics.jsonl') if 'train/loss' in r)
    assert row['train/step_seconds'] > 0
    assert row['train/data_seconds'] > 0


def test_a_finished_run_is_not_trained_again(call, finished):
    """The same command again trains nothing, and says how it stands."""
    folder, _ = finished
    before = read_model(folder)
    done = call(f'--workdir={folder}')
    assert done.returncode == 0, done.stderr
    assert 'was already done at step' in done.stdout
    assert 'compiling' not in done.stdout
    assert all(np.array_equal(before[k], v) for k, v in read_model(folder).items())


def test_evaluate_finds_what_the_run_measured(call, finished):
    folder, _ = finished
    done = call('--mode=evaluate', f'--workdir={folder}', config=None)
    assert done.returncode == 0, done.stderr
    best, values = best_step(folder)
    file = next(folder.glob('evaluation-*.json'))
    evaluation = json.loads(file.read_text())
    assert (evaluation['step'], evaluation['weights']) == (best, 'best')
    assert evaluation['test/accuracy'] == pytest.approx(values[best]['test/accuracy'], abs=1e-9)
    status = json.loads((folder / 'status.json').read_text())
    assert status['weights'] == f'best weights, of step {best}'
    assert {k: v for k, v in evaluation.items() if '/' in k} == pytest.approx(status['metrics'], abs=1e-6)


def test_evaluate_prints_what_it_cannot_write(call, finished, monkeypatch):
    """A run on a read-only file system, or on a full one."""

    def refuse(path, value):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    folder, _ = finished
    monkeypatch.setattr(workdir, 'write_json', refuse)
    done = call('--mode=evaluate', f'--workdir={folder}', config=None)
    assert done.returncode == 0, done.stderr
    assert 'test/accuracy 0.' in done.stdout
    assert re.search(r'not written to .*evaluation-\d+\.json: Read-only file system', done.stderr)


def best_step(folder):
    """The step that the validation images choose, the latest of several, and {step: all metrics}."""
    values = {}
    for row in read_rows(folder / 'metrics.jsonl'):
        values.setdefault(row['step'], {}).update(row)
    chosen = {step: row['validation/accuracy'] for step, row in values.items() if 'validation/accuracy' in row}
    return max(chosen, key=lambda step: (chosen[step], step)), values


def test_predict_reads_a_folder(call, finished, tmp_path):
    """The data that the run learnt from are not needed."""
    folder, _ = finished
    digits = load_digits()
    for i in range(12):
        Image.fromarray((digits.images[i] * 255 / 16).round().astype(np.uint8)).save(tmp_path / f'{i:02}.png')
    words = [f'--workdir={folder}', f'--input={tmp_path}', f'--output={tmp_path / "out"}']
    done = call('--mode=predict', *words, '--config.data.data_dir=/nonexistent', config=None)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / 'out' / 'predictions.csv').open()))
    assert sum(int(r['class1']) == digits.target[i] for i, r in enumerate(rows)) >= 11
    assert (tmp_path / 'out' / 'predictions.png').stat().st_size > 1000


def test_export_writes_the_best_model(call, finished):
    folder, _ = finished
    done = call('--mode=export', f'--workdir={folder}', '--config.data.data_dir=/nonexistent', config=None)
    assert done.returncode == 0, done.stderr
    about = json.loads((folder / 'export' / 'model.json').read_text())
    assert (about['input'], about['class_names']) == ('uint8 [b, 32, 32, 1]', [str(i) for i in range(10)])
    exported = jax.export.deserialize(bytearray((folder / 'export' / 'model.stablehlo').read_bytes()))
    digits = load_digits()
    test = held_out(digits.target)
    images = [Image.fromarray((digits.images[i] * 255 / 16).round().astype(np.uint8)).resize((32, 32), 2) for i in test]
    right = exported.call(np.stack(images)[..., None]).argmax(-1) == digits.target[test]
    best, values = best_step(folder)
    assert right.mean() == pytest.approx(values[best]['test/accuracy'], abs=1e-6)


def test_a_model_that_is_not_trained_can_be_exported(call, tmp_path):
    words = [f'--workdir={tmp_path / "none"}', f'--output={tmp_path / "out"}', '--config.data.name=mnist']
    done = call('--mode=export', *words, '--config.model.num_classes=7')
    assert done.returncode == 0, done.stderr
    assert 'holds no run: the model is untrained' in done.stderr
    assert json.loads((tmp_path / 'out' / 'model.json').read_text())['output'] == 'float32 [b, 7]'


def test_a_run_that_fails_has_its_report(call, tmp_path):
    words = ['--config.run.steps=20', '--config.run.log_every=5', '--config.tx.name=sgd']
    done = call(f'--workdir={tmp_path}', *words, '--config.tx.learning_rate.then.init=1e38')
    assert done.returncode == 1
    assert 'is not finite' in done.stderr
    assert done.stdout.splitlines()[-1] == f'failed. Report: {tmp_path / "report.html"}'
    page = (tmp_path / 'report.html').read_text()
    assert 'is not finite' in page
    assert 'class="state failed"' in page


def test_replay_prints_the_step_that_happened(call, finished):
    folder, _ = finished
    row = next(r for r in read_rows(folder / 'metrics.jsonl') if 'train/loss' in r)
    done = call('--mode=replay', f'--workdir={folder}', f'--step={row["step"]}', config=None)
    assert done.returncode == 0, done.stderr
    assert 'C5/kernel' in done.stdout
    assert (folder / 'replay' / f'step_{row["step"]}.npz').exists()


@pytest.mark.slow  # tests/train/test_resume.py stops a process fast
def test_sigterm_saves_and_exits_0(root, data_dir, tmp_path):
    words = [f'--config={SMOKE}', f'--config.data.data_dir={data_dir}', f'--workdir={tmp_path}']
    words += ['--config.run.log_every=1', '--config.run.steps=5000']
    process = subprocess.Popen(
        [sys.executable, '-m', 'experiments.main', *words], stdout=subprocess.PIPE, text=True, cwd=root, env=QUICK
    )
    for _ in range(1200):
        if (tmp_path / 'metrics.jsonl').exists() and '"step": 3,' in (tmp_path / 'metrics.jsonl').read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert 'saved; the same command resumes' in out.splitlines()[-1]
    step = json.loads((tmp_path / 'status.json').read_text())['step']
    assert (tmp_path / 'checkpoints' / str(step)).is_dir()


WRONG = {
    'no such config': (['--config=configs/classification/lenet_digts.py'], 2, 'did you mean .*lenet_digits.py'),
    'no such key': ([SMOKE, '--config.data.batchsize=3'], 2, "no key 'data.batchsize'; did you mean 'data.batch_size'"),
    'wrong type': ([SMOKE, '--config.seed=x'], 2, '--config.seed=x: must be a whole number'),
    'no such model': (
        [SMOKE, '--config.model.name=lenet.lenet6'],
        2,
        "no model is called .*did you mean 'lenet.lenet5'",
    ),
    'no such experiment': ([SMOKE, '--config.experiment=clasification'], 2, "did you mean 'classification'"),
    'no such optimizer': ([SMOKE, '--config.tx.name=adm'], 2, "no optimizer is called 'adm'; did you mean 'adam'"),
    'no such data': ([SMOKE, '--config.data.name=mnist'], 2, r'`\./launch\.sh prepare mnist'),
    'no such flag': ([SMOKE, '--workdri=x'], 2, "Unknown command line flag 'workdri'"),
    'no config': ([], 2, 'which config'),
    'no run': (['--workdir=/nonexistent'], 2, 'holds no run'),
    'a stray word': ([SMOKE, 'lr=3'], 2, "'lr=3' is not a flag"),
    'unwritable': ([SMOKE, '--workdir=/proc/nothing/run'], 2, 'workdir /proc/nothing/run cannot be written'),
    'too few classes': ([SMOKE, '--config.model.num_classes=5'], 2, 'the data have 10 classes'),
    'image too small': (
        [SMOKE, '--config.data.train.transforms.resize.size=16'],
        2,
        'images of at least 32x32, not 16x16',
    ),
    'no coordinator': ([SMOKE, '--process_count=2'], 2, r'--process_index need --coordinator=ADDRESS:PORT'),
    'wrong length': ([SMOKE, '--config.run.steps=3 epoks'], 2, r"run\.steps='3 epoks' is not a length"),
}


@pytest.mark.parametrize('case', WRONG)
def test_wrong_use_is_one_line_and_a_status(call, tmp_path, case):
    words, status, message = WRONG[case]
    words, config = (words[1:], SMOKE) if words[:1] == [SMOKE] else (words, None)
    done = call(*words, f'--runs={tmp_path}', config=config)
    assert done.returncode == status, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith('error: ')
    assert re.search(message, lines[0]), lines[0]


def test_wrong_use_ends_the_process_with_its_status(command):
    done = command('--config.seed=x')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1)
    assert done.stderr.startswith('error: --config.seed=x: must be a whole number')


def test_another_config_in_the_workdir_needs_force(call, finished):
    folder, _ = finished
    refused = call(f'--workdir={folder}', '--config.seed=1')
    assert refused.returncode == 2
    assert 'seed was 0, is 1' in refused.stderr


@pytest.mark.parametrize(
    ('value', 'shown'),
    [(0.98333, '0.9833'), (2.3e-14, '2.3e-14'), (0.0, '0.0000'), (1.23e-4, '0.000123'), (25.5, '25.5000')],
)
def test_a_result_shows_digits(value, shown):
    target = dict(metric='test/error', at_most=0.01)
    assert format_result({'test/error': value}, target) == f'test/error {shown} (target: at most 0.01)'


def test_flags_may_come_in_any_order_and_tildes_are_expanded(root):
    reset_flags()
    words = ['main', '--config.seed', '2', '--force', f'{root}/{SMOKE}']
    command = main._parse([*words, '--runs=~/all'])
    assert command.source == f'{root}/{SMOKE}'
    assert command.overrides == {'seed': 2}
    assert command.workdir.parent == Path.home() / 'all' / 'classification' / 'lenet_digits-smoke'
    assert main._parse([*words, '--workdir', '~/one']).workdir == Path.home() / 'one'


def test_paths_are_printed_relative_to_the_directory_of_the_caller(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('CANON_CALLER', str(tmp_path))
    main._print(f'Report: {tmp_path}/runs/report.html, /elsewhere/x')
    assert capsys.readouterr().out == 'Report: runs/report.html, /elsewhere/x\n'


def test_an_output_is_a_folder(tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'v1.0').mkdir()
    for name in ('out.csv', 'file'):
        with pytest.raises(UsageError, match=f'--output=.*{name} must be a folder'):
            main._output_folder(str(tmp_path / name))
    assert main._output_folder(str(tmp_path / 'v1.0')) == tmp_path / 'v1.0'
    assert main._output_folder('~/new') == Path.home() / 'new'


def test_warnings_that_a_user_can_do_nothing_about_are_silent():
    fork = 'os.fork() was called. os.fork() is incompatible with multithreaded code, and JAX is multithreaded'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        processes.ignore_warnings()
        warnings.warn_explicit(fork, RuntimeWarning, 'popen_fork.py', 1, module='multiprocessing.popen_fork')
        warnings.warn_explicit('a sharding was not given', UserWarning, 'x.py', 1, module='orbax.checkpoint.x')
        warnings.warn_explicit('yours', UserWarning, 'x.py', 1, module='mine')
    assert [str(w.message) for w in caught] == ['yours']


def test_help_and_import_do_not_load_jax(root):
    """No figure here (see benchmarks/startup.py), only that JAX stays out of it."""
    code = (
        'import runpy, sys, canon\nassert "jax" not in sys.modules\n'
        'sys.argv = ["experiments/main.py", "--help"]\n'
        'try:\n    runpy.run_module("experiments.main", run_name="__main__")\nexcept SystemExit:\n    pass\n'
        'assert not {"jax", "grain", "tensorflow_datasets"} & set(sys.modules), "heavy imports"'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert '--workdir' in done.stdout


@pytest.mark.slow  # three processes
def test_two_processes_on_loopback_learn_what_one_does(root, data_dir, command, tmp_path, free_port):
    """Losses, parameters and metrics of a job of two processes equal those of one to 2e-5."""
    words = ['--config.run.steps=12', '--config.run.log_every=4', '--config.model.dropout=0.3']
    alone = command(*words, f'--workdir={tmp_path / "one"}', env=QUICK)
    assert alone.returncode == 0, alone.stderr

    def rank(index):
        job = [f'--coordinator=127.0.0.1:{free_port}', '--process_count=2', f'--process_index={index}']
        env = QUICK | {'JAX_COORDINATOR_BIND_ADDRESS': f'127.0.0.1:{free_port}'}
        return command(*words, *job, f'--workdir={tmp_path / "two"}', env=env)

    with ThreadPoolExecutor(2) as pool:
        ranks = list(pool.map(rank, range(2)))
    assert [r.returncode for r in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    alone, together = read_model(tmp_path / 'one'), read_model(tmp_path / 'two')
    assert alone.keys() == together.keys()
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=2e-5, atol=2e-5, err_msg=name)
    rows = [read_rows(tmp_path / x / 'metrics.jsonl') for x in ('one', 'two')]
    for a, b in zip(*rows, strict=True):
        for key in ('train/loss', 'train/accuracy', 'test/accuracy', 'test/loss'):
            assert (key in a) == (key in b)
            if key in a:
                assert b[key] == pytest.approx(a[key], rel=2e-5)


def test_when_a_process_dies_the_other_ends_within_its_bound(root, data_dir, tmp_path, free_port):
    """kill -9 of one of two: the other ends, with an error, within 90 s (the heartbeat's 30 s and the exit's 30 s)."""
    env = QUICK | {'JAX_COORDINATOR_BIND_ADDRESS': f'127.0.0.1:{free_port}'}

    def start(index):
        words = [f'--config={SMOKE}', f'--config.data.data_dir={data_dir}', f'--workdir={tmp_path}']
        words += ['--config.run.steps=100000', '--config.run.log_every=1', f'--coordinator=127.0.0.1:{free_port}']
        words += ['--process_count=2', f'--process_index={index}']
        return subprocess.Popen(
            [sys.executable, '-m', 'experiments.main', *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=root, env=env,
        )  # fmt: skip

    ranks = [start(0), start(1)]
    for _ in range(1200):
        if (tmp_path / 'metrics.jsonl').exists() and '"step": 3,' in (tmp_path / 'metrics.jsonl').read_text():
            break
        time.sleep(0.1)
    ranks[1].kill()
    try:
        assert ranks[0].wait(timeout=90) != 0
    finally:
        ranks[0].kill()


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]
