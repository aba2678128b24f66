"""The text of `--help` for the verbs that main serves: run, eval, predict, export and replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

_SMOKE = 'configs/classification/lenet_digits.py:smoke'
_RUN = 'runs/classification/lenet_digits/default'
_JOB = ('--compilation_cache=', '--coordinator=', '--process_count=', '--process_index=')  # flags of every verb


class _Verb(NamedTuple):
    name: str  # in launch.sh
    summary: str
    flags: tuple[str, ...]
    examples: tuple[str, ...]


_VERBS = {  # mode of main: the verb of launch.sh
    'train': _Verb(
        'run',
        'Trains the experiment of a config, or resumes its run: the same config and keys are the same folder.',
        ('--workdir=', '--runs=', '--force'),
        (f'run {_SMOKE} --config.seed=1', f'run {_SMOKE} --config.tx.name=sgd --help'),
    ),
    'evaluate': _Verb(
        'eval',
        'Evaluates the weights that a run hands on: the average, else the best checkpoint, else the last.',
        ('--workdir=', '--runs=', '--step='),
        (f'eval --workdir={_RUN}', f'eval {_SMOKE} --config.seed=1'),
    ),
    'predict': _Verb(
        'predict',
        'Predicts with a trained run, and writes the predictions and their pictures.',
        ('--input=', '--output=', '--workdir=', '--runs=', '--step='),
        (f'predict --workdir={_RUN} --input=docs/digits --output=runs/predictions',),
    ),
    'export': _Verb(
        'export',
        'Writes a trained model as StableHLO, for any batch size and for CPU, CUDA and TPU.',
        ('--output=', '--workdir=', '--runs=', '--step='),
        (f'export --workdir={_RUN} --output=runs/exported',),
    ),
    'replay': _Verb(
        'replay',
        'Repeats one step of a run from the checkpoint before it, and shows it parameter by parameter.',
        ('--step=', '--workdir=', '--runs='),
        (f'replay --workdir={_RUN} --step=100',),
    ),
}


def describe(
    mode: str, flags: Mapping[str, str], source: str | None, workdir: str | None, pairs: Sequence[tuple[str, str]]
) -> list[str]:
    """Returns the lines of --help: usage, examples, flags and, with a config, every key that may be set.

    Args:
      mode: of main, 'train', 'evaluate', 'predict', 'export' or 'replay'.
      flags: {'--runs=': text} of main.
      source: the config, FILE or FILE:ARG.
      workdir: a run, whose config is described if there is no `source`.
      pairs: (key, text) of the overrides, which choose the functions that are described.

    Raises:
      UsageError: there is no such config or run, or it does not take an override.
    """
    from experiments import overrides

    verb = _VERBS[mode]
    lines = [f'usage: ./launch.sh {verb.name} CONFIG [--config.KEY=VALUE ...] [FLAGS]', '', verb.summary, '']
    lines += [f'    ./launch.sh {example}' for example in verb.examples]
    lines += ['', 'CONFIG is FILE or FILE:ARG, such as FILE:smoke; --workdir=RUN may take its place. Exit status:']
    lines += ['0 done, or stopped with everything saved; 1 failed; 2 wrong usage.', '']
    for name in (*verb.flags, *_JOB):
        lines += [f'  {name}', f'      {flags[name]}']
    if source is None and workdir is None:
        return [*lines, '', f'With a config, --help lists its keys, too: ./launch.sh {verb.name} {_SMOKE} --help']
    config = overrides.load(source, workdir)
    overrides.apply(config, pairs)
    return [*lines, '', *overrides.describe(config, source or f'{workdir}/config.json')]
