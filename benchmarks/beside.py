"""Compares Canon with its peers: each side runs in a process of its own, with its best settings, the others stopped.

Sides take turns in the same minutes on the same machine. A side is stopped by SIGSTOP during the others' turns, so that
its spinning threads do not slow them. Its environment is chosen by trial for each work, among `SETTINGS`; the times of
the trial are printed. A ratio is the median over the rounds of Canon's time divided by that side's (below 1 is faster),
for wall time and CPU time. The side of another library, mostly torch, is a script in tools/, run by the interpreter
that the flag of its name gives, as --torch=PYTHON.
"""

import argparse
import atexit
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

TOOLS = Path(__file__).parents[1] / 'tools'
# glibc keeps large buffers instead of returning them to the system after each step; launch.sh sets this for all runs.
ALLOCATOR = {
    'GLIBC_TUNABLES': 'glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=68719476736'
    ':glibc.malloc.arena_max=1'
}
PASSIVE = {'OMP_WAIT_POLICY': 'passive'}  # OpenMP's threads sleep between parallel regions instead of spinning
SETTINGS = {'default': {}, 'allocator': ALLOCATOR, 'passive': PASSIVE, 'both': ALLOCATOR | PASSIVE}
JAX_SETTINGS, TORCH_SETTINGS = ('default', 'allocator'), tuple(SETTINGS)  # XLA:CPU does not use OpenMP


class Work(NamedTuple):
    """One comparison."""

    sides: Mapping[str, Callable[[], Callable]]  # 'canon' first; each builds a compiled call
    calls: int  # per turn
    aims: Mapping[str, float]  # ratio to reach against a side; the peer is compared when it has an aim


class Side:
    """A process that serves one side under one of the settings, stopped while it does not have the turn."""

    def __init__(self, command: list[str], name: str, settings: str):
        environment = {k: v for k, v in os.environ.items() if k not in ALLOCATOR | PASSIVE}
        self.name, self.settings, self.command = name, settings, command
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | SETTINGS[settings],
            cwd=TOOLS.parent,
        )
        atexit.register(self.process.kill)  # a stopped process does not see that its input has ended
        self.banner = self._read_line()
        self.process.send_signal(signal.SIGSTOP)

    def _read_line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'the process of {self.name} ended: {" ".join(self.command)}')
        return line.strip()

    def take_turn(self, work: str, calls: int) -> tuple[float, float]:
        """Lets the side make its calls; returns (wall, CPU) seconds per call."""
        assert self.process.stdin
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f'{work} {calls}\n')
        self.process.stdin.flush()
        wall, cpu = map(float, self._read_line().split())
        self.process.send_signal(signal.SIGSTOP)
        return wall, cpu

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def start_sides(name: str, command: list[str], settings: tuple[str, ...]) -> list[Side]:
    """Starts one process per setting that could be the best for this side."""
    return [Side(command, name, setting) for setting in settings]


def choose_settings(candidates: list[Side], name: str, calls: int, trials: int) -> Side:
    """Returns the candidate that is fastest in `trials` turns; prints the times and closes the others."""
    fastest: dict[str, float] = {}
    for side in candidates:
        side.take_turn(name, 1)  # compiles
    for _ in range(trials):
        for side in candidates:
            fastest[side.settings] = min(fastest.get(side.settings, float('inf')), side.take_turn(name, calls)[0])
    best = min(candidates, key=lambda side: fastest[side.settings])
    for side in candidates:
        if side is not best:
            side.close()
    times = ', '.join(f'{setting} {1e3 * seconds:.1f}' for setting, seconds in fastest.items())
    print(f'  {best.name} ({best.banner}): {times} ms; {best.settings}', flush=True)
    return best


def measure(name: str, work: Work, module: str, script: str | None, options) -> list[tuple]:
    """Measures one work; returns rows (work, side, settings, wall ms, CPU ms, wall ratio, CPU ratio, aim)."""
    print(f'{name} (load {os.getloadavg()[0]:.1f})', flush=True)
    commands: dict[str, tuple[list[str], tuple[str, ...]]] = {
        side: ([sys.executable, '-m', module, f'--side={side}'], JAX_SETTINGS) for side in work.sides
    }
    if options.interpreter and script and options.peer in work.aims:
        commands[options.peer] = [options.interpreter, str(TOOLS / script)], TORCH_SETTINGS
    sides = [
        choose_settings(start_sides(side, *command), name, work.calls, options.trials)
        for side, command in commands.items()
    ]
    try:
        rounds = [{side.name: side.take_turn(name, work.calls) for side in sides} for _ in range(options.rounds)]
    finally:
        for side in sides:
            side.close()
    rows = []
    for side in sides:
        milliseconds = [1e3 * statistics.median(times[side.name][clock] for times in rounds) for clock in (0, 1)]
        ratios = [statistics.median(t['canon'][clock] / t[side.name][clock] for t in rounds) for clock in (0, 1)]
        rows.append((name, side.name, side.settings, *milliseconds, *ratios, work.aims.get(side.name)))
    return rows


def print_table(rows: list[tuple]) -> None:
    print(
        f'\n{"work":22s}{"side":10s}{"settings":10s}{"wall ms":>9s}{"CPU ms":>9s}{"canon/side: wall":>18s}{"CPU":>7s}'
    )
    for work, side, settings, wall, cpu, wall_ratio, cpu_ratio, aim in rows:
        ratios = '' if side == 'canon' else f'{wall_ratio:18.2f}{cpu_ratio:7.2f}'
        goal = '' if aim is None else f'   aim {aim}'
        print(f'{work:22s}{side:10s}{settings:10s}{wall:9.1f}{cpu:9.1f}{ratios}{goal}')
    print(f'load at the end {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores')


def serve_jax(works: Mapping[str, Work], side: str) -> None:
    """Serves one of JAX's sides in this process."""
    import jax

    from tools import turns

    turns.serve(
        {name: w.sides[side] for name, w in works.items() if side in w.sides},
        f'jax {jax.__version__}',
        wait=jax.block_until_ready,
    )


def main(doc: str, works: Mapping[str, Work], module: str, script: str | None = None, peer: str = 'torch') -> None:
    """Runs a benchmark: reads its flags, measures in rounds and prints the table.

    Args:
      doc: the module's docstring, for --help.
      works: {name: comparison}.
      module: name for `python -m`, which starts the sides.
      script: the peer's side, a file in tools/.
      peer: name of that side and of the flag of its interpreter.
    """
    parser = argparse.ArgumentParser(description=doc.partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--trials', type=int, default=2, help='turns per setting before the best is chosen')
    parser.add_argument('--only', default=','.join(works), help='names of works, separated by commas')
    needs = 'torch (and torchvision for backbones)' if peer == 'torch' else peer
    parser.add_argument(f'--{peer}', dest='interpreter', metavar='PYTHON', help=f'an interpreter that has {needs}')
    parser.add_argument('--side', help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.peer = peer
    if options.side:
        return serve_jax(works, options.side)
    chosen = options.only.split(',')
    if unknown := [name for name in chosen if name not in works]:
        parser.error(f'--only: {", ".join(unknown)}: expected some of {", ".join(works)}')
    print_table([row for name in chosen for row in measure(name, works[name], module, script, options)])
