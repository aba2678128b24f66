"""Compares every config with the target that it states: runs it as `:smoke`, prints a table and keeps runs/ledger.md.

    ./launch.sh ledger                    # all
    ./launch.sh ledger --save             # into docs/ledger.md, the page that is published
    ./launch.sh ledger classification     # those whose path matches (a regular expression)
    ./launch.sh ledger --ci               # those whose target has ci=True: fast enough for every change

A config takes part if it states `config.target = dict(metric=..., at_least=... or at_most=...)`. The exit status is 1
if one misses its target.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from canon.errors import CanonError, UsageError
from canon.named import suggest
from canon.train.runs import Run
from experiments import configs
from launch import tools
from launch.flags import find_run
from launch.pages import TablePage
from launch.table import layout

HEAD = ('config', 'metric', 'target', 'measured', 'seconds', 'result')
TITLE = """# The ledger

The `:smoke` run of every config compared with the target that the config states, by `./launch.sh ledger`. Seconds are
those of the whole command on the machine that ran it last.

"""
PAGE = TablePage(TITLE, HEAD, key=lambda row: row[0], known=lambda row: (configs.ROOT / row[0]).is_file())


class Entry(NamedTuple):
    """A config that states a target, or an error if the config cannot be read."""

    path: str
    target: dict[str, Any]
    error: str = ''


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('ledger', __doc__)
    parser.add_argument('filter', nargs='?', default='', metavar='FILTER')
    parser.add_argument('--ci', action='store_true', help='only configs whose target has ci=True')
    parser.add_argument('--minutes', type=float, default=15, help='the time limit of each config')
    parser.add_argument('--save', action='store_true', help='write docs/ledger.md instead of runs/ledger.md')
    options = parser.parse_args(argv)
    page = configs.ROOT / ('docs' if options.save else 'runs') / 'ledger.md'
    rows = []
    # A new folder, so that no finished run is taken for this one.
    with tempfile.TemporaryDirectory(prefix='canon-ledger-') as root:
        for entry in list_entries(options.filter, options.ci):
            print(f'{entry.path} ...', end=' ', flush=True)
            row = measure(entry, Path(root), options.minutes)
            print(f'{row[3]} {row[5]}, {row[4]} s', flush=True)
            rows.append(row)
            PAGE.write(page, [row])  # at once, so that an interrupted ledger keeps what it has measured
    print('\n' + layout(HEAD, rows))
    failed = [row for row in rows if row[5] != 'pass']
    print(f'\n{len(rows) - len(failed)} of {len(rows)} reach their target; written to {page.relative_to(configs.ROOT)}')
    return 1 if failed else 0


def list_entries(pattern: str, ci: bool) -> list[Entry]:
    """Returns the configs that state a target and match the pattern; only the fast ones if `ci`."""
    try:
        matching = [path for path in configs.find() if re.search(pattern, path)]
    except re.error as error:
        raise UsageError(f'FILTER {pattern!r} is not a regular expression: {error}') from error
    if not matching:
        raise UsageError(f'no config matches {pattern!r}{suggest(pattern, configs.find())}')
    entries = [entry for path in matching if (entry := read_entry(path)) and (entry.target.get('ci') or not ci)]
    if not entries:
        raise CanonError(f'of {len(matching)} configs matching {pattern!r} none states a {"fast " if ci else ""}target')
    return entries


def read_entry(path: str) -> Entry | None:
    """Returns the entry of a config, or None if it states no target. An unreadable config is an entry that fails."""
    try:
        target = configs.load(f'{path}:smoke').get('target')
    except CanonError as error:
        # It counts as fast, so that a config that is broken fails in CI.
        return Entry(path, {'ci': True}, str(error))
    return Entry(path, dict(target)) if target else None


def measure(entry: Entry, root: Path, minutes: float) -> list[str]:
    """Runs a config and returns its row of the table."""
    metric, goal = str(entry.target.get('metric', '-')), _goal(entry.target)
    if entry.error:
        return [entry.path, metric, goal, entry.error, '0', 'fail']
    began, source = time.monotonic(), f'{entry.path}:smoke'
    log = root / 'log'
    try:
        with log.open('w') as out:
            status = subprocess.run(
                tools.main_command(source, [f'--runs={root}']),
                cwd=configs.ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=60 * minutes,
            ).returncode
        run = find_run(source, (), root)
        # The last line has the error. Paths of this machine do not belong on a page that is published.
        message = tools.read_last_line(log).replace(str(root), 'runs').replace(f'{configs.ROOT}/', '')
        measured, reached = _judge(entry.target, run) if status == 0 else (message, False)
    except subprocess.TimeoutExpired:
        measured, reached = f'not done in {minutes:g} minutes', False
    seconds = f'{time.monotonic() - began:.0f}'
    return [entry.path, metric, goal, measured, seconds, 'pass' if reached else 'fail']


def _judge(target: dict[str, Any], run: Run | None) -> tuple[str, bool]:
    if run is None or run.state != 'done':
        return f'ended {run.state if run else "without a run"}', False
    value = run.metrics.get(target['metric']) if 'metric' in target else None
    if value is None:
        return f'no such metric{suggest(str(target.get("metric")), run.metrics)}', False
    # NaN misses: every comparison with it is false.
    reached = value >= target.get('at_least', value) and value <= target.get('at_most', value)
    return f'{value:.4g}', reached


def _goal(target: dict[str, Any]) -> str:
    signs = (('at_least', '>='), ('at_most', '<='))
    return ' and '.join(f'{sign} {target[key]:g}' for key, sign in signs if key in target) or 'none'


if __name__ == '__main__':
    tools.run(main)
