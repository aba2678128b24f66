"""Trains a small English-to-French translator on the sentences of JupyterLab and translates a line.

    python docs/examples/translation.py 'Restart the kernel'

Needs Canon and `pip install jupyterlab-language-pack-fr-FR`; a few minutes on two CPU cores. A second run resumes from
the last checkpoint.
"""

import sys

import optax

from canon import models
from canon.data.text import parallel_text
from canon.tasks.translation import SearchSettings, Translator, translation_evaluator, translation_task
from canon.train import Experiment, fit

BUCKETS = (10, 24)  # tokens: sentences are padded to one of these lengths


def build_translator(size: int = 1500, width: int = 96):
    """Returns the training pairs, and an untrained translator with subwords of both languages."""
    pairs = parallel_text.load_pairs('catalogue', 'train')  # [('Restart', 'Redémarrer'), ...]
    languages = parallel_text.build_languages(pairs, level='subword', size=size)
    model = models.make_model(
        'seq2seq.bahdanau',
        vocab=len(languages.target),
        source_vocab=languages.source_size,
        embed=width, hidden=width, align=width, maxout=width, dropout=0.2, start='glorot',
    )  # fmt: skip
    return pairs, Translator(model, languages, SearchSettings(beams=4, extra=8))


def train(workdir: str = 'runs/example-translation', steps: int = 600, **sizes):
    """Trains a translator and returns it with its parameters and metrics."""
    pairs, translator = build_translator(**sizes)
    languages = translator.languages
    task = translation_task(translator.model, languages.first_token, label_smoothing=0.1)
    train_pairs = parallel_text.Pairs(pairs, *languages, max_length=BUCKETS[-1])
    held_out = parallel_text.Pairs(parallel_text.load_pairs('catalogue', 'valid'), *languages, max_length=BUCKETS[-1])
    experiment = Experiment(
        task,
        tx=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(4e-3, steps))),
        train=parallel_text.Buckets(train_pairs.buckets(BUCKETS), batch_size=64),
        evals={'valid': translation_evaluator(task, translator, held_out.buckets(BUCKETS))},
    )
    fitted = fit(experiment, dict(run=dict(steps=steps, checkpoint=dict(every='50%'))), workdir)
    return translator, fitted.state.params, fitted.metrics


if __name__ == '__main__':
    translator, params, metrics = train()
    print(f'chrF {metrics["valid/chrf"]:.1f}, of the untranslated sentences {metrics["valid/copy_chrf"]:.1f}')
    for translation in translator.translate(params, sys.argv[1:] or ['Restart the kernel']):
        print(translation.text)
