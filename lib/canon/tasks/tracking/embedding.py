"""Appearance embedding: unit vectors of crops that are close for the same object, and their use by a tracker.

    task = embedding_task(network, make_image_input(0.5, 0.25), EmbeddingLoss(), num_identities=300)

The network is a linen module from images [B, H, W, C] to unit vectors [B, E] (`canon.models.appearance`). Batches hold
'image' uint8 [B, H, W, C], 'label' integers [B], the identities, 'sequence' and 'frame' integers [B] and 'mask' bool
[B]; P identities with K crops each for the triplet loss (`canon.data.order.class_groups`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, losses, metrics, named, plots
from canon.data.tracking import CropSettings, TrackSequence, crop_box
from canon.errors import UsageError
from canon.models.appearance import CosineClassifier
from canon.tasks.classification import apply_network
from canon.train import Evaluator, Task

_QUERIES, _NEIGHBOURS = 8, 7  # of the figure
_CHUNK = 256  # crops that are embedded at once


@dataclass(frozen=True)
class EmbeddingLoss:
    """config.loss: a weighted sum of the batch-hard triplet loss and of a cosine classifier of the identities.

    Attributes:
      triplet: weight of `canon.losses.batch_hard_triplet`.
      margin: of the triplet loss, in distances of unit vectors, which are 0 to 2; None is the soft margin.
      classification: weight of the cross entropy of `canon.models.appearance.CosineClassifier`, which is dropped
        after training.
      label_smoothing: of the cross entropy.
      scale: of the classifier's logits before training; it is learnt.
    """

    triplet: named.NonNegative = 1.0
    margin: named.NonNegative | None = None
    classification: named.NonNegative = 0.0
    label_smoothing: named.Probability = 0.0
    scale: named.Positive = 10.0


@dataclass(frozen=True, kw_only=True)
class RetrievalEvaluation:
    """An entry of config.data.evals: each crop queries all others.

    Attributes:
      split: of the data, such as 'test[:8]'.
      every: takes every n-th frame of each sequence.
      separation: crops of the query's sequence that are fewer frames away are left out of its gallery, since objects
        hardly change from one frame to the next; at least 1, the frame itself.
    """

    split: str
    every: named.Count = 5
    separation: named.Count = 10


def embedding_task(
    network: Any, make_input: Callable[[Any], jax.Array], loss: EmbeddingLoss, num_identities: int
) -> Task:
    """Makes the task of embedding crops; `predict` returns unit vectors [B, E].

    Args:
      network: a linen module from images to unit vectors.
      make_input: from a batch to what the network takes, such as `make_image_input()`.
      loss: the weights of the parts.
      num_identities: of the training data, classes of the classifier.

    Raises:
      UsageError: both weights are 0.
    """
    if not loss.triplet and not loss.classification:
        raise UsageError('loss.triplet=0 and loss.classification=0 leave nothing to learn; raise one of them')
    classifier = CosineClassifier(num_identities, loss.scale)

    def init(key, batch):
        keys = jax.random.split(key)
        variables = dict(network.init(keys[0], make_input({'image': batch['image'][:1]}), train=False))
        params = {'network': variables.pop('params')}
        if loss.classification:
            embeddings = predict(params, variables, {'image': batch['image'][:1]})
            params['classifier'] = classifier.init(keys[1], embeddings)['params']
        return {'params': params, **variables}

    def training_loss(params, mutable, batch, at):
        images, options = make_input(batch), {'train': True, 'rngs': {'dropout': at.key}, 'mutable': [*mutable]}
        embeddings, changed = apply_network(network, {'params': params['network'], **mutable}, images, **options)
        values, complete = losses.batch_hard_triplet(embeddings, batch['label'], loss.margin, batch['mask'])
        positive, negative, _ = losses.find_hardest(embeddings, batch['label'], batch['mask'])
        parts = {
            'triplet': metrics.Mean.of(values, complete),
            'ranked': metrics.Mean.of(positive < negative, complete),  # anchors whose hardest pair is in order
        }
        # A row without a positive, as a padded one, has no triplet, but may still be classified.
        total = loss.triplet * values
        if loss.classification:
            logits: Any = classifier.apply({'params': params['classifier']}, embeddings)
            entropy = losses.softmax_cross_entropy(logits, batch['label'], loss.label_smoothing)
            parts['accuracy'] = metrics.accuracy(logits, batch['label'], batch['mask'])
            total = total + loss.classification * entropy
        return metrics.Mean.of(total, batch['mask']), (dict(changed), parts)

    def predict(params, mutable, batch):
        return apply_network(network, {'params': params['network'], **mutable}, make_input(batch), train=False)

    return Task(init, training_loss, predict)


def retrieval_evaluator(predict: Callable, batches: Any, settings: RetrievalEvaluation) -> Evaluator:
    """Evaluates rank_1, rank_5 and mAP of retrieval across frames, and draws the nearest neighbours of queries.

    Args:
      predict: as `Task.predict`.
      batches: finite data.
      settings: `separation` is read here.
    """

    def measure(params, mutable, batch):
        fields = {name: batch[name] for name in ('image', 'label', 'sequence', 'frame')}
        return metrics.Rows.of({'embedding': predict(params, mutable, batch), **fields}, batch['mask'])

    def collect(rows):
        every = list(rows.each())
        crops = {name: np.stack([row[name] for row in every]) for name in every[0]}
        near = np.abs(crops['frame'][:, None] - crops['frame']) < settings.separation
        return (
            crops,
            crops['embedding'] @ crops['embedding'].T,
            near & (crops['sequence'][:, None] == crops['sequence']),
        )

    def finish(rows):
        crops, similarity, excluded = collect(rows)
        return metrics.score_retrieval(similarity, crops['label'], crops['label'], excluded)

    def draw(params, mutable, rows):
        crops, similarity, excluded = collect(rows)
        return {'nearest_neighbours': draw_neighbours(crops, np.where(excluded, -np.inf, similarity))}

    return Evaluator(batches, measure, finish, draw)


def draw_neighbours(crops: Mapping[str, np.ndarray], similarity: np.ndarray) -> Any:
    """Draws queries at the left of their nearest neighbours, each with its cosine, and marks those of other objects.

    Args:
      crops: 'image' [N, H, W, C] and 'label' [N].
      similarity: [N, N], -inf where an entry is left out.
    """
    images, titles = [], []
    for query in np.unique(np.linspace(0, len(similarity) - 1, _QUERIES).astype(int)):
        images.append(crops['image'][query])
        titles.append('query')
        for entry in np.argsort(-similarity[query], kind='stable')[:_NEIGHBOURS]:
            same = crops['label'][entry] == crops['label'][query]
            images.append(crops['image'][entry])
            titles.append(f'{similarity[query, entry]:.2f}' + ('' if same else ' other'))
    return plots.draw_gallery(np.stack(images), titles, _NEIGHBOURS + 1, 'Queries and their nearest neighbours')


class Embedder(NamedTuple):
    """A trained embedding for use.

    Attributes:
      apply: crops uint8 [N, H, W, 3] -> unit vectors float32 [N, E].
      crops: how boxes are cut out.
      size: E.
    """

    apply: Callable[[np.ndarray], np.ndarray]
    crops: CropSettings
    size: int


def make_embedder(task: Task, params: Any, mutable: Any, crops: CropSettings) -> Embedder:
    """Makes an embedder of trained weights; crops are embedded in chunks of one size, so that it compiles once."""
    infer = backend.jit(lambda images: task.predict(params, mutable, {'image': images}))
    shape = jax.eval_shape(infer, jax.ShapeDtypeStruct((1, crops.height, crops.width, 3), jnp.uint8)).shape

    def apply(images):
        embeddings = [np.zeros((0, *shape[1:]), np.float32)]
        for start in range(0, len(images), _CHUNK):
            part = images[start : start + _CHUNK]
            padding = [(0, _CHUNK - len(part))] + [(0, 0)] * 3
            embeddings.append(np.asarray(infer(np.pad(part, padding)))[: len(part)])
        return np.concatenate(embeddings)

    return Embedder(apply, crops, shape[1])


def add_embeddings(
    embedder: Embedder, sequence: TrackSequence, detections: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Adds the `embeddings` of detections, which DeepSORT and learnt affinities read, from the pictures of a sequence.

    Args:
      embedder: of appearance.
      sequence: with pictures.
      detections: of T frames, `boxes` [T, D, 4] and `valid` bool [T, D] (`canon.data.tracking.pad_frames`).

    Returns:
      The detections with `embeddings` float32 [T, D, E], zeros where not valid.

    Raises:
      UsageError: the sequence has no pictures.
    """
    valid = np.asarray(detections['valid'], bool)
    embeddings = np.zeros((*valid.shape, embedder.size), np.float32)
    crops, places = [], []

    def embed():
        if places:
            embeddings[tuple(np.array(places).T)] = embedder.apply(np.stack(crops))
            crops.clear()
            places.clear()

    for frame in np.flatnonzero(valid.any(1)).tolist():
        picture = sequence.read_frame(frame)
        for slot in np.flatnonzero(valid[frame]).tolist():
            crops.append(crop_box(picture, detections['boxes'][frame, slot], embedder.crops))
            places.append((frame, slot))
        if len(crops) >= _CHUNK:  # whole frames, so that no more than the crops of a few are in memory
            embed()
    embed()
    return {**detections, 'embeddings': embeddings}
