"""Image classification: the task, prediction from several views, and the evaluator.

    task = classification_task(models.make_model('resnet.resnet18', num_classes=10), make_image_input(0.5, 0.25))
    evaluator = classification_evaluator(task.predict, batches, class_names)

The model is any linen module from images [B, H, W, C] to logits [B, num_classes]. Batches hold 'image' uint8
[B, H, W, C] (or [B, K, H, W, C], K crops of each image, in evaluation), 'label' integers [B] (or distributions over the
classes [B, num_classes], with `soft_labels`) and 'mask' bool [B], False for padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from logging import getLogger
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError, ScopeParamShapeError

from canon import backend, data, losses, metrics, named, plots
from canon.errors import UsageError
from canon.tasks.image_settings import HeldOutImages
from canon.tasks.predictions import Prediction, predict_images
from canon.tasks.samples import empty_title, select_samples
from canon.train import Evaluator, Task

_GALLERY_EXAMPLES = 10_000  # examples among which the samples of a gallery are chosen

Loss = Callable[[jax.Array, jax.Array], jax.Array]  # logits [B, C], labels -> losses [B]
Predict = Callable[[Any, Any, Any], jax.Array]  # (params, mutable, batch) -> scores [B, C]


def make_image_input(
    mean: float | Sequence[float] = (0.0,), std: float | Sequence[float] = (1.0,)
) -> Callable[[Any], jax.Array]:
    """Makes the function from a batch to the network's input: (image / 255 - mean) / std, float32.

    It runs on the device, so that the host sends a byte per value.

    Args:
      mean: subtracted from values in [0, 1]; one number, or one per channel.
      std: divides them, likewise.

    Raises:
      UsageError: `mean` is not finite or `std` not positive; later, that images have another number of channels.
    """
    # One number, or one per channel, broadcasts over [B, H, W, C] as a vector.
    shift, scale = np.asarray(mean, np.float32).reshape(-1), np.asarray(std, np.float32).reshape(-1)
    if not np.isfinite(shift).all():
        raise UsageError(f'input.mean={mean} must be finite')
    if not (scale > 0).all():
        raise UsageError(f'input.std={std} must be positive')

    def image_input(batch):
        channels = batch['image'].shape[-1]
        for key, values in (('mean', shift), ('std', scale)):
            if len(values) not in (1, channels):
                raise UsageError(
                    f'input.{key} has {len(values)} values, but the images have {channels} channel'
                    f'{"s" if channels > 1 else ""}; give one, or {channels}'
                )
        return (batch['image'].astype(jnp.float32) / 255 - shift) / scale

    return image_input


def make_softmax_cross_entropy(label_smoothing: named.Probability = 0.0, soft_labels: bool = False) -> Loss:
    """Binds the arguments of `losses.softmax_cross_entropy`.

    Args:
      label_smoothing: share of the target that is spread evenly over all classes.
      soft_labels: whether labels are distributions over the classes, as mixup makes them.
    """
    return partial(losses.softmax_cross_entropy, label_smoothing=label_smoothing, soft_labels=soft_labels)


def make_maximum_a_posteriori(j: named.Positive = 0.1) -> Loss:
    """Binds the arguments of `losses.maximum_a_posteriori`, the loss of LeNet-5 (1998), for integer labels.

    Args:
      j: penalty of the rubbish class.
    """
    return partial(losses.maximum_a_posteriori, j=j)


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation(HeldOutImages):
    """An entry of config.data.evals. Transforms may make crops [K, H, W, C], such as `ten_crop`, over which posteriors
    are averaged.

    Attributes:
      scales: lengths of the shorter side over which posteriors are averaged; empty for the image as it is.
      flip: whether mirror images are averaged as well.
    """

    scales: tuple[named.Count, ...] = ()
    flip: bool = False


LOSSES = {
    'softmax_cross_entropy': make_softmax_cross_entropy,
    'maximum_a_posteriori': make_maximum_a_posteriori,
}


def make_loss(name: str = 'softmax_cross_entropy', **arguments: Any) -> Loss:
    """Makes a loss of `LOSSES` by name. Raises UsageError for an unknown name or argument."""
    if name not in LOSSES:
        raise UsageError(f'loss.name={name!r} is unknown{named.suggest(name, LOSSES)}')
    return named.call(LOSSES[name], arguments, 'loss')


def classification_task(
    model: Any,
    make_input: Callable[[Any], jax.Array],
    loss: Loss = losses.softmax_cross_entropy,
    auxiliary: float = 0.3,
    soft_labels: bool = False,
) -> Task:
    """Makes the task of predicting the class of an image.

    Args:
      model: a linen module from images to logits.
      make_input: from a batch to what the model takes, such as `make_image_input()`.
      loss: of training, from (logits, labels) to one value per image.
      auxiliary: weight of each auxiliary classifier, whose logits the model sows into the collection 'auxiliary'
        (0.3: Szegedy et al. 2015, "Going deeper with convolutions", section 5).
      soft_labels: whether labels may be distributions [B, num_classes]; `loss` must take them too.

    Returns:
      A task whose `predict` gives scores [B, num_classes] with the softmax as the prediction: the logits; for crops
      [B, K, H, W, C] the logarithm of the mean of the K softmaxes (Krizhevsky et al. 2012, section 4.1); for a fully
      convolutional model with logits [B, h, w, num_classes] their mean over the map (Simonyan & Zisserman 2015,
      section 3.2).
    """

    def training_loss(params, mutable, batch, at):
        logits, auxiliary_logits, changed = apply_in_training(model, make_input, params, mutable, batch, at.key)
        heads = [(1.0, logits), *((auxiliary, head) for head in auxiliary_logits)]
        per_image = sum(weight * loss(mean_over_map(z), batch['label']) for weight, z in heads)
        accuracy = metrics.accuracy(mean_over_map(logits), batch['label'], batch['mask'], soft_labels)
        return metrics.Mean.of(jnp.asarray(per_image), batch['mask']), (changed, {'accuracy': accuracy})

    def predict(params, mutable, batch):
        def score(images):
            logits = apply_network(model, {'params': params, **mutable}, make_input({'image': images}), train=False)
            return mean_over_map(logits).astype(jnp.float32)

        if batch['image'].ndim == 5:  # crop by crop: the activations of 150 of them would not fit into memory
            return mean_posterior(jax.lax.map(score, jnp.moveaxis(batch['image'], 1, 0)), axis=0)
        return score(batch['image'])

    return Task(partial(init_network, model, make_input), training_loss, predict)


def init_network(model: Any, make_input: Callable[[Any], jax.Array], key: jax.Array, batch: Any) -> dict[str, Any]:
    """Initialises a network of images with auxiliary classifiers; `Task.init` after its first two arguments."""
    # One image: parameters do not depend on the number of images, and a large batch would only take memory.
    variables = dict(model.init(key, make_input({'image': batch['image'][:1]}), train=False))
    variables.pop('auxiliary', None)  # what a user's model may sow even while it is initialised
    return variables


def apply_in_training(
    model: Any, make_input: Callable[[Any], jax.Array], params: Any, mutable: Mapping[str, Any], batch: Any, key: Any
) -> tuple[Any, list[jax.Array], dict[str, Any]]:
    """Applies a network of images in training, with dropout and batch statistics.

    Args:
      model: a linen module that may sow the logits of auxiliary classifiers into the collection 'auxiliary'.
      make_input: from the batch to what the model takes.
      params: its parameters.
      mutable: its other collections.
      batch: has 'image'.
      key: of dropout.

    Returns:
      (the outputs, such as logits; those of the auxiliary classifiers; the mutable after the batch).
    """
    logits, changed = apply_network(
        model,
        {'params': params, **mutable},
        make_input(batch),
        train=True,
        rngs={'dropout': key},
        mutable=[*mutable, 'auxiliary'],  # the logits of auxiliary classifiers come out as a collection
    )
    changed = dict(changed)
    return logits, jax.tree.leaves(changed.pop('auxiliary', {})), changed


def apply_network(model: Any, variables: Mapping[str, Any], images: jax.Array, **options: Any) -> Any:
    """Calls `model.apply`; images of another size or number of channels than the parameters' raise UsageError."""
    try:
        return model.apply(variables, images, **options)
    except ScopeParamShapeError as error:
        shape = 'x'.join(map(str, images.shape[1:]))
        raise UsageError(
            f'the parameters are not for images of {shape}; give images of the size and the channels of the training'
        ) from error


def many_views(predict: Predict, scales: Sequence[int] = (), flip: bool = False) -> Predict:
    """Averages the posteriors of `predict` over several sizes of the images and over their mirror images.

    Simonyan & Zisserman 2015, sections 3.2 and 4.2, average over scales and mirror images.

    Args:
      predict: as `Task.predict`.
      scales: lengths of the shorter side; images are reduced on the device, bilinearly and antialiased.
      flip: whether mirror images count as well.

    Returns:
      A function like `predict`; scores are the logarithm of the mean posterior.
    """

    def predict_views(params, mutable, batch):
        views = [_reduce(batch['image'], size) for size in scales] or [batch['image']]
        views += [x[..., ::-1, :] for x in views] if flip else []
        scores = [predict(params, mutable, {**batch, 'image': x}) for x in views]
        return scores[0] if len(scores) == 1 else mean_posterior(jnp.stack(scores), axis=0)

    return predict_views


def mean_posterior(logits: jax.Array, axis: int) -> jax.Array:
    """Computes the logarithm of the mean of softmax(logits) over `axis`; its softmax is that mean."""
    # In logarithms, so that a later softmax gives back the mean exactly and nothing underflows.
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis) - np.log(logits.shape[axis])


def mean_over_map(logits: jax.Array) -> jax.Array:
    """Averages a map of logits [B, h, w, C] to [B, C]; returns logits [B, C] as they are."""
    return logits.mean((1, 2)) if logits.ndim == 4 else logits


def classification_evaluator(
    predict: Predict,
    batches: Any,
    names: Sequence[str],
    draw_network: Callable[[Any, Any, Any], Mapping[str, Any]] | None = None,
    soft_labels: bool = False,
) -> Evaluator:
    """Measures how accurate and how calibrated `predict` is, and draws its confusions and samples.

    Metrics: `loss`, the negative log-likelihood in nats; `accuracy`; `top5_accuracy` of more than ten classes;
    `class_accuracy`, the mean of the recalls; `calibration_error`, expected, over 15 bins (Guo et al. 2017); `brier`.

    Args:
      predict: (params, mutable, batch) -> scores [B, C].
      batches: finite data.
      names: of the C classes.
      draw_network: (params, mutable, batch) -> {title: Figure}, more figures such as
        `canon.tasks.classification_figures.draw_network` makes.
      soft_labels: whether labels may be distributions [B, C]; each counts as its most likely class.
    """
    with_top5 = len(names) > 10

    def measure(params, mutable, batch):
        scores, labels, mask = predict(params, mutable, batch), batch['label'], batch['mask']
        # Calibration and the Brier score are defined for a class, not for a distribution.
        labels = labels.argmax(-1) if soft_labels and labels.shape == scores.shape else labels
        probabilities = jax.nn.softmax(scores)
        sums = {
            # Without the smoothing of the training loss, so that runs with and without it compare.
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
        recalls = metrics.class_accuracy(sums['confusion'])
        return {
            **means,
            # A class without examples has no recall (NaN) and does not count.
            'class_accuracy': np.nanmean(recalls) if np.isfinite(recalls).any() else np.nan,
            'calibration_error': sums['reliability'].error,
        }

    def draw(params, mutable, sums):
        correct, incorrect = select_samples(_predicted_rows(predict, batches, params, mutable))
        subset = f' of the first {_GALLERY_EXAMPLES}' if batches.num_examples > _GALLERY_EXAMPLES else ''
        return {
            'class accuracy': plots.draw_class_accuracy(sums['confusion'], names),
            'confusion matrix': plots.draw_confusion_matrix(sums['confusion'], names),
            'reliability': plots.draw_reliability(*sums['reliability'], sums['reliability'].error),
            'right': _draw_gallery(correct, names, 'right: class and its probability'),
            'wrong': _draw_gallery(
                incorrect, names, f'wrong{subset}, most confident first: true class → predicted class'
            ),
            **({} if draw_network is None else draw_network(params, mutable, batches[0])),
        }

    return Evaluator(batches, measure, finish, draw)


def classify(
    predict: Predict, params: Any, mutable: Any, batches: Any, channels: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (image [H, W, C], probabilities [num_classes]) for every row of the batches that is not padding.

    Args:
      predict: as `Task.predict`.
      params: its first argument.
      mutable: its second.
      batches: an iterable of batches with 'image' uint8 and 'mask'.
      channels: that the model takes; RGB images become grey for a model of one channel.
    """
    infer = backend.jit(lambda p, m, b: jax.nn.softmax(predict(p, m, b)))  # one program: batches have one shape
    for batch in batches:
        images = _match_channels(batch['image'], channels)
        probabilities = np.asarray(infer(params, mutable, {'image': images}))
        for i in np.flatnonzero(batch['mask']):
            yield middle_crop(images[i]), probabilities[i]


def rank_classes(probabilities: np.ndarray, names: Sequence[str], count: int = 3) -> list[tuple[str, float]]:
    """Returns (name, probability) of the `count` most likely classes, the likeliest first."""
    best = np.argsort(-probabilities, kind='stable')[:count]  # stable: of equal ones the first class
    return [(names[i], float(probabilities[i])) for i in best]


def predict_classes(
    files: Any, classified: Iterable[tuple[np.ndarray, np.ndarray]], names: Sequence[str]
) -> Iterator[Prediction]:
    """Yields the three most likely classes of each image file, and at last a contact sheet.

    Args:
      files: with the `paths` that are read, and those `skipped`.
      classified: of `classify`, one for each path.
      names: of the classes.
    """

    def rank():
        for path, (image, probabilities) in zip(files.paths, classified, strict=True):
            ranked = rank_classes(probabilities, names)
            row = {'file': str(path)}
            for place, (name, probability) in enumerate(ranked, 1):
                row |= {f'class{place}': name, f'probability{place}': f'{probability:.4f}'}
            yield row, image, '{} {:.2f}'.format(*ranked[0])

    skipped = f', {len(files.skipped)} skipped' if files.skipped else ''
    return predict_images(rank(), plots.draw_gallery, lambda count: f'{count} images classified{skipped}')


def _match_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Converts RGB images to grey for models of one channel: luma by ITU-R 601, as Pillow's 'L'."""
    if channels == images.shape[-1]:
        return images
    if channels != 1:
        raise UsageError(f'the model takes images of {channels} channels, files are read with {images.shape[-1]}')
    return np.round(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]


def class_names(source: Any, num_classes: int) -> list[str]:
    """Returns the source's class names, numbers where it has none.

    Raises UsageError if the model has fewer classes than the data, and warns if it has more.
    """
    info, count = source.info, _count_classes(source)
    if count is not None and count > num_classes:
        raise UsageError(f'model.num_classes={num_classes}, but the data have {count} classes; set it to that')
    if count is not None and count < num_classes:
        getLogger('canon').warning(
            'model.num_classes=%d, but the data have %d classes: no label reaches the others', num_classes, count
        )
    names = list(info.class_names or ())
    return names + [str(i) for i in range(len(names), num_classes)]


def _count_classes(source: Any) -> int | None:
    """Returns the number of classes that a source states or its labels in memory reach; None if neither is known."""
    if source.info.num_classes is not None or not isinstance(source, data.Arrays):
        return source.info.num_classes
    labels = source.arrays.get('label')
    return int(labels.max()) + 1 if labels is not None and labels.ndim == 1 and len(labels) else None


def check_shapes(task: Task, predict: Predict, shape: tuple[int, ...], other: tuple[int, ...], where: str) -> None:
    """Checks that a model initialised with images of one shape takes those of an evaluator.

    Only shapes are computed. The first evaluation would fail too, epochs later.

    Args:
      task: the task, for its `init`.
      predict: of the evaluator.
      shape: of the images in training, [H, W, C] or [K, H, W, C].
      other: of the evaluator's images.
      where: name of the evaluator in the message.

    Raises:
      UsageError: the model does not take them.
    """
    # Shapes stand in for arrays: tracing finds a misfit without computing anything.
    batch, others = (
        {'image': jax.ShapeDtypeStruct((1, *s), np.uint8), 'label': jax.ShapeDtypeStruct((1,), np.int32)}
        for s in (shape, other)
    )
    variables = dict(jax.eval_shape(task.init, jax.random.key(0), batch))
    params = variables.pop('params')
    try:
        jax.eval_shape(predict, params, variables, others)
    except (FlaxError, TypeError, ValueError) as error:
        # A clear line of ours gets the evaluator's name in front; an error of Flax or of XLA is replaced by one.
        if isinstance(error, UsageError) and not isinstance(error.__cause__, FlaxError):
            raise UsageError(f'{where}: {error}') from error
        sizes = 'x'.join(map(str, other)), 'x'.join(map(str, shape))
        raise UsageError(
            f'{where}: images of {sizes[0]} do not go through a model made for {sizes[1]}; make them as in data.train'
        ) from error


def middle_crop(image: np.ndarray) -> np.ndarray:
    """Returns the middle one of an image's crops [K, H, W, C] (the central crop of `ten_crop`); [H, W, C] as it is."""
    return image[(len(image) - 1) // 2] if image.ndim == 4 else image


def _predicted_rows(predict: Predict, batches: Any, params, mutable) -> Iterator[list[tuple]]:
    """Yields for each batch its rows (image, label, prediction, probability)."""
    infer = backend.jit(lambda p, m, b: jax.nn.softmax(predict(p, m, b)))
    count = 0
    for batch in batches.iterate():
        probabilities = np.asarray(infer(params, mutable, batch))
        yield [_predicted_row(batch, probabilities, i) for i in np.flatnonzero(batch['mask'])]
        count += len(batch['mask'])
        if count >= _GALLERY_EXAMPLES:
            break


def _predicted_row(batch, probabilities: np.ndarray, i: int) -> tuple[np.ndarray, int, int, float]:
    prediction, label = int(probabilities[i].argmax()), batch['label'][i]
    label = int(label.argmax() if np.ndim(label) else label)
    return middle_crop(batch['image'][i]), label, prediction, float(probabilities[i, prediction])


def _draw_gallery(rows: list[tuple], names: Sequence[str], title: str):
    if not rows:
        return plots.draw_gallery(np.zeros((0, 1, 1, 1)), [], title=empty_title(title))
    titles = [names[y] + (f' → {names[p]}' if p != y else '') + f' {chance:.2f}' for _, y, p, chance in rows]
    return plots.draw_gallery(np.stack([image for image, *_ in rows]), titles, title=title)


def _reduce(images: jax.Array, size: int) -> jax.Array:
    """Resizes [..., H, W, C] to a shorter side of `size`, as float32 in 0..255."""
    *leading, height, width, channels = images.shape
    shorter = min(height, width)
    if size > shorter:
        raise UsageError(f'scales: {size} is more than the images have, {height}x{width}; resize them to the largest')
    if size == shorter:
        return images
    shape = (*leading, round(height * size / shorter), round(width * size / shorter), channels)
    return jax.image.resize(images.astype(jnp.float32), shape, 'bilinear')
