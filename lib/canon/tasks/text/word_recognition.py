"""Tasks of recognisers that read a word at once, and of the attention decoder; their decoders and their evaluator.

Batches are those of `canon.tasks.text.recognition`: 'image', 'label' int32 [B, L] (1, 2, ... in the order of the
alphabet, then 0), 'label_length' and 'mask'. What the networks of `canon.models.mjsynth` need besides, the class of a
word or its bag of n-grams, is computed from the labels on the device.

| task | network | `predict` gives | read by |
|---|---|---|---|
| `char_task` | `mjsynth.char_net` | log probabilities [B, P, C + 1] | `ops.words.read_positions`, or from a list |
| `dict_task` | `mjsynth.dict_net` | log probabilities of the words, [B, W] | `read_listed_words` |
| `ngram_task` | `mjsynth.ngram_net` | logits [B, N] | `read_ngrams` |
| `attention_task` | `attention_reader` | log probabilities [B, N + 1, C + 2] | `read_attention` |

A decoder takes the task's outputs to (labels [B, N], lengths [B], log probabilities [B]), as `decode_labels` does for
CTC, so that the same evaluators and the same augmentation serve all of them:

    words, labels = encode_words(lexicon, alphabet, 23)
    task = dict_task(dict_net(len(words)), make_standardised_input(), labels)
    evaluator = word_evaluator(task, partial(read_listed_words, labels=labels), batches, alphabet)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from canon import losses, metrics, plots
from canon.data.text.alphabets import Alphabet
from canon.data.text.engine.lexicon import read_words
from canon.data.text.words import NgramTable, count_ngrams, encode_words, take_words
from canon.errors import UsageError
from canon.losses.words import ngram_loss, position_loss
from canon.models.attention_reader import END
from canon.models.mjsynth import add_classes
from canon.named import Count
from canon.ops import words as word_ops
from canon.ops.ctc import Readings
from canon.ops.words import find_words, mark_ngrams
from canon.tasks.classification import apply_in_training, init_network
from canon.tasks.samples import empty_title, select_samples
from canon.tasks.text.recognition import Decode, make_grey_input, read_batches
from canon.train import Evaluator, Task

MakeInput = Callable[[Any], jax.Array]


@dataclass(frozen=True)
class ReaderSettings:
    """config.reader.

    Attributes:
      kind: 'char', 'dict', 'ngram' or 'attention', the task.
      words: the dictionary of 'dict', the words that n-grams are counted in and read from, and with `listed` those of
        'char': a file with a word per line, the words, or None for those of CPython's documentation
        (`canon.data.text.engine`).
      most_words: takes this many of the words, at random (`canon.data.text.words.take_words`). The paper trains DICT on
        5,000 words and adds 5,000 at a time: `run.init_from` extends the dictionary of a run whose words these hold.
      listed: reads 'char' as the most probable word of the list, and not as free characters.
      num_ngrams: of 'ngram'.
      order: characters of the longest n-grams.
      inverse_frequency: scales the gradient of an n-gram by the inverse of its frequency.
      nearest: reads 'ngram' by the nearest bag of n-grams and not by the most probable one.
    """

    kind: Literal['char', 'dict', 'ngram', 'attention'] = 'char'
    words: str | tuple[str, ...] | None = None
    most_words: Count | None = None
    listed: bool = False
    num_ngrams: Count = 10_000
    order: Count = 4
    inverse_frequency: bool = True
    nearest: bool = False

    def list_words(self, alphabet: Alphabet) -> tuple[str, ...]:
        """Returns the words, as they are written in the list."""
        return take_words(read_words(self.words, alphabet)[0], self.most_words)


def make_reader(
    settings: ReaderSettings,
    make_model: Callable[..., Any],
    make_input: MakeInput,
    alphabet: Alphabet,
    max_length: Count,
) -> tuple[Task, Decode]:
    """Makes the task of `settings.kind` and the decoder of its outputs.

    Args:
      settings: the kind, and its words and n-grams.
      make_model: makes the network of the sizes that they require, `make_model(num_words=3092)`; 'char' has
        `num_classes` and `positions`, 'dict' `num_words`, 'ngram' `num_ngrams` and 'attention' `num_classes`.
      make_input: the network's input from a batch.
      alphabet: the characters of classes 1, 2, ...
      max_length: characters of the longest label.
    """
    if settings.kind == 'attention':
        task = attention_task(make_model(num_classes=len(alphabet)), make_input, max_length)
        return task, read_attention
    if settings.kind == 'char' and not settings.listed:
        model = make_model(num_classes=len(alphabet), positions=max_length)
        return char_task(model, make_input), word_ops.read_positions
    texts, labels = encode_words(settings.list_words(alphabet), alphabet, max_length)
    if settings.kind == 'char':
        model = make_model(num_classes=len(alphabet), positions=max_length)
        return char_task(model, make_input), partial(read_listed_positions, labels=labels)
    if settings.kind == 'dict':
        task = dict_task(make_model(num_words=len(texts)), make_input, labels)
        return task, partial(read_listed_words, labels=labels)
    ngrams = count_ngrams(texts, alphabet, settings.num_ngrams, settings.order)
    task = ngram_task(make_model(num_ngrams=len(ngrams.texts)), make_input, ngrams, settings.inverse_frequency)
    return task, partial(read_ngrams, labels=labels, ngrams=ngrams, nearest=settings.nearest)


def extend_dictionary(
    stored: Mapping[str, np.ndarray], old: Sequence[str], new: Sequence[str], key: jax.Array
) -> dict[str, np.ndarray]:
    """Adds words to the weights of DICT (`canon.models.mjsynth.add_classes`); the logits of the old words stay.

    Args:
      stored: {name: array} of a run, as `canon.train.init_from.read_model` reads it.
      old: the words of its dictionary, as `encode_words` orders them.
      new: those of the longer one, in that order.
      key: of the columns of new words.

    Returns:
      the weights for the longer dictionary, by the same names.

    Raises:
      UsageError: an old word is not among the new ones, or the weights are not of a network of the old words.
    """
    places = {word: place for place, word in enumerate(new)}
    missing = [word for word in old if word not in places]
    if missing:
        raise UsageError(
            f'the dictionary lacks {len(missing):,} of {len(old):,} words that were trained, such as {missing[0]!r}; '
            'reader.words must hold them'
        )
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, array in stored.items():
        layer, _, kind = name.partition('/')
        if layer.startswith('fc'):
            params.setdefault(layer, {})[kind] = array
    wider = add_classes({'params': params}, len(new), key, [places[word] for word in old])
    columns = {f'{layer}/{kind}': x for layer, arrays in wider['params'].items() for kind, x in arrays.items()}
    return {**stored, **{name: np.asarray(x) for name, x in columns.items()}}


def make_standardised_input(eps: float = 1e-3) -> MakeInput:
    """Returns a function from a batch to grey images [B, H, W, 1], each with mean 0 and standard deviation 1.

    The input of MJSynth's networks (Jaderberg et al. 2014). eps: added to the deviation, of pixels in [0, 1], so that
    an image of one level becomes 0.
    """
    grey = make_grey_input(0.0, 1.0)

    def standardise(batch):
        pixels = grey(batch)
        mean = pixels.mean((1, 2, 3), keepdims=True)
        return (pixels - mean) / (pixels.std((1, 2, 3), keepdims=True) + eps)

    return standardise


def char_task(model: Any, make_input: MakeInput) -> Task:
    """Makes the task of CHAR: -log p(word) is the sum over all positions, those after the word's end included.

    Args:
      model: a linen module from `make_input(batch)` to logits [B, P, C + 1]; class 0 is no character.
      make_input: such as `make_standardised_input()`.

    Returns:
      A task whose `predict` gives log probabilities [B, P, C + 1].
    """

    def measure(logits, batch):
        return position_loss(logits, batch['label']), jnp.ones(len(logits), bool)

    return _make_task(model, make_input, measure, jax.nn.log_softmax)


def dict_task(model: Any, make_input: MakeInput, labels: jax.Array | np.ndarray) -> Task:
    """Makes the task of DICT: -log p(word) among the words of a dictionary.

    A word that is not in the dictionary has no class, and no weight in the loss; the metric `impossible` is the share
    of such words.

    Args:
      model: a linen module from `make_input(batch)` to logits [B, W].
      make_input: such as `make_standardised_input()`.
      labels: of the dictionary, [W, L], as `canon.data.text.words.encode_words` orders them.

    Returns:
      A task whose `predict` gives log probabilities [B, W].
    """
    labels = jnp.asarray(labels)

    def measure(logits, batch):
        word = find_words(batch['label'], labels)
        return losses.softmax_cross_entropy(logits, jnp.maximum(word, 0)), word >= 0

    return _make_task(model, make_input, measure, jax.nn.log_softmax)


def ngram_task(model: Any, make_input: MakeInput, ngrams: NgramTable, inverse_frequency: bool = True) -> Task:
    """Makes the task of NGRAM: a logistic regression for each n-gram of a table.

    Args:
      model: a linen module from `make_input(batch)` to logits [B, N].
      make_input: such as `make_standardised_input()`.
      ngrams: as `canon.data.text.words.count_ngrams` selects them.
      inverse_frequency: scales the gradient of an n-gram by the inverse of its frequency, as the paper.

    Returns:
      A task whose `predict` gives logits [B, N].
    """
    codes = jnp.asarray(ngrams.codes)
    weights = jnp.asarray(ngrams.inverse_frequencies) if inverse_frequency else None

    def measure(logits, batch):
        bags = mark_ngrams(batch['label'], codes, ngrams.base, ngrams.order)
        return ngram_loss(logits, bags, weights), jnp.ones(len(logits), bool)

    return _make_task(model, make_input, measure, lambda logits: logits)


def attention_task(model: Any, make_input: MakeInput, max_length: int) -> Task:
    """Makes the task of an attention decoder: -log p(text and its end), each character given the true ones before it.

    Args:
      model: a `canon.models.attention_reader`.
      make_input: such as `make_grey_input()`.
      max_length: characters that `predict` reads at most.

    Returns:
      A task whose `predict` gives log probabilities [B, max_length + 1, C + 2], each given the characters read before.
    """

    def init(key, batch):
        images = make_input({'image': batch['image'][:1]})
        return model.init(key, images, batch['label'][:1], train=False)

    def loss(params, mutable, batch, at):
        variables = {'params': params, **mutable}
        logits, updates = model.apply(variables, make_input(batch), batch['label'], train=True, mutable=[*mutable])
        targets = attention_targets(batch['label'], batch['label_length'])
        per_step = losses.softmax_cross_entropy(logits, jnp.maximum(targets, 0))
        per_text = jnp.where(targets >= 0, per_step, 0).sum(1)
        return metrics.Mean.of(per_text, batch['mask']), (dict(updates), {})

    def predict(params, mutable, batch):
        logits = model.apply({'params': params, **mutable}, make_input(batch), max_length, method='read')
        return jax.nn.log_softmax(logits)

    return Task(init, loss, predict)


def attention_targets(labels: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns the class of each step, int32 [B, L + 1]: characters n as n + 1, then the end, then -1."""
    steps = jnp.arange(labels.shape[1] + 1)
    characters = jnp.pad(labels, ((0, 0), (0, 1))) + 1
    targets = jnp.where(steps == lengths[:, None], END, characters)
    return jnp.where(steps <= lengths[:, None], targets, -1).astype(jnp.int32)


def read_attention(log_probs: jax.Array) -> Readings:
    """Reads log probabilities [B, N + 1, C + 2] of the attention decoder up to the first end, N characters at most."""
    # The start is never a target: a step that prefers it reads the next best class.
    best = log_probs[:, :, END:].argmax(-1) + END
    ended = (best == END).cumsum(1) > 0
    steps = jnp.take_along_axis(log_probs, best[..., None], -1)[..., 0]
    counts = ~ended | ((best == END) & (ended.cumsum(1) == 1))  # the characters and the end
    labels = jnp.where(ended, -1, best - 1)[:, :-1].astype(jnp.int32)
    lengths = (~ended)[:, :-1].sum(1, dtype=jnp.int32)
    return Readings(labels, lengths, jnp.where(counts, steps, 0).sum(1))


def read_listed_words(log_probs: jax.Array, labels: jax.Array | np.ndarray) -> Readings:
    """Reads the most probable word of a list.

    Args:
      log_probs: of the words, [B, W].
      labels: of the words, [W, L].
    """
    labels = jnp.asarray(labels)
    best = log_probs.argmax(1)
    chosen = labels[best]
    lengths = (chosen > 0).sum(1, dtype=jnp.int32)
    padded = jnp.where(chosen > 0, chosen, -1).astype(jnp.int32)
    return Readings(padded, lengths, jnp.take_along_axis(log_probs, best[:, None], 1)[:, 0])


def read_listed_positions(log_probs: jax.Array, labels: jax.Array | np.ndarray) -> Readings:
    """Reads the word of a list that CHAR finds most probable.

    Args:
      log_probs: of the characters at each position, [B, P, C + 1].
      labels: of the words, [W, L] with L up to P.
    """
    labels = jnp.asarray(labels)
    words = jnp.pad(labels, ((0, 0), (0, log_probs.shape[1] - labels.shape[1])))
    return read_listed_words(word_ops.score_positions(log_probs, words), labels)


def read_ngrams(
    logits: jax.Array, labels: jax.Array | np.ndarray, ngrams: NgramTable, nearest: bool = False
) -> Readings:
    """Reads the word of a list whose bag of n-grams fits best; the log probability is among the words of the list.

    Args:
      logits: of the n-grams, [B, N].
      labels: of the words, [W, L].
      ngrams: the table of the network.
      nearest: takes the nearest bag in Euclidean distance, the paper's NGRAM+2-NN, in place of the most probable one;
        the log probability is then minus the squared distance.
    """
    labels = jnp.asarray(labels)
    bags = mark_ngrams(labels, jnp.asarray(ngrams.codes), ngrams.base, ngrams.order)
    if nearest:
        return read_listed_words(word_ops.nearest_ngram_bag(logits, bags), labels)
    return read_listed_words(jax.nn.log_softmax(word_ops.score_ngram_bags(logits, bags)), labels)


def word_evaluator(task: Task, decode: Decode, batches: Any, alphabet: Alphabet) -> Evaluator:
    """Evaluates a task by what its decoder reads: `word_accuracy` and `character_error_rate`.

    The figures show words read correctly and the most confident mistakes.

    Args:
      task: one of this module.
      decode: from the task's outputs to the readings, such as `read_attention`.
      batches: finite data with the keys that the task needs.
      alphabet: the characters of classes 1, 2, ...
    """

    def measure(params, mutable, batch):
        labels, lengths, _ = decode(task.predict(params, mutable, batch))
        target = batch['label'], batch['label_length'], batch['mask']
        return {
            'word_accuracy': metrics.word_accuracy(labels, lengths, *target),
            'character_error_rate': metrics.character_error_rate(labels, lengths, *target),
        }

    def finish(sums):
        return {name: mean.value for name, mean in sums.items()}

    def draw(params, mutable, sums):
        readings = read_batches(task, params, mutable, batches.iterate(), alphabet, decode)
        correct, incorrect = select_samples(readings)
        titles = 'right: the text', 'wrong, surest first: the text, then what is read'
        return {name: _draw(r, t) for name, r, t in zip(('right', 'wrong'), (correct, incorrect), titles, strict=True)}

    return Evaluator(batches, measure, finish, draw)


def _draw(readings: list, title: str):
    if not readings:
        return plots.draw_text_images(np.zeros((0, 1, 1, 1)), [], title=empty_title(title))
    titles = [target + (f' → {text or "nothing"}' if text != target else '') for _, target, text, _ in readings]
    return plots.draw_text_images(np.stack([image for image, *_ in readings]), titles, title=title)


def _make_task(model: Any, make_input: MakeInput, measure: Callable, finish: Callable) -> Task:
    """Makes a task from `measure(logits, batch) -> (loss [B], has one [B])`, and `finish(logits)` for `predict`."""

    def loss(params, mutable, batch, at):
        logits, _, changed = apply_in_training(model, make_input, params, mutable, batch, at.key)
        per_word, possible = measure(logits, batch)
        mean = metrics.Mean.of(per_word, batch['mask'] & possible)
        return mean, (changed, {'impossible': metrics.Mean.of(~possible, batch['mask'])})

    def predict(params, mutable, batch):
        return finish(model.apply({'params': params, **mutable}, make_input(batch), train=False))

    return Task(partial(init_network, model, make_input), loss, predict)
