"""PSNR and SSIM against scikit-image in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.data.scenes import views
from canon.errors import UsageError
from canon.metrics import add
from canon.metrics.views import psnr, ssim

peer = pytest.importorskip('skimage.metrics')


@pytest.fixture(scope='module')
def pairs():
    truth = views.blend_background(views.load_views('traced', views=3, size=32), 'white') / 255
    noise = np.random.default_rng(0).normal(size=truth.shape) * np.array([0.01, 0.05, 0.2])[:, None, None, None]
    return np.clip(truth + noise, 0, 1), truth


def ours(function, pairs, **more):
    return jax.jit(function)(*(jnp.asarray(p, jnp.float32) for p in pairs), **more)


def test_psnr_is_the_mean_of_each_pictures(pairs):
    expected = [peer.peak_signal_noise_ratio(t, p, data_range=1) for p, t in zip(*pairs, strict=True)]
    np.testing.assert_allclose(ours(psnr, pairs).value, np.mean(expected), rtol=1e-5)
    assert abs(np.mean(expected) + 10 * np.log10(np.mean((pairs[0] - pairs[1]) ** 2))) > 1, 'the pairs cannot tell'
    assert np.isinf(ours(psnr, (pairs[1], pairs[1])).value)


def test_ssim_is_scikit_images(pairs):
    expected = [
        peer.structural_similarity(
            t, p, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, channel_axis=-1
        )
        for p, t in zip(*pairs, strict=True)
    ]
    assert max(expected) - min(expected) > 0.3
    each = [ours(ssim, tuple(p[i : i + 1] for p in pairs)) for i in range(3)]
    np.testing.assert_allclose([float(m.value) for m in each], expected, atol=1e-5)
    np.testing.assert_allclose(ours(ssim, pairs).value, np.mean(expected), atol=1e-5)
    np.testing.assert_allclose(add(add(each[0], each[1]), each[2]).value, np.mean(expected), atol=1e-5)
    np.testing.assert_allclose(ours(ssim, (pairs[1], pairs[1])).value, 1, atol=1e-6)


@pytest.mark.parametrize('metric', [psnr, ssim])
def test_padding_does_not_count(pairs, metric):
    padded = tuple(np.concatenate((p, np.full_like(p[:1], np.nan))) for p in pairs)
    masked = ours(metric, padded, mask=jnp.array([True, True, True, False]))
    np.testing.assert_allclose(masked.value, ours(metric, pairs).value, rtol=1e-6)
    assert masked.weight == 3


def test_shapes_that_do_not_fit(pairs):
    with pytest.raises(UsageError, match='B, H, W, C'):
        psnr(pairs[0][0], pairs[1][0])
    with pytest.raises(UsageError, match='window of 11'):
        ssim(pairs[0][:, :8], pairs[1][:, :8])
