"""Reading a line of text in an image: a model that scores characters column by column, and CTC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import backend, data, losses, metrics, models, named, optim, plots
from canon.errors import UsageError
from canon.ops.ctc import Readings, best_path, prefix_beam_search
from canon.train import Evaluator, Experiment, Task, lengths
from experiments.export import Served
from experiments.images import SHEET, image_shape, none_of, reading, right_and_wrong, write_predictions

_BEAM = 10  # prefixes that `predict` keeps


@dataclass(frozen=True)
class Spec:
    """One entry of config.data.evals. beam: the width of the prefix beam search that reads; 0 takes the best path."""

    split: str
    transforms: Mapping[str, Any] | None = None
    beam: Annotated[int, named.Range(0)] = 0


def make(config: ConfigDict) -> Experiment:
    """config.data, config.text, config.model, config.tx and config.input -> a text recognition experiment."""
    _check_sizes(config)
    source = _source(config, config.data.train.split)
    transforms = data.transforms.make(config.data.train.get('transforms'), 'data.train.transforms')
    shape = image_shape(source, transforms, 'data.train')
    experiment = without_data(config, dict(image_shape=shape, num_examples=len(source)))
    train = data.Batches(
        source,
        seed=config.seed,
        sampler=config.data.train.get('sampler', 'shuffled'),
        transforms=transforms,
        **reading(config),
    )
    evals = {name: _evaluator(config, experiment.task, name) for name in sorted(config.data.evals)}
    return experiment._replace(train=train, evals=evals)


def without_data(config: ConfigDict, about: Mapping[str, Any]) -> Experiment:
    """The experiment of a run that said this of its data in `run.json`: enough to predict with it and to export it."""
    _check_sizes(config)
    alphabet, size = _alphabet(config), config.data.batch_size // jax.process_count()
    if config.model.num_classes != len(alphabet):
        raise UsageError(
            f'model.num_classes={config.model.num_classes}, but text.characters has {len(alphabet)}; set it to that'
        )
    batch = {
        'image': np.zeros((size, *about['image_shape']), np.uint8),
        'label': np.zeros((size, config.text.max_length), np.int32),
        'label_length': np.zeros(size, np.int32),
        'mask': np.ones(size, bool),
    }
    train = data.Generated(lambda step: batch, config.data.batch_size, about['num_examples'])
    config = lengths.resolve(config, train.batch_size, train.num_examples)
    task = recognition_task(models.make(**named.plain(config.model)), named.call(grey_images, config.input, 'input'))
    return Experiment(task, optim.make(config.tx), train, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on lines of digits where its own data would have to be at hand: to build it, or to time it."""
    if config.data.name != 'digit_lines':
        with config.unlocked():
            config.data.name, config.data.source = 'digit_lines', {}
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """Reads every image of a folder (or one image): a CSV of file, text and probability, and a contact sheet.

    Images go through the transforms of the first evaluator; a prefix beam search of width 10 reads.
    """
    first = min(config.data.evals, default=None)
    spec = _spec(config, first) if first is not None else Spec('')
    transforms = data.transforms.make(spec.transforms, f'data.evals.{first}.transforms')
    files, alphabet = data.image_files.Files(source), _alphabet(config)
    read = _reader(experiment.task, spec.beam or _BEAM)
    rows, shown = [], []
    for batch in data.Once(files, config.data.batch_size, transforms, memory_limit=0).iterate():
        labels, _, log_probs = map(np.asarray, read(params, mutable, batch))
        for i in np.flatnonzero(batch['mask']):
            text, chance = alphabet.decode(labels[i]), float(np.exp(log_probs[i]))
            rows.append([str(files.paths[len(rows)]), text, f'{chance:.4f}'])
            if len(shown) < SHEET:
                shown.append((batch['image'][i], f'{text} {chance:.2f}'))
    sheet = plots.readings(np.stack([image for image, _ in shown]), [text for _, text in shown])
    head = ['file', 'text', 'probability']
    return f'{len(rows)} images read: {write_predictions(output, [head, *rows], sheet)}'


def served(config: ConfigDict, experiment: Experiment) -> Served:
    """What an exported model computes: uint8 images [b, H, W, C] -> probabilities float32 [b, T, 1 + characters]."""

    def probabilities(params, mutable, images):
        return jnp.exp(experiment.task.predict(params, mutable, {'image': images}))

    shape = experiment.about['image_shape']
    return Served(probabilities, tuple(shape), 'uint8', {'blank': 0, 'characters': config.text.characters})


def grey_images(mean: float = 0.5, std: named.Positive = 0.5) -> Callable[[Any], jax.Array]:
    """images(batch): 'image' uint8 [B, H, W, 1 or 3] as grey float32 [B, H, W, 1], from [0, 1] by `mean` and `std`.

    Grey is luma by ITU-R 601. It is done on the device. The defaults are the authors': (x - 128) / 128, about.
    """
    if std <= 0:
        raise UsageError(f'input.std={std} must be positive')

    def images(batch):
        x = batch['image'].astype(jnp.float32) / 255
        if x.shape[-1] == 3:
            x = (x * jnp.array([0.299, 0.587, 0.114])).sum(-1, keepdims=True)
        return (x - mean) / std

    return images


def recognition_task(model: Any, images: Callable[[Any], jax.Array]) -> Task:
    """Reading batches with 'image', 'label' [B, N], 'label_length' and 'mask' [B] by `model`: -> logits [B, T, C].

    The loss is -log p(label) a text, by CTC: Shi et al. 2015, section 2.4. A text that needs more frames than there are
    teaches nothing and is not weighed; the metric `impossible` is the share of those. `predict` gives log
    probabilities float32 [B, T, C], class 0 the blank.
    """

    def init(key, batch):
        return model.init(key, images({'image': batch['image'][:1]}), train=False)

    def loss(params, mutable, batch, at):
        logits, new = model.apply({'params': params, **mutable}, images(batch), train=True, mutable=[*mutable])
        per_text = losses.ctc(logits, _frames(logits), batch['label'], batch['label_length'])
        possible = jnp.isfinite(per_text)
        told = metrics.Mean.of(per_text, batch['mask'] & possible)
        return told, (dict(new), {'impossible': metrics.Mean.of(~possible, batch['mask'])})

    def predict(params, mutable, batch):
        logits = model.apply({'params': params, **mutable}, images(batch), train=False)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    return Task(init, loss, predict)


def recognition_evaluator(task: Task, batches: Any, alphabet: data.Alphabet, beam: int = 0) -> Evaluator:
    """loss: nats a text; word_accuracy; character_error_rate; pictures of texts right and wrong, and of the frames."""

    def measure(params, mutable, batch):
        log_probs, mask = task.predict(params, mutable, batch), batch['mask']
        truth = batch['label'], batch['label_length']
        loss = losses.ctc(log_probs, _frames(log_probs), *truth)
        labels, counts, _ = _read(log_probs, beam)
        return {
            'loss': metrics.Mean.of(loss, mask & jnp.isfinite(loss)),
            'word_accuracy': metrics.word_accuracy(labels, counts, *truth, mask),
            'character_error_rate': metrics.character_error_rate(labels, counts, *truth, mask),
        }

    def finish(sums):
        return {name: mean.value for name, mean in sums.items()}

    def pictures(params, mutable, sums):
        right, wrong = _samples(task, batches, alphabet, beam, params, mutable)
        return {
            'right': _gallery(right, 'right: what is read and its probability'),
            'wrong': _gallery(wrong, 'wrong, surest first: the text, then what is read'),
            'frames': _spikes(task, batches, alphabet, params, mutable),
        }

    return Evaluator(batches, measure, finish, pictures)


def _read(log_probs: jax.Array, beam: int) -> Readings:
    """The best label of each row, by a beam or by the best path, with its probability over all paths."""
    frames = _frames(log_probs)
    if beam:
        labels, lengths, _ = (x[:, 0] for x in prefix_beam_search(log_probs, frames, beam))
    else:
        labels, lengths, _ = best_path(log_probs, frames)
    return Readings(labels, lengths, -losses.ctc(log_probs, frames, labels, lengths))


def _reader(task: Task, beam: int) -> Callable[..., Readings]:
    def read(params, mutable, batch):
        return _read(task.predict(params, mutable, batch), beam)

    return backend.jit(read)


def _frames(logits: jax.Array) -> jax.Array:
    """All frames of every row, [B]: the whole image is text."""
    return jnp.full(logits.shape[0], logits.shape[1])


def _samples(task: Task, batches: Any, alphabet: data.Alphabet, beam: int, params, mutable) -> tuple[list, list]:
    """(image, text, reading, probability) of rows that are read right, in order, and wrong, surest first."""
    read = _reader(task, beam)

    def rows(batch):
        labels, _, log_probs = map(np.asarray, read(params, mutable, batch))
        for i in np.flatnonzero(batch['mask']):
            text, guess = alphabet.decode(batch['label'][i]), alphabet.decode(labels[i])
            yield batch['image'][i], text, guess, float(np.exp(log_probs[i]))

    return right_and_wrong(map(rows, batches.iterate()))


def _gallery(rows: list, title: str):
    if not rows:
        return plots.readings(np.zeros((0, 1, 1, 1)), [], title=none_of(title))
    titles = [text + (f' → {guess or "nothing"}' if guess != text else '') + f' {p:.2f}' for _, text, guess, p in rows]
    return plots.readings(np.stack([image for image, *_ in rows]), titles, title=title)


def _spikes(task: Task, batches: Any, alphabet: data.Alphabet, params, mutable):
    """The longest text of the first batch, frame by frame."""
    batch = batches[0]
    chosen = int(np.argmax(batch['label_length'] * batch['mask']))
    one = {field: values[chosen : chosen + 1] for field, values in batch.items()}
    log_probs = np.asarray(jax.jit(task.predict)(params, mutable, one))
    read = alphabet.decode(best_path(jnp.asarray(log_probs), jnp.array([log_probs.shape[1]])).labels[0])
    title = f'{alphabet.decode(one["label"][0])} is read as {read or "nothing"}'
    return plots.spikes(one['image'][0], np.exp(log_probs[0]), alphabet.characters, title)


def _evaluator(config: ConfigDict, task: Task, name: str) -> Evaluator:
    spec = _spec(config, name)
    transforms = data.transforms.make(spec.transforms, f'data.evals.{name}.transforms')
    batches = data.Once(_source(config, spec.split), transforms=transforms, **reading(config))
    return recognition_evaluator(task, batches, _alphabet(config), spec.beam)


def _check_sizes(config: ConfigDict) -> None:
    for key, value in (('text.max_length', config.text.max_length), ('data.batch_size', config.data.batch_size)):
        named.check(named.plain(value), named.Count, key)


def _spec(config: ConfigDict, name: str) -> Spec:
    return named.call(Spec, config.data.evals[name], f'data.evals.{name}')


def _alphabet(config: ConfigDict) -> data.Alphabet:
    """config.text: characters, ignore_case (and max_length, which is the source's)."""
    spec = {key: value for key, value in config.text.items() if key != 'max_length'}
    return named.call(data.Alphabet, spec, 'text')


def _source(config: ConfigDict, split: str) -> data.Source:
    """config.data.source: the arguments of digit_lines or of words. Raises UsageError for data without texts."""
    options = {key: value for key, value in config.data.get('source', {}).items() if value is not None}
    if config.data.name not in ('digit_lines', 'words'):
        raise UsageError(f"data.name={config.data.name!r} has no texts; there are 'digit_lines' and 'words'")
    if config.data.name == 'words' and 'path' not in options:
        raise UsageError('data words need --config.data.source.path=FOLDER, which holds train.csv (rows file,text)')
    return data.load(config.data.name, split, alphabet=_alphabet(config), max_length=config.text.max_length, **options)
