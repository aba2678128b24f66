"""Pools features over regions of interest: RoIAlign, RoI pooling, and the spatial pyramid.

Boxes are corner boxes [x0, y0, x1, y1] in pixels of the image, and `scale` (one over the stride) maps them to a feature
map. No gradient flows to the boxes, as in all these papers. Boxes outside the image, without area or of NaN give finite
results: zeros where no feature is sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from canon import backend
from canon.errors import UsageError
from canon.ops.chunks import map_in_chunks
from canon.ops.padding import pair
from canon.ops.pooling import max_pool

# Elements that a gradient adds at once: one scatter of all of RoIAlign's would write, and read again, 16 times the
# pooled regions. On 2 CPU cores 512 regions of 7 x 7 x 256 take 16 ms in these chunks of four, 370 ms at once.
_UPDATES = 2**20
_CHUNK = 64  # regions that the plain form of RoIAlign interpolates at once: [chunk, h, W, C] is its largest array


def roi_align(
    features: jax.Array,
    boxes: jax.Array,
    output_size: int | Sequence[int],
    scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> jax.Array:
    """Averages bilinear samples in each bin of each region: RoIAlign, He et al. 2017, "Mask R-CNN", section 3.

    A region of h x w bins has `sampling_ratio`^2 samples per bin, spread evenly; samples more than one pixel outside
    the map are zero, and nearer ones take its border, as in torchvision and detectron2.

    Args:
      features: [B, H, W, C].
      boxes: float [B, R, 4], in pixels of the image.
      output_size: bins, (h, w) or one number.
      scale: of the map relative to the image, 1 / stride.
      sampling_ratio: samples per bin along each axis, at least 1. (torchvision's 0 or -1 adapts it to each box, which
        has no static shape.)
      aligned: subtracts half a pixel, so that pixel centres are at half-integers (detectron2's "ROIAlignV2"). False
        takes pixel centres at integers, and regions for at least one pixel wide and high (torchvision's models).

    Returns:
      [B, R, h, w, C] in the dtype of the features, computed in float32 at least.

    Raises:
      UsageError: the shapes do not fit, or `sampling_ratio` is below 1.
    """
    levels = jnp.zeros(boxes.shape[:-1], jnp.int32)
    return roi_align_levels([features], boxes, levels, output_size, [scale], sampling_ratio, aligned)


def roi_align_levels(
    features: Sequence[jax.Array],
    boxes: jax.Array,
    levels: jax.Array,
    output_size: int | Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> jax.Array:
    """Applies `roi_align` to each region on its own level of a feature pyramid.

    Args:
      features: L maps [B, H_l, W_l, C].
      boxes: float [B, R, 4], in pixels of the image.
      levels: integers [B, R] in 0..L-1, of `assign_levels`.
      output_size: bins, (h, w) or one number.
      scales: of the L maps relative to the image.
      sampling_ratio: samples per bin along each axis.
      aligned: see `roi_align`.

    Returns:
      [B, R, h, w, C].

    Raises:
      UsageError: the shapes do not fit, or `sampling_ratio` is below 1.
    """
    bins = pair(output_size, 'output_size')
    _check_regions(features, boxes, scales)
    if sampling_ratio < 1:
        raise UsageError(
            f'sampling_ratio={sampling_ratio} must be at least 1: a number that adapts to each box has no static shape'
        )
    boxes = lax.stop_gradient(boxes).astype(jnp.float32)
    scale = jnp.asarray(scales, jnp.float32)[levels]
    heights, widths = (jnp.asarray([f.shape[axis] for f in features], jnp.int32)[levels] for axis in (1, 2))
    x0, y0, x1, y1 = (boxes[..., i] * scale - (0.5 if aligned else 0.0) for i in range(4))
    rows = _bilinear_taps(y0, y1, bins[0], sampling_ratio, heights, aligned)
    columns = _bilinear_taps(x0, x1, bins[1], sampling_ratio, widths, aligned)
    if backend.cpu_form():
        return _align_by_gathers(features, levels, widths, rows, columns)
    return _align_by_products(features, levels, rows, columns)


def assign_levels(
    boxes: jax.Array,
    min_level: int = 2,
    max_level: int = 5,
    canonical_size: float = 224,
    canonical_level: int = 4,
    eps: float = 1e-6,
) -> jax.Array:
    """Assigns regions to levels of a pyramid by size: k = floor(k0 + log2(sqrt(w h) / 224)); Lin et al. 2017, eq. 1.

    Args:
      boxes: [..., 4], in pixels.
      min_level: finest level; smaller boxes are assigned to it.
      max_level: coarsest level; larger boxes are assigned to it.
      canonical_size: side of the box that is assigned to `canonical_level`: that of ImageNet's crops.
      canonical_level: k0.
      eps: added before rounding down, as torchvision does, so that a box of exactly that size is not rounded down.

    Returns:
      int32 [...] in 0..max_level - min_level: an index into the list of levels.
    """
    boxes = lax.stop_gradient(boxes).astype(jnp.float32)
    size = jnp.sqrt(jnp.maximum((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]), 0))
    level = jnp.floor(canonical_level + jnp.log2(size / canonical_size) + eps)
    # Bounded before it becomes an integer: the logarithm of a box without area is minus infinity.
    level = jnp.clip(jnp.nan_to_num(level, nan=min_level), min_level, max_level)
    return level.astype(jnp.int32) - min_level


def _check_regions(features: Sequence[jax.Array], boxes: jax.Array, scales: Sequence[float]) -> None:
    if len(features) != len(scales) or not features:
        raise UsageError(f'{len(features)} feature maps need as many scales, not {len(scales)}')
    channels = {f.shape[-1] for f in features}
    if any(f.ndim != 4 for f in features) or boxes.ndim != 3 or boxes.shape[-1] != 4 or len(channels) > 1:
        shapes = ', '.join(str(f.shape) for f in features)
        raise UsageError(f'regions are pooled from maps [B, H, W, C] with boxes [B, R, 4], not {shapes}, {boxes.shape}')
    if any(f.shape[0] != boxes.shape[0] for f in features):
        raise UsageError(f'boxes of {boxes.shape[0]} images do not fit maps of {features[0].shape[0]}')
    if any(0 in f.shape[1:3] for f in features):
        raise UsageError('a feature map has no pixels: the image is smaller than the stride of the network')


def _bilinear_taps(
    low: jax.Array, high: jax.Array, bins: int, samples: int, length: jax.Array, aligned: bool
) -> tuple[jax.Array, jax.Array]:
    """Returns the pixels and weights of each bin along one axis: (int32, float32) [..., bins, 2 * samples].

    Bilinear interpolation is separable, so that a bin is the sum over its rows and columns of both axes' weights.
    """
    size = high - low
    if not aligned:
        size = jnp.maximum(size, 1)
    step = (size / bins)[..., None, None]
    bin_index, sample = np.arange(bins, dtype=np.float32)[:, None], np.arange(samples, dtype=np.float32) + 0.5
    at = low[..., None, None] + bin_index * step + sample * step / samples  # [..., bins, samples]
    last = (length - 1).astype(jnp.float32)[..., None, None]
    inside = (at >= -1) & (at <= last + 1)  # False for NaN
    at = jnp.clip(jnp.where(inside, at, 0), 0, last)
    first = jnp.floor(at)
    fraction = at - first
    indices = jnp.concatenate([first, jnp.minimum(first + 1, last)], -1).astype(jnp.int32)
    weights = jnp.concatenate([jnp.where(inside, 1 - fraction, 0), jnp.where(inside, fraction, 0)], -1) / samples
    return indices, weights


def _align_by_products(features: Sequence[jax.Array], levels: jax.Array, rows: tuple, columns: tuple) -> jax.Array:
    """Computes the plain form: the product of each level with matrices of weights, which are 0 for other levels."""
    product = partial(jnp.einsum, precision=lax.Precision.HIGHEST, preferred_element_type=jnp.float32)
    total = None
    for level, maps in enumerate(features):
        on_level = (levels == level)[..., None, None]

        def pool(taps, maps=maps):
            down, across = taps
            lines = product('brih,bhwc->briwc', down, maps)
            return product('briwc,brjw->brijc', lines, across)

        down = jnp.where(on_level, _interpolation_matrix(*rows, maps.shape[1]), 0)
        across = _interpolation_matrix(*columns, maps.shape[2])
        pooled = map_in_chunks(pool, (down, across), _CHUNK, axis=1)
        total = pooled if total is None else total + pooled
    assert total is not None
    return total.astype(features[0].dtype)


def _interpolation_matrix(indices: jax.Array, weights: jax.Array, length: int) -> jax.Array:
    """Returns the matrix [..., bins, length] of the weights [..., bins, taps] at their indices."""
    return jnp.where(indices[..., None] == jnp.arange(length), weights[..., None], 0).sum(-2)


def _align_by_gathers(
    features: Sequence[jax.Array], levels: jax.Array, widths: jax.Array, rows: tuple, columns: tuple
) -> jax.Array:
    """Computes the form for XLA:CPU: one gather from all levels of all images, laid out one after the other."""
    batch, regions = levels.shape
    channels, dtype = features[0].shape[-1], features[0].dtype
    pixels = [f.shape[1] * f.shape[2] for f in features]
    flat = jnp.concatenate([f.reshape(batch, -1, channels) for f in features], 1).reshape(-1, channels)
    start = jnp.asarray(np.cumsum([0, *pixels[:-1]]), jnp.int32)[levels]
    start += jnp.arange(batch, dtype=jnp.int32)[:, None] * sum(pixels)
    (y, wy), (x, wx) = rows, columns
    lines = start[..., None, None] + y * widths[..., None, None]
    merged = [a.reshape(batch * regions, *a.shape[2:]) for a in (lines, wy, x, wx)]
    pooled = _gather_bins(flat, *merged)
    return pooled.reshape(batch, regions, *pooled.shape[1:]).astype(dtype)


@jax.custom_vjp
def _gather_bins(
    flat: jax.Array, lines: jax.Array, line_weights: jax.Array, columns: jax.Array, column_weights: jax.Array
) -> jax.Array:
    """Returns sum_ab u_a v_b flat[lines_a + columns_b], [R, h, w, C].

    Args:
      flat: features [N, C].
      lines: int32 [R, h, T], where the lines of pixels begin in `flat`.
      line_weights: u, float32 [R, h, T].
      columns: int32 [R, w, T].
      column_weights: v, float32 [R, w, T].
    """
    total = jnp.zeros((), jnp.float32)
    for a in range(lines.shape[-1]):
        for b in range(columns.shape[-1]):
            index = lines[:, :, None, a] + columns[:, None, :, b]
            weight = line_weights[:, :, None, a] * column_weights[:, None, :, b]
            total = total + weight[..., None] * flat.at[index].get(mode='promise_in_bounds')
    return total


def _gather_forward(flat, *taps):
    # An empty array carries the shape and the dtype of the features to the backward pass.
    return _gather_bins(flat, *taps), (jnp.zeros((flat.shape[0], 0), flat.dtype), *taps)


def _gather_backward(residuals, dy):
    like, *taps = residuals

    def make_updates(lines, line_weights, columns, column_weights, dy):
        index = lines[:, :, None, :, None] + columns[:, None, :, None, :]
        weight = line_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        return index, weight[..., None] * dy[:, :, :, None, None]

    repeats = taps[0].shape[-1] * taps[2].shape[-1]
    gradient = _add_in_chunks(like.shape[0], (*taps, dy), make_updates, repeats)
    return gradient.astype(like.dtype), None, None, None, None


_gather_bins.defvjp(_gather_forward, _gather_backward)


def roi_pool(
    features: jax.Array,
    boxes: jax.Array,
    output_size: int | Sequence[int],
    scale: float,
    width_convention: str = 'plus_one',
) -> jax.Array:
    """Takes the maximum of each of h x w bins of each region: RoI pooling, Girshick 2015, "Fast R-CNN", section 2.1.

    Corners are rounded to pixels of the map, halves away from zero; the bins of a region of n pixels are
    floor(i n / h) .. ceil((i + 1) n / h), so that neighbours may share a pixel. A bin without pixels of the map is 0.
    The gradient goes to one maximum of a bin; of equal ones it may be any.

    Args:
      features: [B, H, W, C].
      boxes: float [B, R, 4], in pixels of the image.
      output_size: bins, (h, w) or one number.
      scale: of the map relative to the image, 1 / stride.
      width_convention: how many pixels a region covers. 'plus_one': round(x1 scale) - round(x0 scale) + 1, of the boxes
        as they are (torchvision; also py-faster-rcnn, of the boxes that its RPN decodes, whose ends are edges).
        'pixels': the same with x1 - 1 for x1, which is what Caffe computes from boxes that state their last pixel, as
        in VOC. 'edges': round(x1 scale) - round(x0 scale). One pixel at least.

    Returns:
      [B, R, h, w, C]. A region larger than the map is clipped to it first (Caffe and torchvision divide it as it is).

    Raises:
      UsageError: the shapes do not fit, or the convention is unknown.
    """
    bins = pair(output_size, 'output_size')
    _check_regions([features], boxes, [scale])
    if width_convention not in ('plus_one', 'pixels', 'edges'):
        raise UsageError(f"width_convention={width_convention!r} is 'plus_one', 'pixels' or 'edges'")
    boxes = _finite(boxes)
    ends = boxes[..., 2:] - (width_convention == 'pixels')
    low, high = _round_half_away(boxes[..., :2] * scale), _round_half_away(ends * scale)
    high += width_convention != 'edges'
    spans = [_clip_span(low[..., i], high[..., i], features.shape[2 - i]) for i in range(2)]
    return _max_of_bins(features, spans[1], spans[0], [bins])[0]


def spatial_pyramid_pool(features: jax.Array, bins: Sequence[int] = (6, 3, 2, 1), form: str = 'adaptive') -> jax.Array:
    """Takes maxima over the cells of n x n grids for each n, a vector of fixed length: He et al. 2014, section 2.2.

    Args:
      features: [B, H, W, C], of any size.
      bins: grids: (6, 3, 2, 1) has 50 cells, (4, 3, 2, 1) has 30.
      form: 'adaptive': cell i covers the rows floor(i H / n) .. ceil((i + 1) H / n), for maps of all sizes, which may
        be smaller than n. 'windows': pooling with windows of ceil(H / n) at strides of floor(H / n), section 2.3; the
        same where H = 13, but it leaves out the last rows of some sizes.

    Returns:
      [B, sum n^2 C], by grid, row, column and channel.

    Raises:
      UsageError: the form is unknown, or 'windows' cannot divide the map into n x n.
    """
    if form not in ('adaptive', 'windows'):
        raise UsageError(f"form={form!r} of a spatial pyramid is 'adaptive' or 'windows'")
    if features.ndim != 4 or 0 in features.shape[1:3]:
        raise UsageError(f'a spatial pyramid takes maps [B, H, W, C] with pixels, not {features.shape}')
    size = features.shape[1:3]
    if form == 'windows' and min(size) < max(bins):
        raise UsageError(f"a map of {size} has no {max(bins)} x {max(bins)} windows; use form='adaptive'")
    pooled = {n: grid for n in bins if (grid := _pool_grid(features, n, form)) is not None}
    # What is left covers the whole map, with cells of different sizes.
    uneven = [n for n in bins if n not in pooled]
    spans = [(jnp.zeros((len(features), 1), jnp.int32), jnp.full((len(features), 1), length)) for length in size]
    pooled |= dict(zip(uneven, _max_of_bins(features, *spans, [(n, n) for n in uneven]), strict=True))
    return jnp.concatenate([pooled[n].reshape(len(features), -1) for n in bins], 1)


def _pool_grid(features: jax.Array, n: int, form: str) -> jax.Array | None:
    """Pools a map with n x n windows of one size and stride; None if 'adaptive' cells are not such windows."""
    window, stride = [], []
    for length in features.shape[1:3]:
        starts, ends = np.arange(n) * length // n, -(-np.arange(1, n + 1) * length // n)
        window.append(-(-length // n))
        stride.append(max(length // n, 1))
        regular = (starts == np.arange(n) * stride[-1]).all() and (ends - starts == window[-1]).all()
        if form == 'adaptive' and not regular:
            return None
    return max_pool(features, window, stride)[:, :n, :n]


def spatial_pyramid_pool_regions(
    features: jax.Array,
    boxes: jax.Array,
    bins: Sequence[int] = (6, 3, 2, 1),
    scale: float = 1 / 16,
) -> jax.Array:
    """Applies a spatial pyramid to each region of a map: He et al. 2014, section 4.1.

    The corners are projected to the map as in appendix A: x0 to floor(x0 scale) + 1 and x1 to ceil(x1 scale) - 1, the
    last pixel, which are the pixels whose receptive fields are centred within the region; a region between two pixels
    takes the one at its middle. Cells are as those of `roi_pool`.

    Args:
      features: [B, H, W, C].
      boxes: float [B, R, 4], in pixels of the image.
      bins: grids n x n.
      scale: of the map relative to the image, 1 / stride.

    Returns:
      [B, R, sum n^2 C], by grid, row, column and channel.

    Raises:
      UsageError: the shapes do not fit.
    """
    _check_regions([features], boxes, [scale])
    boxes = _finite(boxes) * scale
    low, last = jnp.floor(boxes[..., :2]) + 1, jnp.ceil(boxes[..., 2:]) - 1
    middle = jnp.floor((low + last) / 2)
    low, last = jnp.where(low > last, middle, low), jnp.where(low > last, middle, last)
    spans = [_clip_span(low[..., i], last[..., i] + 1, features.shape[2 - i]) for i in range(2)]
    pooled = _max_of_bins(features, spans[1], spans[0], [(n, n) for n in bins])
    return jnp.concatenate(
        [p.reshape(*boxes.shape[:2], n * n * p.shape[-1]) for n, p in zip(bins, pooled, strict=True)], -1
    )


def _finite(boxes: jax.Array) -> jax.Array:
    """Returns boxes whose corners can be rounded to integers, without a gradient."""
    boxes = lax.stop_gradient(boxes).astype(jnp.float32)
    return jnp.clip(jnp.where(jnp.isnan(boxes), 0, boxes), -(2.0**20), 2.0**20)


def _round_half_away(x: jax.Array) -> jax.Array:
    """Rounds as C's `round` does; `jnp.round` rounds halves to even."""
    return jnp.trunc(x + jnp.where(x < 0, -0.5, 0.5))


def _clip_span(low: jax.Array, high: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
    """Returns (first pixel, one after the last) along an axis, int32; one pixel at least, at most `length` + 1."""
    low, high = low.astype(jnp.int32), high.astype(jnp.int32)
    high = jnp.maximum(high, low + 1)
    larger = high - low > length + 1
    return jnp.where(larger, jnp.maximum(low, 0), low), jnp.where(larger, jnp.minimum(high, length), high)


def _max_of_bins(
    features: jax.Array,
    rows: tuple[jax.Array, jax.Array],
    columns: tuple[jax.Array, jax.Array],
    grids: Sequence[tuple[int, int]],
) -> list[jax.Array]:
    """Computes maxima over the bins of each grid (h, w) on each region, [B, R, h, w, C] per grid.

    Args:
      features: [B, H, W, C].
      rows: (start, end) of the regions, int32 [B, R]; `_clip_span` bounds them.
      columns: the same.
      grids: (h, w) of each.
    """
    if not grids:
        return []
    batch, regions = rows[0].shape
    ends = []
    for h, w in grids:
        y, x = _bin_ends(*rows, h, features.shape[1]), _bin_ends(*columns, w, features.shape[2])
        pairs = [jnp.broadcast_to(e[:, :, :, None], (batch, regions, h, w)) for e in y]
        pairs += [jnp.broadcast_to(e[:, :, None], (batch, regions, h, w)) for e in x]
        ends.append([e.reshape(batch, regions * h * w) for e in pairs])
    # The largest bin along an axis: of a region of `length` + 1 pixels, divided by the coarsest grid.
    most = [
        min(length, -(-(length + 1) // min(n)) + 1)
        for length, n in zip(features.shape[1:3], zip(*grids, strict=True), strict=True)
    ]
    y0, y1, x0, x1 = (jnp.concatenate(parts, 1) for parts in zip(*ends, strict=True))
    pooled = _max_in_boxes(features, y0, y1, x0, x1, most)
    out, start = [], 0
    for h, w in grids:
        out.append(pooled[:, start : start + regions * h * w].reshape(batch, regions, h, w, features.shape[-1]))
        start += regions * h * w
    return out


def _bin_ends(low: jax.Array, high: jax.Array, bins: int, length: int) -> tuple[jax.Array, jax.Array]:
    """Returns (start, end) of the bins of regions along an axis of `length` pixels, int32 [B, R, bins]."""
    i, size = np.arange(bins, dtype=np.int32), (high - low)[..., None]
    # In integers: float32 would round floor(i n / bins) down where n / bins is not exact.
    start = low[..., None] + i * size // bins
    end = low[..., None] - (-(i + 1) * size // bins)
    return jnp.clip(start, 0, length), jnp.clip(end, 0, length)


def _max_in_boxes(
    features: jax.Array, y0: jax.Array, y1: jax.Array, x0: jax.Array, x1: jax.Array, most: Sequence[int]
) -> jax.Array:
    """Computes the maximum of features [B, H, W, C] in boxes of pixels [B, N], [B, N, C]; 0 in those without pixels.

    Tables of the maxima over all windows of 2^k x 2^m pixels serve each box by four windows, which may overlap. No box
    has more than `most` (rows, columns).
    """
    batch, channels = features.shape[0], features.shape[-1]
    # float32: a pixel of bfloat16 would sum the gradients of hundreds of bins.
    table = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    powers = [int(np.log2(n)) + 1 for n in most]
    tables, starts, widths, total = [], [], [], 0
    for k in range(powers[0]):
        row = table
        for m in range(powers[1]):
            # A table is smaller than the map by its window.
            tables.append(row.reshape(batch, -1, channels))
            starts.append(total)
            widths.append(row.shape[2])
            total += row.shape[1] * row.shape[2]
            row = _double_windows(row, 2**m, 2) if m + 1 < powers[1] else row
        table = _double_windows(table, 2**k, 1) if k + 1 < powers[0] else table
    flat = jnp.concatenate(tables, 1).reshape(batch * total, channels)

    logs = jnp.asarray([0, *(int(np.log2(n)) for n in range(1, max(most) + 1))], jnp.int32)
    log_y, log_x = (logs[jnp.clip(end - start, 1, n)] for start, end, n in zip((y0, x0), (y1, x1), most, strict=True))
    chosen = log_y * powers[1] + log_x
    start, width = jnp.asarray(starts, jnp.int32)[chosen], jnp.asarray(widths, jnp.int32)[chosen]
    start += total * jnp.arange(batch, dtype=jnp.int32)[:, None]
    empty = (y0 >= y1) | (x0 >= x1)
    corners = [
        jnp.where(empty, 0, start + y * width + x).ravel()
        for y in (y0, y1 - (1 << log_y))
        for x in (x0, x1 - (1 << log_x))
    ]
    largest = _max_of_rows(flat, jnp.stack(corners, 1)).reshape(*empty.shape, channels)
    return jnp.where(empty[..., None], 0, largest).astype(features.dtype)


def _select_larger(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns the maximum, with the whole gradient to one of both: `jnp.maximum` halves it between equal values."""
    return jnp.where((b > a) | jnp.isnan(b), b, a)


def _double_windows(maxima: jax.Array, size: int, axis: int) -> jax.Array:
    """Turns maxima over windows of `size` pixels along an axis into those over twice as many."""
    count = maxima.shape[axis] - size
    first, second = (lax.slice_in_dim(maxima, start, start + count, axis=axis) for start in (0, size))
    return _select_larger(first, second)


@jax.custom_vjp
def _max_of_rows(flat: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the maximum of the rows flat[index], [N, C] of flat [M, C] and index [N, K]."""
    rows = (flat.at[index[:, k]].get(mode='promise_in_bounds') for k in range(index.shape[1]))
    return reduce(jnp.maximum, rows)


def _max_of_rows_forward(flat, index):
    largest = _max_of_rows(flat, index)
    return largest, (flat, index, largest)


def _max_of_rows_backward(residuals, dy):
    flat, *rows = residuals

    def make_updates(index, largest, dy):
        # The rows are read again, a chunk at a time: masks of all would be as large as the output.
        wins = flat.at[index].get(mode='promise_in_bounds') == largest[:, None]
        first = wins & (jnp.cumsum(wins, 1, dtype=jnp.int8) == 1)
        return index, jnp.where(first, dy[:, None], 0)

    return _add_in_chunks(len(flat), (*rows, dy), make_updates, rows[0].shape[1]), None


_max_of_rows.defvjp(_max_of_rows_forward, _max_of_rows_backward)


def _add_in_chunks(length: int, rows: tuple[jax.Array, ...], make_updates: Callable, repeats: int = 1) -> jax.Array:
    """Adds rows of updates to zeros [length, C].

    Args:
      length: of the result.
      rows: arrays with as many rows; the last one has the gradients [..., C].
      make_updates: maps some of the rows to (indices [...], updates [..., C]).
      repeats: updates per gradient.
    """
    count, channels = len(rows[0]), rows[-1].shape[-1]
    per_row = max(rows[-1].size * repeats // max(count, 1), 1)
    size = min(max(_UPDATES // per_row, 1), max(count, 1))

    # Zeros fill up the last chunk: they add 0 to the first row.
    def split(x):
        x = jnp.pad(x, [(0, -count % size)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, size, *x.shape[1:])

    def add_chunk(total, chunk):
        index, updates = make_updates(*chunk)
        return total.at[index].add(updates, mode='promise_in_bounds'), None

    zeros = jnp.zeros((length, channels), rows[-1].dtype)
    return lax.scan(add_chunk, zeros, tuple(map(split, rows)))[0]
