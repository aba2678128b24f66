"""Synthetic lines of handwritten digits: a data set for text recognition that needs no download."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text.alphabets import Alphabet
from canon.errors import UsageError
from canon.named import Count, suggest

# Pixels of a digit, and between two digits (negative ones touch); ranges include both ends.
_HEIGHTS, _WIDTHS, _GAPS = (18, 28), (12, 20), (-2, 8)
_SPLITS = ('train', 'val', 'valid', 'validation', 'test')


def digit_lines(
    split: str = 'train',
    num_examples: Count = 8192,
    alphabet: Alphabet = Alphabet('0123456789'),
    max_length: Count = 5,
    least: Count = 1,
    most: Count = 5,
    height: Count = 32,
    width: Count = 100,
) -> DigitLines:
    """Makes lines of handwritten digits with their texts, from scikit-learn's set.

    Digits have random sizes, heights and distances, light on dark with noise. Line i is a function of (split, i). The
    lines of 'test' are made of the 360 digits that the data set `digits` holds out, those of the other splits of the
    1,437 remaining ones, so that no handwritten digit is in both.

    Args:
      split: 'train', 'val', 'valid', 'validation' or 'test'; may be sliced, 'test[:1000]'.
      num_examples: lines of the whole split.
      alphabet: the characters of labels, with the ten digits among them.
      max_length: characters of the longest label.
      least: digits of the shortest line.
      most: digits of the longest line.
      height: of the images, in pixels.
      width: of the images, in pixels.

    Raises:
      UsageError: there is no such split, or the longest line does not fit into the image or the label.
    """
    return DigitLines(split, num_examples, alphabet, max_length, least, most, height, width)


class DigitLines:
    """The source of `digit_lines`: 'image' uint8 [height, width, 1], 'label' int32 [max_length] and 'label_length'."""

    def __init__(
        self,
        split: str,
        num_examples: int,
        alphabet: Alphabet,
        max_length: int,
        least: int,
        most: int,
        height: int,
        width: int,
    ):
        """Arguments and errors as of `digit_lines`."""
        if not 1 <= least <= most <= max_length:
            raise UsageError(f'digit_lines: 1 <= least={least} <= most={most} <= max_length={max_length} must hold')
        if height < _HEIGHTS[1] or width < most * _WIDTHS[1]:
            raise UsageError(
                f'digit_lines: {most} digits need {most * _WIDTHS[1]}x{_HEIGHTS[1]} pixels, not {width}x{height}; '
                'increase width or decrease most'
            )
        base, first, last = splits.parse_split(split)
        if base not in _SPLITS:  # a misspelt 'test' would be drawn from the digits of training
            raise UsageError(f'digit_lines has no split {base!r}{suggest(base, _SPLITS)}')
        self.ids = range(num_examples)[splits.to_slice(first, last, num_examples)]
        self.split, self.alphabet, self.max_length = base, alphabet, max_length
        self.counts, self.shape = (least, most), (height, width)
        self.info = Info('digit_lines', split, total=num_examples)
        if not self.ids:
            raise UsageError(f'digit_lines: {split!r} of num_examples={num_examples} has no lines')
        alphabet.encode('0123456789', 10)  # raises if the alphabet lacks a digit

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        # The position in the whole split, so that a line is the same in every slice of it.
        rng = np.random.default_rng((*self.split.encode(), self.ids[index]))
        images, labels = _load_digits(self.split == 'test')
        chosen = rng.integers(len(labels), size=rng.integers(self.counts[0], self.counts[1] + 1))
        ink = _compose_line([images[i] for i in chosen], self.shape, rng)
        dark, light = rng.uniform(0, 60), rng.uniform(140, 255)
        noise = rng.normal(scale=rng.uniform(0, 12), size=ink.shape)
        image = np.clip(np.rint(dark + (light - dark) / 255 * ink + noise), 0, 255).astype(np.uint8)
        text = ''.join(str(labels[i]) for i in chosen)
        return {'image': image[..., None], **self.alphabet.encode(text, self.max_length)}

    def image_sizes(self) -> np.ndarray:
        """Returns the (height, width) of all images, int [n, 2], without drawing them."""
        return np.tile(self.shape, (len(self), 1))

    def __repr__(self) -> str:
        return f'DigitLines({self.info.split}, {len(self)} lines)'


def _compose_line(digits: list[np.ndarray], shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Scales digits [8, 8] and places them from left to right: float32 [H, W] in 0..255."""
    height, width = shape
    heights, widths = (rng.integers(low, high + 1, len(digits)) for low, high in (_HEIGHTS, _WIDTHS))
    gaps = rng.integers(_GAPS[0], _GAPS[1] + 1, len(digits))
    gaps[0] = 0
    spare = width - widths.sum()
    while gaps.sum() > spare:  # the widest gap shrinks first
        gaps[gaps.argmax()] -= 1
    left = int(rng.integers(0, spare - gaps.sum() + 1))
    line = np.zeros(shape, np.float32)
    for digit, h, w, gap in zip(digits, heights.tolist(), widths.tolist(), gaps.tolist(), strict=True):
        left = max(left + gap, 0)
        top = int(rng.integers(0, height - h + 1))
        scaled = np.asarray(Image.fromarray(digit).resize((w, h), Image.Resampling.BILINEAR))
        window = line[top : top + h, left : left + w]
        # Where digits touch, the brighter ink stays, as where two strokes cross.
        np.maximum(window, scaled, out=window)
        left += w
    return line


@cache
def _load_digits(test: bool) -> tuple[np.ndarray, np.ndarray]:
    from canon.data.images import digits  # imports tensorflow_datasets, which takes 0.6 s

    images, labels = digits.arrays()
    held_out = np.isin(np.arange(len(labels)), digits.held_out(labels))
    chosen = held_out if test else ~held_out
    return images[chosen, ..., 0], labels[chosen]
