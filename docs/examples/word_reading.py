"""Trains CRNN on words that draw themselves, tests it with and without a lexicon, and reads images of a folder.

    python docs/examples/word_reading.py [FOLDER]

Needs Canon alone; a few minutes on two CPU cores. A second run resumes from the last checkpoint.
"""

import sys
from functools import partial

from canon.data import Alphabet, Batches, Once, image_files, load_source, transforms
from canon.models.crnn import crnn
from canon.tasks import text
from canon.train import Experiment, fit

ALPHABET = Alphabet('alphanumeric', ignore_case=True)
SIZE = 32, 100  # height and width of all images


def build_task(features=(32, 64, 128, 128, 256, 256, 256), hidden: int = 128):
    """Returns the task of a CRNN half as wide as the paper's, with BatchNorm as in the authors' code."""
    model = crnn(num_classes=len(ALPHABET), features=features, hidden=hidden, batch_norm=(3, 5, 7))
    return text.recognition_task(model, text.make_grey_input())


def load_words(split: str):
    """Returns words of CPython's documentation, drawn in the fonts of matplotlib."""
    return load_source('rendered_words', split, alphabet=ALPHABET, width=SIZE[1], grey=True)


def train(task, workdir: str = 'runs/example-words', steps: int = 2000, tested: int = 512):
    """Trains the task; the table of the last step compares free reading with that of a lexicon."""
    words = load_words(f'test[:{tested}]')
    sets = [
        text.TextBenchmark('free', words),
        text.TextBenchmark('near', words, lexicon='full', lexicon_distance=3),
        text.TextBenchmark('whole', words, lexicon='full'),
    ]
    experiment = Experiment(
        task,
        tx=dict(name='adam', learning_rate=dict(name='cosine', init=2e-3, final=0.0, steps='100%')),
        train=Batches(load_words('train'), 64),
        evals={'words': text.benchmark_evaluator(task, sets, ALPHABET, 64, make_transforms=lambda size: [])},
    )
    return fit(experiment, dict(run=dict(steps=steps, checkpoint=dict(every='50%'))), workdir)


def read(task, state, folder: str):
    """Yields (file, text, its probability) of the images of a folder."""
    files = image_files.Files(folder)
    batches = Once(files, 8, [transforms.resize(SIZE)]).iterate()
    decode = partial(text.decode_labels, beam_width=10)
    readings = text.read_batches(task, state.params, state.mutable, batches, ALPHABET, decode)
    rows = (row for batch in readings for row in batch)
    for path, (_, _, reading, probability) in zip(files.paths, rows, strict=True):
        yield path, reading, probability


if __name__ == '__main__':
    task = build_task()
    fitted = train(task)
    for path, reading, probability in read(task, fitted.state, sys.argv[1]) if len(sys.argv) > 1 else ():
        print(f'{path}: {reading} ({probability:.2f})')
