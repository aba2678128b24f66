"""Texts as labels, lines glued from digits, and lists of words: what is read is what was written."""

import csv
import itertools

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from canon.data import Alphabet, Batches, load_source
from canon.data.images.digits import held_out
from canon.data.text.digit_lines import _load_digits
from canon.errors import CanonError, UsageError

# --- alphabets -------------------------------------------------------------------------------------------------------


def test_a_text_goes_to_numbers_and_back():
    alphabet = Alphabet('abc')
    encoded = alphabet.encode('cab', 5)
    assert encoded['label'].tolist() == [3, 1, 2, 0, 0]
    assert encoded['label_length'] == 3
    assert alphabet.decode(encoded['label']) == 'cab'
    assert alphabet.decode([-1, 0, 2]) == 'b'
    assert alphabet.encode('', 2)['label'].tolist() == [0, 0]


def test_case():
    assert Alphabet('abc', ignore_case=True).encode('CaB', 3)['label'].tolist() == [3, 1, 2]
    with pytest.raises(CanonError, match=r"'CaB' cannot be a label: 'B' is not in the alphabet 'abc'"):
        Alphabet('abc').encode('CaB', 3)


def test_what_an_alphabet_refuses():
    with pytest.raises(CanonError, match=r"'abca' cannot be a label: it is longer than max_length=3"):
        Alphabet('abc').encode('abca', 3)
    with pytest.raises(UsageError, match="contains 'b' more than once"):
        Alphabet('abcb')
    with pytest.raises(UsageError, match='at least one character'):
        Alphabet('')
    with pytest.raises(UsageError, match='capitals'):
        Alphabet('aB', ignore_case=True)


# --- lines of digits -------------------------------------------------------------------------------------------------


def test_no_digit_is_in_both_splits():
    bunch = load_digits()
    test = set(held_out(bunch.target).tolist())
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    for split, ids in (('test', sorted(test)), ('train', [i for i in range(1797) if i not in test])):
        images, labels = _load_digits(split == 'test')
        np.testing.assert_array_equal(images, pixels[ids])
        np.testing.assert_array_equal(labels, bunch.target[ids])


def test_a_line_is_a_function_of_split_and_number():
    lines, few = (
        load_source('digit_lines', num_examples=50),
        load_source('digit_lines', 'train[10:20]', num_examples=50),
    )
    assert (len(lines), len(few)) == (50, 10)
    np.testing.assert_array_equal(lines[13]['image'], few[3]['image'])
    assert not np.array_equal(lines[0]['image'], load_source('digit_lines', 'test')[0]['image'])
    assert not np.array_equal(lines[0]['image'], lines[1]['image'])


def test_lines_have_all_lengths_and_digits_and_ink_for_each():
    lines = load_source('digit_lines', num_examples=200, most=4, width=80)
    assert lines.image_sizes().tolist() == [list(lines[0]['image'].shape[:2])] * 200
    examples = [lines[i] for i in range(200)]
    assert all(e['image'].shape == (32, 80, 1) and e['image'].dtype == np.uint8 for e in examples)
    assert {int(e['label_length']) for e in examples} == {1, 2, 3, 4}
    for e in examples:
        assert ((e['label'] > 0) == (np.arange(5) < e['label_length'])).all()
    assert {n for e in examples for n in e['label'].tolist()} == set(range(11))
    inked = [[(e['image'].max((0, 2)) > 110).sum() for e in examples if e['label_length'] == n] for n in (1, 4)]
    assert np.mean(inked[1]) > 3 * np.mean(inked[0])


def test_lines_make_batches():
    batch = Batches(load_source('digit_lines', num_examples=20), 8)[1]
    assert {name: x.shape for name, x in batch.items()} == {
        'image': (8, 32, 100, 1),
        'label': (8, 5),
        'label_length': (8,),
        'mask': (8,),
    }


def test_lines_that_do_not_fit():
    with pytest.raises(UsageError, match=r'5 digits need 100x28 pixels, not 64x32'):
        load_source('digit_lines', width=64)
    with pytest.raises(UsageError, match=r'most=6 <= max_length=5 must hold'):
        load_source('digit_lines', most=6, width=200)
    with pytest.raises(CanonError, match="'0' is not in the alphabet"):
        load_source('digit_lines', alphabet=Alphabet('123'))
    with pytest.raises(UsageError, match=r"digit_lines has no split 'tset'; did you mean 'test'"):
        load_source('digit_lines', 'tset[:100]')


# --- words -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('a.png', 'deep/1_Lube_45.png', 'deep/2_x2_46.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(256, size=(10, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def read(source):
    return [source.alphabet.decode(source[i]['label']) for i in range(len(source))]


def test_a_list_of_files_and_texts(folder):
    (folder / 'train.csv').write_text('file,text\na.png,Hello\ndeep/1_Lube_45.png,42\n')
    words = load_source('words', path=str(folder), alphabet=Alphabet(ignore_case=True))
    assert read(words) == ['hello', '42']
    np.testing.assert_array_equal(words[0]['image'], np.asarray(Image.open(folder / 'a.png')))
    assert words[0]['label'].shape == (25,)
    assert read(load_source('words', 'train[1:]', path=str(folder), alphabet=Alphabet(ignore_case=True))) == ['42']


def test_icdar_writes_a_byte_order_mark_quotes_and_spaces(folder):
    (folder / 'test.csv').write_bytes('\ufeffa.png, "say \\"hi, you\\""\r\n\r\n'.encode())
    alphabet = Alphabet('abcdefghijklmnopqrstuvwxyz ",')
    assert read(load_source('words', 'test', path=str(folder), alphabet=alphabet)) == ['say "hi, you"']


@pytest.mark.parametrize(
    ('row', 'text'),
    [
        (r'a.png,C:\dir', r'C:\dir'),
        ('a.png,"C:\\dir\\"', 'C:\\dir\\'),
        (r'a.png, "C:\\dir"', r'C:\dir'),  # ICDAR: a space, and backslashes doubled
        ('a.png,"don""t, ""x"', 'don"t, "x'),
        ('a.png,"hi', '"hi'),
        ('a.png,"', '"'),
        ('a.png,"a" b', '"a" b'),
        ('a.png, ,', None),
        ('a.png,"yes" or "no"', None),
        ('a.png,x,y', None),
        ('"a.png",x', 'x'),
    ],
)
def test_signs_in_a_list(folder, row, text):
    """A row is a line, whatever its quotes are: the rows after it are read too."""
    (folder / 'train.csv').write_text(f'{row}\na.png,last\n')
    alphabet = Alphabet(''.join(map(chr, range(32, 127))))
    if text is None:
        with pytest.raises(CanonError, match=r'train\.csv, line 1: .* is not a row file,text'):
            load_source('words', path=str(folder), alphabet=alphabet)
    else:
        assert read(load_source('words', path=str(folder), alphabet=alphabet)) == [text, 'last']


def test_what_csv_writes_is_read(folder):
    """Against the standard library's writer, for texts of the signs that quoting is about."""
    alphabet = Alphabet(''.join(map(chr, range(32, 127))))
    texts = [''.join(letters) for n in (1, 2, 3) for letters in itertools.product('a,"\\', repeat=n)]
    with (folder / 'train.csv').open('w', newline='') as file:
        csv.writer(file).writerows(('a.png', text) for text in texts)
    words = load_source('words', path=str(folder), alphabet=alphabet)
    assert [text.decode() for text in words.texts] == texts


def test_synth90k_has_the_text_in_the_name(folder):
    (folder / 'annotation_val.txt').write_text('./deep/1_Lube_45.png 45\n./deep/2_x2_46.png 46\n')
    assert read(load_source('words', 'val', path=str(folder), alphabet=Alphabet(ignore_case=True))) == ['lube', 'x2']


def test_texts_outside_the_alphabet(folder, caplog):
    (folder / 'train.csv').write_text('a.png,caffè\na.png,tea\na.png,waterfall\n')
    with pytest.raises(CanonError, match=r"train\.csv, line 1: 'caffè': 'è' is not in the alphabet"):
        load_source('words', path=str(folder))
    assert read(load_source('words', path=str(folder), outside='skip', max_length=5)) == ['tea']
    assert '2 of 3 words' in caplog.text


def test_published_results_count_words_without_their_punctuation(folder, caplog):
    """Signs are taken out, not the words with them: of IIIT5K's 3,000 words to test on, 363 hold some."""
    (folder / 'train.csv').write_text("a.png,DON'T!\na.png,$5.00\na.png,caffè\na.png,!\na.png,waterfall\n")
    alphabet = Alphabet(ignore_case=True)
    assert read(load_source('words', path=str(folder), alphabet=alphabet, outside='filter')) == [
        'dont', '500', 'caff', 'waterfall'
    ]  # fmt: skip
    assert '1 of 5 words' in caplog.text
    assert len(load_source('words', path=str(folder), alphabet=alphabet, outside='filter', max_length=5)) == 3


def test_what_words_refuse(folder):
    with pytest.raises(UsageError, match='there is no folder'):
        load_source('words', path=str(folder / 'nowhere'))
    with pytest.raises(UsageError, match=r'neither train\.csv \(rows file,text\) nor annotation_train\.txt'):
        load_source('words', path=str(folder))
    (folder / 'train.csv').write_text('a.png,x\na.png;y\n')
    with pytest.raises(UsageError, match=r"neither trian\.csv .*did you mean 'train'"):
        load_source('words', 'trian', path=str(folder))
    with pytest.raises(CanonError, match=r"train\.csv, line 2: 'a\.png;y' is not a row file,text"):
        load_source('words', path=str(folder))
    (folder / 'train.csv').write_text('b.png,x\n')
    with pytest.raises(UsageError, match=r'names b\.png, which is not in'):
        load_source('words', path=str(folder))
    for outside in ('../b.png', '/b.png'):
        (folder / 'train.csv').write_text(f'{outside},x\n')
        with pytest.raises(UsageError, match=rf"train\.csv, line 1: '{outside}' points outside"):
            load_source('words', path=str(folder))
    (folder / 'train.csv').write_text('file,text\n')
    with pytest.raises(UsageError, match="lists no words for 'train'"):
        load_source('words', path=str(folder))
    (folder / 'annotation_test.txt').write_text('deep/word.png 3\n')
    with pytest.raises(CanonError, match=r'line 1: .deep/word\.png 3. is not a file name such as'):
        load_source('words', 'test', path=str(folder))
    (folder / 'train.csv').write_text('a.png,x\n')
    with pytest.raises(UsageError, match="outside='ignore' must be one of"):
        load_source('words', path=str(folder), outside='ignore')


def test_an_image_that_is_cut_short_is_named(folder):
    (folder / 'train.csv').write_text('a.png,x\n')
    words = load_source('words', path=str(folder))
    (folder / 'a.png').write_bytes((folder / 'a.png').read_bytes()[:60])
    with pytest.raises(CanonError, match=r'a\.png cannot be read .*remove its line from train\.csv'):
        words[0]
