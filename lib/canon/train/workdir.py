"""The folder of a run: its lock, the files that describe it, and the config that it belongs to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Generator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import canon
from canon.errors import CanonError, UsageError
from canon.named import to_plain

if TYPE_CHECKING:
    from canon.train.types import Config

LOCK = '.lock'

_log = logging.getLogger('canon')

# Keys that may change when a run is resumed, for they change nothing that is learnt.
_FREE = re.compile(
    r'^(target|data\.(reading|data_dir)|run\.(stop_after|log_every|profile|watchdog|log|tensorboard|mesh|shard)|'
    r'run\.checkpoint\.(every|keep|keep_best|average))(\.|$)'
)


def open_workdir(workdir: Path | str, config: Config, about: Mapping[str, Any], force: bool, main: bool) -> Path:
    """Makes the folder of a run, checks that it belongs to this config, and returns its path.

    `describe_run` writes the config, once nothing can refuse the run any more.

    Args:
      workdir: the folder, made if it does not exist.
      config: the config of the run.
      about: what `run.json` is to record; its 'experiment' describes the data.
      force: accepts a folder that another config made, or whose files are damaged.
      main: whether this process writes.

    Raises:
      UsageError: the folder cannot be written to; it belongs to another config, or to other data; its files are
        damaged; or the config holds a value that cannot be written and compared.
    """
    path = Path(workdir).expanduser().absolute()
    config_now = _to_stored(config)
    _make_folder(path, main)
    if not force:
        config_before = load_json(path / 'config.json', 'or --force to write it again')
        differ = (
            [k for k in _find_differences(config_before, config_now) if not _FREE.search(k)]
            if config_before is not None
            else []
        )
        if differ:
            shown = '; '.join(
                f'{k} was {_get_dotted(config_before, k)!r}, is {_get_dotted(config_now, k)!r}' for k in differ[:5]
            )
            more = f' and {len(differ) - 5} more' if len(differ) > 5 else ''
            raise UsageError(
                f'workdir {path} belongs to another config: {shown}{more}; give another --workdir, or --force, which '
                'goes on from its newest checkpoint with this config, such as with more run.steps'
            )
        check_about(path, about.get('experiment') or {})
    return path


def describe_run(workdir: Path, config: Config, about: Mapping[str, Any]) -> None:
    """Writes `config.json` and `run.json`: see `open_workdir`.

    A run writes them after it has restored its state. With --force, a checkpoint of another model is refused as late as
    that, and the files of the run that it belongs to must stay.
    """
    old = read_mapping(workdir / 'run.json')
    if about.get('config') is None and old.get('config') is not None:  # resumed by its workdir alone
        overrides = {**(old.get('overrides') or {}), **(about.get('overrides') or {})}
        about = {**about, 'config': old['config'], 'overrides': overrides}
    # Infinity stays: `max_norm` may be infinite.
    replace_text(workdir / 'config.json', json.dumps(_to_stored(config), indent=1) + '\n')
    write_json(workdir / 'run.json', {**provenance(), **about})


def _to_stored(config: Config) -> Any:
    """Returns a config through JSON and back, as the stored one has been: tuples are lists on both sides."""
    return json.loads(json.dumps(_to_json(to_plain(config))))


def _make_folder(path: Path, main: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if main:
            # Whether the folder can be written is known only by writing: permissions, quotas, read-only mounts.
            replace_text(path / '.writable', '{}\n')
            (path / '.writable').unlink()
    except OSError as error:
        raise UsageError(f'workdir {path} cannot be written: {error.strerror}; give another with --workdir') from error


@contextlib.contextmanager
def lock_workdir(workdir: Path | str) -> Generator[None]:
    """Holds the folder of a run: another process that is to write there is refused.

    The system releases the lock when the process ends, however it ends. The first process holds it for all processes of
    a job. Raises UsageError that names the holder.
    """
    path = Path(workdir).expanduser().absolute()
    _make_folder(path, True)
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        if not _try_lock(descriptor):
            holder = {'pid': '?', 'host': '?', **read_mapping(path / LOCK)}
            raise UsageError(
                f'workdir {path} is in use by process {holder["pid"]} on {holder["host"]}; wait for it or stop it, or '
                'give another --workdir'
            )
        text = json.dumps({'host': platform.node(), 'pid': os.getpid()}).encode()
        with contextlib.suppress(OSError):  # on a full disk the lock works without a name
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        yield
    finally:
        _release(descriptor)


def _try_lock(descriptor: int, seconds: float = 1.0) -> bool:
    """Returns whether the lock was taken or the file system has none; `is_abandoned` may hold it for a moment."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        except OSError as error:
            _log.warning('the workdir cannot be locked (%s); do not run twice in it', error.strerror)
            return True


_held: set[int] = set()  # descriptors of locks


def _release(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _forget_locks() -> None:
    for descriptor in tuple(_held):
        _release(descriptor)


os.register_at_fork(after_in_child=_forget_locks)  # a worker that outlives its parent must not hold the folder


def is_abandoned(workdir: Path) -> bool:
    """Returns whether a run of this host held the folder and none does now: it was killed, or its disk was full."""
    if read_mapping(workdir / LOCK).get('host') != platform.node():
        return False
    try:
        with (workdir / LOCK).open() as file:
            # A shared lock is granted at once if no run holds an exclusive one.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _to_json(value: Any, key: str = '') -> Any:
    """Returns `value` as JSON has it; raises UsageError if it would not be equal to itself when it is read again."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _to_json(v, f'{key}.{name}' if key else str(name)) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(v, f'{key}[{i}]') for i, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    if isinstance(getattr(value, 'dtype', None), np.dtype) and not hasattr(value, 'shape'):  # jnp.float32
        return value.dtype.name
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and value == value):
        return value
    raise UsageError(
        f'config key {key}={value!r} cannot be written to config.json and compared when the run is resumed; give a '
        'number, a text, or a dict or list of them'
    )


def check_about(workdir: Path, about: Mapping[str, Any]) -> None:
    """Raises UsageError unless the run in `workdir` recorded of its data (vocabulary, class names) what `about` has."""
    before = (load_json(workdir / 'run.json') or {}).get('experiment') or {}
    now = json.loads(json.dumps(dict(about), default=str))
    differ = [key for key in before if key in now and before[key] != now[key]]
    if differ:
        shown = '; '.join(f'{key} was {_short(before[key])}, is {_short(now[key])}' for key in differ)
        raise UsageError(f'{workdir} was made with other data: {shown}; give the data it had, or another --workdir')


def _short(value: Any, most: int = 200) -> str:
    text = str(value)
    return text if len(text) <= most else f'{text[:most]}...'


def write_json(path: Path, value: Any) -> None:
    """Writes a file whole or not at all, with null for NaN and infinity, which JSON lacks."""
    replace_text(path, _format_json(value))


def write_status(workdir: Path, status: Mapping[str, Any]) -> None:
    """Writes `status.json`; on a full disk into the blocks of the old file, so that a failed run is not `running`.

    Raises CanonError if that fails, too.
    """
    path = workdir / 'status.json'
    try:
        write_json(path, status)
    except OSError as error:
        try:
            with path.open('r+') as file:
                file.write(_format_json(status))
                file.truncate()
        except OSError:
            raise CanonError(f'{path} cannot be written: {error.strerror}') from error


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all; raises OSError with its name."""
    # A rename is atomic: readers see the old file or the new one, and a kill leaves one of them.
    part = path.with_name(path.name + '.part')
    try:
        part.write_text(text)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a failed write does not name its file


def _format_json(value: Any) -> str:
    return json.dumps(_replace_nonfinite(json.loads(json.dumps(value, default=str))), indent=1, allow_nan=False) + '\n'


def _replace_nonfinite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nonfinite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_replace_nonfinite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """Returns the value in a file; None if there is no file or it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def read_mapping(path: Path) -> dict[str, Any]:
    """Returns the mapping in a file; an empty one if there is none."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def load_json(path: Path, otherwise: str = '') -> dict[str, Any] | None:
    """Returns the mapping in a file; None if there is no file.

    Args:
      path: the file.
      otherwise: how an error continues after the advice to restore the file.

    Raises:
      UsageError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        value = error
    if not isinstance(value, dict):
        advice = f'; restore it{", " if otherwise else ""}{otherwise}'
        raise UsageError(f'{path} is damaged: it does not hold a JSON mapping{advice}')
    return value


def provenance() -> dict[str, Any]:
    """Returns the git revision, the versions and the devices of this process."""
    import jax

    source_folder = Path(__file__).parent
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    return {
        'revision': _git(source_folder, 'rev-parse', 'HEAD'),
        'dirty': bool(_git(source_folder, 'status', '--porcelain', '--untracked-files=no')),
        'python': platform.python_version(),
        'versions': {'canon': canon.__version__} | {name: metadata.version(name) for name in packages},
        'devices': [f'{d.platform}:{d.device_kind}' for d in jax.devices()],
        'processes': jax.process_count(),
    }


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(['git', '-C', str(folder), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _find_differences(a: Any, b: Any, where: str = '') -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(a.keys() | b.keys())
        return [d for k in keys for d in _find_differences(a.get(k), b.get(k), f'{where}.{k}' if where else k)]
    return [] if a == b else [where]


def _get_dotted(tree: Any, dotted: str) -> Any:
    for key in dotted.split('.'):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
