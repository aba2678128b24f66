"""Binds a config to tracking: a tracker, or min-cost flow, on sequences of any reader, scored by a benchmark's rules.

Nothing is trained here. Learnt parts come from the folders of other runs, or from earlier stages: config.detector (of
`detection`), config.appearance (of `track_embedding`) and config.affinity (of `track_affinity`) have `run` or `stage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import named, plots, tracking
from canon.configuration.nested import apply_form
from canon.data.tracking import SEQUENCE_SETS
from canon.errors import UsageError
from canon.tasks import tracking as tasks
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Experiment
from experiments import sequences

_BOUND = ('affinity', 'embedding_size', 'motion')  # arguments of trackers that other sections give

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': SEQUENCE_SETS,
    'data.evals.*': {'TrackingEvaluation': tasks.TrackingEvaluation},
    'tracker': {
        name: named.combine_arguments(tasks.TRACKERS.find(name), without=_BOUND) for name in tasks.TRACKERS.names()
    },
    'detections': {'DetectionInput': tasks.DetectionInput},
    'detector': {'find_run': sequences.check_run},
    'affinity': {'find_run': sequences.check_run},
    'appearance': {'find_run': sequences.check_run},
    'simulated': {'SimulatedAppearance': tasks.SimulatedAppearance},
    **{f'steps.{name}': {name: step} for name, step in tasks.STEPS.items()},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.tracker and config.steps."""
    return make_stage(config, {})


def make_stage(config: ConfigDict, stages: Mapping[str, Path]) -> Experiment:
    """Makes the experiment of a stage, whose learnt parts may be those of earlier ones."""
    config = apply_form(config)
    system = _bind_system(config, stages)
    evals = {name: _make_evaluator(config, system, name) for name in sorted(config.data.evals)}
    return Experiment(tasks.tracking_task(), evals=evals)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on sequences of digits, where its own would have to be read from files."""
    return sequences.use_digits(config)


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws frames of the sequences of an evaluation with their true tracks, or else their detections."""
    split = config.data.evals[min(config.data.evals)].split
    figures = {}
    for number in np.unique(batch['sequence'][batch['mask']]):
        sequence = sequences.load(config, split)[int(number)]
        table = sequence.detections if sequence.truth is None else sequence.truth
        frames = np.linspace(0, sequence.info.length - 1, 6).astype(int)
        blank = plots.make_canvas(table, sequence.info.height, sequence.info.width)
        read = blank if sequence.frames is None else sequence.read_frame
        pictures = np.stack(list(plots.render_tracks(read, table, frames.tolist(), min_side=240)))
        figures[sequence.info.name] = plots.draw_gallery(pictures, [f'frame {frame}' for frame in frames], columns=3)
    return figures


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Returns the experiment without its own sequences, which a user's sequence needs none of."""
    return make(offline(config))


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Tracks the sequence of a MOT folder, of a folder of frames or of a video: a file of results and an MP4.

    A folder with det/det.txt, or a file of detections, has its own. For frames alone, config.detector names a trained
    detector.
    """
    config = apply_form(config)
    system, settings = _bind_system(config, {}), _read_evaluation(config, min(config.data.evals))
    sequence = tasks.read_user_sequence(source)
    if system.class_names is not None:  # what a detector sees has the detector's classes
        sequence = sequence._replace(info=sequence.info._replace(class_names=system.class_names))
    detections = tasks.find_detections(system, sequence)
    length = sequence.info.length
    given = tasks.select_detections(detections, length, system.given)
    tracks, seconds = tasks.track_detections(system, sequence, given)
    files = tasks.list_result_files(sequence, tracks, settings)
    count = len(set(tracks.ids.tolist()))
    dropped = tasks.describe_dropped(system.given, len(given.frames), len(detections.frames))
    text = (
        f'{sequence.info.name}: {count} tracks in {length} frames, {length / max(seconds, 1e-9):.0f} frames per second'
    )
    yield Prediction(files=files, text=f'{text}; {dropped}' if dropped else text)


def _bind_system(config: ConfigDict, stages: Mapping[str, Path]) -> tasks.TrackingSystem:
    embed, embedding_size = _bind_appearance(config, stages)
    tracker, steps = None, []
    if config.get('steps'):
        steps = named.make_chain(config.steps, _make_step, 'steps')
    if config.get('tracker'):
        arguments = named.to_plain(config.tracker)
        make_tracker = tasks.TRACKERS.find(arguments.pop('name'), 'tracker.name')
        folder = sequences.find_run(config.get('affinity'), stages, 'affinity')
        if folder is not None:
            from experiments import track_affinity

            affinity, size = track_affinity.load_affinity(folder)
            arguments |= dict(affinity=affinity, embedding_size=size)
        if 'embedding_size' not in arguments and make_tracker is tracking.deep_sort:
            arguments['embedding_size'] = embedding_size or 1
        tracker = named.call(make_tracker, arguments, 'tracker')
    elif not steps:
        raise UsageError("the config has neither a tracker nor steps; set tracker.name, or steps.chain=('flow',)")
    given = named.call(tasks.DetectionInput, config.get('detections', {}), 'detections')
    detect, class_names = _bind_detector(config, stages)
    return tasks.TrackingSystem(tracker, steps, detect, embed, given, class_names)


def _bind_appearance(config: ConfigDict, stages: Mapping[str, Path]) -> tuple[Any, int]:
    """Returns the function that adds embeddings to detections, None if there is none, and their size."""
    folder = sequences.find_run(config.get('appearance'), stages, 'appearance')
    if folder is not None:
        from experiments import track_embedding

        embedder = track_embedding.load_embedder(folder)
        return partial(tasks.add_embeddings, embedder), embedder.size
    if config.get('simulated') is not None:
        simulated = named.call(tasks.SimulatedAppearance, config.simulated, 'simulated')
        return partial(tasks.simulate_embeddings, simulated), simulated.size
    return None, 0


def _bind_detector(config: ConfigDict, stages: Mapping[str, Path]) -> tuple[Any, tuple[str, ...] | None]:
    """Returns the function from a sequence to the detections of a trained detector, and its classes, or None twice."""
    folder = sequences.find_run(config.get('detector'), stages, 'detector')
    if folder is None:
        return None, None
    return _load_detector(folder)


@lru_cache(maxsize=1)  # a prediction binds the system after the experiment that evaluates it: the weights are read once
def _load_detector(folder: Path) -> tuple[Any, tuple[str, ...]]:
    from experiments import detection

    own, experiment, params, mutable = sequences.read_run(folder, 'detection', 'detector')
    model = experiment.task.predict, params, mutable
    transforms, names = detection.make_prediction_transforms(own, experiment.about), experiment.about['class_names']
    options = dict(transforms=transforms, batch_size=own.data.batch_size, class_names=names)
    return partial(tasks.detect_frames, *model, **options), tuple(names)


def _make_step(name: str, arguments: dict[str, Any], where: str) -> Any:
    if name not in tasks.STEPS:
        raise UsageError(f'{where}: there is no step {name!r}{named.suggest(name, tasks.STEPS)}')
    return named.call(tasks.STEPS[name], arguments, where)


def _read_evaluation(config: ConfigDict, name: str) -> tasks.TrackingEvaluation:
    return named.call(tasks.TrackingEvaluation, config.data.evals[name], f'data.evals.{name}')


def _make_evaluator(config: ConfigDict, system: tasks.TrackingSystem, name: str) -> Evaluator:
    settings = _read_evaluation(config, name)
    return tasks.tracking_evaluator(system, sequences.load(config, settings.split), settings)
