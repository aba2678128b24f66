"""Submits a run, or each run of a sweep, as a Slurm job that puts itself back into the queue.

    ./launch.sh slurm configs/classification/lenet_digits.py --tasks=2 --minutes=60 -- --config.seed=1

Each task of a job is one process of the run; the processes find each other (`jax.distributed`) without flags. When
Slurm ends a job (time limit, preemption, `scancel --signal=TERM`), the run saves and the job is queued again; it then
resumes from its folder. Checkout, environment and --runs have to be on a file system that all nodes share. Jobs are
submitted with submitit.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canon.configuration import config_folder, split_source
from canon.errors import CanonError, UsageError
from canon.train.runs import Run, describe_result, find_runs
from experiments import configs
from launch import tools
from launch.flags import find_run, read_option, runs_folder

CRASHES = 3  # how often a job whose process is killed is queued again before the run counts as failed


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('slurm', __doc__)
    parser.add_argument('config', metavar='CONFIG')
    add_options(parser)
    options, flags = tools.parse(parser, argv)
    configs.load(options.config)
    return submit(options, [flags])


def add_options(parser: tools.Parser) -> None:
    add = parser.add_argument_group('Slurm').add_argument
    add('--nodes', type=int, default=1, help='nodes of a job')
    add('--tasks', type=int, help='processes on each node (1, or one for each GPU)')
    add('--gpus', type=int, help='GPUs on each node')
    add('--cpus', type=int, help='CPUs of each task (default: of Slurm, 1)')
    add('--memory', type=float, help='GB on each node')
    add('--minutes', type=int, default=24 * 60, help='time limit; 90 s before it the job saves and is queued again')
    add('--partition', help="where to run (default: the cluster's)")
    add('--sbatch', action='append', default=[], metavar='KEY=VALUE', help='another option of sbatch')
    add('--wait', action='store_true', help='wait until all jobs are over; exit status 1 if a run is not done')


def submit(options: Any, points: Sequence[list[str]], parallel: int = 0) -> int:
    """Submits a run for each list of flags, several as one array.

    Args:
      options: parsed, those of `add_options` with `config`.
      points: the flags of each run.
      parallel: how many runs of the array may run at a time; 0 for all.

    Returns:
      the exit status: 1 if --wait was given and a run is not done.
    """
    tasks = options.tasks if options.tasks is not None else options.gpus or 1
    if min(options.nodes, tasks, options.minutes) < 1:
        raise UsageError('--nodes, --tasks and --minutes are at least 1')
    extra = dict(_parse_option(word) for word in options.sbatch)
    submitit = _submitit()
    folder = runs_folder(points[0]).absolute() / 'slurm'
    executor = submitit.AutoExecutor(folder / '%j', cluster='slurm')
    executor.update_parameters(
        name=f'canon-{split_source(options.config)[0].stem}',
        nodes=options.nodes,
        tasks_per_node=tasks,
        timeout_min=options.minutes,
        # A short job would be warned before it has made any progress.
        slurm_signal_delay_s=min(90, 20 * options.minutes),
        slurm_array_parallelism=parallel or len(points),
        slurm_srun_args=['--kill-on-bad-exit=1'],  # when one process of a job fails, the others end too
        slurm_additional_parameters={'requeue': True, **extra},
        **_without_none(
            cpus_per_task=options.cpus,
            gpus_per_node=options.gpus,
            mem_gb=options.memory,
            slurm_partition=options.partition,
        ),
    )
    try:
        jobs = executor.map_array(Job(options.config), points)
    except submitit.core.utils.FailedJobError as error:
        raise CanonError(f'Slurm refused the job: {str(error).strip().splitlines()[0]}') from error
    number = jobs[0].job_id.partition('_')[0]
    runs = f'{len(jobs)} runs' if len(jobs) > 1 else 'a run'
    size = f'{options.nodes * tasks} task{"s" if options.nodes * tasks > 1 else ""}'
    print(f'submitted {number}: {runs} of {size}. Log: {folder}/{number}*/', flush=True)
    home = config_folder(options.config, folder.parent)
    print(f'squeue -j {number}; scancel {number}; ./launch.sh table {home}')
    return _wait(options.config, number, points, folder.parent) if options.wait else 0


class Job:
    """One task of a Slurm job: runs main in a process of its own, and queues the job again if it has to stop early.

    Submitit would requeue the job by itself, but kills this process before the run has saved: its signal handlers are
    replaced.
    """

    def __init__(self, config: str):
        self.config = config
        self.signalled = False  # by SIGTERM or SIGUSR2
        self.warned = False  # by SIGUSR2, Slurm's warning before the time limit

    def __call__(self, flags: list[str]) -> str:
        signal.signal(signal.SIGUSR2, self._stop)  # the time limit is near
        signal.signal(signal.SIGTERM, self._stop)  # preemption, scancel --signal=TERM
        # Slurm signals the run as well as this process. It handles SIGTERM, but SIGUSR2 would kill it.
        ignore_warning = lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # noqa: E731
        self.process = subprocess.Popen(
            tools.main_command(self.config, flags),
            cwd=configs.ROOT,
            stdin=subprocess.DEVNULL,
            preexec_fn=ignore_warning,
        )
        # A signal may arrive before there is a process to pass it on to.
        if self.signalled:
            self._stop(signal.SIGTERM, None)
        status = self.process.wait()
        run = _find(self.config, flags)
        if status > 0 and not self.signalled:
            raise RuntimeError(f'the run ended with status {status}')
        if self.signalled and (run is None or run.state != 'done'):
            if os.environ.get('SLURM_PROCID', '0') == '0':  # all tasks stop together, and one queues the job
                self._requeue('stopped by a signal')
            sys.exit(0)
        if status < 0:
            if int(os.environ.get('SLURM_RESTART_COUNT', '0')) >= CRASHES:
                raise RuntimeError(f'the run was killed by signal {-status}, as {CRASHES} times before')
            self._requeue(f'signal {-status} killed the run')
        return describe_result(run)

    def _stop(self, number, frame) -> None:
        self.signalled = True
        self.warned = self.warned or number == signal.SIGUSR2
        if hasattr(self, 'process'):
            self.process.send_signal(signal.SIGTERM)

    def _requeue(self, reason: str) -> None:
        """Queues the job again and exits, unless Slurm ends the job for good (scancel) or requeues it itself."""
        job = os.environ['SLURM_JOB_ID']
        if 'SLURM_ARRAY_TASK_ID' in os.environ:  # the plain number would requeue the whole array
            job = f'{os.environ["SLURM_ARRAY_JOB_ID"]}_{os.environ["SLURM_ARRAY_TASK_ID"]}'
        state = _slurm('squeue', '-h', '-j', job, '-o', '%T').stdout.strip()
        # After `scancel` Slurm has the job as COMPLETING: it is meant to end.
        if state == 'RUNNING' or self.warned:
            requeued = _slurm('scontrol', 'requeue', job)
            print(f'job {job}: {reason}; back into the queue {requeued.stderr.strip()}', flush=True)
        else:
            print(f'job {job}: {reason}; Slurm has the job as {state or "unknown"}', flush=True)
        sys.exit(0)  # not a return: submitit would take its value for the result of a finished job


def _slurm(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


def _find(config: str, flags: Sequence[str]) -> Run | None:
    workdir = read_option(flags, 'workdir')
    if workdir:
        return next(iter(find_runs(configs.ROOT / Path(workdir).expanduser())), None)
    return find_run(config, flags, configs.ROOT / runs_folder(flags))


def _wait(config: str, number: str, points: Sequence[list[str]], root: Path) -> int:
    """Waits until no job is pending or running, and prints the state of each run; returns the exit status."""
    while True:
        queue = _slurm('squeue', '-h', '-j', number, '-o', '%T')
        if (queue.returncode == 0 and not queue.stdout.strip()) or 'Invalid job id' in queue.stderr:
            break
        time.sleep(2)
    runs = [_find(config, flags) for flags in points]
    for flags, run in zip(points, runs, strict=True):
        state, where = (run.state, run.folder) if run else ('failed', root / 'slurm')
        print(f'{state:7} {describe_result(run)}  {" ".join(flags)}  {where}', flush=True)
    return 0 if all(run and run.state == 'done' for run in runs) else 1


def _submitit() -> Any:
    try:
        submitit = importlib.import_module('submitit')
    except ImportError as error:
        raise CanonError("Slurm needs submitit: pip install -e '.[slurm]' (launch.sh slurm installs it)") from error
    if not shutil.which('sbatch') or not shutil.which('srun'):
        raise CanonError('no sbatch here: submit from a login node of a Slurm cluster (Debian: slurm-client)')
    return submitit


def _parse_option(word: str) -> tuple[str, str | bool]:
    key, equals, value = word.partition('=')
    if not key:
        raise UsageError(f'--sbatch={word}: write it as KEY=VALUE, such as --sbatch=account=vision')
    return key, value if equals else True


def _without_none(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


if __name__ == '__main__':
    # The job unpickles `launch.submit.Job`; as `__main__.Job` it would not find it.
    tools.run(importlib.import_module('launch.submit').main)
