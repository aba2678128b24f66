"""Transforms against what they should do to pixels, computed by hand."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from canon.data import Key, Transform, rng, transforms
from canon.data.pipeline.chain import Mapped, apply_chain, split_chain
from canon.data.pipeline.keys import borrowed_rng
from canon.errors import CanonError, UsageError

IMAGE = np.arange(1, 5 * 6 * 3 + 1, dtype=np.uint8).reshape(5, 6, 3)


def run(transform: Transform, image=IMAGE, visit: int = 0, **fields):
    """The image after `transform`, which must leave its argument alone."""
    example = {'image': image.copy(), **fields}
    example['image'].flags.writeable = False
    out = transform.apply(example, Key(1, visit, 2))
    np.testing.assert_array_equal(example['image'], image)
    return out['image']


def test_borrowed_generators_draw_what_fresh_ones_do():
    for key in (Key(0, 0, 0), Key(2**64 - 1, 5, 7, 3), Key(1, 2**40, 3)):
        borrowed_rng(Key(9, 9, 9)).integers(0, 10, 3, np.uint32)  # leaves half a word behind
        generator = borrowed_rng(key)
        drawn = [generator.random(), *generator.integers(0, 100, 5, np.uint32), *generator.normal(size=3)]
        fresh = rng(key)
        assert drawn == [fresh.random(), *fresh.integers(0, 100, 5, np.uint32), *fresh.normal(size=3)]


def test_streams_of_neighbouring_keys_do_not_overlap():
    keys = [Key(s, v, i, k) for s in range(3) for v in range(3) for i in range(3) for k in range(3)]
    words = np.concatenate([rng(key).integers(0, 2**63, 64) for key in keys])
    assert len(np.unique(words)) == len(words)


def test_flips_half_of_the_time_and_nothing_but_left_and_right():
    flipped = [run(transforms.random_flip(), visit=v) for v in range(400)]
    turned = [np.array_equal(f, IMAGE[:, ::-1]) for f in flipped]
    assert all(t or np.array_equal(f, IMAGE) for t, f in zip(turned, flipped, strict=True))
    assert 150 < sum(turned) < 250
    assert np.array_equal(run(transforms.random_flip(p=1.0)), IMAGE[:, ::-1])
    assert np.array_equal(run(transforms.random_flip(p=0.0)), IMAGE)


def test_random_crop_takes_every_window_of_the_padded_image():
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)), constant_values=99)
    windows = {padded[y : y + 4, x : x + 5].tobytes(): (y, x) for y in range(6) for x in range(6)}
    crop = transforms.random_crop((4, 5), padding=2, value=99)
    seen = {windows[run(crop, visit=v).tobytes()] for v in range(600)}
    assert len(seen) == 36
    assert run(transforms.random_crop((5, 6))).tobytes() == IMAGE.tobytes()


def test_random_shift_keeps_the_size_and_fills_what_comes_in():
    padded = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)), constant_values=7)
    windows = {padded[y : y + 5, x : x + 6].tobytes(): (y, x) for y in range(3) for x in range(3)}
    assert {windows[run(transforms.random_shift(1, value=7), visit=v).tobytes()] for v in range(200)} == set(
        windows.values()
    )
    far = [run(transforms.random_shift(20), visit=v) for v in range(100)]
    assert any(not f.any() for f in far)  # moved out of sight


def test_pad_and_crops_keep_the_middle():
    padded = run(transforms.pad((9, 8), value=3))
    np.testing.assert_array_equal(padded[2:7, 1:7], IMAGE)
    assert padded.sum() == IMAGE.sum() + 3 * 3 * (72 - 30)
    np.testing.assert_array_equal(run(transforms.center_crop((3, 4))), IMAGE[1:4, 1:5])


@pytest.mark.parametrize('channels', [1, 3, 4, 5])
@pytest.mark.parametrize('method', ['nearest', 'bilinear', 'area'])
def test_resize_treats_every_channel_as_pillow_does(channels, method):
    image = np.random.default_rng(0).integers(0, 256, (7, 9, channels), np.uint8)
    out = run(transforms.resize((4, 12), method), image)
    resampling = {'nearest': 0, 'bilinear': 2, 'area': 4}[method]
    for c in range(channels):
        expected = Image.fromarray(image[..., c]).resize((12, 4), resampling)
        np.testing.assert_array_equal(out[..., c], np.asarray(expected))
    floats = run(transforms.resize((4, 12), method), image.astype(np.float32) / 255)
    np.testing.assert_allclose(floats * 255, out, atol=1.1)


def test_resize_draws_one_of_several_methods_per_image():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    methods = 'bilinear', 'area', 'nearest', 'bicubic', 'lanczos'
    of = {run(transforms.resize((4, 12), method), image).tobytes(): method for method in methods}
    drawing = transforms.resize((4, 12), methods)
    drawn = [of[run(drawing, image, visit).tobytes()] for visit in range(500)]
    assert all(70 < drawn.count(method) < 130 for method in methods)
    assert drawn[:50] == [of[run(drawing, image, visit).tobytes()] for visit in range(50)]
    assert drawing.random  # so it is applied on every visit, not once before images are cached
    assert not transforms.resize(4, ('area',)).random


def test_floats_and_back():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    floats = run(transforms.to_float(), every)
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, every / 255, atol=1e-7)
    np.testing.assert_array_equal(run(transforms.to_uint8(), floats), every)
    np.testing.assert_array_equal(run(transforms.to_uint8(), np.array([[[-1.0], [2.0]]])), [[[0], [255]]])
    scaled = run(transforms.standardise((1, 2, 3), (1, 2, 4)))
    np.testing.assert_allclose(scaled, (IMAGE - [1.0, 2, 3]) / [1, 2, 4])
    assert scaled.dtype == np.float32


def test_fields():
    example = {'image': IMAGE, 'label': np.asarray(2), 'text': 'x'}
    assert list(transforms.keep_fields(('label', 'image')).apply(example, Key(0, 0, 0))) == ['label', 'image']
    assert transforms.rename({'text': 'caption'}).apply(example, Key(0, 0, 0))['caption'] == 'x'
    hot = transforms.one_hot(4).apply(example, Key(0, 0, 0))['label']
    np.testing.assert_array_equal(hot, [0, 0, 1, 0])
    with pytest.raises(UsageError, match="'labels'; did you mean 'label'"):
        transforms.keep_fields(('labels',)).apply(example, Key(0, 0, 0))


@pytest.mark.parametrize('label', [-1, 10, 255])
@pytest.mark.parametrize('make', [transforms.check_label, transforms.one_hot])
def test_a_label_out_of_range_is_named_with_its_example(label, make):
    with pytest.raises(CanonError, match=rf'example 17: label {label} is not in 0\.\.9'):
        make(10).apply({'label': np.asarray(label)}, Key(0, 0, 17))


def test_images_of_a_wrong_size_are_named():
    for transform, message in [
        (transforms.pad(4), 'example 2 is larger, 5x6'),
        (transforms.center_crop(7), 'example 2 is smaller, 5x6'),
        (transforms.random_crop(9, padding=1), 'example 2 is smaller, 5x6'),
    ]:
        with pytest.raises(CanonError, match=message):
            run(transform)
    with pytest.raises(CanonError, match='int64'):
        run(transforms.resize(3), IMAGE.astype(np.int64))


def test_a_chain_from_a_config():
    spec = ConfigDict(
        {'chain': ('pad', 'flip', 'image.to_float'), 'pad': {'size': 8}, 'flip': {'name': 'random_flip', 'p': 1.0}}
    )
    chain = transforms.make_transforms(spec)
    assert [t.random for t in chain] == [False, True, False]
    assert [len(part) for part in split_chain(chain)] == [1, 2]
    out = apply_chain(chain, {'image': IMAGE}, Key(0, 0, 0))['image']
    np.testing.assert_allclose(out, np.pad(IMAGE, ((1, 2), (1, 1), (0, 0)))[:, ::-1] / np.float32(255), atol=1e-7)
    assert transforms.make_transforms({'name': 'to_float'})[0].random is False
    assert transforms.make_transforms(None) == transforms.make_transforms({}) == ()


@pytest.mark.parametrize(
    ('spec', 'message'),
    [
        (
            {'chain': ('random_flop',)},
            "transforms.random_flop: no transform is called 'random_flop'; did you mean 'random_f",
        ),
        ({'chain': ('image.random_flop',)}, "did you mean 'image.random_flip'"),
        ({'name': 'pad', 'sise': 3}, "transforms.sise: pad takes no such key; did you mean 'size'"),
        ({'name': 'pad'}, "transforms: pad needs 'size'"),
        ({'name': 'pad', 'size': '32'}, "size='32' must be a whole number or a tuple"),
        ({'name': 'pad', 'size': 0}, 'pad: size=0 is neither'),
        ({'name': 'resize', 'size': 3, 'method': 'cubic'}, "no method is called 'cubic'"),
        ({'name': 'resize', 'size': 3, 'method': ('area', 'cubic')}, "no method is called 'cubic'"),
        ({'name': 'resize', 'size': 3, 'method': ()}, 'is empty'),
        ({'name': 'random_shift', 'pixels': -1}, 'negative'),
        ({'name': 'make_transforms'}, "no transform is called 'make_transforms'"),
    ],
)
def test_a_wrong_chain_is_refused_in_one_line(spec, message):
    with pytest.raises(UsageError) as error:
        transforms.make_transforms(spec)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_random_transforms_cannot_be_mapped_once_for_all():
    with pytest.raises(CanonError, match='deterministic'):
        Mapped([], (transforms.random_flip(),))
