"""Translation of sentences: binds a config to `canon.tasks.translation`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from canon import metrics, models, named
from canon.configuration import drop_placeholders
from canon.data.text import parallel_text, text_files, vocabulary
from canon.data.text.parallel_text import Buckets, Languages, Pairs, build_languages
from canon.errors import UsageError
from canon.tasks.predictions import Prediction
from canon.tasks.translation import (
    TranslationEvaluation,
    TranslationSettings,
    Translator,
    plot_alignment,
    translation_evaluator,
    translation_task,
)
from canon.train import Evaluator, Experiment, Task

_PRINTED = 20  # translations that `predict` prints
_GIVEN = ('sentences', 'source', 'target', 'max_length', 'info')  # arguments of Pairs that are no settings

# The functions whose arguments the sections of a config hold.
SECTIONS: dict[str, Any] = {
    'data.source': parallel_text.PARALLEL_TEXTS,
    'data.train': {'Buckets': named.combine_arguments(Pairs, Buckets, without=(*_GIVEN, 'parts', 'seed'))},
    'data.evals.*': {'TranslationEvaluation': TranslationEvaluation},
    'vocabulary': {
        'build_languages': named.combine_arguments(
            build_languages, vocabulary.build, without=('pairs', 'settings', 'lines')
        ),
    },
    'loss': {'translation_task': named.combine_arguments(translation_task, without=('model', 'first_token'))},
    'search': {'TranslationSettings': TranslationSettings},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.vocabulary, config.model, config.loss and config.tx."""
    section = {key: value for key, value in named.to_plain(config.data.train).items() if key != 'split'}
    bounds = section.pop('buckets', ())  # the longest side of the pairs in each bucket, in tokens
    named.check(bounds, tuple[named.Count, ...], 'data.train.buckets')
    if not bounds or list(bounds) != sorted(set(bounds)):
        raise UsageError(f'data.train.buckets={bounds} must be lengths that rise, such as (10, 24)')
    sentences = _load_pairs(config, config.data.train.split)
    languages = _build_languages(config, sentences)
    model = _make_model(config, languages)
    named.call(TranslationSettings, config.get('search', {}), 'search')  # raises before hours of training
    arguments = {'model': model, 'first_token': languages.first_token, **config.loss}
    task = named.call(translation_task, arguments, 'loss')
    # A key of config.data.train, but an argument of `Pairs`; the others are those of `Buckets`.
    longer = {'longer': section.pop('longer')} if 'longer' in section else {}
    pairs = Pairs(sentences, *languages, max_length=bounds[-1], **longer)
    arguments = {'parts': pairs.buckets(bounds), 'seed': config.seed, **section}
    train = named.call(Buckets, arguments, 'data.train')
    evals = {name: _make_evaluator(config, name, task, model, languages, bounds) for name in sorted(config.data.evals)}
    # Recorded in run.json: a vocabulary of another text, or other pairs, are refused when the run is resumed.
    counts = dict(train=len(pairs), longer=pairs.skipped + pairs.cut)
    about = dict(vocabulary=[list(side.about) for side in languages], pairs=counts)
    return Experiment(task, config.tx, train, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded catalogues, to build it or to time it without a download."""
    if config.data.name != 'catalogue':
        with config.unlocked():
            config.data.name, config.data.source = 'catalogue', {}
            config.data.train.split = 'train'
            for settings in config.data.evals.values():
                settings.split = 'valid'
            if config.vocabulary.get('size'):
                config.vocabulary.update(size=2000, path=None)
    return config


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Translates each line of a file, plain or .gz, or the sentence `source`, by config.search.

    Line n of `translations.txt` is the translation of line n. Lines are read as those of training: they end at a line
    feed alone, and surrounding white space is dropped. The alignments of the first lines are plotted if the model has
    attention.
    """
    codes = [config.data.get('source', {}).get(side) for side in ('source', 'target')]  # endings of files, such as 'de'
    lines = [line.strip() for line in text_files.read_input(source, [f'.{code}' for code in codes if code])]
    languages = _build_languages(config, None)
    settings = named.call(TranslationSettings, config.get('search', {}), 'search')
    translator = Translator(_make_model(config, languages), languages, settings)
    texts, number = [], 0
    for line, translation in translator.translate_lines(params, lines, settings.batch_size):
        # A vocabulary of characters may produce line feeds, which would shift the lines of the output.
        texts.append('' if translation is None else ' '.join(translation.text.split('\n')))
        if translation is None:
            continue
        number += 1
        figure = plot_alignment(translator, params, translation) if number <= settings.alignments else None
        files = {} if figure is None else {f'alignment-{number}.png': figure}
        yield Prediction({'source': line, 'translation': texts[-1]}, files, texts[-1] if number <= _PRINTED else '')
    yield Prediction(files={'translations.txt': ''.join(f'{text}\n' for text in texts)})


def _make_evaluator(
    config: ConfigDict, name: str, task: Task, model: Any, languages: Languages, bounds: tuple[int, ...]
) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(TranslationEvaluation, config.data.evals[name], where)
    if not settings.trained_on:
        parallel_text.check_held_out_sentences(config.data.train.split, settings.split, where, **_source(config))
    sentences = _load_pairs(config, settings.split)
    pairs = Pairs(sentences, *languages, max_length=bounds[-1], longer=settings.longer)
    source = config.data.get('source', {})
    language = source.get('language') if config.data.name == 'catalogue' else source.get('target')
    return translation_evaluator(
        task,
        Translator(model, languages, settings),
        pairs.buckets(bounds),
        settings.batch_size,
        settings.bounds,
        settings.alignments,
        settings.tokenize or metrics.bleu_tokenizer(language),
    )


def _source(config: ConfigDict) -> dict[str, Any]:
    """Returns the arguments of `parallel_text.load_pairs` that do not depend on the split."""
    data = named.to_plain(config.data)
    named.check(data['name'], str, 'data.name')
    return {'name': data['name'], 'data_dir': data.get('data_dir'), **drop_placeholders(data.get('source', {}))}


def _load_pairs(config: ConfigDict, split: str) -> parallel_text.Sentences:
    return parallel_text.load_pairs(split=split, **_source(config))


def _build_languages(config: ConfigDict, pairs: parallel_text.Sentences | None) -> Languages:
    """Builds the vocabularies of config.vocabulary; reads the sentences, unless given, only if they are needed."""

    def read():
        # A generator: vocabularies that are read from a file need no sentence.
        yield from _load_pairs(config, config.data.train.split) if pairs is None else pairs

    return named.call(build_languages, {'pairs': read(), **named.to_plain(config.vocabulary)}, 'vocabulary')


def _make_model(config: ConfigDict, languages: Languages) -> Any:
    arguments = named.to_plain(config.model)
    sizes: dict[str, Any] = dict(vocab=len(languages.target), source_vocab=languages.source_size)
    return models.make_model(**{**sizes, **arguments})
