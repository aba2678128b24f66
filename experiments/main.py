"""Trains, evaluates, predicts, exports or replays the experiment of a config.

    python -m experiments.main --config=configs/classification/lenet_digits.py:smoke --config.seed=1

This is the only module with flags; from Python, call `canon.train.fit(experiment, config, workdir)`. The exit status is
0 if done, or stopped with everything saved; 1 if failed; 2 for wrong usage.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags
from ml_collections import ConfigDict

from canon.errors import UsageError, run_command
from experiments import command_help, processes, protocol

FLAGS = flags.FLAGS
MODES = ('train', 'evaluate', 'predict', 'export', 'replay')

flags.DEFINE_string('config', None, 'The config, FILE or FILE:ARG; --config.KEY=VALUE overrides a key.')
flags.DEFINE_string('workdir', None, 'The folder of the run (default: below --runs, by config and overrides).')
flags.DEFINE_string('runs', 'runs', 'The folder of all runs.')
flags.DEFINE_enum('mode', 'train', MODES, 'What to do with the experiment.')
flags.DEFINE_boolean('force', False, 'Continue in a workdir that another config made.')
flags.DEFINE_integer('step', None, 'The checkpoint to load (default: the best, or the newest); replay: the step.')
flags.DEFINE_string('input', None, 'predict: a file or a folder, or what else the task takes, such as a sentence.')
flags.DEFINE_string('output', None, 'predict, export: the folder of the results (default: in the workdir).')
flags.DEFINE_string('compilation_cache', processes.CACHE, 'The cache of compiled programs; empty for none.')
flags.DEFINE_string('coordinator', None, 'ADDRESS:PORT of process 0, unless Slurm or a TPU pod provides it.')
flags.DEFINE_integer('process_count', None, 'How many processes run this job, with --coordinator.')
flags.DEFINE_integer('process_index', None, 'The index of this process, with --coordinator.')
_MODULE = FLAGS.find_module_defining_flag('mode')


class _Command(NamedTuple):
    source: str | None  # FILE or FILE:ARG
    text: str  # as typed
    config: ConfigDict
    overrides: dict[str, Any]
    workdir: Path


def main() -> None:
    """Runs the command line and exits."""
    commands = []

    def parse(argv: list[str]) -> list[str]:
        commands.append(_parse(argv))
        return argv[:1]

    def run(_) -> None:
        status = run_command(lambda: _run(commands[0]))
        if status and _has_peers():
            os._exit(status)  # an orderly exit would wait for the other processes, which wait for this one
        sys.exit(status)

    sys.exit(run_command(lambda: app.run(run, flags_parser=parse)))


def _parse(argv: list[str]) -> _Command:
    """Reads the flags, and the config with its overrides applied."""
    from canon.configuration import check_values, is_config, run_folder
    from experiments import overrides

    # Overrides are taken out first: absl knows no flag of the form --config.KEY.
    pairs, words = overrides.read_flags(argv)
    help_requested = any(word in ('-h', '--help', '-help', '--helpfull', '--helpshort') for word in words)
    try:
        # Flags may follow the config, as in `run CONFIG --force`.
        FLAGS.set_gnu_getopt(True)
        positional = FLAGS([word for word in words if not re.fullmatch(r'-h|--?help(full|short)?', word)])[1:]
    except flags.Error as error:
        raise UsageError(f'{error}; see --help') from error
    # The config may be given as a word of its own, too: `main configs/x/y.py`.
    source = FLAGS.config
    if source is None and positional and is_config(positional[0]):
        source = positional.pop(0)
    if positional:
        raise UsageError(f'{positional[0]!r} is not a flag; options are written --name=value')
    if help_requested:
        print('\n'.join(command_help.describe(FLAGS.mode, _describe_flags(), source, FLAGS.workdir, pairs)))
        sys.exit()
    if source is None and not FLAGS.workdir:
        raise UsageError('which config? give --config=configs/TASK/NAME.py, or the --workdir of a run')
    config = overrides.load(source, FLAGS.workdir)
    values = overrides.apply(config, pairs)
    check_values(config)
    config.lock()  # a key that an experiment misspells raises instead of being added
    given = FLAGS.workdir and Path(FLAGS.workdir).expanduser()
    workdir = given or run_folder(source, values, Path(FLAGS.runs).expanduser())
    return _Command(
        source, shlex.join(['python', '-m', 'experiments.main', *argv[1:]]), config, values, workdir.absolute()
    )


def _describe_flags() -> dict[str, str]:
    """Returns {'--runs=': its text} of the flags of this module."""
    names = [name for name in FLAGS if FLAGS[name].help and FLAGS.find_module_defining_flag(name) == _MODULE]
    return {f'--{name}{"" if FLAGS[name].boolean else "="}': FLAGS[name].help for name in names}


def _run(command: _Command) -> None:
    config, workdir = command.config, command.workdir
    # Before JAX is imported, so that a misspelt name is reported at once.
    protocol.check_name(config.get('experiment'))
    processes.silence_libraries()
    _join_job()  # before anything asks JAX for its devices
    processes.use_compilation_cache(FLAGS.compilation_cache)
    module = protocol.load(config.experiment)
    with protocol.name_missing_key(config):
        experiment = _make(config, module, workdir)
    if FLAGS.mode == 'train':
        _train(config, experiment, workdir, command)
        return
    from canon.train.stages import last_stage
    from canon.train.workdir import check_about

    # A run in stages is evaluated, exported and replayed as its last stage.
    experiment, config, workdir = last_stage(experiment, config, workdir)
    module = protocol.load(str(config['experiment']))  # the experiment of the last stage
    check_about(workdir, experiment.about)
    modes = {'evaluate': _evaluate, 'predict': _predict, 'export': _export, 'replay': _replay}
    modes[FLAGS.mode](config, module, experiment, workdir)


def _make(config, module, workdir):
    """Makes the experiment. To predict and to export, `run.json` describes the data well enough."""
    from canon.train.workdir import load_json

    if FLAGS.mode not in ('predict', 'export') or not isinstance(module, protocol.WithoutData):
        return module.make(config)
    about = (load_json(workdir / 'run.json') or {}).get('experiment')
    if about:
        return module.without_data(config, about)
    try:
        return module.make(config)
    except UsageError:  # published weights can be used without any data
        return module.make(module.offline(config))


def _train(config, experiment, workdir, command: _Command) -> None:
    from canon.train import run_stages, write_report
    from canon.train.runs import format_result

    about = {'config': command.source, 'overrides': command.overrides, 'command': command.text}
    start, start_time = time.perf_counter(), time.time()
    try:
        fitted = run_stages(experiment, config, workdir, force=FLAGS.force, about=about)
    except BaseException:
        _report_failure(workdir, start_time)
        raise
    if not _first_process():  # one report per run
        return
    report = write_report(fitted.workdir)
    seconds = time.perf_counter() - start
    step = fitted.step
    if fitted.status == 'stopped':
        _print(f'stopped at step {step} after {seconds:.0f} s, saved; the same command resumes. Report: {report}')
    else:
        weights = fitted.weights or f'step {step}'
        result = format_result(fitted.metrics, config.get('target') or {})
        _print(f'{result}: {weights}, {seconds:.0f} s. Report: {report}')


def _report_failure(workdir: Path, since: float) -> None:
    """Writes the report of the run, or of its stage, that has failed since; a run that is locked is left alone."""
    from canon.train import write_report
    from canon.train.workdir import read_mapping

    for status in (workdir / 'status.json', *workdir.glob('*/status.json')):
        with contextlib.suppress(Exception):  # such as a full disk: the error of the run is the one to report
            if _first_process() and status.stat().st_mtime >= since and read_mapping(status).get('state') == 'failed':
                _print(f'failed. Report: {write_report(status.parent)}')


def _evaluate(config, module, experiment, workdir) -> None:
    from canon.train import evaluate_run
    from canon.train.workdir import write_json

    metrics = evaluate_run(experiment, config, workdir, FLAGS.step)
    if _first_process():
        print('\n'.join(f'{k} {v if isinstance(v, str) else format(v, ".6g")}' for k, v in metrics.items()))
        path = workdir / f'evaluation-{metrics["step"]}.json'
        try:
            write_json(path, metrics)
            _print(f'written to {path}')
        except OSError as error:  # a read-only folder or a full disk: the metrics are printed already
            print(f'not written to {path}: {error.strerror}', file=sys.stderr)


def _predict(config, module, experiment, workdir) -> None:
    from canon.tasks.predictions import write_predictions
    from canon.train import load_trained

    if not isinstance(module, protocol.Predicts):
        raise UsageError(f'experiment {config.experiment!r} has no predict')
    if not FLAGS.input:
        raise UsageError('predict what? give --input=FILE or a folder')
    run = load_trained(experiment, config, workdir, FLAGS.step)
    output = _output_folder(FLAGS.output) if FLAGS.output else workdir / 'predictions'
    predictions = module.predict(config, experiment, run.params, run.mutable, FLAGS.input)
    if _first_process():
        _print(write_predictions(predictions, output, _count_inputs(FLAGS.input)))
    else:
        collections.deque(predictions, maxlen=0)  # every process computes; the first one writes


def _count_inputs(source: str) -> int | None:
    """Returns the number of files of a folder, for the time left; None for other inputs, such as a sentence."""
    path = Path(source).expanduser()
    return sum(file.is_file() for file in path.iterdir()) if path.is_dir() else None


def _output_folder(output: str) -> Path:
    """Returns --output as a path; raises UsageError if it looks like a file."""
    path = Path(output).expanduser().absolute()
    if path.is_file() or (path.suffix and not path.is_dir()):
        raise UsageError(f'--output={output} must be a folder; the command names the files in it')
    return path


def _export(config, module, experiment, workdir) -> None:
    from canon.train import load_trained
    from canon.weights.stablehlo import export_stablehlo

    if not isinstance(module, protocol.Exports):
        raise UsageError(f'experiment {config.experiment!r} has nothing to export (it has no `served`)')
    # An untrained model may be exported, to see its size and its interface.
    run = load_trained(experiment, config, workdir, FLAGS.step, untrained=True)
    output = _output_folder(FLAGS.output) if FLAGS.output else workdir / 'export'
    lines = export_stablehlo(module.served(config, experiment), run.params, run.mutable, output)
    _print('\n'.join(lines))


def _replay(config, module, experiment, workdir) -> None:
    from canon.train.replay import format_replayed, replay_step, save_batch

    if FLAGS.step is None:
        raise UsageError('replay which step? give --step=N')
    replayed = replay_step(experiment, config, workdir, FLAGS.step)
    if _first_process():
        path = workdir / 'replay' / f'step_{FLAGS.step}.npz'
        save_batch(replayed.batch, path)
        _print(f'{format_replayed(replayed)}\nits batch: {path}')


def _join_job() -> None:
    """Connects the processes of a job: by the flags, under Slurm (srun) or on a TPU pod."""
    import jax

    if FLAGS.coordinator or int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1 or _on_tpu_pod():
        jax.distributed.initialize(
            FLAGS.coordinator,
            FLAGS.process_count,
            FLAGS.process_index,
            heartbeat_timeout_seconds=30,  # if a process dies, the others end within a minute instead of five
            shutdown_timeout_seconds=30,
        )
    elif FLAGS.process_count is not None or FLAGS.process_index is not None:
        raise UsageError('--process_count and --process_index need --coordinator=ADDRESS:PORT of process 0')


def _on_tpu_pod() -> bool:
    return importlib.util.find_spec('libtpu') is not None and ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')


def _has_peers() -> bool:
    jax = sys.modules.get('jax')
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _first_process() -> bool:
    import jax

    return jax.process_index() == 0


def _print(text: str) -> None:
    """Prints text with paths relative to the directory from which the command was called, which launch.sh leaves."""
    print(text.replace(f'{os.environ.get("CANON_CALLER") or os.getcwd()}/', ''))


if __name__ == '__main__':
    main()
