"""The loss of segmentation in float64, its metrics over padding, and images of any size through a network that sees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from canon import data, plots
from canon.data.pipeline.chain import apply_chain
from canon.data.pipeline.keys import Key
from canon.errors import CanonError, UsageError
from canon.tasks import segmentation as tasks
from canon.tasks.classification import make_image_input
from canon.train import At

RNG = np.random.default_rng(0)
NAMES = ('sky', 'road', 'car')
COLOURS = np.array([(250, 20, 20), (20, 250, 20), (20, 20, 250)], np.uint8)
AT = At(jax.random.key(0), jnp.int32(0))


class Pixelwise(nn.Module):
    """Scores a pixel by its own colour; with `auxiliary`, sows the logits of another such layer."""

    auxiliary: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        if self.auxiliary and (train or self.is_mutable_collection('auxiliary')):
            logits = nn.Dense(3, name='head')(x)
            if not self.is_initializing():
                self.sow('auxiliary', 'logits', logits)
        return nn.Dense(3, name='score')(x)


def batch(rows=4, height=5, width=6, mask=(True, True, True, False)):
    labels = RNG.integers(0, 3, (rows, height, width)).astype(np.uint8)
    labels[RNG.random(labels.shape) < 0.2] = 255
    images = RNG.integers(0, 256, (rows, height, width, 3)).astype(np.uint8)
    return {'image': images, 'segmentation': labels, 'mask': np.array(mask)}


def make_task(model=None, **arguments):
    return tasks.segmentation_task(Pixelwise() if model is None else model, make_image_input(0.5, 0.25), **arguments)


def start(task, b):
    variables = dict(jax.jit(task.init)(jax.random.key(0), b))
    return variables.pop('params'), variables


def per_pixel(params, b, layer='score', smoothing=0.0):
    """The cross entropy of each pixel in float64, zero where it is void or its row is padding; and where it counts."""
    x = (b['image'] / 255 - 0.5) / 0.25
    z = x @ np.asarray(params[layer]['kernel'], np.float64) + np.asarray(params[layer]['bias'], np.float64)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    valid = (b['segmentation'] != 255) & b['mask'][:, None, None]
    target = np.eye(3)[np.where(b['segmentation'] == 255, 0, b['segmentation'])] * (1 - smoothing) + smoothing / 3
    return np.where(valid, -(target * log_p).sum(-1), 0), valid


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('weights', [None, (0.5, 2.0, 3.0)])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_loss_against_float64(reduction, weights, smoothing):
    b = batch()
    task = make_task(loss=tasks.SegmentationLoss(reduction, label_smoothing=smoothing), class_weights=weights)
    params, mutable = start(task, b)
    loss, (_, shown) = jax.jit(task.loss)(params, mutable, b, AT)
    values, valid = per_pixel(params, b, smoothing=smoothing)
    w = np.asarray(weights or (1, 1, 1))[np.minimum(b['segmentation'], 2)] * valid
    # The paper's sum is over the pixels of an image; three of the four rows are images.
    expected = (values * w).sum() / (w.sum() if reduction == 'mean' else 3)
    assert float(loss.value) == pytest.approx(expected, rel=1e-5)
    assert float(shown['pixel_accuracy'].weight) == valid.sum()


def test_auxiliary_heads_add_their_weighted_loss():
    b, model = batch(), Pixelwise(auxiliary=True)
    task = make_task(model, loss=tasks.SegmentationLoss(auxiliary=0.25))
    params, mutable = start(task, b)
    assert set(params) == {'score', 'head'}
    assert not mutable
    (main, valid), (head, _) = per_pixel(params, b), per_pixel(params, b, 'head')
    loss, (changed, _) = task.loss(params, mutable, b, AT)
    assert float(loss.value) == pytest.approx((main.sum() + 0.25 * head.sum()) / valid.sum(), rel=1e-5)
    assert not changed


def test_an_image_that_is_void_everywhere_has_no_loss_and_no_gradient():
    b = batch()
    b['segmentation'] = np.full_like(b['segmentation'], 255)
    task = make_task()
    params, mutable = start(task, b)
    gradient = jax.grad(lambda p: task.loss(p, mutable, b, AT)[0].total)(params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_metrics_add_over_batches_and_padding():
    """The confusion matrix of two batches, one padded, is scikit-learn's of all pixels; and so are the four metrics."""
    task, parts = make_task(), [batch(), batch(mask=(True, True, False, False))]
    params, mutable = start(task, parts[0])
    evaluator = tasks.segmentation_evaluator(task.predict, None, NAMES)
    measured = [jax.jit(evaluator.measure)(params, mutable, b) for b in parts]
    sums = jax.tree.map(lambda a, b: np.asarray(a + b), *measured)
    truth, found = [], []
    for b in parts:
        logits = np.asarray(task.predict(params, mutable, b))
        valid = (b['segmentation'] != 255) & b['mask'][:, None, None]
        truth.append(b['segmentation'][valid])
        found.append(logits.argmax(-1)[valid])
    counts = confusion_matrix(np.concatenate(truth), np.concatenate(found), labels=range(3))
    np.testing.assert_array_equal(sums['confusion'], counts)
    scores = evaluator.finish(sums)
    assert scores['pixel_accuracy'] == pytest.approx(np.trace(counts) / counts.sum())
    losses = [per_pixel(params, b) for b in parts]
    expected = sum(values.sum() for values, _ in losses) / sum(valid.sum() for _, valid in losses)
    assert scores['loss'] == pytest.approx(expected, rel=1e-5)
    assert set(scores) == {'mean_iu', 'pixel_accuracy', 'mean_accuracy', 'frequency_weighted_iu', 'loss'}


def test_weights_of_median_frequency():
    """Class 0 is in both images, 1 in the first alone; their frequencies are over the images that have them."""
    maps = np.array([[[0, 0], [1, 255]], [[0, 0], [0, 2]]], np.uint8)
    source = data.Arrays({'image': np.zeros((2, 2, 2, 3), np.uint8), 'segmentation': maps})
    frequency = np.array([5 / 8, 1 / 4, 1 / 4])
    np.testing.assert_allclose(tasks.median_frequency_weights(source, 3), 0.25 / frequency)
    np.testing.assert_allclose(tasks.median_frequency_weights(source, 4, 0.5), [*(0.25 / frequency) ** 0.5, 1])


# --- images of any size -----------------------------------------------------------------------------------------------


def see(params, mutable, b):
    """Logits of the class whose colour is nearest: a network that makes no mistake."""
    distance = jnp.square(b['image'][..., None, :].astype(jnp.float32) - COLOURS.astype(np.float32)).mean(-1)
    return -distance / 100


def coloured(height, width):
    rows, columns = np.indices((height, width))
    labels = ((rows * 3) // height + (columns * 2) // width).clip(0, 2).astype(np.uint8)
    return COLOURS[labels], labels


@pytest.mark.parametrize('settings', [
    tasks.AnySize(), tasks.AnySize(multiple=1), tasks.AnySize(multiple=7, flip=True), None,
    tasks.AnySize(sizes=((64, 64), (40, 50), (80, 80))),
])  # fmt: skip
def test_label_maps_come_back_in_the_size_of_the_image(settings):
    images, labels = zip(*(coloured(*size) for size in ((33, 47), (64, 32), (1, 5), (40, 40))), strict=True)
    for found, expected in zip(tasks.segment(see, {}, {}, images, settings), labels, strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_sizes_that_are_compiled_are_few():
    shapes = set()

    def predict(params, mutable, b):
        shapes.add(b['image'].shape)
        return see(params, mutable, b)

    images = [coloured(height, width)[0] for height in (20, 33, 40) for width in (30, 41)]
    list(tasks.segment(predict, {}, {}, images, tasks.AnySize(sizes=((40, 48), (32, 32)))))
    assert shapes == {(1, 32, 32, 3), (1, 40, 48, 3)}
    with pytest.raises(UsageError, match=r'predict\.sizes: none of .* holds an image of 41x9'):
        list(tasks.segment(predict, {}, {}, [coloured(41, 9)[0]], tasks.AnySize(sizes=((40, 48),))))


@pytest.mark.parametrize('shorter_side', [48, 160])
def test_resized_images_have_label_maps_that_do_not_shift(shorter_side):
    """Boundaries stay within a pixel of the smaller grid: interpolation by corners would move them by more."""
    image, labels = coloured(96, 120)
    (found,) = tasks.segment(see, {}, {}, [image], tasks.AnySize(shorter_side=shorter_side))
    wrong = np.argwhere(found != labels)
    boundaries = (96 / 3, 2 * 96 / 3), (120 / 2,)
    near = [min(abs(r + 0.5 - b) for b in boundaries[0]) for r, _ in wrong]
    beside = [min(abs(c + 0.5 - b) for b in boundaries[1]) for _, c in wrong]
    assert all(min(a, b) <= max(1, 96 / shorter_side) for a, b in zip(near, beside, strict=True))
    assert len(wrong) < 0.03 * labels.size


def test_flips_are_averaged_and_mirrored_back():
    logits = jnp.asarray(RNG.standard_normal((1, 3, 4, 2)), jnp.float32)
    predict = tasks.average_flips(lambda p, m, b: logits * b['image'].astype(jnp.float32).mean())
    found = predict(None, None, {'image': np.ones((1, 3, 4, 3), np.uint8)})
    both = (jax.nn.softmax(logits) + jax.nn.softmax(logits)[:, :, ::-1]) / 2
    np.testing.assert_allclose(np.exp(found), both, rtol=1e-5)


# --- figures and refusals ---------------------------------------------------------------------------------------------


def test_label_maps_are_stored_as_classes(tmp_path):
    labels = np.array([[0, 1, 20], [255, 3, 2]], np.uint8)
    plots.save_content(tasks.make_palette_image(labels), tmp_path / 'x.png')
    with Image.open(tmp_path / 'x.png') as image:
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(np.asarray(image.convert('RGB')), plots.make_voc_palette()[labels])


def test_the_worst_images_are_shown_first():
    images, labels = coloured(9, 12)
    maps = np.stack([labels] * 20)
    for i in range(1, 20):
        maps[i].ravel()[: 2 * i] = (maps[i].ravel()[: 2 * i] + 1) % 3
    maps[3] = 255
    source = data.Arrays({'image': np.stack([images] * 20), 'segmentation': maps})
    batches = data.Once(source, 8)
    first, worst = tasks._select_images(see, {}, {}, batches, 3)
    scores = [score for *_, score in worst]
    assert scores == sorted(scores)
    assert len(first) == len(worst) == 8
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(worst[0][1], maps[19])
    evaluator = tasks.segmentation_evaluator(see, batches, NAMES)
    assert evaluator.draw is not None
    counts = sum(np.asarray(evaluator.measure({}, {}, b)['confusion']) for b in batches.iterate())
    for name, figure in evaluator.draw({}, {}, {'confusion': counts}).items():
        figure.canvas.draw()
        assert figure.axes, name


@pytest.mark.parametrize(
    ('example', 'kind', 'message'),
    [
        ({'segmentation': np.full((2, 3), 3, np.uint8)}, CanonError, 'example 7: .* class 3, but model.num_classes=3'),
        ({'segmentation': np.zeros((2, 4), np.uint8)}, CanonError, r'uint8 \[2, 4\], expected uint8 \[2, 3\]'),
        ({'segmentation': np.zeros((2, 3), np.int32)}, CanonError, 'the label map is int32'),
        ({'label': 1}, UsageError, "no field 'segmentation', a label map; they have image, label"),
    ],
)
def test_label_maps_that_do_not_fit_are_named(example, kind, message):
    example = {'image': np.zeros((2, 3, 3), np.uint8), **example}
    with pytest.raises(kind, match=message):
        apply_chain((tasks.check_label_map(3),), example, Key(0, 0, 7))
    fitting = {'image': np.zeros((2, 3, 3), np.uint8), 'segmentation': np.array([[0, 2, 255]] * 2, np.uint8)}
    assert apply_chain((tasks.check_label_map(3),), fitting, Key(0, 0, 7)) is fitting
