"""RoIAlign, RoI pooling and spatial pyramids against torchvision, loops, and the adjoint of a linear map."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import backend
from canon.errors import UsageError
from canon.ops import regions
from tests.ops import drawn_regions as drawn

GOLDEN = np.load(Path(__file__).parent / 'golden/regions.npz')
FEATURES, BOXES = drawn.draw_features(), drawn.draw_regions()
SCALE = 1 / drawn.STRIDE
FORMS = ('cpu', 'plain')


def pool_with_gradient(function, maps, weights):
    """Returns function(maps) and the gradient of its sum with the weights."""

    @jax.jit
    def both(maps, weights):
        out, pull = jax.vjp(function, maps)
        return out, pull(weights)[0]

    return both(maps, weights)


def cosines(shape) -> np.ndarray:
    return np.cos(np.arange(np.prod(shape))).reshape(shape).astype(np.float32)


@pytest.mark.parametrize(
    ('setting', 'form'), [*((s, 'cpu') for s in drawn.SETTINGS), *((s, 'plain') for s in drawn.SETTINGS[1:3])]
)
def test_roi_align_equals_torchvision_and_a_loop(setting, form):
    samples, aligned, size = setting
    name = f'align/{samples}/{aligned}'
    with backend.forms(form):
        align = partial(
            regions.roi_align, boxes=BOXES, output_size=size, scale=SCALE, sampling_ratio=samples, aligned=aligned
        )
        out, gradient = pool_with_gradient(align, FEATURES, cosines(GOLDEN[name].shape))
    np.testing.assert_allclose(out, GOLDEN[name], atol=2e-5)
    np.testing.assert_allclose(gradient, GOLDEN[f'{name}/gradient'], atol=1e-4)
    expected = drawn.loop_align(FEATURES[0].astype(np.float64), BOXES[0], size, SCALE, samples, aligned)
    np.testing.assert_allclose(out[0], expected, atol=2e-5)


@pytest.mark.parametrize('form', FORMS)
def test_roi_align_of_levels(form):
    """Every region on its level, as torchvision's MultiScaleRoIAlign; the gradient of a linear map is its adjoint."""
    maps, boxes = drawn.draw_pyramid()
    levels = regions.assign_levels(boxes)
    np.testing.assert_array_equal(levels, GOLDEN['assigned'])
    assert set(np.unique(levels)) == {0, 1, 2, 3}
    with backend.forms(form):
        align = partial(
            regions.roi_align_levels, boxes=boxes, levels=levels, output_size=3, scales=[1 / s for s in drawn.STRIDES]
        )
        weights = cosines(GOLDEN['levels'].shape)
        out, gradients = pool_with_gradient(align, maps, weights)
    np.testing.assert_allclose(out, GOLDEN['levels'], atol=2e-5)
    inner = sum(float(np.vdot(m.astype(np.float64), g)) for m, g in zip(maps, gradients, strict=True))
    assert inner == pytest.approx(float(np.vdot(out, weights)), rel=1e-4)


def test_levels_of_boxes():
    sides = np.array([0, 1, 111.99, 112, 223.99, 224, 447.9, 448, 1e6, np.nan], np.float32)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], -1)
    np.testing.assert_array_equal(regions.assign_levels(boxes), [0, 0, 0, 1, 1, 2, 2, 3, 3, 0])
    assert regions.assign_levels(np.float32([0, 0, 64, 16]), 3, 7, 32, 4) == 1  # of P3 to P7, sqrt(w h) = 32
    assert regions.assign_levels(np.float32([9, 9, 3, 3])) == 0


@pytest.mark.parametrize(('form', 'aligned'), [('cpu', False), ('plain', True)])
def test_bfloat16_and_wild_boxes(form, aligned):
    """Sums of bfloat16 features are float32; no box gives NaN, and none outside the map gives anything else than 0."""
    wild = np.float32([[np.nan] * 4, [-np.inf, -np.inf, np.inf, np.inf], [1e9] * 4, [5, 5, 5, 5], [90, 90, 20, 20]])
    boxes = np.concatenate([np.broadcast_to(wild, (2, 5, 4)), BOXES], 1)
    coarse, weights = jnp.asarray(FEATURES, jnp.bfloat16), jnp.ones((2, 19, 2, 2, 5), jnp.bfloat16)
    with backend.forms(form):
        align = partial(regions.roi_align, boxes=boxes, output_size=2, scale=SCALE, aligned=aligned)
        out, gradient = pool_with_gradient(align, coarse, weights)
        exact, exact_gradient = pool_with_gradient(align, coarse.astype(np.float32), weights.astype(np.float32))
    assert out.dtype == gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, exact.astype(jnp.bfloat16))
    np.testing.assert_array_equal(gradient, exact_gradient.astype(jnp.bfloat16))
    assert np.isfinite(exact).all()
    assert np.isfinite(exact_gradient).all()
    assert not exact[:, :3].any()
    assert jax.eval_shape(partial(align, boxes=BOXES[:, :0]), FEATURES).shape == (2, 0, 2, 2, 5)


def test_roi_pool_equals_torchvision():
    out, gradient = pool_with_gradient(
        partial(regions.roi_pool, boxes=BOXES, output_size=(3, 2), scale=SCALE), FEATURES, cosines(GOLDEN['pool'].shape)
    )
    np.testing.assert_array_equal(out, GOLDEN['pool'])
    np.testing.assert_allclose(gradient, GOLDEN['pool/gradient'], atol=1e-5)


def round_half_away(x):
    return np.trunc(x + np.where(x < 0, -0.5, 0.5))


@pytest.mark.parametrize('convention', ['plus_one', 'pixels', 'edges'])
def test_roi_pool_equals_a_loop(convention):
    boxes, bins = drawn.draw_regions(1), (4, 3)
    scaled = (boxes - np.float32([0, 0, 1, 1]) * (convention == 'pixels')) * np.float32(SCALE)
    x0, y0, x1, y1 = round_half_away(scaled).astype(int).transpose(2, 0, 1)
    more = int(convention != 'edges')
    spans = np.stack([y0, np.maximum(y1 + more, y0 + 1), x0, np.maximum(x1 + more, x0 + 1)], -1)
    shape = (2, len(boxes[0]), *bins, 5)
    weights = np.broadcast_to(1 + np.arange(np.prod(shape[1:])).reshape(shape[1:]), shape).astype(np.float32)
    pool = partial(regions.roi_pool, boxes=boxes, output_size=bins, scale=SCALE, width_convention=convention)
    out, gradient = pool_with_gradient(pool, FEATURES, weights)
    for image in range(2):
        expected = drawn.loop_pool(FEATURES[image], spans[image], bins)
        np.testing.assert_array_equal(out[image], expected[0])
        np.testing.assert_array_equal(gradient[image], expected[1])


def test_pooled_regions_of_any_box():
    wild = np.float32([[np.nan] * 4, [-np.inf, -np.inf, np.inf, np.inf], [-500, -500, 900, 900], [90, 90, 20, 20]])
    boxes = np.broadcast_to(wild, (2, 4, 4))
    coarse = jnp.asarray(FEATURES, jnp.bfloat16)
    out, gradient = pool_with_gradient(
        partial(regions.roi_pool, boxes=boxes, output_size=2, scale=SCALE),
        coarse,
        jnp.ones((2, 4, 2, 2, 5), jnp.bfloat16),
    )
    assert out.dtype == gradient.dtype == jnp.bfloat16
    # Larger than the map: clipped to it.
    for k in (1, 2):
        np.testing.assert_array_equal(out[:, k].max((1, 2)), coarse.max((1, 2)))
    assert np.isfinite(gradient.astype(np.float32)).all()
    assert jax.eval_shape(partial(regions.roi_pool, output_size=2, scale=SCALE), FEATURES, BOXES[:, :0]).size == 0


@pytest.mark.parametrize('size', [(13, 13), (10, 13), (5, 2)])
def test_spatial_pyramid_of_a_map(size):
    """On 13 x 13 the cells are the paper's windows; on others they cover the map, which may have fewer pixels."""
    maps = drawn.draw_features(size, 3)
    bins = (6, 3, 2, 1)
    shape = (2, 50 * 3)
    weights = np.broadcast_to(1 + np.arange(150), shape).astype(np.float32)
    out, gradient = pool_with_gradient(partial(regions.spatial_pyramid_pool, bins=bins), maps, weights)
    assert out.shape == shape
    for image in range(2):
        starts = np.cumsum([0, *(3 * n**2 for n in bins[:-1])])
        grids = [
            drawn.loop_pool(maps[image], [(0, size[0], 0, size[1])], (n, n), start)
            for n, start in zip(bins, starts, strict=True)
        ]
        np.testing.assert_array_equal(out[image], np.concatenate([g[0].ravel() for g in grids]))
        np.testing.assert_array_equal(gradient[image], sum(g[1] for g in grids))
    if size == (13, 13):
        windows = jax.jit(partial(regions.spatial_pyramid_pool, bins=bins, form='windows'))
        np.testing.assert_array_equal(out, windows(maps))


def test_spatial_pyramid_of_regions():
    """Corners by appendix A of the paper: the pixels centred within a region, or the one in its middle."""
    boxes = np.float32([[[8, 24, 120, 100], [33, 17, 40, 30], [-60, 100, 300, 400], [500, 500, 600, 600]]] * 2)
    spans = [(2, 7, 1, 8), (1, 2, 2, 3), (7, 9, 0, 12), (32, 38, 32, 38)]
    bins = (4, 2, 1)
    out = jax.jit(partial(regions.spatial_pyramid_pool_regions, bins=bins, scale=SCALE))(FEATURES, boxes)
    for image in range(2):
        cells = [drawn.loop_pool(FEATURES[image], spans, (n, n))[0].reshape(4, -1) for n in bins]
        np.testing.assert_array_equal(out[image], np.concatenate(cells, -1))


def test_bad_input():
    pool = partial(regions.roi_pool, output_size=2, scale=SCALE)
    with pytest.raises(UsageError, match='sampling_ratio=0 must be at least 1'):
        regions.roi_align(FEATURES, BOXES, 2, SCALE, 0)
    with pytest.raises(UsageError, match=r'with boxes \[B, R, 4\], not'):
        pool(FEATURES, BOXES[0])
    with pytest.raises(UsageError, match='boxes of 1 images do not fit maps of 2'):
        pool(FEATURES, BOXES[:1])
    with pytest.raises(UsageError, match='a feature map has no pixels'):
        pool(FEATURES[:, :0], BOXES)
    with pytest.raises(UsageError, match='2 feature maps need as many scales, not 1'):
        regions.roi_align_levels([FEATURES] * 2, BOXES, np.zeros((2, 14), int), 2, [SCALE])
    with pytest.raises(UsageError, match="width_convention='eps' is 'plus_one', 'pixels' or 'edges'"):
        pool(FEATURES, BOXES, width_convention='eps')
    with pytest.raises(UsageError, match=r"a map of \(5, 2\) has no 6 x 6 windows; use form='adaptive'"):
        regions.spatial_pyramid_pool(FEATURES[:, :5, :2], form='windows')
    with pytest.raises(UsageError, match="form='fixed' of a spatial pyramid"):
        regions.spatial_pyramid_pool(FEATURES, form='fixed')
