"""Measures start-up times: imports, --help, a refused flag, launch.sh.

    python -m benchmarks.startup [--rounds=5]

Each command is a process of its own; the fastest round counts. `python -c pass` is the lower bound.
"""

import argparse
import subprocess
import sys
import time

PYTHON = sys.executable
CASES = {
    'python -c pass': [PYTHON, '-c', 'pass'],
    'import canon': [PYTHON, '-c', 'import canon'],
    'import jax (for comparison)': [PYTHON, '-c', 'import jax'],
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


def time_command(command: list[str]) -> float:
    """Returns the wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(command, capture_output=True)
    return time.perf_counter() - start


if __name__ == '__main__':
    main()
