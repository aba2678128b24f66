"""Transforms of detectors: against loops over the same draws, Python's own HSV, and distributions of the papers."""

import colorsys
import doctest
import math

import numpy as np
import pytest

from canon.data import Key, rng, transforms
from canon.data.images import geometry
from canon.data.pipeline import chain
from canon.errors import CanonError, UsageError

H, W = 60, 90


def located():
    """An image whose pixels tell where they are: red is x, green is y."""
    y, x = np.mgrid[:H, :W]
    image = np.stack([x, y, np.full_like(x, 200)], -1).astype(np.uint8)
    boxes = np.array([[10, 8, 40, 50], [60, 30, 85, 55], [30, 2, 36, 8]], np.float32)
    fields = {'labels': np.arange(3), 'difficult': np.array([0, 1, 0], bool), 'crowd': np.array([0, 0, 1], bool)}
    fields |= {'area': np.float32([900, 500, 30]), 'original_size': np.int32([H, W])}
    return {'image': image, 'boxes': boxes, **fields}


def uniform_distance(values) -> float:
    """Distance of Kolmogorov and Smirnov to the uniform distribution on 0..1."""
    values = np.sort(values)
    return abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()


# --- canvases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('size', [(100, 100), (40, 200), (33, 31)])
def test_a_letterbox_keeps_the_aspect_and_fills_the_rest(size):
    example = located()
    out = transforms.letterbox(size, value=(1, 2, 3)).apply(example, Key(0, 0, 0))
    scale_x, scale_y, shift_x, shift_y = out['placement']
    inner = round(min(size[0] / H, size[1] / W) * H), round(min(size[0] / H, size[1] / W) * W)
    assert out['image'].shape == (*size, 3)
    assert (scale_x, scale_y) == (np.float32(inner[1] / W), np.float32(inner[0] / H))
    assert (shift_y, shift_x) == ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)
    assert inner[0] == size[0] or inner[1] == size[1]
    filled = (out['image'] == (1, 2, 3)).all(-1)
    top, left = int(shift_y), int(shift_x)
    filled[top : top + inner[0], left : left + inner[1]] = True
    assert filled.all()
    expected = geometry.resample(example['image'], inner, 'bilinear')
    np.testing.assert_array_equal(out['image'][top : top + inner[0], left : left + inner[1]], expected)


def test_placement_is_composed_over_the_chain():
    """The boxes on the canvas are the original ones by 'placement', whatever scales and shifts went before."""
    for links in (
        [transforms.resize((47, 81))],
        [transforms.resize_short(40, longest=55), transforms.pad((64, 64), position='corner')],
        [transforms.letterbox(50), transforms.resize((75, 20))],
        [transforms.resize_short(90), transforms.center_crop((90, 130)), transforms.letterbox(60, position='corner')],
        [transforms.letterbox(70), transforms.random_translate(0.1)],
    ):
        example = located()
        out = chain.apply_chain(links, example, Key(0, 1, 2))
        scale, shift = out['placement'][[0, 1, 0, 1]], out['placement'][[2, 3, 2, 3]]
        expected = example['boxes'].astype(np.float64) * scale + shift
        expected = geometry.clip_boxes(expected, out['image'].shape[:2])
        np.testing.assert_allclose(out['boxes'], expected, atol=1e-4)
        assert out['placement'].dtype == np.float32


def test_what_is_turned_or_mirrored_has_no_placement():
    example = transforms.letterbox(50).apply(located(), Key(0, 0, 0))
    for move in (transforms.random_rotation(20), transforms.random_flip(p=1.0)):
        assert np.isnan(move.apply(example, Key(0, 0, 0))['placement']).all()


def test_a_random_crop_before_the_first_placement_leaves_none():
    """A random crop records no placement, so that the resize after it would map boxes to a wrong place."""
    for last in (transforms.resize(40), transforms.letterbox(40), transforms.resize_short(40)):
        assert np.isfinite(last.apply(located(), Key(0, 0, 0))['placement']).all()
        for first in (transforms.random_crop((20, 30)), transforms.yolo_jitter(33), transforms.expand(p=1.0)):
            out = chain.apply_chain([first, last], located(), Key(0, 1, 2))
            assert np.isnan(out['placement']).all()


def test_only_images_of_detectors_get_a_placement():
    image = {'image': located()['image']}
    assert set(transforms.resize(20).apply(image, Key(0, 0, 0))) == {'image'}
    recorded = transforms.record_placement().apply(image, Key(0, 0, 0))
    out = transforms.resize((30, 30)).apply(recorded, Key(0, 0, 0))
    np.testing.assert_allclose(out['placement'], [30 / W, 30 / H, 0, 0], rtol=1e-6)
    assert out['original_size'].tolist() == [H, W]


@pytest.mark.parametrize(
    ('shape', 'expected'),
    [((375, 500), (600, 800)), ((333, 500), (600, 900)), ((200, 500), (400, 1000)), ((500, 100), (1000, 200))],
)
def test_the_longer_side_is_bounded(shape, expected):
    image = np.zeros((*shape, 3), np.uint8)
    out = transforms.resize_short(600, longest=1000).apply({'image': image}, Key(0, 0, 0))
    assert out['image'].shape == (*expected, 3)


@pytest.mark.parametrize('dtype', [np.uint8, bool, np.int32])
def test_masks_that_are_scaled_and_shifted_are_warped_as_any(dtype):
    """The separable path of `warp_nearest` against the nearest centre, pixel by pixel."""
    generator = np.random.default_rng(0)
    values = generator.integers(0, 2 if dtype is bool else 9, (2, 9, 13)).astype(dtype)
    for _ in range(20):
        scales = generator.uniform(0.3, 3, 2) * generator.choice([-1, 1], 2)
        matrix = geometry.translation(*generator.uniform(-6, 20, 2)) @ geometry.scaling(*scales)
        out = geometry.warp_nearest(values, matrix, (11, 7), 1)
        for row in range(11):
            for column in range(7):
                x = math.floor((column + 0.5 - matrix[0, 2]) / matrix[0, 0])
                y = math.floor((row + 0.5 - matrix[1, 2]) / matrix[1, 1])
                expected = values[:, y, x] if 0 <= x < 13 and 0 <= y < 9 else [1, 1]
                np.testing.assert_array_equal(out[:, row, column], expected)
        assert out.dtype == dtype


# --- SSD -------------------------------------------------------------------------------------------------------------


def crop_by_loop(example, key, overlaps, trials):
    """The patch of `min_iou_crop` from its draws, one patch after the other, as SSD's code samples them."""
    draws = rng(key)
    chance, numbers = draws.random(), draws.random((4, len(overlaps) + 1, trials))
    patches = []
    for s, bound in enumerate((*overlaps, 0.0)):
        for t in range(trials):
            a, b, c, d = numbers[:, s, t].tolist()
            scale = 0.3 + a * 0.7
            low, high = max(0.5, scale**2), min(2.0, 1 / scale**2)
            root = math.sqrt(low + b * (high - low))
            width, height = W * scale * root, H * scale / root
            x, y = c * (W - width), d * (H - height)
            best = 0.0
            for x0, y0, x1, y1 in example['boxes'].tolist():
                shared = max(min(x + width, x1) - max(x, x0), 0) * max(min(y + height, y1) - max(y, y0), 0)
                best = max(best, shared / (width * height + (x1 - x0) * (y1 - y0) - shared))
            if best >= bound:
                patches.append((int(x), int(y), round(x + width), round(y + height)))
                break
    choice = int(chance * (len(patches) + 1))
    return patches[choice - 1] if choice else (0, 0, W, H)


def test_patches_are_those_of_a_loop_and_keep_objects_by_their_centres():
    overlaps, example, kept = (0.1, 0.3, 0.5, 0.7, 0.9), located(), set()
    crop = transforms.min_iou_crop(overlaps, trials=50)
    for visit in range(40):
        key = Key(5, visit, 1)
        out = crop.apply(example, key)
        x0, y0, x1, y1 = crop_by_loop(example, key, overlaps, 50)
        np.testing.assert_array_equal(out['image'], example['image'][y0:y1, x0:x1])
        boxes, rows = [], []
        for i, (a, b, c, d) in enumerate(example['boxes'].tolist()):
            if (x0, y0, x1, y1) == (0, 0, W, H) or (x0 <= (a + c) / 2 < x1 and y0 <= (b + d) / 2 < y1):
                boxes.append([max(a, x0) - x0, max(b, y0) - y0, min(c, x1) - x0, min(d, y1) - y0])
                rows.append(i)
        np.testing.assert_allclose(out['boxes'], np.reshape(boxes, (-1, 4)), atol=1e-5)
        for name in ('labels', 'difficult', 'crowd', 'area'):
            np.testing.assert_array_equal(out[name], example[name][rows])
        kept.add(tuple(rows))
    assert len(kept) > 3


def test_every_sampler_and_the_whole_image_are_as_likely():
    """200 trials nearly always find a patch that overlaps the whole image by 0.9: a seventh of all stay whole."""
    example = located() | {'boxes': np.array([[0, 0, W, H]], np.float32)}
    example = {k: v[:1] if k in ('labels', 'difficult', 'crowd', 'area') else v for k, v in example.items()}
    crop = transforms.min_iou_crop(trials=200)
    areas = np.array([np.prod(crop.apply(example, Key(0, v, 0))['image'].shape[:2]) for v in range(700)]) / (H * W)
    assert abs((areas == 1).mean() - 1 / 7) < 0.05
    # The patch of a bound b covers at least b of such an object, and its size is uniform in scale otherwise.
    assert (areas >= 0.89).mean() > 2 / 7 - 0.05
    assert (areas < 0.3).mean() > 0.05
    assert areas.min() >= 0.08


def test_an_image_without_objects_stays_whole():
    example = {'image': located()['image'], 'boxes': np.zeros((0, 4), np.float32), 'labels': np.zeros(0, int)}
    for visit in range(10):
        out = transforms.min_iou_crop().apply(example, Key(0, visit, 0))
        np.testing.assert_array_equal(out['image'], example['image'])
    grown = transforms.expand(p=1.0).apply(example, Key(0, 0, 0))
    assert grown['boxes'].shape == (0, 4)


def test_expanded_images_lie_anywhere_on_a_canvas_of_the_mean():
    example, factors, places = located(), [], []
    expand = transforms.expand(limit=4, p=1.0)
    for visit in range(400):
        out = expand.apply(example, Key(0, visit, 0))
        height, width = out['image'].shape[:2]
        left, top = (out['boxes'][0, :2] - example['boxes'][0, :2]).astype(int)
        np.testing.assert_array_equal(out['image'][top : top + H, left : left + W], example['image'])
        np.testing.assert_allclose(out['boxes'] - example['boxes'], np.tile([left, top], (3, 2)))
        assert (out['image'] == (123, 117, 104)).all(-1).sum() == height * width - H * W
        assert abs(width / W - height / H) < 0.05
        factors.append((width / W - 1) / 3)
        if width > 2 * W:
            places += [left / (width - W), top / (height - H)]
    assert uniform_distance(factors) < 0.09  # 99.5 % of 400
    assert uniform_distance(places) < 0.09
    same = transforms.expand(p=0.0).apply(example, Key(0, 0, 0))
    assert same is example
    unit = {'image': np.zeros((2, 2, 3), np.float32)}
    out = next(o for v in range(99) if (o := expand.apply(unit, Key(0, v, 0))['image']).shape != (2, 2, 3))
    np.testing.assert_allclose(out.max((0, 1)), np.array([123, 117, 104]) / 255, rtol=1e-6)


def change_hsv(pixels, turn, saturation, value=1.0):
    """Python's colorsys on floats [N, 3] in 0..1."""
    out = []
    for pixel in pixels:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        out.append(colorsys.hsv_to_rgb((h + turn) % 1, min(s * saturation, 1), min(v * value, 1)))
    return np.array(out)


def test_ssd_changes_colours_in_two_orders():
    """Against a float64 loop with Python's HSV over the same draws; floats, so that nothing is rounded between."""
    image = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    move, orders = transforms.ssd_photometric(), set()
    for visit in range(60):
        key = Key(2, visit, 0)
        draws = rng(key)
        first, *chances = draws.random(5) < 0.5
        shift, turn = draws.uniform(-32, 32), draws.uniform(-36, 36)
        factor, chroma = draws.uniform(0.5, 1.5), draws.uniform(0.5, 1.5)
        x = image.reshape(-1, 3).astype(np.float64)
        if chances[0]:
            x = np.clip(x + shift / 255, 0, 1)
        if chances[1] and first:
            x = np.clip(x * factor, 0, 1)
        if chances[2]:
            x = change_hsv(x, 0, chroma)
        if chances[3]:
            x = change_hsv(x, turn / 360, 1)
        if chances[1] and not first:
            x = np.clip(x * factor, 0, 1)
        out = move.apply({'image': image}, key)['image']
        np.testing.assert_allclose(out.reshape(-1, 3), x, atol=2e-5)
        levels = move.apply({'image': np.rint(255 * image).astype(np.uint8)}, key)['image']
        assert levels.dtype == np.uint8
        assert abs(levels.reshape(-1, 3) / 255 - x).max() < 0.02  # rounded between the changes
        orders.add((first, *chances))
    assert len(orders) > 20


# --- YOLO ------------------------------------------------------------------------------------------------------------


def test_exposure_and_saturation_are_factors_of_hsv():
    image = np.random.default_rng(1).random((3, 4, 3)).astype(np.float32)
    move, factors = transforms.random_hsv(hue=10), []
    for visit in range(300):
        key = Key(0, visit, 0)
        draws = rng(key)
        bound = draws.uniform(1, (1.5, 1.5))
        saturation, exposure = np.where(draws.random(2) < 0.5, bound, 1 / bound)
        turn = draws.uniform(-10, 10) / 360
        factors += [saturation, exposure]
        if visit < 20:
            out = move.apply({'image': image}, key)['image']
            expected = change_hsv(image.reshape(-1, 3).astype(np.float64), turn, saturation, exposure)
            np.testing.assert_allclose(out.reshape(-1, 3), expected, atol=2e-5)
    factors = np.array(factors)
    assert 0.45 < (factors > 1).mean() < 0.55
    assert uniform_distance((np.maximum(factors, 1 / factors) - 1) / 0.5) < 0.07
    grey = np.full((2, 2, 1), 100, np.uint8)
    assert {int(move.apply({'image': grey}, Key(0, v, 0))['image'][0, 0, 0]) for v in range(20)} != {100}


def test_jitter_moves_each_side_by_a_fifth_at_most():
    """The window, read back from the boxes, is padded and resized by hand."""
    example = {'image': located()['image'], 'boxes': np.array([[40, 25, 50, 35]], np.float32)}
    move, moves = transforms.yolo_jitter((H, W), value=7, method='nearest'), []
    for visit in range(200):
        out = move.apply(example, Key(0, visit, 0))
        draws = rng(Key(0, visit, 0)).uniform(-0.2, 0.2, 4)
        left, top, right, bottom = (round(m) for m in draws * (W, H, W, H))
        window = np.pad(example['image'], ((H, H), (W, W), (0, 0)), constant_values=7)
        window = window[H + top : 2 * H + bottom, W + left : 2 * W + right]
        np.testing.assert_array_equal(out['image'], geometry.resample(window, (H, W), 'nearest'))
        scale = np.array([W / (W + right - left), H / (H + bottom - top)])
        expected = (example['boxes'].reshape(2, 2) - (left, top)) * scale
        np.testing.assert_allclose(out['boxes'].reshape(2, 2), expected, rtol=1e-5)
        moves.append(draws)
    assert uniform_distance(np.ravel(moves) / 0.4 + 0.5) < 0.06


# --- examples and bad input ------------------------------------------------------------------------------------------


def test_examples_of_docstrings():
    result = doctest.testmod(transforms.detection)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'name': 'letterbox', 'size': 8, 'position': 'top'}, "position='top'"),
        ({'name': 'pad', 'size': 8, 'position': 'top'}, "position='top'"),
        ({'name': 'resize_short', 'size': 8, 'longest': 4}, 'longest=4 is smaller than size=8'),
        ({'name': 'expand', 'limit': 0.5}, 'limit=0.5 must be at least 1'),
        ({'name': 'min_iou_crop', 'scale': (0.5, 1.5)}, 'scale=(0.5, 1.5) must be within'),
        ({'name': 'min_iou_crop', 'overlaps': (0.5, 2)}, 'overlaps=(0.5, 2) must be within 0..1'),
        ({'name': 'ssd_photometric', 'contrast': (2, 1)}, 'contrast=(2, 1) must be (low, high)'),
        ({'name': 'yolo_jitter', 'size': 8, 'jitter': 0.5}, 'jitter=0.5 is not in [0, 0.5)'),
        ({'name': 'random_hsv', 'exposure': 0.5}, 'exposure=0.5 must be at least 1'),
    ],
)
def test_wrong_arguments_are_refused(spec, message):
    with pytest.raises(UsageError) as error:
        transforms.make_transforms(spec)
    assert message in str(error.value)


def test_a_colour_of_other_channels_is_named():
    with pytest.raises(CanonError, match=r'value=\(1, 2, 3\) does not fit example 4'):
        transforms.pad(4, value=(1, 2, 3)).apply({'image': np.zeros((2, 2, 1), np.uint8)}, Key(0, 0, 4))
