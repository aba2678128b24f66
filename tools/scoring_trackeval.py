"""TrackEval's side of benchmarks/tracking_scoring.py, and what both sides score. Imports nothing of Canon."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from turns import serve

FRAMES, OBJECTS, SEQUENCES, LENGTH = 500, 30, 20, 200


def draw_tracks(seed=0, frames=FRAMES, objects=OBJECTS):
    """Draws (truth, result), rows of (frame, id, x0, y0, x1, y1) from frame 0: misses, clutter, ids that change."""
    rng = np.random.default_rng(seed)
    centre, speed = rng.uniform(0, 900, (objects, 2)), rng.normal(0, 2, (objects, 2))
    sides = rng.uniform(40, 120, (objects, 2))
    low = centre + speed * np.arange(frames)[:, None, None]
    low = 900 - np.abs(low % 1800 - 900)  # mirrored at the edges of a picture
    boxes = np.concatenate([low, low + sides], -1)
    found = boxes + rng.normal(0, 4, boxes.shape)
    ids = np.arange(objects) + objects * np.cumsum(rng.random((frames, objects)) < 0.01, 0)
    shown = rng.random((frames, objects)) < 0.9
    clutter = rng.random((frames, objects)) < 0.05
    found[clutter] += rng.uniform(50, 300, (int(clutter.sum()), 1))
    frame = np.broadcast_to(np.arange(frames)[:, None], (frames, objects))
    truth = np.concatenate([frame[..., None], np.broadcast_to(np.arange(objects), frame.shape)[..., None], boxes], -1)
    result = np.concatenate([frame[..., None], ids[..., None], found], -1)
    return truth.reshape(-1, 6), result[shown]


def write_benchmark(root: Path) -> None:
    """Writes 20 sequences of MOT17 and results, in the folders that TrackEval expects."""
    for i in range(SEQUENCES):
        name = f'MOT17-{i:02d}'
        tables = draw_tracks(i, LENGTH)
        for rows, path, last in (
            (tables[0], root / f'gt/MOT17-train/{name}/gt/gt.txt', '1,1,1'),
            (tables[1], root / f'trackers/MOT17-train/T/data/{name}.txt', '0.9,-1,-1,-1'),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                f'{t + 1:.0f},{k:.0f},{x0 + 1:.2f},{y0 + 1:.2f},{x1 - x0:.2f},{y1 - y0:.2f},{last}\n'
                for t, k, x0, y0, x1, y1 in rows.tolist()
            ]
            path.write_text(''.join(lines))
        size = f'seqLength={LENGTH}\nframeRate=30\nimWidth=1020\nimHeight=1020\n'
        (root / f'gt/MOT17-train/{name}/seqinfo.ini').write_text(f'[Sequence]\nname={name}\n{size}')


def make_metrics():
    from trackeval.metrics import CLEAR, HOTA, Identity

    return [CLEAR({'PRINT_CONFIG': False}), Identity({'PRINT_CONFIG': False}), HOTA()]


def score_arrays():
    """Returns a call that computes the overlaps of 500 frames and the three metrics."""
    from trackeval.datasets import MotChallenge2DBox

    truth, result = draw_tracks()
    metrics = make_metrics()

    def call():
        data, split = {'num_timesteps': FRAMES}, []
        for name, rows in (('gt', truth), ('tracker', result)):
            values, numbers = np.unique(rows[:, 1], return_inverse=True)
            # Rows are in order of frames.
            starts = np.searchsorted(rows[:, 0], np.arange(1, FRAMES))
            data |= {f'num_{name}_dets': len(rows), f'num_{name}_ids': len(values)}
            data[f'{name}_ids'] = np.split(numbers, starts)
            split.append(np.split(rows[:, 2:], starts))
        data['similarity_scores'] = [
            MotChallenge2DBox._calculate_box_ious(a, b, box_format='x0y0x1y1') for a, b in zip(*split, strict=True)
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            return [metric.eval_sequence(data) for metric in metrics]

    return call


def score_files():
    """Returns a call that reads and scores the 20 sequences of a benchmark, and combines them."""
    from trackeval.datasets import MotChallenge2DBox

    root = Path(tempfile.mkdtemp())
    write_benchmark(root)
    names = {f'MOT17-{i:02d}': LENGTH for i in range(SEQUENCES)}
    config = dict(GT_FOLDER=str(root / 'gt'), TRACKERS_FOLDER=str(root / 'trackers'), BENCHMARK='MOT17')
    metrics = make_metrics()

    def call():
        with contextlib.redirect_stdout(io.StringIO()):
            data = MotChallenge2DBox(config | dict(SEQ_INFO=dict(names), PRINT_CONFIG=False))
            scores = [{} for _ in metrics]
            for name in names:
                ready = data.get_preprocessed_seq_data(data.get_raw_seq_data('T', name), 'pedestrian')
                for metric, found in zip(metrics, scores, strict=True):
                    found[name] = metric.eval_sequence(ready)
            return [metric.combine_sequences(found) for metric, found in zip(metrics, scores, strict=True)]

    return call


if __name__ == '__main__':
    from importlib.metadata import version

    serve({'arrays': score_arrays, 'files': score_files}, f'trackeval {version("trackeval")}')
