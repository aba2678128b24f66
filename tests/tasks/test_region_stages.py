"""R-CNN and SPP-net: crops, batches of regions, files of features, SVMs, regressions of boxes, and all stages."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn.svm import LinearSVC

from canon.configuration import make_stage_config, merge
from canon.data import Arrays
from canon.data.detection import proposals
from canon.data.detection import region_batches as batches
from canon.data.images.geometry import box_iou
from canon.errors import CanonError, UsageError
from canon.named import to_plain
from canon.ops import boxes as box_ops
from canon.ops.regions import spatial_pyramid_pool_regions
from canon.tasks.detection import box_ridge, region_detection, region_features, region_svms
from canon.tasks.detection.region_features import RegionFeatures
from canon.train import artefacts as artefacts_module
from canon.train import run_stages
from canon.train.artefacts import Artefacts
from experiments import configs, detection_timing, region_proposals, staged
from experiments import region_features as region_features_stage


def located(height=60, width=90):
    """An image whose pixels tell where they are: red is x, green is y."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x, 2 * y, np.full_like(x, 200)], -1).astype(np.uint8)


# --- crops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('form', 'context'), [('warp', 0), ('warp', 4), ('square', 4)])
def test_a_crop_shows_the_region_with_its_context(form, context):
    crop = batches.RegionCrop(size=24, context=context, form=form, fill=(9.0, 8.0, 7.0))
    boxes = np.array([[20, 10, 50, 30], [30, 20, 38, 52]], np.float32)
    for pixels, (x0, y0, x1, y1) in zip(crop(located(), boxes), boxes, strict=True):
        w, h = x1 - x0, y1 - y0
        if form == 'square':
            w = h = max(w, h)
        inner = 24 - 2 * context
        # Pixel i of the crop is centred at this place of the image.
        x = (x0 + x1) / 2 + (np.arange(24) + 0.5 - 12) * w / inner
        y = (y0 + y1) / 2 + (np.arange(24) + 0.5 - 12) * h / inner
        inside = np.ix_((y > 1) & (y < 59), (x > 1) & (x < 89))
        expected = np.stack(np.broadcast_arrays(2 * (x - 0.5), 2 * (y - 0.5)[:, None]), -1)
        np.testing.assert_allclose(pixels[inside][..., :2], expected[inside], atol=1.2)
        assert (pixels[inside][..., 2] == 200).all()


def test_outside_of_the_image_is_the_fill_and_a_region_without_area_is_finite():
    crop = batches.RegionCrop(size=10, context=0, fill=(9.0, 8.0, 7.0))
    outside, half, point = crop(located(), np.array([[200, 5, 220, 9], [-10, 0, 10, 20], [5, 5, 5, 5]], np.float32))
    assert (outside == (9, 8, 7)).all()
    assert (half[:, :4] == (9, 8, 7)).all()
    assert (half[:, 6:, 2] == 200).all()
    assert (point[..., 2] == 200).all()
    with pytest.raises(UsageError, match=r'crop.context=5 on both sides leaves nothing of crop.size=10'):
        batches.RegionCrop(size=10, context=5)


# --- batches ---------------------------------------------------------------------------------------------------------


class Scenes:
    """Three images: two objects, none, and a difficult one; each with proposals."""

    info = Arrays({'image': np.zeros((1, 2, 2, 3))}).info

    def __init__(self):
        near, far, bare = [[10, 10, 30, 30], [12, 10, 32, 30], [10, 10, 30, 50]], [[60, 40, 70, 60]], [[3, 3, 3, 9]]
        none = np.zeros((0, 4), np.float32)
        self.examples = [
            self._make([[10, 10, 30, 30], [50, 10, 80, 20]], [1, 0], [0, 0], near + far + bare, 0),
            self._make(none, [], [], far, 1),
            self._make([[10, 10, 30, 30]], [0], [1], near, 2),
            self._make([[10, 10, 30, 30]], [1], [0], none, 3),
        ]

    def _make(self, boxes, labels, difficult, proposals, number):
        return {
            'image': located() + np.uint8(number),
            'boxes': np.array(boxes, np.float32).reshape(-1, 4),
            'labels': np.array(labels, np.int32),
            'difficult': np.array(difficult, bool),
            'crowd': np.zeros(len(labels), bool),
            'proposals': np.array(proposals, np.float32).reshape(-1, 4),
        }

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return dict(self.examples[index])


def test_regions_are_labelled_by_their_nearest_object():
    table = batches.tabulate_regions(Scenes())
    assert table.images.tolist() == [0] * 6 + [1] + [2] * 3 + [3]
    assert table.objects.tolist() == [True] * 2 + [False] * 8 + [True]
    assert table.labels.tolist() == [2, 1, 2, 2, 2, 0, 0, -1, -1, -1, 2]  # the region without area is gone
    np.testing.assert_allclose(table.overlaps[:6], [1, 1, 1, 18 / 22, 0.5, 0], rtol=1e-6)


def test_a_batch_is_a_function_of_its_seed_and_its_step():
    source, crop = Scenes(), batches.RegionCrop(size=8, context=1)
    options = dict(batch_size=16, seed=3, threads=0)
    data = batches.make_region_batches(source, crop, **options)
    table, batch = data.table, data[5]
    # 4 of 16 are positive: objects, and proposals with an IoU of a half; the difficult object's are neither.
    assert sorted(data.positives.tolist()) == [0, 1, 2, 3, 4, 10]
    assert sorted(data.negatives.tolist()) == [5, 6]
    chosen, labels, mirrored = data.choose(5)
    assert (labels[:4] == table.labels[chosen[:4]]).all()
    assert not labels[4:].any()
    np.testing.assert_array_equal(batch['label'], labels)
    for i in (0, 3, 4, 15):
        expected = crop(source[int(table.images[chosen[i]])]['image'], table.boxes[chosen[i : i + 1]])[0]
        np.testing.assert_array_equal(batch['image'][i], expected[:, ::-1] if mirrored[i] else expected)
    assert 0 < mirrored.sum() < 16
    again = batches.make_region_batches(source, crop, **options)[5]
    np.testing.assert_array_equal(again['image'], batch['image'])
    assert (data[6]['image'] != batch['image']).any()
    halves = [data.for_process(i, 2)[5] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate([half['image'] for half in halves]), batch['image'])
    # Several sizes take turns on the same regions.
    sized = batches.make_region_batches(source, crop, batches.RegionSampling(sizes=(6, 8)), **options)
    shapes = {sized[step]['image'].shape[1] for step in range(12)}
    assert shapes == {6, 8}
    np.testing.assert_array_equal(sized[5]['label'], batch['label'])


def test_regions_of_one_kind_alone_are_refused():
    source, crop = Scenes(), batches.RegionCrop(size=8, context=1)
    table = batches.tabulate_regions(source)
    with pytest.raises(UsageError, match=r'none of 11 regions is negative at an IoU of 0\.5'):
        batches.RegionBatches(source, table, crop, batches.RegionSampling(negative_iou=0.4))
    background = table._replace(labels=np.zeros_like(table.labels))
    with pytest.raises(UsageError, match='none of 11 regions is positive'):
        batches.RegionBatches(source, background, crop)
    with pytest.raises(UsageError, match=r"has no field 'proposals'; wrap it in WithProposals"):
        batches.tabulate_regions(Arrays({'image': np.zeros((1, 4, 4, 3), np.uint8)}))


# --- features --------------------------------------------------------------------------------------------------------


class Mean:
    """A network whose features are mean colours, of crops or of squares of a map."""

    def apply(self, variables, *inputs, method):
        return getattr(self, method)(*inputs)

    def extract(self, images):
        return (images,)

    def describe(self, images, boxes=None):
        if boxes is None:
            return {'fc7': images.mean((1, 2)), 'pool5': images.reshape(len(images), -1)}
        return {'fc7': boxes * 2}


def test_crops_are_described_in_chunks():
    crop, boxes = batches.RegionCrop(size=6, context=1), np.array([[3, 2, 20 + i, 30] for i in range(5)], np.float32)
    model = Mean()
    describe = region_features.make_crop_describer(model, {}, lambda b: b['image'] / 255.0, crop, ('fc7',), chunk=4)
    expected = (crop(located(), boxes) / 255).mean((1, 2))
    np.testing.assert_allclose(describe(located(), boxes)['fc7'], expected, rtol=1e-5)
    assert describe(located(), boxes[:0])['fc7'].shape == (0, 3)


def test_each_region_is_described_at_the_scale_that_makes_it_nearest_to_the_square():
    scales = region_features.MapScales(sides=(30, 60, 120), longest=150, region=40.0, multiple=16)
    np.testing.assert_allclose(scales.measure(60, 90), [0.5, 1, 150 / 90])
    boxes = np.array([[0, 0, 90, 60], [0, 0, 40, 40], [10, 10, 30, 26], [5, 5, 5, 5]], np.float32)
    # Areas of 1350, 5400 and 15000; 400, 1600 and 4444; 80, 320 and 889; 1600 is aimed at.
    assert scales.choose(boxes, 60, 90).tolist() == [0, 1, 2, 0]
    describe = region_features.make_map_describer(
        Mean(), {}, lambda b: b['image'] / 255.0, scales, ('fc7',), (0.0, 0.0, 0.0), chunk=2
    )
    # 30x45 and 100x150 after rounding; boxes are scaled by what the sides have become.
    factors = np.array([0.5, 1, 150 / 90, 0.5])
    np.testing.assert_allclose(describe(located(), boxes)['fc7'], 2 * boxes * factors[:, None], rtol=1e-5)
    assert describe(located(), boxes[:0])['fc7'].shape == (0, 4)


def test_images_of_all_sizes_have_few_canvases():
    rng = np.random.default_rng(0)
    for scales in (
        region_features.MapScales(),
        region_features.MapScales(sides=(30, 64), longest=50, multiple=16, aspects=(1.2, 3.0)),
    ):
        canvases, used = scales.list_canvases(), set()
        assert len(canvases) <= len(scales.sides) * 2 * (len(scales.aspects) + 1)
        for height, width in rng.integers(20, 900, (500, 2)).tolist():
            for index, ratio in enumerate(scales.measure(height, width)):
                inner = round(height * ratio), round(width * ratio)
                used.add(canvas := scales.choose_canvas(index, *inner))
                assert canvas[0] >= inner[0]
                assert canvas[1] >= inner[1]
        assert used <= set(canvases)
    assert len(region_features.MapScales().list_canvases()) == 43
    # The photographs of VOC, 375x500, have almost no padding.
    assert [region_features.MapScales().choose_canvas(0, *size) for size in ((480, 640), (640, 480))] == [
        (512, 640),
        (640, 512),
    ]


def test_padding_changes_no_features_but_those_next_to_it():
    """Of a convolution with weights; an image on a larger canvas compiles no other program than one that fills it."""
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(5, 5, 3, 4)).astype(np.float32))
    shapes = []

    class Net(Mean):
        def extract(self, images):
            shapes.append(images.shape)
            convolved = jax.lax.conv_general_dilated(images, kernel, (4, 4), 'SAME', dimension_numbers=_NHWC)
            return (jnp.maximum(convolved + 0.1, 0),)

        def describe(self, maps, boxes=None):
            return {'fc7': spatial_pyramid_pool_regions(maps[0], boxes, (2, 1), 1 / 4)}

    def describe(**scales):
        scales = region_features.MapScales(sides=(48,), region=40.0, multiple=4, **scales)
        make_input = lambda b: b['image'] / 255.0 - 0.4  # noqa: E731
        return region_features.make_map_describer(Net(), {}, make_input, scales, ('fc7',), (102.0,) * 3, chunk=4)

    image = np.random.default_rng(1).integers(0, 256, (48, 56, 3), np.uint8)
    boxes = np.array([[0, 0, 40, 44], [10, 8, 44, 40], [0, 20, 24, 44]], np.float32)
    expected = describe(longest=56)(image, boxes)['fc7']  # its longest canvas is the image
    padded = describe(longest=200)
    np.testing.assert_allclose(padded(image, boxes)['fc7'], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected).max() > 0.1
    for width in (57, 60, 63):
        padded(np.zeros((48, width, 3), np.uint8), boxes)
    assert shapes == [(1, 48, 56, 3), (1, 48, 64, 3)]


_NHWC = ('NHWC', 'HWIO', 'NHWC')


def make_features(seed=0, images=12, classes=2, depth=6):
    """Regions of two linearly separable classes with noise: objects, near and far proposals, in two files."""
    rng = np.random.default_rng(seed)
    parts = []
    for file in range(2):
        boxes, labels, overlaps, objects, features, counts = [], [], [], [], [], []
        for _ in range(images // 2):
            label = int(rng.integers(classes)) + 1
            place = rng.uniform(0, 50, 2)
            target = np.array([*place, *place + rng.uniform(20, 40, 2)])
            jitter = target + rng.uniform(-3, 3, (4, 4))
            far = np.concatenate([low := rng.uniform(100, 150, (30, 2)), low + rng.uniform(5, 40, (30, 2))], 1)
            own = np.concatenate([target[None], jitter, far]).astype(np.float32)
            iou = box_iou(own, target[None])[:, 0]
            offsets = box_ridge.encode_transformations(own, np.broadcast_to(target, own.shape))
            signal = np.concatenate([np.repeat([[label == 1, label == 2]], 5, 0), np.zeros((30, 2))]).astype(float)
            signal += rng.normal(0, 0.3, signal.shape)
            features.append(np.concatenate([signal, np.clip(offsets, -1, 1)], 1)[:, :depth])
            boxes.append(own)
            labels.append(np.where(iou > 0, label, 0))
            overlaps.append(iou)
            objects.append(np.arange(len(own)) == 0)
            counts.append(len(own))
        joined = (np.concatenate(values) for values in (boxes, labels, overlaps, objects))
        layers = {'fc7': np.concatenate(features).astype(np.float32)}
        numbers = np.arange(images // 2) + file * (images // 2)
        parts.append(RegionFeatures(numbers, np.array(counts), *joined, 0.5, {**layers, 'pool5': layers['fc7']}))
    return parts


def test_files_of_features_hold_what_was_written(tmp_path):
    parts = make_features()
    for k, part in enumerate(parts):
        region_features.write_features(tmp_path / f'train-{k:05d}.npz', part)
    files = region_features.FeatureFiles(tmp_path, 'train', ['fc7'])
    for part, read in zip(parts, files, strict=True):
        np.testing.assert_array_equal(read.layers['fc7'], part.layers['fc7'])
        np.testing.assert_array_equal(read.boxes, part.boxes)
        assert [*read.layers] == ['fc7']
        assert [rows.stop - rows.start for _, rows in read.split()] == part.counts.tolist()
    summary = region_features.summarise_features(files.paths, 'train')
    assert summary == {'train/regions': 35.0, 'train/seconds_per_image': 1 / 12}
    with pytest.raises(
        UsageError, match=r"train-00000.npz has no features of the layer 'fc6', only of fc7, pool5; list"
    ):
        list(region_features.FeatureFiles(tmp_path, 'train', ['fc6']))
    region_features.write_features(tmp_path / 'train-hard-00000.npz', parts[0])  # of another split
    assert len(region_features.FeatureFiles(tmp_path, 'train', ['fc7'])) == 2
    with pytest.raises(UsageError, match=r"has no features of 'test'; run the stage that computes them first"):
        region_features.FeatureFiles(tmp_path, 'test', ['fc6'])
    (tmp_path / 'train-00001.npz').write_bytes(b'PK\x03\x04 what a full disk left')
    with pytest.raises(UsageError, match=r'train-00001.npz is not a file of features .*; remove it'):
        list(files)


@pytest.mark.parametrize('kind', ['crops', 'maps'])
def test_weights_are_put_on_the_device_once(monkeypatch, kind):
    class Recording(Mean):
        def apply(self, variables, *inputs, method):
            seen.append(variables['params'])
            return super().apply(variables, *inputs, method=method)

    seen = []
    monkeypatch.setattr(region_features.backend, 'jit', lambda function: function)
    options = dict(variables={'params': np.ones(3)}, make_input=lambda b: b['image'] / 255.0, layers=('fc7',), chunk=2)
    if kind == 'crops':
        describe = region_features.make_crop_describer(
            Recording(), crop=batches.RegionCrop(size=4, context=1), **options
        )
    else:
        scales = region_features.MapScales(sides=(30,), longest=50, region=40.0, multiple=16)
        describe = region_features.make_map_describer(Recording(), scales=scales, **options)
    for _ in range(2):
        describe(located(), np.array([[3, 2, 20, 30 + i] for i in range(3)], np.float32))
    assert len(seen) >= 4
    assert isinstance(seen[0], jax.Array)
    assert all(params is seen[0] for params in seen)


def test_the_norm_of_features_is_that_of_random_regions_of_random_images():
    counts, none = np.array([0, 3, 500, 40]), np.zeros(543)
    images = [np.arange(4) + 4 * file for file in range(3)]
    # Every feature is the number of its image, from 1: the mean tells the shares. 200 regions of 500 count.
    layers = [{'fc7': np.repeat(numbers + 1.0, counts)[:, None]} for numbers in images]
    parts = [
        RegionFeatures(own, counts, none, none, none, none, 0.0, layer)
        for own, layer in zip(images, layers, strict=True)
    ]
    shares = {file * 4 + i + 1: min(count, 200) for file in range(3) for i, count in enumerate(counts.tolist())}
    expected = sum(value * share for value, share in shares.items()) / sum(shares.values())
    assert region_features.measure_feature_norm(parts, 'fc7') == pytest.approx(expected)
    means = [region_features.measure_feature_norm(parts, 'fc7', most_images=1, seed=seed) for seed in range(60)]
    assert {*means} == {value for value, share in shares.items() if share}  # any image may be the one
    assert region_features.measure_feature_norm(parts, 'fc7', most_images=1, seed=3) == means[3]


def test_the_disk_is_measured_before_features_are_computed(tmp_path, monkeypatch):
    """What is there already does not count, and nothing is removed; a disk that fills up later is named as well."""
    stage = region_features_stage
    scenes = Scenes()
    digests = [proposals.digest_image(scenes[i]['image']) for i in range(4)]
    counts = [len(scenes[i]['proposals']) for i in range(4)]
    boxes = np.concatenate([scenes[i]['proposals'] for i in range(4)])
    source = proposals.WithProposals(scenes, proposals.ProposalSet('{}', digests, counts, boxes))
    monkeypatch.setattr(stage.regions, 'list_splits', lambda config: ('train',))
    monkeypatch.setattr(stage.regions, 'load_proposed', lambda config, name, stages: source)
    monkeypatch.setattr(stage, 'make_describer', lambda *_: lambda image, boxes: {'fc7': np.ones((len(boxes), 50))})
    free = []
    monkeypatch.setattr(artefacts_module.shutil, 'disk_usage', lambda path: type('', (), {'free': free[0]}))
    config = ConfigDict(dict(features=dict(images_per_file=2)))
    artefacts = Artefacts(tmp_path / 'artefacts', str, bool)

    needed = len(boxes) * (50 * 4 + 25)
    free[:] = [needed - 1]
    with pytest.raises(
        CanonError, match=rf'the features of pool5, fc7 take {needed:,} bytes, and .* has {needed - 1:,}'
    ):
        stage.compute(config, {}, artefacts)
    assert not (tmp_path / 'artefacts').exists()
    free[:] = [needed]
    stage.compute(config, {}, artefacts)
    kept, other = sorted((tmp_path / 'artefacts').iterdir())
    other.unlink()
    free[:] = [needed - kept.stat().st_size]
    stage.compute(config, {}, artefacts)
    free[:] = [0]
    stage.compute(config, {}, artefacts)  # there is nothing to write

    def fill(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(region_features.np, 'savez', fill)
    other.unlink()
    free[:] = [needed]
    with pytest.raises(
        CanonError, match=r'train-00001.npz cannot be written: .*No space left on device.*; earlier files'
    ):
        stage.compute(config, {}, artefacts)
    assert [path.name for path in (tmp_path / 'artefacts').iterdir() if path.suffix] == [kept.name]


def test_features_that_are_not_finite_are_refused():
    def describe(image, boxes):
        return {'fc7': np.full((len(boxes), 2), np.inf, np.float32)}

    with pytest.raises(CanonError, match=r"example 0 of .*: features of 'fc7' are not finite"):
        region_features.describe_images(Scenes(), range(2), describe, True)


# --- SVMs and regressions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('retrain', [40, 10_000])
def test_svms_with_mined_negatives_are_those_of_all_negatives(retrain):
    """What mining leaves out is no support vector; one fit with everything is the reference."""
    parts, settings = make_features(), region_svms.SvmSettings(retrain=retrain, c=0.1)
    svms = region_svms.fit_region_svms(parts, ('a', 'b'), settings)
    features = np.concatenate([part.layers['fc7'] for part in parts]).astype(np.float64)
    scale = 20 / np.linalg.norm(features, axis=1).mean()
    assert svms.scale == pytest.approx(scale, rel=1e-5)
    labels, objects, overlaps = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ('labels', 'objects', 'overlaps')
    )
    for label in range(2):
        positive = objects & (labels == label + 1)
        negative = (labels != label + 1) | (overlaps < 0.3)
        chosen = positive | negative
        reference = LinearSVC(
            C=0.1, loss='hinge', intercept_scaling=10, class_weight={1: 2}, random_state=0, max_iter=20_000
        ).fit(scale * features[chosen], positive[chosen].astype(int))
        expected = scale * features @ reference.coef_[0] + reference.intercept_[0]
        np.testing.assert_allclose(svms.score(features.astype(np.float32))[:, label], expected, atol=0.02)
        assert svms.examples[label] <= chosen.sum()
    if retrain == 40:
        assert (svms.examples < 300).all()  # of 420 regions


def test_negatives_of_a_class_are_far_from_its_objects_and_from_ignored_ones():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 8], [20, 0, 30, 10], [50, 50, 60, 60]], np.float32)
    labels, objects = np.array([1, 2, 1, -1, 0]), np.array([True, True, False, False, False])
    overlaps = np.array([1, 1, 0.8, 1, 0], np.float32)
    part = RegionFeatures(np.array([0]), np.array([5]), boxes, labels, overlaps, objects, 0.0, {})
    negatives = region_svms.find_negatives(part, slice(0, 5), 2, 0.3)
    assert negatives.T.tolist() == [[False, True, False, False, True], [True, False, True, False, True]]


def test_negatives_that_overlap_an_earlier_one_are_left_out(monkeypatch):
    """Against a literal loop, with classes whose negatives differ, in blocks that do not divide the regions."""
    monkeypatch.setattr(region_svms, '_BLOCK', 16)
    rng = np.random.default_rng(5)
    low = rng.uniform(0, 12, (90, 2))
    boxes = np.concatenate([low, low + rng.uniform(8, 14, (90, 2))], 1).astype(np.float32)
    negatives = rng.uniform(size=(90, 3)) < (0.9, 0.5, 0.0)
    expected, left_out = np.zeros_like(negatives), 0
    for label in range(3):
        kept = []
        for i in np.flatnonzero(negatives[:, label]):
            if all(box_iou(boxes[i], boxes[j])[0, 0] <= 0.7 for j in kept):
                kept.append(i)
            else:
                left_out += 1
        expected[kept, label] = True
    np.testing.assert_array_equal(region_svms.thin_negatives(boxes, negatives, 0.7), expected)
    assert left_out > 10
    np.testing.assert_array_equal(region_svms.thin_negatives(boxes, negatives, 1.0), negatives)
    assert region_svms.thin_negatives(boxes[:0], negatives[:0], 0.7).shape == (0, 3)
    # An SVM of copies of regions learns from each of them once.
    parts = make_features()
    copies = [
        part._replace(
            counts=2 * part.counts,
            layers={name: _repeat_images(part, values) for name, values in part.layers.items()},
            **{name: _repeat_images(part, getattr(part, name)) for name in ('boxes', 'labels', 'overlaps', 'objects')},
        )
        for part in parts
    ]
    for part in copies:  # the objects are not doubled: they are the positives
        for _, rows in part.split():
            part.objects[rows.start + (rows.stop - rows.start) // 2] = False
    settings = region_svms.SvmSettings(max_overlap=0.999)
    sizes = region_svms.fit_region_svms(parts, ('a', 'b'), settings).examples
    assert region_svms.fit_region_svms(copies, ('a', 'b'), settings).examples.tolist() == sizes.tolist()


def _repeat_images(part, values):
    """Repeats the rows of each image after them."""
    return np.concatenate([values[rows] for _, rows in part.split() for _ in '12'])


def test_a_class_without_an_object_and_features_of_zero_are_refused():
    parts = make_features()
    with pytest.raises(CanonError, match=r"the class 'c' has no positive example for its SVM; add images of it"):
        region_svms.fit_region_svms(parts, ('a', 'b', 'c'))
    zeros = [part._replace(layers={name: 0 * values for name, values in part.layers.items()}) for part in parts]
    with pytest.raises(CanonError, match="all features of 'fc7' are zero"):
        region_svms.fit_region_svms(zeros, ('a', 'b'))


def test_transformations_are_those_of_the_library_and_invert():
    rng = np.random.default_rng(0)
    boxes, targets = (
        np.concatenate([x := rng.uniform(0, 50, (9, 2)), x + rng.uniform(2, 40, (9, 2))], 1) for _ in '12'
    )
    offsets = box_ridge.encode_transformations(boxes, targets)
    expected = box_ops.encode_offsets(targets.astype(np.float32), boxes.astype(np.float32), (1, 1, 1, 1))
    np.testing.assert_allclose(offsets, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(box_ridge.apply_transformations(boxes, offsets), targets, rtol=1e-5, atol=1e-4)
    wild = box_ridge.apply_transformations(np.array([5.0, 5, 5, 5]), np.array([0, 0, 900.0, 900]))
    assert np.isfinite(wild).all()


@pytest.mark.parametrize('count', [3, 40])
def test_the_ridge_is_the_least_squares_of_an_augmented_system(count):
    """With fewer examples than features, and with more."""
    rng = np.random.default_rng(count)
    features, ridge = rng.normal(size=(count, 7)), 5.0
    targets = rng.normal(size=(count, 4)) * (1, 0.1, 10, 1e-3) + (0.5, 0, -2, 0)
    mean = targets.mean(0)
    covariance = np.cov(targets.T, bias=True) + 1e-3 * np.eye(4)
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors @ np.diag(values**-0.5) @ vectors.T
    design = np.concatenate([features, np.ones((count, 1))], 1)
    augmented = np.concatenate([design, np.sqrt(ridge) * np.eye(8)])
    aims = np.concatenate([(targets - mean) @ whiten, np.zeros((8, 4))])
    solution = np.linalg.lstsq(augmented, aims, rcond=None)[0] @ np.linalg.inv(whiten)
    weights, biases = box_ridge.fit_whitened_ridge(features, targets, ridge)
    np.testing.assert_allclose(weights, solution[:-1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(biases, solution[-1] + mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('memory', [8 << 30, 1])
def test_one_pass_over_the_files_gives_the_fit_of_each_class_alone(monkeypatch, memory):
    """Class 0 has several blocks of moments, class 1 fewer examples than features; with memory for all, and for one."""
    monkeypatch.setattr(box_ridge, '_BLOCK', 5)
    parts = make_features(images=40)
    for part in parts:  # two of the examples of class 1 stay
        rows = np.flatnonzero((part.labels == 2) & (part.overlaps >= 0.6) & ~part.objects)
        part.labels[rows[1:]] = 0
        part.labels[(part.labels == 2) & part.objects & ~np.isin(np.arange(len(part.boxes)), rows[:1] - 1)] = 0
    passes = []

    class Files(list):
        def __iter__(self):
            passes.append(None)
            return super().__iter__()

    settings = box_ridge.BoxRidgeSettings(ridge=2.0)
    fitted = box_ridge.fit_box_ridge(Files(parts), 3, settings, memory=memory)
    assert len(passes) == (2 if memory > 1 else 4)  # the first is for the norm
    for label in range(3):
        features, targets = [np.zeros((0, 6))], [np.zeros((0, 4))]
        for part in parts:
            for _, rows in part.split():
                # Objects are examples as well, which do not move.
                chosen = (part.labels[rows] == label + 1) & (part.overlaps[rows] >= 0.6)
                boxes = part.boxes[rows]
                features.append(part.layers['pool5'][rows][chosen].astype(np.float64) * fitted.scale)
                targets.append(box_ridge.encode_transformations(boxes[chosen], np.repeat(boxes[:1], chosen.sum(), 0)))
        features, targets = np.concatenate(features), np.concatenate(targets)
        assert fitted.examples[label] == len(targets)
        weights, biases = box_ridge.fit_whitened_ridge(features, targets, 2.0)
        np.testing.assert_allclose(fitted.weights[label], weights, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(fitted.biases[label], biases, rtol=1e-6, atol=1e-6)
    assert fitted.examples[0] > 20
    assert 0 < fitted.examples[1] < 7
    assert fitted.examples[2] == 0


def test_regressed_boxes_are_nearer_to_their_objects():
    parts = make_features(images=40)
    settings = box_ridge.BoxRidgeSettings(ridge=1e-3)
    fitted = box_ridge.fit_box_ridge(parts, 3, settings)
    assert (fitted.examples[:2] > 20).all()
    assert fitted.examples[2] == 0  # a class without examples moves no box
    part = parts[0]
    moved = fitted.move(part.boxes, part.layers['pool5'])
    np.testing.assert_allclose(moved[:, 2], part.boxes, rtol=1e-5, atol=1e-4)
    before, after = [], []
    for _, rows in part.split():
        label, target = part.labels[rows][0] - 1, part.boxes[rows][:1]
        before += box_iou(part.boxes[rows][1:5], target)[:, 0].tolist()
        after += box_iou(moved[rows][1:5, label], target)[:, 0].tolist()
    assert np.mean(after) > 0.97 > np.mean(before) + 0.05


# --- detections ------------------------------------------------------------------------------------------------------


def test_suppression_is_greedy():
    rng = np.random.default_rng(2)
    boxes = np.concatenate([low := rng.uniform(0, 30, (60, 2)), low + rng.uniform(5, 25, (60, 2))], 1).astype(
        np.float32
    )
    scores = np.round(rng.uniform(size=60), 1).astype(np.float32)  # with ties
    kept = region_detection.suppress(boxes, scores, 0.3)
    iou, expected = box_iou(boxes, boxes), []
    for i in sorted(range(60), key=lambda i: (-scores[i], i)):
        if all(iou[i, j] <= 0.3 for j in expected):
            expected.append(i)
    assert kept.tolist() == expected
    assert region_detection.suppress(boxes[:0], scores[:0], 0.3).shape == (0,)


def test_detections_are_selected_per_class():
    selection = region_detection.RegionSelection(score_threshold=0.2, iou_threshold=0.3, max_detections=3)
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [-5, -5, -1, -1], [20, 20, 90, 30]], np.float32)[:, None]
    scores = np.array([[0.9, 0.3], [0.8, 0.5], [0.95, 0.9], [0.1, 0.7]])
    found = selection.select(boxes, scores, (40, 50))
    np.testing.assert_allclose(found['scores'], [0.9, 0.7, 0.5])
    assert found['labels'].tolist() == [0, 1, 1]
    np.testing.assert_array_equal(found['boxes'], [[0, 0, 10, 10], [20, 20, 50, 30], [1, 0, 11, 10]])
    # Of each class one at most; and regions that do not enter suppression are no detections, whatever it leaves.
    scores = np.array([[0.9, 0.6], [0.8, 0.65], [0.95, 0.9], [0.1, 0.5]])
    for limit, expected in (({}, [0, 1, 1]), ({'max_per_class': 1}, [0, 1]), ({'candidates_per_class': 2}, [0, 1])):
        limited = region_detection.RegionSelection(**{'score_threshold': 0.2, 'candidates_per_class': None, **limit})
        assert limited.select(boxes, scores, (40, 50))['labels'].tolist() == expected
    nothing = selection.select(boxes[:0], scores[:0], (40, 50))
    assert nothing['boxes'].shape == (0, 4)
    np.testing.assert_allclose(
        region_detection.score_softmax(np.log([[1.0, 2, 1], [0.5, 0.25, 0.25]])), [[0.5, 0.25], [0.25, 0.25]]
    )


def test_one_pass_over_the_files_serves_all_detectors():
    parts, source, reads = make_features(), Scenes(), []
    parts = [part._replace(images=np.arange(2), counts=part.counts[:2]) for part in parts[:1]]

    class Files(list):
        def __iter__(self):
            reads.append(None)
            return super().__iter__()

    selection = region_detection.RegionSelection(score_threshold=0.1)
    detectors = {
        'moved': (region_detection.make_scorer(lambda x: x['fc7'][:, :2], lambda b, x: b[:, None] + 1), selection),
        'own': (region_detection.make_scorer(lambda x: x['pool5'][:, :2]), selection),
    }
    found = region_detection.detect_regions(source, Files(parts), detectors)
    assert len(reads) == 1
    for name, (score, _) in detectors.items():
        assert found[name].seconds > 0
        for row, (number, rows) in zip(found[name].rows.each(), parts[0].split(), strict=True):
            scores, boxes = score(parts[0], rows)
            expected = selection.select(boxes, scores, source[number]['image'].shape[:2])
            np.testing.assert_array_equal(row['detections']['boxes'], expected['boxes'])
            assert len(row['truth']['labels']) == len(source[number]['labels'])


# --- all stages ------------------------------------------------------------------------------------------------------


def shrink(config, **changes):
    """The recipe with a tiny network and a few images."""
    small = dict(
        data=dict(source=dict(num_examples=30, height=64, width=64, sizes=(16, 32), most=8), batch_size=16),
        proposals=dict(scales=(60.0,)),
        model=dict(backbone=None, units=(16, 16)),
        features=dict(images_per_file=12),
        run=dict(steps=3, log_every=1, checkpoint=dict(every=3)),
    )
    values = merge(merge(to_plain(config), small), changes)
    values['model']['backbone'] = dict(name='lenet.lenet5', activation='relu')
    values['data']['evals']['test']['split'] = 'test[:6]'
    return ConfigDict(values)


def test_proposals_survive_a_kill_before_their_file_is_in_place(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 255, (2, 20, 20, 3), np.uint8)
    boxes = np.array([[[0, 0, 20, 20], [3, 3, 4, 4]]] * 2, np.float32)
    marks = np.array([[False, True]] * 2)  # the second object, which no window covers, is difficult
    source = Arrays({'image': images, 'boxes': boxes, 'labels': np.zeros((2, 2), int), 'difficult': marks})
    searched = []
    monkeypatch.setattr(proposals, 'PROPOSERS', {'w': lambda image: searched.append(image) or [[0, 0, 20, 20]]})
    regions = region_proposals.regions
    monkeypatch.setattr(regions, 'bind_proposer', lambda config: (proposals.Proposer('w', {}), 0))
    monkeypatch.setattr(regions, 'list_splits', lambda config: ('train',))
    monkeypatch.setattr(regions, 'load_split', lambda config, name: source)
    monkeypatch.setattr(regions, 'save_figures', lambda artefacts, figures: None)

    class Killed(Artefacts):
        def compute(self, name, write):
            def write_and_die(path):
                write(path)
                raise KeyboardInterrupt

            return super().compute(name, write_and_die)

    with pytest.raises(KeyboardInterrupt):
        region_proposals.compute(ConfigDict(), {}, Killed(tmp_path, str, bool))
    assert not (tmp_path / 'train.npz').exists()
    assert len(searched) == 2
    metrics = region_proposals.compute(ConfigDict(), {}, Artefacts(tmp_path, str, bool))
    assert len(searched) == 4  # both to measure the time, none for the file
    assert [path.name for path in tmp_path.iterdir()] == ['train.npz']
    assert metrics['train/recall50'] == 1


def check_timing(config, folder, metrics):
    """Images that are detected one by one, from their pixels on, give the detections of the stored features."""
    stages = {name: folder / f'{i}-{name}' for i, name in enumerate(config.stages.chain)}
    own = make_stage_config(config, 'detections')
    timed = detection_timing.compute(own, stages, Artefacts(folder / 'timing', str, bool))
    assert timed['test/map50'] == pytest.approx(metrics['test/map50'], abs=1e-3)
    parts = [timed[f'test/seconds_{part}'] for part in ('proposals', 'features', 'heads')]
    assert min(parts) > 0
    assert timed['test/seconds_per_image'] == pytest.approx(sum(parts))


@pytest.mark.slow
def test_r_cnn_runs_in_stages_and_continues_where_it_was(root, tmp_path):
    config = configs.load(f'{root}/configs/detection/rcnn_digits.py:smoke')
    config = shrink(config, model=dict(stage='S4'), crop=dict(size=32))
    fitted = run_stages(staged.make(config), config, tmp_path, quiet=True)
    assert 0 <= fitted.metrics['test/map50'] <= 1
    assert {'test/map50_svm', 'test/map50_softmax', 'test/seconds_per_image'} <= fitted.metrics.keys()
    features = tmp_path / '2-features' / 'artefacts'
    names = ['test-00000.npz', 'train-00000.npz', 'train-00001.npz', 'train-00002.npz']
    assert sorted(path.name for path in features.iterdir()) == names
    assert (tmp_path / '5-detections' / 'figures' / 'test-errors.png').exists()
    # A file that an interruption has left out is computed again, alone, and is the same.
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in features.iterdir()}
    (features / 'train-00001.npz').unlink()
    for stage in ('2-features', '5-detections'):
        status = tmp_path / stage / 'status.json'
        status.write_text(json.dumps({**json.loads(status.read_text()), 'state': 'stopped'}))
    again = run_stages(staged.make(config), config, tmp_path, quiet=True)
    timed = 'test/seconds_per_image'
    assert {**again.metrics, timed: 0} == {**fitted.metrics, timed: 0}
    for path in features.iterdir():
        if path.name == 'train-00001.npz':
            read = [region_features.read_features(path, ['fc7']).layers['fc7'].tobytes()]
            assert read[0] in before[path.name][0]
        else:
            assert (path.read_bytes(), path.stat().st_mtime_ns) == before[path.name]
    check_timing(config, tmp_path, fitted.metrics)


@pytest.mark.slow
def test_spp_net_runs_in_stages(root, tmp_path):
    config = configs.load(f'{root}/configs/detection/spp_digits.py:smoke')
    scales = dict(sides=(64, 96), longest=96, region=32.0, multiple=32)
    stages = dict(finetune=dict(run=dict(steps=2), data=dict(train=dict(transforms=dict(resize=dict(size=64))))))
    config = shrink(config, model=dict(stride=4, bins=(3, 1)), scales=scales, stages=stages)
    fitted = run_stages(staged.make(config), config, tmp_path, quiet=True)
    assert 0 <= fitted.metrics['test/map50'] <= 1
    check_timing(config, tmp_path, fitted.metrics)


def test_stages_in_the_wrong_order_are_named(root, tmp_path):
    config = configs.load(f'{root}/configs/detection/rcnn_digits.py:smoke')
    config.stages.chain = ('features', 'proposals', 'finetune', 'svms', 'boxes', 'detections')
    message = r"no stage before this one is called 'finetune', whose network it reads; reorder stages.chain"
    with pytest.raises(UsageError, match=message):
        run_stages(staged.make(config), config, tmp_path, quiet=True)
