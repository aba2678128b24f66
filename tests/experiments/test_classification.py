"""The classification experiment piece by piece: what is averaged, what is lost, what is drawn, what leaves it."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy.special import log_softmax, softmax

from canon import data
from canon.errors import CanonError, UsageError
from canon.tasks.classification import (
    classification_evaluator,
    classification_task,
    make_image_input,
    make_loss,
    many_views,
    rank_classes,
)
from canon.tasks.classification_figures import compute_stages, draw_network, first_filters
from canon.tasks.predictions import SkippedInputs, write_predictions
from canon.train import At
from canon.train.evaluation import evaluate
from canon.train.shard import make_mesh
from canon.weights.stablehlo import export_stablehlo
from experiments import classification


class Net(nn.Module):
    """A convolution, a normalisation, a mean over space; with `heads` auxiliary classifiers, with `dense` a map."""

    classes: int = 3
    heads: int = 0
    dense: bool = False

    @nn.compact
    def __call__(self, x, train=False, features=False):
        stages = {}
        for name, size in (('stem', 3), ('after', 1)):  # an order that sorting would undo
            x = nn.Conv(4, (size, size), name=name)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, name=f'{name}_norm')(x))
            stages[name] = x
        if features:
            return stages
        for i in range(self.heads):
            if train or self.is_initializing():
                self.sow('auxiliary', f'logits{i}', nn.Dense(self.classes, name=f'head{i}')(x.mean((1, 2))))
        x = nn.Dense(self.classes, name='output')(x)
        return x if self.dense else x.mean((1, 2))

    def features(self, x, train=False):
        return self(x, train, features=True)


KEY = jax.random.key(1)
IMAGES = make_image_input((0.5,), (0.25,))


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(256, size=(6, 8, 8, 3), dtype=np.uint8)


def set_up(net, images, **loss):
    task = classification_task(net, IMAGES, **loss)
    variables = dict(jax.jit(task.init)(jax.random.key(0), {'image': images}))
    return task._replace(predict=jax.jit(task.predict), loss=jax.jit(task.loss)), variables.pop('params'), variables


def batch_of(images, labels=None):
    labels = np.arange(len(images)) % 3 if labels is None else labels
    return {'image': images, 'label': labels, 'mask': np.ones(len(images), bool)}


def test_crops_are_averaged_after_the_softmax(images):
    """Krizhevsky et al. 2012, section 4.1, as a loop over the crops."""
    task, params, mutable = set_up(Net(), images)
    crops = images.reshape(2, 3, 8, 8, 3)
    found = softmax(task.predict(params, mutable, {'image': crops}), -1)
    alone = [softmax(np.asarray(task.predict(params, mutable, {'image': c}), np.float64), -1) for c in crops]
    np.testing.assert_allclose(found, [chances.mean(0) for chances in alone], rtol=1e-5)


def test_a_map_of_scores_is_averaged_before_the_softmax(images):
    """Simonyan & Zisserman 2015, section 3.2: the same parameters, pooled by the task and not by the model."""
    task, params, mutable = set_up(Net(dense=True), images)
    pooled, *_ = set_up(Net(), images)
    wanted = pooled.predict(params, mutable, {'image': images})
    np.testing.assert_allclose(task.predict(params, mutable, {'image': images}), wanted, rtol=1e-5, atol=1e-6)


def test_scales_and_mirror_images_are_averaged_as_posteriors(images):
    task, params, mutable = set_up(Net(), images)
    wide = np.concatenate([images, images[::-1]], axis=2)  # 8 x 16
    posteriors = softmax(
        jax.jit(many_views(task.predict, scales=(5, 8), flip=True))(params, mutable, {'image': wide}), -1
    )
    small = np.stack([np.asarray(Image.fromarray(x).resize((10, 5), Image.Resampling.BILINEAR)) for x in wide])
    views = [small, wide, small[:, :, ::-1], wide[:, :, ::-1]]
    expected = np.mean([softmax(task.predict(params, mutable, {'image': v}), -1) for v in views], axis=0)
    np.testing.assert_allclose(posteriors, expected, atol=2e-3)  # Pillow rounds the small ones to whole grey levels
    flipped = softmax(jax.jit(many_views(task.predict, flip=True))(params, mutable, {'image': wide}), -1)
    expected = np.mean([softmax(task.predict(params, mutable, {'image': v}), -1) for v in views[1::2]], axis=0)
    np.testing.assert_allclose(flipped, expected, rtol=1e-5)


def test_a_scale_above_the_images_is_refused(images):
    task, params, mutable = set_up(Net(), images)
    with pytest.raises(UsageError, match='9 is more than the images have, 8x8'):
        many_views(task.predict, scales=(9,))(params, mutable, {'image': images})


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_auxiliary_heads_add_their_share_and_leave_no_trace(images, smoothing):
    smooth = make_loss(label_smoothing=smoothing)
    task, params, mutable = set_up(Net(heads=2), images, auxiliary=0.3, loss=smooth)
    assert set(mutable) == {'batch_stats'}
    batch = batch_of(images)
    loss, (new, _) = task.loss(params, mutable, batch, At(KEY, 0))
    assert jax.tree.structure(new) == jax.tree.structure(mutable)
    assert any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (new, mutable)), strict=True))
    without_heads = classification_task(Net(heads=2), IMAGES, smooth, auxiliary=0)

    @jax.jit
    def evaluate_parts(params):
        variables = {'params': params, **mutable}
        return (
            Net(heads=2).apply(variables, IMAGES(batch), train=True, mutable=['batch_stats', 'auxiliary']),
            without_heads.loss(params, mutable, batch, At(KEY, 0)),
            jax.grad(lambda p: task.loss(p, mutable, batch, At(KEY, 0))[0].total)(params),
        )

    (logits, sown), (without, _), grads = evaluate_parts(params)
    target = (1 - smoothing) * np.eye(3)[batch['label']] + smoothing / 3
    parts = [
        -(target * log_softmax(np.asarray(z, np.float64), -1)).sum()
        for z in (logits, *jax.tree.leaves(sown['auxiliary']))
    ]
    np.testing.assert_allclose(loss.total, parts[0] + 0.3 * (parts[1] + parts[2]), rtol=1e-5)
    np.testing.assert_allclose(without.total, parts[0], rtol=1e-5)
    assert float(jnp.abs(grads['head1']['kernel']).max()) > 0


def test_the_loss_of_lenet5_by_name(images):
    """LeCun et al. 1998, eq. 9: y_D + log(e^-j + sum e^-y), the logits being minus the penalties y."""
    task, params, mutable = set_up(Net(), images, loss=make_loss('maximum_a_posteriori', j=0.5))
    batch = batch_of(images)
    loss, _ = task.loss(params, mutable, batch, At(KEY, 0))
    apply = jax.jit(lambda v: Net().apply(v, IMAGES(batch), train=True, mutable=['batch_stats']))
    logits, _ = apply({'params': params, **mutable})
    y = -np.asarray(logits, np.float64)
    wanted = y[np.arange(6), batch['label']] + np.log(np.exp(-0.5) + np.exp(-y).sum(-1))
    np.testing.assert_allclose(loss.total, wanted.sum(), rtol=1e-5)


def test_a_mixture_of_labels_loses_the_mixture_of_losses(images):
    """The loss is linear in the target: Zhang et al. 2018."""
    task, params, mutable = set_up(Net(), images, loss=make_loss(soft_labels=True), soft_labels=True)
    first, second = np.arange(6) % 3, (np.arange(6) + 1) % 3
    mixed = (0.7 * np.eye(3)[first] + 0.3 * np.eye(3)[second]).astype(np.float32)
    rows = [task.loss(params, mutable, batch_of(images, y), At(KEY, 0)) for y in (mixed, first, second)]
    losses = [float(loss.total) for loss, _ in rows]
    accuracies = [float(metrics['accuracy'].value) for _, (_, metrics) in rows]
    assert losses[0] == pytest.approx(0.7 * losses[1] + 0.3 * losses[2], rel=1e-5)
    assert accuracies[0] == pytest.approx(0.7 * accuracies[1] + 0.3 * accuracies[2], rel=1e-5)


def test_the_evaluator_against_sklearn(images):
    from sklearn import metrics

    rng = np.random.default_rng(3)
    source = data.Arrays(
        {'image': rng.integers(256, size=(70, 8, 8, 3), dtype=np.uint8), 'label': rng.integers(12, size=70)}
    )
    task, params, mutable = set_up(Net(classes=12), images)
    batches = data.Once(source, 16)
    evaluator = classification_evaluator(task.predict, batches, [str(i) for i in range(12)])
    measured = evaluate(evaluator, params, mutable, make_mesh(-1, 1)).metrics
    labels = source.labels()
    chances = softmax(np.asarray(task.predict(params, mutable, source.arrays), np.float64), -1)
    guess, every = chances.argmax(-1), range(12)
    expected = {
        'loss': metrics.log_loss(labels, chances, labels=every),
        'accuracy': metrics.accuracy_score(labels, guess),
        'class_accuracy': metrics.balanced_accuracy_score(labels, guess),
        'top5_accuracy': metrics.top_k_accuracy_score(labels, chances, k=5, labels=every),
        'brier': metrics.brier_score_loss(labels, chances, labels=every, scale_by_half=False),
    }
    assert measured.keys() == expected.keys() | {'calibration_error'}
    for name, value in expected.items():
        assert measured[name] == pytest.approx(value, rel=1e-4), name


# --- pictures -------------------------------------------------------------------------------------------------------


def test_the_filters_are_those_that_meet_the_images_and_the_stages_keep_their_order(images):
    _, params, mutable = set_up(Net(), images)
    variables = {'params': params, **mutable}
    name, kernels = first_filters(Net(), variables, IMAGES({'image': images[:1]}))
    assert name == 'stem'
    np.testing.assert_array_equal(kernels, params['stem']['kernel'])
    values = compute_stages(Net(), IMAGES, variables, images)
    assert list(values) == ['stem', 'after']
    np.testing.assert_allclose(
        values['after'],
        jax.jit(lambda v: Net().apply(v, IMAGES({'image': images}), method='features'))(variables)['after'],
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_network_without_filters_or_stages_has_no_such_pictures(images):
    class Perceptron(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    _, params, mutable = set_up(Perceptron(), images)
    assert draw_network(Perceptron(), IMAGES, params, mutable, batch_of(images)) == {}


@pytest.mark.parametrize('crops', [False, True])
def test_every_picture_of_an_evaluator_can_be_drawn(images, crops):
    task, params, mutable = set_up(Net(), images)
    images = images.reshape(2, 3, 8, 8, 3) if crops else images
    batches = data.Once(data.Arrays({'image': images, 'label': np.arange(len(images)) % 3}), 4)
    evaluator = classification_evaluator(
        task.predict, batches, ['a', 'b', 'c'], functools.partial(draw_network, Net(), IMAGES)
    )
    sums = evaluate(evaluator, params, mutable, make_mesh(-1, 1)).sums
    figures = evaluator.draw(params, mutable, sums)
    assert set(figures) == {
        'activations', 'class accuracy', 'confusion matrix', 'feature maps', 'filters', 'reliability', 'right', 'wrong',
    }  # fmt: skip
    for figure in figures.values():
        figure.canvas.draw()


# --- the config -----------------------------------------------------------------------------------------------------


def lenet(**changes):
    config = ConfigDict(
        dict(
            seed=0,
            data=dict(
                name='fake',
                source=dict(size=40, channels=1, num_examples=12),
                reading=dict(threads=0),
                batch_size=4,
                train=dict(split='train', transforms=dict(chain=('resize',), resize=dict(size=32))),
                evals=dict(test=dict(split='test', transforms=dict(chain=('resize',), resize=dict(size=32)))),
            ),
            input=dict(mean=(0.5,), std=(0.5,)),
            model=dict(name='lenet.lenet5', num_classes=10),
            loss=dict(label_smoothing=0.0),
            tx=dict(name='sgd', learning_rate=0.1),
            run=dict(steps=2),
        )
    )
    config.update_from_flattened_dict(changes)
    return config


TO_FLOAT = dict(chain=('resize', 'to_float'), resize=dict(size=32))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'input.mean': (0.1, 0.2, 0.3)}, r'input.mean has 3 values, but the images have 1 channel; give one, or 1'),
        ({'input.std': (0.0,)}, r'input.std=\(0.0,\) must be positive'),
        ({'data.evals.test.transforms.resize.size': 20}, 'data.evals.test: LeNet-5 .*20'),
        ({'data.evals.test.transforms.resize.size': 36}, 'data.evals.test: images of 36x36x1 do not go .* for 32x32x1'),
        ({'data.train.transforms': TO_FLOAT}, 'data.train: images are uint8 when they reach the model, .* not float32'),
        ({'data.evals.test': dict(split='test', scale=(1,))}, "data.evals.test.scale: .* did you mean 'scales'"),
        ({'data.evals.test': dict(split='test', scales=(64,))}, 'data.evals.test: scales: 64 is more than .* 40x40'),
        ({'loss': dict(label_smothing=0.1)}, "loss.label_smothing: .* did you mean 'label_smoothing'"),
        ({'loss': dict(name='maximum_posteriori')}, "loss.name='maximum_posteriori' .* did you mean 'maximum_a_post"),
        ({'loss': dict(name='maximum_a_posteriori', label_smoothing=0.1)}, 'loss.label_smoothing: .*; there are j'),
        ({'input': dict(means=(0.5,))}, "input.means: .* did you mean 'mean'"),
        ({'input': dict(mean='grey')}, "input.mean='grey' must be a number or a tuple"),
        ({'input': dict(mean=('a',))}, r"input.mean=\('a',\) must be a number or a tuple"),
        ({'input': dict(mean=float('nan'))}, 'input.mean=nan must be finite'),
        ({'input': dict(std=float('nan'))}, 'input.std=nan must be positive'),
        ({'loss': dict(label_smoothing=1.5)}, 'loss.label_smoothing=1.5 must be a number at least 0 and at most 1'),
        ({'loss': dict(name='maximum_a_posteriori', j=-1.0)}, 'loss.j=-1.0 must be'),
        ({'loss': dict(auxiliary=-0.3)}, 'loss.auxiliary=-0.3 must be'),
        ({'data.reading': dict(threads=100_000)}, 'data.reading.threads=100000 must be'),
        ({'data.reading': dict(worker=1)}, "data.reading.worker: .* did you mean 'workers'"),
        ({'data.source': dict(size=0)}, 'size=0 must be'),
        ({'data.train.transforms': dict(name='random_flip', p=7)}, 'data.train.transforms.p=7 must be a number'),
        ({'data.train.transforms': dict(name='random_rotation', degrees=-1)}, 'transforms.degrees=-1 must be'),
        ({'data.train.transforms': dict(name='standardise', mean=0.5, std=0)}, 'std=0 positive'),
        ({'data.evals.test': dict(split='test', scales=(0,))}, r'data.evals.test.scales=\(0,\) must be'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_before_the_first_step(change, message):
    from canon.train.setup import make_setup

    config = lenet()
    for key, value in change.items():
        *parts, last = key.split('.')
        functools.reduce(lambda part, name: part[name], parts, config)[last] = value
    with pytest.raises(UsageError, match=message) as caught:
        make_setup(classification.make(config), config)
    assert '\n' not in str(caught.value)


def npz_config(path, **changes):
    config = lenet(**changes)
    config.data.name, config.data.source = 'npz', dict(path=str(path))
    return config


def write_npz(path, **arrays):
    rng = np.random.default_rng(0)
    splits = {'x_train': 12, 'x_test': 6}
    images = {name: rng.integers(256, size=(n, 28, 28), dtype=np.uint8) for name, n in splits.items()}
    classes = {f'y_{name[2:]}': np.arange(n)[:, None] % 3 for name, n in splits.items()}
    np.savez(path, **{**images, **classes, **arrays})


def test_kerass_arrays_with_labels_in_columns_are_classes(tmp_path, caplog):
    """[N, 28, 28] and labels [N, 1]: they passed for distributions and trained a model at chance."""
    write_npz(tmp_path / 'mnist.npz')
    experiment = classification.make(npz_config(tmp_path / 'mnist.npz', **{'model.num_classes': 3}))
    batch = experiment.train[0]
    assert batch['image'].shape == (4, 32, 32, 1)
    assert batch['label'].shape == (4,)
    assert len(experiment.evals['test'].data) == 2
    assert not caplog.text
    classification.make(npz_config(tmp_path / 'mnist.npz'))
    assert 'model.num_classes=10, but the data have 3 classes' in caplog.text


@pytest.mark.parametrize(
    ('arrays', 'change', 'message'),
    [
        ({'y_train': np.eye(10)[np.arange(12) % 10]}, {}, r'float64 \[10\], not one .*loss.soft_labels=True'),
        ({'y_train': np.full((12, 10), 0.2)}, {'loss.soft_labels': True}, 'not a distribution: .* the sum 2'),
        ({'y_train': np.ones((12, 4))}, {'loss.soft_labels': True}, r'float64 \[4\], neither one integer nor'),
        ({'y_train': np.arange(12)}, {}, 'the data have 12 classes; set it to that'),
        ({'x_train': np.zeros((12, 3, 32, 32), np.uint8)}, {'data.train.transforms': None}, 'move the channels'),
        ({'x_train': np.zeros((12, 784), np.uint8)}, {'data.train.transforms': None}, r'C\], these are \[784\]'),
        ({}, {'data.source.fields': {'picture': 'x_train', 'label': 'y_train'}}, "data.train: .* no field 'image'"),
        ({}, {'data.evals.test.split': 'train[:50%]'}, r"test.split='train\[:50%\]' shares images with data.train"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_one_line(tmp_path, arrays, change, message):
    write_npz(tmp_path / 'a.npz', **arrays)
    config = npz_config(tmp_path / 'a.npz')
    with config.unlocked():
        for key, value in change.items():
            *parts, last = key.split('.')
            functools.reduce(lambda part, name: part[name], parts, config)[last] = value
    with pytest.raises(CanonError, match=message) as caught:
        classification.make(config)
    assert '\n' not in str(caught.value)


def test_distributions_are_trained_on_where_the_config_says_so(tmp_path):
    soft = np.random.default_rng(1).dirichlet(np.ones(10), size=12).astype(np.float32)
    write_npz(tmp_path / 'a.npz', y_train=soft)
    made = classification.make(npz_config(tmp_path / 'a.npz', **{'loss': dict(soft_labels=True)}))
    variables = dict(jax.jit(made.task.init)(KEY, made.train[0]))
    loss, (_, told) = jax.jit(made.task.loss)(variables.pop('params'), variables, made.train[0], At(KEY, 0))
    assert np.isfinite(loss.value)
    assert 0 < told['accuracy'].value < 1  # the shares that the distributions give the guesses


def test_the_training_split_may_be_evaluated_where_it_is_said():
    same = dict(split='train', trained_on=True, transforms=dict(chain=('resize',), resize=dict(size=32)))
    config = lenet()
    config.data.evals.train = same
    assert sorted(classification.make(config).evals) == ['test', 'train']
    config.data.evals.train = same | dict(trained_on=False)
    with pytest.raises(UsageError, match=r'data\.evals\.train\.trained_on=True'):
        classification.make(config)


def test_the_readmes_folder_of_classes_is_trained_and_tested_on_different_images(tmp_path, root):
    """A flat folder, as in the README's command; its test images were the training images, or missing."""
    from experiments import configs

    for name, count in (('ant', 10), ('bee', 15), ('cat', 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new('RGB', (20 + i, 24), (8 * i, 100, 50)).save(tmp_path / name / f'{i}.png')
    config = configs.load(f'{root}/configs/classification/lenet_digits.py')
    with config.unlocked():
        config.data.name, config.data.source, config.model.num_classes = 'folder', dict(path=str(tmp_path)), 3
    experiment = classification.make(config)
    trained_on = set(experiment.train.source.files)
    assert len(trained_on) + len(experiment.evals['test'].data.source.files) <= 30
    assert len(experiment.evals['test'].data.source.files) == 6
    for evaluator in experiment.evals.values():
        assert not trained_on & set(evaluator.data.source.files)


def test_without_its_data_an_experiment_has_the_same_state():
    from canon.train.setup import make_setup

    config = lenet()
    experiment = classification.make(config)
    without_data = classification.without_data(config, experiment.about)
    assert without_data.about == experiment.about
    assert make_setup(without_data, config).target == make_setup(experiment, config).target


# --- a folder -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def trained():
    """LeNet with random weights: (config, experiment, params)."""
    config = lenet()
    made = classification.make(config)
    experiment = classification.without_data(config, made.about)
    experiment = experiment._replace(task=experiment.task._replace(predict=jax.jit(experiment.task.predict)))
    return config, experiment, jax.jit(experiment.task.init)(jax.random.key(1), experiment.train[0])['params']


def test_files_of_every_kind_are_read_as_one_picture(trained, tmp_path, capsys):
    """Grey, grey with alpha, 16 bits, palette, RGBA, CMYK: the same grey picture, the same answer."""
    config, experiment, params = trained
    grey = np.kron(np.random.default_rng(0).integers(256, size=(4, 4)), np.ones((8, 8))).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.save(tmp_path / 'a.png')
    picture.convert('LA').save(tmp_path / 'b.png')
    Image.fromarray((grey.astype(np.uint16) << 8) + grey).save(tmp_path / 'c.png')
    picture.convert('RGB').quantize(256).save(tmp_path / 'd.png')
    picture.convert('RGBA').save(tmp_path / 'e.png')
    picture.convert('RGB').convert('CMYK').save(tmp_path / 'f.tif')
    said = write_predictions(classification.predict(config, experiment, params, {}, str(tmp_path)), tmp_path / 'out')
    assert said.startswith('6 rows in')
    assert 'predictions.png' in said
    assert capsys.readouterr().out == '6 images classified\n'
    header, *rows = [line.split(',') for line in (tmp_path / 'out' / 'predictions.csv').read_text().splitlines()]
    assert header == ['file', 'class1', 'probability1', 'class2', 'probability2', 'class3', 'probability3']
    assert [row[0] for row in rows] == [
        str(tmp_path / f'{n}') for n in ('a.png', 'b.png', 'c.png', 'd.png', 'e.png', 'f.tif')
    ]
    assert len({tuple(row[1:]) for row in rows}) == 1
    chances = softmax(experiment.task.predict(params, {}, {'image': grey[None, ..., None]}), -1)[0]
    assert rows[0][1] == str(chances.argmax())
    assert float(rows[0][2]) == pytest.approx(chances.max(), abs=1e-4)


@pytest.mark.parametrize('kind', ['cut short', 'empty', 'text', 'cut short jpeg'])
def test_a_broken_file_is_named(trained, tmp_path, kind):
    config, experiment, params = trained
    name = 'broken.jpg' if 'jpeg' in kind else 'broken.png'
    Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes({'empty': b'', 'text': b'no image'}.get(kind, whole[: len(whole) // 2]))
    with pytest.raises(CanonError, match=f'{tmp_path / name} cannot be read .* repair or remove it') as caught:
        write_predictions(
            classification.predict(config, experiment, params, {}, str(tmp_path / name)), tmp_path / 'out'
        )
    assert '\n' not in str(caught.value)
    with pytest.raises(CanonError, match=rf'1 of 1 images in .* cannot be read: {name} \(the first: .*; repair them$'):
        classification.predict(config, experiment, params, {}, str(tmp_path))


def test_unreadable_images_are_named_and_the_others_predicted(trained, tmp_path, caplog, capsys):
    config, experiment, params = trained
    for name in ('a.png', 'b.png', 'c.png'):
        Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(tmp_path / name)
    (tmp_path / 'b.png').write_bytes(b'no image')
    out = tmp_path / 'out'
    with pytest.raises(SkippedInputs, match=r'^2 rows in .*; 1 of 3 images cannot be read: .*b\.png; repair or remove'):
        write_predictions(classification.predict(config, experiment, params, {}, str(tmp_path)), out)
    assert capsys.readouterr().out == '2 images classified, 1 skipped\n'
    rows = (out / 'predictions.csv').read_text().splitlines()[1:]
    assert [row.split(',')[0] for row in rows] == [str(tmp_path / 'a.png'), str(tmp_path / 'c.png')]
    assert '1 of 3 images' in caplog.text


def test_images_of_other_channels_are_one_line(images):
    task, params, mutable = set_up(Net(), images)
    for compute in (task.predict, lambda *a: task.loss(*a, At(KEY, 0))):
        with pytest.raises(UsageError, match='the parameters are not for images of 8x8x1; give images of'):
            compute(params, mutable, batch_of(images[..., :1]))


def test_equal_classes_are_ranked_in_their_order():
    ranked = rank_classes(np.array([0.2, 0.4, 0.4, 0.0]), ['ant', 'bee', 'cat', 'dog'])
    assert ranked == [('bee', 0.4), ('cat', 0.4), ('ant', 0.2)]


def test_a_folder_without_images_is_refused(trained, tmp_path):
    config, experiment, params = trained
    with pytest.raises(UsageError, match='holds no images'):
        write_predictions(classification.predict(config, experiment, params, {}, str(tmp_path)), tmp_path / 'out')


# --- export ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    config, experiment, params = trained
    folder = tmp_path_factory.mktemp('export')
    export_stablehlo(classification.served(config, experiment), params, {}, folder)
    return folder


@pytest.mark.parametrize('size', [1, 2, 7, 33])
def test_an_exported_model_is_the_model_on_any_batch(trained, exported, size):
    _, experiment, params = trained
    images = np.random.default_rng(size).integers(256, size=(size, 32, 32, 1), dtype=np.uint8)
    read = jax.export.deserialize(bytearray((exported / 'model.stablehlo').read_bytes()))
    assert read.platforms == ('cpu', 'cuda', 'tpu')
    wanted = softmax(experiment.task.predict(params, {}, {'image': images}), -1)
    np.testing.assert_allclose(read.call(images), wanted, atol=1e-6)


def test_an_exported_model_says_what_it_takes(exported):
    import json

    about = json.loads((exported / 'model.json').read_text())
    assert about['input'] == 'uint8 [b, 32, 32, 1]'
    assert about['output'] == 'float32 [b, 10]'
    assert about['class_names'] == [str(i) for i in range(10)]
