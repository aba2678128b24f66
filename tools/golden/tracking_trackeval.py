"""Writes tests/metrics/golden/tracking.npz: random sequences, their scores by TrackEval, and those of its benchmarks.

python tools/golden/tracking_trackeval.py      (needs trackeval 1.3.0 and numpy)

Coordinates are multiples of 1/4, so that overlaps are equal to the last bit in any order of operations, and many of
them tie. The rows of a frame are in random order, and ids begin anywhere.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
from trackeval.datasets import Kitti2DBox, MotChallenge2DBox
from trackeval.metrics import CLEAR, HOTA, Identity

GOLDEN = Path(__file__).parents[2] / 'tests/metrics/golden/tracking.npz'
METRICS = [CLEAR({'PRINT_CONFIG': False}), Identity({'PRINT_CONFIG': False}), HOTA()]
COLUMNS = ('frame', 'id', 'x0', 'y0', 'x1', 'y1', 'label', 'ignored')


def draw(seed, length, objects, size, field, jitter, miss, clutter, swap, empty=0.0, grid=0.25):
    """Draws (truth, result), rows of COLUMNS: objects that move, with misses, clutter, swapped ids and empty frames."""
    rng = np.random.default_rng(seed)

    def snap(x):
        return np.round(np.asarray(x) / grid) * grid

    centre, speed = rng.uniform(0, field, (objects, 2)), rng.normal(0, 2, (objects, 2))
    sides = snap(rng.uniform(0.7, 1.3, (objects, 2)) * size)
    ids, numbers = rng.permutation(5 * objects)[:objects] + 3, rng.permutation(objects)
    next_number, truth, result = objects, [], []
    begins, ends = rng.integers(0, length // 3 + 1, objects), rng.integers(2 * length // 3, length + 1, objects)
    for t in range(length):
        has_truth, has_result = rng.random(2) >= empty
        for k in np.flatnonzero(rng.random(objects) < swap):
            if rng.random() < 0.5:
                other = rng.integers(objects)
                numbers[[k, other]] = numbers[[other, k]]
            else:
                numbers[k], next_number = next_number, next_number + 1
        rows, found = [], []
        for k in range(objects):
            if not begins[k] <= t < ends[k]:
                continue
            corner = snap(centre[k] + t * speed[k])
            rows.append((t, ids[k], *corner, *(corner + sides[k]), 0, 0))
            if rng.random() >= miss:
                low, high = snap(corner + rng.normal(0, jitter, 2)), snap(sides[k] * rng.uniform(0.9, 1.1, 2))
                found.append((t, 2 * numbers[k] + 7, *low, *(low + np.maximum(high, grid)), 0, 0))
            if rng.random() < clutter:  # a second box of an object, or one anywhere
                near = rng.random() < 0.5
                low = corner + grid if near else snap(rng.uniform(0, field, 2))
                found.append((t, 100_000 + 10 * k + rng.integers(3), *low, *(low + sides[k]), 0, 0))
        truth += [rows[i] for i in rng.permutation(len(rows))] if has_truth else []
        result += [found[i] for i in rng.permutation(len(found))] if has_result else []
    return tuple(np.array(x, np.float64).reshape(-1, len(COLUMNS)) for x in (truth, result))


def list_cases():
    usual = dict(length=40, objects=8, size=40, field=300, jitter=3, miss=0.1, clutter=0.1, swap=0.02)
    crowd = dict(length=30, objects=24, size=40, field=90, jitter=4, miss=0.15, clutter=0.2, swap=0.05)
    cases = {
        'usual': draw(1, **usual),
        'empty_frames': draw(2, **usual | dict(empty=0.35, swap=0.1)),
        'crowd': draw(3, **crowd),
        'ties': draw(4, **crowd | dict(grid=8.0, jitter=6)),  # boxes on a coarse grid: many are the same
        'swaps': draw(5, **usual | dict(swap=0.5, jitter=1, field=120)),
        'poor': draw(6, **usual | dict(jitter=14, miss=0.5, clutter=0.8)),
        'exact': draw(7, **usual | dict(jitter=0, miss=0, clutter=0, swap=0)),
        'long_ids': draw(8, **usual | dict(length=60, objects=3, swap=0.6)),
    }
    truth, result = cases['usual']
    none = truth[:0]
    # Twins: each result stands twice under two ids, so that every assignment ties.
    twins = np.repeat(result, 2, 0)
    twins[1::2, 1] += 1
    line = truth[truth[:, 1] == truth[0, 1]]
    cases |= {'no_result': (truth, none), 'no_truth': (none, result), 'nothing': (none, none)}
    return cases | {'twins': (truth, twins), 'one': (line, line[3:9]), 'apart': (truth, result + np.eye(8)[2] * 5000)}


def evaluate(truth, result, length):
    """Returns TrackEval's scores of one sequence by metric."""
    data = dict(num_timesteps=length, num_gt_dets=len(truth), num_tracker_dets=len(result), similarity_scores=[])
    for name, rows in (('gt', truth), ('tracker', result)):
        values, numbers = np.unique(rows[:, 1], return_inverse=True)
        data[f'num_{name}_ids'] = len(values)
        data[f'{name}_ids'] = [numbers[rows[:, 0] == t] for t in range(length)]
    for t in range(length):
        boxes = [rows[rows[:, 0] == t][:, 2:6] for rows in (truth, result)]
        data['similarity_scores'].append(MotChallenge2DBox._calculate_box_ious(*boxes, box_format='x0y0x1y1'))
    return [metric.eval_sequence(data) for metric in METRICS]


def flatten(scores):
    """Joins the scores of the metrics, arrays [19] and numbers, into one array after their names."""
    joined = {name: value for metric in scores for name, value in metric.items()}
    return list(joined), np.concatenate([np.atleast_1d(np.asarray(x, np.float64)) for x in joined.values()])


# --- the rules of benchmarks -----------------------------------------------------------------------------------------


def draw_classes(rows, rng, labels, shares, ignored):
    """Gives each row of the truth a class, and ignores some."""
    rows = rows.copy()
    rows[:, 6] = rng.choice(labels, len(rows), p=shares)
    rows[:, 7] = rng.random(len(rows)) < ignored
    return rows


def write_mot(path, rows, is_truth):
    lines = []
    for frame, number, x0, y0, x1, y1, label, ignored in rows.tolist():
        last = f'{1 - int(ignored)},{int(label) + 1},0.5' if is_truth else '0.9,-1,-1,-1'
        lines.append(f'{frame + 1:.0f},{number:.0f},{x0 + 1},{y0 + 1},{x1 - x0},{y1 - y0},{last}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


def evaluate_mot(benchmark, truth, result, length):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_mot(root / f'gt/{benchmark}-train/S/gt/gt.txt', truth, True)
        write_mot(root / f'trackers/{benchmark}-train/T/data/S.txt', result, False)
        config = dict(GT_FOLDER=str(root / 'gt'), TRACKERS_FOLDER=str(root / 'trackers'), BENCHMARK=benchmark)
        data = MotChallenge2DBox(config | dict(SEQ_INFO={'S': length}, PRINT_CONFIG=False))
        raw = data.get_raw_seq_data('T', 'S')
        ready = data.get_preprocessed_seq_data(raw, 'pedestrian')
        return [metric.eval_sequence(ready) for metric in METRICS]


KITTI = ('Car', 'Van', 'Truck', 'Pedestrian', 'Person', 'Cyclist', 'Tram', 'Misc')


def write_kitti(path, rows, regions, rng):
    lines = []
    for frame, number, x0, y0, x1, y1, label, ignored in rows.tolist():
        # Truncated or occluded too far, which is what is ignored.
        truncated, occluded = ((1, 0), (0, 3), (2, 1))[rng.integers(3)] if ignored else (0, rng.integers(3))
        head = f'{frame:.0f} {number:.0f} {KITTI[int(label)]} {truncated} {occluded} -10'
        lines.append(
            f'{head} {x0} {y0} {x1} {y1} -1 -1 -1 -1000 -1000 -1000 -10' + ('' if regions is not None else ' .9')
        )
    for frame, *box in [] if regions is None else regions.tolist():
        lines.append(f'{frame:.0f} -1 DontCare -1 -1 -10 {" ".join(map(str, box))} -1 -1 -1 -1000 -1000 -1000 -10')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n')


def evaluate_kitti(name, truth, result, regions, length, rng):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_kitti(root / 'label_02/0000.txt', truth, regions, rng)
        write_kitti(root / 'trackers/T/data/0000.txt', result, None, rng)
        (root / 'evaluate_tracking.seqmap.training').write_text(f'0000 empty 000000 {length:06d}\n')
        config = dict(GT_FOLDER=str(root), TRACKERS_FOLDER=str(root / 'trackers'), PRINT_CONFIG=False)
        data = Kitti2DBox(config)
        ready = data.get_preprocessed_seq_data(data.get_raw_seq_data('T', '0000'), name)
        return [metric.eval_sequence(ready) for metric in METRICS]


def main():
    out, scores = {}, {}
    for name, (truth, result) in list_cases().items():
        length = 60 if name == 'long_ids' else 40
        out |= {f'{name}/truth': truth, f'{name}/result': result, f'{name}/length': length}
        scores[name] = evaluate(truth, result, length)
    combined = [
        metric.combine_sequences({name: case[i] for name, case in scores.items()}) for i, metric in enumerate(METRICS)
    ]
    for name, case in (scores | {'combined': combined}).items():
        out[f'{name}/names'], out[f'{name}/scores'] = flatten(case)
    rng = np.random.default_rng(19)
    crowd = dict(length=40, objects=20, size=40, field=220, jitter=3, miss=0.1, clutter=0.2, swap=0.02)
    truth, result = draw(9, **crowd)
    labels, shares = np.arange(13), np.full(13, 0.5 / 12)
    shares[0] = 0.5
    mot = draw_classes(truth, rng, labels, shares, 0.1)
    plain = draw_classes(truth, rng, [0], [1.0], 0.1)
    for benchmark in ('MOT15', 'MOT16', 'MOT17', 'MOT20'):
        rows = plain if benchmark == 'MOT15' else mot
        name = benchmark.lower()
        out |= {f'{name}/truth': rows, f'{name}/result': result, f'{name}/length': 40}
        out[f'{name}/names'], out[f'{name}/scores'] = flatten(evaluate_mot(benchmark, rows, result, 40))
    kitti = draw_classes(truth, rng, np.arange(8), [0.3, 0.1, 0.05, 0.3, 0.1, 0.05, 0.05, 0.05], 0.2)
    found = draw_classes(result, rng, [0, 3], [0.6, 0.4], 0)
    low = rng.random(len(found)) < 0.2
    found[low, 5] = found[low, 3] + rng.choice([20, 25, 25.25, 30], low.sum())  # on both sides of the least height
    corners = np.round(4 * rng.uniform(0, 200, (60, 2))) / 4
    regions = np.concatenate([rng.integers(0, 40, (60, 1)), corners, corners + 60], 1).astype(np.float64)
    regions = regions[np.argsort(regions[:, 0], kind='stable')]
    out |= {'kitti/truth': kitti, 'kitti/result': found, 'kitti/length': 40, 'kitti/regions': regions}
    for name in ('car', 'pedestrian'):
        scored = evaluate_kitti(name, kitti, found, regions, 40, np.random.default_rng(0))
        out[f'kitti_{name}/names'], out[f'kitti_{name}/scores'] = flatten(scored)
    np.savez_compressed(GOLDEN, **out)


if __name__ == '__main__':
    with contextlib.redirect_stdout(io.StringIO()):
        main()
