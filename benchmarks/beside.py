"""What a benchmark of networks needs: sides that take turns in one run, and a table of ratios. Below 1 is better.

A `Work` is timed by Canon's side, by linen's, and with --torch=PYTHON by torch's, in a process of its own
(`tools/turns.py`). A ratio is the median over the rounds of this side by that side, of wall time and of CPU time:
where others run on the machine the latter is the steadier. Imports no JAX before the program has started again with
the allocator's tunables set (launch.sh sets them for all runs): buffers come from an allocator that keeps them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

SETTINGS = {
    'GLIBC_TUNABLES': 'glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=68719476736'
    ':glibc.malloc.arena_max=1',
    'OMP_WAIT_POLICY': 'passive',  # torch's idle threads would burn CPU time during the others' turns
}


class Work(NamedTuple):
    """One row of the table: what each side calls, and the ratios to reach against linen and torch."""

    make: Callable[[], tuple[Callable, Callable]]  # ours and linen's, compiled
    calls: int  # timed in one turn
    linen: float
    torch: float


def restart(module: str) -> None:
    """Starts the program again with the settings, unless it has them."""
    if any(os.environ.get(key) != value for key, value in SETTINGS.items()):
        os.execve(sys.executable, [sys.executable, '-m', module, *sys.argv[1:]], {**os.environ, **SETTINGS})


class Torch:
    """torch's side, called by the name of the work."""

    def __init__(self, python: str, script: str):
        path, pipe = Path(__file__).parents[1] / 'tools' / script, subprocess.PIPE
        process = subprocess.Popen(
            [python, str(path)], stdin=pipe, stdout=pipe, text=True, env={**os.environ, **SETTINGS}
        )
        assert process.stdin
        assert process.stdout
        self.process, self.questions, self.answers = process, process.stdin, process.stdout
        print(self.answer())

    def answer(self) -> str:
        line = self.answers.readline()
        if not line:
            raise SystemExit('--torch wants an interpreter with torch, and for networks of images torchvision')
        return line.strip()

    def __call__(self, work: str, calls: int) -> tuple[float, float]:
        self.questions.write(f'{work} {calls}\n')
        self.questions.flush()
        wall, cpu = map(float, self.answer().split())
        return wall, cpu


def seconds(call: Callable, calls: int) -> tuple[float, float]:
    """(wall, cpu) of one call."""
    import jax

    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


def measure(name: str, work: Work, rounds: int, torch: Torch | None) -> dict[str, list[tuple[float, float]]]:
    """{side: (wall, cpu) of each round}"""
    print(f'{name} (load {os.getloadavg()[0]:.1f})', flush=True)
    ours, linen = work.make()
    sides = {'canon': lambda: seconds(ours, work.calls), 'linen': lambda: seconds(linen, work.calls)}
    if torch:
        sides['torch'] = lambda: torch(name, work.calls)
    for turn in sides.values():
        turn()  # compiles, and fills the allocator
    times = {side: [] for side in sides}
    for _ in range(rounds):
        for side, turn in sides.items():
            times[side].append(turn())
    return times


def ratio(times: dict, side: str, clock: int) -> float:
    return statistics.median(a[clock] / b[clock] for a, b in zip(times['canon'], times[side], strict=True))


def main(doc: str, works: Mapping[str, Work], script: str) -> None:
    """The program: its flags, the rounds, and the tables. script: torch's side, in tools/."""
    parser = argparse.ArgumentParser(description=doc.partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default=','.join(works), help='names of works, with commas')
    parser.add_argument('--torch', metavar='PYTHON', help='an interpreter that has torch')
    options = parser.parse_args()
    torch = Torch(options.torch, script) if options.torch else None
    table = {name: measure(name, works[name], options.rounds, torch) for name in options.only.split(',')}

    print(f'\n{"ms: wall, CPU":22s}' + ''.join(f'{side:>18s}' for side in next(iter(table.values()))))
    for name, times in table.items():
        medians = ((statistics.median(t[i] for t in times[side]) for i in (0, 1)) for side in times)
        print(f'{name:22s}' + ''.join(f'{1e3 * wall:9.1f}{1e3 * cpu:9.1f}' for wall, cpu in medians))
    peers = ('linen', 'torch')[: 1 + bool(torch)]
    print(f'\n{"ratio: wall, CPU":22s}' + ''.join(f'{"to " + s:>18s}{"aim":>6s}' for s in peers))
    for name, times in table.items():
        row = f'{name:22s}'
        for side in peers:
            row += f'{ratio(times, side, 0):9.2f}{ratio(times, side, 1):9.2f}{getattr(works[name], side):6.2f}'
        print(row)
    print(f'load at the end {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores')
