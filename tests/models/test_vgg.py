"""VGG against torchvision's outputs and names, the paper's counts, its dense form against windows, and single rows."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from canon import models, weights
from canon.errors import UsageError
from canon.models import vgg
from canon.weights.vgg import TIMM, TORCHVISION
from tests.models.drawn import distance, images
from tests.models.goldens import Golden, check_bfloat16, check_evaluation, count, shapes_of
from tests.models.reach import check_fields
from tests.quick import quick_jit

KEYS = Path(__file__).parent / 'golden/vgg_keys.txt'


def make(name, **kwargs) -> Any:
    return models.make_model(f'vgg.{name}', **kwargs)


def test_the_table_of_counts():
    for row in vgg.TABLE:
        made = shapes_of(models.make_model(row['name'], **row['arguments']), (1, row['size'], row['size'], 3))
        assert count(made['params']) == row['parameters']
    millions = dict(vgg11=133, vgg11_lrn=133, vgg13=133, vgg16_c=134, vgg16=138, vgg19=144)  # Table 2
    by_name = {row['name']: row['parameters'] for row in vgg.TABLE if not row['arguments']}
    assert {f'vgg.{k}': v for k, v in millions.items()} == {k: round(v / 1e6) for k, v in by_name.items()}


def test_weight_layers():
    """The digits of the names are the weight layers of Table 1; C's 1x1 ones are the last of its three columns."""
    layers = dict(vgg11=11, vgg11_lrn=11, vgg13=13, vgg16_c=16, vgg16=16, vgg19=19)
    for name, number in layers.items():
        params = shapes_of(make(name), (1, 32, 32, 3))['params']
        assert len(params) == number, name
    small = [k for k, p in shapes_of(make('vgg16_c'), (1, 32, 32, 3))['params'].items() if p['kernel'].shape[0] == 1]
    assert small == ['conv3_3', 'conv4_3', 'conv5_3']


def published_keys():
    """{(publisher, our entry): {key: shape}} of torchvision's and timm's state_dicts."""
    keys: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    for line in KEYS.read_text().splitlines():
        publisher, net, key, shape = line.split()
        entry = 'vgg.' + net.removesuffix('_bn') + (' batch_norm' if net.endswith('_bn') else '')
        keys.setdefault((publisher, entry), {})[key] = tuple(map(int, shape.split(',')))
    return keys


def test_names_and_shapes_are_the_publishers():
    for (publisher, entry), theirs in published_keys().items():
        names = {'torchvision': TORCHVISION, 'timm': TIMM}[publisher][entry]
        like = shapes_of(models.make_model(entry.split()[0], batch_norm='batch_norm' in entry), (1, 32, 32, 3))
        like = {collection: like[collection] for collection in ('params', 'batch_stats') if collection in like}
        empty = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), like)
        ours = weights.to_torch(empty, names)
        assert {k: v.shape for k, v in ours.items()} == theirs, (publisher, entry)


@pytest.mark.slow
def test_timm_keeps_the_same_numbers_as_convolutions():
    """A tree out by either publisher's names comes back the same; the two differ by a reshape of fc6 and fc7 alone."""
    model = make('vgg11', width=1 / 32, num_classes=5)
    tree = quick_jit(model.init)(jax.random.key(0, impl='rbg'), np.zeros((1, 32, 32, 3), np.float32))
    by = {name: weights.to_torch(tree, table['vgg.vgg11']) for name, table in (('tv', TORCHVISION), ('timm', TIMM))}
    for name, table in (('tv', TORCHVISION), ('timm', TIMM)):
        back = weights.from_torch(by[name], tree, table['vgg.vgg11'])
        jax.tree.map(np.testing.assert_array_equal, back, {'params': tree['params']})
    for theirs, ours in (('pre_logits.fc1', 'classifier.0'), ('pre_logits.fc2', 'classifier.3')):
        convolution, matrix = by['timm'][f'{theirs}.weight'], by['tv'][f'{ours}.weight']
        np.testing.assert_array_equal(convolution.reshape(matrix.shape), matrix)
    np.testing.assert_array_equal(by['timm']['head.fc.weight'], by['tv']['classifier.6.weight'])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vgg11', 'vgg13', 'vgg16', 'vgg11_bn'])
def test_torchvision(name):
    golden = Golden(name)
    net, batch_norm = name.removesuffix('_bn'), name.endswith('_bn')
    model = make(net, batch_norm=batch_norm, dropout=0.0)
    names = TORCHVISION[f'vgg.{net}' + (' batch_norm' if batch_norm else '')]
    variables = golden.variables(shapes_of(model, (1, 224, 224, 3)), names)
    for part, size in (('large', (1, 224, 224)), ('small', (2, 100, 70))):
        check_evaluation(model, variables, size, golden.parts[part])
    if batch_norm:
        check_training_pass(golden, model, variables, names)


def check_training_pass(golden, model, variables, names):
    """The logits of one training pass, and every running statistic after it, within 1e-5 of the largest value."""
    step = quick_jit(lambda v, x: model.apply(v, x, True, mutable=['batch_stats']))
    logits, changed = step(variables, images(4, 64, 72))
    expected = golden.parts['train']
    assert np.abs(logits - expected['logits']).max() < 1e-5 * np.abs(expected['logits']).max()
    ours = weights.to_torch({**variables, 'batch_stats': changed['batch_stats']}, names)
    running = [key for key in golden.shapes if '.running_' in key]
    assert set(running) == {key for key in ours if '.running_' in key}
    far = {key: distance(ours[key], row) for key, row in zip(running, expected['statistics'], strict=True)}
    assert max(far.values()) < 1e-5, far


def test_dense_evaluation():
    """Place (i, j) of the map is the plain head, in float64, on pool5's window there; on 224 it is the logits."""
    plain, dense = (make('vgg11', width=1 / 16, num_classes=3, init='glorot', dense=dense) for dense in (False, True))
    crop, large = images(2, 224, 224), images(1, 290, 256)

    @quick_jit
    def run(crop, large):
        variables = plain.init(jax.random.key(0, impl='rbg'), crop)
        return (
            variables,
            plain.apply(variables, crop),
            dense.apply(variables, crop),
            dense.apply(variables, large),
            dense.apply(variables, large, method='features')['pool5'],
        )

    variables, logits, single, many, pool5 = run(crop, large)
    assert shapes_of(dense, (1, 290, 256, 3)) == shapes_of(plain, (1, 224, 224, 3))
    assert single.shape == (2, 1, 1, 3)
    np.testing.assert_allclose(single[:, 0, 0], logits, atol=1e-6 * np.abs(logits).max())
    assert pool5.shape[1:3] == (9, 8)
    assert many.shape == (1, 3, 2, 3)
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables['params'])
    for i, j in np.ndindex(3, 2):
        x = np.asarray(pool5[0, i : i + 7, j : j + 7], np.float64).reshape(-1)
        for layer in ('fc6', 'fc7'):
            x = np.maximum(x @ p[layer]['kernel'] + p[layer]['bias'], 0)
        x = x @ p['fc8']['kernel'] + p['fc8']['bias']
        np.testing.assert_allclose(many[0, i, j], x, atol=3e-6 * np.abs(x).max())


def test_shallow_to_deep_transfers_the_papers_layers():
    """Section 3.1: A's first four convolutions and fully connected layers, of the same shapes in the deeper nets."""
    taken = {'conv1_1', 'conv2_1', 'conv3_1', 'conv3_2', 'fc6', 'fc7', 'fc8'}
    for batch_norm in (False, True):
        shallow = flat(shapes_of(make('vgg11', batch_norm=batch_norm), (1, 32, 32, 3)))
        convolutions = [name for name in shallow if re.fullmatch(r'conv._./kernel', name)]
        assert {name.partition('/')[0] for name in convolutions[:4]} == {n for n in taken if n.startswith('conv')}
        for net in ('vgg13', 'vgg16_c', 'vgg16', 'vgg19'):
            deep = flat(shapes_of(make(net, batch_norm=batch_norm), (1, 32, 32, 3)))
            transferred = {name for name in deep if not re.search(vgg.SHALLOW_TO_DEEP['new'], name)}
            layers = taken | ({name.replace('conv', 'bn') for name in taken} if batch_norm else set())
            assert {name.removeprefix('batch_stats/').partition('/')[0] for name in transferred} == layers, net
            assert {name: deep[name].shape for name in transferred} == {
                name: shallow[name].shape for name in transferred
            }


def flat(variables) -> dict[str, Any]:
    """Names as `run.init_from` sees them."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        keys = [k.key for k in path]
        leaves['/'.join(keys[1:] if keys[0] == 'params' else keys)] = leaf
    return leaves


def test_receptive_fields_and_strides():
    pool, paths = (2, 2, 0), {}
    windows: list[tuple[int, int, int]] = []
    for column, kernels in enumerate(vgg._KERNELS['C'], start=1):
        windows += [(k, 1, k // 2) for k in kernels]
        paths[f'conv{column}'] = list(windows)
        windows.append(pool)
    paths['pool5'] = windows
    model = make('vgg16_c', width=1 / 32)
    check_fields(model, shapes_of(model, (1, 32, 32, 3)), paths, 420, 32)


@pytest.mark.slow
def test_initialisation():
    """Section 3.1: kernels of variance 1e-2; or Glorot & Bengio's uniform rule. Biases 0."""
    x, key = np.zeros((1, 32, 32, 3), np.float32), jax.random.key(0, impl='rbg')
    params = quick_jit(make('vgg11', width=1 / 16).init)(key, x)['params']
    for name, layer in params.items():
        assert (layer['bias'] == 0).all(), name
        assert abs(layer['kernel'].std() / 0.1 - 1) < 4 / np.sqrt(layer['kernel'].size), name
    shape = (3, 3, 32, 64)
    assert abs(make('vgg16', std=0.01).kernel_init(key, shape).std() / 0.01 - 1) < 4 / np.sqrt(np.prod(shape))
    bound = np.sqrt(6 / (9 * (32 + 64)))
    glorot = np.abs(make('vgg16', init='glorot').kernel_init(key, shape))
    assert 0.99 * bound < glorot.max() <= bound
    assert abs(glorot.mean() / (bound / 2) - 1) < 0.02
    he = make('vgg16', init='he').kernel_init(key, shape)
    assert abs(he.std() / np.sqrt(2 / (9 * 32)) - 1) < 4 / np.sqrt(np.prod(shape))


def test_a_lrn_differs_by_lrn_alone():
    """After conv1 alone: the stages up to it are A's, those beyond are what follows from a normalised conv1."""
    a, lrn = make('vgg11', width=1 / 16), make('vgg11_lrn', width=1 / 16)
    x = 100 * images(1, 32, 32)

    @quick_jit
    def run(x):
        variables = a.init(jax.random.key(0, impl='rbg'), x)
        return variables, *(model.apply(variables, x, method='features') for model in (a, lrn))

    variables, plain, normed = run(x)
    np.testing.assert_array_equal(plain['conv1'], normed['conv1'])
    normalised = np.asarray(normed['conv1'], np.float64)
    squares = np.pad(normalised**2, ((0, 0),) * 3 + ((2, 2),))
    normalised /= (2 + 1e-4 * sum(squares[..., i : i + normalised.shape[-1]] for i in range(5))) ** 0.75
    normalised = normalised.reshape(1, 16, 2, 16, 2, -1).max((2, 4))
    kernel = np.asarray(variables['params']['conv2_1']['kernel'], np.float64)
    patches = np.lib.stride_tricks.sliding_window_view(
        np.pad(normalised, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    expected = np.maximum(np.einsum('bhwcij,ijcn->bhwn', patches, kernel), 0)
    assert np.abs(normed['conv2'] - expected).max() < 3e-6 * expected.max()


def test_bfloat16():
    check_bfloat16(make('vgg16', dtype='bfloat16', batch_norm=True), 32)


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match='VGG takes images of at least 32x32, not 31x40; resize'):
        shapes_of(make('vgg19'), (1, 31, 40, 3))
    with pytest.raises(UsageError, match='dense VGG takes images of at least 224x224, not 200x300; resize'):
        shapes_of(make('vgg16', dense=True), (1, 200, 300, 3))
    with pytest.raises(UsageError, match=r"model\.init='glorott' is unknown; did you mean 'glorot'"):
        make('vgg13', init='glorott')
    with pytest.raises(UsageError, match=r"model\.batchnorm: vgg11 takes no such key; did you mean 'batch_norm'"):
        make('vgg19', batchnorm=True)
    with pytest.raises(UsageError, match=r'model\.width=0\.001 leaves none of 64 channels'):
        shapes_of(make('vgg11', width=0.001), (1, 32, 32, 3))
