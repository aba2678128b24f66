"""Benchmarks of text recognition from a config, for the experiments whose tasks read texts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from canon import data, named
from canon.data.detection.sized_batches import fill_size
from canon.data.text.alphabets import Alphabet
from canon.tasks.text import BenchmarkEvaluation, BenchmarkSettings, benchmark_evaluator
from canon.train import Evaluator, Task
from experiments import images

SECTIONS = {
    'data.benchmarks': {'BenchmarkEvaluation': BenchmarkEvaluation},
    'data.benchmarks.sets.*': {'BenchmarkSettings': BenchmarkSettings},
}


def make_benchmarks(
    config: ConfigDict, task: Task, alphabet: Alphabet, decode: Callable[[Any], Any] | None = None
) -> dict[str, Evaluator]:
    """Makes the evaluator of config.data.benchmarks, {} if there is no such section or none of its sets has a path.

    Args:
      config: the whole config.
      task: that reads texts.
      alphabet: the characters of classes 1, 2, ...
      decode: from the task's outputs to the readings; that of CTC if None.
    """
    if 'benchmarks' not in config.data:
        return {}
    settings = named.call(BenchmarkEvaluation, config.data.benchmarks, 'data.benchmarks')
    if not (sets := settings.load(alphabet, config.data.get('data_dir'))):
        return {}
    transforms = partial(make_sized_transforms, settings.transforms, 'data.benchmarks.transforms')
    options: dict[str, Any] = dict(beam_width=settings.beam, compare=settings.compare, sizes=images.batch_sizes(config))
    bound = task, sets, alphabet, config.data.batch_size, transforms
    return {'benchmarks': benchmark_evaluator(*bound, decode=decode, **options)}


def make_sized_transforms(spec: Any, where: str, size: Any = None) -> tuple[data.Transform, ...]:
    """Returns the transforms of a config that give images of a size of config.data.sizes."""
    return data.transforms.make_transforms(fill_size(spec, size), where)
