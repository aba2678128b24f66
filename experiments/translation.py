"""Translation: encoder-decoders with and without attention, and the Transformer; greedy and beam search, BLEU, chrF."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import backend, losses, metrics, models, named, optim, plots
from canon.data.text import parallel_text, text_files, vocabulary
from canon.errors import UsageError
from canon.metrics.language import perplexity
from canon.ops import decoding
from canon.train import Evaluator, Experiment, Task, lengths
from canon.train.shard import process_shard

_SHOWN = 12  # translations in the picture
_DRAWN = (6, 14)  # tokens of a source whose alignment is drawn, least and most
_log = logging.getLogger('canon')


@dataclass(frozen=True)
class Spec:
    """One entry of config.data.evals; config.search has the same keys.

    longer: what becomes of a pair longer than the last bucket; one that is 'cut' still counts, as it ought to.
    beams, alpha: of the search (`decoding.beam_search`); 1 is greedy. extra: how many tokens a translation may have
    more than its own source, <eos> included (Vaswani et al. 2017: 50). bounds: chrF is also reported by the source's
    words, up to each bound and beyond the last. alignments: how many pictures of attention are drawn. tokenize: BLEU's,
    one of sacrebleu's; None takes that of the target language (`metrics.bleu_tokenizer`).
    """

    split: str
    batch_size: named.Count = 32
    beams: named.Count = 1
    alpha: named.NonNegative = 0.6
    extra: Annotated[int, named.Range(0)] = 50
    bounds: tuple[named.Count, ...] = ()
    alignments: Annotated[int, named.Range(0)] = 2
    longer: str = 'cut'
    tokenize: str | None = None


class Languages(NamedTuple):
    """The vocabularies of both sides."""

    source: vocabulary.Vocabulary
    target: vocabulary.Vocabulary


def make(config: ConfigDict) -> Experiment:
    """config.data, config.vocabulary, config.model, config.loss and config.tx -> a translation experiment."""
    train = _sentences(config, config.data.train.split)
    languages = _languages(config, train)
    model = _model(config, languages)
    _search(config)  # refuses settings of `predict` before they are needed
    task = named.call(translation_task, {'model': model, 'begin': _begin(languages), **config.loss}, 'loss')
    fields = {key: value for key, value in named.to_plain(config.data.train).items() if key != 'split'}
    buckets = _buckets(fields.pop('buckets', ()))
    pairs = parallel_text.Pairs(train, *languages, max_length=buckets[-1], longer=fields.pop('longer', 'skip'))
    arguments = {'parts': pairs.buckets(buckets), 'seed': config.seed, 'shard': process_shard(), **fields}
    batches = named.call(parallel_text.Buckets, arguments, 'data.train')
    tx = optim.make(lengths.resolve(config, batches.batch_size, batches.num_examples).tx)
    evals = {name: _evaluator(config, name, task, model, languages, buckets) for name in sorted(config.data.evals)}
    about = dict(
        vocabulary=[list(side.about) for side in languages],
        pairs=dict(train=len(pairs), longer=pairs.skipped + pairs.cut),
    )
    return Experiment(task, tx, batches, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """`config` on the embedded catalogues where its own sentences are not at hand: to build it, or to time it."""
    if config.data.name != 'catalogue':
        with config.unlocked():
            config.data.name, config.data.source = 'catalogue', {}
            config.data.train.split = 'train'
            for spec in config.data.evals.values():
                spec.split = 'valid'
            if config.vocabulary.get('size'):
                config.vocabulary.update(size=2000, path=None)
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str, output: str | Path) -> str:
    """Translates each line of a file, plain or .gz, or the sentence `source`, by config.search: `translations.txt`.

    Line n of the output is the translation of line n. Lines are read as those of training are: they end at a line feed
    alone, and outer white space is dropped. Of the first lines the alignment is drawn too, where the model has one:
    `alignment-1.png`.
    """
    codes = [
        value for key, value in named.to_plain(config.data).get('source', {}).items() if key in ('source', 'target')
    ]
    lines = [line.strip() for line in text_files.given(source, [f'.{code}' for code in codes if code])]
    languages = _languages(config, None)
    model, folder = _model(config, languages), Path(output)
    spec = _search(config)
    found = list(_translate(model, languages, params, [line for line in lines if line], spec))
    texts = iter(' '.join(text.split('\n')) for _, text in found)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / 'translations.txt'
    written.write_bytes(''.join(f'{next(texts) if line else ""}\n' for line in lines).encode())
    for number, (row, _) in enumerate(found[: spec.alignments], 1):
        figure = _alignment(model, languages, params, row)
        if figure is not None:
            figure.savefig(folder / f'alignment-{number}.png', dpi=120, bbox_inches='tight')
    shown = '\n'.join(text for _, text in found[:20])
    return f'{shown}\n{len(found)} sentences translated to {written}'


# --- the task -----------------------------------------------------------------------------------------------------


def translation_task(
    model: Any, begin: int, label_smoothing: named.Probability = 0.0, smoothing: str = 'uniform'
) -> Task:
    """Predicting 'target' [B, T], of which 'target_length' [B] count, from 'source' [B, S] and the words before.

    begin: the token that the model sees before the first one. The loss is the mean over words, nats is that without
    label smoothing, whose form is 'uniform', e / V for every word (Szegedy et al. 2016; torch, optax), or 'others',
    e / (V - 1) for every wrong one (tensor2tensor, with which Vaswani et al. 2017 was made; fairseq).
    `predict` gives (nats [B, T], mask [B, T], the likeliest words [B, T]).
    """
    if smoothing not in ('uniform', 'others'):
        raise UsageError(f"loss.smoothing={smoothing!r} is neither 'uniform' nor 'others'")

    def init(key, batch):
        first = {name: batch[name][:1] for name in ('source', 'source_length', 'target')}
        return {'params': model.init(key, first['source'], first['source_length'], first['target'])['params']}

    def read(params, batch, **how):
        """(logits, mask) of each word of the target."""
        target = jnp.asarray(batch['target'])
        inputs = jnp.concatenate([jnp.full_like(target[:, :1], begin), target[:, :-1]], 1)
        logits = model.apply({'params': params}, batch['source'], batch['source_length'], inputs, **how)
        counted = jnp.arange(target.shape[1]) < jnp.asarray(batch['target_length'])[:, None]
        return logits, counted & batch['mask'][:, None]

    def loss(params, mutable, batch, at):
        logits, mask = read(params, batch, train=True, rngs={'dropout': at.key})
        size = logits.shape[-1]
        share = label_smoothing * (size / (size - 1) if smoothing == 'others' else 1.0)
        nats = losses.softmax_cross_entropy(logits, batch['target'])
        smooth = losses.softmax_cross_entropy(logits, batch['target'], share) if share else nats
        told = {'nats': metrics.Mean.of(nats, mask), 'accuracy': metrics.accuracy(logits, batch['target'], mask)}
        return metrics.Mean.of(smooth, mask), (mutable, told)

    def predict(params, mutable, batch):
        logits, mask = read(params, batch)
        return losses.softmax_cross_entropy(logits, batch['target']), mask, logits.argmax(-1)

    return Task(init, loss, predict)


def translation_evaluator(
    task: Task, model: Any, languages: Languages, parts: Sequence[parallel_text.Pairs], spec: Spec
) -> Evaluator:
    """loss: nats a token; perplexity, accuracy; bleu, chrf; copy_chrf of the source itself, and the `gain` over it.

    References are the sentences as they were read, not what a vocabulary makes of them.
    """
    sentences = [pair for part in parts for pair in part.sentences]
    tokenize = spec.tokenize or '13a'
    search = searcher(model, languages, spec)

    def measure(params, mutable, batch):
        nats, mask, guess = task.predict(params, mutable, batch)
        found = search(params, batch['source'], batch['source_length'])
        return {
            'nats': metrics.Mean.of(nats, mask),
            'accuracy': metrics.Mean.of(guess == batch['target'], mask),
            'rows': metrics.Rows.of((batch['source'], batch['source_length'], *found), batch['mask']),
        }

    def finish(sums):
        texts = [_text(languages.target, *row[2:]) for row in sums['rows'].each()]
        sources, references = zip(*sentences, strict=True)
        bleu = metrics.bleu(texts, references, tokenize)
        scores = {'chrf': metrics.chrf(texts, references), 'copy_chrf': metrics.chrf(sources, references)}
        _log.info('BLEU %.2f (%s); chrF %.2f (%s)', *bleu, *scores['chrf'])
        nats = sums['nats']
        found = {'loss': float(nats.value), 'perplexity': perplexity(nats), 'accuracy': sums['accuracy'].value}
        found |= {'bleu': bleu.value, **{name: score.value for name, score in scores.items()}}
        found['gain'] = found['chrf'] - found['copy_chrf']
        for name, chosen in _by_length(sources, spec.bounds):
            score = metrics.chrf([texts[i] for i in chosen], [references[i] for i in chosen])
            found[f'chrf_{name}'] = score.value
        return found

    def pictures(params, mutable, sums):
        rows = list(sums['rows'].each())
        texts = [_text(languages.target, *row[2:]) for row in rows]
        drawn = {'translations': _examples(sentences, texts, tokenize)}
        if spec.bounds:
            drawn['lengths'] = _lengths(sentences, texts, spec.bounds)
        fitting = [row for row in rows if _DRAWN[0] <= row[1] <= _DRAWN[1]] or rows
        for number, row in enumerate(fitting[: spec.alignments], 1):
            figure = _alignment(model, languages, params, row)
            if figure is not None:
                drawn[f'alignment {number}'] = figure
        return drawn

    return Evaluator(parallel_text.BucketsOnce(parts, spec.batch_size, process_shard()), measure, finish, pictures)


# --- searching ----------------------------------------------------------------------------------------------------


def searcher(model: Any, languages: Languages, spec: Spec) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """search(params, source [B, S], lengths [B]) -> the best translations, tokens [B, S + extra] and their lengths.

    A translation has at most `extra` tokens more than its source, however long the others of its batch are.
    """
    end, begin = languages.target.eos, _begin(languages)
    assert end is not None

    def search(params, source, lengths):
        source, lengths = jnp.asarray(source), jnp.asarray(lengths)
        size, limits = source.shape[1] + spec.extra, lengths + spec.extra
        bound = lambda method: lambda *a: model.apply({'params': params}, *a, method=method)  # noqa: E731
        memory, state = bound('start')(source, lengths, size)
        first = jnp.full(len(source), begin, jnp.int32)
        step = lambda state, tokens: bound('step')(memory, state, tokens)  # noqa: E731
        if spec.beams == 1:
            found = decoding.greedy(step, state, first, size, end, limits)
            return found.tokens, found.lengths
        found = decoding.beam_search(step, state, first, size, end, spec.beams, spec.alpha, limits)
        return found.tokens[:, 0], found.lengths[:, 0]

    return search


def _translate(model, languages: Languages, params, lines: Sequence[str], spec: Spec) -> Iterator[tuple[tuple, str]]:
    """(row as an evaluator has it, text) of each line, batch by batch; lines of like length are not brought together,
    so a batch is as wide as its longest line, rounded up to a multiple of 16."""
    search = backend.jit(searcher(model, languages, spec))
    eos = languages.source.eos
    assert eos is not None
    for start in range(0, len(lines), spec.batch_size):
        encoded = [np.append(languages.source.encode(line), eos) for line in lines[start : start + spec.batch_size]]
        encoded += [encoded[-1]] * (spec.batch_size - len(encoded)) if start else []
        width = -(-max(map(len, encoded)) // 16) * 16
        source = np.full((len(encoded), width), languages.source.pad or 0, np.int32)
        for row, tokens in zip(source, encoded, strict=True):
            row[: len(tokens)] = tokens
        counts = np.array([len(tokens) for tokens in encoded], np.int32)
        found = map(np.asarray, search(params, source, counts))
        rows = list(zip(source, counts, *found, strict=True))[: len(lines) - start]
        yield from ((row, _text(languages.target, *row[2:])) for row in rows)


def _text(words: vocabulary.Vocabulary, tokens: np.ndarray, count: int) -> str:
    """A translation without its <eos>."""
    kept = tokens[:count]
    return words.decode(kept[:-1] if count and kept[-1] == words.eos else kept).strip()


# --- pictures -----------------------------------------------------------------------------------------------------


def _alignment(model: Any, languages: Languages, params, row: tuple):
    """Where each word of a translation looked, in every head of the last layer; None for a model without attention."""
    source, length, tokens, count = row
    inputs = np.append(_begin(languages), tokens[: max(int(count), 1) - 1])[None]
    _, seen = model.apply({'params': params}, source[None], np.asarray(length)[None], inputs, mutable=['attention'])
    crosses = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(seen) if 'cross' in str(path[-1])]
    if not crosses:
        return None
    heads = np.asarray(crosses[-1], np.float32)[0, :, :, :length]
    written = languages.target.tokens(tokens[: inputs.shape[1]])
    return plots.alignments(heads[0] if len(heads) == 1 else heads, written, languages.source.tokens(source[:length]))


def _examples(sentences: Sequence[tuple[str, str]], texts: Sequence[str], tokenize: str):
    """Sentences spread evenly over the data."""
    chosen = np.linspace(0, len(texts) - 1, min(_SHOWN, len(texts))).astype(int)
    bleu = metrics.bleu(texts, [reference for _, reference in sentences], tokenize)
    title = f'source, reference, translation; BLEU {bleu.value:.1f} ({bleu.signature})'
    return plots.translations([(*sentences[i], texts[i]) for i in chosen], title)


def _lengths(sentences: Sequence[tuple[str, str]], texts: Sequence[str], bounds: Sequence[int]):
    """chrF by the source's words: figure 2 of Bahdanau et al. 2015, with chrF for BLEU."""
    sources, references = zip(*sentences, strict=True)
    lines: dict[str, list[tuple[float, float]]] = {'model/chrF': [], 'copy/chrF': []}
    for _, chosen in _by_length(sources, bounds):
        place = float(np.mean([len(sources[i].split()) for i in chosen]))
        right = [references[i] for i in chosen]
        for name, side in (('model/chrF', texts), ('copy/chrF', sources)):
            lines[name].append((place, metrics.chrf([side[i] for i in chosen], right).value))
    return plots.curves(lines, xlabel='words of the source')


def _by_length(sources: Sequence[str], bounds: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
    """('to_5', 'to_10', 'beyond', and which sentences) for bounds (5, 10); without bounds, none."""
    if not bounds:
        return
    places = np.searchsorted(bounds, [len(text.split()) for text in sources])
    for place, name in enumerate([*(f'to_{bound}' for bound in bounds), 'beyond']):
        chosen = np.flatnonzero(places == place).tolist()
        if chosen:
            yield name, chosen


# --- from the config ----------------------------------------------------------------------------------------------


def _search(config: ConfigDict) -> Spec:
    return named.call(Spec, {'split': '', **named.to_plain(config.get('search', {}))}, 'search')


def _buckets(bounds: Any) -> tuple[int, ...]:
    named.check(bounds, tuple[named.Count, ...], 'data.train.buckets')
    if not bounds or list(bounds) != sorted(set(bounds)):
        raise UsageError(f'data.train.buckets={tuple(bounds)} must be lengths that rise, such as (10, 24)')
    return tuple(bounds)


def _evaluator(config, name: str, task: Task, model, languages: Languages, buckets: tuple[int, ...]) -> Evaluator:
    spec = named.call(Spec, named.to_plain(config.data.evals[name]), f'data.evals.{name}')
    spec = replace(spec, tokenize=spec.tokenize or metrics.bleu_tokenizer(_target_language(config)))
    metrics.check_tokenizer(spec.tokenize)
    sentences = _sentences(config, spec.split)
    pairs = parallel_text.Pairs(sentences, *languages, max_length=buckets[-1], longer=spec.longer)
    return translation_evaluator(task, model, languages, pairs.buckets(buckets), spec)


def _target_language(config: ConfigDict) -> str | None:
    """Returns the code of the language that is translated into, where the data name it."""
    source = named.to_plain(config.data).get('source', {})
    return source.get('language') if config.data.name == 'catalogue' else source.get('target')


def _sentences(config: ConfigDict, split: str) -> parallel_text.Sentences:
    d = named.to_plain(config.data)
    named.check(d['name'], str, 'data.name')
    options = {key: value for key, value in d.get('source', {}).items() if value is not None}
    return parallel_text.load(d['name'], split, d.get('data_dir'), **options)


def _languages(config: ConfigDict, train: parallel_text.Sentences | None) -> Languages:
    """config.vocabulary: `vocabulary.build`'s arguments; shared: one for both sides; path: a file, or a pair of them,
    where it is read from if it is there, and else written to.
    """
    spec = named.to_plain(config.vocabulary)
    shared, path = spec.pop('shared', False), spec.pop('path', None)
    files = [] if path is None else [Path(path).expanduser()]
    if files and not shared:
        files = [files[0].with_name(f'{files[0].name}.{side}') for side in ('source', 'target')]
    if files and all(file.is_file() for file in files):
        sides = [vocabulary.read(file) for file in files]
        return Languages(sides[0], sides[-1])
    train = _sentences(config, config.data.train.split) if train is None else train
    texts = [[text for pair in train for text in pair]] if shared else [list(side) for side in zip(*train, strict=True)]
    arguments = {'specials': vocabulary.PAIR_SPECIALS, **spec}
    sides = [named.call(vocabulary.build, {'lines': lines, **arguments}, 'vocabulary') for lines in texts]
    if jax.process_index() == 0:
        for file, side in zip(files, sides, strict=bool(files)):
            file.parent.mkdir(parents=True, exist_ok=True)
            side.save(file)
    return Languages(sides[0], sides[-1])


def _model(config: ConfigDict, languages: Languages) -> Any:
    """The model of config.model; a shared vocabulary is one embedding."""
    model = named.to_plain(config.model)
    source = None if languages.source == languages.target else len(languages.source)
    return models.make(model.pop('name'), vocab=len(languages.target), source_vocab=source, **model)


def _begin(languages: Languages) -> int:
    """<bos>, or <eos> where a vocabulary has none."""
    begin = languages.target.bos if languages.target.bos is not None else languages.target.eos
    if begin is None:
        raise UsageError("vocabularies of translation need '<eos>' among their specials")
    return begin


# --- claims -------------------------------------------------------------------------------------------------------


def by_length(found: Sequence[Any], form: str, over: str) -> Any:
    """Of a sweep: chrF against the words of the source, a line a form, through the medians of its seeds.

    form: the key of the config that tells the forms apart. over: that of the swept value, of which each form's best is
    shown: the one with the highest median of chrF over all.
    """
    from experiments.claims.classification import at, done, label

    points: dict[str, dict[float, dict[str, list[float]]]] = {}
    for run, config in done(found):
        bins = points.setdefault(label(config, form), {}).setdefault(at(config, over), {})
        for name, value in run.metrics.items():
            if name.startswith('test/chrf'):
                bins.setdefault(name.removeprefix('test/chrf').removeprefix('_'), []).append(value)
    lines = {}
    for name, values in points.items():
        best = max(values, key=lambda value: plots.middle(values[value]['']))
        lines[f'{name}, {best:g}'] = values[best]
    names = ['to_' + n for n in sorted((n[3:] for n in next(iter(lines.values())) if n.startswith('to_')), key=int)]
    names.append('beyond')
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.add_subplot()
    for i, (form_name, bins) in enumerate(lines.items()):
        axes.plot(range(len(names)), [plots.middle(bins[n]) for n in names], color=f'C{i}', label=form_name)
        for place, n in enumerate(names):
            axes.plot([place] * len(bins[n]), bins[n], '.', color=f'C{i}', ms=5)
    axes.set_xticks(range(len(names)), [n.replace('to_', 'to ') for n in names])
    axes.set(xlabel='words of the source', ylabel='chrF', title='translations by the length of the sentence')
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    return figure
