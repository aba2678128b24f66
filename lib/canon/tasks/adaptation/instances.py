"""Sources whose examples are weighted by how likely the target is to have them: adaptation by instances.

A batch's rows then have a `weight`, by which the task multiplies their risks, whatever its method (Shimodaira 2000).

estimate = make_ratio('rulsif', alpha=0.1)
weighted = weigh_source(rendered, handwritten, estimate)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np

from canon import named, transfer
from canon.data import labels as read_labels
from canon.data.pipeline.source import Arrays, Example, Source, read_examples
from canon.errors import UsageError
from canon.tasks.adaptation.scores import ModelOutputs

WEIGHT = 'weight'  # the field of examples
# (outputs of source and target, labels of the source) -> weights [N] of the source
Ratio = Callable[[ModelOutputs, ModelOutputs, np.ndarray], np.ndarray]
Compute = Callable[[Source], ModelOutputs]
Folds = Annotated[int, named.Range(2)]
Alpha = Annotated[float, named.Range(0, 1, open_high=True)]


def kmm(
    width: named.Positive | None = None, bound: named.Positive = 1000.0, epsilon: named.NonNegative | None = None
) -> Ratio:
    """Weighs by kernel mean matching of the features, see `transfer.kernel_mean_matching`."""
    return lambda source, target, _: transfer.kernel_mean_matching(
        source.features, target.features, width, bound, epsilon
    )


def kliep(centres: named.Count = 100, folds: Folds = 5, seed: int = 0) -> Ratio:
    """Weighs by KLIEP of the features, see `transfer.fit_kliep`."""
    options: dict[str, Any] = dict(centres=centres, folds=folds, seed=seed)
    return lambda source, target, _: transfer.fit_kliep(source.features, target.features, **options)(source.features)


def ulsif(centres: named.Count = 100, folds: Folds = 5, seed: int = 0) -> Ratio:
    """Weighs by uLSIF of the features, see `transfer.fit_ulsif`."""
    return rulsif(0.0, centres, folds, seed)


def rulsif(alpha: Alpha = 0.1, centres: named.Count = 100, folds: Folds = 5, seed: int = 0) -> Ratio:
    """Weighs by the relative ratio of the features, at most 1 / alpha, see `transfer.fit_ulsif`.

    Args:
      alpha: share of the target in the denominator; the ratio is at most 1 / alpha.
      centres: rows of the target, at most, that are centres of kernels.
      folds: of the cross-validation.
      seed: of the folds and the centres.
    """
    options: dict[str, Any] = dict(alpha=alpha, centres=centres, folds=folds, seed=seed)
    return lambda source, target, _: transfer.fit_ulsif(source.features, target.features, **options)(source.features)


def discriminator(quadratic: bool = False, l2: named.NonNegative = 1e-3) -> Ratio:
    """Weighs by the odds of a classifier of domains, see `transfer.fit_discriminator_ratio`."""

    def estimate(source, target, _):
        return transfer.fit_discriminator_ratio(source.features, target.features, quadratic, l2)(source.features)

    return estimate


def label_shift() -> Ratio:
    """Weighs each class by its proportion in the target, see `transfer.estimate_class_weights`; needs a finished run.

    The confusion matrix is that of the weighted examples themselves: a run that was trained on them makes it too good.
    """

    def estimate(source, target, labels):
        if not source.logits.shape[1]:
            raise UsageError("data.weights.name='label_shift' reads the predictions of a finished run, not pixels")
        predictions = source.logits.argmax(1), labels, target.logits.argmax(1)
        return transfer.estimate_class_weights(*predictions, source.logits.shape[1])[labels]

    return estimate


RATIOS: dict[str, Callable[..., Ratio]] = {
    function.__name__: function for function in (kmm, kliep, ulsif, rulsif, discriminator, label_shift)
}


def make_ratio(name: str = 'rulsif', **arguments: Any) -> Ratio:
    """Makes an estimator of weights of `RATIOS` by name. Raises UsageError for an unknown name or argument."""
    if name not in RATIOS:
        raise UsageError(f'data.weights.name={name!r} is unknown{named.suggest(name, RATIOS)}')
    return named.call(RATIOS[name], arguments, 'data.weights')


def read_pixels(source: Source) -> ModelOutputs:
    """Returns the pixels of all images as features [N, D] in [0, 1], without logits."""
    images = np.stack([example['image'] for example in read_examples(source, range(len(source)))])
    return ModelOutputs(images.reshape(len(images), -1) / 255.0, np.zeros((len(images), 0)))


def weigh_source(
    source: Source,
    target: Source,
    estimate: Ratio,
    compute: Compute = read_pixels,
    dimensions: named.Count | None = 20,
) -> Source:
    """Returns the source with a 'weight' per example, float32 with the mean 1, from images of the target.

    Args:
      source: labelled examples.
      target: examples whose labels are not read.
      estimate: of `make_ratio`.
      compute: source -> outputs of its examples in order: of a finished run, or the pixels.
      dimensions: principal components of the features of both domains that the ratio is estimated from, since kernels
        of hundreds of columns tell nothing apart; None takes the features as they are.

    Raises:
      UsageError: the features do not fit each other, or all weights are 0.
    """
    own, other = compute(source), compute(target)
    labels = np.asarray(read_labels(source))
    if dimensions is not None:
        own, other = _reduce(own, other, dimensions)
    weights = np.asarray(estimate(own, other, labels), np.float64)
    if not weights.sum() > 0:
        raise UsageError('every example of the source has the weight 0: no target is near; take a relative ratio')
    return attach_weights(source, weights / weights.mean())


def _reduce(source: ModelOutputs, target: ModelOutputs, dimensions: int) -> tuple[ModelOutputs, ModelOutputs]:
    """Projects the features of both domains onto the principal directions of their union."""
    if source.features.shape[1] != target.features.shape[1]:
        raise UsageError(
            f'features of the source have {source.features.shape[1]} columns, of the target {target.features.shape[1]}'
        )
    rows = np.concatenate([source.features, target.features]).astype(np.float64)
    centred = rows - rows.mean(0)
    # Eigenvectors of the small covariance: the rows are many.
    _, vectors = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ vectors[:, ::-1][:, :dimensions]
    count = len(source.features)
    return source._replace(features=reduced[:count]), target._replace(features=reduced[count:])


def attach_weights(source: Source, weights: np.ndarray) -> Source:
    """Returns the source with the field 'weight' of each example, float32; a source in memory stays one.

    Raises UsageError if the weights are not one per example.
    """
    values = np.asarray(weights, np.float32)
    if values.shape != (len(source),):
        raise UsageError(f'{source!r} has {len(source)} examples, and the weights have the shape {list(values.shape)}')
    if isinstance(source, Arrays):
        return Arrays({**source.arrays, WEIGHT: values}, source.info)
    return Weighted(source, values)


class Weighted:
    """A source whose examples have a field 'weight'."""

    def __init__(self, source: Source, weights: np.ndarray):
        self.source, self.weights = source, weights
        self.info, self.in_memory = source.info, getattr(source, 'in_memory', False)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return {**self.source[index], WEIGHT: self.weights[index]}

    def labels(self) -> np.ndarray:
        return read_labels(self.source)

    def __repr__(self) -> str:
        return f'Weighted({self.source!r})'
