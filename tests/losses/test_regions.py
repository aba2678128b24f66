"""Losses of detection by regions against torchvision's, their gradients, and what is sampled of each image."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon import metrics
from canon.errors import UsageError
from canon.losses import regions
from canon.losses.regions import assign_anchors, assign_regions, region_loss, rpn_loss
from canon.ops.anchors import find_inside
from canon.ops.boxes import decode_offsets, pairwise_iou
from tests.losses.drawn_boxes import SIZE
from tests.losses.drawn_regions import draw_head, draw_rpn

GOLDEN = np.load(Path(__file__).parent / 'golden/regions.npz')
KEYS = jax.random.split(jax.random.key(0), 3)
RPN, HEAD = draw_rpn(), draw_head()
OBJECTS = RPN['boxes'], RPN['valid']
sample_anchors = jax.jit(assign_anchors, static_argnames=('count', 'positive_fraction'))
sample_regions = jax.jit(
    assign_regions, static_argnames=('add_objects', 'count', 'positive_fraction', 'background', 'background_low')
)


def sample_head(**settings):
    regions_valid = np.ones(HEAD['regions'].shape[:2], bool)
    return sample_regions(
        KEYS, HEAD['regions'], regions_valid, HEAD['boxes'], HEAD['labels'], HEAD['valid'], **settings
    )


def evaluate(loss, *outputs):
    """Returns the sums of a loss, and the gradients by the outputs of what is trained."""

    def objective(*outputs):
        sums = loss(*outputs)
        return (sums.classification + sums.localisation) / sums.samples, sums

    gradients, sums = jax.jit(jax.grad(objective, tuple(range(len(outputs))), has_aux=True))(*outputs)
    return jax.tree.map(float, sums), gradients


def check_sums(loss, name):
    assert loss.classification / loss.samples == pytest.approx(GOLDEN[f'{name}/classification'], rel=1e-5)
    assert loss.localisation / loss.samples == pytest.approx(GOLDEN[f'{name}/localisation'], rel=1e-5)


def test_rpn_loss_equals_torchvision():
    count = len(RPN['anchors'])
    samples = sample_anchors(KEYS, RPN['anchors'], *OBJECTS, count=count, positive_fraction=1.0)
    labels = np.full((3, count), -1)  # ignored
    for image in range(3):
        chosen = samples.valid[image]
        labels[image, samples.indices[image][chosen]] = samples.labels[image][chosen]
    np.testing.assert_array_equal(labels, GOLDEN['rpn/labels'])
    loss, gradients = evaluate(lambda *outputs: rpn_loss(*outputs, samples), RPN['objectness'], RPN['offsets'])
    check_sums(loss, 'rpn')
    assert loss.positives == (labels > 0).sum()
    np.testing.assert_allclose(gradients[0], GOLDEN['rpn/objectness'], atol=1e-7)
    np.testing.assert_allclose(gradients[1], GOLDEN['rpn/offsets'], atol=1e-7)


def test_region_loss_equals_torchvision():
    count = HEAD['logits'].shape[1]
    samples = sample_head(count=count, positive_fraction=1.0)

    def loss(logits, offsets):
        chosen = jnp.take_along_axis(logits, samples.indices[..., None], 1)
        moves = jnp.take_along_axis(offsets, samples.indices[..., None, None], 1)
        return region_loss(chosen, moves, samples)

    value, gradients = evaluate(loss, HEAD['logits'], HEAD['offsets'])
    check_sums(value, 'head')
    assert value.samples == len(GOLDEN['head/labels'])
    for image in range(3):
        chosen = np.asarray(samples.valid[image])
        order = np.argsort(samples.indices[image][chosen])
        before = sum(int(v.sum()) for v in samples.valid[:image])
        labels = GOLDEN['head/labels'][before : before + chosen.sum()]
        np.testing.assert_array_equal(samples.labels[image][chosen][order], labels)
    np.testing.assert_allclose(gradients[0], GOLDEN['head/logits'], atol=1e-7)
    np.testing.assert_allclose(gradients[1], GOLDEN['head/offsets'], atol=1e-7)
    # One set of offsets for all classes; bfloat16 outputs are summed in float32.
    coarse = jnp.asarray(HEAD['offsets'][:, :, :1], jnp.bfloat16)
    shared = jax.jit(region_loss)(jnp.zeros((3, count, 4)), coarse, samples)
    errors = np.abs(np.asarray(coarse[:, :, 0], np.float32) - samples.targets)[np.asarray(samples.positive)]
    expected = np.where(errors < 1 / 9, 4.5 * errors**2, errors - 1 / 18).sum()
    assert shared.localisation == pytest.approx(expected, rel=1e-5)
    assert shared.classification == pytest.approx(value.samples * np.log(4), rel=1e-5)


def test_samples_of_regions():
    """Objects are among the regions; targets decode to them; the background's overlaps lie within their bounds."""
    settings = dict(count=12, positive_fraction=0.25, background=0.5, background_low=0.1)
    samples = jax.tree.map(np.asarray, sample_head(**settings))
    overlaps = np.where(HEAD['valid'][:, None], jax.jit(pairwise_iou)(samples.boxes, HEAD['boxes']), -1)
    decoded = np.asarray(jax.jit(decode_offsets)(samples.targets, samples.boxes))
    for image, iou in enumerate(overlaps):
        positive, valid = samples.positive[image], samples.valid[image]
        assert positive.sum() <= 3
        assert (iou[positive].max(1, initial=0) >= 0.5).all()
        largest = iou[valid & ~positive].max(1, initial=0)
        assert ((largest >= 0.1) & (largest < 0.5)).all()
        objects = iou[positive].argmax(1)
        np.testing.assert_allclose(decoded[image][positive], HEAD['boxes'][image][objects], atol=1e-3)
        np.testing.assert_array_equal(samples.labels[image][positive], 1 + HEAD['labels'][image][objects])
        assert not samples.labels[image][~positive].any()
        assert not samples.targets[image][~positive].any()
    assert not samples.valid[1].any()  # without objects nothing overlaps by 0.1
    alone = sample_head(count=12, add_objects=False)
    assert alone.indices.max() < HEAD['regions'].shape[1]
    assert alone.valid.all()
    nothing = (HEAD[name][:, :0] for name in ('regions', 'valid', 'boxes', 'labels', 'valid'))
    none = sample_regions(KEYS, *nothing, count=4)
    assert not none.valid.any()
    assert not none.targets.any()


def test_masked_images_and_anchors_across_the_border():
    """Sums of parts are the sum of the whole; anchors that cross the border are neither positive nor negative."""
    inside = find_inside(RPN['anchors'], np.array([0, 0, SIZE, SIZE]))
    assert 0 < inside.sum() < len(inside)
    samples, *parts = (
        sample_anchors(KEYS, RPN['anchors'], *OBJECTS, np.array(mask), inside, count=32)
        for mask in ([True] * 3, [True, False, True], [False, True, False])
    )
    assert inside[samples.indices[samples.valid]].all()
    assert samples.positive[0].any()
    loss = jax.jit(partial(rpn_loss, RPN['objectness'], RPN['offsets']))
    parts = [loss(part) for part in parts]
    np.testing.assert_allclose(metrics.add(*parts), loss(samples), rtol=1e-5)
    assert parts[1].samples == 32
    assert parts[1].positives == parts[1].localisation == 0  # the image without objects


def test_shapes_that_do_not_fit():
    samples = regions.RegionSamples(*(np.zeros((3, 12), int),) * 6)
    with pytest.raises(UsageError, match='are not of the same anchors'):
        rpn_loss(RPN['objectness'][:, 1:], RPN['offsets'], samples)
    with pytest.raises(UsageError, match=r'are not of the \(3, 12\) sampled regions'):
        region_loss(jnp.zeros((3, 11, 4)), jnp.zeros((3, 11, 4, 4)), samples)
    with pytest.raises(UsageError, match='offsets of 3 classes fit neither 4 classes nor one for all'):
        region_loss(jnp.zeros((3, 12, 4)), jnp.zeros((3, 12, 3, 4)), samples)
