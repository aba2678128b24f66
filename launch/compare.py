"""Writes one self-contained page that compares the runs below folders: curves, results, settings and pictures.

    ./launch.sh compare runs/classification/lenet_digits
    ./launch.sh compare runs/detection/a runs/detection/b --output=a_and_b.html

The page needs no network and no other file. A click on the name of a run hides or shows its curve, its row and its
pictures; a double click shows it alone.
"""

from __future__ import annotations

import colorsys
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from canon.errors import CanonError, UsageError
from canon.train.log import SUMMARY, read_rows
from canon.train.pages import encode_picture, render_page
from canon.train.runs import Run, find_runs, list_stages
from canon.train.workdir import replace_text
from launch import table, tools
from launch.flags import label

_COLOURS = (
    '#4063d8',
    '#d1495b',
    '#2e8b57',
    '#e08e1b',
    '#8a4fbf',
    '#148f9e',
    '#8c564b',
    '#d45fb0',
    '#7f7f7f',
    '#a3a61d',
)
_MOST_POINTS = 400  # of one curve: a panel is 500 pixels wide
_ALL_POINTS = 400_000  # of all curves, about 6 MB of the page
_PIXELS = 30e6  # of all pictures, about 6 MB of the page


def main(argv: Sequence[str] | None = None) -> int:
    parser = tools.make_parser('compare', __doc__)
    parser.add_argument('folders', metavar='DIR', type=Path, nargs='+')
    parser.add_argument('--output', metavar='FILE', type=Path, help='the page (default: compare.html in the first DIR)')
    parser.add_argument(
        '--metric', help="the metric that sorts the runs and comes first (default: the config's target)"
    )
    options = parser.parse_args(argv)
    runs = _find_all(options.folders)
    output = options.output or options.folders[0] / 'compare.html'
    if output.is_dir():
        raise UsageError(f'--output={output} is a folder; give the file of the page, such as {output / "compare.html"}')
    page = render_comparison(runs, options.metric, options.folders)
    try:
        replace_text(output, page)
    except OSError as error:
        raise CanonError(f'{output} cannot be written: {error.strerror}') from error
    print(f'{output}: {len(runs)} run{"s" if len(runs) != 1 else ""}, {len(page.encode()) / 1e6:.1f} MB')
    return 0


def _find_all(folders: Sequence[Path]) -> list[Run]:
    """Returns the runs below all folders, each once."""
    runs: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f'no folder {folder}; runs are in runs/TASK/NAME')
        below = find_runs(folder)
        if not below:
            raise CanonError(f'no runs below {folder}')
        runs |= {run.folder.resolve(): run for run in below}
    return list(runs.values())


def render_comparison(runs: Sequence[Run], metric: str | None, folders: Sequence[Path]) -> str:
    """Returns the page, with the best run first.

    Args:
      runs: at least one; they may have failed, or lack metrics that others have.
      metric: what sorts them; None for the target's.
      folders: where they were found, for the title.
    """
    metric = table.choose_metric(runs, metric)
    runs = table.sort_runs(runs, metric)
    root = Path(os.path.commonpath([run.folder.absolute() for run in runs]))
    names, rows = table.tabulate([run._replace(folder=run.folder.absolute()) for run in runs], metric, root)
    labels = name_runs(runs)
    return render_page(
        Path(__file__).with_name('compare.html'),
        title=' and '.join('/'.join(folder.absolute().parts[-2:]) for folder in folders),
        runs=[{'name': name, 'colour': colour, 'state': run.state, 'error': run.error or ''}
              for run, name, colour in zip(runs, labels, choose_colours(len(runs)), strict=True)],
        names=names,
        rows=[[table.format_cell(value) for value in row] for row in rows],
        metric=metric,
        curves=read_panels(runs, metric),
        differences=[(key, [table.format_cell(value) for value in values]) for key, values in find_differences(runs)],
        pictures=shrink_pictures(find_pictures(runs)),
    )  # fmt: skip


def name_runs(runs: Sequence[Run]) -> list[str]:
    """Returns a short name per run: its config where several are compared, and the overrides that tell it apart."""
    keys = list(dict.fromkeys(key for run in runs for key in run.overrides))
    keys = [key for key in keys if len({repr(run.overrides.get(key)) for run in runs}) > 1]
    several = len({run.config for run in runs}) > 1
    names = []
    for run in runs:
        own = {key: run.overrides[key] for key in keys if key in run.overrides}
        stem, _, argument = run.config.rpartition('/')[2].replace('.py', '').partition(':')
        config = f'{stem}:{argument}' if argument else stem
        words = [*([config] if several else []), *([label(own)] if own else [])]
        names.append(' '.join(words) or run.folder.name)
    # Runs of one config may differ only in their folder.
    doubles = {name for name in names if names.count(name) > 1}
    return [
        f'{n} ({r.folder.parent.name}/{r.folder.name})' if n in doubles else n for r, n in zip(runs, names, strict=True)
    ]


def choose_colours(count: int) -> list[str]:
    """Returns a colour per run: ten that are easy to tell apart, then hues that differ from their neighbours."""
    colours = list(_COLOURS[:count])
    for i in range(len(colours), count):
        # Steps of the golden ratio never come close to an earlier hue for long.
        rgb = colorsys.hls_to_rgb(i * 0.618034 % 1, (0.35, 0.5, 0.62)[i % 3], 0.6)
        colours.append('#' + ''.join(f'{round(255 * c):02x}' for c in rgb))
    return colours


def read_panels(runs: Sequence[Run], metric: str | None) -> list[dict[str, Any]]:
    """Returns `{'name', 'curves': [[run, steps, values], ...]}` per metric; those of evaluations come first."""
    panels: dict[str, list] = {}
    for i, run in enumerate(runs):
        for prefix, folder in list_stages(run.folder):
            for name, points in _read_series(folder).items():
                panels.setdefault(prefix + name, []).append((i, points))
    count = sum(map(len, panels.values()))
    most = max(20, min(_MOST_POINTS, _ALL_POINTS // max(count, 1)))
    order = sorted(panels, key=lambda name: (name != metric, '/train/' in f'/{name}', name))
    return [
        {'name': name, 'curves': [[i, *_thin(points, most)] for i, points in panels[name]]}
        for name in order
    ]  # fmt: skip


def _read_series(folder: Path) -> dict[str, list[tuple[int, float]]]:
    series: dict[str, list[tuple[int, float]]] = {}
    for row in read_rows(folder / 'metrics.jsonl'):
        for name, value in row.items():
            hidden = name == 'step' or name.endswith('data_seconds') or name.startswith(f'{SUMMARY}/')
            if not hidden and not (name.endswith('/seconds') and not name.startswith('train/')):
                series.setdefault(name, []).append((row['step'], value))
    return series


def _thin(points: Sequence[tuple[int, float]], most: int) -> tuple[list[int], list[float | None]]:
    """Returns steps and values, at most about `most`: the least and the greatest of each group stay, so spikes do."""
    if len(points) > most:
        size = math.ceil(2 * len(points) / most)
        kept = []
        for start in range(0, len(points), size):
            group = points[start : start + size]
            finite = [point for point in group if math.isfinite(point[1])] or group[:1]
            ends = {min(finite, key=lambda p: p[1]), max(finite, key=lambda p: p[1])}
            kept += sorted(ends)
        points = [points[0], *kept[1:-1], points[-1]]
    # JSON has no NaN: a gap in the curve.
    return [step for step, _ in points], [float(f'{v:.5g}') if math.isfinite(v) else None for _, v in points]


def find_differences(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Returns (dotted key, the value of each run) for the settings that are not the same in all runs."""
    keys = sorted({key for run in runs for key in run.values})
    columns = ((key, [run.values.get(key) for run in runs]) for key in keys)
    return [(key, values) for key, values in columns if len({repr(value) for value in values}) > 1]


def find_pictures(runs: Sequence[Run]) -> dict[str, list[tuple[int, Path]]]:
    """Returns {name: [(run, file)]} of the figures; the curves of a run are drawn by the page itself."""
    pictures: dict[str, list[tuple[int, Path]]] = {}
    for i, run in enumerate(runs):
        for prefix, folder in list_stages(run.folder):
            for path in sorted((folder / 'figures').glob('*')):
                if path.suffix in ('.png', '.gif') and path.stem != 'curves':
                    pictures.setdefault(prefix + path.stem, []).append((i, path))
    return dict(sorted(pictures.items()))


def shrink_pictures(pictures: Mapping[str, Sequence[tuple[int, Path]]]) -> list[dict[str, Any]]:
    """Returns `{'name', 'pictures': [(run, data)]}`: all of one width, by which the page stays small."""
    count = sum(map(len, pictures.values()))
    width = int(max(160, min(560, math.sqrt(_PIXELS / max(count, 1)))))
    shrunk = []
    for name, of_runs in pictures.items():
        encoded = [(i, data) for i, path in of_runs if (data := _encode(path, width))]
        shrunk.append({'name': name.replace('-', ' '), 'pictures': encoded})
    return shrunk


def _encode(path: Path, width: int) -> str | None:
    """Returns a picture, of an animation the first frame, as the address of a WebP; None for a damaged file."""
    try:
        with Image.open(path) as picture:
            picture = picture.convert('RGB')
            picture.thumbnail((width, 4 * width))
            content = io.BytesIO()
            picture.save(content, 'webp', quality=80)
    except OSError:
        return None
    return encode_picture(content.getvalue(), 'webp')


if __name__ == '__main__':
    tools.run(main)
