"""Translation: the task, the translator, its evaluator and its figures, for encoder-decoders with or without attention.

    languages = build_languages(pairs, level='subword', size=1500)
    model = models.make_model('seq2seq.bahdanau', vocab=len(languages.target), source_vocab=languages.source_size)
    task = translation_task(model, languages.first_token)
    translator = Translator(model, languages, SearchSettings(beams=4))
    evaluator = translation_evaluator(task, translator, Pairs(held_out, *languages).buckets((10, 50)))
    texts = [translation.text for translation in translator.translate(params, ['Restart the kernel'])]

`docs/examples/translation.py` is a whole script. Models are those of `canon.models.protocols.TranslationModel`; batches
and vocabularies are those of `canon.data.text.parallel_text`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from canon import backend, losses, metrics, plots
from canon.data.text.parallel_text import BucketsOnce, Languages, Pairs
from canon.errors import UsageError
from canon.metrics.language import perplexity
from canon.named import Count, NonNegative, Probability, Range
from canon.ops import decoding
from canon.tasks.predictions import Prediction
from canon.train import Evaluator, Task

_PLOTTED_SENTENCES = 12
_PRINTED_TRANSLATIONS = 20
_ALIGNED_TOKENS = (6, 14)  # of a source whose alignment is plotted: shorter ones show little, longer ones are illegible
_WIDTH_MULTIPLE = 16  # of the tokens of a batch of sentences, so that few shapes are compiled
_log = logging.getLogger('canon')


def translation_task(
    model: Any, first_token: int, label_smoothing: Probability = 0.0, smoothing: str = 'uniform'
) -> Task:
    """Makes the task of predicting each token of 'target' [B, T] from 'source' [B, S] and the tokens before it.

    Batches also hold 'source_length' and 'target_length' [B], the tokens that are not padding, and 'mask' [B]. The loss
    is the mean over target tokens, the metric `nats` is the same without label smoothing.

    Args:
      model: a linen module with the methods of `TranslationModel`.
      first_token: the decoder's input before the first token of a sentence.
      label_smoothing: e, the probability that is spread over the vocabulary of V tokens in training.
      smoothing: 'uniform' gives e / V to every token (Szegedy et al. 2016; torch, optax), 'others' e / (V - 1) to every
        wrong one (tensor2tensor, with which Vaswani et al. 2017 was made, and fairseq).

    Returns:
      A task whose `predict` gives nats [B, T] of the target tokens, the mask [B, T] and the likeliest tokens [B, T].

    Raises:
      UsageError: an unknown `smoothing`.
    """
    if smoothing not in ('uniform', 'others'):
        raise UsageError(f"loss.smoothing={smoothing!r} is neither 'uniform' nor 'others'")

    def init(key, batch):
        first = {name: batch[name][:1] for name in ('source', 'source_length', 'target')}
        return {'params': model.init(key, first['source'], first['source_length'], first['target'])['params']}

    def compute_logits(params, batch, **options):
        """Returns logits [B, T, V], and the mask [B, T] of tokens that are not padding."""
        target = jnp.asarray(batch['target'])
        # Teacher forcing: the target shifted right by one.
        inputs = jnp.concatenate([jnp.full_like(target[:, :1], first_token), target[:, :-1]], 1)
        logits = model.apply({'params': params}, batch['source'], batch['source_length'], inputs, **options)
        valid = jnp.arange(target.shape[1]) < jnp.asarray(batch['target_length'])[:, None]
        return logits, valid & batch['mask'][:, None]

    def loss(params, mutable, batch, at):
        logits, mask = compute_logits(params, batch, train=True, rngs={'dropout': at.key})
        size = logits.shape[-1]
        # e / (V - 1) for the wrong tokens is the uniform form of rate e V / (V - 1).
        rate = label_smoothing * (size / (size - 1) if smoothing == 'others' else 1.0)
        nats = losses.softmax_cross_entropy(logits, batch['target'])
        # Computed once where there is no smoothing: the vocabulary makes it the dearest term.
        smoothed = losses.softmax_cross_entropy(logits, batch['target'], rate) if rate else nats
        measured = {'nats': metrics.Mean.of(nats, mask), 'accuracy': metrics.accuracy(logits, batch['target'], mask)}
        return metrics.Mean.of(smoothed, mask), (mutable, measured)

    def predict(params, mutable, batch):
        logits, mask = compute_logits(params, batch)
        return losses.softmax_cross_entropy(logits, batch['target']), mask, logits.argmax(-1)

    return Task(init, loss, predict)


# --- searching ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The search for translations.

    beams: hypotheses that are kept at each step; 1 is greedy decoding. alpha: exponent of the length penalty
    (`canon.ops.decoding.length_penalty`). extra: tokens that a translation may have more than its source, <eos>
    included (Vaswani et al. 2017: 50).
    """

    beams: Count = 1
    alpha: NonNegative = 0.6
    extra: Annotated[int, Range(0)] = 50


@dataclass(frozen=True, kw_only=True)
class TranslationSettings(SearchSettings):
    """config.search, of `predict`. batch_size: sentences per batch. alignments: of the first sentences, as figures."""

    batch_size: Count = 32
    alignments: Annotated[int, Range(0)] = 2


@dataclass(frozen=True, kw_only=True)
class TranslationEvaluation(TranslationSettings):
    """An entry of config.data.evals.

    split: may be sliced, 'test[:1000]'. bounds: chrF is also reported by the words of the source, up to each bound and
    beyond the last. longer: how pairs longer than the last bucket are treated: one that is 'cut' counts as it is
    translated. tokenize: a tokenizer of sacrebleu for BLEU; None is that of the target language
    (`metrics.bleu_tokenizer`). trained_on: the split may share sentences with data.train.
    """

    split: str
    bounds: tuple[Count, ...] = ()
    longer: str = 'cut'
    tokenize: str | None = None
    trained_on: bool = False


class Translation(NamedTuple):
    """A sentence and its translation: text, and int32 tokens [n] with <eos> and without padding."""

    text: str
    source: np.ndarray
    target: np.ndarray


class Translator:
    """A model with its vocabularies and its search: text in, text out."""

    def __init__(self, model: Any, languages: Languages, settings: SearchSettings = SearchSettings()):
        self.model, self.languages, self.settings = model, languages, settings
        self._compiled_search = backend.jit(self.search)
        self._compiled_attend = backend.jit(self._attend)

    def search(self, params: Any, source: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the best translations, tokens [B, S + extra], and their lengths [B], of sources [B, S] of `lengths`.

        A translation has at most `extra` tokens more than its own source, so that it does not depend on the other
        sentences of its batch. Call it inside `jit`.
        """

        def call(method, *arguments):
            return self.model.apply({'params': params}, *arguments, method=method)

        def step(state, tokens):
            return call('step', memory, state, tokens)

        settings, end = self.settings, self.languages.target.eos
        assert end is not None
        source, lengths = jnp.asarray(source), jnp.asarray(lengths)
        # The arrays are as long as the widest source of the batch may need; each row stops at its own limit.
        size, limits = source.shape[1] + settings.extra, lengths + settings.extra
        memory, state = call('start', source, lengths, size)
        first = jnp.full(len(source), self.languages.first_token, jnp.int32)
        if settings.beams == 1:
            greedy = decoding.greedy(step, state, first, size, end, limits)
            return greedy.tokens, greedy.lengths
        beam = decoding.beam_search(step, state, first, size, end, settings.beams, settings.alpha, limits)
        return beam.tokens[:, 0], beam.lengths[:, 0]

    def translate(self, params: Any, sentences: Sequence[str], batch_size: int = 32) -> Iterator[Translation]:
        """Yields the translation of each sentence, batch by batch, in their order.

        Sentences are not sorted by length: a batch is as wide as its longest sentence, rounded up.

        Args:
          params: of the model.
          sentences: none of them empty; see `translate_lines` for the lines of a file.
          batch_size: sentences that are translated at once.
        """
        source = self.languages.source
        assert source.eos is not None
        for start in range(0, len(sentences), batch_size):
            batch = sentences[start : start + batch_size]
            encoded = [np.append(source.encode(sentence), source.eos) for sentence in batch]
            if start:  # a smaller last batch would be compiled again
                encoded += [encoded[-1]] * (batch_size - len(encoded))
            tokens, lengths = _pad_sentences(encoded, source.pad or 0)
            targets, counts = map(np.asarray, self._compiled_search(params, tokens, lengths))
            for i in range(len(batch)):
                yield self.spell(tokens[i], lengths[i], targets[i], counts[i])

    def translate_lines(
        self, params: Any, lines: Sequence[str], batch_size: int = 32
    ) -> Iterator[tuple[str, Translation | None]]:
        """Yields (line, its translation) for each line, or (line, None) for an empty one.

        Empty lines are not translated, but keep their place: line n of the output stays that of line n of the input.
        """
        translations = self.translate(params, [line for line in lines if line], batch_size)
        for line in lines:
            yield line, next(translations) if line else None

    def spell(self, source: np.ndarray, length: int, target: np.ndarray, count: int) -> Translation:
        """Returns the translation that `length` tokens of a source and `count` tokens of its target stand for."""
        tokens, words = target[:count], self.languages.target
        text = words.decode(tokens[:-1] if count and tokens[-1] == words.eos else tokens).strip()
        return Translation(text, source[:length], tokens)

    def align(self, params: Any, translation: Translation) -> np.ndarray | None:
        """Returns the attention weights [h, T, S] from each target token to the source, in the last layer.

        None for a model without attention.
        """
        # The decoder's inputs that produced the translation: it without its last token.
        inputs = np.append(self.languages.first_token, translation.target[: max(len(translation.target), 1) - 1])
        source, lengths = _pad_sentences([translation.source], self.languages.source.pad or 0)
        # Under the causal mask the padding of the inputs changes nothing; it saves compiling each length.
        padded, _ = _pad_sentences([inputs], self.languages.target.pad or 0)
        weights = self._compiled_attend(params, source, lengths, padded)
        if weights is None:
            return None
        return np.asarray(weights, np.float32)[0, :, : len(inputs), : len(translation.source)]

    def _attend(self, params, source, lengths, inputs) -> jax.Array | None:
        _, stored = self.model.apply({'params': params}, source, lengths, inputs, mutable=['attention'])
        # Layers sow their weights in the order of the network; the last one is nearest to the output.
        layers = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(stored) if 'cross' in str(path[-1])]
        return layers[-1] if layers else None


def _pad_sentences(encoded: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens [B, S], S a multiple of 16, and lengths [B]."""
    lengths = np.array([len(tokens) for tokens in encoded], np.int32)
    width = -(-lengths.max() // _WIDTH_MULTIPLE) * _WIDTH_MULTIPLE
    padded = np.full((len(encoded), width), pad, np.int32)
    for row, tokens in zip(padded, encoded, strict=True):
        row[: len(tokens)] = tokens
    return padded, lengths


def predict_translations(
    translator: Translator, params: Any, lines: Sequence[str], batch_size: int = 32, alignments: int = 0
) -> Iterator[Prediction]:
    """Yields each translation as it is made, and at last all of them as a file.

    Line n of `translations.txt` is the translation of line n; the first ones are also printed.

    Args:
      translator: the model and its search.
      params: of the model.
      lines: sentences; empty ones keep their place.
      batch_size: sentences that are translated at once.
      alignments: of the first sentences, as figures, if the model has attention.
    """
    texts, number = [], 0
    for line, translation in translator.translate_lines(params, lines, batch_size):
        # A vocabulary of characters may produce line feeds, which would shift the lines of the output.
        texts.append('' if translation is None else ' '.join(translation.text.split('\n')))
        if translation is None:
            continue
        number += 1
        figure = plot_alignment(translator, params, translation) if number <= alignments else None
        files = {} if figure is None else {f'alignment-{number}.png': figure}
        row = {'source': line, 'translation': texts[-1]}
        yield Prediction(row, files, texts[-1] if number <= _PRINTED_TRANSLATIONS else '')
    yield Prediction(files={'translations.txt': ''.join(f'{text}\n' for text in texts)})


# --- evaluation ---------------------------------------------------------------------------------------------------


def translation_evaluator(
    task: Task,
    translator: Translator,
    parts: Sequence[Pairs],
    batch_size: Count = 32,
    bounds: Sequence[Count] = (),
    alignments: Annotated[int, Range(0)] = 2,
    tokenize: str = '13a',
) -> Evaluator:
    """Translates held-out sentences and scores the translations.

    Metrics: `loss` in nats per token, `perplexity`, `accuracy`; `bleu`, `chrf`; `copy_chrf`, the chrF of the sources
    themselves, and `gain`, the difference from it. References are the sentences as they were read, not as a vocabulary
    encodes them.

    Args:
      task: of `translation_task`.
      translator: searches for the translations.
      parts: held-out pairs, of `Pairs.buckets`.
      batch_size: sentences per batch.
      bounds: rising numbers of words; chrF is also reported for sources up to each bound (`chrf_to_5`, `chrf_to_10`)
        and beyond the last (`chrf_beyond`).
      alignments: figures of attention.
      tokenize: a tokenizer of sacrebleu, by which BLEU is computed; see `canon.metrics.bleu_tokenizer`.

    Raises:
      UsageError: the tokenizer does not exist, or its package is missing.
    """
    metrics.check_tokenizer(tokenize)
    # In the order in which `BucketsOnce` yields them, so row i of the accumulator is pair i.
    pairs = [pair for part in parts for pair in part.sentences]
    sources, references = zip(*pairs, strict=True)

    def measure(params, mutable, batch):
        nats, mask, likeliest = task.predict(params, mutable, batch)
        translations = translator.search(params, batch['source'], batch['source_length'])
        return {
            'nats': metrics.Mean.of(nats, mask),
            'accuracy': metrics.Mean.of(likeliest == batch['target'], mask),
            # Rows, not sums: BLEU is of the whole corpus, and its counts do not add over batches of text.
            'rows': metrics.Rows.of((batch['source'], batch['source_length'], *translations), batch['mask']),
        }

    def finish(sums):
        texts = [translator.spell(*row).text for row in sums['rows'].each()]
        bleu = metrics.bleu(texts, references, tokenize)
        chrf, copy_chrf = metrics.chrf(texts, references), metrics.chrf(sources, references)
        _log.info('BLEU %.2f (%s); chrF %.2f (%s)', *bleu, *chrf)
        nats = sums['nats']
        results = {'loss': float(nats.value), 'perplexity': perplexity(nats), 'accuracy': sums['accuracy'].value}
        results |= {'bleu': bleu.value, 'chrf': chrf.value, 'copy_chrf': copy_chrf.value}
        results['gain'] = results['chrf'] - results['copy_chrf']
        for name, ids in _group_by_length(sources, bounds):
            results[f'chrf_{name}'] = _subset_chrf(texts, references, ids)
        return results

    def draw(params, mutable, sums):
        translations = [translator.spell(*row) for row in sums['rows'].each()]
        texts = [translation.text for translation in translations]
        figures = {'translations': _plot_examples(pairs, texts, tokenize)}
        if bounds:
            figures['lengths'] = _plot_lengths(sources, references, texts, bounds)
        least, most = _ALIGNED_TOKENS
        legible = [t for t in translations if least <= len(t.source) <= most] or translations
        for number, translation in enumerate(legible[:alignments], 1):
            figure = plot_alignment(translator, params, translation)
            if figure is not None:
                figures[f'alignment {number}'] = figure
        return figures

    return Evaluator(BucketsOnce(parts, batch_size), measure, finish, draw)


def _group_by_length(sources: Sequence[str], bounds: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """Yields ('to_5', ids), ('to_10', ids), ('beyond', ids) for bounds (5, 10); empty groups are left out."""
    if not bounds:
        return
    groups = np.searchsorted(bounds, [len(text.split()) for text in sources])
    for group, name in enumerate([*(f'to_{bound}' for bound in bounds), 'beyond']):
        ids = np.flatnonzero(groups == group).tolist()
        if ids:
            yield name, ids


def _subset_chrf(texts: Sequence[str], references: Sequence[str], ids: Sequence[int]) -> float:
    return metrics.chrf([texts[i] for i in ids], [references[i] for i in ids]).value


# --- figures ------------------------------------------------------------------------------------------------------


def plot_alignment(translator: Translator, params: Any, translation: Translation):
    """Plots the attention from each target token to the source, head by head; None for a model without attention."""
    heads = translator.align(params, translation)
    if heads is None:
        return None
    source, target = translator.languages.source, translator.languages.target
    written, read = target.tokens(translation.target[: heads.shape[1]]), source.tokens(translation.source)
    return plots.draw_alignments(heads[0] if len(heads) == 1 else heads, written, read)


def _plot_examples(pairs: Sequence[tuple[str, str]], texts: Sequence[str], tokenize: str):
    """Shows sentences spread evenly over the data, with their references and translations."""
    # Pairs come bucket after bucket, so an even spread shows short and long ones.
    ids = np.linspace(0, len(texts) - 1, min(_PLOTTED_SENTENCES, len(texts))).astype(int)
    bleu = metrics.bleu(texts, [reference for _, reference in pairs], tokenize)
    title = f'source, reference, translation; BLEU {bleu.value:.1f} ({bleu.signature})'
    return plots.draw_translations([(*pairs[i], texts[i]) for i in ids], title)


def _plot_lengths(sources: Sequence[str], references: Sequence[str], texts: Sequence[str], bounds: Sequence[int]):
    """Plots chrF by the words of the source: figure 2 of Bahdanau et al. 2015, with chrF for BLEU."""
    lines: dict[str, list[tuple[float, float]]] = {'model/chrF': [], 'copy/chrF': []}
    for _, ids in _group_by_length(sources, bounds):
        words = float(np.mean([len(sources[i].split()) for i in ids]))
        for name, side in (('model/chrF', texts), ('copy/chrF', sources)):
            lines[name].append((words, _subset_chrf(side, references, ids)))
    return plots.draw_curves(lines, xlabel='words of the source')
