"""A run's folder: which config made it, how it stands, what it measured."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canon.errors import UsageError
from canon.named import plain

if TYPE_CHECKING:
    from canon.train.types import Config

# What may change between a run and its resumption: it changes nothing that is learnt.
_FREE = re.compile(
    r'^(target|data\.(reading|data_dir)|run\.(stop_after|log_every|profile|watchdog|tensorboard|mesh|shard)|'
    r'run\.checkpoint\.(every|keep|keep_best|average))(\.|$)'
)


def open_workdir(workdir: Path | str, config: Config, about: Mapping[str, Any], force: bool, main: bool) -> Path:
    """Makes the folder, or checks that it is this config's; writes `config.json` and `run.json` (where `main`).

    Raises UsageError where it cannot be written to, and where another config, or the same with other data, made it and
    `force` is not given. What an experiment said of its data stands in about['experiment'].
    """
    path = Path(workdir).expanduser().absolute()
    mine = json.loads(json.dumps(plain(config), default=str))
    try:
        path.mkdir(parents=True, exist_ok=True)
        if main:
            write_json(path / '.writable', {})
            (path / '.writable').unlink()
    except OSError as error:
        raise UsageError(f'workdir {path} cannot be written: {error.strerror}; give another with --workdir') from error
    theirs = read_json(path / 'config.json')
    if theirs is not None and not force:
        differ = [k for k in _differences(theirs, mine) if not _FREE.search(k)]
        if differ:
            shown = '; '.join(f'{k} was {_get(theirs, k)!r}, is {_get(mine, k)!r}' for k in differ[:5])
            more = f' and {len(differ) - 5} more' if len(differ) > 5 else ''
            raise UsageError(
                f'workdir {path} belongs to another config: {shown}{more}; give another --workdir, or --force to go on'
            )
        check_about(path, about.get('experiment') or {})
    if main:
        old = read_json(path / 'run.json') or {}
        if about.get('config') is None and old.get('config') is not None:  # the run goes on by its workdir alone
            overrides = {**(old.get('overrides') or {}), **(about.get('overrides') or {})}
            about = {**about, 'config': old['config'], 'overrides': overrides}
        write_json(path / 'config.json', mine)
        write_json(path / 'run.json', {**provenance(), **about})
    return path


def check_about(workdir: Path, about: Mapping[str, Any]) -> None:
    """Raises UsageError unless the run in `workdir` said of its data what `about` says: a vocabulary, class names."""
    before = (read_json(workdir / 'run.json') or {}).get('experiment') or {}
    now = json.loads(json.dumps(dict(about), default=str))
    differ = [key for key in before if key in now and before[key] != now[key]]
    if differ:
        shown = '; '.join(f'{key} was {_short(before[key])}, is {_short(now[key])}' for key in differ)
        raise UsageError(f'{workdir} was made with other data: {shown}; give the data it had, or another --workdir')


def _short(value: Any, most: int = 200) -> str:
    text = str(value)
    return text if len(text) <= most else f'{text[:most]}...'


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: a reader never sees half a file."""
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(value, indent=1, default=str) + '\n')
    os.replace(part, path)


def read_json(path: Path) -> Any:
    """The file's value, or None where it is not there or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


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
