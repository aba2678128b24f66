"""Faster R-CNN on a pyramid against torchvision from drawn weights, counts of the papers, and its parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from canon import models, weights
from canon.errors import UsageError
from canon.ops.proposals import propose
from canon.tasks.detection.regions import RegionSettings, RPNSettings, faster_rcnn_task
from canon.tasks.detection.single_shot import DetectionSettings
from canon.weights.faster_rcnn import TORCHVISION, region_reader
from tests.models.drawn import distance, draw_detector_parameter, draw_parameter, images
from tests.models.goldens import Golden, count, draw_variables, shapes_of
from tests.quick import quick_jit

FPN = 'faster_rcnn.fasterrcnn_resnet50_fpn'
VGG = dict(backbone=dict(name='vgg.vgg11', width=0.0625))
NARROW = dict(**VGG, num_classes=3, units=(16, 8), rpn_channels=12)


@pytest.fixture(scope='module')
def golden():
    return Golden('faster_rcnn')


def stored(golden, part):
    return golden.parts[part]['']


@pytest.fixture(scope='module')
def fpn():
    model = models.make_model(FPN)
    return model, shapes_of(model, (1, 64, 64, 3))


def test_counts_of_torchvision_and_of_the_papers(fpn):
    """41,755,286 without the frozen norms and 41,808,406 with them; the RPN adds 2,387,510 to VGG-16."""
    _, like = fpn
    assert count(like['params']) == 41_755_286
    norms = like['batch_stats']['backbone']['backbone']
    assert {name for name in norms['bn1']} == {'scale', 'bias', 'mean', 'var'}
    assert 41_755_286 + count([[n['scale'], n['bias']] for n in find_norms(norms)]) == 41_808_406
    trained = shapes_of(models.make_model(FPN, norm='batch'), (1, 64, 64, 3))
    assert count(trained['params']) == 41_808_406
    vgg = shapes_of(models.make_model('faster_rcnn.faster_rcnn_vgg16'), (1, 64, 64, 3))['params']
    assert count(vgg['rpn']) == 2_387_510
    assert count(vgg) == 134_690_729 + 2_387_510


def find_norms(tree):
    if 'mean' in tree:
        return [tree]
    return [norm for branch in tree.values() for norm in find_norms(branch)]


def test_counts_of_other_backbones():
    """ZF by the layers of the authors' prototxt; C4 by those of ResNet-50 and of both heads."""

    def conv(size, channels, features):
        return size * size * channels * features + features

    zf = shapes_of(models.make_model('faster_rcnn.faster_rcnn_zf'), (1, 224, 224, 3))['params']
    backbone = [(7, 3, 96), (5, 96, 256), (3, 256, 384), (3, 384, 384), (3, 384, 256)]
    dense = [(1, 36 * 256, 4096), (1, 4096, 4096), (1, 4096, 21), (1, 4096, 84)]
    rpn = [(3, 256, 256), (1, 256, 18), (1, 256, 36)]
    assert count(zf) == sum(conv(*layer) for layer in backbone + dense + rpn) == 59_294_751
    c4 = shapes_of(models.make_model('faster_rcnn.faster_rcnn_resnet50_c4', norm='batch'), (1, 64, 64, 3))['params']
    resnet = 25_557_032 - conv(1, 2048, 1000)
    assert count(c4) == resnet + sum(
        conv(*layer) for layer in [(1, 2048, 21), (1, 2048, 84), (3, 1024, 512), (1, 512, 9), (1, 512, 36)]
    )
    assert set(c4['head']) == {'conv5_1', 'conv5_2', 'conv5_3'}


@pytest.mark.slow
def test_outputs_and_detections_equal_torchvision(golden, fpn):
    model, like = fpn
    tensors = {key: draw_detector_parameter(key, shape) for key, shape in golden.shapes.items()}
    variables = weights.from_torch(tensors, like, TORCHVISION[FPN])
    anchors = model.anchors(96, 128)
    assert distance(np.concatenate(anchors), stored(golden, 'anchors')) < 1e-6
    boxes = stored(golden, 'boxes')[None]
    pooling = model.pooling._replace(canonical_size=28.0)
    x = images(1, 96, 128)

    task = faster_rcnn_task(
        model,
        lambda batch: batch['image'],
        DetectionSettings(score_threshold=0.05, iou_threshold=0.5, per_class=1000, max_detections=100),
        RPNSettings(test_pre_nms=1000, test_post_nms=1000, min_size=1e-3),
        RegionSettings(),
    )

    @quick_jit
    def compute(variables, x):
        maps = model.apply(variables, x, method='extract')
        outputs = model.apply(variables, maps, method='propose')
        proposals, _, valid = propose(outputs['objectness'], outputs['offsets'], anchors, (96, 128), 1000, 1000)
        regions = model.apply(variables, maps, proposals, (96, 128), method='classify')
        parts = maps, outputs, pooling.pool(maps, boxes, model.strides), proposals, valid, regions
        # In one program, whose equal parts the compiler computes once.
        return parts, task.predict(variables['params'], {'batch_stats': variables['batch_stats']}, {'image': x})

    (maps, outputs, pooled, proposals, valid, regions), found = compute(variables, x)
    for ours, row in zip(maps, stored(golden, 'levels'), strict=True):
        assert distance(ours, row) < 1e-5
    objectness = np.concatenate(outputs['objectness'], 1)
    assert distance(objectness.reshape(-1, 1), stored(golden, 'objectness')) < 1e-5
    assert distance(np.concatenate(outputs['offsets'], 1)[0], stored(golden, 'offsets')) < 1e-5
    assert distance(pooled[0], stored(golden, 'pooled')) < 1e-5
    number = len(stored(golden, 'proposals'))
    assert valid.sum() == number
    np.testing.assert_allclose(proposals[0, :number], stored(golden, 'proposals'), atol=2e-3)
    assert distance(regions['logits'][0, :number], stored(golden, 'region_logits')) < 1e-5
    assert distance(regions['offsets'][0, :number], stored(golden, 'region_offsets')) < 1e-5

    detected = np.asarray(found['valid'][0])
    assert detected.sum() == len(stored(golden, 'detected_scores')) > 10
    np.testing.assert_allclose(found['scores'][0, detected], stored(golden, 'detected_scores'), rtol=1e-4)
    np.testing.assert_array_equal(found['labels'][0, detected] + 1, stored(golden, 'detected_labels'))
    np.testing.assert_allclose(found['boxes'][0, detected], stored(golden, 'detected_boxes'), atol=5e-3)


def test_published_weights_load_by_name(golden, fpn, tmp_path):
    """A file with torchvision's keys fills every leaf, under its names of 2019 too; no torch is needed."""
    _, like = fpn
    tensors = {k: np.broadcast_to(np.float32(i), s) for i, (k, s) in enumerate(golden.shapes.items())}
    window = draw_parameter('roi_heads.box_head.fc6.weight', (1024, 256 * 49))
    tensors['roi_heads.box_head.fc6.weight'] = window
    ours = weights.from_torch(tensors, like, TORCHVISION[FPN])
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, dict(like))
    kernel = ours['params']['head']['fc6']['kernel'].reshape(7, 7, 256, 1024)
    np.testing.assert_array_equal(kernel[2, 3, :, 5], window[5].reshape(256, 7, 7)[:, 2, 3])
    scale = ours['batch_stats']['backbone']['backbone']['conv3_1']['shortcut_bn']['scale']
    assert (scale == tensors['backbone.body.layer2.0.downsample.1.weight'][0]).all()
    back = weights.to_torch(ours, TORCHVISION[FPN])
    assert {k: v.shape for k, v in back.items()} == golden.shapes
    assert weights.find_names(FPN).keys() == {('torchvision', entry) for entry in TORCHVISION}

    old = {rename(key): array for key, array in tensors.items() if 'body' not in key and 'fc6' not in key}
    save_file({k: np.ascontiguousarray(v) for k, v in old.items()}, tmp_path / 'coco.safetensors')
    leaves = {'/'.join(path): leaf for path, leaf in flatten(like['params'])}
    arrays = region_reader(FPN)(str(tmp_path / 'coco.safetensors'), leaves)
    assert arrays is not None
    for ours_, theirs in (('rpn/conv', 'rpn.head.conv.0.0'), ('backbone/smooth4', 'backbone.fpn.layer_blocks.2.0')):
        assert (arrays[f'{ours_}/bias'] == tensors[f'{theirs}.bias'][0]).all()


def rename(key):
    """The key before torchvision 0.14."""
    return key.replace('head.conv.0.0', 'head.conv').replace('.0.weight', '.weight').replace('.0.bias', '.bias')


def flatten(tree, path=()):
    if not hasattr(tree, 'items'):
        return [(path, tree)]
    return [pair for name, branch in tree.items() for pair in flatten(branch, (*path, name))]


def test_a_classifier_fills_backbone_and_head(tmp_path):
    """A ResNet's conv5_x becomes the head of C4; the layers of a pyramid are not a classifier's."""
    like = {
        'backbone/bn1/bias': np.zeros(64), 'backbone/conv4_6/conv2/kernel': np.zeros((3, 3, 4, 4)),
        'head/conv5_1/conv1/kernel': np.zeros((1, 1, 4, 4)), 'logits/bias': np.ones(3),
        'batch_stats/head/conv5_1/bn2/mean': np.zeros(4),
    }  # fmt: skip
    tensors = {
        'bn1.bias': draw_parameter('a.bias', (64,)), 'layer3.5.conv2.weight': draw_parameter('b.weight', (4, 4, 3, 3)),
        'layer4.0.conv1.weight': draw_parameter('c.weight', (4, 4, 1, 1)),
        'layer4.0.bn2.running_mean': draw_parameter('d.running_mean', (4,)),
    }  # fmt: skip
    save_file(tensors, tmp_path / 'resnet50.safetensors')
    path = str(tmp_path / 'resnet50.safetensors')
    arrays = region_reader('faster_rcnn.faster_rcnn_resnet50_c4')(path, like)
    assert arrays is not None
    assert arrays.keys() == like.keys()
    np.testing.assert_array_equal(arrays['batch_stats/head/conv5_1/bn2/mean'], tensors['layer4.0.bn2.running_mean'])
    kernel = tensors['layer3.5.conv2.weight'].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(arrays['backbone/conv4_6/conv2/kernel'], kernel)
    assert arrays['logits/bias'] is like['logits/bias']
    pyramid = {
        'backbone/backbone/bn1/bias': np.zeros(64),
        'backbone/lateral2/bias': np.ones(4),
        'head/fc6/bias': np.ones(2),
    }
    arrays = region_reader(FPN)(path, pyramid)
    assert arrays is not None
    np.testing.assert_array_equal(arrays['backbone/backbone/bn1/bias'], tensors['bn1.bias'])
    assert all(arrays[name] is pyramid[name] for name in ('backbone/lateral2/bias', 'head/fc6/bias'))
    with pytest.raises(UsageError, match=r"no published weights are known for model 'faster_rcnn\.faster_rcnn'"):
        region_reader('faster_rcnn.faster_rcnn')


def test_parts_compose_and_anchors_fit():
    """`__call__` is extract, propose and classify; two scores per anchor act as their difference; odd images."""
    model = models.make_model('faster_rcnn.faster_rcnn', **NARROW, scores='softmax', anchor_form='rounded')
    variables, x = draw_variables(model, (2, 75, 50, 3)), images(2, 75, 50)
    boxes = jnp.array([[[0, 0, 50, 75], [3, 4, 40, 30.0]]] * 2)

    @quick_jit
    def compute(variables, x, boxes):
        def parts(module, x):
            maps = module.extract(x)
            proposed = module.propose(maps)
            raw = module.rpn.clone(parent=None, scores='sigmoid', anchors=18)
            rows = {'params': {**variables['params']['rpn'], 'offsets': draw(36 * 2)}}
            return proposed, raw.apply(rows, maps)['objectness'], module.classify(maps, boxes, x.shape[1:3])

        def draw(features):
            return {'kernel': jnp.zeros((1, 1, 12, features)), 'bias': jnp.zeros(features)}

        return model.apply(variables, x, boxes), model.apply(variables, x, method=parts)

    whole, (proposed, raw, regions) = compute(variables, x, boxes)
    jax.tree.map(np.testing.assert_array_equal, whole, {'proposals': proposed, 'regions': regions})
    (anchors,) = model.anchors(75, 50)
    assert proposed['offsets'][0].shape == (2, *anchors.shape)
    background, foreground = np.split(np.asarray(raw[0]).reshape(2, -1, 18), 2, -1)  # channels of a place
    np.testing.assert_allclose(proposed['objectness'][0].reshape(2, -1, 9), foreground - background, atol=1e-6)
    # Module that is bound, as within a task's prediction.
    inside = jax.eval_shape(
        lambda v, x: model.apply(v, x, method=lambda m, _: jnp.asarray(m.anchors(75, 50)[0])), variables, x
    )
    assert inside.shape == anchors.shape


def test_boxes_outside_or_without_area_are_finite():
    """Fully connected and ResNet heads, maximum and RoIAlign; class-agnostic offsets; gradients of everything."""
    boxes = jnp.array([[[-50, -9, -20, -3], [5, 5, 5, 5], [1000, 3, 2000, 9], [0, 0, 64, 64.0]]])
    resnet = dict(name='resnet.resnet18', width=0.0625, norm='frozen')
    cases = (
        dict(**NARROW),
        dict(backbone=resnet, head='stage', pool_size=14, pooling='align', aligned=True, class_agnostic=True),
        dict(backbone=dict(name='feature_pyramid.feature_pyramid', min_stride=8, **VGG, channels=8), units=(8, 8)),
    )
    for arguments in cases:
        model = models.make_model('faster_rcnn.faster_rcnn', **arguments)
        variables, x = draw_variables(model, (1, 64, 64, 3)), images(1, 64, 64)

        def loss(params, variables=variables, model=model, x=x):
            outputs = model.apply({**variables, 'params': params}, x, boxes, True, rngs={'dropout': jax.random.key(0)})
            return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(outputs)), outputs

        if 'class_agnostic' in arguments:
            _, outputs = quick_jit(loss)(variables['params'])
            assert outputs['regions']['offsets'].shape[2] == 1
        else:
            (_, outputs), grads = quick_jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])
            assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(grads['backbone']))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(outputs))


def test_precision():
    model = models.make_model('faster_rcnn.faster_rcnn', **NARROW, dtype='bfloat16')
    outputs, variables = jax.eval_shape(
        model.init_with_output, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, variables))} == {np.dtype(np.float32)}


def test_bad_input_is_one_clear_line():
    def make(name='faster_rcnn.faster_rcnn', **arguments):
        return models.make_model(name, **{**NARROW, **arguments})

    with pytest.raises(UsageError, match=r"model\.anchor_form='round' is unknown; did you mean 'rounded'"):
        make(anchor_form='round')
    with pytest.raises(UsageError, match=r"model\.scores='softmx' is unknown; did you mean 'softmax'"):
        make(scores='softmx')
    with pytest.raises(UsageError, match=r'model\.anchor_sizes=.* must have as many sizes for each of 1 maps'):
        make(anchor_sizes=((32,), (64,)))
    with pytest.raises(UsageError, match=r'model\.stride=64: the backbone has stages of strides 1, 2, 4, 8, 16, 32'):
        make(stride=64)
    with pytest.raises(UsageError, match=r"model\.head='stage' needs a backbone 'resnet\.resnet50'"):
        make(head='stage')
    with pytest.raises(UsageError, match=r'model\.unit: faster_rcnn takes no such key; did you mean'):
        make(unit=3)
    with pytest.raises(UsageError, match='FasterRCNN takes images of at least 32x32, not 16x64'):
        shapes_of(make(), (1, 16, 64, 3))
