"""Language modelling: the task, its evaluator, an n-gram baseline, and sampling of text.

    vocabulary = build(corpus.lines('train'), level='character')
    model = models.make_model('rnn_lm.language_model', vocab=len(vocabulary))
    train = Streams(vocabulary.stream(corpus.lines('train')), batch_size=32, length=64)
    experiment = Experiment(language_task(model), optax.adam(1e-3), train)

Models are those of `canon.models.protocols.LanguageModel`, recurrent or not; batches are those of
`canon.data.text.streams`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, losses, metrics, plots
from canon.data.text.streams import StreamsOnce
from canon.data.text.vocabulary import Vocabulary
from canon.metrics.language import bits_per, perplexity
from canon.metrics.ngram import KneserNey
from canon.models.protocols import LanguageOutput
from canon.models.rnn_lm import weight_drop
from canon.named import Count, DropRate, NonNegative, Probability, Range
from canon.ops import decoding
from canon.train import Evaluator, Task
from canon.train.types import CARRY

_PLOTTED_TOKENS = 600  # of the held-out text


def language_task(
    model: Any,
    label_smoothing: Probability = 0.0,
    weight_dropout: DropRate = 0.0,
    activation: NonNegative = 0.0,
    slowness: NonNegative = 0.0,
) -> Task:
    """Makes the task of predicting 'target' [B, T] from 'input' [B, T] where 'mask' [B, T] is true.

    If the model carries state, each row continues from the state of its previous window, except where 'first' [B] says
    that the text starts again: truncated backpropagation through time (Mikolov et al. 2010). The mask is true up to
    some position of each row and false after it, so windows may be shorter than T; the state carried on is that after
    the last real token. The loss is per token.

    Args:
      model: a linen module with the methods of `LanguageModel`, recurrent or causal.
      label_smoothing: probability that is spread over all tokens in training; the metric `nats` is without it.
      weight_dropout: rate of DropConnect on recurrent weights (Merity et al. 2018, section 2).
      activation: alpha of Merity et al. 2018, section 4.6: weighs the mean square of the last layer's outputs after
        dropout.
      slowness: beta of the same section: weighs the mean squared difference of consecutive outputs.

    Returns:
      A task whose `predict` gives the targets' negative log-likelihood, nats [B, T], and the state after the window.
    """

    def init(key, batch):
        params = model.init(key, batch['input'][:1])['params']
        return (
            {'params': params, CARRY: model.start(*batch['input'].shape)} if model.carries_state else {'params': params}
        )

    def read_window(params, mutable, batch, **options) -> LanguageOutput:
        state = None
        if model.carries_state:
            # Every state begins at zero, so resetting a row is zeroing it.
            state = jax.tree.map(lambda s: jnp.where(batch['first'][:, None], 0, s), mutable[CARRY])
        return model.apply({'params': params}, batch['input'], state, lengths=batch['mask'].sum(1), **options)

    def penalise(output: LanguageOutput, mask):
        changes = output.outputs[:, 1:] - output.outputs[:, :-1]
        return activation * _mean_square(output.dropped, mask) + slowness * _mean_square(changes, mask[:, 1:])

    def loss(params, mutable, batch, at):
        mask, target = batch['mask'], batch['target']
        # Another key than that of the other dropouts, whose masks would otherwise be correlated with these.
        dropped = weight_drop(params, weight_dropout, jax.random.fold_in(at.key, 1))
        output = read_window(dropped, mutable, batch, train=True, rngs={'dropout': at.key})
        total, weight = metrics.Mean.of(losses.softmax_cross_entropy(output.logits, target, label_smoothing), mask)
        # Without smoothing and penalties, so that training and evaluation report the same quantity.
        nats = metrics.Mean.of(losses.softmax_cross_entropy(output.logits, target), mask)
        if activation or slowness:
            # The penalties are means over tokens; times the weight they are sums, as the loss is.
            total = total + penalise(output, mask) * weight
        mutable = {**mutable, CARRY: output.state} if model.carries_state else mutable
        return metrics.Mean(total, weight), (mutable, {'nats': nats})

    def predict(params, mutable, batch):
        output = read_window(params, mutable, batch)
        return losses.softmax_cross_entropy(output.logits, batch['target']), output.state

    return Task(init, loss, predict)


def _mean_square(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of x^2 [B, T, H] where `mask` [B, T] is true, 0 if it is true nowhere."""
    squares = metrics.Mean.of(jnp.square(x), mask)
    return squares.total / jnp.maximum(squares.weight, 1)


@dataclass(frozen=True)
class LanguageEvaluation:
    """An entry of config.data.evals.

    split: 'valid' or 'test'. batch_size: streams that are read in parallel; 1 as the papers test. length: tokens of a
    window. ngram: order of the Kneser-Ney baseline on the same text; 0 for none. trained_on: the split may be one that
    is trained on.
    """

    split: str
    batch_size: Count
    length: Count
    ngram: Annotated[int, Range(0)] = 0
    trained_on: bool = False


def language_evaluator(
    task: Task,
    model: Any,
    batches: StreamsOnce,
    vocabulary: Vocabulary,
    characters: int,
    baseline: Callable[[], metrics.Mean] | None = None,
) -> Evaluator:
    """Measures a language model on a held-out text.

    Metrics: `loss` in nats per token, `perplexity`, `bits_per_character`; with a baseline also `ngram_perplexity`,
    `ngram_bits_per_character`, and `gain`, the bits per character that the model needs less.

    Args:
      task: of `language_task`.
      model: that of the task.
      batches: the held-out text.
      vocabulary: spells the tokens in the figure.
      characters: of the text, with one line feed per line. Perplexities per token compare only within one vocabulary;
        bits per character compare across vocabularies.
      baseline: a function that returns another model's nats per token on the same text, such as `ngram_baseline`.
    """

    def measure(params, mutable, batch):
        per_token, state = task.predict(params, mutable, batch)
        nats = metrics.Mean.of(per_token, batch['mask'])
        return (nats, state) if model.carries_state else nats

    def finish(nats):
        results = {'loss': float(nats.value), 'perplexity': perplexity(nats)}
        results['bits_per_character'] = bits_per(nats, characters)
        if baseline is not None:
            ngram = baseline()
            results |= {'ngram_perplexity': perplexity(ngram), 'ngram_bits_per_character': bits_per(ngram, characters)}
            results['gain'] = results['ngram_bits_per_character'] - results['bits_per_character']
        return results

    def draw(params, mutable, sums):
        return {'surprise': _plot_surprise(task, model, batches, vocabulary, params)}

    def start(params, batch):
        return model.start(*batch['input'].shape)

    return Evaluator(batches, measure, finish, draw, start if model.carries_state else None)


def ngram_baseline(
    train_tokens: np.ndarray, tokens: np.ndarray, vocabulary_size: int, order: int
) -> Callable[[], metrics.Mean]:
    """Returns a function that fits a Kneser-Ney model of `order` on one text and measures nats per token on another.

    It is fitted in the first call: counting takes seconds that a run without evaluation should not pay.
    """

    @cache
    def measure_nats() -> metrics.Mean:
        log_p = KneserNey(train_tokens, vocabulary_size, order).log_probs(tokens)
        return metrics.Mean(-log_p.sum(), np.float64(len(tokens)))

    return measure_nats


def make_sampler(
    model: Any,
    length: Count = 300,
    count: Count = 1,
    temperature: NonNegative = 1.0,
    top_k: Count | None = None,
    top_p: Annotated[float, Range(0, 1, open_low=True)] | None = None,
    seed: int = 0,
) -> Callable[[Any, Vocabulary, str], list[str]]:
    """Returns a function `sample(params, vocabulary, prompt)` that continues a prompt.

    Args:
      model: a linen module with the methods of `LanguageModel`, recurrent or causal.
      length: tokens of each continuation.
      count: continuations per prompt.
      temperature: divides the logits; 0 takes the most likely token each time.
      top_k: samples from the `top_k` most likely tokens.
      top_p: samples from the fewest tokens with this probability in total (Holtzman et al. 2020).
      seed: of the sampling; the same prompt then has the same continuations.

    Returns:
      A function whose result is a list of `count` texts, each the prompt and its continuation.
    """

    def continue_tokens(params, tokens, key):
        def call(method):
            return lambda *arguments: model.apply({'params': params}, *arguments, method=method)

        state = model.start(count, tokens.shape[1] + length)
        if tokens.shape[1] > 1:  # the last token of the prompt is the first input of the decoder
            _, state = call('extend')(state, tokens[:, :-1])
        step, last = call('step'), tokens[:, -1]
        if temperature == 0:
            return decoding.greedy(step, state, last, length).tokens
        return decoding.sample(step, state, last, length, key, None, temperature, top_k, top_p).tokens

    compiled = backend.jit(continue_tokens)

    def sample(params, vocabulary: Vocabulary, prompt: str) -> list[str]:
        # A text begins after the end of the one before: <eos> is the first input, as in training.
        tokens = np.append(np.int32(vocabulary.eos or 0), vocabulary.encode(prompt))[None].repeat(count, 0)
        continuations = np.asarray(compiled(params, tokens, jax.random.key(seed)))
        return [vocabulary.extend_text(prompt, ids) for ids in continuations]

    return sample


def _plot_surprise(task: Task, model: Any, batches: StreamsOnce, vocabulary: Vocabulary, params):
    """Plots the beginning of the held-out text, each token as dark as it was unexpected."""
    predict = backend.jit(task.predict)
    mutable = {CARRY: model.start(1, batches.length)} if model.carries_state else {}
    tokens, bits = [], []
    for batch in batches.iterate():
        # The first stream is the beginning of the text, whatever the batch size.
        first_stream = {key: value[:1] for key, value in batch.items()}
        nats, state = predict(params, mutable, first_stream)
        mutable = {CARRY: state} if mutable else {}
        mask = first_stream['mask'][0]
        tokens += vocabulary.tokens(first_stream['target'][0][mask])
        bits += list(np.asarray(nats[0])[mask] / np.log(2))
        if len(tokens) >= _PLOTTED_TOKENS:
            break
    return plots.draw_surprisal(tokens, np.array(bits), 'bits per token of the held-out text')
