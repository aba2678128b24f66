"""Scoring of trackers compared with TrackEval: CLEAR, identity and HOTA of arrays, and of a benchmark's files.

    python -m benchmarks.tracking_scoring [--rounds=5] [--only=arrays,files] [--trackeval=PYTHON]

'arrays': 500 frames of 30 objects, from boxes to the numbers of the three metrics. 'files': 20 sequences of MOT17 of
200 frames and 30 objects each, from the files to the combined numbers, with the rules of the benchmark. All of it runs
in one thread. How the sides take turns: benchmarks/comparison.py.
"""

import sys
import tempfile
from pathlib import Path

from benchmarks import comparison
from benchmarks.comparison import Benchmark, Peer, Work

sys.path.insert(0, str(comparison.TOOLS))  # tools/scoring_trackeval.py imports its neighbour, as the peer runs it


def score_arrays():
    from canon.data.tracking import make_table
    from canon.metrics import tracking
    from tools.scoring_trackeval import FRAMES, draw_tracks

    truth, result = (make_table(rows[:, 0], rows[:, 1], rows[:, 2:]) for rows in draw_tracks())
    return lambda: tracking.score_tracks(truth, result, FRAMES).summarise()


def score_files():
    from canon.data.tracking import mot_challenge, read_mot_results
    from canon.metrics import tracking
    from tools.scoring_trackeval import write_benchmark

    root = Path(tempfile.mkdtemp())
    write_benchmark(root)
    results = root / 'trackers/MOT17-train/T/data'

    def call():
        scores = []
        for sequence in mot_challenge(str(root / 'gt/MOT17-train')):
            assert sequence.truth is not None
            result = read_mot_results(results / f'{sequence.info.name}.txt', sequence.info.length)
            scores.append(tracking.score_tracks(sequence.truth, result, sequence.info.length, 'mot17'))
        return tracking.combine_scores(scores).summarise()

    return call


WORKS = {
    'arrays': Work({'canon': score_arrays}, 3, {'trackeval': 0.35}),
    'files': Work({'canon': score_files}, 1, {'trackeval': 0.3}),
}
BENCHMARK = Benchmark('benchmarks.tracking_scoring', WORKS, Peer('scoring_trackeval.py', 'trackeval'))


if __name__ == '__main__':
    comparison.main(__doc__, BENCHMARK)
