"""The stages of MJSynth's engine as transforms of examples, in the order of the paper.

Jaderberg, Simonyan, Vedaldi and Zisserman 2014, "Synthetic data and artificial neural networks for natural scene text
recognition", section 2. The paper leaves the distributions open; the arguments here are ours. Lengths are in pixels of
the drawn word, whose em has `size` pixels, or in ems.

A stage is a `Transform` of an example. `render_text` reads its field 'text' and adds 'layers'; the next four change
the layers; `merge_layers` replaces them by 'image', uint8 [H, W, 3], which `add_noise` changes. Without any of the
other five, the rest works.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import cv2
import numpy as np

from canon import named
from canon.data.pipeline.chain import Transform
from canon.data.pipeline.keys import borrowed_rng
from canon.data.text.engine.fonts import Fonts, Glyph, draw_glyph, get_kerning
from canon.data.text.engine.layers import BLENDS, Layers, compute_luma, cover, fill, mix_images
from canon.data.text.engine.textures import Textures
from canon.errors import CanonError, UsageError
from canon.named import Count, NonNegative, Probability

ALL_STAGES = (
    *('render_text', 'add_border', 'colour_layers', 'project_layers', 'blend_textures', 'merge_layers', 'add_noise'),
)
_INK = 48  # opacity from which a pixel belongs to a letter
_ATTEMPTS = 6  # draws of colours or blends before the last one is taken


# --- 1. font rendering -----------------------------------------------------------------------------------------------


def render_text(
    fonts: Fonts,
    size: Count = 48,
    tracking: tuple[float, float] = (-0.03, 0.2),
    weight: tuple[float, float] = (-0.3, 1.2),
    underline: Probability = 0.08,
    curve: Probability = 0.25,
    bend: NonNegative = 0.22,
    margin: NonNegative = 0.3,
    jitter: NonNegative = 0.0,
    word_space: tuple[float, float] = (1.0, 1.0),
) -> Transform:
    """Draws the text in a random font: the opacity of the foreground.

    Args:
      fonts: opened for all characters.
      size: of an em, in pixels.
      tracking: range of the space that is added between letters, in ems; half of the words have none.
      weight: range by which strokes become bolder (or thinner, if negative) at each edge, in pixels; half of the words
        keep the weight of their font.
      underline: probability of a line below the word.
      curve: probability of a curved baseline, a parabola on which each letter is rotated.
      bend: the largest height of the curve in relation to the length of the word.
      margin: empty space around the letters for the next stages, in ems.
      jitter: the largest shift of each letter up or down, in ems, as of handwriting.
      word_space: range of the factor of each space between words.
    """
    _check_range(tracking, 'render_text: tracking')
    _check_range(word_space, 'render_text: word_space', least=0.0)
    _check_range(weight, 'render_text: weight')
    if weight[0] < -1 or weight[1] > size / 8:
        raise UsageError(f'render_text: weight={tuple(weight)} must be in -1..{size / 8:g}, an eighth of size={size}')

    def apply(example, key):
        rng, text = borrowed_rng(key), example['text']
        covering = fonts.find_covering(text)
        if not text or not len(covering):
            raise CanonError(f'example {key.id}: {fonts.find_problem(text) or "its text is empty"}')
        file = fonts.files[covering[rng.integers(len(covering))]]
        # All numbers are drawn whether they are used or not, so that an argument changes nothing but what it is for.
        use, space, bolder = rng.random(4), rng.uniform(*tracking), rng.uniform(*weight)
        height = rng.uniform(-bend, bend) if use[0] < curve else 0.0
        drop, thickness = rng.uniform(0.06, 0.2), rng.uniform(0.03, 0.1)
        # Drawn last, so that words without them stay what they were.
        shifts = np.rint(jitter * size * rng.uniform(-1, 1, len(text))).astype(int).tolist()
        factors = [rng.uniform(*word_space) if c.isspace() else 1.0 for c in text]
        glyphs = [
            glyph._replace(top=glyph.top + shift, advance=glyph.advance * factor)
            for glyph, shift, factor in zip((draw_glyph(file, size, c) for c in text), shifts, factors, strict=True)
        ]
        pens = _place_pens(file, size, text, glyphs, size * space if use[1] < 0.5 else 0.0)
        line = (size * drop, max(round(size * thickness), 1)) if use[2] < underline else None
        opacity = _draw_line(glyphs, pens, height, round(margin * size), line)
        if use[3] < 0.5:
            opacity = _change_weight(opacity, bolder)
        return {**example, 'layers': Layers(opacity)}

    return Transform(apply, random=True)


def _place_pens(file: str, size: int, text: str, glyphs: list[Glyph], space: float) -> np.ndarray:
    """Returns where the pen is for each glyph and at the end, in pixels [n + 1]."""
    kerning = [get_kerning(file, size, text[i : i + 2]) for i in range(len(text) - 1)]
    steps = np.array([glyph.advance for glyph in glyphs]) + space + np.array([*kerning, -space])
    # Letters may move together, but not past each other.
    return np.concatenate([[0.0], np.cumsum(np.maximum(steps, 1))])


def _draw_line(
    glyphs: list[Glyph], pens: np.ndarray, bend: float, margin: int, underline: tuple[float, int] | None
) -> np.ndarray:
    """Draws glyphs along a baseline: their opacity, uint8 [H, W].

    Args:
      glyphs: of the text.
      pens: where each begins, and the last one ends [n + 1].
      bend: height of the parabola over the length of the baseline; 0 for a straight line, positive with its ends down.
      margin: empty pixels around the letters.
      underline: (distance below the baseline, thickness) of a line, or None.
    """
    length = pens[-1]
    pieces = []
    for glyph, pen in zip(glyphs, pens[:-1], strict=True):
        if not glyph.opacity.size:
            continue
        if bend:
            middle = glyph.advance / 2
            y, slope = _curve(pen + middle, length, bend)
            pieces.append(_rotate_glyph(glyph, middle, np.arctan(slope), pen + middle, y))
        else:
            pieces.append((glyph.opacity, round(pen + glyph.left), glyph.top))
    if not pieces:
        raise CanonError('a text of spaces alone cannot be drawn; remove it from the words')
    left, top = (min(piece[axis] for piece in pieces) for axis in (1, 2))
    right = max(x + opacity.shape[1] for opacity, x, _ in pieces)
    bottom = max(y + opacity.shape[0] for opacity, _, y in pieces)
    points = np.zeros((0, 2))
    if underline:
        xs = np.linspace(0, length, 17 if bend else 2)
        points = np.stack([xs, _curve(xs, length, bend)[0] + underline[0]], 1)
        bottom = max(bottom, int(points[:, 1].max()) + underline[1])
    canvas = np.zeros((bottom - top + 2 * margin, right - left + 2 * margin), np.uint8)
    for opacity, x, y in pieces:
        y, x = y - top + margin, x - left + margin
        window = canvas[y : y + opacity.shape[0], x : x + opacity.shape[1]]
        # Where letters touch, the darker ink stays: the sum would have a seam.
        np.maximum(window, opacity, out=window)
    if underline:
        places = np.rint(16 * (points + np.array([margin - left, margin - top]))).astype(
            np.int32
        )  # in sixteenths, see shift
        cv2.polylines(canvas, [places], False, 255, underline[1], cv2.LINE_AA, shift=4)
    return canvas


def _curve(x, length: float, bend: float):
    """Returns y and its slope at x of the parabola y = bend * length * (1 - 4 t (1 - t)), t = x / length."""
    t = x / length
    return bend * length * (1 - 4 * t * (1 - t)), -4 * bend * (1 - 2 * t)


def _rotate_glyph(glyph: Glyph, middle: float, angle: float, x: float, y: float) -> tuple[np.ndarray, int, int]:
    """Rotates a glyph about the middle of its baseline, which moves to (x, y): its opacity, left and top."""
    cos, sin = np.cos(angle), np.sin(angle)
    height, width = glyph.opacity.shape
    # The corners relative to the middle, rotated, give the window that the glyph needs.
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) + np.array([glyph.left - middle, glyph.top])
    rotated = corners @ np.array([(cos, sin), (-sin, cos)]) + (x, y)
    left, top = np.floor(rotated.min(0)).astype(int) - 1
    right, bottom = np.ceil(rotated.max(0)).astype(int) + 1
    shift = rotated[0] - (left, top)  # where the first pixel of the glyph goes
    matrix = np.array([(cos, -sin, shift[0]), (sin, cos, shift[1])])
    return cv2.warpAffine(glyph.opacity, matrix, (int(right - left), int(bottom - top))), int(left), int(top)


def _change_weight(opacity: np.ndarray, pixels: float) -> np.ndarray:
    """Moves the edges of strokes outwards by a number of pixels, which need not be whole.

    A blurred edge exceeds the threshold t at the distance that its profile, the normal distribution, gives.
    """
    sigma = max(1.0, abs(pixels))
    blurred = cv2.GaussianBlur(opacity, (0, 0), sigma)
    threshold = 127.5 * math.erfc(pixels / (sigma * math.sqrt(2)))
    # The inverse of the profile's slope there, so that the new edge is one pixel wide.
    steepness = sigma * math.sqrt(2 * math.pi) * math.exp(pixels**2 / (2 * sigma**2))
    table = np.clip(127.5 + steepness * (np.arange(256) - threshold), 0, 255).astype(np.uint8)
    return cv2.LUT(blurred, table)


# --- 2. border or shadow ---------------------------------------------------------------------------------------------


def add_border(
    p: Probability = 0.45,
    kinds: tuple[str, ...] = ('outset', 'inset', 'shadow'),
    thickness: tuple[float, float] = (1.0, 4.0),
    offset: NonNegative = 6.0,
) -> Transform:
    """Adds a border around the letters, one within them, or their shadow.

    Args:
      p: probability that there is one.
      kinds: the kinds that are drawn, each as likely.
      thickness: range of the thickness of a border, in pixels; an inset one has half of it, so that letters stay.
      offset: the largest shift of a shadow along each axis, in pixels.
    """
    unknown = set(kinds) - {'outset', 'inset', 'shadow'}
    if unknown or not kinds:
        raise UsageError(f"add_border: kinds={tuple(kinds)} must be among 'outset', 'inset' and 'shadow'")
    _check_range(thickness, 'add_border: thickness', least=0.5)

    def apply(example, key):
        rng, layers = borrowed_rng(key), _get_layers(example, key, 'add_border')
        use, kind, pixels = rng.random(), kinds[rng.integers(len(kinds))], rng.uniform(*thickness)
        shift, blur = rng.uniform(-offset, offset, 2), rng.uniform(-1, 2)
        if use >= p:
            return example
        ink = layers.foreground
        if kind == 'outset':
            border = cv2.dilate(ink, _make_disc(pixels))
        elif kind == 'inset':
            border = ink - cv2.min(ink, cv2.erode(ink, _make_disc(pixels / 2)))
        else:
            # In a direction that the letters do not hide.
            shift += np.copysign(1.5, shift)
            border = cv2.warpAffine(ink, np.array([(1, 0, shift[0]), (0, 1, shift[1])]), ink.shape[::-1])
            border = cv2.GaussianBlur(border, (0, 0), blur) if blur > 0.3 else border
        return {**example, 'layers': layers._replace(border=border, border_above=kind == 'inset')}

    return Transform(apply, random=True)


def _make_disc(radius: float) -> np.ndarray:
    """Returns a disc as the structuring element of OpenCV's morphology."""
    reach = max(int(radius + 0.5), 1)
    distances = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return (distances <= max(radius, 1)).astype(np.uint8)


# --- 3. base colouring -----------------------------------------------------------------------------------------------


def colour_layers(textures: Textures, contrast: tuple[float, float] = (40.0, 180.0)) -> Transform:
    """Gives each layer a uniform colour from the three k-means clusters of a natural image.

    The clusters of one image are assigned to the layers at random, and the colour is drawn from the normal distribution
    of its cluster.

    Args:
      textures: the images.
      contrast: range from which the least difference in luma between letters and ground is drawn for each word, in
        levels. Colours are drawn until they have it; of six draws without it, those that differ most are taken.
    """
    _check_range(contrast, 'colour_layers: contrast', least=0)

    def apply(example, key):
        rng, layers = borrowed_rng(key), _get_layers(example, key, 'colour_layers')
        least, difference, colours = rng.uniform(*contrast), -1.0, np.zeros((3, 3))
        for _ in range(_ATTEMPTS):
            palette, order = textures.draw_palette(rng), rng.permutation(3)
            draws = palette.means[order] + palette.deviations[order] * rng.normal(size=(3, 3))
            draws = np.clip(np.rint(draws), 0, 255)
            found = abs(compute_luma(draws[0]) - compute_luma(draws[2]))
            if found > difference:
                difference, colours = found, draws
            if difference >= least:
                break
        foreground, border, background = colours.astype(np.uint8)[:, None, None]
        return {**example, 'layers': layers._replace(paints=(foreground, border, background))}

    return Transform(apply, random=True)


# --- 4. projective distortion ----------------------------------------------------------------------------------------


def project_layers(
    yaw: NonNegative = 35.0, pitch: NonNegative = 25.0, roll: NonNegative = 8.0, shear: NonNegative = 0.25
) -> Transform:
    """Turns the plane of foreground and border in space, and takes its picture with a pinhole camera.

    The focal length is 1.5 to 4 times the length of the word, and the map is
    x' = f (R S x)_{1,2} / (f + (R S x)_3) for x = (x, y, 0) from the centre of the word.

    Args:
      yaw: the largest angle about the vertical axis, in degrees; angles are triangular about 0.
      pitch: the largest angle about the horizontal axis.
      roll: the largest angle in the plane of the image.
      shear: the largest slant: columns that each row moves in relation to the one below it.
    """
    if max(yaw, pitch) > 75 or roll > 180:
        raise UsageError(f'project_layers: yaw={yaw:g} and pitch={pitch:g} are at most 75 degrees, roll={roll:g} 180')

    def apply(example, key):
        rng, layers = borrowed_rng(key), _get_layers(example, key, 'project_layers')
        angles = np.deg2rad((pitch, yaw, roll)) * rng.triangular(-1, 0, 1, 3)
        slant, focal = shear * rng.triangular(-1, 0, 1), rng.uniform(1.5, 4)
        height, width = layers.foreground.shape
        x, y, w, h = _bound_ink(layers.foreground)
        matrix = _make_homography(angles, slant, focal * max(w, h), x + w / 2, y + h / 2)
        corners = cv2.perspectiveTransform(np.array([[(x, y), (x + w, y), (x, y + h), (x + w, y + h)]], float), matrix)[
            0
        ]
        # The picture is as large as the word needs: nothing is cut off, and the scale stays about that of the letters.
        left, top = np.floor(corners.min(0)) - np.array([x, y])
        right, bottom = np.ceil(corners.max(0)) + np.array([width - x - w, height - y - h])
        matrix = np.array([(1, 0, -left), (0, 1, -top), (0, 0, 1)]) @ matrix
        shape = max(int(right - left), 1), max(int(bottom - top), 1)
        foreground = cv2.warpPerspective(layers.foreground, matrix, shape)
        border = None if layers.border is None else cv2.warpPerspective(layers.border, matrix, shape)
        return {**example, 'layers': layers._replace(foreground=foreground, border=border)}

    return Transform(apply, random=True)


def _make_homography(angles: np.ndarray, slant: float, focal: float, x: float, y: float) -> np.ndarray:
    """Returns the homography [3, 3] of a plane that is sheared and turned about (x, y), seen from `focal` pixels."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([(1, 0, 0), (0, cx, -sx), (0, sx, cx)])
    about_y = np.array([(cy, 0, sy), (0, 1, 0), (-sy, 0, cy)])
    about_z = np.array([(cz, -sz, 0), (sz, cz, 0), (0, 0, 1)])
    rotation = about_z @ about_x @ about_y
    # The plane is z = 0, so the third column is replaced by the camera's distance.
    plane = np.column_stack([rotation[:, :2], (0, 0, focal)]) @ np.array([(1, slant, 0), (0, 1, 0), (0, 0, 1)])
    camera = np.diag([focal, focal, 1])
    to_centre = np.array([(1, 0, -x), (0, 1, -y), (0, 0, 1)])
    return np.array([(1, 0, x), (0, 1, y), (0, 0, 1)]) @ camera @ plane @ to_centre


# --- 5. natural data blending ----------------------------------------------------------------------------------------


def blend_textures(
    textures: Textures,
    p: Probability = 0.8,
    modes: tuple[str, ...] = tuple(BLENDS),
    amount: Probability = 0.7,
    contrast: Probability = 0.6,
) -> Transform:
    """Blends each layer with a random window of a natural image, in a random mode, by a random amount.

    Args:
      textures: the images.
      p: probability that a layer is blended.
      modes: the modes that are drawn, keys of `layers.BLENDS`, each as likely.
      amount: the largest weight of the blended image.
      contrast: the share of the difference in mean luma between letters and ground that is left at least; the blends
        of these two are drawn again until it is, six times at most, and left out then.
    """
    for mode in modes:
        if mode not in BLENDS:
            raise UsageError(f'blend_textures: modes has {mode!r}{named.suggest(mode, BLENDS)}')

    def apply(example, key):
        rng, layers = borrowed_rng(key), _get_layers(example, key, 'blend_textures')
        shape = layers.foreground.shape
        plain = [fill(paint, shape) for paint in layers.paints]
        foreground, border, background = plain
        if layers.border is not None:
            border = _blend_randomly(rng, border, textures, p, modes, amount)
        ink = (layers.foreground > _INK).view(np.uint8)
        least = contrast * _compare_luma(plain[0], plain[2], ink)
        for attempt in range(_ATTEMPTS):
            foreground, background = (_blend_randomly(rng, plain[i], textures, p, modes, amount) for i in (0, 2))
            if _compare_luma(foreground, background, ink) >= least:
                break
            if attempt == _ATTEMPTS - 1:
                foreground, background = plain[0], plain[2]
        return {**example, 'layers': layers._replace(paints=(foreground, border, background))}

    return Transform(apply, random=True)


def _compare_luma(foreground: np.ndarray, background: np.ndarray, ink: np.ndarray) -> float:
    inner, outer = cv2.mean(foreground, ink)[:3], cv2.mean(background)[:3]
    return abs(compute_luma(np.array(inner)) - compute_luma(np.array(outer)))


def _blend_randomly(rng, paint: np.ndarray, textures: Textures, p: float, modes, amount: float) -> np.ndarray:
    if not modes or rng.random() >= p:
        return paint
    crop = textures.draw_crop(rng, paint.shape[:2])
    return mix_images(paint, crop, modes[rng.integers(len(modes))], amount * rng.random())


def merge_layers(
    height: Count = 32,
    width: int | None = None,
    strength: tuple[float, float] = (0.75, 1.0),
    margin: tuple[float, float] = (0.02, 0.25),
    frame: Literal['word', 'square'] = 'word',
) -> Transform:
    """Lays foreground and border over the background, cuts the word out and scales it to its height.

    Args:
      height: of the image, in pixels.
      width: of the image; None keeps the aspect of the word.
      strength: range of the opacity of foreground and border, each of its own.
      margin: range of the space on each side of the letters, in heights of the letters; negative cuts them.
      frame: 'word' cuts out the letters, 'square' the square around their centre, whose side is the longer one of
        theirs. A single Chinese character needs it: U+4E00, one horizontal stroke, would become a block.
    """
    _check_range(strength, 'merge_layers: strength')
    if not 0 < strength[0] <= strength[1] <= 1:
        raise UsageError(f'merge_layers: strength={tuple(strength)} must be in 0..1, without 0')
    _check_range(margin, 'merge_layers: margin', least=-0.4)
    if frame not in ('word', 'square'):
        raise UsageError(f"merge_layers: frame={frame!r} must be 'word' or 'square'")
    if width is not None and width < 1:
        raise UsageError(f'merge_layers: width={width} must be at least 1, or None')

    def apply(example, key):
        rng, layers = borrowed_rng(key), _get_layers(example, key, 'merge_layers')
        shape = layers.foreground.shape
        foreground, border, background = (fill(paint, shape) for paint in layers.paints)
        strong, spaces = rng.uniform(*strength, 2), rng.uniform(*margin, 4)
        image = background
        if layers.border is not None and not layers.border_above:
            image = cover(image, border, layers.border, strong[1])
        image = cover(image, foreground, layers.foreground, strong[0])
        if layers.border is not None and layers.border_above:
            image = cover(image, border, layers.border, strong[1])
        x, y, w, h = _bound_ink(layers.foreground)
        if frame == 'square':
            side = max(w, h)
            x, y, w, h = x + (w - side) // 2, y + (h - side) // 2, side, side
        top, bottom, left, right = np.rint(h * spaces).astype(int).tolist()
        window = _cut(image, x - left, y - top, x + w + right, y + h + bottom)
        columns = max(round(window.shape[1] * height / window.shape[0]), 1) if width is None else width
        smaller = window.shape[0] > height or window.shape[1] > columns
        method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        rest = {name: value for name, value in example.items() if name != 'layers'}
        return {**rest, 'image': cv2.resize(window, (columns, height), interpolation=method)}

    return Transform(apply, random=True)


def _cut(image: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Cuts a window of at least one pixel out of an image; beyond its border, the border is repeated."""
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    height, width = image.shape[:2]
    beyond = max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0)
    if any(beyond):
        image = cv2.copyMakeBorder(image, *beyond, cv2.BORDER_REPLICATE)
    return image[y0 + beyond[0] : y1 + beyond[0], x0 + beyond[2] : x1 + beyond[2]]


# --- 6. noise --------------------------------------------------------------------------------------------------------


def add_noise(
    p: Probability = 0.5,
    elastic: NonNegative = 1.2,
    blur: NonNegative = 1.2,
    noise: NonNegative = 16.0,
    resampling: NonNegative = 1.0,
    jpeg: tuple[int, int] = (20, 95),
) -> Transform:
    """Adds the faults of a camera, in this order: elastic distortion, blur, low resolution, Gaussian noise and JPEG.

    The distortion is that of Simard et al. 2003, with displacements that are smooth over 8 pixels.

    Args:
      p: probability of each of the five.
      elastic: the largest displacement, in pixels of the image.
      blur: the largest standard deviation of the Gaussian, in pixels.
      noise: the largest standard deviation of the noise, in levels.
      resampling: r, for a reduction by up to 1 + r, from which the image is enlarged again.
      jpeg: range of the quality.
    """
    if not 1 <= jpeg[0] <= jpeg[1] <= 100:
        raise UsageError(f'add_noise: jpeg={tuple(jpeg)} must be a range of qualities in 1..100')

    def apply(example, key):
        rng = borrowed_rng(key)
        if 'image' not in example:
            raise UsageError("add_noise needs the field 'image'; put merge_layers before it")
        image = example['image']
        use, amounts = rng.random(5) < p, rng.random(5)
        if use[0] and elastic:
            image = _distort_elastically(rng, image, elastic * amounts[0])
        if use[1] and blur * amounts[1] > 0.2:  # less changes nothing
            image = cv2.GaussianBlur(image, (0, 0), blur * amounts[1])
        if use[2] and resampling:
            size = [max(round(side / (1 + resampling * amounts[2])), 1) for side in image.shape[1::-1]]
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        if use[3] and noise:
            grain = rng.standard_normal(image.shape, np.float32) * np.float32(noise * amounts[3])
            image = cv2.add(image, grain, dtype=cv2.CV_8U)
        if use[4]:
            quality = round(jpeg[0] + amounts[4] * (jpeg[1] - jpeg[0]))
            _, data = cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, quality))
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return {**example, 'image': image}

    return Transform(apply, random=True)


def _distort_elastically(rng, image: np.ndarray, pixels: float, cell: int = 8) -> np.ndarray:
    """Moves pixels by a random field that is smooth over `cell` pixels, by at most about `pixels`."""
    height, width = image.shape[:2]
    grid = rng.uniform(-pixels, pixels, (height // cell + 2, width // cell + 2, 2)).astype(np.float32)
    moves = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    columns = moves[..., 0] + np.arange(width, dtype=np.float32)
    rows = moves[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


# --- the chain -------------------------------------------------------------------------------------------------------


def _is_stage(function) -> bool:
    return named.get_return_type(function) is Transform


STAGES = named.Catalogue('stage', (__name__,), _is_stage)


def make_stages(spec: Mapping[str, Any] | None, shared: Mapping[str, Any], where: str = 'stages') -> list[Transform]:
    """Makes the stages of a config.

    Args:
      spec: `dict(chain=('render_text', 'merge_layers'), render_text=dict(curve=0.5))`; names are those of this module,
        or `my_package.module:function`. None gives all seven, and so does a mapping without a chain.
      shared: arguments for every stage that takes them: `fonts`, `textures`, `height`, `width`.
      where: the key of the config, for errors.

    Raises:
      UsageError: there is no such stage or argument.
    """
    spec = dict(named.to_plain(spec or {}))
    spec.setdefault('chain', ALL_STAGES)

    def make(name: str, arguments: dict, where: str) -> Transform:
        function = STAGES.find(name, where)
        taken = {key: value for key, value in shared.items() if named.accepts(function, key)}
        return named.call(function, taken | arguments, where)

    return named.make_chain(spec, make, where)


def _get_layers(example, key, stage: str) -> Layers:
    if 'layers' not in example:
        raise UsageError(f'example {key.id}: {stage} needs the layers that render_text draws; put it after render_text')
    return example['layers']


def _bound_ink(opacity: np.ndarray) -> tuple[int, int, int, int]:
    """Returns x, y, width and height of the letters; of the whole layer if nothing is left of them."""
    x, y, w, h = cv2.boundingRect((opacity > _INK).view(np.uint8))
    return (x, y, w, h) if w and h else (0, 0, opacity.shape[1], opacity.shape[0])


def _check_range(value: tuple[float, float], what: str, least: float = -np.inf) -> None:
    if not least <= value[0] <= value[1] < np.inf:
        bound = f' from {least:g}' if least > -np.inf else ''
        raise UsageError(f'{what}={tuple(value)} must be (low, high) in order{bound}')
