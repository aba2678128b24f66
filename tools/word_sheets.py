"""Draws the pictures of docs/rendered_words.md: a word after each stage of the engine, and sheets of words.

    python tools/word_sheets.py [--fonts FOLDER] [--textures FOLDER] [--chinese FOLDER] [--output docs/rendered_words]

The pictures are the same on every run with the same fonts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from canon.data import Alphabet, Key, load_source
from canon.data.pipeline.chain import apply_chain
from canon.data.text.engine import stages
from canon.data.text.rendered_words import rendered_words
from canon.errors import UsageError

_WORDS = ('Jaderberg', 'synthetic', 'words')
_SEEDS = (0, 7, 10, 13, 17, 18, 22)
_CELL, _GAP = (64, 250), 6
_COLUMNS, _ROWS = 8, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--fonts', metavar='FOLDER')
    parser.add_argument('--textures', metavar='FOLDER')
    parser.add_argument('--chinese', default='chinese', metavar='FOLDER', help="of fonts; Debian's are found")
    parser.add_argument('--output', type=Path, default=Path('docs/rendered_words'), metavar='FOLDER')
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    options = dict(fonts=arguments.fonts, textures=arguments.textures)
    _save(arguments.output / 'stages.jpg', _draw_stages(options))
    _save(arguments.output / 'words.jpg', _draw_sheet(dict(numbers=0.1, invented=0.2, signs=0.15, **options)))
    try:
        _save(arguments.output / 'chinese.jpg', _draw_chinese(arguments.chinese))
    except UsageError as error:
        print(f'no sheet of Chinese: {error}')


def _draw_stages(options: dict) -> np.ndarray:
    """Draws a row per word and a column per stage; what is not an image yet is merged to be shown."""
    rows = []
    for seed in _SEEDS:
        source = rendered_words(
            words=_WORDS, cases=('as written',), alphabet=Alphabet('alphanumeric_cased'), seed=seed, **options
        )
        merge = stages.merge_layers(height=_CELL[0], margin=(0.3, 0.3), strength=(1.0, 1.0))
        cells = []
        for count in range(2, len(source.stages) + 1):
            example = apply_chain(source.stages[:count], {}, Key(source._seed, 0, 0))
            shown = example if 'image' in example else merge.apply(example, Key(0, 0, 0))
            cells.append(_fit(shown['image'], _CELL))
        rows.append(np.hstack(cells))
    return np.vstack(rows)


def _draw_sheet(options: dict, count: int = _COLUMNS * _ROWS, cell: tuple[int, int] = (32, 150)) -> np.ndarray:
    source = load_source('rendered_words', 'test', **options)
    cells = [_fit(source[i]['image'], cell) for i in range(count)]
    return np.vstack([np.hstack(cells[i : i + _COLUMNS]) for i in range(0, count, _COLUMNS)])


def _draw_chinese(fonts: str) -> np.ndarray:
    alphabet = Alphabet('gb2312_level1')
    common = dict(words='characters', alphabet=alphabet, cases=('as written',), fonts=fonts)
    square = dict(merge_layers=dict(frame='square'), render_text=dict(underline=0.0))
    single = _draw_sheet(dict(max_length=1, height=64, width=64, stages=square, **common), 32, (64, 150))
    lines = _draw_sheet(dict(max_length=6, strings=1.0, **common), 32)
    return np.vstack([single, lines])


def _fit(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Scales an image to a white cell of the given height and width."""
    scale = min(cell[0] / image.shape[0], cell[1] / image.shape[1])
    size = max(int(scale * image.shape[1]), 1), max(int(scale * image.shape[0]), 1)
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.full((cell[0] + _GAP, cell[1] + _GAP, 3), 255, np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas


def _save(path: Path, image: np.ndarray) -> None:
    Image.fromarray(image).save(path, quality=88)
    print(path)


if __name__ == '__main__':
    main()
