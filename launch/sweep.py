"""Runs a config over lists of values: on this machine, N at a time, or as an array of Slurm jobs; or prints commands.

    ./launch.sh sweep configs/classification/lenet_digits.py --jobs=2
    ./launch.sh sweep configs/classification/lenet_digits.py --config.seed=0,1,2 --config.data.batch_size=32,64
    ./launch.sh sweep configs/classification/lenet_digits.py --engine=print | parallel -j 4

The runs are the product of the lists, times the points of the config's `sweep()` if it has one. `;` separates values;
where a key holds a single value (a number, text, true or false), a comma does, too. Where it holds a tuple, a comma
belongs to the tuple: --config.data.train.transforms.chain='resize;resize,random_flip' is two runs. A comma between
quotes or brackets separates nothing. Other flags (--config.key=value, --runs=DIR, --force) go to every run.

A point is a run with overrides, so launching a sweep again resumes what is unfinished and skips what is done. The exit
status is 1 if a run failed.
"""

from __future__ import annotations

import concurrent.futures
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from canon.configuration import config_folder, split_source
from canon.errors import UsageError
from canon.train.runs import Run, describe_result
from experiments import configs, overrides
from launch import grid, submit, tools
from launch.flags import find_run, label, runs_folder, to_flags


class Point(NamedTuple):
    """A run of a sweep: its overrides in words, and all flags for main."""

    label: str
    flags: list[str]


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('sweep', __doc__)
    parser.add_argument('config', metavar='CONFIG')
    submit.add_options(parser)
    parser.add_argument('--engine', choices=('local', 'slurm', 'print'), default='local')
    parser.add_argument('--ignore-sweep', action='store_true', help="only the lists of flags, not the config's sweep()")
    parser.add_argument('--jobs', type=int, default=0, help='how many runs at a time (local: 1, slurm: all)')
    options, flags = tools.parse(parser, argv, refused='--workdir=')
    if options.jobs < 0:
        raise UsageError(f'--jobs={options.jobs}: at least 1 at a time')
    points = plan(options.config, flags, options.ignore_sweep)
    if options.engine == 'print':
        for point in points:
            print(shlex.join(tools.main_command(options.config, point.flags)))
        return 0
    if options.engine == 'slurm':
        return submit.submit(options, [point.flags for point in points], parallel=options.jobs)
    return LocalSweep(options.config, points, jobs=options.jobs or 1).run()


def plan(source: str, flags: Sequence[str], ignore_sweep: bool = False) -> list[Point]:
    """Returns the runs of a config: the points of its `sweep()`, each with every combination of the lists in `flags`.

    Raises UsageError if nothing is swept, or if `sweep()` and a flag set the same key.
    """
    pairs, others = overrides.read_flags(flags)
    points = [] if ignore_sweep else read_points(source)
    path, _ = split_source(source)
    for key, text in pairs:
        for other in [k for point in points for k in point if f'{k}.'.startswith(f'{key}.') or key.startswith(f'{k}.')]:
            raise UsageError(
                f'--config.{key}={text}: sweep() of {path} gives {other} its values; leave the flag out, or sweep()'
                ' with --ignore-sweep'
            )
    lists = grid.split_lists(source, pairs, points or [{}])
    if not points and not lists.several:
        title = f'{path} is swept without its sweep()' if ignore_sweep else f'{path} has no sweep()'
        raise UsageError(
            f'{title}, and no flag lists values: give --config.seed=0,1,2, or define a sweep() that yields dicts such '
            'as {"tx.learning_rate": 1e-3}'
        )
    swept = grid.make_points(source, lists, points or [{}]) if lists.several else points
    shared = [*others, *(f'--config.{key}={text}' for key, text in lists.single.items())]
    return [Point(label(point), [*shared, *to_flags(point)]) for point in swept]


def read_points(source: str) -> list[dict[str, Any]]:
    """Returns what the config's `sweep()` yields, each point once; nothing if it has none."""
    path, _ = split_source(source)
    sweep = getattr(configs.load_module(source), 'sweep', None)
    if sweep is None:
        return []
    points = []
    for point in sweep():
        if not isinstance(point, Mapping):
            raise UsageError(f'{path}: sweep() gave {point!r}; it yields dicts of dotted keys')
        if point not in points:  # the same overrides are the same run
            points.append(dict(point))
    if not points:
        raise UsageError(f'{path}: sweep() gave nothing to run')
    return points


class LocalSweep:
    """Runs points as subprocesses. It passes a SIGTERM or Ctrl-C on to them once, so that every run saves and ends."""

    def __init__(self, config: str, points: Sequence[Point], jobs: int):
        self._config, self._points, self._jobs = config, points, jobs
        self._lock, self._running, self._stopping = threading.Lock(), set(), False
        self._finished = 0

    def run(self) -> int:
        """Runs all points and prints a line for each; returns the exit status."""
        before = {s: signal.signal(s, self._stop) for s in (signal.SIGTERM, signal.SIGINT)}
        try:
            with concurrent.futures.ThreadPoolExecutor(self._jobs) as pool:
                states = list(pool.map(self._run_point, enumerate(self._points)))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        done, failed = states.count('done'), states.count('failed')
        unfinished = len(states) - done - failed
        resumable = f', {unfinished} not finished (the same command resumes)' if unfinished else ''
        print(f'{done} of {len(states)} done, {failed} failed{resumable}. ./launch.sh table {self._home()}', flush=True)
        return 1 if failed else 0

    def _run_point(self, numbered: tuple[int, Point]) -> str:
        """Runs one point and returns its state."""
        i, point = numbered
        name = re.sub(r'[^\w.=,-]+', '_', point.label)[:100]  # a valid file name
        log = self._home() / 'sweep' / f'{i:03d}-{name}.log'
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with log.open('w') as out:
            with self._lock:
                if self._stopping:  # a signal came while the pool had points left
                    return 'waiting'
                process = subprocess.Popen(
                    tools.main_command(self._config, point.flags),
                    cwd=configs.ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # or Ctrl-C in the terminal would reach it a second time
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
        run = find_run(self._config, point.flags, self._root())
        # A run that saves and stops exits with 0, so its state is the one to report.
        state = 'failed' if status or run is None else run.state
        self._report(state, time.monotonic() - began, point, run, log)
        return state

    def _report(self, state: str, seconds: float, point: Point, run: Run | None, log: Path) -> None:
        result = describe_result(run) if state == 'done' else tools.read_last_line(log)
        where = log if state == 'failed' or run is None else run.folder
        with self._lock:
            self._finished += 1
            count = f'[{self._finished}/{len(self._points)}]'
            print(f'{count} {state:7} {seconds:6.1f} s  {result}  {point.label}  {where}', flush=True)

    def _stop(self, number, frame) -> None:
        """Handles a signal in the main thread, which only waits for the pool and so never holds the lock."""
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.send_signal(signal.SIGTERM)

    def _root(self) -> Path:
        return runs_folder(self._points[0].flags)

    def _home(self) -> Path:
        return config_folder(self._config, self._root())


if __name__ == '__main__':
    tools.run(main)
