"""What the command lines around main share: options of their own, flags for main, one line for what went wrong."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from canon.errors import CanonError, UsageError
from canon.named import suggest
from experiments import overrides

PASSED_ON = ('--config.', '--runs=', '--workdir=', '--compilation_cache=', '--force')


class Parser(argparse.ArgumentParser):
    """Complains as the rest of the house does: one line, status 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{self.prog}: {message}; ./launch.sh help says more')


def parser(name: str, doc: str | None) -> Parser:
    return Parser(prog=name, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)


def parse(of: Parser, argv: Sequence[str] | None, refused: str = '') -> tuple[argparse.Namespace, list[str]]:
    """The tool's own options, and the flags that go on to main (before or after a `--`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if '--' in words:
        words.remove('--')
    pairs, words = overrides.read_flags(words)
    options, flags = of.parse_known_args(_join_values(words))
    flags += [f'--config.{key}={text}' for key, text in pairs]
    own = [word for action in of._actions for word in action.option_strings]
    for flag in flags:
        name = flag.partition('=')[0]
        if refused and flag.startswith(refused):
            raise UsageError(f'{name} does not go with {of.prog}: each run has a folder of its own below --runs')
        if not flag.startswith(PASSED_ON):
            raise UsageError(f'{of.prog} has no option {name!r}{suggest(name, [*own, *PASSED_ON])}')
    return options, flags


def _join_values(words: Sequence[str]) -> list[str]:
    """`--runs DIR` as one word, `--runs=DIR`: argparse would take DIR for an argument of its own."""
    joined = []
    for word in words:
        if joined and f'{joined[-1]}=' in PASSED_ON:
            joined[-1] += f'={word}'
        else:
            joined.append(word)
    return joined


def command(config: str, flags: Sequence[str]) -> list[str]:
    """The run of one config, as a subprocess would be asked for it."""
    return [sys.executable, '-m', 'experiments.main', f'--config={config}', *flags]


def last_line(log: Path) -> str:
    """What a run that failed had to say: its error line, or else the last one."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('error:')]
    return (errors or lines or ['said nothing'])[-1][:300]


def run(main: Callable[[], int]) -> NoReturn:
    """Ends the process with main's status; 2 for wrong usage and 1 for a failure, after one line."""
    try:
        status = main()
        sys.stdout.flush()
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 2
    except CanonError as error:
        print(f'error: {error}', file=sys.stderr)
        status = 1
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
