"""Translation of sentences: binds a config to `canon.tasks.translation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import metrics, models, named, plots
from canon.configuration import drop_placeholders
from canon.data.text import parallel_text, text_files, vocabulary
from canon.data.text.parallel_text import Buckets, Languages, build_languages, group_by_length
from canon.tasks.predictions import Prediction
from canon.tasks.translation import (
    TranslationEvaluation,
    TranslationSettings,
    Translator,
    predict_translations,
    translation_evaluator,
    translation_task,
)
from canon.train import Evaluator, Experiment, Task

_BOUND = ('sentences', 'languages', 'where', 'parts', 'seed')  # arguments that are not settings

# The functions whose arguments the sections of a config hold.
SECTIONS: dict[str, Any] = {
    'data.source': parallel_text.PARALLEL_TEXTS,
    'data.train': {'Buckets': named.combine_arguments(group_by_length, Buckets, without=_BOUND)},
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
    section = named.to_plain(config.data.train)
    sentences = _load_pairs(config, section.pop('split'))
    languages = _build_languages(config, sentences)
    model = _make_model(config, languages)
    named.call(TranslationSettings, config.get('search', {}), 'search')  # raises before hours of training
    arguments = {'model': model, 'first_token': languages.first_token, **config.loss}
    task = named.call(translation_task, arguments, 'loss')
    # Some keys of config.data.train make groups of pairs, the others batches of the groups.
    grouping = {key: section.pop(key) for key in ('buckets', 'longer') if key in section}
    bound = dict(sentences=sentences, languages=languages, where='data.train.buckets')
    parts, counts = named.call(group_by_length, {**bound, **grouping}, 'data.train')
    train = named.call(Buckets, {'parts': parts, 'seed': config.seed, **section}, 'data.train')
    evals = {name: _make_evaluator(config, name, task, model, languages) for name in sorted(config.data.evals)}
    # Recorded in run.json: a vocabulary of another text, or other pairs, are refused when the run is resumed.
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


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws pairs of sentences, as tokens: the source, and under it the target."""
    languages = _build_languages(config, None)
    rows = [
        (' '.join(languages.source.tokens(source[:n])), ' '.join(languages.target.tokens(target[:m])))
        for source, n, target, m in zip(
            batch['source'], batch['source_length'], batch['target'], batch['target_length'], strict=True
        )
    ]
    return {'sentences': plots.draw_sentence_batch(rows, 'source and target')}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Translates each line of a file, plain or .gz, or the sentence `source`, by config.search.

    Lines are read as those of training: they end at a line feed alone, and surrounding white space is dropped.
    """
    codes = [config.data.get('source', {}).get(side) for side in ('source', 'target')]  # endings of files, such as 'de'
    lines = [line.strip() for line in text_files.read_input(source, [f'.{code}' for code in codes if code])]
    languages = _build_languages(config, None)
    settings = named.call(TranslationSettings, config.get('search', {}), 'search')
    translator = Translator(_make_model(config, languages), languages, settings)
    return predict_translations(translator, params, lines, settings.batch_size, settings.alignments)


def _make_evaluator(config: ConfigDict, name: str, task: Task, model: Any, languages: Languages) -> Evaluator:
    where = f'data.evals.{name}'
    settings = named.call(TranslationEvaluation, config.data.evals[name], where)
    if not settings.trained_on:
        parallel_text.check_held_out_sentences(config.data.train.split, settings.split, where, **_source(config))
    sentences = _load_pairs(config, settings.split)
    parts, _ = group_by_length(sentences, languages, named.to_plain(config.data.train.buckets), settings.longer)
    source = config.data.get('source', {})
    language = source.get('language') if config.data.name == 'catalogue' else source.get('target')
    return translation_evaluator(
        task,
        Translator(model, languages, settings),
        parts,
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
