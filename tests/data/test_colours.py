"""Colours against Pillow's enhancements and closed forms; RandAugment's operations one by one; cutout and mixup."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from canon.data import Arrays, Batches, Key, Once, rng, transforms
from canon.data.images import colour, geometry
from canon.data.pipeline import chain
from canon.data.transforms import photometric
from canon.errors import CanonError, UsageError


def picture(shape=(37, 45, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth() -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((60, 50), Image.Resampling.BICUBIC))


ENHANCE = {
    'brightness': ImageEnhance.Brightness,
    'contrast': ImageEnhance.Contrast,
    'saturation': ImageEnhance.Color,
    'sharpness': ImageEnhance.Sharpness,
}


@pytest.mark.parametrize('factor', [0, 0.1, 0.5, 1, 1.37, 1.9])
@pytest.mark.parametrize('name', ENHANCE)
@pytest.mark.parametrize('make', [picture, smooth])
def test_enhancements_are_pillows(make, name, factor):
    """To one level: Pillow cuts off fractions where we round, and rounds the smoothed image before it blends."""
    image = make()
    expected = np.asarray(ENHANCE[name](Image.fromarray(image)).enhance(factor)).astype(int)
    enhanced = getattr(colour, f'adjust_{name}')(image, factor)
    assert enhanced.dtype == np.uint8
    assert abs(enhanced - expected).max() <= 1
    floats = getattr(colour, f'adjust_{name}')(image.astype(np.float32) / 255, factor)
    assert floats.dtype == np.float32
    assert abs(255 * floats - enhanced).max() <= 1.5
    if factor == 1:
        np.testing.assert_array_equal(enhanced, image)


@pytest.mark.parametrize('name', ENHANCE)
def test_enhancements_of_grey_images_are_pillows(name):
    image = picture((20, 30, 1))
    expected = np.asarray(ENHANCE[name](Image.fromarray(image[..., 0])).enhance(1.6)).astype(int)
    assert abs(getattr(colour, f'adjust_{name}')(image, 1.6)[..., 0] - expected).max() <= 1


@pytest.mark.parametrize('channels', [1, 3])
def test_operations_on_levels_are_pillows(channels):
    image = np.sort(picture((20, 30, channels)), axis=0) // 2 + 40
    pillow = Image.fromarray(image.squeeze())

    def same(ours, theirs, most=0):
        assert abs(ours - np.asarray(theirs).reshape(image.shape).astype(int)).max() <= most

    for bits in range(1, 9):
        same(colour.posterise(image, bits), ImageOps.posterize(pillow, bits))
    for threshold in (0, 1, 77, 128, 255, 256):
        same(colour.solarise(image, threshold), ImageOps.solarize(pillow, threshold))
    same(colour.equalise(image), ImageOps.equalize(pillow))
    same(colour.autocontrast(image), ImageOps.autocontrast(pillow), 1)  # which cuts off
    assert colour.autocontrast(image).min() == 0
    assert colour.autocontrast(image).max() == 255
    flat = np.full((4, 5, channels), 9, np.uint8)
    np.testing.assert_array_equal(colour.autocontrast(flat), flat)
    for function in (colour.equalise, colour.autocontrast, functools.partial(colour.solarise, threshold=100)):
        floats = function(image.astype(np.float32) / 255)
        assert floats.dtype == np.float32
        assert abs(255 * floats - function(image)).max() <= 1


def test_shifting_the_hue_permutes_the_primaries():
    primaries = np.eye(3, dtype=np.uint8)[None] * 200
    np.testing.assert_array_equal(colour.shift_hue(primaries, 1 / 3), np.roll(primaries, 1, 2))
    np.testing.assert_array_equal(colour.shift_hue(primaries, -1 / 3), np.roll(primaries, -1, 2))
    image = picture()
    assert abs(colour.shift_hue(image, 0).astype(int) - image).max() <= 1
    assert abs(colour.shift_hue(colour.shift_hue(image, 0.3), -0.3).astype(int) - image).max() <= 4
    import colorsys

    for pixel in image.reshape(-1, 3)[:50]:
        h, s, v = colorsys.rgb_to_hsv(*pixel / 255)
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + 0.21) % 1, s, v))
        assert abs(colour.shift_hue(pixel[None, None], 0.21)[0, 0] - expected).max() < 0.6


@pytest.mark.parametrize('sigma', [0.3, 1.0, 2.4])
def test_blur_is_gaussian(sigma):
    image = picture((40, 50, 3)).astype(np.float32)
    expected = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode='mirror')
    np.testing.assert_allclose(colour.blur(image, sigma), expected, atol=0.05)
    assert abs(colour.blur(picture((40, 50, 1)), sigma) - expected[..., :1]).mean() > 0  # one channel is taken


def test_grey_is_luma_in_every_channel():
    image = picture()
    expected = np.asarray(Image.fromarray(image).convert('L')).astype(int)
    out = transforms.random_grey(p=1.0).apply({'image': image}, Key(0, 0, 0))['image']
    assert abs(out - expected[..., None]).max() <= 1
    turned = [transforms.random_grey(p=0.25).apply({'image': image}, Key(0, v, 0))['image'] for v in range(400)]
    assert 70 < sum((t != image).any() for t in turned) < 130


# --- noise -----------------------------------------------------------------------------------------------------------


def test_colour_axes_are_those_of_the_covariance():
    images = [picture((9, 11, 3), seed) // np.array([1, 2, 5], np.uint8) for seed in range(4)]
    deviations, axes = colour.fit_colour_axes(images)
    pixels = np.concatenate([i.reshape(-1, 3) for i in images])
    covariance = np.cov(pixels.T, bias=True)
    np.testing.assert_allclose(axes @ np.diag(deviations**2) @ axes.T, covariance, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert (np.diff(deviations) <= 0).all()


def test_pca_noise_is_one_colour_per_image_with_the_covariance_in_closed_form():
    image = np.full((5, 4, 3), 0.5, np.float32)
    noise = transforms.pca_noise()
    shifts = []
    for visit in range(8000):
        out = noise.apply({'image': image}, Key(0, visit, 3))['image'].astype(np.float64)
        assert np.ptp(out, (0, 1)).max() == 0
        shifts.append(255 * (out[0, 0] - 0.5))
    axes, deviations = np.array(photometric.IMAGENET_AXES), np.array(photometric.IMAGENET_DEVIATIONS)
    expected = 0.01 * axes @ np.diag(deviations**2) @ axes.T
    assert abs(np.mean(shifts, 0)).max() < 4 * np.sqrt(expected.max() / 8000)
    np.testing.assert_allclose(np.cov(np.transpose(shifts)), expected, rtol=0.08, atol=0.05)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=2e-4)  # as published, to four digits


def test_pca_noise_of_bytes_is_rounded_and_clipped():
    image = picture()
    key = Key(0, 4, 2)
    alpha = rng(key).normal(0, 3.0, 3)
    shift = np.array(photometric.IMAGENET_AXES) @ (alpha * photometric.IMAGENET_DEVIATIONS)
    out = transforms.pca_noise(std=3.0).apply({'image': image}, key)['image']
    expected = np.clip(image + shift, 0, 255)
    assert abs(out - expected).max() <= 0.5 + 1e-4
    assert abs(shift).max() > 60


def test_colour_shift_is_uniform_and_its_own_for_each_channel():
    image = np.full((2, 2, 3), 100, np.uint8)
    shift = transforms.colour_shift(20)
    shifts = np.array([shift.apply({'image': image}, Key(0, v, 0))['image'][0, 0] for v in range(3000)]) - 100.0
    assert shifts.min() == -20
    assert shifts.max() == 20
    assert abs(np.corrcoef(shifts.T)[np.triu_indices(3, 1)]).max() < 0.06
    np.testing.assert_allclose(shifts.std(0), 20 / np.sqrt(3), rtol=0.03)


def test_colour_jitter_is_its_steps_in_the_order_drawn():
    image, key = smooth(), Key(0, 3, 1)
    out = transforms.colour_jitter(0.4, 0.3, 0.2, 0.1).apply({'image': image}, key)['image']
    generator = rng(key)
    order, draws = generator.permutation(4), generator.uniform(-1, 1, 4)
    expected = image
    for i in order:
        expected = [
            lambda x: colour.adjust_brightness(x, 1 + 0.4 * draws[0]),
            lambda x: colour.adjust_contrast(x, 1 + 0.3 * draws[1]),
            lambda x: colour.adjust_saturation(x, 1 + 0.2 * draws[2]),
            lambda x: colour.shift_hue(x, 0.1 * draws[3]),
        ][i](expected)
    np.testing.assert_array_equal(out, expected)
    nothing = transforms.colour_jitter(0, 0, 0, 0).apply({'image': image}, key)['image']
    np.testing.assert_array_equal(nothing, image)
    black = [transforms.colour_jitter(5, 0, 0).apply({'image': image}, Key(0, v, 0))['image'] for v in range(20)]
    assert any(not b.any() for b in black)  # a factor below 0 is 0


PHOTOMETRIC = {
    'pca_noise': dict(),
    'colour_shift': dict(),
    'colour_jitter': dict(hue=0.1),
    'random_grey': dict(p=0.5),
    'random_blur': dict(),
    'cutout': dict(size=6),
    'rand_augment': dict(),
}


@pytest.mark.parametrize('name', PHOTOMETRIC)
def test_colour_transforms_are_functions_of_the_key_and_leave_boxes_alone(name):
    transform = getattr(transforms, name)(**PHOTOMETRIC[name])
    boxes = np.array([[3.0, 4, 8, 9]])
    for dtype in (np.uint8, np.float32):
        image = (smooth() / (255 if dtype == np.float32 else 1)).astype(dtype)
        image.flags.writeable = False
        view = image[:, ::-1][:, ::-1]
        keys = [Key(1, v, 0) for v in range(9)] + [Key(2, 0, 0), Key(1, 0, 1), Key(1, 0, 0, 1)]
        outs = [transform.apply({'image': image, 'boxes': boxes}, key) for key in keys]
        assert all(o['image'].shape == image.shape and o['image'].dtype == dtype for o in outs)
        assert len({o['image'].tobytes() for o in outs}) > 1
        if name != 'rand_augment':
            assert all(o['boxes'] is boxes for o in outs)
        if dtype == np.float32:
            assert all(o['image'].min() >= 0 and o['image'].max() <= 1 for o in outs)
        for key, out in zip(keys, outs, strict=True):
            again = transform.apply({'image': view}, key)['image']
            np.testing.assert_array_equal(again, out['image'])


@pytest.mark.parametrize('name', PHOTOMETRIC)
@pytest.mark.parametrize('shape', [(1, 1, 3), (1, 5, 3), (2, 2, 1), (3, 1, 1)])
def test_colour_transforms_take_odd_sizes(name, shape):
    transform = getattr(transforms, name)(**PHOTOMETRIC[name])
    image = np.full(shape, 100, np.uint8)
    for visit in range(10):
        if name == 'pca_noise' and shape[2] == 1:
            with pytest.raises(CanonError, match="pca_noise takes images of 3 channels, example 6 has 'image' of 1"):
                transform.apply({'image': image}, Key(0, visit, 6))
        else:
            assert transform.apply({'image': image}, Key(0, visit, 6))['image'].shape == shape


# --- RandAugment -----------------------------------------------------------------------------------------------------


def pillow_warp(image, coefficients):
    pillow = Image.fromarray(image)
    return pillow.transform(
        pillow.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
    )


@pytest.mark.parametrize('magnitude', [0, 3, 10])
@pytest.mark.parametrize('sign', [-1, 1])
@pytest.mark.parametrize('name', transforms.randaugment.OPERATIONS)
def test_each_operation_is_pillows(name, sign, magnitude):
    image = smooth()
    pillow, a = Image.fromarray(image), magnitude / 10
    factor, (height, width) = 1 + sign * 0.9 * a, image.shape[:2]
    reach = sign * a * 150 / 331
    expected = {
        'identity': lambda: pillow,
        'auto_contrast': lambda: ImageOps.autocontrast(pillow),
        'equalize': lambda: ImageOps.equalize(pillow),
        'solarize': lambda: ImageOps.solarize(pillow, 256 * (1 - a)),
        'posterize': lambda: ImageOps.posterize(pillow, 8 - round(4 * a)),
        'color': lambda: ImageEnhance.Color(pillow).enhance(factor),
        'contrast': lambda: ImageEnhance.Contrast(pillow).enhance(factor),
        'brightness': lambda: ImageEnhance.Brightness(pillow).enhance(factor),
        'sharpness': lambda: ImageEnhance.Sharpness(pillow).enhance(factor),
        'rotate': lambda: pillow.rotate(sign * 30 * a, Image.Resampling.BILINEAR, fillcolor=(128,) * 3),
        'shear_x': lambda: pillow_warp(image, (1, -sign * 0.3 * a, 0, 0, 1, 0)),
        'shear_y': lambda: pillow_warp(image, (1, 0, 0, -sign * 0.3 * a, 1, 0)),
        'translate_x': lambda: pillow_warp(image, (1, 0, -reach * width, 0, 1, 0)),
        'translate_y': lambda: pillow_warp(image, (1, 0, 0, 0, 1, -reach * height)),
    }[name]()
    augment = transforms.rand_augment(1, magnitude, operations=(name,))
    visit = next(v for v in range(50) if _sign(Key(0, v, 0)) == sign)
    out = augment.apply({'image': image}, Key(0, visit, 0))['image']
    difference = abs(out - np.asarray(expected).astype(int)).max(-1)
    if name in ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y'):
        border = _at_the_border(name, sign * a, image.shape[:2])
        assert difference[~border].max() <= 1
        assert border.mean() < 0.2
    else:
        assert difference.max() <= 1


def _sign(key):
    generator = rng(key)
    generator.integers(1, size=1)
    return 2 * generator.integers(2, size=1)[0] - 1


def _at_the_border(name, amount, size):
    """Within a pixel of the image's edge, where Pillow repeats the outermost pixel and we mix it with the fill."""
    matrix = transforms.randaugment._WARPS[name](amount, *size)
    inner = np.zeros(size, np.uint8)
    inner[1:-1, 1:-1] = 1
    outer = np.ones((size[0] + 2, size[1] + 2), np.uint8)
    inside = geometry.warp_nearest(inner, matrix, size)
    reach = geometry.warp_nearest(outer, matrix @ geometry.translation(-1, -1), size)
    return (inside == 0) & (reach == 1)


def test_operations_are_drawn_uniformly_and_in_the_given_number():
    """Marked by what they do to the boxes: of three warps, each alone and all pairs occur."""
    names = ('translate_x', 'translate_y', 'identity')
    augment = transforms.rand_augment(2, 10, operations=names)
    image, box = np.zeros((100, 100, 3), np.uint8), np.array([[49.0, 49, 51, 51]])
    reach, counts_of_operations = 100 * 150 / 331, {}
    for visit in range(1800):
        out = augment.apply({'image': image, 'boxes': box}, Key(0, visit, 0))['boxes']
        moved = tuple(np.rint((out[0, :2] - 49) / reach).astype(int).tolist()) if len(out) else 'out of sight'
        counts_of_operations[moved] = counts_of_operations.get(moved, 0) + 1
    share = {moved: n / 1800 for moved, n in counts_of_operations.items()}
    assert abs(share['out of sight'] - 1 / 9) < 0.03  # twice the same way: 2/9 of the draws, half of their signs
    assert abs(share[0, 0] - (1 / 9 + 1 / 9)) < 0.04  # nothing twice, or there and back
    for moved in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        assert abs(share[moved] - 2 / 9 / 4) < 0.02
    for moved in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert abs(share[moved] - 1 / 9) < 0.03


# --- cutout and mixup ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14), st.integers(0, 99))
def test_cutout_is_one_square_that_contains_its_middle(size, height, width, visit):
    image = np.full((height, width, 3), 9, np.uint8)
    out = transforms.cutout(size, value=3).apply({'image': image}, Key(0, visit, 0))['image']
    rows, columns = np.nonzero(out[..., 0] == 3)
    assert len(rows)
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    for places, side in ((rows, height), (columns, width)):
        span = np.ptp(places) + 1
        assert span == size or places.min() == 0 or places.max() == side - 1
        assert span <= size


def test_the_centre_of_cutout_is_any_pixel():
    image = np.full((5, 7, 1), 9, np.uint8)
    places = [
        np.flatnonzero(transforms.cutout(1).apply({'image': image}, Key(0, v, 0))['image'] == 0) for v in range(900)
    ]
    counts = np.bincount(np.concatenate(places), minlength=35)
    assert len(counts) == 35
    assert counts.min() > 8


def source(n: int = 16) -> Arrays:
    return Arrays({'image': picture((n, 6, 7, 3)), 'label': np.arange(n) % 5})


def test_mixup_is_the_papers_equation():
    data = source()
    mixed = Batches(data, 8, seed=3, transforms=(transforms.mixup(5, alpha=0.7),))[1]
    ids, visits = Batches(data, 8, seed=3)._order(np.arange(8, 16))
    shares = []
    for row, (i, visit) in enumerate(zip(ids, visits, strict=True)):
        generator = rng(Key(3, int(visit), int(i)))
        generator.random()
        share, j = generator.beta(0.7, 0.7), int(generator.integers(16))
        a, b = data[int(i)], data[j]
        expected = share * a['image'] + (1 - share) * b['image'].astype(float)
        assert abs(mixed['image'][row] - expected).max() <= 0.501
        hot = np.eye(5)
        np.testing.assert_allclose(
            mixed['label'][row], share * hot[a['label']] + (1 - share) * hot[b['label']], atol=1e-6
        )
        shares.append(share)
    assert mixed['image'].dtype == np.uint8
    assert mixed['label'].dtype == np.float32
    assert len(set(shares)) == 8


def test_mixups_partner_has_gone_through_the_links_before():
    """Flipped for certain and made float before mixing: the partner, too; mixed twice, it is mixed itself."""
    data = source()
    links = (transforms.to_float(), transforms.random_flip(p=1.0), transforms.mixup(5))
    batch = Batches(data, 4, transforms=links)[0]
    ids, visits = Batches(data, 4)._order(np.arange(4))
    for row, (i, visit) in enumerate(zip(ids, visits, strict=True)):
        generator = rng(Key(0, int(visit), int(i), 1))
        generator.random()
        share, j = generator.beta(0.2, 0.2), int(generator.integers(16))
        expected = (share * data[int(i)]['image'] + (1 - share) * data[j]['image'].astype(float))[:, ::-1] / 255
        np.testing.assert_allclose(batch['image'][row], expected, atol=1e-5)
    twice = Batches(data, 16, transforms=(*links, transforms.mixup(5, alpha=5)))[0]
    np.testing.assert_allclose(twice['label'].sum(-1), 1, atol=1e-5)
    assert ((twice['label'] > 1e-3).sum(-1) > 2).any()


def test_mixup_with_a_probability_and_in_an_evaluation():
    data = source()
    rows = Batches(data, 400, transforms=(transforms.mixup(5, alpha=1.0, p=0.5),))[0]['label']
    assert 130 < ((rows > 0).sum(-1) == 1).sum() < 290
    once = [Once(data, 16, (transforms.mixup(5),))[0]['image'] for _ in range(2)]
    np.testing.assert_array_equal(*once)


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'name': 'mixup', 'num_classes': 3, 'alpha': 0}, 'alpha=0 is not positive'),
        ({'name': 'cutout', 'size': 0}, 'cutout: size=0'),
        ({'name': 'colour_shift', 'amount': -1}, 'colour_shift: amount=-1 is negative'),
        ({'name': 'colour_jitter', 'hue': -0.1}, 'colour_jitter: hue=-0.1 is negative'),
        ({'name': 'random_blur', 'sigma': (0, 1)}, 'sigma=(0, 1)'),
        ({'name': 'rand_augment', 'magnitude': 11}, 'magnitude=11 in [0, 10]'),
        ({'name': 'rand_augment', 'operations': ('blur',)}, "no operation is called 'blur'"),
        ({'name': 'pca_noise', 'deviations': (1.0, 2.0)}, 'pca_noise'),
    ],
)
def test_wrong_arguments_are_refused(spec, message):
    with pytest.raises(UsageError) as error:
        transforms.make_transforms(spec)
    assert message in str(error.value)


def test_examples_that_cannot_be_mixed_or_coloured_are_named():
    ragged = [{'image': np.zeros((4, 4 + i, 3), np.uint8), 'label': np.asarray(i)} for i in range(9)]
    mix = transforms.mixup(9)
    with pytest.raises(CanonError, match=r"mixup: example 8 has 'image' of uint8 \(4, 12, 3\) and . of uint8"):
        _ = [mix.apply(ragged[8], Key(0, visit, 8), ragged) for visit in range(9)]
    with pytest.raises(CanonError, match=r'example \d: label 8 is not in 0\.\.2'):
        transforms.mixup(3, p=0).apply(ragged[8], Key(0, 0, 8), ragged)
    with pytest.raises(CanonError, match='belongs to Batches'):
        chain.apply_chain((mix,), ragged[0], Key(0, 0, 0))
    with pytest.raises(CanonError, match='deterministic'):
        chain.Mapped(ragged, (mix,))
    with pytest.raises(CanonError, match="colour_jitter takes images of 1 or 3 channels, example 0 has 'image' of 4"):
        transforms.colour_jitter().apply({'image': np.zeros((4, 4, 4), np.uint8)}, Key(0, 0, 0))
    with pytest.raises(CanonError, match='int64'):
        transforms.pca_noise().apply({'image': np.zeros((4, 4, 3), np.int64)}, Key(0, 0, 0))
