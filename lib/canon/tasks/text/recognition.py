"""Text recognition: the task, its evaluator and its figures, for models that score characters frame by frame.

The model maps images to logits [B, T, C], one row of scores per column of the image, of which class 0 is the blank of
connectionist temporal classification (CTC; Graves et al. 2006). Training needs the texts alone, not the positions of
their characters: the loss sums over all alignments (Shi et al. 2015, section 2.4).

    task = recognition_task(crnn(num_classes=36), make_grey_input())
    evaluator = recognition_evaluator(task, batches, Alphabet(), beam_width=10)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, losses, metrics, plots
from canon.data.images.colour import LUMA
from canon.data.images.videos import VideoFiles
from canon.data.text.alphabets import ALPHANUMERIC, Alphabet
from canon.errors import UsageError
from canon.named import Count, Positive, Range
from canon.ops.ctc import Readings, best_path, prefix_beam_search
from canon.plots.text import draw_caption
from canon.tasks.classification import apply_in_training, init_network
from canon.tasks.image_settings import HeldOutImages
from canon.tasks.predictions import Prediction, join_frames, predict_images
from canon.tasks.samples import empty_title, select_samples
from canon.tasks.text.lexicon_reading import AnyLexiconReader, read_with_lexicon
from canon.train import Evaluator, Task

Decode = Callable[[jax.Array], Readings]  # from the outputs of a task to what is read
Reading = tuple[np.ndarray, str, str, float]  # image, target, text that the model reads, its probability


@dataclass(frozen=True)
class TextSettings:
    """config.text.

    Attributes:
      max_length: characters of the longest label.
      characters: of classes 1, 2, ...; class 0 is the blank.
      ignore_case: texts become lower case.
    """

    max_length: Count
    characters: str = ALPHANUMERIC
    ignore_case: bool = False

    @property
    def alphabet(self) -> Alphabet:
        """The classes 1, 2, ... of the model."""
        return Alphabet(self.characters, self.ignore_case)


@dataclass(frozen=True, kw_only=True)
class RecognitionEvaluation(HeldOutImages):
    """An entry of config.data.evals.

    Attributes:
      beam: width of the prefix beam search; 0 decodes the best path.
      lexicon: reads the most probable word of a lexicon: a file with a word per line, 'own', the lexicon of each
        example as the set has it, or 'full', all words of the set; 'none' reads freely.
      lexicon_distance: edits between the best path and the words that are scored, at most, 3 in the CRNN paper; None
        scores every word of the lexicon.
    """

    beam: Annotated[int, Range(0)] = 0
    lexicon: str = 'none'
    lexicon_distance: Annotated[int, Range(0)] | None = None


def make_grey_input(mean: float = 0.5, std: Positive = 0.5) -> Callable[[Any], jax.Array]:
    """Returns a function from a batch to the network's input: the luma of its images, normalised.

    'image' uint8 [B, H, W, 1 or 3] becomes float32 [B, H, W, 1], (luma / 255 - mean) / std. The defaults are close to
    the authors' (x - 128) / 128. It runs on the device, so that the host sends bytes.

    Args:
      mean: subtracted from pixels in [0, 1].
      std: divides them.

    Raises:
      UsageError: std is not positive.
    """
    if std <= 0:
        raise UsageError(f'input.std={std} must be positive')

    def grey_input(batch):
        pixels = batch['image'].astype(jnp.float32) / 255
        if pixels.shape[-1] == 3:
            pixels = (pixels * jnp.array(LUMA)).sum(-1, keepdims=True)
        return (pixels - mean) / std

    return grey_input


def recognition_task(model: Any, make_input: Callable[[Any], jax.Array]) -> Task:
    """Makes the task of reading the text in an image; the loss is -log p(text | image) per text, by CTC.

    Batches hold 'image', 'label' int32 [B, N], 'label_length' int32 [B] and 'mask' bool [B]. A text that needs more
    frames than the model gives has probability 0: it has no gradient, gets no weight in the loss, and the metric
    `impossible` is the share of such texts.

    Args:
      model: a linen module from `make_input(batch)` to logits [B, T, C].
      make_input: the network's input from a batch, such as `make_grey_input()`.

    Returns:
      A task whose `predict` gives log probabilities float32 [B, T, C].
    """

    def loss(params, mutable, batch, at):
        logits, _, updates = apply_in_training(model, make_input, params, mutable, batch, at.key)
        per_text = losses.ctc(logits, _frame_counts(logits), batch['label'], batch['label_length'])
        # An infinite loss would make the mean infinite, although nothing can be learnt from its text.
        possible = jnp.isfinite(per_text)
        mean = metrics.Mean.of(per_text, batch['mask'] & possible)
        return mean, (updates, {'impossible': metrics.Mean.of(~possible, batch['mask'])})

    def predict(params, mutable, batch):
        logits = model.apply({'params': params, **mutable}, make_input(batch), train=False)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    return Task(partial(init_network, model, make_input), loss, predict)


def recognition_evaluator(
    task: Task, batches: Any, alphabet: Alphabet, beam_width: int = 0, lexicon: AnyLexiconReader | None = None
) -> Evaluator:
    """Evaluates a recognition task: `loss` in nats per text, `word_accuracy` and `character_error_rate`.

    With an alphabet that has a space, `word_accuracy` is that of whole lines, and `word_error_rate` counts the edits of
    their words. The figures show texts read correctly, the most confident mistakes, and the probabilities of one text
    by frame.

    Args:
      task: a `recognition_task`.
      batches: finite data with the keys that the task needs.
      alphabet: the characters of classes 1, 2, ...
      beam_width: prefixes that the beam search keeps; 0 decodes the best path.
      lexicon: reads its words in place of that (`make_lexicon_reader`). One of examples' own lexica needs batches with
        their 'index' (`canon.data.text.labelled.NumberedSource`).
    """

    # Without a space a text is one word, whose error rate `word_accuracy` already tells.
    space = alphabet.characters.find(' ') + 1

    def measure(params, mutable, batch):
        log_probs = task.predict(params, mutable, batch)
        return score(log_probs, decode_labels(log_probs, beam_width), batch)

    def score(log_probs, readings, batch):
        mask, target = batch['mask'], (batch['label'], batch['label_length'])
        loss = losses.ctc(log_probs, _frame_counts(log_probs), *target)
        labels, lengths, _ = readings
        read = labels, lengths, *target
        by_words = {'word_error_rate': metrics.word_error_rate(*read, space, mask)} if space else {}
        return {
            # As in training, so that the two curves can be compared.
            'loss': metrics.Mean.of(loss, mask & jnp.isfinite(loss)),
            'word_accuracy': metrics.word_accuracy(*read, mask),
            'character_error_rate': metrics.character_error_rate(*read, mask),
            **by_words,
        }

    def finish(sums):
        return {name: mean.value for name, mean in sums.items()}

    def draw(params, mutable, sums):
        decode = partial(decode_labels, beam_width=beam_width)
        readings = read_batches(task, params, mutable, batches.iterate(), alphabet, decode, lexicon)
        correct, incorrect = select_samples(readings)
        return {
            'right': _draw_readings(correct, 'right: what is read and its probability'),
            'wrong': _draw_readings(incorrect, 'wrong, surest first: the text, then what is read'),
            'frames': _draw_frames(task, params, mutable, batches[0], alphabet),
        }

    if lexicon is None:
        return Evaluator(batches, measure, finish, draw)
    predict, score_batch = backend.jit(task.predict), backend.jit(score)

    def measure_on_host(params, mutable, batch):
        log_probs = predict(params, mutable, batch)
        return score_batch(log_probs, read_with_lexicon(log_probs, lexicon, batch.get('index')), batch)

    return Evaluator(batches, measure_on_host, finish, draw, on_host=True)


def decode_labels(log_probs: jax.Array, beam_width: int = 0) -> Readings:
    """Decodes the most probable label of each row, with the log probability of all paths to it.

    Args:
      log_probs: of each class in each frame, [B, T, C].
      beam_width: prefixes that the beam search keeps; 0 decodes the best path.
    """
    frames = _frame_counts(log_probs)
    if beam_width:
        labels, lengths, _ = (x[:, 0] for x in prefix_beam_search(log_probs, frames, beam_width))
    else:
        labels, lengths, _ = best_path(log_probs, frames)
    # Both decoders bound the probability from below: the best path counts one path, a beam drops prefixes. The loss
    # sums over all of them.
    return Readings(labels, lengths, -losses.ctc(log_probs, frames, labels, lengths))


def read_batches(
    task: Task,
    params: Any,
    mutable: Any,
    batches: Iterable[Any],
    alphabet: Alphabet,
    decode: Decode,
    lexicon: AnyLexiconReader | None = None,
) -> Iterator[list[Reading]]:
    """Yields the readings of each batch: (image, target, text, probability of the text) of the rows in its mask.

    Args:
      task: that reads texts.
      params: its parameters.
      mutable: its other variables.
      batches: with 'image' and 'mask'. Without 'label' the targets are empty.
      alphabet: the characters of classes 1, 2, ...
      decode: from the task's outputs to the readings, such as `decode_labels`.
      lexicon: reads its words from the outputs of CTC, in place of `decode`.
    """

    @backend.jit  # compiled once for all batches of one shape
    def read(params, mutable, batch):
        outputs = task.predict(params, mutable, batch)
        return outputs if lexicon else decode(outputs)

    for batch in batches:
        readings = read(params, mutable, batch)
        if lexicon:
            readings = read_with_lexicon(readings, lexicon, batch.get('index'))
        labels, _, log_probs = map(np.asarray, readings)
        targets = batch.get('label', np.zeros((len(labels), 0), np.int32))
        yield [
            (batch['image'][i], alphabet.decode(targets[i]), alphabet.decode(labels[i]), float(np.exp(log_probs[i])))
            for i in np.flatnonzero(batch['mask'])
        ]


def predict_texts(files: Any, readings: Iterable[list[Reading]]) -> Iterator[Prediction]:
    """Yields the text of each image file with its probability, and at last a contact sheet; of a video, a video.

    Args:
      files: `canon.data.image_files.Files`, or the frames of a video.
      readings: of `read_batches`, in the order of the files.
    """
    rows = _list_rows(files, readings)
    if not isinstance(files, VideoFiles):
        return predict_images(rows, plots.draw_text_images)
    frames = (
        Prediction(row, {f'{path.stem}_text.png': draw_caption(files.read(number), caption)})
        for number, (path, (row, _, caption)) in enumerate(zip(files.paths, rows, strict=True))
    )
    return join_frames(frames, files, '_text.png')


def _list_rows(files: Any, readings: Iterable[list[Reading]]) -> Iterator[tuple[dict[str, Any], np.ndarray, str]]:
    """Yields (row of the table, image, caption) of each file."""
    for path, (image, _, text, probability) in zip(files.paths, itertools.chain.from_iterable(readings), strict=True):
        row = {'file': str(path), 'text': text, 'probability': f'{probability:.4f}'}
        yield row, image, f'{text} {probability:.2f}'


def _frame_counts(logits: jax.Array) -> jax.Array:
    """Returns the number of frames of each row, [B]: all of them, since every image has the same width."""
    return jnp.full(logits.shape[0], logits.shape[1])


def _draw_readings(readings: list[Reading], title: str):
    if not readings:
        return plots.draw_text_images(np.zeros((0, 1, 1, 1)), [], title=empty_title(title))
    titles = [
        target + (f' → {text or "nothing"}' if text != target else '') + f' {probability:.2f}'
        for _, target, text, probability in readings
    ]
    # Not an array: batches of several widths have images of several widths.
    return plots.draw_text_images([image for image, *_ in readings], titles, title=title)


def _draw_frames(task: Task, params, mutable, batch, alphabet: Alphabet):
    """Draws the class probabilities of the longest text of a batch, frame by frame."""
    longest = int(np.argmax(batch['label_length'] * batch['mask']))
    row = {field: values[longest : longest + 1] for field, values in batch.items()}
    log_probs = np.asarray(jax.jit(task.predict)(params, mutable, row))
    labels, *_ = best_path(jnp.asarray(log_probs), jnp.array([log_probs.shape[1]]))
    title = f'{alphabet.decode(row["label"][0])} is read as {alphabet.decode(labels[0]) or "nothing"}'
    return plots.draw_frame_probabilities(row['image'][0], np.exp(log_probs[0]), alphabet.characters, title)
