"""Benchmarks of text recognition: several sets in one evaluation, with one table.

Published figures of one set differ by the words that count (ICDAR 2013 has 857, 1,015 or 1,095), by what is compared,
and by the lexicon. A `TextBenchmark` therefore states its variant, and the table has the numbers of images and of texts
that are left out, and the words that are right under both comparisons.

    sets = [TextBenchmark('SVT', load_source('svt', 'test', path='svt1'))]
    evaluator = benchmark_evaluator(task, sets, Alphabet(ignore_case=True), 64, make_transforms)
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np

from canon import backend, metrics, named
from canon.data.detection.sized_batches import MakeTransforms
from canon.data.images.geometry import Size
from canon.data.pipeline.loading import DATA_SETS
from canon.data.pipeline.mixing import Concatenated
from canon.data.pipeline.source import Source
from canon.data.text.alphabets import Alphabet
from canon.data.text.labelled import NumberedSource, load_labelled
from canon.data.text.line_sizes import batch_lines_once
from canon.errors import UsageError
from canon.metrics import Mean, add
from canon.metrics.text_scores import Comparison
from canon.named import Count, Range
from canon.tasks.text.lexicon_reading import make_lexicon_reader
from canon.tasks.text.recognition import decode_labels
from canon.train import Evaluator, Task

_COLUMNS = {
    'word_accuracy_36': 'words (36)',
    'word_accuracy': 'words (exact)',
    'character_error_rate': 'CER',
    'word_error_rate': 'WER',
    'ned_dtrb': '1 - NED (DTRB)',
    'ned_parseq': 'NED (PARSeq)',
}
_ALL = 'all'  # the row of all benchmarks together
_LONGEST = 256  # characters of a label
_SHOWN = 4  # entries of a list in the table


class TextBenchmark(NamedTuple):
    """A set to be read.

    Attributes:
      name: its name in the table and in the names of metrics.
      source: examples with 'image' and a label. Its `read_text(index)`, if it has one, gives whole texts, with the
        characters that labels lack.
      variant: what distinguishes it from others of the set, such as which words count; the table adds the lexicon.
      lexicon: 'own' reads each image as the most probable word of its own lexicon (`source.read_lexicon(index)`),
        'full' as that of all words of the set, and a file with a word per line as that of its words; 'none' reads
        freely.
      lexicon_distance: edits between the best path and the words that are scored, at most; None scores every word.
    """

    name: str
    source: Source
    variant: str = ''
    lexicon: str = 'none'
    lexicon_distance: int | None = None


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """An entry of config.data.benchmarks.sets.

    Attributes:
      data: the name of the data set (`canon.data.load_source`); not `name`, which selects a function in other sections.
      split: of it; may be sliced.
      source: further arguments of the data set: path, words, exclude, outside, ...
      lexicon: 'none', 'own' (of each image, as the set has it; for IIIT5K with source.lexicon='small' or 'medium'),
        'full' (all words of the set) or a file with a word per line.
      lexicon_distance: edits between the best path and the words that are scored, at most, 3 in the CRNN paper; None
        scores every word of the lexicon.
    """

    data: str
    split: str = 'test'
    source: Mapping[str, Any] | None = None
    lexicon: str = 'none'
    lexicon_distance: Annotated[int, Range(0)] | None = None

    @property
    def variant(self) -> str:
        """The arguments of the set without its path and its lexica."""
        shown = {key: value for key, value in self._arguments().items() if key not in ('path', 'lexicon')}
        return ', '.join(f'{key}={_shorten(value)}' for key, value in shown.items())

    @property
    def is_missing(self) -> bool:
        """Whether the set is read from files, and no path is given."""
        function = DATA_SETS.get(self.data)
        return function is not None and named.accepts(function, 'path') and 'path' not in self._arguments()

    def load(self, title: str, alphabet: Alphabet, data_dir: str | None = None) -> TextBenchmark:
        """Loads the set. Long labels are allowed, since texts are compared as strings.

        Args:
          title: the name in the table and of the metrics.
          alphabet: the characters of labels.
          data_dir: of TFDS sets.

        Raises:
          UsageError: as `canon.data.text.labelled.load_labelled`.
        """
        arguments = {'data_dir': data_dir, 'max_length': _LONGEST, **self._arguments()}
        source = load_labelled(self.data, self.split, alphabet, **arguments)
        return TextBenchmark(title, source, self.variant, self.lexicon, self.lexicon_distance)

    def _arguments(self) -> dict[str, Any]:
        # None is a placeholder of the config, which the command line did not set.
        return {key: value for key, value in (self.source or {}).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class BenchmarkEvaluation:
    """config.data.benchmarks.

    Attributes:
      sets: {title: `BenchmarkSettings`}; those of files without a path are left out.
      path: of the sets that have none of their own, such as a folder of LMDB folders.
      transforms: a chain (`canon.data.transforms.make_transforms`).
      beam: width of the prefix beam search; 0 decodes the best path.
      compare: what CER, WER and NED compare: 'alphanumeric' (36 characters, case-insensitive) or 'exact' texts.
    """

    sets: Mapping[str, Any]
    path: str | None = None
    transforms: Mapping[str, Any] | None = None
    beam: Annotated[int, Range(0)] = 0
    compare: Comparison = 'alphanumeric'

    def load(self, alphabet: Alphabet, data_dir: str | None = None) -> list[TextBenchmark]:
        """Loads the sets that have a path, by title, and logs which have none. Arguments are those of the entries."""
        loaded, missing = [], []
        for title in sorted(self.sets):
            settings = named.call(BenchmarkSettings, self.sets[title], f'data.benchmarks.sets.{title}')
            if settings.is_missing and self.path is not None:
                settings = replace(settings, source={**(settings.source or {}), 'path': self.path})
            if settings.is_missing:
                missing.append(title)
            else:
                loaded.append(settings.load(title, alphabet, data_dir))
        if missing:
            key = f'data.benchmarks.path or data.benchmarks.sets.{missing[0]}.source.path'
            logging.getLogger('canon').info(
                'benchmarks without a path are left out: %s; set %s', ', '.join(missing), key
            )
        return loaded


def benchmark_evaluator(
    task: Task,
    benchmarks: Sequence[TextBenchmark],
    alphabet: Alphabet,
    batch_size: Count,
    make_transforms: MakeTransforms,
    sizes: Sequence[Size] = ((32, 100),),
    beam_width: Annotated[int, Range(0)] = 0,
    compare: Comparison = 'alphanumeric',
    decode: Callable[[Any], tuple[Any, ...]] | None = None,
    threads: Annotated[int, Range(0)] = 2,
) -> Evaluator:
    """Evaluates a task on several sets and logs one table: set, variant, images, words right, CER, WER, NED.

    The metrics are those of `canon.metrics.score_texts` for each set, as `IIIT5K/word_accuracy_36`, and for all words
    together, as `all/word_accuracy_36`: those of the sets that are read without a lexicon, if there are such.

    Args:
      task: a `recognition_task`, or another one whose outputs `decode` reads.
      benchmarks: the sets; their names differ.
      alphabet: the characters of classes 1, 2, ...
      batch_size: images of each batch.
      make_transforms: returns the transforms that give images of a size (height, width).
      sizes: of the images. With several, each image goes to the narrowest that it fits into (`group_by_width`).
      beam_width: prefixes that the beam search of CTC keeps; 0 decodes the best path.
      compare: what rates and distances compare, 'alphanumeric' (36 characters) or 'exact' texts.
      decode: from the task's outputs to (labels [B, L], lengths [B], ...); `decode_labels` if None. With a lexicon the
        outputs are log probabilities of CTC [B, T, C].
      threads: that prepare batches ahead.

    Raises:
      UsageError: there are no benchmarks, or two of one name.
    """
    names = [benchmark.name for benchmark in benchmarks]
    if not names or len(set(names)) < len(names) or _ALL in names:
        raise UsageError(f'benchmarks {names} need names that differ, other than {_ALL!r}')
    # Images are read once per evaluation, and evaluations are rare: none are kept in memory.
    parts = [
        batch_lines_once(
            NumberedSource(b.source, benchmark=number), batch_size, sizes, make_transforms, threads=0, memory_limit=0
        )
        for number, b in enumerate(benchmarks)
    ]
    lexica = [make_lexicon_reader(b.lexicon, b.source, alphabet, b.lexicon_distance, b.name) for b in benchmarks]
    described = [
        b if lexicon is None else b._replace(variant=', '.join([b.variant] * bool(b.variant) + [lexicon.description]))
        for b, lexicon in zip(benchmarks, lexica, strict=True)
    ]
    read = functools.partial(decode_labels, beam_width=beam_width) if decode is None else decode

    @backend.jit  # compiled once per size
    def read_batch(params, mutable, batch):
        outputs = task.predict(params, mutable, batch)
        return outputs, *read(outputs)[:2]

    def measure(params, mutable, batch):
        outputs, labels, lengths = read_batch(params, mutable, batch)
        rows, number = np.flatnonzero(batch['mask']), int(batch['benchmark'][0])  # a batch is of one set
        if (lexicon := lexica[number]) is not None:
            texts = lexicon.read(outputs, batch['index'])
        else:
            labels, lengths = np.asarray(labels), np.asarray(lengths)
            texts = [alphabet.decode(label[:length]) for label, length in zip(labels, lengths, strict=True)]
        references = [_read_text(benchmarks[number].source, alphabet, batch, row) for row in rows]
        # Every batch has accumulators of every set, since accumulators of one structure are added.
        nothing = metrics.score_texts([], [], compare)
        scores = metrics.score_texts([texts[row] for row in rows], references, compare)
        return {b.name: scores if i == number else nothing for i, b in enumerate(benchmarks)}

    def finish(sums):
        sums = {**sums, _ALL: functools.reduce(add, [sums[b.name] for b in _select_total(benchmarks)])}
        logging.getLogger('canon').info('%s', format_benchmarks(described, sums, compare))
        return {f'{name}/{metric}': mean.value for name, scores in sums.items() for metric, mean in scores.items()}

    return Evaluator(Concatenated(parts, threads=threads), measure, finish, on_host=True)


def format_benchmarks(
    benchmarks: Sequence[TextBenchmark], sums: Mapping[str, Mapping[str, Mean]], compare: Comparison
) -> str:
    """Formats the table of an evaluation, as Markdown.

    Args:
      benchmarks: the sets, in order.
      sums: {name: what `canon.metrics.score_texts` returned}, perhaps with 'all'.
      compare: what rates and distances compare.
    """
    texts = {'alphanumeric': '36 characters, case-insensitive', 'exact': 'exact texts'}[compare]
    rows = [['set', 'variant', 'images', 'left out', *_COLUMNS.values()]]
    dropped = {b.name: sum(getattr(b.source, 'dropped', {}).values()) for b in benchmarks}
    sets = [(b.name, b.variant, dropped[b.name]) for b in benchmarks]
    counted = _select_total(benchmarks)
    total = _ALL, '' if len(counted) == len(sets) else 'without a lexicon', sum(dropped[b.name] for b in counted)
    for name, variant, left_out in [*sets, *([total] if _ALL in sums else [])]:
        scores = sums[name]
        count = float(scores['word_accuracy'].weight)
        values = [float(scores[metric].value) if float(scores[metric].weight) else np.nan for metric in _COLUMNS]
        shares = [f'{100 * value:.1f} %' for value in values[:4]]
        rows.append(
            [name, variant, f'{count:,.0f}', f'{left_out:,}', *shares, *(f'{value:.4f}' for value in values[4:])]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + ' |' for row in rows
    ]
    lines.insert(1, '|' + '|'.join('-' * (width + 2) for width in widths) + '|')
    return '\n'.join((f'CER, WER and NED of {texts}', *lines))


def _select_total(benchmarks: Sequence[TextBenchmark]) -> list[TextBenchmark]:
    """Returns the sets that count for all words together: a set is often read twice, without and with a lexicon."""
    return [b for b in benchmarks if b.lexicon == 'none'] or list(benchmarks)


def _shorten(value: Any) -> str:
    """Shows an argument; of a long list, such as all words, the number of its entries."""
    is_long = isinstance(value, list | tuple) and len(value) > _SHOWN
    return f'({len(value)} entries)' if is_long else str(value)


def _read_text(source: Source, alphabet: Alphabet, batch: Mapping[str, np.ndarray], row: int) -> str:
    read_text = getattr(source, 'read_text', None)
    return read_text(int(batch['index'][row])) if read_text else alphabet.decode(batch['label'][row])
