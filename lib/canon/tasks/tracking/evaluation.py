"""Evaluates a tracking system: the metrics of its sequences, their result files, and figures of what went wrong.

Batches hold 'sequence', int32 [B], numbers of sequences, and 'mask', bool [B]: the sequences themselves have boxes of
any number, and pictures that are read only to be drawn. B is the number of devices, so that processes share the work.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from canon import data, named, plots
from canon.data.tracking import (
    SequenceInfo,
    TrackSequence,
    TrackSequences,
    TrackTable,
    write_detrac_results,
    write_kitti_results,
    write_mot_results,
    write_track_csv,
)
from canon.errors import UsageError
from canon.metrics import Rows
from canon.metrics.tracking import (
    SWITCH_CAUSES,
    TrackScores,
    combine_scores,
    find_switches,
    keep_scored,
    match_continuously,
    score_overlaps,
)
from canon.tasks.tracking.running import (
    TrackingSystem,
    describe_dropped,
    find_detections,
    select_detections,
    track_detections,
)
from canon.tasks.tracking.score_thresholds import count_by_threshold, integrate_counts
from canon.train import Evaluator, Task

_log = logging.getLogger('canon')
Format = Literal['mot_challenge', 'kitti', 'ua_detrac', 'csv']
METRICS = (
    'MOTA', 'MOTP', 'IDF1', 'HOTA', 'DetA', 'AssA', 'LocA', 'IDSW', 'CLR_FP', 'CLR_FN', 'MT', 'ML', 'Frag',
)  # fmt: skip
_BY_SEQUENCE = ('MOTA', 'IDF1', 'HOTA')


@dataclass(frozen=True, kw_only=True)
class TrackingEvaluation:
    """An entry of config.data.evals.

    Attributes:
      split: of the data, such as 'test[:4]'.
      preset: rules of a benchmark, a name of `canon.metrics.tracking.PRESETS`.
      min_iou: of a match in the CLEAR and identity metrics.
      pr_thresholds: scores of detections, ascending, at which PR-MOTA runs the tracker: 0, 0.1, ..., 0.9 in UA-DETRAC.
        None are given: it is not computed.
      results: format of the files of results.
      video_frames: of the first sequence that the video shows; 0 makes none.
      video_scale: of the video's pictures.
      trail: frames for which the path of an object stays visible.
    """

    split: str
    preset: str = 'mot15'
    min_iou: named.Probability = 0.5
    pr_thresholds: tuple[float, ...] = ()
    results: Format = 'mot_challenge'
    video_frames: int = 60
    video_scale: named.Positive = 1.0
    trail: int = 20


def tracking_task() -> Task:
    """Makes the task of a system that learns nothing: no parameters and no loss."""

    def refuse(*_):
        raise UsageError('a tracker is not trained; its learnt parts are (configs/tracking/embedding_digits.py)')

    return Task(lambda key, batch: {'params': {}}, refuse, refuse)


def tracking_evaluator(system: TrackingSystem, sequences: TrackSequences, settings: TrackingEvaluation) -> Evaluator:
    """Evaluates `METRICS` over all sequences, some per sequence, causes of switches, and frames per second.

    Args:
      system: what is evaluated.
      sequences: with truth.
      settings: of the evaluation.
    """
    if len(settings.pr_thresholds) == 1 or list(settings.pr_thresholds) != sorted(set(settings.pr_thresholds)):
        raise UsageError(
            f'pr_thresholds={settings.pr_thresholds} must be two or more ascending scores, such as (0.0, 0.5)'
        )
    kept, scored = _Kept(sequences), {}

    def measure(params, mutable, batch):
        return sum((track(int(number)) for number in batch['sequence'][batch['mask']]), Rows(()))

    def track(number):
        sequence = kept[number]
        if sequence.truth is None:
            raise UsageError(
                f'the sequence {sequence.info.name} has no truth; predict writes its tracks: --mode=predict'
            )
        table = find_detections(system, sequence)
        given = select_detections(table, sequence.info.length, system.given)
        tracks, seconds = track_detections(system, sequence, given)
        # Columns with an axis in front: sequences are rows of different lengths.
        columns = {name: np.asarray(column)[None] for name, column in tracks._asdict().items()}
        columns['detections'] = np.array([[len(given.frames), len(table.frames)]])
        if settings.pr_thresholds:
            options = settings.pr_thresholds, settings.preset, settings.min_iou
            columns['pr'] = count_by_threshold(system, sequence, table, *options)[None]
        row = {'sequence': np.array([number]), 'seconds': np.array([seconds]), **columns}
        return Rows.of(row, np.ones(1, bool))

    def score(rows):
        """Returns {number: (tracks, overlaps, scores, seconds)}, computed once for the metrics, files and figures."""
        for row in rows.each():
            number = int(row['sequence'])
            if number not in scored:
                tracks, sequence = TrackTable(*(row[name] for name in TrackTable._fields)), kept[number]
                assert sequence.truth is not None  # `track` has refused others
                arguments = sequence.truth, tracks, sequence.info.length, settings.preset, sequence.ignored_regions
                overlaps = keep_scored(*arguments)
                scored[number] = tracks, overlaps, score_overlaps(overlaps, settings.min_iou), float(row['seconds'])
        return dict(sorted(scored.items()))

    def finish(rows):
        results = score(rows)
        infos = {number: kept[number].info for number in results}
        given, total = np.sum([row['detections'] for row in rows.each()], axis=0).tolist()
        if dropped := describe_dropped(system.given, given, total):
            _log.info('%s: %s', settings.split, dropped)
        metrics = _list_metrics(combine_scores([scores for _, _, scores, _ in results.values()]))
        seconds = sum(seconds for *_, seconds in results.values())
        metrics['frames_per_second'] = sum(info.length for info in infos.values()) / max(seconds, 1e-9)
        if settings.pr_thresholds:
            metrics['PR_MOTA'] = integrate_counts(np.sum([row['pr'] for row in rows.each()], axis=0))
        causes = [find_switches(overlaps, settings.min_iou).count_causes() for _, overlaps, _, _ in results.values()]
        metrics |= {f'switches_{name}': float(sum(counts[name] for counts in causes)) for name in SWITCH_CAUSES}
        for number, (_, _, scores, _) in results.items():
            own = scores.summarise()
            metrics |= {f'{infos[number].name}/{name}': own[name] for name in _BY_SEQUENCE}
        return metrics

    def draw(params, mutable, rows):
        results = score(rows)
        number, (tracks, overlaps, _, _) = next(iter(results.items()))
        sequence = kept[number]
        figures = {'identities': draw_identity_chart(overlaps, settings.min_iou, sequence.info.name)}
        if settings.video_frames:
            figures['tracks'] = make_video(sequence, tracks, settings)
        return figures

    def write(rows, folder):
        results = score(rows)
        for number, (tracks, *_) in results.items():
            write_results(folder, kept[number].info, tracks, settings.results)
        named_scores = {kept[number].info.name: scores for number, (_, _, scores, _) in results.items()}
        write_scores(folder / 'scores.csv', named_scores)

    return Evaluator(_number_sequences(len(kept)), measure, finish, draw, on_host=True, write=write)


def draw_identity_chart(overlaps: Any, min_iou: float, title: str = '') -> Any:
    """Draws which track covers each object over time, with the causes of its identity switches."""
    matches = match_continuously(overlaps, min_iou)
    truth, result = overlaps.truth[matches], overlaps.result[matches]
    covered = overlaps.truth_frames[truth], overlaps.truth_ids[truth], overlaps.result_ids[result]
    switches = find_switches(overlaps, min_iou)
    present = overlaps.truth_frames, overlaps.truth_ids
    return plots.draw_identities(present, covered, switches, SWITCH_CAUSES, f'{title}: tracks of each object')


def make_video(sequence: TrackSequence, tracks: TrackTable, settings: TrackingEvaluation, min_side: int = 0) -> Any:
    """Makes the video of the first frames of a sequence, on a blank canvas where it has no pictures.

    Args:
      sequence: whose pictures are shown.
      tracks: of it.
      settings: number of frames, scale and trails.
      min_side: smaller pictures are enlarged to it by a whole factor, so that ids do not hide what they name.
    """
    length = min(sequence.info.length, settings.video_frames)
    canvas = plots.make_canvas(tracks, sequence.info.height, sequence.info.width)
    read = canvas if sequence.frames is None else sequence.read_frame
    options = dict(trail=settings.trail, scale=settings.video_scale, min_side=min_side)
    render = partial(plots.render_tracks, read, tracks, range(length), **options)
    return plots.TrackVideo(render, min(sequence.info.frame_rate or 20.0, 50.0))


def write_results(folder: Path, info: SequenceInfo, tracks: TrackTable, form: Format) -> None:
    """Writes the tracks of a sequence in the format of a benchmark, as NAME.txt, NAME_LX.txt ... or NAME.csv."""
    writers: Mapping[str, Callable[[], Any]] = {
        'mot_challenge': lambda: write_mot_results(folder / f'{info.name}.txt', tracks),
        'kitti': lambda: write_kitti_results(folder / f'{info.name}.txt', tracks, info.class_names),
        'ua_detrac': lambda: write_detrac_results(folder / info.name, tracks, info.length),
        'csv': lambda: write_track_csv(folder / f'{info.name}.csv', tracks, info.class_names),
    }
    writers[form]()


def write_scores(path: Path, scores: Mapping[str, TrackScores]) -> None:
    """Writes a CSV of `METRICS`: a row per sequence, and the last of all combined."""
    rows = {**scores, 'combined': combine_scores([*scores.values()])}
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(('sequence', *METRICS))
        for name, own in rows.items():
            writer.writerow((name, *(format(value, '.6g') for value in _list_metrics(own).values())))


def _list_metrics(scores: TrackScores) -> dict[str, float]:
    summary = scores.summarise()
    return {name: summary[name] for name in METRICS}


def _number_sequences(count: int) -> data.Generated:
    """Returns batches of the numbers of sequences, as many in each as there are devices."""
    size = jax.device_count()

    def make_batch(step):
        numbers = np.arange(step * size, (step + 1) * size, dtype=np.int32)
        return {'sequence': np.minimum(numbers, count - 1), 'mask': numbers < count}

    return data.Generated(make_batch, size, length=-(-count // size))


class _Kept:
    """Sequences that are read, or made, once; a picture is read whenever it is drawn."""

    def __init__(self, sequences: TrackSequences):
        self._sequences, self._read = sequences, {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, number: int) -> TrackSequence:
        if number not in self._read:
            self._read[number] = self._sequences[number]
        return self._read[number]
