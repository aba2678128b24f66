"""absl flags -> config -> experiment -> train, evaluate, predict, export or replay.

    python -m experiments.main --config=configs/classification/lenet_digits.py:smoke --config.seed=1

The only place with flags; all of it can be done from Python too (`canon.train.fit(experiment, config, workdir)`).
Exit status: 0 done, or stopped with everything saved; 1 failed; 2 wrong usage.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import inspect
import os
import re
import shlex
import sys
import time
import traceback
import warnings
from logging import StreamHandler, getLogger
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags, logging
from ml_collections import ConfigDict

from canon.errors import CanonError, UsageError
from experiments import protocol

FLAGS = flags.FLAGS
MODES = ('train', 'evaluate', 'predict', 'export', 'replay')

flags.DEFINE_string('config', None, 'The config file, with its argument after a colon; --config.KEY=VALUE overrides.')
flags.DEFINE_string('workdir', None, 'Where the run lives; by default below --runs, by config and overrides.')
flags.DEFINE_string('runs', 'runs', 'The folder of all runs.')
flags.DEFINE_enum('mode', 'train', MODES, 'What to do.')
flags.DEFINE_boolean('force', False, 'Go on in a workdir that another config made.')
flags.DEFINE_integer('step', None, 'The checkpoint to look at (best or newest without); replay: the step.')
flags.DEFINE_string('input', None, 'predict: a file or a folder; what else a task takes, such as a sentence.')
flags.DEFINE_string('output', None, 'predict, export: a folder for the results, else one in the workdir.')
flags.DEFINE_string('compilation_cache', '~/.cache/canon/xla', 'Where compiled programs are kept; empty for nowhere.')
flags.DEFINE_string('coordinator', None, 'ADDRESS:PORT of process 0, where neither Slurm nor a TPU pod tells it.')
flags.DEFINE_integer('process_count', None, 'How many processes run this job, with --coordinator.')
flags.DEFINE_integer('process_index', None, 'Which of them this is, with --coordinator.')
_MODULE = FLAGS.find_module_defining_flag('mode')


class _Command(NamedTuple):
    source: str | None  # FILE[:ARG] of --config
    text: str  # as it was typed
    config: ConfigDict
    overrides: dict[str, Any]
    workdir: Path


def main() -> None:
    """The command line; does not return."""
    commands = []

    def parse(argv: list[str]) -> list[str]:
        commands.append(_parse(argv))
        return argv[:1]

    try:
        app.run(lambda _: _exit(lambda: _run(commands[0])), flags_parser=parse)
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)


def _parse(argv: list[str]) -> _Command:
    """Flags, and the config with its overrides applied."""
    from canon.configuration import is_config
    from experiments import configs, overrides

    pairs, words = overrides.read_flags(argv)
    asks_for_help = any(word in ('-h', '--help', '-help', '--helpfull', '--helpshort') for word in words)
    try:
        FLAGS.set_gnu_getopt(True)
        positional = FLAGS([word for word in words if not re.fullmatch(r'-h|--?help(full|short)?', word)])[1:]
    except flags.Error as error:
        raise UsageError(f'{error}; see --help') from error
    source = FLAGS.config
    if source is None and positional and is_config(positional[0]):
        source = positional.pop(0)
    if positional:
        raise UsageError(f'{positional[0]!r} is no flag; options are written --name=value')
    if asks_for_help:
        print(_help(source))
        sys.exit()
    if source is None and not FLAGS.workdir:
        raise UsageError('which config? give --config=configs/TASK/NAME.py, or the --workdir of a run')
    config = overrides.load(source, FLAGS.workdir)
    values = overrides.apply(config, pairs)
    configs.check(config)
    config.lock()
    given = FLAGS.workdir and Path(FLAGS.workdir).expanduser()
    workdir = given or configs.run_folder(source, values, Path(FLAGS.runs).expanduser())
    return _Command(source, shlex.join(['python', '-m', 'experiments.main', *argv[1:]]), config, values, workdir)


def _help(source: str | None) -> str:
    """The flags; with a config, its keys too: what each is, and what else its named functions take."""
    from experiments import overrides

    names = [name for name in FLAGS if FLAGS[name].help and FLAGS.find_module_defining_flag(name) == _MODULE]
    lines = [str(__doc__).strip(), '']
    lines += [f'--{name}{"" if FLAGS[name].boolean else "="}\n    {FLAGS[name].help}' for name in names]
    if source is not None:
        lines += ['', *overrides.describe(overrides.load(source), source)]
    else:
        lines += ['', 'With a config, --help lists its keys, too: ./launch.sh run configs/TASK/NAME.py --help']
    return '\n'.join(lines)


def _exit(run) -> None:
    """Runs, and turns what went wrong into one line and a status."""
    status = 1
    try:
        run()
        status = 0
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 2
    except CanonError as error:
        print(f'error: {error}', file=sys.stderr)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except MemoryError as error:
        print(f'error: there is not enough memory: {str(error) or "for one more array"}', file=sys.stderr)
    except OSError as error:  # a disk that is full, a file that may not be written
        print(f'error: {error}', file=sys.stderr)
    except Exception as error:
        if 'RESOURCE_EXHAUSTED' in str(error):  # by XLA, of a device's memory
            print(f'error: there is not enough memory: {str(error).splitlines()[0]}', file=sys.stderr)
        else:
            traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if status and _many_processes():
        os._exit(status)  # an orderly exit would wait for the others, who wait for us
    sys.exit(status)


def _run(command: _Command) -> None:
    config, workdir = command.config, command.workdir
    protocol.check_name(config.get('experiment'))
    import jax

    from experiments import configs

    _quieten()
    _join_job()
    if FLAGS.compilation_cache:
        jax.config.update('jax_compilation_cache_dir', os.path.expanduser(FLAGS.compilation_cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)
    module = protocol.load(config.experiment)
    try:
        experiment = _experiment(config, module, workdir)
    except (AttributeError, KeyError) as error:
        key = configs.find_missing_key(error, config)
        if key is None:
            raise
        raise UsageError(f'the config has no {key!r}, and experiment {config.experiment!r} needs it') from error
    if FLAGS.mode == 'train':
        _train(config, experiment, workdir, command)
        return
    from canon.train.stages import last_stage
    from canon.train.workdir import check_about

    experiment, config, workdir = last_stage(experiment, config, workdir)
    module = protocol.load(str(config['experiment']))  # the experiment of the last stage
    check_about(workdir, experiment.about)
    modes = {'evaluate': _evaluate, 'predict': _predict, 'export': _export, 'replay': _replay}
    modes[FLAGS.mode](config, module, experiment, workdir)


def _experiment(config, module, workdir):
    """What the config describes. To predict and to export, what a run says of its data will do instead of them."""
    from canon.train.workdir import load_json

    if FLAGS.mode not in ('predict', 'export') or not isinstance(module, protocol.WithoutData):
        return module.make(config)
    about = (load_json(workdir / 'run.json') or {}).get('experiment')
    if about:
        return module.without_data(config, about)
    try:
        return module.make(config)
    except UsageError:  # published weights can be used where no data are
        return module.make(module.offline(config))


def _train(config, experiment, workdir, command: _Command) -> None:
    from canon.train import run_stages, write_report

    about = {'config': command.source, 'overrides': command.overrides, 'command': command.text}
    began, clock = time.perf_counter(), time.time()
    try:
        fitted = run_stages(experiment, config, workdir, force=FLAGS.force, about=about)
    except BaseException:
        _report_failure(workdir, clock)
        raise
    if not _first_process():
        return
    report = write_report(fitted.workdir)
    seconds = time.perf_counter() - began
    step = fitted.step
    if fitted.status == 'stopped':
        print(
            f'stopped at step {step} after {seconds:.0f} s, saved; the same command resumes. Report: {_short(report)}'
        )
    else:
        weights = fitted.weights or f'step {step}'
        print(f'{_result(config, fitted.metrics)}: {weights}, {seconds:.0f} s. Report: {_short(report)}')


def _report_failure(workdir: Path, since: float) -> None:
    """The report of a run that failed now, or of its stage that did; not of one that this command may not touch."""
    from canon.train import write_report
    from canon.train.workdir import read_mapping

    for status in (workdir / 'status.json', *workdir.glob('*/status.json')):
        with contextlib.suppress(Exception):  # on a full disk, too, what is said is why the run failed
            if _first_process() and status.stat().st_mtime >= since and read_mapping(status).get('state') == 'failed':
                print(f'failed. Report: {_short(write_report(status.parent))}')


def _result(config: ConfigDict, metrics: dict[str, float]) -> str:
    """`test/accuracy 0.9889 (target: at least 0.98)`, or all metrics where the config states no target."""
    target = config.get('target')
    if target is None or target.metric not in metrics:
        return ', '.join(f'{name} {value:.4g}' for name, value in metrics.items()) or 'done'
    bounds = [
        f'{word} {target[key]:g}' for key, word in (('at_least', 'at least'), ('at_most', 'at most')) if key in target
    ]
    return f'{target.metric} {_four_digits(metrics[target.metric])} (target: {" and ".join(bounds)})'


def _four_digits(value: float) -> str:
    """Four decimals of an accuracy, and four digits of what they would show as 0.0000 or as more than is measured."""
    return f'{value:.4f}' if 1e-3 <= abs(value) < 1e3 or value == 0 else f'{value:.4g}'


def _evaluate(config, module, experiment, workdir) -> None:
    from canon.train import evaluate_run
    from canon.train.workdir import write_json

    metrics = evaluate_run(experiment, config, workdir, FLAGS.step)
    if _first_process():
        print('\n'.join(f'{k} {v if isinstance(v, str) else format(v, ".6g")}' for k, v in metrics.items()))
        path = workdir / f'evaluation-{metrics["step"]}.json'
        try:
            write_json(path, metrics)
            print(f'written to {_short(path)}')
        except OSError as error:  # the folder is read-only, or its disk is full: the numbers are shown all the same
            print(f'not written to {_short(path)}: {error.strerror}', file=sys.stderr)


def _predict(config, module, experiment, workdir) -> None:
    from canon.train import load_trained
    from experiments.predictions import write

    if not isinstance(module, protocol.Predicts):
        raise UsageError(f'experiment {config.experiment!r} has no predict')
    if not FLAGS.input:
        raise UsageError('predict what? give --input=FILE or a folder')
    run = load_trained(experiment, config, workdir, FLAGS.step)
    output = _folder(FLAGS.output) if FLAGS.output else workdir / 'predictions'
    arguments = (config, experiment, run.params, run.mutable, FLAGS.input)
    if 'output' in inspect.signature(module.predict).parameters:
        print(module.predict(*arguments, output))
        return
    predictions = module.predict(*arguments)
    if _first_process():
        print(write(predictions, output))
    else:
        collections.deque(predictions, maxlen=0)  # every process computes; the first one writes


def _folder(output: str) -> Path:
    """--output, which is a folder: the name of a file would become one, too."""
    path = Path(output).expanduser()
    if path.is_file() or (path.suffix and not path.is_dir()):
        raise UsageError(f'--output={output} must be a folder, in which the files have names of their own')
    return path


def _export(config, module, experiment, workdir) -> None:
    from canon.train import load_trained
    from canon.weights.stablehlo import export_stablehlo

    if not isinstance(module, protocol.Exports):
        raise UsageError(f'experiment {config.experiment!r} has nothing to export (it has no `served`)')
    run = load_trained(experiment, config, workdir, FLAGS.step, untrained=True)
    lines = export_stablehlo(
        module.served(config, experiment),
        run.params,
        run.mutable,
        _folder(FLAGS.output) if FLAGS.output else workdir / 'export',
    )
    print('\n'.join(lines))


def _replay(config, module, experiment, workdir) -> None:
    import jax
    import numpy as np

    from canon.train import replay_step

    if FLAGS.step is None:
        raise UsageError('replay which step? give --step=N')
    replayed = replay_step(experiment, config, workdir, FLAGS.step)
    if not _first_process():
        return
    print('  '.join(f'{name} {value:.6g}' for name, value in replayed.metrics.items()))
    width = max(len(name) for name, *_ in replayed.leaves)
    print(f'{"parameter":{width}}  {"norm":>10}  {"gradient":>10}  {"change":>10}  non-finite')
    for name, norm, grad, change, bad in replayed.leaves:
        print(f'{name:{width}}  {norm:10.4g}  {grad:10.4g}  {change:10.4g}  {bad or ""}')
    path = workdir / 'replay' / f'step_{FLAGS.step}.npz'
    path.parent.mkdir(exist_ok=True)
    leaves = jax.tree_util.tree_flatten_with_path(replayed.batch)[0]
    np.savez_compressed(path, **{jax.tree_util.keystr(k, simple=True, separator='/'): v for k, v in leaves})
    print(f'its batch: {_short(path)}')


def _quieten() -> None:
    """Orbax logs much, and tracebacks of what it raises anyway; what a person should read, canon says."""
    logging.set_verbosity(logging.FATAL)
    ignore_warnings()
    ours = getLogger('canon')
    ours.addHandler(StreamHandler(sys.stderr))
    ours.setLevel('INFO')
    ours.propagate = False
    usual = sys.unraisablehook

    def hook(event) -> None:
        # A failed write leaves callbacks to its event loop, which is closed by then.
        if 'Event loop is closed' not in str(event.exc_value):
            usual(event)

    sys.unraisablehook = hook


def ignore_warnings() -> None:
    """Silences what a user can do nothing about: Orbax's advice to its callers, and JAX's about any fork.

    Reader processes never call JAX, so the threads that a fork leaves behind are not missed.
    """
    warnings.filterwarnings('ignore', message=r'.*os\.fork\(\) was called')
    warnings.filterwarnings('ignore', message=r'.*multi-threaded, use of fork\(\)')  # Python 3.12's own
    warnings.filterwarnings('ignore', module=r'orbax\.')


def _join_job() -> None:
    """Joins the other processes of this job: by flags, under Slurm (srun), on a TPU pod."""
    import jax

    if FLAGS.coordinator or int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1 or _on_tpu_pod():
        jax.distributed.initialize(
            FLAGS.coordinator,
            FLAGS.process_count,
            FLAGS.process_index,
            heartbeat_timeout_seconds=30,  # a dead peer ends us within a minute, not in five
            shutdown_timeout_seconds=30,
        )
    elif FLAGS.process_count is not None or FLAGS.process_index is not None:
        raise UsageError('--process_count and --process_index need --coordinator=ADDRESS:PORT of process 0')


def _on_tpu_pod() -> bool:
    return importlib.util.find_spec('libtpu') is not None and ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')


def _many_processes() -> bool:
    jax = sys.modules.get('jax')
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _first_process() -> bool:
    import jax

    return jax.process_index() == 0


def _short(path: Path) -> str:
    """Relative to here where that is shorter."""
    path = Path(path).absolute()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == '__main__':
    main()
