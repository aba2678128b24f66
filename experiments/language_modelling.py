"""Language modelling by bytes, characters, words or subwords: binds a config to `canon.tasks.language_modelling`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from matplotlib.figure import Figure
from ml_collections import ConfigDict

from canon import models, named, plots
from canon.configuration import drop_placeholders
from canon.data.text import corpora, text_files, vocabulary
from canon.data.text.streams import Streams, StreamsOnce
from canon.tasks.language_modelling import (
    LanguageEvaluation,
    language_evaluator,
    language_task,
    make_sampler,
    ngram_baseline,
)
from canon.tasks.predictions import Prediction
from canon.train import Experiment

_SEPARATOR = '\n\n----\n\n'  # between the texts of samples.txt


# The functions whose arguments the sections of a config hold.
SECTIONS: dict[str, Any] = {
    'data.source': corpora.CORPORA,
    'data.train': {'Streams': named.combine_arguments(Streams, without=('tokens', 'start', 'seed'))},
    'data.evals.*': {'LanguageEvaluation': LanguageEvaluation},
    'vocabulary': {'build': named.combine_arguments(vocabulary.build, without=('lines',))},
    'loss': {'language_task': named.combine_arguments(language_task, without=('model',))},
    'sample': {'make_sampler': named.combine_arguments(make_sampler, without=('model',))},
}


def make(config: ConfigDict) -> Experiment:
    """Makes the experiment from config.data, config.vocabulary, config.model, config.loss and config.tx."""
    corpus = _load_corpus(config)
    words = _build_vocabulary(config, corpus)
    start = words.eos or 0
    model = _make_model(config, len(words))
    _make_sampler(config, model)  # raises for bad settings of `predict` before hours of training
    task = named.call(language_task, {'model': model, **config.loss}, 'loss')
    tokens = words.stream(corpus.lines('train'))
    arguments = dict(tokens=tokens, start=start, seed=config.seed, **named.to_plain(config.data.train))
    train = named.call(Streams, arguments, 'data.train')
    evals = {}
    for name in sorted(config.data.evals):
        settings = named.call(LanguageEvaluation, config.data.evals[name], f'data.evals.{name}')
        if not settings.trained_on:
            corpus.check_held_out(settings.split, f'data.evals.{name}')
        # Read once for both: the tokens, and the characters by which bits per character are counted.
        lines = list(corpus.lines(settings.split))
        held_out, characters = words.stream(lines), sum(len(line) + 1 for line in lines)
        baseline = ngram_baseline(tokens, held_out, len(words), settings.ngram) if settings.ngram else None
        batches = StreamsOnce(held_out, settings.batch_size, settings.length, start)
        evals[name] = language_evaluator(task, model, batches, words, characters, baseline)
    about = dict(vocabulary=list(words.about), corpus=corpus.about())
    return Experiment(task, config.tx, train, evals, about=about)


def offline(config: ConfigDict) -> ConfigDict:
    """Returns the config on the embedded text, to build it or to time it without a download."""
    if config.data.name != 'pydoc':
        with config.unlocked():
            config.data.name, config.data.source = 'pydoc', {}
            if config.vocabulary.get('size'):
                config.vocabulary.size = None
    return config


def draw_batch(config: ConfigDict, experiment: Experiment, batch: Mapping[str, Any]) -> dict[str, Figure]:
    """Draws streams of tokens: what is read, and under it what is learnt to follow."""
    words = _build_vocabulary(config, _load_corpus(config))
    pairs = zip(batch['input'], batch['target'], batch['mask'], strict=True)
    rows = [(' '.join(words.tokens(inputs)), ' '.join(words.tokens(targets[mask]))) for inputs, targets, mask in pairs]
    return {'streams': plots.draw_sentence_batch(rows, 'input, and the target after each token')}


def predict(config: ConfigDict, experiment: Experiment, params, mutable, source: str) -> Iterator[Prediction]:
    """Continues each line of a file of prompts, plain or .gz, or the prompt `source` itself, by config.sample.

    Each text is a row; `samples.txt` holds them all.
    """
    words = _build_vocabulary(config, _load_corpus(config))
    # An empty prompt continues from the beginning of a text.
    prompts = [line for line in text_files.read_input(source) if line] or ['']
    sample = _make_sampler(config, _make_model(config, len(words)))
    texts = []
    for prompt in prompts:
        for text in sample(params, words, prompt):
            texts.append(text)
            yield Prediction({'prompt': prompt, 'text': text}, text=f'{text}\n\n----\n')
    yield Prediction(files={'samples.txt': _SEPARATOR.join(texts) + '\n'})


def _make_sampler(config: ConfigDict, model: Any) -> Callable[..., list[str]]:
    return named.call(make_sampler, {'model': model, **named.to_plain(config.get('sample', {}))}, 'sample')


def _make_model(config: ConfigDict, vocabulary_size: int) -> Any:
    arguments = named.to_plain(config.model)
    return models.make_model(arguments.pop('name'), vocab=vocabulary_size, **arguments)


def _build_vocabulary(config: ConfigDict, corpus: corpora.Corpus) -> vocabulary.Vocabulary:
    arguments = {'lines': corpus.lines('train'), **named.to_plain(config.vocabulary)}
    return named.call(vocabulary.build, arguments, 'vocabulary')


def _load_corpus(config: ConfigDict) -> corpora.Corpus:
    data = named.to_plain(config.data)
    named.check(data['name'], str, 'data.name')
    return corpora.corpus(data['name'], data.get('data_dir'), **drop_placeholders(data.get('source', {})))
