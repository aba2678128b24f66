"""Parallel text: files, catalogues of gettext made here, splits that share nothing, batches by length."""

import gettext
import gzip
import logging
import struct
from importlib import metadata

import numpy as np
import pytest
import tensorflow_datasets as tfds

from canon.data import Buckets, BucketsOnce, Pairs
from canon.data.text import catalogues, parallel_text, vocabulary
from canon.data.text.vocabulary import PAIR_SPECIALS
from canon.errors import CanonError, UsageError

# --- files -----------------------------------------------------------------------------------------------------------


def write(folder, name, lines):
    data = ''.join(f'{line}\n' for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith('.gz') else data)


def test_two_files_line_by_line(tmp_path, caplog):
    write(tmp_path, 'train.de', ['eins', '', 'drei\u2028 ', 'vier'])
    write(tmp_path, 'train.en.gz', ['one', 'two', 'three', ''])
    with caplog.at_level(logging.WARNING, 'canon'):
        pairs_read = parallel_text.load_pairs('files', path=str(tmp_path), source='de', target='en')
    assert pairs_read == [('eins', 'one'), ('drei', 'three')]
    assert '2 of 4 pairs have an empty side' in caplog.text
    assert (
        parallel_text.load_pairs('files', 'train[:1]', path=str(tmp_path), source='de', target='en') == pairs_read[:1]
    )


def test_files_of_different_length(tmp_path):
    write(tmp_path, 'train.de', 'abc')
    write(tmp_path, 'train.en', 'abcde')
    with pytest.raises(CanonError, match=r'train\.de has 3 lines and .*train\.en 5'):
        parallel_text.load_pairs('files', path=str(tmp_path), source='de', target='en')
    with pytest.raises(UsageError, match=r'has no test\.de'):
        parallel_text.load_pairs('files', 'test', path=str(tmp_path), source='de', target='en')
    with pytest.raises(UsageError, match="needs 'target'"):
        parallel_text.load_pairs('files', path=str(tmp_path), source='de')
    write(tmp_path, 'valid.de', [])
    write(tmp_path, 'valid.en', 'a')
    with pytest.raises(UsageError, match=r'valid\.de is empty'):
        parallel_text.load_pairs('files', 'valid', path=str(tmp_path), source='de', target='en')


class CanonTranslate(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features.Translation(languages=('de', 'en'))
        return tfds.core.DatasetInfo(builder=self, description='pairs', features=features)

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples()}

    def _generate_examples(self):
        yield 0, {'de': 'schön', 'en': 'beautiful'}


def test_translations_of_tfds(tmp_path):
    CanonTranslate(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    pairs_read = parallel_text.load_pairs('canon_translate', data_dir=tmp_path, source='en', target='de')
    assert pairs_read == [('beautiful', 'schön')]
    with pytest.raises(UsageError, match="no field 'fr'"):
        parallel_text.load_pairs('canon_translate', data_dir=tmp_path, source='en', target='fr')


# --- catalogues ------------------------------------------------------------------------------------------------------

HEADER = 'Content-Type: text/plain; charset={}\nPlural-Forms: nplurals=2; plural=(n > 1);\n'


def msgfmt(messages, charset='utf-8', order='<'):
    """A .mo as msgfmt writes it: header, table of originals, table of translations, strings with a NUL after each."""
    messages = {'': HEADER.format(charset), **messages}
    rows = [(k.encode(charset), v.encode(charset)) for k, v in sorted(messages.items())]
    place, tables, strings = 28 + 16 * len(rows), [[], []], b''
    for column in (0, 1):
        for row in rows:
            tables[column] += [len(row[column]), place + len(strings)]
            strings += row[column] + b'\0'
    head = struct.pack(f'{order}7I', 0x950412DE, 0, len(rows), 28, 28 + 8 * len(rows), 0, 0)
    return head + b''.join(struct.pack(f'{order}{len(t)}I', *t) for t in tables) + strings


MESSAGES = {
    'Open the _file': 'Ouvrir le _fichier',
    'menu\4Close': 'Fermer',
    'window\4Close': 'Clore',
    '%(count)d file\0%(count)d files': '%(count)d fichier\0%(count)d fichiers',
    'Hello %(first_name)s': 'Bonjour %(first_name)s',
    'Wrong %s': 'Faux',
    'Empty': '',
    'Two\n  lines': 'Deux\nlignes',
}


@pytest.mark.parametrize(('charset', 'order'), [('utf-8', '<'), ('latin-1', '<'), ('utf-8', '>')])
def test_a_catalogue_by_hand(tmp_path, caplog, charset, order):
    file = tmp_path / 'x.mo'
    file.write_bytes(msgfmt({**MESSAGES, 'Name': 'Prénom'}, charset, order))
    with caplog.at_level(logging.WARNING, 'canon'):
        pairs_read = catalogues.read_pairs([file], '_', 'ours')
    assert dict(pairs_read) == {
        'Open the file': 'Ouvrir le fichier',
        'Close': 'Fermer',
        '%(count)d file': '%(count)d fichier',
        '%(count)d files': '%(count)d fichiers',
        'Hello %(first_name)s': 'Bonjour %(first_name)s',
        'Two lines': 'Deux lignes',
        'Name': 'Prénom',
    }
    told = '1 that occurred before, 1 whose placeholders differ, 1 without translation'
    assert f'ours: 7 pairs, 2 of plural forms; left out: {told}' in caplog.text
    with file.open('rb') as opened:  # the standard library agrees
        theirs = gettext.GNUTranslations(opened)
    assert theirs.ngettext('%(count)d file', '%(count)d files', 2) == '%(count)d fichiers'


def test_catalogues_that_are_none(tmp_path):
    for name, data in (
        ('text', b'msgid "a"'),
        ('cut', msgfmt(MESSAGES)[:60]),
        ('strange', msgfmt(MESSAGES).replace(b'charset=utf-8', b'charset=utf-0')),
        ('divides', msgfmt(MESSAGES).replace(b'(n > 1)', b'(n / 0)')),
        ('tiny', b'\xde\x12'),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CanonError, match=f'{name} is not a gettext catalogue'):
            list(catalogues.read_messages(tmp_path / name))
    with pytest.raises(UsageError, match='there is no file'):
        list(catalogues.read_messages(tmp_path / 'none'))
    (tmp_path / 'head').write_bytes(msgfmt({}))
    with pytest.raises(UsageError, match='ours hold no translated messages'):
        catalogues.read_pairs([tmp_path / 'head'], name='ours')


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with French catalogues of 300 sentences, twins among them."""
    folder = tmp_path / 'speaks' / 'locale' / 'fr' / 'LC_MESSAGES'
    folder.mkdir(parents=True)
    numbers = {f'Sentence {i}{sign}': f'Phrase {i}{sign}' for i in range(150) for sign in ('', ' ...')}
    (folder / 'speaks.mo').write_bytes(msgfmt(numbers))
    info = tmp_path / 'speaks-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: speaks\nVersion: 1.0\n')
    (info / 'RECORD').write_text('speaks/locale/fr/LC_MESSAGES/speaks.mo,,\nspeaks/__init__.py,,\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    parallel_text._catalogue.cache_clear()
    yield 'speaks'
    parallel_text._catalogue.cache_clear()


def test_splits_of_a_catalogue_share_no_sentence(package):
    def key(pair):
        return pair[0].removesuffix(' ...')

    parts = {
        s: parallel_text.load_pairs('catalogue', s, package=package, language='fr') for s in ('train', 'valid', 'test')
    }
    assert sum(map(len, parts.values())) == 300
    keys = {split: {key(pair) for pair in pairs} for split, pairs in parts.items()}
    assert sum(map(len, keys.values())) == 150  # no twin in another split
    assert 0.75 < len(parts['train']) / 300 < 0.95
    assert parallel_text.assign_split('Edit') == parallel_text.assign_split('_edit...')
    assert parallel_text.assign_split('...') in parts


def test_packages_without_that_catalogue(package):
    with pytest.raises(UsageError, match="no catalogue in 'de'; there are fr"):
        parallel_text.load_pairs('catalogue', package=package, language='de')
    with pytest.raises(UsageError, match=r'speaks has no speak\.mo; did you mean .speaks.'):
        parallel_text.load_pairs('catalogue', package=package, language='fr', domain='speak')
    with pytest.raises(UsageError, match='pip install nowhere-to-be-found'):
        parallel_text.load_pairs('catalogue', package='nowhere-to-be-found', language='fr')
    with pytest.raises(UsageError, match="no split 'tests'; did you mean 'test'"):
        parallel_text.load_pairs('catalogue', 'tests', package=package, language='fr')


def test_the_embedded_catalogue():
    parts = [parallel_text.load_pairs('catalogue', split) for split in ('train', 'valid', 'test')]
    if metadata.version('jupyterlab-language-pack-fr-FR') == '4.5.post3':
        assert [len(part) for part in parts] == [2744, 173, 319]  # as the docstring says
    sources = [source for part in parts for source, _ in part]
    assert len(set(sources)) == len(sources) > 2000


# --- numbers and batches ---------------------------------------------------------------------------------------------

SENTENCES = [(' '.join('a' * (1 + i % 7)), ' '.join('b' * (1 + i % 5))) for i in range(23)]
SOURCE, TARGET = (vocabulary.build([c], 'word', specials=PAIR_SPECIALS) for c in 'ab')


def test_pairs_by_hand():
    example = Pairs([('a a', 'b')], SOURCE, TARGET, max_length=4)[0]
    assert example['source'].tolist() == [4, 4, 3, 0]
    assert example['source_length'] == 3
    assert example['target'].tolist() == [4, 3, 0, 0]
    assert example['target_length'] == 2


def test_long_sentences_are_counted(caplog):
    sentences = [('a a a', 'b'), ('a', 'b b b b'), ('a', 'b')]
    with caplog.at_level(logging.WARNING, 'canon'):
        kept = Pairs(sentences, SOURCE, TARGET, max_length=3)
    assert kept.skipped == 2
    assert kept.sentences == [('a', 'b')]
    assert '2 of 3 pairs are longer than max_length=3 and left out' in caplog.text
    cut = Pairs(sentences, SOURCE, TARGET, max_length=3, longer='cut')
    assert (cut.cut, len(cut)) == (2, 3)
    assert cut[0]['source'].tolist() == [4, 4, 3]
    with pytest.raises(CanonError, match=r"pair 1, 'a a a', has 4 and 2 tokens, more than max_length=3"):
        Pairs(sentences, SOURCE, TARGET, max_length=3, longer='refuse')
    with pytest.raises(UsageError, match='none of 1 sentence pairs'):
        Pairs(sentences[:1], SOURCE, TARGET, max_length=2)
    with pytest.raises(UsageError, match="longer='drop'"):
        Pairs(sentences, SOURCE, TARGET, longer='drop')
    with pytest.raises(UsageError, match='<eos>'):
        Pairs(sentences, SOURCE, vocabulary.build(['b'], 'word', specials=('<unk>',)))


def test_buckets_hold_all_pairs_in_few_shapes():
    pairs = Pairs(SENTENCES, SOURCE, TARGET, max_length=9)
    parts = pairs.buckets([3, 6, 9])
    assert sum(map(len, parts)) == 23
    assert [part.shape for part in parts] == [(3, 3), (6, 6), (9, 9)]
    assert all(part.lengths().max(1).min() > 3 for part in parts[1:])
    with pytest.raises(UsageError, match=r'buckets=\(3, 6\) must rise to the longest pair, 8 tokens'):
        pairs.buckets([3, 6])
    once = BucketsOnce(parts, 4)
    seen = [(b['source_length'][i], b['target_length'][i]) for b in once.iterate() for i in np.flatnonzero(b['mask'])]
    assert sorted(seen) == sorted(map(tuple, pairs.lengths().tolist()))
    with pytest.raises(IndexError):
        once[len(once)]


def test_batches_of_buckets_are_a_function_of_the_step():
    numbered = vocabulary.build([f'w{i}' for i in range(23)], 'word', specials=PAIR_SPECIALS)
    pairs = Pairs([(f'w{i}' + ' w0' * (i % 7), 'b') for i in range(23)], numbered, TARGET, max_length=9)
    parts = pairs.buckets([4, 9])
    data, same_data = Buckets(parts, 4, seed=5), Buckets(parts, 4, seed=5)
    steps = data.steps_per_epoch
    assert steps == sum(-(-len(part) // 4) for part in parts)
    iterator = data.iterate(2)
    for step in range(2, 2 * steps):
        ours, theirs = next(iterator), same_data[step]
        assert all(np.array_equal(ours[k], theirs[k]) for k in theirs)
        assert ours['mask'].all()
    for epochs in (1, 4):  # rows of each bucket follow permutations: no pair falls behind its bucket
        drawn_sources = np.concatenate([data[i]['source'][:, 0] for i in range(epochs * steps)])
        for part in parts:
            own = [part[i]['source'][0] for i in range(len(part))]
            counts = [int((drawn_sources == number).sum()) for number in own]
            assert epochs <= min(counts)
            assert max(counts) - min(counts) <= 1
    halves = [data.for_process(i, 2)[3] for i in (0, 1)]
    assert np.array_equal(np.concatenate([half['source'] for half in halves]), data[3]['source'])
    assert [data[i]['source'].shape for i in range(steps)] != [
        Buckets(parts, 4, seed=6)[i]['source'].shape for i in range(steps)
    ]
