"""Measures start-up times: imports, --help, a refused flag, launch.sh, and the main job up to its first step.

    python -m benchmarks.startup [--rounds=5]

Each command is a process of its own; the fastest round counts. `python -c pass` is the lower bound. The main job runs
with an empty cache of compiled programs (cold), then with a full one (warm).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PYTHON = sys.executable
CASES = {
    'python -c pass': [PYTHON, '-c', 'pass'],
    'import canon': [PYTHON, '-c', 'import canon'],
    'import jax (for comparison)': [PYTHON, '-c', 'import jax'],
    'imports of the main job': [PYTHON, '-c', 'import experiments.main, experiments.classification, canon.train.loop'],
    'experiments.main --help': [PYTHON, '-m', 'experiments.main', '--help'],
    'a misspelt key is refused': [
        PYTHON, '-m', 'experiments.main', '--config=configs/classification/lenet_digits.py', '--config.sed=1',
    ],
    'launch.sh run CONFIG --dry': ['./launch.sh', 'run', 'configs/classification/lenet_digits.py', '--dry'],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5)
    rounds = parser.parse_args().rounds
    for name, command in CASES.items():
        print(f'{name:28} {min(time_command(command) for _ in range(rounds)):6.2f} s')
    with tempfile.TemporaryDirectory() as folder:
        cold = time_first_step(Path(folder, 'cache'), Path(folder, 'cold'))
        warm = min(time_first_step(Path(folder, 'cache'), Path(folder, f'warm{i}')) for i in range(rounds))
    for name, (prepared, stepped) in {'cold': cold, 'warm': warm}.items():
        print(f'first step, {name:16} {stepped:6.2f} s, {stepped - prepared:.2f} s of it compilation and the step')


def time_command(command: list[str]) -> float:
    """Returns the wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True)
    return time.perf_counter() - start


def time_first_step(cache: Path, workdir: Path) -> tuple[float, float]:
    """Returns the seconds of the main job until it compiles its step, and until the first step is done."""
    command = [
        *('./launch.sh', 'run', 'configs/classification/lenet_digits.py', '--config.run.steps=1'),
        *(f'--workdir={workdir}', f'--compilation_cache={cache}'),
    ]
    start, seconds = time.perf_counter(), {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as job:
        for line in job.stdout or ():
            seconds.setdefault(' '.join(line.split()[:2]), time.perf_counter() - start)
    if 'compiled in' not in seconds:
        raise SystemExit('the main job did not train: ' + ' '.join(command))
    return seconds['compiling the'], seconds['compiled in']


if __name__ == '__main__':
    main()
