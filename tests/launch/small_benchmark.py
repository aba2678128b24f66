"""A benchmark of two sides that sleep, for the test of the harness."""

import time

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Work


def sleep(seconds: float):
    return lambda: lambda: time.sleep(seconds)


BENCHMARK = Benchmark(
    'tests.launch.small_benchmark',
    {'nap': Work({'canon': sleep(0.02), 'longer': sleep(0.2)}, 2, {'longer': 0.5})},
)

if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
