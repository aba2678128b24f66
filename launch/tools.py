"""Shared parts of the commands of `launch.sh`: options of their own, flags that go on to main, running main."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from canon.configuration import read_flags
from canon.errors import UsageError, run_command
from canon.named import suggest

PASSED_ON = ('--config.', '--runs=', '--workdir=', '--compilation_cache=', '--force')  # flags of main


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that reports wrong usage in one line, with status 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f'{self.verb}: {message}; ./launch.sh {self.verb} --help says more')

    @property
    def verb(self) -> str:
        """The verb of launch.sh."""
        return self.prog.rpartition(' ')[2]


def make_parser(name: str, doc: str | None) -> Parser:
    """Returns a parser whose help is the docstring of the command's module."""
    return Parser(
        prog=f'./launch.sh {name}',
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def parse(parser: Parser, argv: Sequence[str] | None, refused: str = '') -> tuple[argparse.Namespace, list[str]]:
    """Separates the command's own options from the flags for main, before or after a `--`.

    Args:
      parser: of the own options.
      argv: words of the command line; None for those of this process.
      refused: a flag of main, such as '--workdir=', that this command cannot pass on.

    Returns:
      the own options, and the flags for main.

    Raises:
      UsageError: a flag is of neither, or refused.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if '--' in words:
        words.remove('--')  # only the first: it separates, a second one would be a value
    pairs, words = read_flags(words)
    # Overrides were taken out before: argparse knows no flag of the form --config.KEY.
    options, flags = parser.parse_known_args(_join_values(words))
    flags += [f'--config.{key}={text}' for key, text in pairs]
    # argparse would only say that it does not know the flag; this names the near ones.
    own = [word for action in parser._actions for word in action.option_strings]
    for flag in flags:
        name = flag.partition('=')[0]
        if refused and flag.startswith(refused):
            raise UsageError(f'{name} does not go with {parser.verb}: each run has a folder of its own below --runs')
        if not flag.startswith(PASSED_ON):
            raise UsageError(f'{parser.verb} has no option {name!r}{suggest(name, [*own, *PASSED_ON])}')
    return options, flags


def _join_values(words: Sequence[str]) -> list[str]:
    """Joins `--runs DIR` to `--runs=DIR`: argparse would take DIR for a positional argument of the command."""
    joined = []
    for word in words:
        if joined and f'{joined[-1]}=' in PASSED_ON:
            joined[-1] += f'={word}'
        else:
            joined.append(word)
    return joined


def main_command(config: str, flags: Sequence[str]) -> list[str]:
    """Returns the command that runs a config in a process of its own."""
    return [sys.executable, '-m', 'experiments.main', f'--config={config}', *flags]


def read_last_line(log: Path) -> str:
    """Returns the error line of a run that failed, or else the last line of its log."""
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('error:')]
    return (errors or lines or ['said nothing'])[-1][:300]


def run(main: Callable[[], int]) -> NoReturn:
    """Ends the process with the status of a command (`canon.errors.run_command`)."""
    sys.exit(run_command(main))
