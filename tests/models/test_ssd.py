"""SSD300 against torchvision from drawn weights, counts and priors of the paper, other backbones, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from canon import models, weights
from canon.errors import UsageError
from canon.models.ssd import ReducedVGG
from canon.ops import boxes, nms
from canon.weights.ssd import TORCHVISION, reduce_layers, ssd_reader
from tests.models.drawn import distance, draw_parameter, images
from tests.models.goldens import Golden, count, draw_variables, shapes_of

SMALL = dict(name='vgg.vgg11', width=0.125, batch_norm=True)
NAMES = TORCHVISION['ssd.ssd300']


@pytest.fixture(scope='module')
def golden():
    return Golden('ssd300')


def test_counts_and_priors_of_the_paper():
    """26,285,486 parameters and 8,732 priors; torchvision's 35,641,826; SSD512 has 24,564 and one map more."""
    for name, size, classes, parameters, priors in (
        ('ssd.ssd300', 300, 21, 26_285_486, 8732),
        ('ssd.ssd300', 300, 91, 35_641_826, 8732),
        ('ssd.ssd512', 512, 21, 27_188_676, 24_564),
    ):
        model = models.make_model(name, num_classes=classes)
        assert count(shapes_of(model, (1, size, size, 3))['params']) == parameters
        assert model.priors(size, size).shape == (priors, 4)
    grids = [level.grid[0] for level in models.make_model('ssd.ssd512').prior_levels(512, 512)]
    assert grids == [64, 32, 16, 8, 4, 2, 1]


def test_parameters_of_ssd512_are_the_sum_of_its_layers():
    """Layer by layer: 3x3 or other windows of the stated channels and a bias each."""

    def conv(size, channels, features):
        return size * size * channels * features + features

    vgg = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)] + 5 * [(512, 512)]
    total = sum(conv(3, *layer) for layer in vgg) + conv(3, 512, 1024) + conv(1, 1024, 1024) + 512
    total += conv(1, 1024, 256) + conv(3, 256, 512) + conv(1, 512, 128) + conv(3, 128, 256)
    total += 2 * (conv(1, 256, 128) + conv(3, 128, 256)) + conv(1, 256, 128) + conv(4, 128, 256)
    maps = ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 6), (256, 4), (256, 4))
    total += sum(conv(3, channels, shapes * (4 + 21)) for channels, shapes in maps)
    assert count(shapes_of(models.make_model('ssd.ssd512'), (1, 512, 512, 3))['params']) == total


def test_priors_equal_torchvision(golden):
    model = models.make_model('ssd.ssd300', num_classes=91, sizes='coco', clip='sizes')
    np.testing.assert_allclose(model.priors(300, 300), golden.parts['priors'][''], atol=1e-3)
    # The first squares of the two presets, and the paper's priors, which reach beyond the image.
    squares = [
        np.diff(models.make_model('ssd.ssd300', sizes=s).priors(300, 300)[:2, ::2])[:, 0] for s in ('voc', 'coco')
    ]
    np.testing.assert_allclose(squares, [[30, np.sqrt(30 * 60)], [21, np.sqrt(21 * 45)]], rtol=1e-5)
    priors = models.make_model('ssd.ssd300').priors(300, 300)
    assert priors.min() < 0
    assert priors.max() > 300


@pytest.mark.slow
def test_outputs_and_detections_equal_torchvision(golden):
    model = models.make_model('ssd.ssd300', num_classes=91, sizes='coco', clip='sizes')
    variables = golden.variables(shapes_of(model, (1, 300, 300, 3)), NAMES)
    stored = {part: rows[''] for part, rows in golden.parts.items()}
    priors = model.priors(300, 300)

    @jax.jit
    def detect(variables, images):
        outputs = model.apply(variables, images)
        scores = jax.nn.softmax(outputs['logits'])
        found = boxes.decode_offsets(outputs['offsets'], priors)
        detections = nms.multiclass_nms(boxes.clip(found[0], (300, 300)), scores[0, :, 1:], 0.01, 0.45, 400, 200)
        return outputs, scores, found, detections, list(model.apply(variables, images, method='features').values())

    outputs, scores, found, detections, maps = jax.tree.map(np.asarray, detect(variables, images(1, 300, 300)))
    for ours, row in zip(maps, stored['maps'], strict=True):
        assert distance(ours, row) < 1e-5
    assert distance(outputs['offsets'], stored['offsets']) < 1e-5
    assert distance(outputs['logits'], stored['logits']) < 1e-5
    assert distance(scores[0], stored['scores']) < 1e-5
    np.testing.assert_allclose(scores[0, :, 1:].max(-1), stored['best_scores'], rtol=1e-3, atol=1e-6)
    assert (scores[0, :, 1:].argmax(-1) == stored['best_labels']).mean() > 0.999  # but for ties to rounding
    np.testing.assert_allclose(found[0], stored['boxes'], rtol=1e-4, atol=5e-3)
    assert detections['valid'].sum() == len(stored['detected_scores'])
    np.testing.assert_allclose(detections['scores'], stored['detected_scores'], rtol=1e-4)
    np.testing.assert_array_equal(detections['labels'] + 1, stored['detected_labels'])
    np.testing.assert_allclose(detections['boxes'], stored['detected_boxes'], atol=5e-3)


def test_published_weights_load_by_name(golden, tmp_path):
    """A file with torchvision's keys fills every leaf, and a saved one has the same keys; no torch is needed."""
    model = models.make_model('ssd.ssd300', num_classes=91)
    like = shapes_of(model, (1, 300, 300, 3))
    tensors = {k: np.broadcast_to(np.float32(i), s) for i, (k, s) in enumerate(golden.shapes.items())}
    tensors['backbone.scale_weight'] = draw_parameter('backbone.scale_weight', (512,))
    ours = weights.from_torch(tensors, like, NAMES)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, dict(like))
    np.testing.assert_array_equal(ours['params']['l2_norm']['channel_scale'], tensors['backbone.scale_weight'])
    back = weights.to_torch(ours, NAMES)
    assert {k: v.shape for k, v in back.items()} == golden.shapes
    assert all(np.array_equal(back[k], tensors[k]) for k in tensors)
    assert weights.find_names('ssd.ssd300').keys() == {('torchvision', 'ssd.ssd300')}


def test_a_classifier_fills_the_backbone(tmp_path):
    """conv1_1 .. conv5_3 as they are; every third tap and every fourth unit of fc6 and fc7; the rest is kept."""
    tensors, number = {}, 0
    for rows, channels in zip((2, 2, 3, 3, 3), (4, 8, 16, 32, 32), strict=True):
        for _ in range(rows):
            tensors[f'features.{number}.weight'] = draw_parameter(f'{number}.weight', (channels, 3, 3, 3))
            tensors[f'features.{number}.bias'] = draw_parameter(f'{number}.bias', (channels,))
            number += 2
        number += 1
    for layer, units, inputs in (('classifier.0', 64, 32 * 49), ('classifier.3', 64, 64), ('classifier.6', 5, 64)):
        tensors |= {
            f'{layer}.weight': draw_parameter(f'{layer}.weight', (units, inputs)),
            f'{layer}.bias': draw_parameter('bias', (units,)),
        }
    save_file(tensors, tmp_path / 'vgg.safetensors')
    backbone = [f'conv{c}_{r}' for c, rows in enumerate((2, 2, 3, 3, 3), 1) for r in range(1, rows + 1)] + [
        'fc6',
        'fc7',
    ]
    leaves = {f'backbone/{layer}/{leaf}': np.zeros(1) for layer in backbone for leaf in ('kernel', 'bias')}
    leaves['conv8_1/kernel'] = np.ones(3)
    read = ssd_reader('ssd.ssd300')
    arrays = read(str(tmp_path / 'vgg.safetensors'), leaves)
    assert arrays is not None
    (tmp_path / 'run').mkdir()
    assert read(str(tmp_path / 'run'), leaves) is None  # the folder of a run, which training reads itself
    np.testing.assert_array_equal(
        arrays['backbone/conv5_3/kernel'], tensors['features.28.weight'].transpose(2, 3, 1, 0)
    )
    convolution = tensors['classifier.0.weight'].reshape(64, 32, 7, 7)[::4, :, ::3, ::3]
    np.testing.assert_array_equal(arrays['backbone/fc6/kernel'], convolution.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(arrays['backbone/fc7/kernel'][0, 0], tensors['classifier.3.weight'][::4, ::4].T)
    np.testing.assert_array_equal(arrays['backbone/fc6/bias'], tensors['classifier.0.bias'][::4])
    assert arrays['conv8_1/kernel'] is leaves['conv8_1/kernel']
    reduced = {k.removeprefix('backbone/'): v for k, v in arrays.items() if k.startswith('backbone/fc')}
    again = reduce_layers(reduced)  # convolutions stay
    assert all(again[k] is v for k, v in reduced.items())
    with pytest.raises(UsageError, match=r"no published weights are known for model 'ssd\.ssd30'"):
        ssd_reader('ssd.ssd30')


@pytest.mark.parametrize(
    ('backbone', 'stages'),
    [
        (dict(name='mobilenet.mobilenet_v2', width_multiplier=0.35), ('bottleneck3', 'bottleneck5', 'conv_last')),
        (dict(name='resnet.resnet18'), ('conv3_x', 'conv4_x', 'conv5_x')),
        (SMALL, ('conv4', 'conv5', 'pool5')),
    ],
)
def test_any_backbone(backbone, stages):
    """An output per prior, of non-square images too; the priors tile the image on every map."""
    model = models.make_model('ssd.ssd', backbone=backbone, num_classes=11, extras=(64, 32))
    assert model.stages == stages
    priors = model.priors(96, 160)
    outputs = jax.eval_shape(
        lambda k, x: model.init_with_output(k, x)[0], jax.random.key(0), np.zeros((2, 96, 160, 3), np.float32)
    )
    assert {k: v.shape for k, v in outputs.items()} == {
        'offsets': (2, len(priors), 4), 'logits': (2, len(priors), 11)
    }  # fmt: skip
    levels = model.prior_levels(96, 160)
    assert [level.grid for level in levels] == [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]
    start = 0
    for level in levels:
        centres = boxes.corners_to_centers(priors[start : start + np.prod(level.grid) * level.per_place])[:, :2]
        np.testing.assert_allclose(centres.mean(0), [80, 48], rtol=1e-5)
        start += int(np.prod(level.grid)) * level.per_place
    assert start == len(priors)


def test_an_output_belongs_to_its_prior():
    """A change of one corner of the image moves the outputs of priors near it on the finest map, and no others."""
    model = models.make_model('ssd.ssd', backbone=SMALL, num_classes=3, stages=('conv3', 'conv4'), extras=(16,))
    x = images(1, 64, 96)
    variables = draw_variables(model, x.shape)
    apply = jax.jit(model.apply)
    plain, changed = apply(variables, x), apply(variables, jnp.asarray(x).at[0, -4:, -4:].add(5))
    centres, level = boxes.corners_to_centers(model.priors(64, 96)), model.prior_levels(64, 96)[0]
    finest = int(np.prod(level.grid)) * level.per_place
    for output in ('offsets', 'logits'):
        moved = np.abs(plain[output] - changed[output])[0].max(-1)[:finest] > 1e-6
        assert moved[-level.per_place :].all()
        assert (np.abs(np.asarray(centres)[:finest][moved, :2] - [96, 64]) < 40).all()


def test_precision_and_training_mode():
    model = models.make_model('ssd.ssd', backbone=SMALL, num_classes=3, extras=(16,), dtype='bfloat16')
    x = jax.ShapeDtypeStruct((2, 64, 64, 3), np.float32)
    outputs, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, variables))} == {np.dtype(np.float32)}
    maps = jax.eval_shape(lambda v, x: model.apply(v, x, method='features'), variables, x)
    assert {m.dtype for m in maps.values()} == {np.dtype(jnp.bfloat16)}
    _, changed = jax.eval_shape(lambda v, x: model.apply(v, x, True, mutable=['batch_stats']), variables, x)
    assert jax.tree.map(np.shape, changed['batch_stats']) == jax.tree.map(np.shape, variables['batch_stats'])


def test_bad_input_is_one_clear_line():
    make = models.make_model
    with pytest.raises(UsageError, match='priors of this SSD are made for images of 300x300, not 320x300'):
        make('ssd.ssd300').priors(320, 300)
    with pytest.raises(UsageError, match='priors of this SSD are made for images of 512x512, not 300x300'):
        shapes_of(make('ssd.ssd512'), (1, 300, 300, 3))
    with pytest.raises(UsageError, match=r"model\.sizes='coko' is unknown; did you mean 'coco'"):
        make('ssd.ssd300', sizes='coko')
    with pytest.raises(UsageError, match='must be 7 ascending numbers'):
        make('ssd.ssd300', sizes=(0.1, 0.2))
    with pytest.raises(UsageError, match=r"model\.backbone has no stage 'conv9'"):
        make('ssd.ssd', backbone=SMALL, stages=('conv9',))
    with pytest.raises(UsageError, match='no stage with a stride of 64 or more'):
        make('ssd.ssd', backbone=SMALL, min_stride=64)
    with pytest.raises(UsageError, match=r'model\.aspect_ratios has 1 entries for 6 maps'):
        make('ssd.ssd', backbone=SMALL, aspect_ratios=((2.0,),))
    with pytest.raises(UsageError, match=r"model\.backbone\.name|'vgg\.vgg111'"):
        make('ssd.ssd', backbone=dict(name='vgg.vgg111'))
    with pytest.raises(UsageError, match='has no stages; choose a network of images'):
        make('ssd.ssd', backbone=dict(name='deepsdf.deepsdf'))
    with pytest.raises(UsageError, match='a backbone without a classifier'):
        jax.eval_shape(lambda k: ReducedVGG().init(k, images(1, 64, 64), features=False), jax.random.key(0))
