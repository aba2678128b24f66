"""Binds a stage that reads with lexica of several sizes: words read, and words scored per image.

    lexica=dict(experiment='lexicon_sizes')
    lexicon=dict(network='reader', words=None, sizes=(50, 1000), distances=(1, 2, 3))

The images are those of config.data.benchmarks, and the network that of the stage `lexicon.network`.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from canon import backend, named, plots
from canon.data.text.engine.lexicon import list_lexicon
from canon.data.text.line_sizes import batch_lines_once
from canon.errors import UsageError
from canon.metrics import add
from canon.named import suggest, to_plain
from canon.tasks.text import BenchmarkEvaluation, TextBenchmark, TextSettings
from canon.tasks.text.lexicon_sizes import LexiconSizes
from canon.train import load_trained
from canon.train.artefacts import Artefacts
from experiments import text_recognition, texts
from experiments.regions import save_figures

_IMAGES = 32  # read at a time


def compute(config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> dict[str, float]:
    """Writes `lexica.csv`, a row per set and size, and reports {'benchmarks/SET/exact_50', ...}."""
    path = artefacts.compute('lexica.csv', lambda path: _write(path, config, stages, artefacts))
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    names = {d: f'within {d} edit{"" if d == 1 else "s"}' for d in config.lexicon.distances}
    for title in dict.fromkeys(row['set'] for row in rows):
        own = [row for row in rows if row['set'] == title]
        sizes = [int(row['words']) for row in own]
        accuracies, scored = (
            {'every word': [float(row['exact']) for row in own]},
            {'every word': [float(n) for n in sizes]},
        )
        for distance, name in names.items():
            accuracies[name] = [float(row[f'within_{distance}']) for row in own]
            scored[name] = [float(row[f'scored_{distance}']) for row in own]
        figure = plots.draw_lexicon_sizes(sizes, accuracies, scored, f'{title}: {own[0]["images"]} images')
        save_figures(artefacts, {f'{title} lexica': figure})
    skipped = ('set', 'words', 'images')
    return {
        f'benchmarks/{row["set"]}/{column}_{row["words"]}': float(value)
        for row in rows
        for column, value in row.items()
        if column not in skipped
    }


def _write(path: Path, config: ConfigDict, stages: Mapping[str, Path], artefacts: Artefacts) -> None:
    settings = texts.read_settings(config)
    words = list_lexicon(config.lexicon.words, settings.alphabet, settings.max_length, max(config.lexicon.sizes))
    lexica = LexiconSizes(words, settings.alphabet, to_plain(config.lexicon.sizes), to_plain(config.lexicon.distances))
    network = config.lexicon.network
    if network not in stages:
        raise UsageError(f'lexicon.network={network!r} is not a stage before this one{suggest(network, stages)}')
    experiment = text_recognition.make(config)
    trained = load_trained(experiment, config, stages[network])
    predict = partial(backend.jit(experiment.task.predict), trained.params, trained.mutable)
    benchmarks = named.call(BenchmarkEvaluation, config.data.benchmarks, 'data.benchmarks')
    transforms = partial(texts.make_sized_transforms, benchmarks.transforms, 'data.benchmarks.transforms')
    columns = ['exact', *(f'{kind}_{d}' for d in lexica.distances for kind in ('within', 'scored'))]
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['set', 'words', 'images', *columns])
        for benchmark in benchmarks.load(settings.alphabet):
            sums = _measure(benchmark, lexica, predict, transforms, settings, artefacts)
            for size in lexica.sizes:
                values = [sums[f'{column}_{size}'] for column in columns]
                writer.writerow([benchmark.name, size, int(values[0].weight), *(float(v.value) for v in values)])


def _measure(
    benchmark: TextBenchmark,
    lexica: LexiconSizes,
    predict: Any,
    transforms: Any,
    settings: TextSettings,
    artefacts: Artefacts,
) -> dict[str, Any]:
    """Returns the sums of `LexiconSizes.measure` over the images of a set."""
    parts, alphabet = [], settings.alphabet
    batches = batch_lines_once(benchmark.source, _IMAGES, ((32, 100),), transforms, threads=0, memory_limit=0)
    for done, batch in enumerate(batches.iterate()):
        artefacts.report(done, len(batches))
        rows = np.flatnonzero(batch['mask'])
        texts = [alphabet.decode(batch['label'][row]) for row in rows]
        parts.append(lexica.measure(np.asarray(predict(batch))[rows], texts))
    return reduce(add, parts)
