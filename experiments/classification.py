"""Image classification: any model of `canon.models` on any source whose examples have 'image' and 'label'."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import data, draw, losses, metrics, models, optim
from canon.errors import UsageError
from canon.train import Evaluator, Experiment, Task, lengths

_GALLERY = 32  # samples in a picture


def make(config: ConfigDict) -> Experiment:
    """config.data, config.model, config.tx, config.input and config.loss -> a classification experiment."""
    source = _source(config, config.data.train.split)
    names = class_names(source, config.model.num_classes)
    train = _batches(config, source)
    config = lengths.resolve(config, train.batch_size, train.num_examples)
    model = models.make(**config.model)
    task = classification_task(model, **config.input, **config.loss)
    evals = {name: classification_evaluator(task, _once(config, name), names) for name in sorted(config.data.evals)}
    return Experiment(task, optim.make(config.tx), train, evals)


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on random images where its own would have to be downloaded: to build it, or to time it."""
    if config.data.name not in data.OWN:
        with config.unlocked():
            config.data.name = 'fake'
            config.data.source = dict(num_classes=config.model.num_classes, channels=len(config.input.mean), size=256)
    return config


def classification_task(
    model: Any, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,), label_smoothing: float = 0.0
) -> Task:
    """Softmax classification of batches with 'image' uint8 [B, H, W, C], 'label' int [B] and 'mask' bool [B].

    Images are scaled to [0, 1], then by `mean` and `std` a channel, on the device: a byte a pixel crosses the bus.
    """
    shift, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)

    def images(batch):
        return (batch['image'].astype(jnp.float32) / 255 - shift) / scale

    def init(key, batch):
        return model.init(key, images({'image': batch['image'][:1]}), train=False)

    def loss(params, mutable, batch, key):
        logits, mutable = model.apply(
            {'params': params, **mutable},
            images(batch),
            train=True,
            rngs={'dropout': key},
            mutable=list(mutable),
        )
        per_image = losses.softmax_cross_entropy(logits, batch['label'], label_smoothing)
        accuracy = metrics.accuracy(logits, batch['label'], batch['mask'])
        return metrics.Mean.of(per_image, batch['mask']), (mutable, {'accuracy': accuracy})

    def predict(params, mutable, batch):
        return model.apply({'params': params, **mutable}, images(batch), train=False).astype(jnp.float32)

    return Task(init, loss, predict)


def classification_evaluator(task: Task, batches: Any, names: Sequence[str]) -> Evaluator:
    """Loss, accuracy, top-5 (of more than ten classes), confusion matrix; pictures of samples right and wrong."""
    with_top5 = len(names) > 10

    def measure(params, mutable, batch):
        logits, labels, mask = task.predict(params, mutable, batch), batch['label'], batch['mask']
        sums = {
            'loss': metrics.Mean.of(losses.softmax_cross_entropy(logits, labels), mask),
            'accuracy': metrics.accuracy(logits, labels, mask),
            'confusion': metrics.confusion(logits, labels, mask),
        }
        if with_top5:
            sums['top5_accuracy'] = metrics.top_k(logits, labels, 5, mask)
        return sums

    def finish(sums):
        return {name: mean.value for name, mean in sums.items() if name != 'confusion'}

    def pictures(params, mutable, sums):
        right, wrong = _samples(task, batches, params, mutable)
        return {
            'confusion matrix': draw.confusion_matrix(sums['confusion'], names),
            'right': _gallery(right, names, 'right: class and its probability'),
            'wrong': _gallery(wrong, names, 'wrong, surest first: true class, then what was predicted'),
        }

    return Evaluator(batches, measure, finish, pictures)


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """Classifies every image of a folder (or one image): a CSV of the three likeliest classes and a contact sheet."""
    spec = next(iter(config.data.evals.values()), {}).get('transforms')
    files = data.files.Files(source)
    batches = data.Once(files, config.data.batch_size, data.transforms.make(spec, 'data.evals.transforms'))
    channels = experiment.train[0]['image'].shape[-1]
    names = class_names(_source(config, config.data.train.split), config.model.num_classes)
    rows, shown = [], []
    infer = jax.jit(lambda p, m, b: jax.nn.softmax(experiment.task.predict(p, m, b)))
    for batch in batches.iterate():
        images = _with_channels(batch['image'], channels)
        chances = np.asarray(infer(params, mutable, {'image': images}))
        for image, chance in zip(images[batch['mask']], chances[batch['mask']], strict=True):
            best = np.argsort(-chance, kind='stable')[:3]
            rows.append([str(files.paths[len(rows)]), *(x for c in best for x in (names[c], f'{chance[c]:.4f}'))])
            shown.append((image, f'{names[best[0]]} {chance[best[0]]:.2f}'))
    out = Path(output)
    out.mkdir(parents=True, exist_ok=True)
    with (out / 'predictions.csv').open('w', newline='') as file:
        ranks = range(1, (len(rows[0]) + 1) // 2)
        csv.writer(file).writerows([['file', *(x for r in ranks for x in (f'class{r}', f'probability{r}'))], *rows])
    sheet = draw.gallery(np.stack([i for i, _ in shown[:64]]), [t for _, t in shown[:64]])
    sheet.savefig(out / 'predictions.png', dpi=100)
    return f'{len(rows)} images classified: {out / "predictions.csv"}, {out / "predictions.png"}'


def _with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """RGB files for a model of grey images: luma by ITU-R 601, as Pillow's 'L'."""
    if channels == images.shape[-1]:
        return images
    if channels != 1:
        raise UsageError(f'the model takes images of {channels} channels, files are read with {images.shape[-1]}')
    return np.round(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)[..., None]


def class_names(source: Any, num_classes: int) -> list[str]:
    """The source's class names; numbers where it has none. Raises UsageError where the model has fewer classes."""
    info = source.info
    if info.num_classes is not None and info.num_classes > num_classes:
        raise UsageError(
            f'model.num_classes={num_classes}, but the data have {info.num_classes} classes; set it to that'
        )
    names = list(info.class_names or ())
    return names + [str(i) for i in range(len(names), num_classes)]


def _source(config: ConfigDict, split: str) -> data.Source:
    """config.data.source: the arguments of a folder, of an .npz, ..."""
    d = config.data
    options = {k: v for k, v in d.get('source', {}).items() if v is not None}
    return data.load(d.name, split, data_dir=d.get('data_dir'), **options)


def _batches(config: ConfigDict, source: data.Source) -> data.Batches:
    spec = config.data.train
    return data.Batches(
        source,
        seed=config.seed,
        sampler=spec.get('sampler', 'shuffled'),
        transforms=_transforms(config, spec.transforms, 'data.train.transforms'),
        **_reading(config),
    )


def _once(config: ConfigDict, name: str) -> data.Once:
    spec = config.data.evals[name]
    transforms = _transforms(config, spec.transforms, f'data.evals.{name}.transforms')
    return data.Once(_source(config, spec.split), transforms=transforms, **_reading(config))


def _transforms(config: ConfigDict, spec: Mapping[str, Any] | None, where: str):
    """The config's transforms; a label out of range is found on the host, where it can be named."""
    check = data.transforms.check_label(num_classes=config.model.num_classes)
    return (check, *data.transforms.make(spec, where))


def _reading(config: ConfigDict) -> dict[str, Any]:
    """config.data.reading: threads, workers, memory_limit."""
    shard = (jax.process_index(), jax.process_count())
    return {'batch_size': config.data.batch_size, 'shard': shard, **config.data.get('reading', {})}


def _samples(task: Task, batches: Any, params, mutable) -> tuple[list, list]:
    """(image, label, prediction, probability) of rows classified right, in order, and wrong, surest first."""
    infer = jax.jit(lambda p, m, b: jax.nn.softmax(task.predict(p, m, b)))
    right, wrong = [], []
    for batch in batches.iterate():
        chances = np.asarray(infer(params, mutable, batch))
        for i in np.flatnonzero(batch['mask']):
            guess = int(chances[i].argmax())
            row = (batch['image'][i], int(batch['label'][i]), guess, float(chances[i, guess]))
            if guess != row[1]:
                wrong.append(row)
            elif len(right) < _GALLERY:
                right.append(row)
        wrong = sorted(wrong, key=lambda row: -row[3])[:_GALLERY]
    return right, wrong


def _gallery(rows: list, names: Sequence[str], title: str):
    if not rows:
        return draw.gallery(np.zeros((0, 1, 1, 1)), [], title='none')
    titles = [names[t] + (f' → {names[g]}' if g != t else '') + f' {p:.2f}' for _, t, g, p in rows]
    return draw.gallery(np.stack([image for image, *_ in rows]), titles, title=title)
