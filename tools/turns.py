"""Serves the calls of one side of a benchmark to benchmarks/comparison.py, over the standard input and output.

A line 'WORK CALLS' is answered by 'wall cpu', the seconds per call. Imports nothing of Canon, as torch's interpreter
runs it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def serve(works: Mapping[str, Callable[[], Callable]], banner: str, wait: Callable[[Any], object] = id) -> None:
    """Answers until the input ends.

    Args:
      works: by name, a function that builds what is timed. The one built last is kept.
      banner: first line of output: the versions.
      wait: blocks until a result is computed, for libraries that return earlier.
    """
    print(banner, flush=True)
    current, call = None, None
    for line in sys.stdin:
        name, calls = line.rsplit(maxsplit=1)
        if name != current:
            current, call = name, works[name]()
            wait(call())
        wait(call())  # refills the caches after the other sides' turns
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(calls)):
            result = call()
        wait(result)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(wall / int(calls), cpu / int(calls), flush=True)


def form(network: Any) -> Any:
    """Returns a network or a function of torch in the form that the benchmark asks for: eager, or compiled."""
    import torch

    return torch.compile(network) if os.environ.get('CANON_TORCH') == 'compile' else network


def serve_torch(works: Mapping[str, Callable[[], Callable]]) -> None:
    """Serves torch's side with torch's own number of threads."""
    import torch

    torch.manual_seed(0)
    serve(works, f'torch {torch.__version__}, {torch.get_num_threads()} threads')
