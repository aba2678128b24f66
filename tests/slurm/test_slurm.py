"""A real Slurm on this host: jobs of two tasks, arrays, and jobs that go back into the queue and resume."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.needs import skip_unless_needed
from tests.quick import XLA_FLAGS

pytestmark = pytest.mark.slurm
_PATIENCE = 400  # seconds; a limit for what hangs, not for what is slow
CONFIG = 'configs/classification/lenet_digits.py:smoke'


def explain_missing() -> str:
    """Returns why Slurm cannot run here, or ''."""
    commands = ['slurmctld', 'slurmd', 'sbatch', 'srun', 'munged']
    absent = [name for name in commands if not shutil.which(name)]
    if absent:
        return f'no {", ".join(absent)}: apt-get install slurmctld slurmd slurm-client munge'
    return '' if os.geteuid() == 0 else 'slurmctld and slurmd need root'


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    """Starts a cluster of four CPUs on the loopback; returns its SLURM_CONF."""
    skip_unless_needed('CANON_SLURM', explain_missing())
    folder = Path(tempfile.mkdtemp(prefix='slurm-'))  # the paths of its sockets must be short
    script = str(Path(__file__).with_name('one_host.sh'))
    try:
        ports = [str(port) for port in free_ports(2)]
        up = subprocess.run([script, 'up', folder, '4', *ports], capture_output=True, text=True, timeout=60)
        if up.returncode:
            logs = ''.join(path.read_text()[-1000:] for path in folder.glob('*.log'))
            pytest.fail(f'Slurm does not start: {up.stdout}{up.stderr}{logs}')
        yield str(folder / 'slurm.conf')
    finally:
        subprocess.run([script, 'down', folder], timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def launch(root, slurm, tmp_path):
    """Calls `./launch.sh` on that cluster, with all runs in a folder of the test."""
    environment = {**os.environ, 'SLURM_CONF': slurm, 'CANON_VENV': sys.prefix, 'CANON_PREPARE': 'no'}
    environment['XLA_FLAGS'] = XLA_FLAGS  # jobs inherit it: each of their processes compiles

    def call(*words: str, shell: str = str(root / 'launch.sh')) -> str:
        done = subprocess.run(
            [shell, *words], cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        logs = ''.join(path.read_text() for path in tmp_path.glob('slurm/*/*.err')) if done.returncode else ''
        assert done.returncode == 0, done.stdout + done.stderr + logs
        return done.stdout

    return call


def test_two_tasks_are_one_run_and_a_stopped_job_resumes(launch, tmp_path):
    flags = ('--config.run.steps=300', '--config.run.log_every=1')  # a row is a mean over the steps since the last
    output = launch('slurm', CONFIG, '--tasks=2', '--minutes=20', f'--runs={tmp_path}', *flags)
    job = output.split()[1].rstrip(':')
    (metrics,) = wait_for(lambda: list(tmp_path.glob('classification/*/*/metrics.jsonl')))
    launch('--signal=TERM', job, shell='scancel')
    log = tmp_path / 'slurm' / job / f'{job}_0_log.out'
    wait_for(lambda: 'stopped by a signal; back into the queue' in log.read_text())
    wait_until_done(launch, job)

    assert 'Restarts=1 ' in launch('show', 'job', job, shell='scontrol')
    (run,) = tmp_path.glob('classification/*/*/run.json')
    assert json.loads(run.read_text())['processes'] == 2
    status = json.loads(run.with_name('status.json').read_text())
    assert (status['state'], status['step']) == ('done', 300)
    launch('run', CONFIG, f'--runs={tmp_path / "one"}', *flags)
    (straight,) = (tmp_path / 'one').glob('classification/*/*/metrics.jsonl')
    resumed, straight = read_losses(metrics), read_losses(straight)
    assert [step for step in straight if step not in resumed] == []
    assert max(abs(resumed[step] - straight[step]) for step in straight) < 2e-5


def test_a_sweep_is_an_array_and_what_slurm_requeues_resumes(launch, tmp_path):
    output = launch(
        *('sweep', CONFIG, '--engine=slurm', '--jobs=2', '--minutes=20', f'--runs={tmp_path}'),
        *('--config.run.steps=300', '--config.run.log_every=20'),
    )
    job = output.split()[1].rstrip(':')
    wait_for(lambda: list(tmp_path.glob('classification/*/*/metrics.jsonl')))
    log = tmp_path / 'slurm' / f'{job}_0' / f'{job}_0_0_log.out'
    wait_for(lambda: 'step ' in (log.read_text() if log.exists() else ''))
    launch('requeue', f'{job}_0', shell='scontrol')
    wait_until_done(launch, job)

    statuses = [json.loads(path.read_text()) for path in tmp_path.glob('classification/*/*/status.json')]
    assert [(status['state'], status['step']) for status in statuses] == [('done', 300)] * 4
    assert 'Restarts=1 ' in launch('show', 'job', f'{job}_0', shell='scontrol')
    printed = log.read_text() + log.with_suffix('.err').read_text()
    assert 'resumed at step' in printed
    table = launch('table', str(tmp_path / 'classification'))
    assert table.count(' done ') == 4
    assert (tmp_path / 'classification' / 'table.png').exists()


def test_a_job_that_is_cancelled_saves_and_stays_cancelled(launch, tmp_path):
    output = launch('slurm', CONFIG, '--minutes=20', '--', f'--runs={tmp_path}', '--config.run.steps=3000')
    job = output.split()[1].rstrip(':')
    wait_for(lambda: list(tmp_path.glob('classification/*/*/metrics.jsonl')))
    launch(job, shell='scancel')
    wait_until_done(launch, job)
    assert 'JobState=CANCELLED' in launch('show', 'job', job, shell='scontrol')
    (status,) = tmp_path.glob('classification/*/*/status.json')
    assert json.loads(status.read_text())['state'] == 'stopped'


def test_a_run_that_fails_fails_its_job(launch, tmp_path):
    output = launch('slurm', CONFIG, '--', f'--runs={tmp_path}', '--config.model.name=lenet.lenet6')
    job = output.split()[1].rstrip(':')
    wait_until_done(launch, job)
    assert 'JobState=FAILED' in launch('show', 'job', job, shell='scontrol')


def test_one_task_that_dies_ends_the_others_and_the_job_goes_on(launch, tmp_path):
    flags = (f'--runs={tmp_path}', '--config.run.steps=100000000')  # it would outlast the test
    job = launch('slurm', CONFIG, '--tasks=2', '--', *flags).split()[1].rstrip(':')
    wait_for(lambda: list(tmp_path.glob('classification/*/*/metrics.jsonl')))
    os.kill(find_task(job, 1), signal.SIGKILL)  # its run lives on, so the other task notices nothing by itself
    wait_for(lambda: 'Restarts=1 ' in launch('show', 'job', job, shell='scontrol'))
    launch(job, shell='scancel')
    wait_until_done(launch, job)


def find_task(job: str, index: int) -> int:
    """Returns the process id of a task: the oldest of its processes."""
    wanted = {f'SLURM_JOB_ID={job}'.encode(), f'SLURM_PROCID={index}'.encode()}
    for folder in sorted(Path('/proc').glob('[0-9]*'), key=lambda folder: int(folder.name)):
        try:
            if wanted <= set((folder / 'environ').read_bytes().split(b'\0')):
                return int(folder.name)
        except OSError:  # it has ended
            pass
    raise LookupError(f'no process of task {index} of job {job}')


def read_losses(metrics: Path) -> dict[int, float]:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {row['step']: row['train/loss'] for row in rows if 'train/loss' in row}


def wait_until_done(launch, job: str) -> None:
    """Waits until the queue is empty; a job that was put back waits some seconds there."""
    wait_for(lambda: not launch('-h', '-o', '%i', shell='squeue').strip())


def wait_for(condition):
    end = time.monotonic() + _PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end, f'not true within {_PATIENCE} s'
        time.sleep(0.5)
    return value


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for s in sockets:
        s.bind(('127.0.0.1', 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
