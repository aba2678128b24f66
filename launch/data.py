"""Draws training batches of a config after their transforms, as the network sees them, and lists their keys.

    ./launch.sh data configs/classification/lenet_digits.py
    ./launch.sh data configs/detection/ssd_digits.py --batches=2 --config.data.batch_size=8
    ./launch.sh data configs/detection/rcnn_digits.py:smoke --stage=finetune --workdir=RUN
    ./launch.sh data configs/nerf/capture.py --config.data.path=~/photos/scene --output=sheets

The table has the shape, type and range of every key; docs/batches.md describes them. The first batches of the run are
drawn, those of the same seed; where nothing is trained, those of the first evaluator. The network is not made. A stage
that reads what earlier ones leave (proposals, features) takes it from the run of the config, or from --workdir.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canon import plots
from canon.configuration import check_values, config_folder, read_flags, run_folder
from canon.errors import CanonError, UsageError
from canon.named import suggest
from canon.train.stages import find_finished
from canon.train.types import Experiment
from experiments import configs, overrides, protocol
from launch import tools
from launch.flags import runs_folder

_ROW = re.compile(r'\| `([\w.]+)` \| \[(?:.*?)\] \| \w+ \| (.*) \|')
_MOST_CLASSES = 20  # that are listed with their numbers
_CLASSES = ('label', 'labels')  # keys whose classes are counted


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('data', __doc__)
    parser.add_argument('config', metavar='CONFIG', help='FILE or FILE:ARG')
    parser.add_argument('--batches', type=int, default=1, help='how many of them, from step 0 (default: 1)')
    parser.add_argument('--stage', help='of a config in stages (default: the first that trains)')
    parser.add_argument(
        '--workdir', metavar='RUN', type=Path, help='a run with finished stages (default: that of the config)'
    )
    parser.add_argument('--output', metavar='DIR', type=Path, help='of the pictures (default: data/ next to its runs)')
    options, flags = tools.parse(parser, argv)
    if options.batches < 1:
        raise UsageError(f'--batches={options.batches}: at least 1')
    config = overrides.load(options.config)
    values = overrides.apply(config, read_flags(flags)[0])
    check_values(config)
    config.lock()
    root = runs_folder(flags)
    own_run = run_folder(options.config, values, root)
    experiment, config = make_experiment(config, options.stage, options.workdir, own_run)
    module = protocol.load(str(config['experiment']))
    if not isinstance(module, protocol.DrawsBatches):
        raise UsageError(f'experiment {config["experiment"]!r} has no draw_batch (experiments/protocol.py)')
    folder = options.output or config_folder(options.config, root) / 'data'
    for step in range(options.batches):
        batch = read_batch(experiment, step)
        if not batch:
            raise CanonError('batches are empty: this experiment reads no data')
        lines = describe_batch(batch, experiment.about.get('class_names', ()))
        print('\n'.join([f'batch {step}:', *lines]), flush=True)
        for name, figure in module.draw_batch(config, experiment, batch).items():
            title = re.sub(r'[^\w.-]+', '_', name)  # a valid file name
            path = folder.expanduser() / f'batch_{step}_{title}.png'
            plots.save_content(figure, path)
            print(path, flush=True)
    return 0


def make_experiment(config: Any, stage: str | None, workdir: Path | None, own_run: Path) -> tuple[Experiment, Any]:
    """Returns the experiment of a config, or of one of its stages, with the config of that stage.

    Args:
      config: locked.
      stage: None for the first one that trains.
      workdir: of a run, whose finished stages a stage may read; None for `own_run`.
      own_run: the folder in which `run` puts this config.

    Raises:
      UsageError: there is no such stage, or it trains nothing; or the config lacks a key.
      CanonError: the stage reads what an earlier one leaves, which is not finished in the run.
    """
    protocol.check_name(config.get('experiment'))
    module = protocol.load(config.experiment)
    with protocol.name_missing_key(config):
        made = module.make(config)
    if isinstance(made, Experiment):
        for flag, value in (('--stage', stage), ('--workdir', workdir)):
            if value is not None:
                raise UsageError(f'{flag}={value}: the config has no stages')
        return made, config
    stages = {s.name: s.make for s in made if s.make is not None}
    name = stage or next(iter(stages), '')
    if name not in stages:
        raise UsageError(f'--stage={name}: no stage of that name is trained{suggest(name, stages)}')
    run = (workdir or own_run).expanduser()
    return stages[name](_EarlierStages(*find_finished(made, name, run), name, run))


class _EarlierStages(dict[str, Path]):
    """The folders of the finished stages before one; looking up a stage that is not finished raises CanonError."""

    def __init__(self, finished: Mapping[str, Path], unfinished: Sequence[str], stage: str, workdir: Path):
        super().__init__(finished)
        self._unfinished, self._stage, self._workdir = unfinished, stage, workdir

    # Experiments look up only the stages that they read, so a stage of which nothing is read may be unfinished.
    def __getitem__(self, name: str) -> Path:
        self._require(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._require(name)
        return super().__contains__(name)

    def _require(self, name: object) -> None:
        if name in self._unfinished:
            raise CanonError(
                f'stage {self._stage!r} reads what stage {name!r} leaves, which is not finished in {self._workdir};'
                ' run the config first, or give the --workdir of a run that has finished it'
            )


def read_batch(experiment: Experiment, step: int) -> Mapping[str, Any]:
    """Returns a training batch; where nothing is trained, a batch of the first evaluator."""
    if experiment.train is not None:
        return experiment.train[step]
    name = min(experiment.evals, default=None)
    if name is None:
        raise UsageError('the config has neither training data nor evaluators')
    return experiment.evals[name].data[step]


def describe_batch(batch: Mapping[str, Any], class_names: Sequence[str] = ()) -> list[str]:
    """Returns the lines of a table of the keys of a batch, and of the classes in it."""
    arrays = dict(_flatten(batch))
    contents = read_contents((configs.ROOT / 'docs/batches.md').read_text(encoding='utf-8'), arrays)
    rows = [('key', 'shape', 'dtype', 'min', 'max', 'contents')]
    for key, array in arrays.items():
        shape = '[' + ', '.join(map(str, array.shape)) + ']'
        rows.append((key, shape, str(array.dtype), *_find_range(array), contents.get(key, '')))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        '  ' + '  '.join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    ]
    for key, array in arrays.items():
        last = key.rpartition('.')[2]
        if last in _CLASSES and array.dtype.kind in 'iu' and not _is_text(batch):
            valid = arrays.get(key.removesuffix(last) + 'valid')
            classes = array if valid is None or valid.shape != array.shape else array[valid]
            counts = plots.count_classes(classes, class_names, most=_MOST_CLASSES)
            lines.append(f'  classes of {key}: {counts}{_list_absent(classes, class_names)}')
    return lines


def _list_absent(classes: np.ndarray, class_names: Sequence[str]) -> str:
    """Returns ', cat: 0' for each class that a batch lacks, which may be misspelt; '' if there are many classes."""
    if len(class_names) > _MOST_CLASSES:
        return ''
    present = set(np.unique(classes).tolist())
    return ''.join(f', {name}: 0' for label, name in enumerate(class_names) if label not in present)


def read_contents(page: str, keys: Sequence[str] | Mapping[str, Any]) -> dict[str, str]:
    """Returns {key: contents} of the table of docs/batches.md that has most of these keys, and the fewest others."""
    tables: list[dict[str, str]] = []
    for line in page.splitlines():
        if line.startswith('| key |'):
            tables.append({})
        elif row := _ROW.fullmatch(line):
            tables[-1][row[1]] = row[2].removeprefix('*optional* ')
    return max(tables, key=lambda table: (len(table.keys() & set(keys)), -len(table)), default={})


def _flatten(batch: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, np.ndarray]]:
    for key, value in batch.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f'{prefix}{key}.')
        else:
            yield prefix + key, np.asarray(value)


def _find_range(array: np.ndarray) -> tuple[str, str]:
    """Returns the least and the greatest number, without those that are not finite."""
    if array.dtype.kind not in 'biuf' or not array.size:
        return '', ''
    finite = array[np.isfinite(array)] if array.dtype.kind == 'f' else array
    if not finite.size:
        return 'none', 'finite'
    low, high = (str(v).lower() if array.dtype.kind == 'b' else f'{v:.5g}' for v in (finite.min(), finite.max()))
    return low, high


def _is_text(batch: Mapping[str, Any]) -> bool:
    return 'label_length' in batch


if __name__ == '__main__':
    tools.run(main)
