"""Weights between torch's files and Flax trees: layouts proved by what the layers compute, errors by their words."""

import sys
import types

import flax.linen as linen
import jax
import numpy as np
import pytest

from canon import models, nn, weights
from canon.errors import CanonError, UsageError
from canon.weights import files, published


class Net(nn.Network):
    """A convolution, a normalisation, a dense layer on the flattened map."""

    classes: int = 5

    @linen.compact
    def __call__(self, x, train=False, features=False):
        x = nn.Conv(4, (3, 2), padding=1, groups=2, name='conv')(x)
        x = nn.BatchNorm(name='norm')(x, train)
        return linen.Dense(self.classes, name='head')(x.reshape(len(x), -1))


NAMES = weights.Names(
    weights.substitute((r'^conv$', 'features.0'), (r'^norm$', 'features.1'), ('^head', 'classifier')),
    {'head': (3, 4)},
)
IMAGES = np.random.default_rng(0).standard_normal((2, 3, 3, 6)).astype(np.float32)


def variables(classes=5):
    return jax.tree.map(np.asarray, Net(classes).init(jax.random.key(1), IMAGES))


@pytest.fixture(autouse=True)
def _published(monkeypatch):
    family = types.SimpleNamespace(TORCHVISION={'toy.net': NAMES})
    monkeypatch.setitem(sys.modules, 'canon.weights.toy', family)
    real = published.pkgutil.iter_modules

    def modules(path):
        toy = [types.SimpleNamespace(name='toy')] if list(path) == list(weights.__path__) else []
        return [*real(path), *toy]

    monkeypatch.setattr(published.pkgutil, 'iter_modules', modules)


def test_layouts_are_torchs():
    """Each output computed from torch's layouts by loops over torch's indices: NCHW, OIHW, channel-first flattening."""
    ours = variables()
    torch = weights.to_torch(ours, NAMES)
    assert {k: v.shape for k, v in torch.items()} == {
        'features.0.weight': (4, 3, 3, 2), 'features.0.bias': (4,), 'features.1.weight': (4,), 'features.1.bias': (4,),
        'features.1.running_mean': (4,), 'features.1.running_var': (4,), 'classifier.weight': (5, 48),
        'classifier.bias': (5,),
    }  # fmt: skip
    x = np.pad(IMAGES.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((2, 4, 3, 4))
    for o in range(4):
        part = slice(0, 3) if o < 2 else slice(3, 6)
        for i in range(3):
            for j in range(4):
                y[:, o, i, j] = (x[:, part, i : i + 3, j : j + 2] * torch['features.0.weight'][o]).sum((1, 2, 3))
    y = y / np.sqrt(1 + 1e-5)
    expected = y.reshape(2, -1) @ torch['classifier.weight'].T
    assert np.abs(expected - np.asarray(Net().apply(ours, IMAGES))).max() < 1e-5


def test_a_round_trip_is_the_identity(tmp_path):
    ours = variables()
    weights.save_variables(tmp_path / 'deep' / 'net.safetensors', 'toy.net', ours)
    back = weights.load_variables(
        tmp_path / 'deep' / 'net.safetensors', 'toy.net', jax.eval_shape(Net().init, jax.random.key(0), IMAGES)
    )
    jax.tree.map(np.testing.assert_array_equal, back, ours)


def test_half_precision_becomes_float32(tmp_path):
    import ml_dtypes

    tensors = {k: v.astype(ml_dtypes.bfloat16) for k, v in weights.to_torch(variables(), NAMES).items()}
    weights.write(tmp_path / 'a.safetensors', tensors)
    back = weights.load_variables(tmp_path / 'a.safetensors', 'toy.net', variables())
    assert back['params']['conv']['kernel'].dtype == np.float32
    np.testing.assert_allclose(back['params']['conv']['kernel'], variables()['params']['conv']['kernel'], rtol=1e-2)


def test_another_network_is_an_error_that_lists_what_differs(tmp_path):
    tensors = weights.to_torch(variables(), NAMES) | {'features.1.num_batches_tracked': np.zeros(())}
    weights.from_torch(tensors, variables(), NAMES)
    tensors['features.7.weight'] = tensors.pop('features.0.weight')
    with pytest.raises(UsageError, match=r'missing features\.0\.weight, left over features\.7\.weight'):
        weights.from_torch(tensors, variables(), NAMES, 'x.pth')
    with pytest.raises(UsageError, match=r'classifier\.bias \[5\], here \[7\].*num_classes'):
        weights.from_torch(weights.to_torch(variables(), NAMES), variables(7), NAMES)


def test_a_reader_renames_known_keys_and_keeps_the_others(tmp_path):
    tensors = weights.to_torch(variables(), NAMES) | {'extra.weight': np.zeros(3, np.float32)}
    weights.write(tmp_path / 'a.safetensors', tensors)
    flat = {'conv/kernel': 0, 'conv/bias': 0, 'norm/scale': 0, 'norm/bias': 0, 'batch_stats/norm/mean': 0,
            'batch_stats/norm/var': 0, 'head/kernel': 0, 'head/bias': 0}  # fmt: skip
    flat = {k: np.float32(v) for k, v in flat.items()}
    got = weights.reader('toy.net')(str(tmp_path / 'a.safetensors'), flat)
    assert got is not None
    assert got.keys() == flat.keys() | {'extra.weight'}
    np.testing.assert_array_equal(got['head/kernel'], variables()['params']['head']['kernel'])
    assert weights.reader('toy.net')(str(tmp_path), flat) is None  # a folder is a run's


def test_hub_names():
    assert files._parse_hub('timm/resnet50.tv_in1k') == ('timm/resnet50.tv_in1k', 'model.safetensors')
    assert files._parse_hub('hub:timm/resnet50.tv_in1k:other/x.safetensors') == (
        'timm/resnet50.tv_in1k',
        'other/x.safetensors',
    )
    assert files._parse_hub('runs/a/b') is None
    assert files.is_weights('timm/resnet50.tv_in1k')
    assert files.is_weights('here/x.safetensors')
    assert not files.is_weights('runs/classification/lenet_digits/default')


def test_from_the_hub(tmp_path, monkeypatch):
    """The download itself is huggingface_hub's; ours is what is asked for."""
    import huggingface_hub

    weights.save_variables(tmp_path / 'model.safetensors', 'toy.net', variables())
    requests = []
    monkeypatch.setattr(
        huggingface_hub, 'hf_hub_download', lambda *a: requests.append(a) or str(tmp_path / 'model.safetensors')
    )
    weights.load_variables('timm/toy', 'toy.net', variables())
    assert requests == [('timm/toy', 'model.safetensors')]

    def refuse(*_):
        raise OSError('no network')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    with pytest.raises(CanonError, match=r'timm/toy .*did not come from the hub: no network'):
        weights.read('timm/toy')


def test_errors_of_files(tmp_path):
    with pytest.raises(UsageError, match='does not exist'):
        weights.read(str(tmp_path / 'none.safetensors'))
    (tmp_path / 'bad.safetensors').write_bytes(b'\x00' * 4)
    with pytest.raises(CanonError, match='cannot be read as safetensors'):
        weights.read(tmp_path / 'bad.safetensors')
    (tmp_path / 'a.txt').write_text('x')
    with pytest.raises(UsageError, match='not a file of weights'):
        weights.read(tmp_path / 'a.txt')
    with pytest.raises(UsageError, match='give it that suffix'):
        weights.write(tmp_path / 'a.pth', {})
    with pytest.raises(
        UsageError, match=r"no published weights are known for model 'toy.nett'; did you mean 'toy.net'"
    ):
        published.find_names('toy.nett')


@pytest.mark.parametrize('batch_norm', [False, True])
def test_a_network_of_several_forms_is_written_in_its_own(tmp_path, batch_norm):
    """VGG with batch normalisation numbers its layers otherwise; under the plain net's names it would lose some."""
    net = models.make_model('vgg.vgg11', batch_norm=batch_norm, width=0.0625, num_classes=3)
    shapes = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    rng = np.random.default_rng(0)
    ours = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    weights.save_variables(tmp_path / 'vgg.safetensors', 'vgg.vgg11', ours)
    written = weights.read(tmp_path / 'vgg.safetensors')
    assert len(written) == len(jax.tree.leaves(ours))
    assert ('features.1.running_mean' in written) == batch_norm
    jax.tree.map(
        np.testing.assert_array_equal, weights.load_variables(tmp_path / 'vgg.safetensors', 'vgg.vgg11', shapes), ours
    )


def test_a_form_that_nobody_publishes_is_refused(tmp_path):
    ours = {'params': {'conv9_9': {'kernel': np.zeros((1, 1, 1, 1), np.float32)}}}
    with pytest.raises(UsageError, match=r"no published weights are known for this form of model 'vgg\.vgg11'"):
        weights.save_variables(tmp_path / 'vgg.safetensors', 'vgg.vgg11', ours)


def test_incomplete_variables_are_not_saved(tmp_path):
    """Bare parameters wrote an empty file; without statistics, or under another depth's name, half a network."""
    complete = variables()
    for broken, message in [
        (complete['params'], r"expected variables .'params': \.\.\., 'batch_stats': \.\.\.., got conv, head, norm"),
        ({}, 'got nothing'),
        ({'params': complete['params']}, 'batch_stats lacks norm; give all that model.init gives'),
    ]:
        with pytest.raises(UsageError, match=message):
            weights.save_variables(tmp_path / 'a.safetensors', 'toy.net', broken)
        with pytest.raises(UsageError, match=message):
            weights.to_torch(broken, NAMES)
    assert not (tmp_path / 'a.safetensors').exists()


def zeros_of(name, **arguments):
    net = models.make_model(name, num_classes=3, **arguments)
    shapes = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def test_another_depths_name_is_refused(tmp_path):
    thin = {'width': 0.0625}
    for source, named, arguments in [
        ('resnet.resnet18', 'resnet.resnet34', {}),
        ('vgg.vgg11', 'vgg.vgg16', thin),
        ('vgg.vgg16', 'vgg.vgg11', thin),
    ]:
        ours = zeros_of(source, **arguments)
        with pytest.raises(UsageError, match=r'these variables are not all of|no published weights are known for this'):
            weights.save_variables(tmp_path / 'a.safetensors', named, ours)
        weights.save_variables(tmp_path / 'a.safetensors', source, ours)
    bottlenecks = {'conv2_1': {'conv3': {'kernel': np.zeros((1, 1, 2, 2))}}}
    resnet34 = published.find_names('resnet.resnet34')['torchvision', 'resnet.resnet34']
    assert not resnet34.fits({'params': bottlenecks})
    basic = {'params': {f'conv2_{i}': {f'conv{j}': {'kernel': 0} for j in (1, 2)} for i in (1, 2, 3)}}
    resnet50 = published.find_names('resnet.resnet50')['torchvision', 'resnet.resnet50']
    assert 'conv2_1/conv3' in resnet50.missing(basic)


@pytest.mark.parametrize('name', ['resnet.resnet50', 'mobilenet.mobilenet_v2', 'inception.inception_v4'])
def test_every_required_module_is_one_of_the_network(name):
    """`required` is written by hand in some families: what it names must be in the network."""
    net = models.make_model(name, num_classes=3)
    shapes = jax.eval_shape(net.init, jax.random.key(0), np.zeros((1, 128, 128, 3), np.float32))
    for names in published.find_names(name).values():
        assert names.required
        assert not names.missing(shapes)
        assert names.fits(shapes)


@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'int32'])
def test_integers_are_codes_not_weights(tmp_path, dtype):
    tensors = {k: (20 * v).astype(dtype) for k, v in weights.to_torch(variables(), NAMES).items()}
    weights.write(tmp_path / 'a.safetensors', tensors)
    with pytest.raises(UsageError, match=rf'a.safetensors: features.0.bias is {dtype}; weights are floats'):
        weights.load_variables(tmp_path / 'a.safetensors', 'toy.net', variables())


@pytest.mark.parametrize('kind', ['float8_e4m3fn', 'float8_e5m2'])
def test_eight_bit_floats_become_float32(tmp_path, kind):
    import ml_dtypes

    tensors = {k: v.astype(getattr(ml_dtypes, kind)) for k, v in weights.to_torch(variables(), NAMES).items()}
    weights.write(tmp_path / 'a.safetensors', tensors)
    back = weights.load_variables(tmp_path / 'a.safetensors', 'toy.net', variables())
    kernel = variables()['params']['conv']['kernel']
    expected = kernel.astype(getattr(ml_dtypes, kind)).astype(np.float32)
    np.testing.assert_array_equal(back['params']['conv']['kernel'], expected)
    assert back['params']['conv']['kernel'].dtype == np.float32


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'model.', 'module._orig_mod.', 'model._orig_mod.module.'])
def test_prefixes_of_wrappers_are_stripped(tmp_path, prefix):
    tensors = {prefix + k: v for k, v in weights.to_torch(variables(), NAMES).items()}
    weights.write(tmp_path / 'a.safetensors', tensors | {'n_averaged': np.array(7)})
    back = weights.load_variables(tmp_path / 'a.safetensors', 'toy.net', variables())
    jax.tree.map(np.testing.assert_array_equal, back, variables())


class Tensor:
    """As much of torch.Tensor as is read: a numpy array that refuses to leave while it has a gradient."""

    def __init__(self, array, requires_grad=False, is_quantized=False):
        self.array, self.requires_grad, self.is_quantized = np.asarray(array), requires_grad, is_quantized

    def detach(self):
        return Tensor(self.array)

    def float(self):
        return Tensor(self.array.astype(np.float32), self.requires_grad)

    def is_floating_point(self):
        return self.array.dtype.kind == 'f'

    def numpy(self):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.array


def test_contents_of_a_pth(tmp_path, monkeypatch):
    """Parameters with gradients and nested mappings are read; what holds no tensors is one line."""
    ours = weights.to_torch(variables(), NAMES)
    tensors = {f'module.{k}': Tensor(v, requires_grad=True) for k, v in ours.items()}
    other = {f'module.{k}': Tensor(0 * v) for k, v in ours.items()}
    held = {}
    monkeypatch.setitem(sys.modules, 'torch', types.SimpleNamespace(load=lambda *_, **__: held['content']))
    path = tmp_path / 'a.pth'
    path.write_bytes(b'')
    for content in (
        tensors,
        {'net': tensors, 'epoch': 3, 'best': Tensor(0.9)},
        {'optimizer': {'state': {0: {'exp_avg': Tensor(np.zeros(3))}}}, 'state_dict': tensors},
        {'state_dict_ema': other, 'model': tensors},
        {'checkpoint': {'weights': tensors}},
    ):
        held['content'] = content
        back = weights.load_variables(path, 'toy.net', variables())
        jax.tree.map(np.testing.assert_array_equal, back, variables())
    for content, message in [
        ([Tensor(np.zeros(3))], 'holds a list, not a mapping'),
        ({'epoch': 3}, 'holds no tensors; its keys are epoch'),
        ({'a.weight': Tensor(np.zeros(3), is_quantized=True)}, 'a.weight is quantised'),
    ]:
        held['content'] = content
        with pytest.raises(CanonError, match=message):
            weights.read(path)


def test_a_mistyped_path_is_not_requested_from_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    def refuse(*_):
        raise AssertionError('asked the hub')

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'runs').mkdir()
    for path in ('runs/x.safetensors', 'owner/x.pth', 'runs/x'):
        with pytest.raises(UsageError, match='does not exist'):
            weights.read(path)
    assert not files.is_weights('runs/x')  # a run that is not there, which its own reader says
    assert files._parse_hub('hub:runs/x') == ('runs/x', 'model.safetensors')
    (tmp_path / 'runs' / 'y.safetensors').mkdir()
    with pytest.raises(UsageError, match=r'runs/y\.safetensors is a folder or a device'):
        weights.read('runs/y.safetensors')


class Detector(linen.Module):
    """Scores on the last stage of a backbone: the least that a detector is."""

    backbone: nn.Network
    stage: str

    @linen.compact
    def __call__(self, images, train=False):
        return nn.Conv(6, 1, name='scores')(self.backbone.features(images, train)[self.stage])


@pytest.mark.parametrize(
    ('name', 'stage', 'arguments', 'classifier'),
    [
        ('resnet.resnet18', 'conv5_x', {}, {'fc.weight', 'fc.bias'}),
        (
            'vgg.vgg11',
            'pool5',
            {'width': 1 / 16},
            {f'classifier.{i}.{leaf}' for i in (0, 3, 6) for leaf in ('weight', 'bias')},
        ),
    ],
)
def test_a_backbone_is_filled_and_the_rest_keeps_its_initialisation(tmp_path, name, stage, arguments, classifier):
    """Published weights at params['backbone'], through `run.init_from` as training reads them."""
    from canon.train.checkpoint_files import name_model
    from canon.train.init_from import init_from
    from canon.train.settings import InitFrom
    from canon.train.types import State

    images = np.zeros((1, 64, 64, 3), np.float32)
    network = models.make_model(name, num_classes=3, **arguments)
    rng = np.random.default_rng(0)
    published_variables = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32),
        jax.eval_shape(network.init, jax.random.key(0), images),
    )
    path = str(tmp_path / 'published.safetensors')
    weights.save_variables(path, name, published_variables)

    detector = Detector(network, stage)
    shapes = jax.eval_shape(detector.init, jax.random.key(0), images)
    variables = dict(jax.tree.map(lambda leaf: jax.numpy.full(leaf.shape, 7.0, leaf.dtype), shapes))
    state = State(0, variables.pop('params'), variables, ())
    state = init_from(state, InitFrom(path), weights.reader(name, at='backbone'))

    for collection, tree in {'params': state.params, **state.mutable}.items():
        for module, leaves in tree['backbone'].items():
            jax.tree.map(np.testing.assert_array_equal, leaves, published_variables[collection][module])
    assert set(state.params) == {'backbone', 'scores'}
    assert all((leaf == 7).all() for leaf in jax.tree.leaves(state.params['scores']))
    arrays = weights.reader(name, at='backbone')(path, name_model(state))
    assert arrays is not None
    assert arrays.keys() - name_model(state).keys() == classifier  # which the log names as left over
    with pytest.raises(UsageError, match=r"no parameters at 'backbon' .*; did you mean 'backbone'"):
        weights.reader(name, at='backbon')(path, name_model(state))
