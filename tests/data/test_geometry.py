"""What moves the pixels of an image moves its boxes and masks alike; each transform against a reference of its own."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from canon.data import Arrays, Batches, Key, Transform, rng, transforms
from canon.data.images import geometry
from canon.errors import CanonError, UsageError

H, W = 40, 56
BOX = (20, 12, 34, 27)
MOVES = {
    'resize': (transforms.resize, dict(size=(61, 33))),
    'resize_short': (transforms.resize_short, dict(size=31)),
    'pad': (transforms.pad, dict(size=(64, 61))),
    'center_crop': (transforms.center_crop, dict(size=(30, 45))),
    'random_crop': (transforms.random_crop, dict(size=(33, 41), padding=4)),
    'random_shift': (transforms.random_shift, dict(pixels=9)),
    'random_flip': (transforms.random_flip, dict()),
    'scale_jitter': (transforms.scale_jitter, dict(size=36, low=40, high=70)),
    'random_resized_crop': (transforms.random_resized_crop, dict(size=(48, 40), scale=(0.5, 1))),
    'random_resized_crop, bicubic': (transforms.random_resized_crop, dict(size=48, scale=(0.5, 1), method='bicubic')),
    'random_rotation': (transforms.random_rotation, dict(degrees=180)),
    'random_scale': (transforms.random_scale, dict(low=0.6, high=1.8)),
    'random_translate': (transforms.random_translate, dict(share=0.3)),
    'random_affine': (
        transforms.random_affine,
        dict(degrees=40, translate=0.1, scale=(0.7, 1.4), shear=0.3),
    ),
    'random_perspective': (transforms.random_perspective, dict(distortion=0.5, p=1.0)),
    'resize_short, longest': (transforms.resize_short, dict(size=61, longest=70)),
    'pad, corner': (transforms.pad, dict(size=(64, 61), position='corner', value=9)),
    'letterbox': (transforms.letterbox, dict(size=(50, 97), value=0)),
    'letterbox, corner': (transforms.letterbox, dict(size=(97, 50), value=0, position='corner')),
    'expand': (transforms.expand, dict(limit=3, p=0.8, value=0)),
    'min_iou_crop': (transforms.min_iou_crop, dict()),
    'yolo_jitter': (transforms.yolo_jitter, dict(size=(64, 51), value=0)),
    'text_distort': (transforms.text_distort, dict()),
    'text_stretch': (transforms.text_stretch, dict()),
    'text_perspective': (transforms.text_perspective, dict(amount=0.4)),
    'random_slant': (transforms.random_slant, dict(shear=0.6, fill=0)),
    'rand_augment': (transforms.rand_augment, dict(count=1, magnitude=8)),
}


@pytest.fixture(params=MOVES)
def move(request) -> Transform:
    make, arguments = MOVES[request.param]
    return make(**arguments)


def scene(channels: int = 3, dtype=np.uint8):
    """A bright rectangle on black with its box, its mask and a segmentation that has it as class 2."""
    x0, y0, x1, y1 = BOX
    inside = np.zeros((H, W), bool)
    inside[y0:y1, x0:x1] = True
    return {
        'image': (inside[..., None] * np.ones(channels) * (255 if dtype == np.uint8 else 1)).astype(dtype),
        'boxes': np.array([BOX], np.float32),
        'labels': np.array([7]),
        'masks': inside[None],
        'segmentation': (2 * inside[..., None]).astype(np.uint8),
    }


def around(mask) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_boxes_masks_and_pixels_move_together(move, dtype):
    """The box is the box around the warped mask to a pixel, and the mask is where the bright pixels are."""
    compared = 0
    for visit in range(40):
        example = scene(dtype=dtype)
        before = {k: v.copy() for k, v in example.items()}
        out = move.apply(example, Key(3, visit, 5))
        assert all(np.array_equal(example[k], before[k]) for k in before)
        size = out['image'].shape[:2]
        assert out['image'].dtype == dtype
        assert out['masks'].shape[1:] == size == out['segmentation'].shape[:2]
        assert out['masks'].dtype == bool
        assert len(out['boxes']) == len(out['labels']) == len(out['masks'])
        if not len(out['boxes']):
            continue
        (mask,), segmentation = out['masks'], out['segmentation'][..., 0]
        assert out['boxes'].dtype == np.float32
        assert (out['boxes'] >= 0).all()
        assert (out['boxes'] <= [*size[::-1], *size[::-1]]).all()
        np.testing.assert_array_equal(segmentation == 2, mask)
        if mask.any():
            box, shown = out['boxes'][0], around(mask)
            assert (shown[:2] >= box[:2] - 1).all()
            assert (shown[2:] <= box[2:] + 1).all()
            cut = (box[:2] <= 0).any() or (box[2:] >= size[::-1]).any()
            if not cut:  # of a turned rectangle the border may hide the corner that the box goes round
                compared += 1
                assert abs(shown - box).max() <= 1, visit
    assert compared >= 5


@pytest.mark.parametrize('name', [name for name in MOVES if name != 'rand_augment'])  # which changes colours
def test_bright_pixels_are_the_mask(name):
    make, arguments = MOVES[name]
    move = make(**arguments)
    for visit in range(25):
        out = move.apply(scene(), Key(3, visit, 5))
        if len(out['masks']):
            image, (mask,) = out['image'][..., 0].astype(float), out['masks']
            assert abs((image > 127) ^ mask).sum() <= 0.1 * mask.sum() + 12


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(8, 30), st.floats(8, 20))
def test_a_bright_pixel_goes_where_its_centre_goes(seed, x, y):
    """The centre of mass of a warped blob is the moved centre of the blob, to a tenth of a pixel."""
    generator = np.random.default_rng(seed)
    x, y = int(x), int(y)
    image = np.zeros((30, 40, 1), np.float32)
    image[y, x] = 1
    turn = geometry.rotation(generator.uniform(-180, 180))
    matrix = geometry.recentre(turn @ geometry.scaling(3, 3), x + 0.5, y + 0.5)
    matrix = geometry.translation(*generator.uniform(-3, 3, 2)) @ matrix
    out = geometry.warp(image, matrix, (30, 40))[..., 0].astype(float)
    rows, columns = np.mgrid[:30, :40] + 0.5
    centre = np.array([(out * columns).sum(), (out * rows).sum()]) / out.sum()
    np.testing.assert_allclose(centre, geometry.transform_points(np.array([x + 0.5, y + 0.5]), matrix), atol=0.1)


def test_a_warp_is_bilinear_interpolation_at_the_point_it_comes_from():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (23, 31, 3), np.uint8)
    corners = np.array([[0, 0], [31, 0], [31, 23], [0, 23]], float)
    matrix = geometry.perspective(corners, corners + generator.uniform(-4, 4, (4, 2)))
    out = geometry.warp(image, matrix, (25, 29), fill=9)
    back = np.linalg.inv(matrix)
    padded = np.pad(image.astype(float), ((60, 60), (60, 60), (0, 0)), constant_values=9)
    for row in range(25):
        for column in range(29):
            u, v = geometry.transform_points(np.array([column + 0.5, row + 0.5]), back) - 0.5
            i, j = math.floor(v), math.floor(u)
            a, b = v - i, u - j
            patch = padded[i + 60 : i + 62, j + 60 : j + 62]
            expected = (1 - a) * ((1 - b) * patch[0, 0] + b * patch[0, 1]) + a * (
                (1 - b) * patch[1, 0] + b * patch[1, 1]
            )
            assert abs(out[row, column] - expected).max() < 0.52


def test_matrices_map_points_as_documented():
    square = np.array([[0, 0], [10, 0], [10, 6], [0, 6]], float)
    for moved in (square[[1, 2, 3, 0]], np.array([[1, 2], [9, 1], [8, 7], [2, 5.0]])):
        np.testing.assert_allclose(geometry.transform_points(square, geometry.perspective(square, moved)), moved)
    quarter = geometry.recentre(geometry.rotation(90), 5, 5)  # counter-clockwise: right goes up
    np.testing.assert_allclose(geometry.transform_points(np.array([9.0, 5.0]), quarter), [5, 1], atol=1e-12)
    window = geometry.box_to_canvas((2, 1, 6, 4), (9, 8))
    np.testing.assert_allclose(
        geometry.transform_points(np.array([[2, 1], [6, 4], [4, 1]]), window), [[0, 0], [8, 9], [4, 0]]
    )


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_quarter_turns_are_exact(turns):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (17, 17, 3), np.uint8)
    masks = generator.integers(0, 9, (2, 17, 17))
    matrix = geometry.recentre(geometry.rotation(90 * turns), 8.5, 8.5)
    np.testing.assert_array_equal(geometry.warp(image, matrix, (17, 17)), np.rot90(image, turns))
    np.testing.assert_array_equal(geometry.warp_nearest(masks, matrix, (17, 17)), np.rot90(masks, turns, (1, 2)))


def test_masks_are_cropped_flipped_and_padded_to_the_pixel():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (9, 12, 1), np.uint8)
    example = {'image': image, 'segmentation': image[..., 0].copy()}
    chain = (transforms.random_flip(p=1.0), transforms.random_crop((8, 9), padding=2), transforms.pad((11, 13)))
    for visit in range(20):
        out = example
        for transform in chain:
            out = transform.apply(out, Key(0, visit, 0))
        seen = out['segmentation'] != 255  # what came in is void, and 0 in the image
        np.testing.assert_array_equal(out['image'][..., 0][seen], out['segmentation'][seen])
        assert not out['image'][..., 0][~seen].any() or (image == 255).any()


def test_boxes_outside_the_image_are_dropped_with_their_fields():
    example = {
        'image': np.zeros((10, 10, 3), np.uint8),
        'boxes': np.array([[0, 0, 2, 2], [4, 4, 6, 6], [1, 4, 4, 6]], np.float32),
        'labels': np.array([10, 11, 12]),
        'names': np.array(['a', 'b', 'c']),
        'masks': np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((10, 10), np.uint8),
    }
    crop = transforms.center_crop(4, along=dict(per_box=('labels', 'names')))  # shows 3..7
    out = crop.apply(example, Key(0, 0, 0))
    np.testing.assert_array_equal(out['boxes'], [[1, 1, 3, 3], [0, 1, 1, 3]])
    assert out['labels'].tolist() == [11, 12]
    assert out['names'].tolist() == ['b', 'c']
    assert out['masks'][:, 0, 0].tolist() == [1, 2]
    strict = transforms.center_crop(4, along=dict(per_box='labels', min_visible=0.34))  # a third is not enough
    assert strict.apply(example, Key(0, 0, 0))['labels'].tolist() == [11]
    whole = transforms.center_crop(4, along=dict(min_visible=1.0))  # it dropped every box
    assert whole.apply(example, Key(0, 0, 0))['labels'].tolist() == [11]
    scaled = transforms.resize(7, along=dict(min_visible=1.0)).apply(example, Key(0, 0, 0))
    assert scaled['labels'].tolist() == [10, 11, 12]
    with pytest.raises(UsageError, match=r'min_visible=1\.5'):
        transforms.center_crop(4, along=dict(min_visible=1.5))
    empty = {'image': example['image'], 'boxes': np.zeros((0, 4)), 'labels': [], 'masks': np.zeros((0, 10, 10))}
    none = transforms.center_crop(4).apply(empty, Key(0, 0, 0))
    assert (none['boxes'].shape, none['masks'].shape) == ((0, 4), (0, 4, 4))


def test_fields_by_other_names_and_none():
    example = {'picture': np.zeros((4, 6, 3), np.uint8), 'gt': np.array([[0, 0, 2, 1.0]]), 'boxes': 'left alone'}
    flip = transforms.random_flip(p=1.0, field='picture', along=dict(boxes='gt'))
    out = flip.apply(example, Key(0, 0, 0))
    np.testing.assert_array_equal(out['gt'], [[4, 0, 6, 1]])
    assert out['boxes'] == 'left alone'


def test_padded_boxes_make_a_batch():
    boxes = [np.ones((k, 4), np.float32) for k in (0, 3, 2)]
    pad = transforms.pad_boxes(4)
    rows = [pad.apply({'boxes': b, 'labels': np.ones(len(b), int)}, Key(0, 0, i)) for i, b in enumerate(boxes)]
    assert {r['boxes'].shape for r in rows} == {(4, 4)}
    assert [r['valid'].sum() for r in rows] == [r['labels'].sum() for r in rows] == [0, 3, 2]
    with pytest.raises(CanonError, match='example 9 has 3 boxes, more than count=2'):
        transforms.pad_boxes(2).apply({'boxes': boxes[1]}, Key(0, 0, 9))


# --- crops and sizes -------------------------------------------------------------------------------------------------


def test_random_resized_crops_have_the_areas_and_aspects_of_the_paper():
    """A square of 1000 pixels rejects next to nothing below two thirds of its area: there both are uniform."""
    scale, ratio = (0.08, 0.6), (3 / 4, 4 / 3)
    generator = np.random.default_rng(0)
    boxes = np.array([geometry.draw_crop_box(generator, 1000, 1000, scale, ratio) for _ in range(6000)])
    x0, y0, x1, y1 = boxes.T
    area = (x1 - x0) * (y1 - y0) / 1e6
    aspect = np.log((x1 - x0) / (y1 - y0))
    share = np.sort((area - 0.08) / 0.52)
    assert abs(share - np.linspace(0, 1, 6000)).max() < 0.022  # Kolmogorov-Smirnov, 99.5 %
    share = np.sort((aspect - math.log(3 / 4)) / math.log(16 / 9))
    assert abs(share - np.linspace(0, 1, 6000)).max() < 0.022
    for start, end in ((x0, x1), (y0, y1)):
        place = np.sort(start / (1000 - (end - start)))
        assert abs(place - np.linspace(0, 1, 6000)).max() < 0.022
    assert boxes.min() >= 0
    assert boxes.max() <= 1000


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_random_resized_crops_stay_inside(height, width, visit):
    x0, y0, x1, y1 = geometry.draw_crop_box(np.random.default_rng(visit), height, width, (0.08, 1), (3 / 4, 4 / 3))
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height


def test_an_image_that_no_window_fits_gives_its_centre():
    """torchvision's fallback: 100 x 10 pixels, wider than 4/3 of its height."""
    never = ((1.0, 1.0), (3 / 4, 4 / 3))
    assert geometry.draw_crop_box(np.random.default_rng(0), 10, 100, *never) == (43, 0, 56, 10)
    assert geometry.draw_crop_box(np.random.default_rng(0), 100, 10, *never) == (0, 43, 10, 56)


@pytest.mark.parametrize(('method', 'atol'), [('fast', 1.01), ('bilinear', 1e-9), ('nearest', 1e-9)])
def test_a_resized_crop_shows_its_window(method, atol):
    """Against numpy: means of blocks where the window is a multiple of the size, else Pillow's own crop and resize."""
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (40, 48, 3), np.uint8)
    out = geometry.resample(image[8:40, 4:36], (16, 8), method).astype(float)
    if method == 'fast':
        expected = image[8:40, 4:36].reshape(16, 2, 8, 4, 3).mean((1, 3))
    else:
        resampling = geometry.METHODS[method]
        expected = np.asarray(Image.fromarray(image[8:40, 4:36]).resize((8, 16), resampling), float)
    np.testing.assert_allclose(out, expected, atol=atol)


def test_scale_jitter_is_a_resize_and_a_crop():
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8))
    image = np.asarray(coarse.resize((160, 120), Image.Resampling.BICUBIC))
    jitter = transforms.scale_jitter(50, 60, 90)
    sides = set()
    for visit in range(30):
        key = Key(0, visit, 1)
        draws = rng(key)
        side = int(draws.integers(60, 91))
        rows, columns = side, 160 * side // 120
        top, left = int(draws.integers(0, rows - 49)), int(draws.integers(0, columns - 49))
        whole = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)).astype(int)
        out = jitter.apply({'image': image}, key)['image']
        difference = abs(out - whole[top : top + 50, left : left + 50])
        assert difference.max() <= 2  # Pillow keeps a box in float32, and rounds to bytes between its two passes
        assert difference.mean() < 0.2
        sides.add(side)
    assert len(sides) > 15
    assert all(60 <= s <= 90 for s in sides)


@pytest.mark.parametrize(
    ('shape', 'expected'), [((375, 500), (256, 341)), ((500, 375), (341, 256)), ((1, 9), (256, 2304))]
)
def test_resize_short_keeps_the_proportions(shape, expected):
    image = np.zeros((*shape, 3), np.uint8)
    assert transforms.resize_short(256).apply({'image': image}, Key(0, 0, 0))['image'].shape == (*expected, 3)


def test_ten_crop_is_corners_middle_and_mirrors():
    image = np.arange(7 * 9 * 3, dtype=np.uint8).reshape(7, 9, 3)
    out = transforms.ten_crop((4, 6)).apply({'image': image}, Key(0, 0, 0))['image']
    expected = [image[y : y + 4, x : x + 6] for y, x in ((0, 0), (0, 3), (3, 0), (3, 3), (1, 1))]
    np.testing.assert_array_equal(out, expected + [e[:, ::-1] for e in expected])


@pytest.mark.parametrize('shape', [(300, 400), (400, 300), (300, 300)])
def test_googlenet_and_vgg_crops_are_windows_of_the_scaled_image(shape):
    """144 and 150 views; each that is not a whole square is found in the image of its scale."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)

    def small(side):
        return transforms.resize_short(side).apply({'image': image}, Key(0, 0, 0))['image']

    out = transforms.googlenet_crops().apply({'image': image}, Key(0, 0, 0))['image']
    assert out.shape == (144, 224, 224, 3)
    for k, side in enumerate((256, 288, 320, 352)):
        scaled_image = small(side)
        views = out[36 * k : 36 * (k + 1)].reshape(3, 2, 6, 224, 224, 3)
        np.testing.assert_array_equal(views[:, 1], views[:, 0, :, :, ::-1])
        np.testing.assert_array_equal(views[0, 0, 0], scaled_image[:224, :224])
        np.testing.assert_array_equal(views[2, 0, 3], scaled_image[-224:, -224:])
        spare = (np.array(scaled_image.shape[:2]) - side) // 2 + (side - 224) // 2
        np.testing.assert_array_equal(views[1, 0, 4], scaled_image[spare[0] :, spare[1] :][:224, :224])
        square = Image.fromarray(scaled_image[:side, :side]).resize((224, 224), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(views[0, 0, 5], np.asarray(square))
    out = transforms.grid_crops().apply({'image': image}, Key(0, 0, 0))['image']
    assert out.shape == (150, 224, 224, 3)
    views, scaled_image = out[50:100].reshape(2, 5, 5, 224, 224, 3), small(384)
    np.testing.assert_array_equal(views[1], views[0, :, :, :, ::-1])
    np.testing.assert_array_equal(views[0, 0, 0], scaled_image[:224, :224])
    np.testing.assert_array_equal(views[0, 4, 4], scaled_image[-224:, -224:])
    step = (scaled_image.shape[0] - 224) / 4
    np.testing.assert_array_equal(views[0, 1, 0], scaled_image[round(step) :][:224, :224])


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('shape', [(1, 1), (1, 7), (7, 1), (3, 2)])
@pytest.mark.parametrize('channels', [1, 3, 4, 5])
@pytest.mark.parametrize('name', MOVES)
def test_odd_sizes_are_taken(name, shape, channels):
    make, arguments = MOVES[name]
    move = make(**arguments)
    if name == 'rand_augment' and channels > 3:
        with pytest.raises(
            CanonError, match=f'rand_augment takes images of 1 or 3 channels, example 4 has .image. of {channels}'
        ):
            move.apply({'image': np.ones((*shape, channels), np.uint8)}, Key(0, 0, 4))
        return
    for dtype in (np.uint8, np.float32):
        image = np.ones((*shape, channels), dtype)
        for visit in range(3):
            if name in ('center_crop', 'random_crop'):
                with pytest.raises(CanonError, match='example 4 is smaller'):
                    move.apply({'image': image}, Key(0, visit, 4))
                continue
            out = move.apply({'image': image}, Key(0, visit, 4))['image']
            assert out.shape[2] == channels
            assert out.dtype == dtype
            assert np.isfinite(out).all()


def test_flipped_views_and_read_only_arrays_can_be_moved(move):
    flipped = np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)[:, ::-1]
    flipped.flags.writeable = False
    copied = np.ascontiguousarray(flipped)
    for visit in range(4):
        a, b = (move.apply({'image': image}, Key(0, visit, 0))['image'] for image in (flipped, copied))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'boxes': np.zeros(4)}, r"'boxes' has the shape \(4,\); boxes are \[K, 4\]"),
        ({'boxes': np.zeros((2, 4)), 'labels': np.zeros(3)}, "'labels' has 3 rows for 2 boxes"),
        ({'segmentation': np.zeros((5, 6))}, r"'segmentation' has the shape \(5, 6\)"),
        ({'masks': np.zeros((6, 4))}, r"'masks' has the shape \(6, 4\); \[K, H, W\]"),
    ],
)
def test_fields_that_do_not_fit_the_image_are_named(fields, message):
    with pytest.raises(CanonError, match=message):
        transforms.random_flip(p=1.0).apply({'image': np.zeros((6, 4, 3), np.uint8), **fields}, Key(0, 0, 0))


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (np.zeros((4, 4, 3)), 'float64'),
        (np.zeros((4, 4, 3), np.uint16), 'uint16'),
        (np.zeros((4, 4), np.uint8), r'shape \(4, 4\)'),
        (np.zeros((0, 4, 3), np.uint8), r'shape \(0, 4, 3\)'),
    ],
)
def test_images_of_another_kind_are_named(image, message):
    for name in ('random_resized_crop', 'random_rotation', 'resize_short', 'random_perspective', 'rand_augment'):
        make, arguments = MOVES[name]
        with pytest.raises(CanonError, match=f'{name} takes .*example 8 .*{message}'):
            make(**arguments).apply({'image': image}, Key(0, 0, 8))


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        ({'name': 'random_resized_crop', 'size': 0}, 'random_resized_crop: size=0 is neither'),
        ({'name': 'random_resized_crop', 'size': 8, 'scale': (1, 0.5)}, 'scale=(1, 0.5) must be (low, high)'),
        ({'name': 'random_resized_crop', 'size': 8, 'ratio': (0, 1)}, 'ratio=(0, 1) must be (low, high)'),
        ({'name': 'random_resized_crop', 'size': 8, 'method': 'cubic'}, "no method is called 'cubic'"),
        ({'name': 'scale_jitter', 'size': 224, 'low': 200, 'high': 300}, '224x224 <= low=200'),
        ({'name': 'resize_short', 'size': (3, 4)}, 'size=(3, 4) must be a whole number'),
        ({'name': 'random_perspective', 'distortion': 1}, 'distortion=1 is not in [0, 1)'),
        ({'name': 'grid_crops', 'size': 300}, 'fit into the scales (256, 384, 512)'),
        (
            {'name': 'random_flip', 'along': {'box': 'gt'}},
            'random_flip.along.box: SpatialFields takes no such key; did you mean',
        ),
    ],
)
def test_wrong_arguments_are_refused(spec, message):
    with pytest.raises(UsageError) as error:
        transforms.make_transforms(spec)
    assert message in str(error.value)


def test_crops_for_testing_refuse_boxes():
    with pytest.raises(CanonError, match="ten_crop: 'boxes' of example 3 cannot follow"):
        transforms.ten_crop(2).apply({'image': np.zeros((4, 4, 3), np.uint8), 'boxes': np.zeros((1, 4))}, Key(0, 0, 3))
    with pytest.raises(CanonError, match='crop of 5x5: example 3 is smaller, 4x4'):
        transforms.ten_crop(5).apply({'image': np.zeros((4, 4, 3), np.uint8)}, Key(0, 0, 3))


# --- randomness ------------------------------------------------------------------------------------------------------


def test_geometric_transforms_are_functions_of_the_key(move):
    example = scene() | {'image': np.random.default_rng(0).integers(0, 256, (H, W, 3), np.uint8)}
    if not move.random:
        return
    keys = [
        Key(1, 0, 0),
        Key(2, 0, 0),
        Key(1, 1, 0),
        Key(1, 0, 1),
        Key(1, 0, 0, 1),
        *(Key(1, v, 0) for v in range(2, 9)),
    ]
    once, again = ([move.apply(example, key)['image'].tobytes() for key in keys] for _ in range(2))
    assert once == again
    assert len(set(once)) > 1


def test_batches_do_not_depend_on_threads_or_hosts():
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 24, 3), np.uint8)
    source = Arrays({'image': images, 'label': np.arange(12) % 4, 'boxes': np.tile([[[2.0, 3, 9, 8]]], (12, 1, 1))})
    chain = transforms.make_transforms(
        dict(
            chain=('random_resized_crop', 'random_flip', 'rand_augment', 'pca_noise', 'pad_boxes', 'mixup'),
            random_resized_crop=dict(size=16),
            pad_boxes=dict(count=3, per_box=()),
            mixup=dict(num_classes=4),
        )
    )

    def first(threads, process=(0, 1)):
        data = Batches(source, 6, seed=4, transforms=chain, threads=threads)
        batches = data.for_process(*process).iterate(3)
        return [next(batches) for _ in range(5)]

    alone, threaded = first(0), first(4)
    halves = [first(2, (i, 2)) for i in range(2)]
    for k, batch in enumerate(alone):
        for field, values in batch.items():
            np.testing.assert_array_equal(values, threaded[k][field])
            np.testing.assert_array_equal(values, np.concatenate([h[k][field] for h in halves]))
    assert alone[0]['image'].dtype == np.uint8
