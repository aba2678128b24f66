"""`report.html`: a run on one self-contained page, which is rewritten and reloads itself while the run is running."""

from __future__ import annotations

import json
import logging
import math
import time
from pathlib import Path
from typing import Any

from canon import plots
from canon.errors import describe_error
from canon.train.log import SUMMARY, read_rows
from canon.train.pages import encode_picture, render_page
from canon.train.workdir import read_json, read_mapping, replace_text

_HIDDEN = ('seconds',)  # ends of the names that have no curve: the page states the time of a step
_PICTURES = ('.png', '.gif')
_TILES = 8  # numbers that a reader takes in at a glance; the others are folded
_PANELS = 6  # curves that fit on a screen; more of them come after the pictures
_FIRST, _BETWEEN = 10.0, 60.0  # seconds: of a run before its first report, and least between two
_SHARE = 0.02  # the most of the time of a run that its reports may take

_log = logging.getLogger('canon')


def write_report(workdir: Path | str) -> Path:
    """Writes `report.html` from the files of a run, which may not be finished, and returns its path."""
    workdir = Path(workdir)
    rows = read_rows(workdir / 'metrics.jsonl')
    figures = workdir / 'figures'
    figures.mkdir(exist_ok=True)
    series = _series(rows)
    if series:
        plots.draw_curves(series).savefig(figures / 'curves.png', dpi=100)
    status, config = _status(workdir), read_json(workdir / 'config.json')
    metrics = _order_metrics(status['metrics'], config)
    page = render_page(
        Path(__file__).with_name('report.html'),
        title=_title(workdir),
        status=status,
        metrics=dict(metrics[:_TILES]),
        more_metrics=dict(metrics[_TILES:]),
        about=_about(workdir),
        config=json.dumps(config, indent=2),
        pictures=[_picture(p) for p in _order_figures(figures, len({_metric(name) for name in series}))],
        speed=_speed(rows),
    )
    path = workdir / 'report.html'
    replace_text(path, page)  # a browser that reloads must not read half a page
    return path


class LiveReport:
    """Rewrites the report of a run that is running, at most once per minute and in 2 % of its time."""

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._next = time.monotonic() + _FIRST
        self._written = False

    def refresh(self) -> None:
        """Writes the report if it is due; call it after the log row or the evaluation that it is to show."""
        if time.monotonic() >= self._next:
            self._write()

    def close(self) -> None:
        """Writes the report a last time, so that it no longer reloads itself; a short run has none to end."""
        if self._written:
            self._write()

    def _write(self) -> None:
        began = time.monotonic()
        try:
            write_report(self._workdir)
            self._written = True
        except Exception as error:  # a damaged figure, a full disk: none of it is a reason to end a training
            _log.warning('%s: the report is not written: %s', self._workdir, describe_error(error))
            self._next = math.inf
            return
        end = time.monotonic()
        self._next = end + max(_BETWEEN, (end - began) / _SHARE)


def _status(workdir: Path) -> dict[str, Any]:
    """Returns `status.json` as far as it is sound, with NaN for null."""
    status = read_mapping(workdir / 'status.json')
    metrics = status.get('metrics')
    shown = {k: math.nan if v is None else v for k, v in (metrics if isinstance(metrics, dict) else {}).items()}
    seconds = status.get('train_seconds')
    return {
        **status,
        'metrics': {k: v for k, v in shown.items() if isinstance(v, int | float)},
        'train_seconds': seconds if isinstance(seconds, int | float) else None,
    }


def _order_metrics(metrics: dict[str, float], config: Any) -> list[tuple[str, float]]:
    """Returns the metric of the config's target first, then the others as they are."""
    target = config.get('target') if isinstance(config, dict) else None
    first = target.get('metric') if isinstance(target, dict) else None
    return sorted(metrics.items(), key=lambda item: item[0] != first)


def _about(workdir: Path) -> dict[str, Any]:
    """Returns `run.json` as far as it is sound."""
    about = read_mapping(workdir / 'run.json')
    kinds = {'devices': list, 'versions': dict}
    return {k: v for k, v in about.items() if isinstance(v, kinds.get(k, object))}


def _series(rows: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """Returns {name: [(step, value)]} for the curves; metrics of both training and evaluation come first."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != 'step' and not name.endswith(_HIDDEN) and not name.startswith(f'{SUMMARY}/'):
                series.setdefault(name, []).append((row['step'], value))
    metrics = [_metric(name) for name in series]
    # A metric that both have, such as the loss, is what a reader compares first.
    return dict(sorted(series.items(), key=lambda item: -metrics.count(_metric(item[0]))))


def _metric(name: str) -> str:
    """Returns the metric of 'train/loss', whose curve shares a panel with that of 'test/loss'."""
    return name.rpartition('/')[2]


def _speed(rows: list[dict]) -> dict[str, float] | None:
    steps = [r for r in rows if 'train/step_seconds' in r and 'train/data_seconds' in r]
    if not steps:
        return None
    # The row of the median: one slow row, such as the first, does not decide.
    middle = sorted(steps, key=lambda r: r['train/step_seconds'])[len(steps) // 2]
    return {'step': 1e3 * middle['train/step_seconds'], 'data': 1e3 * middle['train/data_seconds']}


def _order_figures(figures: Path, panels: int) -> list[Path]:
    """Returns the pictures by name; the curves come before them, or after them if they have many panels."""
    paths = [path for path in figures.iterdir() if path.suffix in _PICTURES]
    curves_last = panels > _PANELS
    return sorted(paths, key=lambda p: ((p.stem == 'curves') == curves_last, p.stem))


def _picture(path: Path) -> dict[str, Any]:
    return {'name': path.stem.replace('-', ' '), 'data': encode_picture(path.read_bytes(), path.suffix[1:])}


def _title(workdir: Path) -> str:
    return ' / '.join(workdir.absolute().parts[-3:])
