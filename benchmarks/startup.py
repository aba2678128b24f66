"""How long one waits before anything happens: imports, --help, a refusal, the one door.

    python -m benchmarks.startup [--rounds=5]

Each is a process of its own, the fastest of the rounds, beside a bare `python -c pass`.
"""

import argparse
import subprocess
import sys
import time

PYTHON = sys.executable
CASES = {
    'python -c pass': [PYTHON, '-c', 'pass'],
    'import canon': [PYTHON, '-c', 'import canon'],
    'import jax (the peer)': [PYTHON, '-c', 'import jax'],
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
        print(f'{name:28} {min(seconds(command) for _ in range(rounds)):6.2f} s')


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, capture_output=True)
    return time.perf_counter() - began


if __name__ == '__main__':
    main()
