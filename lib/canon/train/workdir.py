"""A run's folder: which config made it, how it stands, what it measured."""

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

from canon.errors import CanonError, UsageError
from canon.named import to_plain

if TYPE_CHECKING:
    from canon.train.types import Config

LOCK = '.lock'

_log = logging.getLogger('canon')

# What may change between a run and its resumption: it changes nothing that is learnt.
_FREE = re.compile(
    r'^(target|data\.(reading|data_dir)|run\.(stop_after|log_every|profile|watchdog|tensorboard|mesh|shard)|'
    r'run\.checkpoint\.(every|keep|keep_best|average))(\.|$)'
)


def open_workdir(workdir: Path | str, config: Config, about: Mapping[str, Any], force: bool, main: bool) -> Path:
    """Checks that the folder is this config's; writes `config.json` and `run.json` (where `main`).

    Args:
      workdir: the folder, made where there is none.
      config: the config of the run.
      about: what `run.json` says besides; its 'experiment' holds what the experiment says of its data.
      force: takes a folder that another config made, or whose files are damaged.
      main: whether this process writes.

    Raises:
      UsageError: the folder cannot be written to; another config made it, or the same with other data; its files are
        damaged; or the config holds what cannot be written and compared.
    """
    path = Path(workdir).expanduser().absolute()
    mine = json.loads(json.dumps(_jsonable(to_plain(config))))
    _make(path, main)
    if not force:
        theirs = load_json(path / 'config.json', 'or --force to write it again')
        differ = [k for k in _differences(theirs, mine) if not _FREE.search(k)] if theirs is not None else []
        if differ:
            shown = '; '.join(f'{k} was {_get(theirs, k)!r}, is {_get(mine, k)!r}' for k in differ[:5])
            more = f' and {len(differ) - 5} more' if len(differ) > 5 else ''
            raise UsageError(
                f'workdir {path} belongs to another config: {shown}{more}; give another --workdir, or --force to go on'
            )
        check_about(path, about.get('experiment') or {})
    if main:
        old = read_mapping(path / 'run.json')
        if about.get('config') is None and old.get('config') is not None:  # the run goes on by its workdir alone
            overrides = {**(old.get('overrides') or {}), **(about.get('overrides') or {})}
            about = {**about, 'config': old['config'], 'overrides': overrides}
        replace_text(path / 'config.json', json.dumps(mine, indent=1) + '\n')  # Infinity stays: `max_norm` may be
        write_json(path / 'run.json', {**provenance(), **about})
    return path


def _make(path: Path, main: bool) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if main:
            replace_text(path / '.writable', '{}\n')
            (path / '.writable').unlink()
    except OSError as error:
        raise UsageError(f'workdir {path} cannot be written: {error.strerror}; give another with --workdir') from error


@contextlib.contextmanager
def lock_workdir(workdir: Path | str) -> Generator[None]:
    """Holds a run's folder: another process that wants to write there is refused.

    The system releases the lock of a process that ends, however it ends. The first process holds it for all processes
    of a job. Raises UsageError that names the holder.
    """
    path = Path(workdir).expanduser().absolute()
    _make(path, True)
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
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, text, 0)
        yield
    finally:
        _release(descriptor)


def _try_lock(descriptor: int, seconds: float = 1.0) -> bool:
    """Whether the lock was taken, or the file system has none. `is_abandoned` may hold it for a moment."""
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
    """Whether a run of this host held the folder and no process holds it now: it was killed, or its disk was full."""
    if read_mapping(workdir / LOCK).get('host') != platform.node():
        return False
    try:
        with (workdir / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _jsonable(value: Any, key: str = '') -> Any:
    """`value` as JSON has it; raises UsageError for what would not be equal to itself when it is read again."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _jsonable(v, f'{key}.{name}' if key else str(name)) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v, f'{key}[{i}]') for i, v in enumerate(value)]
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
    """Raises UsageError unless the run in `workdir` said of its data what `about` says: a vocabulary, class names."""
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
    """Whole or not at all: a reader never sees half a file. JSON has no NaN and no infinity: null stands for them."""
    replace_text(path, _text(value))


def write_status(workdir: Path, status: Mapping[str, Any]) -> None:
    """Writes `status.json`; on a full disk into the old file's own blocks, so that a failed run is not `running`.

    Raises CanonError where that fails too.
    """
    path = workdir / 'status.json'
    try:
        write_json(path, status)
    except OSError as error:
        try:
            with path.open('r+') as file:
                file.write(_text(status))
                file.truncate()
        except OSError:
            raise CanonError(f'{path} cannot be written: {error.strerror}') from error


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all; raises OSError with its name."""
    part = path.with_name(path.name + '.part')
    try:
        part.write_text(text)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a failed write does not name its file


def _text(value: Any) -> str:
    return json.dumps(_finite(json.loads(json.dumps(value, default=str))), indent=1, allow_nan=False) + '\n'


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """The file's value, or None where it is not there or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def read_mapping(path: Path) -> dict[str, Any]:
    """The file's value where it is a mapping, or an empty one."""
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def load_json(path: Path, otherwise: str = '') -> dict[str, Any] | None:
    """The file's mapping, or None where there is no file.

    Raises UsageError for a damaged file; otherwise: the way out besides restoring it.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        value = error
    if not isinstance(value, dict):
        advice = f'; restore it{", " if otherwise else ""}{otherwise}'
        raise UsageError(f'{path} is damaged: it holds no JSON mapping{advice}')
    return value


def provenance() -> dict[str, Any]:
    """Git revision, versions and devices of this process."""
    import jax

    here = Path(__file__).parent
    packages = ('canon', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    return {
        'revision': _git(here, 'rev-parse', 'HEAD'),
        'dirty': bool(_git(here, 'status', '--porcelain', '--untracked-files=no')),
        'python': platform.python_version(),
        'versions': {name: metadata.version(name) for name in packages},
        'devices': [f'{d.platform}:{d.device_kind}' for d in jax.devices()],
        'processes': jax.process_count(),
    }


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(['git', '-C', str(folder), *words], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _differences(a: Any, b: Any, where: str = '') -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(a.keys() | b.keys())
        return [d for k in keys for d in _differences(a.get(k), b.get(k), f'{where}.{k}' if where else k)]
    return [] if a == b else [where]


def _get(tree: Any, dotted: str) -> Any:
    for key in dotted.split('.'):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree
