"""Compares Canon with its peers: each side runs in a process of its own, with its best settings, the others stopped.

Sides take turns in the same minutes on the same machine. A side is stopped by SIGSTOP during the others' turns, so that
its spinning threads do not slow them. Its environment is chosen by trial for each work, among `SETTINGS`; the times of
the trial are printed. A ratio is the median over the rounds of Canon's time divided by that side's (below 1 is faster),
for wall time and CPU time. A round in which other processes took more than `NOISY` of the machine is repeated. The side
of another library, mostly torch, is a script in tools/, run by the interpreter that the flag of its name gives, as
--torch=PYTHON.
"""

import argparse
import atexit
import functools
import importlib.metadata
import importlib.util
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TOOLS = Path(__file__).parents[1] / 'tools'
# glibc keeps large buffers instead of returning them to the system after each step.
ALLOCATOR = {
    'GLIBC_TUNABLES': 'glibc.malloc.mmap_threshold=34359738368:glibc.malloc.trim_threshold=68719476736'
    ':glibc.malloc.arena_max=1'
}
# The same, in pages of 2 MB where the system offers them; launch.sh sets this for all runs.
HUGE = {'GLIBC_TUNABLES': f'{ALLOCATOR["GLIBC_TUNABLES"]}:glibc.malloc.hugetlb=1'}
PASSIVE = {'OMP_WAIT_POLICY': 'passive'}  # OpenMP's threads sleep between parallel regions instead of spinning
COMPILED = {'CANON_TORCH': 'compile'}  # read by tools/turns.py
SETTINGS = {
    'default': {},
    'allocator': ALLOCATOR,
    'huge': HUGE,
    'passive': PASSIVE,
    'both': HUGE | PASSIVE,
    'compiled': COMPILED | HUGE,
    'compiled, passive': COMPILED | HUGE | PASSIVE,
}
JAX_SETTINGS = ('default', 'allocator', 'huge')  # XLA:CPU does not use OpenMP
EAGER = ('default', 'allocator', 'huge', 'passive', 'both')
ALL_FORMS = (*EAGER, 'compiled', 'compiled, passive')  # of torch
NOISY = 0.05  # the share of the machine's time that other processes may take in a turn


class Work(NamedTuple):
    """One comparison.

    Attributes:
      sides: 'canon' first; each builds a compiled call.
      calls: per turn.
      aims: ratio to reach against a side; the peer is compared when it has an aim.
    """

    sides: Mapping[str, Callable[[], Callable]]
    calls: int
    aims: Mapping[str, float]


class Peer(NamedTuple):
    """Another library, or another version of Canon.

    Attributes:
      script: a file in tools/ that serves its side.
      name: of the side, and of the flag that gives its interpreter.
      settings: names in `SETTINGS` that may be its best.
      package: what its interpreter must be able to import; '' is the name.
    """

    script: str
    name: str = 'torch'
    settings: tuple[str, ...] = EAGER
    package: str = ''


class Benchmark(NamedTuple):
    """The works of one module of benchmarks/.

    Attributes:
      module: its name, for `python -m`.
      works: by name.
      peer: None if all sides are served by the module itself.
    """

    module: str
    works: Mapping[str, Work]
    peer: Peer | None = None


class Turn(NamedTuple):
    """Seconds per call, and the share of the machine that other processes took meanwhile."""

    wall: float
    cpu: float
    noise: float


class Row(NamedTuple):
    """Holds the measurements of one side of a work: a turn per round, of this side and of Canon."""

    work: str
    side: str
    settings: str
    banner: str
    turns: tuple[Turn, ...]
    canon: tuple[Turn, ...]
    aim: float | None

    def ratios(self, clock: str) -> list[float]:
        """Returns Canon's time divided by this side's in each round; `clock` is 'wall' or 'cpu'."""
        pairs = zip(self.canon, self.turns, strict=True)
        return [getattr(ours, clock) / max(getattr(theirs, clock), 1e-9) for ours, theirs in pairs]

    @property
    def noise(self) -> float:
        return max(turn.noise for turn in (*self.turns, *self.canon))


class Side:
    """A process that serves one side under one of the settings, stopped while it does not have the turn."""

    def __init__(self, command: list[str], name: str, settings: str):
        environment = {k: v for k, v in os.environ.items() if k not in ALLOCATOR | PASSIVE | COMPILED}
        self.name, self.settings, self.command = name, settings, command
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment | SETTINGS[settings],
                cwd=TOOLS.parent,
            )
        except OSError as error:
            raise SystemExit(f'--{name}={command[0]} cannot be run: {error.strerror}') from error
        atexit.register(self.process.kill)  # a stopped process does not see that its input has ended
        self.banner = self._read_line()
        self.process.send_signal(signal.SIGSTOP)

    def _read_line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f'the process of {self.name} ended: {" ".join(self.command)}')
        return line.strip()

    def take_turn(self, work: str, calls: int) -> Turn:
        """Lets the side make its calls."""
        assert self.process.stdin
        before = _read_ticks(self.process.pid)
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f'{work} {calls}\n')
        self.process.stdin.flush()
        wall, cpu = map(float, self._read_line().split())
        self.process.send_signal(signal.SIGSTOP)
        return Turn(wall, cpu, _measure_noise(before, _read_ticks(self.process.pid)))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def _read_ticks(pid: int) -> tuple[int, int, int] | None:
    """Returns the ticks of all cores, those that they were busy, and those of a process; None without Linux's /proc."""
    try:
        user, nice, system, idle, iowait, *others = map(int, Path('/proc/stat').read_text().split('\n')[0].split()[1:9])
        own = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[11:13]  # utime and stime
    except (OSError, ValueError):
        return None
    busy = user + nice + system + sum(others)
    return busy + idle + iowait, busy, sum(map(int, own))


def _measure_noise(before: tuple[int, int, int] | None, after: tuple[int, int, int] | None) -> float:
    """Returns the share of the machine's time that went to other processes."""
    if before is None or after is None:
        return 0.0
    total, busy, own = (b - a for a, b in zip(before, after, strict=True))
    # A turn of a few ticks says nothing: the counts of a process and of the machine are a tick apart.
    return max(busy - own, 0) / total if total > 50 else 0.0


def choose_settings(start: Callable[[str], Side], settings: Sequence[str], name: str, calls: int, trials: int) -> Side:
    """Returns the side under the setting that is fastest in `trials` turns; prints the times.

    Only the fastest so far stays open: a step of NeRF holds 5 GB.
    """
    fastest: dict[str, float] = {}
    best: Side | None = None
    for setting in settings:
        side = start(setting)
        side.take_turn(name, 1)  # compiles
        fastest[setting] = min(side.take_turn(name, calls).wall for _ in range(trials))
        if best and fastest[best.settings] <= fastest[setting]:
            side.close()
            continue
        if best:
            best.close()
        best = side
    assert best
    times = ', '.join(f'{setting} {1e3 * seconds:.1f}' for setting, seconds in fastest.items())
    print(f'  {best.name} ({best.banner}): {times} ms; {best.settings}', flush=True)
    return best


def find_interpreter(peer: Peer) -> str | None:
    """Returns this interpreter if it has the peer's package."""
    try:
        return sys.executable if importlib.util.find_spec(peer.package or peer.name) else None
    except ModuleNotFoundError:  # of the parent of a submodule
        return None


def measure(benchmark: Benchmark, name: str, interpreter: str | None, rounds: int = 5, trials: int = 2) -> list[Row]:
    """Measures one work.

    Args:
      benchmark: the module's.
      name: of the work.
      interpreter: of the peer; None leaves it out.
      rounds: in which every side has a turn; noisy ones are repeated, at most as many again.
      trials: turns per setting before the best is chosen.

    Returns:
      a row per side, Canon's first.
    """
    work, peer = benchmark.works[name], benchmark.peer
    print(f'{name} (load {os.getloadavg()[0]:.1f})', flush=True)
    commands: dict[str, tuple[list[str], tuple[str, ...]]] = {
        side: ([sys.executable, '-m', benchmark.module, f'--side={side}'], JAX_SETTINGS) for side in work.sides
    }
    if interpreter and peer and peer.name in work.aims:
        commands[peer.name] = [interpreter, str(TOOLS / peer.script)], peer.settings
    sides = [
        choose_settings(functools.partial(Side, command, side), settings, name, work.calls, trials)
        for side, (command, settings) in commands.items()
    ]
    try:
        turns = _take_rounds(sides, name, work.calls, rounds)
    finally:
        for side in sides:
            side.close()
    return [
        Row(name, side.name, side.settings, side.banner, turns[i], turns[0], work.aims.get(side.name))
        for i, side in enumerate(sides)
    ]


def _take_rounds(sides: list[Side], work: str, calls: int, rounds: int) -> list[tuple[Turn, ...]]:
    """Returns the turns of each side: the quietest rounds of at most twice as many as are wanted."""
    taken: list[list[Turn]] = []
    while sum(_noise_of(turns) <= NOISY for turns in taken) < rounds and len(taken) < 2 * rounds:
        taken.append([side.take_turn(work, calls) for side in sides])
        if (noise := _noise_of(taken[-1])) > NOISY:
            print(f'  other processes took {noise:.0%} of the machine in this round: once more', flush=True)
    quietest = sorted(taken, key=lambda turns: max(_noise_of(turns), NOISY))[:rounds]
    return list(zip(*quietest, strict=True))


def _noise_of(turns: list[Turn]) -> float:
    return max(turn.noise for turn in turns)


def print_table(rows: list[Row]) -> None:
    """Prints times and ratios, with the smallest and the largest of the rounds."""
    print(f'\n{"work":22s}{"side":13s}{"settings":18s}{"wall ms":>9s}{"CPU ms":>9s}  canon/side: wall, CPU')
    for row in rows:
        wall, cpu = (1e3 * statistics.median(getattr(turn, clock) for turn in row.turns) for clock in ('wall', 'cpu'))
        ratios = '' if row.side == 'canon' else f'{describe(row.ratios("wall"))}, {describe(row.ratios("cpu"))}'
        goal = '' if row.aim is None else f'   aim {row.aim}'
        noisy = f'   noisy: others took {row.noise:.0%}' if row.noise > NOISY else ''
        print(f'{row.work:22s}{row.side:13s}{row.settings:18s}{wall:9.1f}{cpu:9.1f}  {ratios}{goal}{noisy}')
    print(f'load at the end {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores')


def describe(ratios: list[float]) -> str:
    """Returns the median, and the smallest and the largest."""
    digits = 2 if min(ratios) >= 0.01 else 4
    return f'{statistics.median(ratios):.{digits}f} ({min(ratios):.{digits}f}-{max(ratios):.{digits}f})'


def serve_jax(works: Mapping[str, Work], side: str) -> None:
    """Serves one of JAX's sides in this process."""
    import jax

    from tools import turns

    packages = {'linen': 'flax', 'optax': 'optax', 'sklearn': 'scikit-learn'}
    version = f', {packages[side]} {importlib.metadata.version(packages[side])}' if side in packages else ''
    turns.serve(
        {name: w.sides[side] for name, w in works.items() if side in w.sides},
        f'jax {jax.__version__}{version}',
        wait=jax.block_until_ready,
    )


def main(doc: str | None, benchmark: Benchmark) -> None:
    """Runs one module of benchmarks: reads its flags, measures in rounds and prints the table."""
    works, peer = benchmark.works, benchmark.peer
    parser = argparse.ArgumentParser(description=(doc or '').partition('\n')[0])
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--trials', type=int, default=2, help='turns per setting before the best is chosen')
    parser.add_argument('--only', default=','.join(works), help='names of works, separated by commas')
    if peer:
        help_text = f'an interpreter that has {peer.name}'
        parser.add_argument(f'--{peer.name}', dest='interpreter', metavar='PYTHON', help=help_text)
    parser.add_argument('--side', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return serve_jax(works, options.side)
    chosen = options.only.split(',')
    if unknown := [name for name in chosen if name not in works]:
        parser.error(f'--only: {", ".join(unknown)}: expected some of {", ".join(works)}')
    interpreter = (options.interpreter or find_interpreter(peer)) if peer else None
    rows = [measure(benchmark, name, interpreter, options.rounds, options.trials) for name in chosen]
    print_table([row for measured in rows for row in measured])
