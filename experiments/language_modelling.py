"""Language modelling, by bytes, characters, words or subwords: recurrent models and the Transformer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from canon import backend, losses, metrics, models, named, optim, plots
from canon.data.text import corpora, text_files, vocabulary
from canon.data.text.streams import Streams, StreamsOnce
from canon.metrics.language import bits_per, perplexity
from canon.metrics.ngram import KneserNey
from canon.models.rnn_lm import RecurrentLM, weight_drop
from canon.ops import decoding
from canon.train import Evaluator, Experiment, Task, lengths
from canon.train.shard import process_shard
from canon.train.types import CARRY

_SHOWN = 600  # tokens of the held-out text in the picture


@dataclass(frozen=True)
class Spec:
    """One entry of config.data.evals.

    batch_size: streams that are read side by side; 1 as the papers test. length: tokens of a window. ngram: the order
    of the Kneser-Ney model that is measured on the same text; 0 for none.
    """

    split: str
    batch_size: named.Count
    length: named.Count
    ngram: Annotated[int, named.Range(0)] = 0


def make(config: ConfigDict) -> Experiment:
    """config.data, config.vocabulary, config.model, config.loss and config.tx -> a language modelling experiment."""
    text = _corpus(config)
    words = _vocabulary(config, text)
    start = words.eos or 0
    model = _model(config, len(words))
    _sampler(config, model)  # refuses settings of `predict` before they are needed
    task = named.call(language_task, {'model': model, **config.loss}, 'loss')
    stream = words.stream(text.lines('train'))
    shard = process_shard()
    arguments = dict(tokens=stream, start=start, seed=config.seed, shard=shard, **named.to_plain(config.data.train))
    train = named.call(Streams, arguments, 'data.train')
    tx = optim.make(lengths.resolve(config, train.batch_size, train.num_examples).tx)
    evals = {}
    for name in sorted(config.data.evals):
        spec = named.call(Spec, config.data.evals[name], f'data.evals.{name}')
        lines = list(text.lines(spec.split))
        tokens, characters = words.stream(lines), sum(len(line) + 1 for line in lines)
        baseline = _baseline(stream, tokens, len(words), spec.ngram) if spec.ngram else None
        data = StreamsOnce(tokens, spec.batch_size, spec.length, start, shard)
        evals[name] = language_evaluator(task, model, data, characters, words, baseline)
    about = dict(vocabulary=list(words.about), corpus=text.about())
    return Experiment(task, tx, train, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on the embedded text where its own is not at hand: to build it, or to time it."""
    if config.data.name != 'pydoc':
        with config.unlocked():
            config.data.name, config.data.source = 'pydoc', {}
            if config.vocabulary.get('size'):
                config.vocabulary.size = None
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """Continues each line of a file of prompts, plain or .gz, or the prompt `source` itself: `samples.txt`.

    By config.sample: `count` texts of `length` tokens per prompt, `temperature` (0: greedy), top_k, top_p, seed.
    """
    words = _vocabulary(config, _corpus(config))
    prompts = [line for line in text_files.given(source) if line] or ['']
    write = _sampler(config, _model(config, len(words)))
    texts = [text for prompt in prompts for text in write(params, words, prompt)]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'samples.txt'
    path.write_bytes(('\n\n----\n\n'.join(texts) + '\n').encode())
    return '\n\n----\n\n'.join(texts) + f'\n\n{len(texts)} texts written to {path}'


# --- the task -----------------------------------------------------------------------------------------------------


def language_task(
    model: Any,
    label_smoothing: named.Probability = 0.0,
    weight_dropout: named.DropRate = 0.0,
    activation: named.NonNegative = 0.0,
    slowness: named.NonNegative = 0.0,
) -> Task:
    """Predicts 'target' [B, T] from 'input' [B, T] where 'mask' is true; 'first' [B] marks rows whose text begins.

    A recurrent model continues from the state its rows carry: truncated backpropagation through time (Mikolov et al.
    2010). The mask is true up to some place of each row and false after it, so windows may be shorter than T: the
    carry is the state after the last real token. `predict` returns (nats [B, T] of the targets, carry).

    Args:
      model: a `RecurrentLM` or a causal Transformer.
      label_smoothing: the probability spread over all tokens in training.
      weight_dropout: rate of DropConnect on the recurrent weights.
      activation: alpha of Merity et al. 2018, section 4.6: weighs the mean square of the last layer's outputs after
        dropout.
      slowness: beta of the same section: weighs the mean square of their differences from step to step.
    """
    recurrent = isinstance(model, RecurrentLM)

    def start(batch):
        return model.start(len(batch['input']))

    def init(key, batch):
        params = model.init(key, batch['input'][:1])['params']
        return {'params': params, CARRY: start(batch)} if recurrent else {'params': params}

    def read(params, mutable, batch, **options):
        """Returns (logits, carry, penalty)."""
        if not recurrent:
            return model.apply({'params': params}, batch['input'], **options), None, 0.0
        mask = batch['mask']
        state = jax.tree.map(lambda s: jnp.where(batch['first'][:, None], 0, s), mutable[CARRY])
        window = model.apply({'params': params}, batch['input'], state, lengths=mask.sum(1), **options)
        changes = window.outputs[:, 1:] - window.outputs[:, :-1]
        penalty = activation * _mean_square(window.dropped, mask) + slowness * _mean_square(changes, mask[:, 1:])
        return window.logits, window.state, penalty

    def loss(params, mutable, batch, at):
        thinned = weight_drop(params, weight_dropout, jax.random.fold_in(at.key, 1))
        logits, carry, penalty = read(thinned, mutable, batch, train=True, rngs={'dropout': at.key})
        nats = metrics.Mean.of(losses.softmax_cross_entropy(logits, batch['target'], label_smoothing), batch['mask'])
        told = metrics.Mean.of(losses.softmax_cross_entropy(logits, batch['target']), batch['mask'])
        mutable = {**mutable, CARRY: carry} if recurrent else mutable
        return metrics.Mean(nats.total + penalty * nats.weight, nats.weight), (mutable, {'nats': told})

    def predict(params, mutable, batch):
        logits, carry, _ = read(params, mutable, batch)
        return losses.softmax_cross_entropy(logits, batch['target']), carry

    return Task(init, loss, predict)


def _mean_square(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of x^2 [B, T, H] where `mask` [B, T] is true; 0 where it is nowhere true."""
    squares = metrics.Mean.of(jnp.square(x), mask)
    return squares.total / jnp.maximum(squares.weight, 1)


def language_evaluator(
    task: Task,
    model: Any,
    batches: StreamsOnce,
    characters: int,
    words: vocabulary.Vocabulary,
    baseline: Callable | None,
) -> Evaluator:
    """loss: nats a token; perplexity; bits_per_character; beside them those of an n-gram model, and the `gain` over it.

    characters: of the whole text. baseline: () -> the n-gram model's `Mean` of nats a token.
    """
    recurrent = isinstance(model, RecurrentLM)

    def measure(params, mutable, batch):
        nats, carry = task.predict(params, mutable, batch)
        told = metrics.Mean.of(nats, batch['mask'])
        return (told, carry) if recurrent else told

    def finish(nats):
        found = {'loss': float(nats.value), 'perplexity': perplexity(nats)}
        found['bits_per_character'] = bits_per(nats, characters)
        if baseline is not None:
            theirs = baseline()
            found |= {'ngram_perplexity': perplexity(theirs), 'ngram_bits_per_character': bits_per(theirs, characters)}
            found['gain'] = found['ngram_bits_per_character'] - found['bits_per_character']
        return found

    def pictures(params, mutable, sums):
        return {'surprise': _surprise(task, model, batches, words, params)}

    return Evaluator(
        batches, measure, finish, pictures, (lambda params, b: model.start(len(b['input']))) if recurrent else None
    )


def _surprise(task: Task, model: Any, batches: StreamsOnce, words: vocabulary.Vocabulary, params):
    """The beginning of the held-out text, each token as dark as it was unexpected."""
    read = backend.jit(task.predict)
    mutable = {CARRY: model.start(1)} if isinstance(model, RecurrentLM) else {}
    tokens, bits = [], []
    for batch in batches.iterate():
        batch = {key: value[:1] for key, value in batch.items()}
        nats, carry = read(params, mutable, batch)
        mutable = {CARRY: carry} if mutable else {}
        kept = batch['mask'][0]
        tokens += words.tokens(batch['target'][0][kept])
        bits += list(np.asarray(nats[0])[kept] / np.log(2))
        if len(tokens) >= _SHOWN:
            break
    return plots.surprise(tokens, np.array(bits), 'bits a token, of the text held out')


def _baseline(learnt: np.ndarray, tokens: np.ndarray, size: int, order: int) -> Callable[[], metrics.Mean]:
    """The n-gram model's nats, computed when first asked for."""

    @cache
    def nats() -> metrics.Mean:
        log_p = KneserNey(learnt, size, order).log_probs(tokens)
        return metrics.Mean(-log_p.sum(), np.float64(len(tokens)))

    return nats


# --- writing ------------------------------------------------------------------------------------------------------


def sampler(
    model: Any,
    length: named.Count = 300,
    count: named.Count = 1,
    temperature: named.NonNegative = 1.0,
    top_k: named.Count | None = None,
    top_p: Annotated[float, named.Range(0, 1, open_low=True)] | None = None,
    seed: int = 0,
) -> Callable[[Any, vocabulary.Vocabulary, str], list[str]]:
    """write(params, words, prompt) -> `count` texts: the prompt and a continuation of `length` tokens."""

    def write(params, words, prompt):
        tokens = np.append(np.int32(words.eos or 0), words.encode(prompt))[None].repeat(count, 0)

        def go_on(params, tokens, key):
            bound = lambda method: lambda *a: model.apply({'params': params}, *a, method=method)  # noqa: E731
            recurrent = isinstance(model, RecurrentLM)
            state = model.start(count) if recurrent else bound('start')(count, tokens.shape[1] + length)
            if tokens.shape[1] > 1:
                _, state = bound('extend')(state, tokens[:, :-1])
            if temperature == 0:
                return decoding.greedy(bound('step'), state, tokens[:, -1], length)
            return decoding.sample(bound('step'), state, tokens[:, -1], length, key, None, temperature, top_k, top_p)

        compiled = backend.jit(go_on)
        rows = np.asarray(compiled(params, tokens, jax.random.key(seed)).tokens)
        return [words.extend_text(prompt, row) for row in rows]

    return write


def _sampler(config: ConfigDict, model: Any) -> Callable[..., list[str]]:
    return named.call(sampler, {'model': model, **named.to_plain(config.get('sample', {}))}, 'sample')


def _model(config: ConfigDict, size: int) -> Any:
    model = named.to_plain(config.model)
    return models.make(model.pop('name'), vocab=size, **model)


def _vocabulary(config: ConfigDict, text: corpora.Corpus) -> vocabulary.Vocabulary:
    arguments = {'lines': text.lines('train'), **named.to_plain(config.vocabulary)}
    return named.call(vocabulary.build, arguments, 'vocabulary')


def _corpus(config: ConfigDict) -> corpora.Corpus:
    d = named.to_plain(config.data)
    named.check(d['name'], str, 'data.name')
    options = {key: value for key, value in d.get('source', {}).items() if value is not None}
    return corpora.corpus(d['name'], d.get('data_dir'), **options)
