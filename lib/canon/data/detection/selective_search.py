"""Selective search: Uijlings, van de Sande, Gevers, Smeulders, "Selective search for object recognition", IJCV 2013.

Felzenszwalb and Huttenlocher's segments of an image are grouped bottom up: the two most similar neighbouring regions
are merged until one region is left. Every region of the hierarchy gives a box. Several colour spaces, thresholds of the
segmentation and measures of similarity give several hierarchies (section 3.2), whose boxes are ranked together.

| strategy | colour spaces | similarities | k |
|---|---|---|---|
| 'fast' | HSV, Lab | C+T+S+F, T+S+F | 50, 100 |
| 'quality' | HSV, Lab, rgI, H, I | C+T+S+F, T+S+F, F, S | 50, 100, 150, 300 |

These are the 8 and the 80 hierarchies that the paper chooses by a greedy search.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
from scipy import ndimage

from canon import named
from canon.errors import UsageError

Strategy = Literal['fast', 'quality']
SIMILARITIES = 'CTSF'  # colour, texture, size, fill: equations 1, 3, 4 and 5
_COLOUR_BINS, _TEXTURE_BINS = 25, 10
_ORIENTATIONS = 8
# Hierarchies that are grouped at once: more share the overhead of numpy, and need memory for their histograms.
_AT_ONCE = 16


class HierarchySettings(NamedTuple):
    """The hierarchies of a strategy: every combination of its three parts."""

    colours: tuple[str, ...]
    similarities: tuple[str, ...]
    scales: tuple[float, ...]


STRATEGIES = {
    'fast': HierarchySettings(('hsv', 'lab'), ('CTSF', 'TSF'), (50, 100)),
    'quality': HierarchySettings(('hsv', 'lab', 'rgi', 'h', 'i'), ('CTSF', 'TSF', 'F', 'S'), (50, 100, 150, 300)),
}


class RegionGraph(NamedTuple):
    """The initial regions of one segmentation, with what their similarities need.

    Attributes:
      sizes: float64 [N], in pixels.
      boxes: int64 [N, 4], [x0, y0, x1, y1] at pixel edges.
      colours: float64 [N, D], histograms of 25 bins per channel that sum to 1.
      textures: float64 [N, E], histograms of 10 bins per orientation and channel that sum to 1.
      pairs: int64 [Q, 2], the neighbouring regions i < j.
    """

    sizes: np.ndarray
    boxes: np.ndarray
    colours: np.ndarray
    textures: np.ndarray
    pairs: np.ndarray


def selective_search(
    image: np.ndarray,
    strategy: Strategy = 'fast',
    colours: Sequence[str] | None = None,
    similarities: Sequence[str] | None = None,
    scales: Sequence[named.Positive] | None = None,
    sigma: named.NonNegative = 0.8,
    min_size: named.Count | None = None,
    width: named.Count | None = None,
    min_side: named.NonNegative = 0.0,
    max_boxes: named.Count = 2000,
    seed: Annotated[int, named.Range(0)] = 0,
) -> np.ndarray:
    """Proposes boxes of objects by selective search.

    Region i of a hierarchy, counted from its top, is ranked by i times a uniform random number (section 3.3), so that
    large regions come first without shutting out small ones. The numbers are drawn from a seed that is computed from
    the pixels: the boxes of an image depend on nothing but the image and the arguments. Of equal boxes the first in
    rank stays.

    Args:
      image: uint8 [H, W, 3] RGB, or [H, W] or [H, W, 1] grey.
      strategy: 'fast' or 'quality'; gives the three arguments below where they are None.
      colours: colour spaces, of 'rgb', 'hsv', 'lab', 'rgi' (normalised red and green, intensity), 'h', 'i'.
      similarities: sums of similarities, such as 'CTSF': colour, texture, size and fill.
      scales: k of the segmentation: larger values give larger segments.
      sigma: of the Gaussian that smoothes the image before the segmentation, in pixels.
      min_size: of a segment, in pixels; k if None, as in the authors' code.
      width: to which the image is resized first (500 in R-CNN); the boxes are those of the image as it is. None keeps
        its size.
      min_side: boxes with a smaller side are left out, in pixels of the resized image: before the boxes are scaled to
        those of `image`, as in R-CNN, which has 20 pixels at a width of 500.
      max_boxes: the largest number of boxes; the first in rank are kept.
      seed: of the ranking, next to the pixels.

    Returns:
      float32 [P, 4] of [x0, y0, x1, y1] in pixels at pixel edges, in order of rank; P <= max_boxes.

    Raises:
      UsageError: the image is not uint8 [H, W, 3], or a colour space or a similarity does not exist.
    """
    chosen = choose_settings(strategy, colours, similarities, scales)
    pixels = _check_image(image)
    resized = _resize_to_width(pixels, width)
    spaces = [(COLOUR_SPACES[name](resized), name) for name in chosen.colours]
    graphs = [graph for space, _ in spaces for graph in _segment_space(space, chosen.scales, sigma, min_size)]
    area = resized.shape[0] * resized.shape[1]
    rng = np.random.default_rng((seed, int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest())))
    ranked = rank_boxes(list(group_regions(graphs, chosen.similarities, area)), rng)
    large = (ranked[:, 2:] - ranked[:, :2] >= min_side).all(1)
    scale = np.array([pixels.shape[1] / resized.shape[1], pixels.shape[0] / resized.shape[0]] * 2)
    return (ranked[large] * scale)[:max_boxes].astype(np.float32)


def choose_settings(
    strategy: Strategy = 'fast',
    colours: Sequence[str] | None = None,
    similarities: Sequence[str] | None = None,
    scales: Sequence[float] | None = None,
) -> HierarchySettings:
    """Returns the settings of a strategy with what is given put in their place. Raises UsageError for unknown names."""
    if strategy not in STRATEGIES:
        raise UsageError(f'selective_search: strategy={strategy!r} is unknown{named.suggest(strategy, STRATEGIES)}')
    given = {'colours': colours, 'similarities': similarities, 'scales': scales}
    replaced: dict[str, Any] = {name: tuple(values) for name, values in given.items() if values is not None}
    settings = STRATEGIES[strategy]._replace(**replaced)
    for name, values in settings._asdict().items():
        if not values:
            raise UsageError(f'selective_search: {name} is empty; give one at least, or None')
    for colour in settings.colours:
        if colour not in COLOUR_SPACES:
            raise UsageError(
                f'selective_search: no colour space is called {colour!r}{named.suggest(colour, COLOUR_SPACES)}'
            )
    for letters in settings.similarities:
        if not letters or set(letters) - set(SIMILARITIES) or len(set(letters)) < len(letters):
            raise UsageError(f"selective_search: similarities have {letters!r}; give letters of 'CTSF', each once")
    return settings


# --- initial regions -------------------------------------------------------------------------------------------------


def _check_image(image: np.ndarray) -> np.ndarray:
    image = np.asarray(image)
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise UsageError(
            f'proposals are made of images uint8 [H, W, 3] or [H, W, 1], not {image.dtype} {list(image.shape)}'
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _resize_to_width(image: np.ndarray, width: int | None) -> np.ndarray:
    if width is None or width == image.shape[1]:
        return image
    size = width, max(round(image.shape[0] * width / image.shape[1]), 1)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR)


def _scale_rgb(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def _convert_hsv(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(_scale_rgb(image), cv2.COLOR_RGB2HSV) / np.array((360, 1, 1), np.float32)


def _convert_lab(image: np.ndarray) -> np.ndarray:
    # As 8-bit images have it: L of 0..100 over the whole range, a and b shifted by 128.
    lab = cv2.cvtColor(_scale_rgb(image), cv2.COLOR_RGB2LAB)
    return np.clip((lab + np.array((0, 128, 128), np.float32)) / np.array((100, 255, 255), np.float32), 0, 1)


def _convert_rgi(image: np.ndarray) -> np.ndarray:
    rgb = _scale_rgb(image)
    total = rgb.sum(-1, keepdims=True)
    # Black has no colour: the share of each channel is a third, as that of every other grey.
    shares = np.where(total > 0, rgb / np.maximum(total, 1e-6), 1 / 3)
    return np.concatenate([shares[..., :2], total / 3], -1).astype(np.float32)


# From uint8 RGB to float32 in 0..1, [H, W, 3] or [H, W, 1].
COLOUR_SPACES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    'rgb': _scale_rgb,
    'hsv': _convert_hsv,
    'lab': _convert_lab,
    'rgi': _convert_rgi,
    'h': lambda image: _convert_hsv(image)[..., :1],
    'i': lambda image: _scale_rgb(image).mean(-1, keepdims=True),
}


def _segment_space(space: np.ndarray, scales: Sequence[float], sigma: float, min_size: int | None):
    """Yields the graph of regions of an image in one colour space for each scale of the segmentation."""
    colours, textures = bin_colours(space), bin_textures(space)
    for scale in scales:
        labels = _segment(space, scale, sigma, round(scale) if min_size is None else min_size)
        yield measure_regions(labels, colours, textures)


def _segment(space: np.ndarray, scale: float, sigma: float, min_size: int) -> np.ndarray:
    """Segments an image in 0..1 by Felzenszwalb and Huttenlocher 2004: int64 [H, W], 0 to N - 1."""
    from skimage.segmentation import felzenszwalb  # takes 0.3 s to import

    # It smoothes the axes that have pixels alone, and divides k by 255: it is that of images in 0..255.
    return felzenszwalb(space, scale=scale, sigma=sigma, min_size=min_size, channel_axis=-1)


def bin_colours(space: np.ndarray) -> np.ndarray:
    """Returns the bin of every pixel among 25 of each channel, of an image [H, W, C] in 0..1: int64 [C, H, W]."""
    bins = np.minimum((space * _COLOUR_BINS).astype(np.int64), _COLOUR_BINS - 1)
    return np.ascontiguousarray(np.moveaxis(bins, -1, 0))


def bin_textures(space: np.ndarray) -> np.ndarray:
    """Returns the bin of every pixel among 10 of each orientation and channel: int64 [8 C, H, W].

    The responses are the positive parts of Gaussian derivatives of sigma = 1 in eight directions (section 3.2). The
    bins of a channel are equal parts of 0 to its largest response.
    """
    # A derivative in the direction t is cos t of that along x plus sin t of that along y (steerable filters).
    x = np.arange(-4, 5)
    gauss = np.exp(-(x**2) / 2)
    gauss /= gauss.sum()
    derivative = x * gauss  # correlated with an image, it is the slope: the sum of x times this is 1
    binned = []
    for channel in np.moveaxis(space, -1, 0):
        channel = np.ascontiguousarray(channel, np.float32)
        horizontal = cv2.sepFilter2D(channel, -1, derivative, gauss, borderType=cv2.BORDER_REFLECT)
        vertical = cv2.sepFilter2D(channel, -1, gauss, derivative, borderType=cv2.BORDER_REFLECT)
        half = [np.cos(t) * horizontal + np.sin(t) * vertical for t in np.arange(4) * np.pi / 4]
        top = max(float(np.abs(response).max()) for response in half)
        factor = _TEXTURE_BINS / top if top > 1e-6 else 0.0  # a flat channel has rounding errors for a texture
        # The other four directions are opposite to these.
        for response in (*half, *(-response for response in half)):
            binned.append(np.clip(response * factor, 0, _TEXTURE_BINS - 1).astype(np.int64))
    return np.stack(binned)


def measure_regions(labels: np.ndarray, colours: np.ndarray, textures: np.ndarray) -> RegionGraph:
    """Measures the regions of a segmentation.

    Args:
      labels: int [H, W], the region of every pixel, 0 to N - 1.
      colours: of `bin_colours`.
      textures: of `bin_textures`.
    """
    count = int(labels.max()) + 1
    sizes = np.bincount(labels.ravel(), minlength=count).astype(np.float64)
    parts = ndimage.find_objects(labels + 1)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in parts], np.int64).reshape(-1, 4)
    colour = _count_bins(labels, colours, _COLOUR_BINS, count)
    texture = _count_bins(labels, textures, _TEXTURE_BINS, count)
    return RegionGraph(sizes, boxes, colour, texture, _find_neighbours(labels, count))


def _count_bins(labels: np.ndarray, binned: np.ndarray, bins: int, count: int) -> np.ndarray:
    """Returns the histograms of all regions, one of each map of `binned` after the other: float64 [N, maps * bins]."""
    first = (labels * bins).ravel()
    counts = [np.bincount(first + values.ravel(), minlength=count * bins).reshape(count, bins) for values in binned]
    histograms = np.concatenate(counts, 1).astype(np.float64)
    return histograms / histograms.sum(1, keepdims=True)


def _find_neighbours(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the pairs i < j of regions that touch, int64 [Q, 2], corners included as in the segmentation."""
    keys = []
    views = (
        (labels[:, :-1], labels[:, 1:]),
        (labels[:-1], labels[1:]),
        (labels[:-1, :-1], labels[1:, 1:]),
        (labels[:-1, 1:], labels[1:, :-1]),
    )
    for one, other in views:
        differ = one != other
        i, j = one[differ], other[differ]
        keys.append(np.minimum(i, j) * count + np.maximum(i, j))
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), count), 1)


# --- grouping --------------------------------------------------------------------------------------------------------


def group_regions(graphs: Sequence[RegionGraph], similarities: Sequence[str], area: float) -> Iterator[np.ndarray]:
    """Groups the regions of each graph by each sum of similarities (Algorithm 1).

    The most similar neighbours are merged first, of equal ones those of the lowest numbers; a merged region has the
    next number.

    Args:
      graphs: the initial regions.
      similarities: letters of 'CTSF'.
      area: of the image, in pixels.

    Yields:
      int64 [2 N - 1, 4], the boxes of the regions of a hierarchy in the order of their creation, initial ones first.
    """
    runs = [(graph, letters) for graph in graphs for letters in similarities]
    for start in range(0, len(runs), _AT_ONCE):
        yield from _group_together(runs[start : start + _AT_ONCE], area)


def _group_together(runs: Sequence[tuple[RegionGraph, str]], area: float) -> list[np.ndarray]:
    """Advances several hierarchies together, one merge of each at a time: numpy works on all of their pairs at once."""
    counts = [len(graph.sizes) for graph, _ in runs]
    # Hierarchy g has the numbers starts[g] to starts[g + 1] of shared arrays, and merges append to its part.
    starts = np.cumsum([0, *(2 * count - 1 for count in counts)])
    total = int(starts[-1])
    sizes, boxes = np.zeros(total), np.zeros((total, 4), np.int64)
    # Colour spaces of one channel have fewer bins: zeros add nothing to an intersection.
    depth = max(graph.colours.shape[1] for graph, _ in runs)
    width = depth + max(graph.textures.shape[1] for graph, _ in runs)
    histograms = np.zeros((total, width))
    weights = np.zeros((total, 4))
    neighbours: list[set[int]] = [set() for _ in range(total)]
    firsts, seconds = [], []
    for (graph, letters), start, count in zip(runs, starts.tolist(), counts, strict=False):
        part = slice(start, start + count)
        sizes[part], boxes[part] = graph.sizes, graph.boxes
        histograms[part, : graph.colours.shape[1]] = graph.colours
        histograms[part, depth : depth + graph.textures.shape[1]] = graph.textures
        weights[start : start + 2 * count - 1] = [letter in letters for letter in SIMILARITIES]
        firsts.append(graph.pairs[:, 0] + start)
        seconds.append(graph.pairs[:, 1] + start)
        for i, j in (graph.pairs + start).tolist():
            neighbours[i].add(j)
            neighbours[j].add(i)

    def measure(i, j):
        shared = np.minimum(histograms[i], histograms[j])
        colour, texture = shared[:, :depth].sum(1), shared[:, depth:].sum(1)
        both = sizes[i] + sizes[j]
        low, high = np.minimum(boxes[i, :2], boxes[j, :2]), np.maximum(boxes[i, 2:], boxes[j, 2:])
        around = (high - low).prod(1)
        w = weights[i].T
        return w[0] * colour + w[1] * texture + w[2] * (1 - both / area) + w[3] * (1 - (around - both) / area)

    heaps: list[list[tuple[float, int, int]]] = []
    for i, j in zip(firsts, seconds, strict=True):
        heaps.append(list(zip((-measure(i, j)).tolist(), i.tolist(), j.tolist(), strict=True)))
        heapq.heapify(heaps[-1])
    alive = bytearray(b'\1') * total
    following = [start + count for start, count in zip(starts.tolist(), counts, strict=False)]
    active = [g for g, count in enumerate(counts) if count > 1]
    while active:
        merged = []
        for g in active:
            heap = heaps[g]
            _, i, j = heapq.heappop(heap)
            while not (alive[i] and alive[j]):  # similarities of regions that have been merged since
                _, i, j = heapq.heappop(heap)
            merged.append((i, j, following[g]))
        i, j, new = np.array(merged).T
        sizes[new] = sizes[i] + sizes[j]
        # Equation 2: histograms propagate without a second look at the pixels.
        histograms[new] = (sizes[i, None] * histograms[i] + sizes[j, None] * histograms[j]) / sizes[new, None]
        boxes[new] = np.concatenate([np.minimum(boxes[i, :2], boxes[j, :2]), np.maximum(boxes[i, 2:], boxes[j, 2:])], 1)
        left, right, lengths = [], [], []
        for first, second, number in merged:
            alive[first] = alive[second] = 0
            near = neighbours[first] | neighbours[second]
            near.discard(first)
            near.discard(second)
            for other in near:
                others = neighbours[other]
                others.discard(first)
                others.discard(second)
                others.add(number)
            neighbours[number] = near
            left += near
            right += [number] * len(near)
            lengths.append(len(near))
        similar = (-measure(np.array(left, np.int64), np.array(right, np.int64))).tolist() if left else []
        place, remaining = 0, []
        for g, length in zip(active, lengths, strict=True):
            heap = heaps[g]
            for k in range(place, place + length):
                heapq.heappush(heap, (similar[k], left[k], right[k]))
            place += length
            following[g] += 1
            if length:  # nothing is left to merge with at the top
                remaining.append(g)
        active = remaining
    return [boxes[start:stop] for start, stop in zip(starts[:-1].tolist(), following, strict=True)]


def rank_boxes(hierarchies: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Ranks the boxes of hierarchies and removes duplicates, of which the first in rank stays (section 3.3).

    Args:
      hierarchies: boxes [R, 4] each, in the order of their creation.
      rng: draws one number per region.

    Returns:
      int64 [P, 4].
    """
    positions = np.concatenate([np.arange(len(boxes), 0, -1) for boxes in hierarchies])  # 1 is the whole image
    ranks = np.argsort(rng.random(len(positions)) * positions, kind='stable')
    boxes = np.concatenate(list(hierarchies))[ranks]
    # A large region of one hierarchy is often one of another: removed after ranking, it has several chances.
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]
