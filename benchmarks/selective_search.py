"""Selective search compared with opencv-contrib's in one run: below 1 is better.

    python -m benchmarks.selective_search [--rounds=5] --opencv=PYTHON

The strategy 'fast' of each on one photograph of 500x375. opencv's has 12 hierarchies of larger segments (k of 150, 300
and 450), ours the paper's 8 (k of 50 and 100), so the numbers of boxes differ. --opencv names an interpreter with
opencv-contrib-python-headless and scikit-image. How the sides take turns: benchmarks/beside.py.
"""

from collections.abc import Callable

from benchmarks import beside
from benchmarks.beside import Work
from canon.data.detection.selective_search import Strategy, selective_search
from tools.selective_search_opencv import read_photograph


def make_search(strategy: Strategy) -> Callable:
    image = read_photograph()
    return lambda: selective_search(image, strategy)


WORKS = {'fast': Work({'canon': lambda: make_search('fast')}, 1, {'opencv': 4.0})}


if __name__ == '__main__':
    beside.main(__doc__ or '', WORKS, 'benchmarks.selective_search', 'selective_search_opencv.py', peer='opencv')
