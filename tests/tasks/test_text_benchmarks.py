"""Several sets in one evaluation: metrics of each and of all words against scores by hand, and one table."""

import logging
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from canon import data, losses
from canon.data.pipeline.source import Info
from canon.errors import UsageError
from canon.metrics import score_texts
from canon.tasks.text.benchmarks import BenchmarkEvaluation, BenchmarkSettings, TextBenchmark, benchmark_evaluator
from canon.tasks.text.recognition import make_grey_input, recognition_task
from canon.train.evaluation import evaluate
from canon.train.shard import make_mesh
from tests.tasks.test_text_recognition import PixelLogits

ALPHABET = data.Alphabet('abc', ignore_case=True)
MESH = make_mesh(1)


class Paths:
    """Images [T, 4, 1] of which row t is the class of frame t, with texts that labels may not have in full."""

    def __init__(self, pairs, dropped=0):
        self.pairs, self.info, self.dropped = pairs, Info('paths', 'test'), Counter({'for a test': dropped})

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        path, text = self.pairs[index]
        image = np.zeros((len(path), 4, 1), np.uint8)
        image[np.arange(len(path)), ['-abc'.index(c) for c in path]] = 255
        return {'image': image, **ALPHABET.encode(ALPHABET.filter(text), 6)}

    def read_text(self, index):
        return self.pairs[index][1]


class Labels(Paths):
    """The same without whole texts."""

    read_text = None


TASK = recognition_task(PixelLogits(), make_grey_input(mean=0.0, std=1.0))
VARIABLES = {'scale': np.float32(20)}, {}
FIRST = Paths([('aab-b-', "A'bb!"), ('a-----', 'ab'), ('------', 'c'), ('cc-c--', 'cc')], dropped=2)
SECOND = Labels([('abc---', 'abc'), ('ab----', 'Abc!')])


def make(benchmarks, **options):
    options = {'make_transforms': lambda size: [], 'sizes': ((6, 4),), 'threads': 0, **options}
    return benchmark_evaluator(TASK, benchmarks, ALPHABET, 3, **options)


def test_metrics_of_each_set_and_of_all(caplog):
    benchmarks = [TextBenchmark('first', FIRST, 'words=all'), TextBenchmark('second', SECOND)]
    with caplog.at_level(logging.INFO, 'canon'):
        measured = evaluate(make(benchmarks), *VARIABLES, MESH).metrics
    # abb a '' cc for abb ab c cc: 0 + 1 + 1 + 0 edits of 8 characters; abc ab for abc abc: 1 of 6.
    expected = {
        'first/word_accuracy_36': 2 / 4,
        'first/word_accuracy': 1 / 4,  # abb is not A'bb!
        'first/character_error_rate': 2 / 8,
        'first/word_error_rate': 2 / 4,
        'first/ned_dtrb': (1 + 1 / 2 + 0 + 1) / 4,
        'first/ned_parseq': (0 + 1 / 2 + 1 + 0) / 4,
        'first/ned_reference': (0 + 1 / 2 + 1 + 0) / 4,
        'second/word_accuracy_36': 1 / 2,
        'second/word_accuracy': 1 / 2,
        'second/character_error_rate': 1 / 6,
        'all/word_accuracy_36': 3 / 6,
        'all/character_error_rate': 3 / 14,
        'all/word_error_rate': 3 / 6,
    }
    assert {name: measured[name] for name in expected} == pytest.approx(expected)
    table = [' '.join(line.replace('|', ' ').split()) for line in caplog.text.splitlines() if line.startswith('|')]
    assert table[0] == ('set variant images left out words (36) words (exact) CER WER 1 - NED (DTRB) NED (PARSeq)')
    assert table[2:] == [
        'first words=all 4 2 50.0 % 25.0 % 25.0 % 50.0 % 0.6250 0.3750',
        'second 2 0 50.0 % 50.0 % 16.7 % 50.0 % 0.8333 0.1667',
        'all 6 2 50.0 % 33.3 % 21.4 % 50.0 % 0.6944 0.3056',
    ]
    assert 'CER, WER and NED of 36 characters, case-insensitive' in caplog.text


def test_exact_comparison_and_another_decoder():
    def decode(log_probs):
        return np.full((3, 2), 1, np.int32), np.full(3, 2), None  # reads aa everywhere

    evaluator = make([TextBenchmark('first', FIRST)], compare='exact', decode=decode)
    measured = evaluate(evaluator, *VARIABLES, MESH).metrics
    # aa for A'bb! ab c cc: 5 + 1 + 2 + 2 edits of 5 + 2 + 1 + 2 characters.
    assert measured['first/character_error_rate'] == pytest.approx(10 / 10)
    assert measured['all/word_accuracy'] == 0
    exact = evaluate(make([TextBenchmark('first', FIRST)], compare='exact'), *VARIABLES, MESH).metrics
    # abb a '' cc: A'bb! is reached by 3 edits.
    assert exact['first/character_error_rate'] == pytest.approx((3 + 1 + 1 + 0) / 10)


def test_lexica(tmp_path, caplog):
    """Each word of a lexicon is scored by the loss of CTC; the most probable one is read."""

    class WithLexica(Paths):
        def read_lexicon(self, index):
            return [('B-A', 'ac', 'abc'), ('cc', 'AB'), ('!', 'c', 'Bb')][index]

    source = WithLexica([('ab----', 'ba'), ('a-cc--', 'abc'), ('ccc---', 'bb')])
    log_probs = np.log(np.random.default_rng(0).dirichlet(np.ones(4), (4, 6))).astype(np.float32)  # noise

    class Noise(PixelLogits):
        def apply(self, variables, images, train, mutable=None):
            return jnp.asarray(log_probs)[: len(images)]

    def decode(outputs):  # no word is read by its path
        return jnp.zeros((4, 1), int), jnp.zeros(4, int)

    (tmp_path / 'words.txt').write_text('CAB\nbb\na-b\n')
    words = {
        'own': [['ba', 'ac', 'abc'], ['cc', 'ab'], ['c', 'bb']],
        'full': [['ba', 'abc', 'bb']] * 3,
        str(tmp_path / 'words.txt'): [['cab', 'bb', 'ab']] * 3,
    }
    pairs = [(row, word) for lexica in words.values() for row, lexicon in enumerate(lexica) for word in lexicon]
    labels = [ALPHABET.encode(word, 3) for _, word in pairs]
    variants = ['own lexica of 2 to 3 words', 'full lexicon of 3 words', 'lexicon words.txt of 3 words']
    label, length = (np.stack([x[name] for x in labels]) for name in ('label', 'label_length'))
    losses_of_words = losses.ctc(log_probs[[row for row, _ in pairs]], np.full(len(pairs), 6), label, length)
    loss = dict(zip(pairs, np.asarray(losses_of_words), strict=True))
    task = recognition_task(Noise(), make_grey_input(mean=0.0, std=1.0))
    options = dict(make_transforms=lambda size: [], sizes=((6, 4),), decode=decode, threads=0)
    for (kind, lexica), variant in zip(words.items(), variants, strict=True):
        read = [min(lexicon, key=lambda word: loss[row, word]) for row, lexicon in enumerate(lexica)]
        evaluator = benchmark_evaluator(task, [TextBenchmark('noise', source, 'x=1', kind)], ALPHABET, 4, **options)
        sums = evaluator.measure(*VARIABLES, evaluator.data[0])
        scores = sums['noise']
        expected = score_texts(read, [text for _, text in source.pairs])
        assert {name: mean.value for name, mean in scores.items()} == {n: m.value for n, m in expected.items()}
        with caplog.at_level(logging.INFO, 'canon'):
            evaluator.finish(sums)
        assert f'| x=1, {variant} |' in caplog.text
    # All words are near enough at 6 edits, and no word is at none: the best path is read, which is not in the lexicon.
    for distance, expected in ((6, read), (0, None)):
        near = TextBenchmark('noise', source, '', str(tmp_path / 'words.txt'), distance)
        evaluator = benchmark_evaluator(task, [near], ALPHABET, 4, **options)
        scores = evaluator.measure(*VARIABLES, evaluator.data[0])['noise']
        expected = score_texts(expected or ['', '', ''], [text for _, text in source.pairs])
        assert scores['word_accuracy'].value == expected['word_accuracy'].value
    with pytest.raises(UsageError, match='first has no lexicon of its own for every image'):
        make([TextBenchmark('first', FIRST, '', 'own')])
    # A set that is read in both ways counts once.
    evaluator = benchmark_evaluator(task, [near, TextBenchmark('free', source)], ALPHABET, 4, **options)
    sums = jax.tree.map(lambda *sums: sum(sums), *(evaluator.measure(*VARIABLES, batch) for batch in evaluator.data))
    with caplog.at_level(logging.INFO, 'canon'):
        measured = evaluator.finish(sums)
    assert measured['all/character_error_rate'] == measured['free/character_error_rate']
    assert measured['all/character_error_rate'] != measured['noise/character_error_rate']
    assert '| all   | without a lexicon' in caplog.text


def test_names_of_benchmarks():
    for names in ((), ('x', 'x'), ('all',)):
        with pytest.raises(UsageError, match=r"need names that differ, other than 'all'"):
            make([TextBenchmark(name, FIRST) for name in names])


def test_settings_load_sets_and_name_their_variants(tmp_path, caplog):
    for number, text in ((1, 'x' * 40), (2, 'No!')):
        (tmp_path / 'test/IMG').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'test/label').mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 6, 3), number, np.uint8)).save(tmp_path / f'test/IMG/{number}.png')
        (tmp_path / f'test/label/{number}.txt').write_text(text)
    alphabet, folder = data.Alphabet('alphanumeric'), str(tmp_path)
    sets = dict(
        mine=dict(
            data='word_folder', source=dict(path=folder, words='alphanumeric'), lexicon='full', lexicon_distance=2
        ),
        absent=dict(data='svt', source=dict(path=None)),
        sliced=dict(data='word_folder', split='test[1:]', source=dict(path=folder, outside='filter')),
        every=dict(data='word_folder', source=dict(path=folder)),
    )
    with caplog.at_level(logging.INFO, 'canon'):
        loaded = {b.name: b for b in BenchmarkEvaluation(sets=sets).load(alphabet)}
    assert {name: (b.variant, len(b.source)) for name, b in loaded.items()} == {
        'every': ('', 2), 'mine': ('words=alphanumeric', 1), 'sliced': ('outside=filter', 1)
    }  # fmt: skip
    assert loaded['mine'].source.read_text(0) == 'x' * 40
    assert (loaded['mine'].lexicon, loaded['mine'].lexicon_distance) == ('full', 2)
    sets['mine'] = dict(data='word_folder', source=dict(path=None))
    (other,) = BenchmarkEvaluation(sets=dict(mine=sets['mine']), path=folder).load(alphabet)
    assert (other.variant, len(other.source)) == ('', 2)
    drawn = BenchmarkSettings(data='rendered_words', source=dict(words=('word',) * 5, cases=('lower',)))
    assert drawn.variant == "words=(5 entries), cases=('lower',)"
    assert (
        'benchmarks without a path are left out: absent; set data.benchmarks.path or data.benchmarks.sets.absent.'
        in caplog.text
    )
    with pytest.raises(UsageError, match=r'data\.benchmarks\.sets\.x\.titel: BenchmarkSettings takes no such key'):
        BenchmarkEvaluation(sets=dict(x=dict(data='svt', titel=1))).load(alphabet)


def test_wide_images_go_to_wide_batches():
    """A set of two widths is read in two sizes; the rows of each keep their texts."""

    class Wide(Paths):
        def image_sizes(self):
            return np.array([(4, len(path)) for path, _ in self.pairs])

        def __getitem__(self, index):
            example = super().__getitem__(index)
            return {**example, 'image': example['image'].transpose(1, 0, 2)}  # frames are columns

    source = Wide([('ab', 'ab'), ('ab-cab', 'abcab'), ('c', 'c'), ('cc-c--', 'c')])
    seen = set()

    def transforms(size):
        seen.add(size)
        return [data.transforms.fit_line(size, fill=0)]

    class Columns(PixelLogits):
        def apply(self, variables, images, train, mutable=None):
            return super().apply(variables, images.transpose(0, 2, 1, 3), train, mutable)

    task = recognition_task(Columns(), make_grey_input(mean=0.0, std=1.0))
    evaluator = benchmark_evaluator(
        task, [TextBenchmark('wide', source)], ALPHABET, 2, transforms, sizes=((4, 2), (4, 6)), threads=0
    )
    assert [evaluator.data[i]['image'].shape for i in range(len(evaluator.data))] == [(2, 4, 2, 1), (2, 4, 6, 1)]
    assert seen == {(4, 2), (4, 6)}
    measured = evaluate(evaluator, *VARIABLES, MESH).metrics
    assert measured['wide/word_accuracy_36'] == 3 / 4  # cc is not c
