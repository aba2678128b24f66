"""Bilinear upsampling against transposed convolutions, numpy's interpolation, and points that must stay put."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import ops
from canon.errors import UsageError

RNG = np.random.default_rng(0)


def scatter(images, size, stride):
    """The transposed convolution by its definition, in float64: every place adds its kernel to the result."""
    b, h, w, c = images.shape
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    taps = 1 - np.abs(np.arange(size) - centre) / factor
    out = np.zeros((b, (h - 1) * stride + size, (w - 1) * stride + size, c))
    for i in range(h):
        for j in range(w):
            window = out[:, i * stride : i * stride + size, j * stride : j * stride + size]
            window += images[:, i, j, None, None] * np.outer(taps, taps)[..., None]
    return out


@pytest.mark.parametrize(
    ('size', 'stride', 'crop', 'shape'),
    [(64, 32, 19, (50, 61)), (63, 32, 18, (40, 90)), (4, 2, 0, None), (16, 8, 31, (9, 12)), (16, 8, (3, 5), None)],
)
def test_deconvolution_is_the_scattered_kernel_cropped(size, stride, crop, shape):
    images = RNG.standard_normal((2, 5, 7, 3)).astype(np.float32)
    top, left = (crop, crop) if isinstance(crop, int) else crop
    expected = scatter(images, size, stride)[:, top:, left:]
    expected = expected[:, : shape[0], : shape[1]] if shape else expected
    found = ops.bilinear_deconv(jnp.asarray(images), size, stride, crop, shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # The dense form of the authors' nets, with a kernel that is zero between channels.
    kernel = jnp.asarray(ops.bilinear_deconv_kernel(size, 3))
    dense = ops.conv_transpose(jnp.asarray(images), kernel, stride)[:, top:, left:]
    np.testing.assert_allclose(found, dense[:, : found.shape[1], : found.shape[2]], atol=1e-5)


def test_gradients_of_both_forms_are_equal():
    images, kernel = jnp.asarray(RNG.standard_normal((1, 4, 3, 2)), jnp.float32), ops.bilinear_deconv_kernel(4, 2)
    upstream = jnp.asarray(RNG.standard_normal((1, 7, 5, 2)), jnp.float32)
    found, dense = (
        jax.grad(lambda x, f=f: (f(x) * upstream).sum())(images)
        for f in (
            lambda x: ops.bilinear_deconv(x, 4, 2, 2, (7, 5)),
            lambda x: ops.conv_transpose(x, jnp.asarray(kernel), 2)[:, 2:9, 2:7],
        )
    )
    np.testing.assert_allclose(found, dense, atol=1e-6)


@pytest.mark.parametrize('factor', [2, 3, 8])
def test_whole_factors_are_a_resize(factor):
    images = jnp.asarray(RNG.standard_normal((2, 5, 4, 3)), jnp.float32)
    shape = (5 * factor, 4 * factor)
    expected = jax.image.resize(images, (2, *shape, 3), 'bilinear')
    np.testing.assert_allclose(ops.upsample_bilinear(images, factor, shape), expected, atol=1e-5)
    cut = ops.upsample_bilinear(images, factor, (shape[0] - 1, shape[1] - factor))
    np.testing.assert_array_equal(cut, ops.upsample_bilinear(images, factor, shape)[:, :-1, :-factor])


@pytest.mark.parametrize(('factor', 'centre'), [(8, None), (8, 3.5), (32, 30.0), (4, 0.0), (2, 2.5)])
def test_a_delta_stays_where_it_was(factor, centre):
    """A place in the middle has its centre of mass where the grid says, and weights that sum to the factor squared."""
    for place in ((2, 3), (3, 2)):
        images = np.zeros((1, 6, 6, 1), np.float32)
        images[0, *place] = 1
        out = np.asarray(ops.upsample_bilinear(jnp.asarray(images), factor, (8 * factor, 8 * factor), centre))[
            0, ..., 0
        ]
        first = (factor - 1) / 2 if centre is None else centre
        rows = np.arange(8 * factor)
        found = (out.sum(1) @ rows / out.sum(), out.sum(0) @ rows / out.sum())
        np.testing.assert_allclose(found, [first + factor * i for i in place], rtol=1e-5)
        assert out.sum() == pytest.approx(factor**2)


def test_constants_stay_constant_up_to_the_border():
    images = jnp.full((1, 3, 2, 1), 7.0)
    np.testing.assert_allclose(ops.upsample_bilinear(images, 32, (180, 70), 30.0), 7.0, rtol=1e-6)


def test_other_dtypes():
    images = jnp.asarray(RNG.standard_normal((1, 3, 3, 2)), jnp.bfloat16)
    assert ops.upsample_bilinear(images, 2, (6, 6)).dtype == jnp.bfloat16
    assert ops.bilinear_deconv(images, 4, 2).dtype == jnp.bfloat16


def test_a_map_that_does_not_cover_the_image_is_refused():
    with pytest.raises(UsageError, match=r'64x96 pixels, fewer than the 60x64 .* after a crop of 19, 19'):
        ops.bilinear_deconv(jnp.zeros((1, 1, 2, 1)), 64, 32, 19, (60, 64))
