"""Selective search compared with opencv-contrib's in one run: time, below 1 is better, and recall.

    python -m benchmarks.selective_search [--rounds=5] --opencv=PYTHON
    python -m benchmarks.selective_search --recall [--images=32] [--bccd=bccd.tar] --opencv=PYTHON

The strategy 'fast' of each on one photograph of 500x375. opencv's has 12 hierarchies of larger segments (k of 150, 300
and 450), ours the paper's 8 (k of 50 and 100), so the numbers of boxes differ. --opencv names an interpreter with
opencv-contrib-python-headless and scikit-image. How the sides take turns: benchmarks/comparison.py.

--recall prints the share of objects that the first 100, 500 and 2,000 boxes cover at an IoU of 0.5 and 0.7, on scenes
of digits and, with --bccd, on photographs of blood cells as wide as --width. 'small segments' are the settings of
configs/detection/rcnn_digits.py.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import comparison
from benchmarks.comparison import TOOLS, Benchmark, Peer, Work
from canon.data import Source, transforms
from canon.data.detection.digit_scenes import digit_scenes
from canon.data.detection.selective_search import Strategy, selective_search
from canon.data.detection.voc import voc_detection
from canon.data.pipeline.chain import Mapped
from canon.metrics.detection import measure_proposals
from tools.selective_search_opencv import read_photograph

_COUNTS, _THRESHOLDS = (100, 500, 2000), (0.5, 0.7)
_SMALL: Mapping[str, Any] = dict(colours=('lab',), scales=(50.0, 200.0), min_size=8)


def make_search(strategy: Strategy) -> Callable:
    image = read_photograph()
    return lambda: selective_search(image, strategy)


WORKS = {'fast': Work({'canon': lambda: make_search('fast')}, 1, {'opencv': 4.0})}
BENCHMARK = Benchmark(
    'benchmarks.selective_search', WORKS, Peer('selective_search_opencv.py', 'opencv', package='cv2.ximgproc')
)


def search_with_opencv(interpreter: str, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the boxes [P, 4] that opencv's 'fast' finds in each image, in order of rank."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ('images.npz', 'boxes.npz')]
        np.savez(paths[0], **{f'{i}': image for i, image in enumerate(images)})  # ty: ignore[invalid-argument-type]
        subprocess.run([interpreter, str(TOOLS / 'selective_search_opencv.py'), *paths], check=True)
        with np.load(paths[1]) as file:
            return [file[f'{i}'] for i in range(len(images))]


def compare_recall(name: str, source: Source, count: int, interpreter: str) -> None:
    """Prints a row of recalls for each search on evenly spaced images of a source."""
    examples = [source[i] for i in np.linspace(0, len(source) - 1, min(count, len(source))).astype(int).tolist()]
    images = [example['image'] for example in examples]
    searches = {
        'canon fast': lambda: [selective_search(image) for image in images],
        'canon small segments': lambda: [selective_search(image, **_SMALL) for image in images],
        'opencv fast': lambda: search_with_opencv(interpreter, images),
    }
    for side, search in searches.items():
        pairs = zip(search(), examples, strict=True)
        recall = measure_proposals([(boxes, e['boxes'], e['labels']) for boxes, e in pairs], _COUNTS)
        shares = '  '.join(f'{x:6.3f}' for threshold in _THRESHOLDS for x in recall.recall(threshold))
        print(f'{name:8s}{len(images):7d}  {side:22s}{recall.mean_count[-1]:7.0f}  {shares}', flush=True)


def print_recalls(options: argparse.Namespace) -> None:
    titles = '  '.join(f'{n}@{threshold}'.rjust(6) for threshold in _THRESHOLDS for n in _COUNTS)
    print(f'{"data":8s}{"images":>7s}  {"search":22s}{"boxes":>7s}  {titles}')
    compare_recall('digits', digit_scenes('test', options.images), options.images, options.interpreter)
    if options.bccd:
        names = ('RBC', 'WBC', 'Platelets')
        cells = voc_detection(options.bccd, 'test', class_names=names, invalid='clip')
        height = options.width * 3 // 4  # of photographs of 640x480
        resized = Mapped(cells, (transforms.resize((height, options.width)),))
        compare_recall('BCCD', resized, options.images, options.interpreter)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0], add_help=False)
    parser.add_argument('--recall', action='store_true')
    parser.add_argument('--images', type=int, default=32, help='of each set of data')
    parser.add_argument('--bccd', help="a folder or tar of BCCD in Pascal VOC's layout")
    parser.add_argument('--width', type=int, default=320, help='that its photographs are resized to')
    parser.add_argument('--opencv', dest='interpreter', metavar='PYTHON')
    options, _ = parser.parse_known_args()
    if not options.recall:
        return comparison.main(__doc__, BENCHMARK)
    if not options.interpreter:
        raise SystemExit('--recall needs --opencv=PYTHON, an interpreter with opencv-contrib-python-headless')
    print_recalls(options)
    return None


if __name__ == '__main__':
    sys.exit(main())
