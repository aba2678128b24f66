"""How good is a classifier: numbers that add over batches, and pictures of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from canon import backend, losses, metrics, named, plots
from canon.train import Evaluator
from experiments.classification import insides
from experiments.images import none_of, right_and_wrong

_LOOKED_AT = 10_000  # images among which a gallery is chosen


@dataclass(frozen=True)
class Spec:
    """One entry of config.data.evals.

    transforms: as of `canon.data.transforms.make`; with `ten_crop` or another that makes images [K, H, W, C] the K
    posteriors are averaged. scales, flip: see `many_views`. trained_on: allows images of the training split, to measure
    how well they are learnt.
    """

    split: str
    transforms: Mapping[str, Any] | None = None
    scales: tuple[named.Count, ...] = ()
    flip: bool = False
    trained_on: bool = False


def classification_evaluator(
    predict: Callable,
    batches: Any,
    names: Sequence[str],
    look: insides.Look | None = None,
    soft_labels: bool = False,
) -> Evaluator:
    """Metrics and pictures of `predict`: (params, mutable, batch) -> scores [B, C] over `batches`.

    loss: the negative log-likelihood in nats. accuracy; of more than ten classes also top5_accuracy; class_accuracy:
    the mean over the classes. calibration_error: expected, in 15 bins (Guo et al. 2017). brier: Brier's score.
    look: with it there are pictures of the network itself. soft_labels: a label may be a distribution [C], which counts
    as its likeliest class.
    """
    with_top5 = len(names) > 10

    def measure(params, mutable, batch):
        scores, labels, mask = predict(params, mutable, batch), batch['label'], batch['mask']
        labels = labels.argmax(-1) if soft_labels and labels.ndim == 2 else labels
        probabilities = jax.nn.softmax(scores)
        sums = {
            'loss': metrics.Mean.of(losses.softmax_cross_entropy(scores, labels), mask),
            'accuracy': metrics.accuracy(scores, labels, mask),
            'brier': metrics.brier(probabilities, labels, mask),
            'confusion': metrics.confusion(scores, labels, mask),
            'reliability': metrics.Reliability.of(probabilities, labels, mask),
        }
        if with_top5:
            sums['top5_accuracy'] = metrics.top_k(scores, labels, 5, mask)
        return sums

    def finish(sums):
        means = {name: part.value for name, part in sums.items() if isinstance(part, metrics.Mean)}
        by_class = metrics.class_accuracy(sums['confusion'])
        return {
            **means,
            'class_accuracy': np.nanmean(by_class) if np.isfinite(by_class).any() else np.nan,
            'calibration_error': sums['reliability'].error,
        }

    def pictures(params, mutable, sums):
        right, wrong = _samples(predict, batches, params, mutable)
        seen = f' of the first {_LOOKED_AT}' if batches.num_examples > _LOOKED_AT else ''
        own = {} if look is None else insides.pictures(look, params, mutable, batches[0])
        return {
            'class accuracy': plots.class_accuracy(sums['confusion'], names),
            'confusion matrix': plots.confusion_matrix(sums['confusion'], names),
            'reliability': plots.reliability(*sums['reliability'], sums['reliability'].error),
            'right': _gallery(right, names, 'right: class and its probability'),
            'wrong': _gallery(wrong, names, f'wrong{seen}, surest first: true class, then what was predicted'),
            **own,
        }

    return Evaluator(batches, measure, finish, pictures)


def _samples(predict: Callable, batches: Any, params, mutable) -> tuple[list, list]:
    """(image, label, prediction, probability) of rows classified right, in order, and wrong, surest first."""
    infer = backend.jit(lambda p, m, b: jax.nn.softmax(predict(p, m, b)))

    def rows():
        seen = 0
        for batch in batches.iterate():
            chances = np.asarray(infer(params, mutable, batch))
            yield [_row(batch, chances, i) for i in np.flatnonzero(batch['mask'])]
            seen += len(batch['mask'])
            if seen >= _LOOKED_AT:
                break

    return right_and_wrong(rows())


def _row(batch, chances: np.ndarray, i: int) -> tuple[np.ndarray, int, int, float]:
    guess, label = int(chances[i].argmax()), batch['label'][i]
    label = int(label.argmax() if np.ndim(label) else label)
    return one_crop(batch['image'][i]), label, guess, float(chances[i, guess])


def one_crop(image: np.ndarray) -> np.ndarray:
    """A middling one of an image's crops [K, H, W, C] (of `ten_crop` the middle); an image [H, W, C] as it is."""
    return image[(len(image) - 1) // 2] if image.ndim == 4 else image


def _gallery(rows: list, names: Sequence[str], title: str):
    if not rows:
        return plots.gallery(np.zeros((0, 1, 1, 1)), [], title=none_of(title))
    titles = [names[t] + (f' → {names[g]}' if g != t else '') + f' {p:.2f}' for _, t, g, p in rows]
    return plots.gallery(np.stack([image for image, *_ in rows]), titles, title=title)
