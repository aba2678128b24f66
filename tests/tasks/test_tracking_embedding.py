"""The task of appearance against its parts in numpy, retrieval across frames, and embeddings of detections."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from canon.data import Arrays, Once
from canon.data.tracking import CropSettings, SequenceInfo, TrackSequence, crop_box, make_table, pad_frames
from canon.errors import UsageError
from canon.tasks import tracking as tasks
from canon.tasks.classification import make_image_input
from canon.train import At
from tests.losses.test_metric_learning import triplets

CROPS = CropSettings(height=4, width=4, context=0.1)


class MeanColour(nn.Module):
    """Crops to unit vectors: a linear map of the mean colour."""

    @nn.compact
    def __call__(self, images, train=False):
        x = nn.Dense(5, name='map')(images.mean((1, 2)))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def draw_batch(seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': rng.integers(0, 256, (8, 4, 4, 3), np.uint8),
        'label': np.array([0, 0, 1, 1, 2, 2, 2, 0]),
        'sequence': np.zeros(8, np.int32),
        'frame': np.arange(8, dtype=np.int32),
        'mask': np.arange(8) < 7,
    }


@pytest.mark.parametrize(('triplet', 'classification'), [(1.0, 0.0), (0.0, 1.0), (0.5, 2.0)])
def test_the_loss_is_the_weighted_sum_of_its_parts(triplet, classification):
    settings = tasks.EmbeddingLoss(triplet, None, classification, label_smoothing=0.1, scale=8.0)
    task, batch = tasks.embedding_task(MeanColour(), make_image_input(), settings, 3), draw_batch()
    params = task.init(jax.random.key(0), batch)['params']
    assert set(params) == ({'network', 'classifier'} if classification else {'network'})
    mean, (_, parts) = task.loss(params, {}, batch, At(jax.random.key(1), 0))
    vectors = np.asarray(task.predict(params, {}, batch), np.float64)
    expected = triplet * np.sum(triplets(vectors, batch['label'], None, batch['mask'])[0])
    if classification:
        directions = np.asarray(params['classifier']['directions'], np.float64)
        logits = 8 * vectors @ (directions / np.linalg.norm(directions, axis=0))
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        targets = 0.9 * np.eye(3)[batch['label']] + 0.1 / 3
        expected += classification * -(targets * log_p).sum(1)[batch['mask']].sum()
        assert 'accuracy' in parts
    np.testing.assert_allclose(mean.total, expected, rtol=1e-5)
    assert mean.weight == 7
    assert parts['ranked'].weight == 7


def test_a_loss_without_weights_is_refused():
    with pytest.raises(UsageError, match=r'loss\.triplet=0 and loss\.classification=0 leave nothing to learn'):
        tasks.embedding_task(MeanColour(), make_image_input(), tasks.EmbeddingLoss(triplet=0.0), 3)


def test_retrieval_leaves_out_what_is_near_in_the_same_sequence():
    """A loop over queries; batches with padding, so that its rows are no entries of the gallery."""
    rng = np.random.default_rng(3)
    count = 22
    rows = {
        'image': rng.integers(0, 256, (count, 4, 4, 3), np.uint8),
        'label': rng.integers(0, 5, count),
        'sequence': rng.integers(0, 2, count, np.int32),
        'frame': rng.integers(0, 30, count, np.int32),
    }
    task = tasks.embedding_task(MeanColour(), make_image_input(), tasks.EmbeddingLoss(), 5)
    params = task.init(jax.random.key(0), rows)['params']
    evaluator = tasks.retrieval_evaluator(
        task.predict, Once(Arrays(rows), 8), tasks.RetrievalEvaluation(split='test', separation=6)
    )
    parts = [evaluator.measure(params, {}, batch) for batch in evaluator.data.iterate()]
    sums = parts[0] + parts[1] + parts[2]
    vectors = np.asarray(task.predict(params, {}, rows), np.float64)
    precisions, first = [], []
    for q in range(count):
        entries = [
            g for g in range(count)
            if rows['sequence'][g] != rows['sequence'][q] or abs(rows['frame'][g] - rows['frame'][q]) >= 6
        ]  # fmt: skip
        entries.sort(key=lambda g: -vectors[g] @ vectors[q])
        places = [i for i, g in enumerate(entries, 1) if rows['label'][g] == rows['label'][q]]
        if places:
            precisions.append(np.mean([i / place for i, place in enumerate(places, 1)]))
            first.append(places[0] == 1)
    scores = evaluator.finish(sums)
    assert scores['queries'] == len(precisions)
    assert scores['mAP'] == pytest.approx(np.mean(precisions), abs=1e-6)
    assert scores['rank_1'] == pytest.approx(np.mean(first), abs=1e-6)
    (figure,) = evaluator.draw(params, {}, sums).values()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count('query') == 8
    assert len(titles) == 64


def test_detections_get_the_embedding_of_their_crop():
    """More crops than are embedded at once, frames without detections, and slots that are empty."""
    rng = np.random.default_rng(1)

    def read(frame):
        return np.random.default_rng(frame).integers(0, 256, (40, 50, 3), np.uint8)

    frames = np.sort(rng.choice([0, 1, 3, 4], 300))
    low = rng.uniform(0, 30, (300, 2))
    boxes = np.concatenate([low, low + rng.uniform(3, 10, (300, 2))], 1)
    sequence = TrackSequence(SequenceInfo('s', 5), None, make_table(frames, boxes=boxes), read)
    detections = pad_frames(sequence.detections, 5)
    task = tasks.embedding_task(MeanColour(), make_image_input(), tasks.EmbeddingLoss(), 3)
    params = task.init(jax.random.key(0), draw_batch())['params']
    embedder = tasks.make_embedder(task, params, {}, CROPS)
    assert embedder.size == 5
    added = tasks.add_embeddings(embedder, sequence, detections)['embeddings']
    assert added.shape == (*detections['valid'].shape, 5)
    assert not added[~detections['valid']].any()
    for frame, slot in [(0, 0), (1, 5), (3, 0), (4, 7)]:
        crop = crop_box(read(frame), detections['boxes'][frame, slot], CROPS)
        np.testing.assert_allclose(added[frame, slot], task.predict(params, {}, {'image': crop[None]})[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(added[detections['valid']], axis=-1), 1, rtol=1e-5)
    assert embedder.apply(np.zeros((0, 4, 4, 3), np.uint8)).shape == (0, 5)
    with pytest.raises(UsageError, match='the sequence s has no pictures'):
        tasks.add_embeddings(embedder, sequence._replace(frames=None), detections)
