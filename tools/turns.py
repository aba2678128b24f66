"""How torch's side of a benchmark takes its turns, in an interpreter of its own: torch, nothing of Canon.

A line 'WORK CALLS' on the standard input is answered by 'wall cpu', the seconds of a call.
"""

import sys
import time
from collections.abc import Callable, Mapping

import torch


def serve(works: Mapping[str, Callable[[], Callable]]) -> None:
    """Answers until the input ends. works: {name: what makes its call}; the one asked last is kept."""
    torch.manual_seed(0)
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads', flush=True)
    name, call = None, None
    for line in sys.stdin:
        work, calls = line.split()
        if work != name:
            name, call = work, works[work]()
            call()
            call()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(calls)):
            call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(wall / int(calls), cpu / int(calls), flush=True)
