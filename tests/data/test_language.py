"""Text for language models: numbers and back, corpora, and streams in which every token is a target once."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from canon.data import Streams, StreamsOnce
from canon.data.text import corpora, text_files, vocabulary
from canon.errors import CanonError, UsageError

TEXT = ['the cat sat on the mat', '', 'a naïve 日本 dog : the cat ☃', 'so sat the dog on a mat']

# --- vocabularies ----------------------------------------------------------------------------------------------------


def test_words_by_hand():
    """the 4, then cat, sat, ... by count and spelling; AWD-LSTM's <eos> ends the empty line, too."""
    words = vocabulary.build(['b a b', '', 'c b'], 'word')
    assert [words.tokens([i])[0] for i in range(len(words))] == ['<unk>', '<eos>', 'b', 'a', 'c']
    assert words.stream(['b a', '', 'd']).tolist() == [2, 3, 1, 1, 0, 1]
    assert words.decode([2, 3, 1, 1, 0, 1]) == 'b a\n\n<unk>\n'
    assert words.encode('<unk> b <eos>').tolist() == [0, 2, 1]  # PTB has them spelt out


@pytest.mark.parametrize('level', ['byte', 'character', 'word', 'subword'])
def test_round_trips(level):
    built = vocabulary.build(TEXT * 9, level, **({'size': 48, 'model_type': 'bpe'} if level == 'subword' else {}))
    restored = vocabulary.from_bytes(built.to_bytes())
    assert restored == built
    assert restored.fingerprint == built.fingerprint
    assert built.decode(built.stream(TEXT)) == '\n'.join([*TEXT, ''])
    assert [built.decode(built.encode(line)) for line in TEXT] == TEXT
    assert restored.stream(TEXT).tolist() == built.stream(TEXT).tolist()
    assert built.stream(TEXT).max() < len(built)


def test_subwords_keep_spaces_and_are_the_same_twice():
    first, second = (vocabulary.build(TEXT * 20, 'subword', 45, model_type='bpe') for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    assert first.decode(first.encode('the  cat   sat')) == 'the  cat   sat'
    assert len(first) == 45


def test_specials_of_pairs():
    for built in (
        vocabulary.build(TEXT, 'word', specials=vocabulary.PAIR_SPECIALS),
        vocabulary.build(TEXT * 9, 'subword', 48, model_type='bpe', specials=vocabulary.PAIR_SPECIALS),
    ):
        assert (built.pad, built.unk, built.bos, built.eos) == (0, 1, 2, 3)
        ids = [built.bos, *built.encode('the cat'), built.pad, built.pad]
        assert built.decode(ids) == 'the cat'


def test_bytes_and_characters_by_hand():
    built = vocabulary.build([], 'byte')
    assert built.encode('é').tolist() == [2 + 0xC3, 2 + 0xA9]
    assert len(built) == 258
    assert built.decode([2 + 0xC3]) == '�'
    characters = vocabulary.build(['aab', 'a'], 'character')  # a 3, the line feed 2, b 1
    assert characters.stream(['ab']).tolist() == [2, 4, 3]
    assert characters.encode('x').tolist() == [0]


def test_punctuation():
    words = vocabulary.build(["don't: stop."], 'word', split='punctuation')
    assert words.tokens(words.encode('stop: t.')) == ['stop', ':', 't', '.']


def test_sizes_that_the_text_cannot_fill():
    with pytest.raises(
        UsageError, match='size=9 is larger than the text allows: 3 different words and 2 specials make 5'
    ):
        vocabulary.build(['b a b', 'c b'], 'word', size=9)
    with pytest.raises(UsageError, match='1 different words that occur 2 times'):
        vocabulary.build(['b a b', 'c b'], 'word', size=4, min_count=2)
    for kind in ('unigram', 'bpe'):
        with pytest.raises(UsageError, match=r'size=5000 is larger than the text allows; set it to at most \d+'):
            vocabulary.build(TEXT * 9, 'subword', 5000, model_type=kind)
    with pytest.raises(UsageError, match=r'size=5 is smaller than the \d+ characters'):
        vocabulary.build(TEXT * 9, 'subword', 5)
    with pytest.raises(UsageError, match='leaves no room'):
        vocabulary.build(['b'], 'word', size=2)
    assert vocabulary.build(['b a b', 'c b'], 'word', size=4).encode('b a c').tolist() == [2, 3, 0]


def test_what_vocabularies_refuse(tmp_path):
    for text, wanted in (([], 'the text is empty'), (['<unk>'], 'the text is empty')):
        with pytest.raises(UsageError, match=wanted):
            vocabulary.build(text, 'word')
    with pytest.raises(UsageError, match='subwords needs a text'):
        vocabulary.build(['', ' '], 'subword', 9)
    with pytest.raises(UsageError, match='subwords need a size'):
        vocabulary.build(TEXT, 'subword')
    with pytest.raises(UsageError, match="level='letter' is none"):
        vocabulary.build(TEXT, 'letter')
    with pytest.raises(UsageError, match='<sos>'):
        vocabulary.build(TEXT, 'word', specials=('<sos>', '<unk>'))
    with pytest.raises(CanonError, match="'z' is not in the vocabulary of 2 words, which has no '<unk>'"):
        vocabulary.build(['a'], 'word', specials=('<eos>',)).encode('z')
    with pytest.raises(UsageError, match=r"split='space'.*did you mean 'spaces'"):
        vocabulary.build(TEXT, 'word', split='space')
    with pytest.raises(CanonError, match='are not a sentencepiece model'):
        vocabulary.SubwordVocabulary(b'nothing')
    (tmp_path / 'broken').write_bytes(b'{"level": "word"}')
    with pytest.raises(CanonError, match=r'broken is not a vocabulary of Canon'):
        vocabulary.read_vocabulary(tmp_path / 'broken')
    with pytest.raises(UsageError, match='there is no vocabulary'):
        vocabulary.read_vocabulary(tmp_path / 'none')


def test_another_vocabulary_is_refused(tmp_path):
    first, other = vocabulary.build(['a b'], 'word'), vocabulary.build(['a c'], 'word')
    first.save(tmp_path / 'vocabulary.json')
    assert vocabulary.read_vocabulary(tmp_path / 'vocabulary.json') == first
    vocabulary.check_unchanged(list(first.about), first, 'runs/x')  # as JSON gives it back
    with pytest.raises(
        CanonError, match=r'^runs/x was trained with another vocabulary .*: 4 words \(.*\) and 4 words \('
    ):
        vocabulary.check_unchanged(list(first.about), other, 'runs/x')


# --- corpora ---------------------------------------------------------------------------------------------------------


def test_lines_end_at_line_feeds_only(tmp_path):
    data = b'\xef\xbb\xbfone\x0c\xe2\x80\xa8still one\r\n\ntwo'
    (tmp_path / 'a.txt').write_bytes(data)
    (tmp_path / 'b.txt.gz').write_bytes(gzip.compress(data))
    wanted = ['one\x0c\u2028still one', '', 'two']
    for name in ('a.txt', 'b.txt.gz'):
        assert list(text_files.read_lines(tmp_path / name)) == wanted


def test_files_that_are_no_text(tmp_path):
    (tmp_path / 'empty.txt').touch()
    (tmp_path / 'latin.txt').write_bytes('gut\nschön\n'.encode('latin-1'))
    (tmp_path / 'cut.txt.gz').write_bytes(gzip.compress(b'a line\n' * 99)[:-12])
    for name, message in (
        ('empty.txt', r'empty\.txt is empty'),
        ('latin.txt', r'latin\.txt, line 2 is not UTF-8 text \(invalid'),
        ('cut.txt.gz', r'cut\.txt\.gz cannot be read'),
        ('none.txt', 'there is no file'),
    ):
        with pytest.raises(CanonError, match=message):
            list(text_files.read_lines(tmp_path / name))


@pytest.mark.parametrize(('name', 'form'), [('ptb', 'ptb.{}.txt'), ('wikitext', 'wiki.{}.tokens'), ('text', '{}.txt')])
def test_folders_of_three_files(tmp_path, name, form):
    with pytest.raises(UsageError, match=f'has no {form.format("train")}'):
        corpora.corpus(name, path=str(tmp_path))
    for split in corpora.SPLITS:
        (tmp_path / form.format(split)).write_text(f'{split} one\n\n{split} <unk> N\n')
    read = corpora.corpus(name, path=str(tmp_path))
    assert list(read.lines('valid')) == ['valid one', '', 'valid <unk> N']
    assert read.about()['test'] == {'lines': 3, 'words': 5, 'characters': 23}
    with pytest.raises(UsageError, match="no split 'vali'; did you mean 'valid'"):
        list(read.lines('vali'))


def test_one_file_is_cut_by_lines(tmp_path):
    (tmp_path / 'book.txt').write_text(''.join(f'{i}\n' for i in range(20)))
    book = corpora.corpus('text', path=str(tmp_path / 'book.txt'), held_out=0.1)
    parts = [list(book.lines(split)) for split in corpora.SPLITS]
    assert [len(part) for part in parts] == [16, 2, 2]
    assert sum(parts, []) == [str(i) for i in range(20)]  # noqa: RUF017
    with pytest.raises(UsageError, match=r'held_out=0\.01 of the 20 lines'):
        list(corpora.corpus('text', path=str(tmp_path / 'book.txt'), held_out=0.01).lines('train'))
    with pytest.raises(UsageError, match=r'between 0 and 0\.5'):
        corpora.corpus('text', path=str(tmp_path / 'book.txt'), held_out=0.5)
    with pytest.raises(UsageError, match='name files of a folder'):
        corpora.corpus('text', path=str(tmp_path / 'book.txt'), train='a')


def test_the_embedded_corpus():
    pydoc = corpora.corpus('pydoc')
    about = pydoc.about()
    assert about == corpora.corpus('pydoc').about()
    assert about['train']['characters'] > 200_000
    assert min(about[split]['characters'] for split in ('valid', 'test')) > 15_000
    if sys.version_info[:3] == (3, 11, 7):
        assert [about[s]['characters'] for s in corpora.SPLITS] == [308_400, 34_339, 35_494]  # as the docstring says
    paragraphs = [set(_paragraphs(pydoc.lines(split))) for split in corpora.SPLITS]
    for i in range(3):
        assert not paragraphs[i] & paragraphs[(i + 1) % 3]
    code = 'from canon.data import corpora; print(corpora.corpus("pydoc").about()["sha256"])'
    other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == about['sha256']  # no hash seed is in it


def _paragraphs(lines):
    return (p.strip() for p in '\n'.join(lines).split('\n\n') if len(p) > 60)


class CanonVerses(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = tfds.features.FeaturesDict({'text': tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, description='verses', features=features)

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ('train', 'validation', 'test')}

    def _generate_examples(self, name):
        yield 0, {'text': f'{name} ö\nsecond'}


def test_texts_of_tfds(tmp_path):
    CanonVerses(data_dir=tmp_path, file_format='array_record').download_and_prepare()
    verses = corpora.corpus('canon_verses', data_dir=tmp_path)
    assert list(verses.lines('valid')) == ['validation ö', 'second']
    with pytest.raises(UsageError, match="no field 'txt'; did you mean 'text'"):
        list(corpora.corpus('canon_verses', data_dir=tmp_path, field='txt').lines('train'))


# --- streams ---------------------------------------------------------------------------------------------------------


def test_streams_by_hand():
    """0..9 in two streams of five, cut in windows of three; 99 stands before the text."""
    streams = Streams(np.arange(10), batch_size=2, length=3, start=99)
    assert streams.steps_per_epoch == 2
    assert streams.num_examples == 4
    one, two, three = streams[0], streams[1], streams[2]
    assert one['target'].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert one['input'].tolist() == [[99, 0, 1], [4, 5, 6]]
    assert one['first'].tolist() == [True, True]
    assert two['target'].tolist() == [[3, 4, 0], [8, 9, 0]]
    assert two['input'].tolist() == [[2, 3, 0], [7, 8, 0]]
    assert two['mask'].tolist() == [[True, True, False]] * 2
    assert two['first'].tolist() == [False, False]
    assert all(np.array_equal(one[k], three[k]) for k in one)


@pytest.mark.parametrize('n', [7, 12, 13, 29])
@pytest.mark.parametrize('batch_size', [1, 3, 4])
@pytest.mark.parametrize('length', [1, 4, 50])
def test_every_token_is_a_target_once(n, batch_size, length):
    tokens = np.arange(n) + 100
    for data in (StreamsOnce(tokens, batch_size, length, 7), Streams(tokens, batch_size, length, 7)):
        steps = len(data) if isinstance(data, StreamsOnce) else data.steps_per_epoch
        batches = [data[i] for i in range(steps)]
        shown = np.concatenate([b['target'][b['mask']] for b in batches])
        before = np.concatenate([b['input'][b['mask']] for b in batches])
        assert sorted(shown) == list(tokens)
        assert (before == np.where(shown == 100, 7, shown - 1)).all()
        assert [b['first'].all() for b in batches] == [True] + [False] * (steps - 1)


def test_drawn_lengths():
    n, B, T = 20_000, 4, 70
    streams = Streams(np.arange(n), B, T, deviation=5, seed=3)
    counts, begins, targets = [], [], []
    for step in range(2000):
        batch = streams[step]
        assert batch['target'].shape == (B, T + 20)
        begins.append(batch['first'].all())
        counts.append(int(batch['mask'][0].sum()))
        if sum(begins) == 1:
            targets.append(batch['target'][batch['mask']])
    assert sorted(np.concatenate(targets)) == list(range(n))  # the first epoch is whole
    inner = np.array([c for c, following in zip(counts, begins[1:], strict=False) if not following])
    long = inner[inner > 52]
    assert abs((inner <= 52).mean() - 0.05) < 0.02
    assert abs(long.mean() - 69.5) < 0.6  # int() of a normal: half less
    assert abs(long.std() - 5) < 0.4
    assert abs(2000 / sum(begins) - streams.steps_per_epoch) < 2
    fresh = Streams(np.arange(n), B, T, deviation=5, seed=3)
    assert all(np.array_equal(fresh[1234][k], streams[1234][k]) for k in batch)  # random access
    other = Streams(np.arange(n), B, T, deviation=5, seed=4)
    assert any(not np.array_equal(other[i]['mask'], streams[i]['mask']) for i in range(5))


def test_iterating_from_the_middle_and_rows_of_processes():
    streams = Streams(np.arange(101), 4, 5)
    iterator = streams.iterate(3)
    for step in range(3, 12):
        batch = next(iterator)
        halves = [streams.for_process(i, 2)[step] for i in (0, 1)]
        for k in batch:
            assert np.array_equal(batch[k], streams[step][k])
            assert np.array_equal(batch[k], np.concatenate([half[k] for half in halves]))
    once = StreamsOnce(np.arange(101), 4, 5)
    halves = [once.for_process(i, 2)[1] for i in (0, 1)]
    assert all(np.array_equal(once[1][k], np.concatenate([half[k] for half in halves])) for k in once[1])
    assert len(list(once.iterate(2))) == len(once) - 2


def test_what_streams_refuse():
    for change, message in (
        (dict(tokens=np.arange(3)), '3 tokens do not fill 4 streams'),
        (dict(tokens=np.zeros((3, 3))), r'integers \[n\]'),
        (dict(length=0), 'length=0'),
        (dict(deviation=-1.0), 'deviation=-1'),
    ):
        with pytest.raises(UsageError, match=message):
            Streams(**{**dict(tokens=np.arange(40), batch_size=4, length=5), **change})
    with pytest.raises(UsageError, match='batch_size=3'):
        Streams(np.arange(40), 3, 5).for_process(0, 2)
    with pytest.raises(IndexError):
        StreamsOnce(np.arange(40), 4, 5)[2]


@pytest.mark.parametrize('level', ['character', 'word', 'subword', 'byte'])
def test_a_text_goes_on_from_its_prompt(level):
    """The space between two words is there once, whatever tokens know of it."""
    words = vocabulary.build(['the cat sat on the mat', 'a cat'], level, size=14 if level == 'subword' else None)
    for prompt, rest in (('the', ' cat sat'), ('the cat', ' sat on'), ('the c', 'at'), ('', 'a cat')):
        if level == 'word' and rest == 'at':
            continue
        ids = words.encode(prompt + rest)
        before = len(words.encode(prompt))
        if list(ids[:before]) == list(words.encode(prompt)):  # subwords may be cut elsewhere
            assert words.extend_text(prompt, ids[before:]) == prompt + rest
    if level == 'word':
        assert words.extend_text('the ', words.encode('cat sat')) == 'the cat sat'
        assert words.extend_text('zebra', words.encode('cat')) == 'zebra cat'  # an unknown word stays as it was given
        assert words.extend_text('the', [words.eos, *words.encode('cat')]) == 'the\ncat'


def test_what_no_path_can_be_is_one_line(tmp_path):
    for path in ('', 'a' * 5000, 'x\0y', '~nobody-of-that-name/x', str(tmp_path / 'none')):
        for read in (
            lambda p: corpora.corpus('text', path=p).about(),
            vocabulary.read_vocabulary,
            lambda p: list(text_files.read_lines(p)),
        ):
            with pytest.raises(UsageError) as caught:
                read(path)
            assert len(str(caught.value)) < 300
            assert '\n' not in str(caught.value)


def test_words_keep_their_combining_marks():
    """Python's \\w is false for marks: vowel signs of Hindi, decomposed accents, and joiners inside of words."""
    for text in ('नमस्ते दुनिया !', 'می\u200cخواهم', 'cafe\u0301 !', "don ' t x_1 , 3"):
        assert vocabulary.build([text], 'word', split='punctuation').encode(text).size == len(text.split())
        assert set(vocabulary.build([text], split='punctuation').symbols) == set(text.split())


@pytest.mark.parametrize('byte_fallback', [False, True])
@pytest.mark.parametrize('model_type', ['unigram', 'bpe'])
def test_subwords_give_back_signs_that_sentencepiece_uses_itself(model_type, byte_fallback):
    lines = ['the cat sat on the mat and more', 'a dog <unk> here \u2581 x\u2581y', 'x y z a b c d'] * 3
    size = 282 if byte_fallback else 26
    words = vocabulary.build(lines, 'subword', size, model_type=model_type, byte_fallback=byte_fallback)
    for text in ('the cat', '  the  cat ', ' t', 'the <unk> cat', '<unk>', 'a \u2581 x\u2581y\u2581', '', ' '):
        assert words.decode(words.encode(text)) == text
    assert words.decode(words.encode('cat é the')) == ('cat é the' if byte_fallback else 'cat <unk> the')
