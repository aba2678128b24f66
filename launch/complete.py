"""Completes a command line of launch.sh: verbs, configs, their arguments, flags and keys, one candidate per line.

    python launch/complete.py run configs/classification/lenet_digits.py --config.tx.

Shells call it at every Tab, so it imports the standard library alone. All keys of a config, and the values that they
select from, take seconds, because they follow from signatures: they are kept in ~/.cache/canon/keys, and listed again,
in a process of their own, when a file that they depend on has changed. Until then only the keys that the config states
are offered.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_MAIN = ('run', 'eval', 'predict', 'export', 'replay')  # verbs of experiments/main.py
_MODULES = {'slurm': ('submit',), 'sweep': ('sweep', 'submit')}  # of launch/, where they are not called as the verb
_WITH_CONFIG = (*_MAIN, 'sweep', 'slurm', 'data', 'tpu')


def main(words: Sequence[str]) -> None:
    if words[:1] == ['--write']:
        write_keys(words[1])
        return
    for candidate in complete(words, Path.cwd()):
        print(candidate)


def complete(words: Sequence[str], folder: Path) -> list[str]:
    """Returns what the last of `words`, those after the name of the program, may become.

    Args:
      words: of the command line; the last one is unfinished, '' after a space.
      folder: from which the command is called.
    """
    verbs = list_verbs()
    *given, current = words or ['']
    if not given and not current.startswith('-'):
        return [verb for verb in verbs if verb.startswith(current)]
    verb = given[0] if given and given[0] in verbs else 'run'
    if current.startswith('--config.'):
        config = next((word for word in given if re.fullmatch(r'[^-].*\.py(:\w*)?', word)), '')
        keys = list_keys(config or 'configs/classification/lenet_digits.py', folder)
        return _complete_key(current.removeprefix('--config.'), keys)
    if current.startswith('--workdir=') or given[-1:] == ['--workdir']:
        flag, equals, path = current.rpartition('=')
        return [f'{flag}{equals}{run}' for run in sorted({*_list_runs(path, ROOT), *_list_runs(path, folder)})]
    if current.startswith('-'):
        return [flag for flag in list_flags(verb) if flag.startswith(current)]
    if verb == 'completion':
        return [shell for shell in ('bash', 'zsh') if shell.startswith(current)]
    if verb == 'help':
        return [name for name in verbs if name.startswith(current)]
    if verb in _WITH_CONFIG and not any(re.fullmatch(r'[^-].*\.py(:\w*)?', word) for word in given):
        return sorted({*_list_configs(current, ROOT), *_list_configs(current, folder)})
    return []


def _complete_key(current: str, keys: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the keys that begin with `current`, or after the `=` the values of the key: of a list, the last one."""
    key, equals, values = current.partition('=')
    if not equals:
        return [f'--config.{name}=' for name in keys if name.startswith(current)]
    before, comma, last = values.rpartition(',')
    given = before.split(',')
    options = (value for value in keys.get(key, ()) if value.startswith(last) and value not in given)
    return [f'--config.{key}={before}{comma}{value}' for value in options]


def _list_runs(current: str, folder: Path) -> Iterator[str]:
    """Yields folders that begin with `current`: runs and their stages, which have a config.json; outside runs, all."""
    parent = current.rpartition('/')[0]
    base = folder / parent if parent else folder
    inside = (base / 'config.json').is_file()
    entries = [folder / 'runs'] if not current or 'runs'.startswith(current) else sorted(base.glob('*'))
    for entry in entries:
        name = f'{parent}/{entry.name}' if parent else entry.name
        if entry.name[0] == '.' or not name.startswith(current) or not entry.is_dir():
            continue
        if (entry / 'config.json').is_file():
            yield name
        elif not inside:
            yield f'{name}/'


def list_verbs() -> list[str]:
    """Returns the verbs of launch.sh, in the order of its help."""
    text = (ROOT / 'launch.sh').read_text(encoding='utf-8').partition("<<'END'\n")[2].partition('\nEND')[0]
    return re.findall(r'^  ([a-z]+) ', text, re.MULTILINE)


def list_flags(verb: str) -> list[str]:
    """Returns the flags of a verb, those that take a value with `=`, as the text of its module has them."""
    flags = ['--help']
    if verb in _WITH_CONFIG:
        text = (ROOT / 'experiments/main.py').read_text(encoding='utf-8')
        flags += ['--config.']
        for kind, name in re.findall(r"^flags\.DEFINE_(\w+)\('(\w+)'", text, re.MULTILINE):
            # Other verbs pass only some of main's flags on.
            if name not in ('config', 'mode') and (verb in _MAIN or name in ('runs', 'force', 'compilation_cache')):
                flags.append(f'--{name}' + ('' if kind == 'boolean' else '='))
    for module in _MODULES.get(verb, (verb,)):
        file = ROOT / 'launch' / f'{module}.py'
        text = file.read_text(encoding='utf-8') if file.is_file() else ''
        for call in re.split(r'\badd(?:_argument)?\(\s*', text)[1:]:
            if name := re.match(r"'(--[\w-]+)'", call):
                flags.append(name[1] + ('' if 'store_true' in call.partition('\n\n')[0] else '='))
    return list(dict.fromkeys(flags))


def _list_configs(current: str, folder: Path) -> Iterator[str]:
    """Yields folders and config files that begin with `current`, and FILE:ARG after the colon."""
    if ':' in current:
        path = current.partition(':')[0]
        file = folder / path
        text = file.read_text(encoding='utf-8') if file.is_file() else ''
        stated = re.search(r'^ARGUMENTS = (\(.*?\)|\[.*?\])', text, re.MULTILINE | re.DOTALL)
        names = re.findall(r"'(\w+)'", stated[1]) if stated else ['smoke'] if text else []
        yield from (f'{path}:{name}' for name in names if f'{path}:{name}'.startswith(current))
        return
    parent = current.rpartition('/')[0]
    base = folder / parent if parent else folder
    entries = [folder / 'configs'] if not parent and folder == ROOT else sorted(base.glob('*')) if base.is_dir() else []
    for entry in entries:
        name = f'{parent}/{entry.name}' if parent else entry.name
        if entry.name[0] in '._' or not name.startswith(current):
            continue
        if entry.is_dir():
            yield f'{name}/'
        elif entry.suffix == '.py' and 'def get_config' in entry.read_text(encoding='utf-8', errors='replace'):
            yield name


def list_keys(source: str, folder: Path) -> dict[str, list[str]]:
    """Returns the keys of a config with the values that each selects from, [] of others.

    They are all keys as kept, else those that the config states, while the others are listed.
    """
    path = next((base / source for base in (ROOT, folder) if (base / source.partition(':')[0]).is_file()), None)
    if path is None:
        return {}
    cache = find_cache(str(path))
    stamp, *lines = cache.read_text(encoding='utf-8').splitlines() if cache.is_file() else ['']
    if stamp != make_stamp(path):
        _start_listing(path)
    keys = {key: values for key, *values in (line.split('\t') for line in lines)}
    return keys or {key: [] for key in list_stated(str(path))}


def _start_listing(path: Path) -> None:
    """Starts a process that lists all keys of a config for the next Tab."""
    command = [sys.executable, str(Path(__file__).resolve()), '--write', str(path)]
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, cwd=ROOT, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def list_stated(source: str) -> list[str]:
    """Returns the keys that a config states, of a process that imports the config and nothing of Canon."""
    code = (
        'import importlib.util, sys\nfile, _, argument = sys.argv[1].partition(":")\n'
        'spec = importlib.util.spec_from_file_location("config", file)\n'
        'module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n'
        'config = module.get_config(argument) if argument else module.get_config()\n'
        'def walk(section, prefix):\n for name in section:\n'
        '  value = section.get(name)\n'
        '  walk(value, f"{prefix}{name}.") if hasattr(value, "to_dict") else print(prefix + name)\n'
        'walk(config, "")\n'
    )
    done = subprocess.run([sys.executable, '-c', code, source], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.split()


def write_keys(source: str) -> None:
    """Writes all keys of a config and their values into the cache: imports the experiment, which takes seconds."""
    sys.path[0] = str(ROOT)  # in place of launch/, whose modules are not top-level ones
    from ml_collections import ConfigDict

    from canon.configuration import known_keys, list_choices
    from experiments import overrides, protocol

    stamp, config = make_stamp(Path(source)), overrides.load(source)
    sections = overrides.find_sections(config)
    keys = sorted(key for key, value in known_keys(config, sections).items() if not isinstance(value, ConfigDict))
    lines = [
        '\t'.join([key, *(protocol.names() if key == 'experiment' else list_choices(config, key, sections))])
        for key in keys
    ]
    cache = find_cache(source)
    cache.parent.mkdir(parents=True, exist_ok=True)
    part = cache.with_suffix(f'.{os.getpid()}')
    part.write_text('\n'.join([stamp, *lines]), encoding='utf-8')
    part.replace(cache)  # another Tab may be writing, too


def find_cache(source: str) -> Path:
    """Returns the file with the keys of a config."""
    home = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(home) / 'canon/keys' / f'{hashlib.sha256(source.encode()).hexdigest()[:16]}.txt'


def make_stamp(path: Path) -> str:
    """Returns a text that changes with the files that keys depend on: the config's folder, experiments/ and lib/."""
    files = [path.parent, ROOT / 'experiments', ROOT / 'lib/canon']
    return f'{max(_times(files)):.6f}'


def _times(folders: Iterable[Path]) -> Iterator[float]:
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith('.py'):
                    yield entry.stat().st_mtime
                elif entry.is_dir() and entry.name[0] not in '._':
                    yield from _times([Path(entry.path)])
    yield 0.0


if __name__ == '__main__':
    main(sys.argv[1:])
