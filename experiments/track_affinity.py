"""Binds a config to a learnt affinity: a network that scores tracks and detections of sequences, through Sinkhorn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import data, models, named, plots, tracking
from canon.data.tracking import SEQUENCE_SETS
from canon.errors import UsageError
from canon.tasks import tracking as tasks
from canon.train import Evaluator, Experiment
from experiments import sequences, track_embedding

MOTIONS = {
    'sort_motion': tracking.sort_motion,
    'deep_sort_motion': tracking.deep_sort_motion,
    'center_size_motion': tracking.center_size_motion,
}

# The functions whose arguments the sections of a config hold, so that the command line may set each of them.
SECTIONS = {
    'data.source': SEQUENCE_SETS,
    'data.pairs': {'PairSettings': tasks.PairSettings},
    'data.evals.*': {'LinkEvaluation': tasks.LinkEvaluation},
    'appearance': {'find_run': sequences.check_run},
    'motion': MOTIONS,
    'sinkhorn': {'AffinitySettings': tasks.AffinitySettings},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.motion, config.model, config.sinkhorn and config.tx."""
    return make_stage(config, {})


def make_stage(config: ConfigDict, stages: Mapping[str, Path]) -> Experiment:
    """Makes the experiment of a stage; config.appearance may name an earlier one that has learnt an embedding."""
    folder = sequences.find_run(config.get('appearance'), stages, 'appearance')
    embedder = None if folder is None else track_embedding.load_embedder(folder)
    experiment = without_data(config, {'embedding_size': embedder.size if embedder else 0})
    settings = named.call(tasks.PairSettings, config.data.get('pairs', {}), 'data.pairs')
    options = dict(settings=settings, motion=_make_motion(config), embedder=embedder)
    pair = partial(tasks.PairBatches, batch_size=config.data.batch_size, **options)
    train = pair(sequences.load(config, config.data.train.split)).draw(config.seed)
    evals = {name: _make_evaluator(config, experiment, pair, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """Makes the experiment of a run from its `about` in run.json: enough to score tracks and detections."""
    network = models.make_model(**named.to_plain(config.model), appearance=about['embedding_size'] > 0)
    settings = named.call(tasks.AffinitySettings, config.get('sinkhorn', {}), 'sinkhorn')
    task = tasks.affinity_task(network, settings)
    return Experiment(task, config.tx, _make_zeros(config.data.batch_size, about['embedding_size']), about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on sequences of digits, where its own data would have to be read from files."""
    return sequences.use_digits(config)


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws tracks, predicted for the frame of the detections, next to the detections that continue them."""
    return {'pairs': plots.draw_match_batch(batch)}


def load_affinity(folder: Path, where: str = 'affinity') -> tuple[Callable[..., Any], int]:
    """Returns the affinity that a run of this experiment has left in its folder, and the size of its embeddings, or 0.

    where: the section of the config that names it, for errors.
    """
    _, experiment, params, _ = sequences.read_run(folder, 'track_affinity', where)
    return tasks.learnt_affinity(experiment.task, params), experiment.about['embedding_size']


def _make_evaluator(config: ConfigDict, experiment: Experiment, pair: Callable, name: str) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(tasks.LinkEvaluation, config.data.evals[name], where)
    batches = pair(sequences.load_held_out(config, settings.split, where)).list(settings.gaps, settings.every)
    return tasks.link_evaluator(experiment.task, batches, settings)


def _make_motion(config: ConfigDict) -> tracking.MotionModel:
    arguments = named.to_plain(config.get('motion', {}))
    name = arguments.pop('name', next(iter(MOTIONS)))
    if name not in MOTIONS:
        raise UsageError(f'motion.name={name!r} is unknown{named.suggest(name, MOTIONS)}')
    return named.call(MOTIONS[name], arguments, 'motion')


def _make_zeros(batch_size: int, embedding_size: int) -> data.Generated:
    """Returns batches of one slot that stand for those of training, since no parameter depends on their number."""
    shape = (batch_size, 1)
    side = {'boxes': np.zeros((*shape, 4), np.float32), 'valid': np.zeros(shape, bool)}
    if embedding_size:
        side['embeddings'] = np.zeros((*shape, embedding_size), np.float32)
    tracks = {**side, 'observed': side['boxes'], 'gaps': np.zeros(shape, np.int32)}
    detections = {**side, 'scores': np.zeros(shape, np.float32)}
    rest = {
        'matches': np.zeros(shape, np.int32),
        'gap': np.zeros(batch_size, np.int32),
        'mask': np.ones(batch_size, bool),
    }
    return data.Generated(lambda step: {'tracks': tracks, 'detections': detections, **rest}, batch_size)
