"""Readers of scene text and handwriting, against files written byte by byte in the forms of their owners."""

import io
import multiprocessing
import struct
import subprocess
import sys
import tarfile
import unicodedata

import lmdb
import numpy as np
import pytest
import scipy.io
from PIL import Image

from canon.data import DATA_SETS, Alphabet, load_source
from canon.data.text import handwriting
from canon.data.text.alphabets import find_characters, gb2312_characters
from canon.data.text.labelled import load_labelled
from canon.errors import CanonError, UsageError

CASED = Alphabet('printable_ascii')


def texts(source):
    """The labels of a source as texts, each read through its example."""
    return [source.alphabet.decode(source[i]['label']) for i in range(len(source))]


def pixels(seed, height=6, width=9):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def encode_png(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, 'PNG')
    return stream.getvalue()


# --- alphabets -------------------------------------------------------------------------------------------------------


def test_gb2312_has_the_characters_of_the_standard():
    first, second = gb2312_characters(1), gb2312_characters(2)
    assert (len(first), len(second), len(set(first + second))) == (3755, 3008, 6763)
    assert (first[:2], first[-1], second[0], second[-1]) == ('啊阿', '座', '亍', '齄')
    # The order is that of the codes, and each character is two bytes of GB 2312.
    codes = [c.encode('gb2312') for c in first + second]
    assert codes == sorted(codes)
    assert all('CJK UNIFIED' in unicodedata.name(c) for c in first + second)
    alphabet = Alphabet('gb2312_level1')
    assert alphabet.encode('座啊', 2)['label'].tolist() == [3755, 1]
    assert alphabet == Alphabet(first)
    assert len(Alphabet('gb2312_levels')) == 6763
    with pytest.raises(UsageError, match='has levels 1 and 2, not 3'):
        gb2312_characters(3)


def test_named_alphabets():
    counts = {'digits': 10, 'alphanumeric': 36, 'alphanumeric_cased': 62, 'printable_ascii': 95}
    for name, count in counts.items():
        assert len(Alphabet(name)) == count
        with pytest.raises(UsageError, match='more than once'):  # so that a name is never a list of characters
            Alphabet(name + '!')
    assert find_characters('xyz') == 'xyz'


def test_a_text_in_another_normal_form_is_told_apart():
    with pytest.raises(CanonError, match='another form of Unicode: normalise it to NFC'):
        Alphabet('caféè').encode(unicodedata.normalize('NFD', 'café'), 9)
    with pytest.raises(CanonError, match=r"'ü' is not in the alphabet 'abc'$"):
        Alphabet('abc').encode('ü', 9)


# --- IIIT5K ----------------------------------------------------------------------------------------------------------


def write_iiit5k(root):
    names, words = ['test/1_1.png', 'test/1_2.png', 'test/2_1.png'], ["It's", '5', 'WAY']
    for i, name in enumerate(names):
        save(root / name, pixels(i))
    bounds = np.zeros((1, 3), [('ImgName', object), ('chars', object), ('charBBs', object)])
    data = np.zeros(
        (1, 3), [('ImgName', object), ('GroundTruth', object), ('smallLexi', object), ('mediumLexi', object)]
    )
    for i, (name, word) in enumerate(zip(names, words, strict=True)):
        bounds[0, i] = (name, word.upper(), np.ones((len(word), 4)))
        small = np.array([word, 'OTHER', f'W{i}'], object).reshape(1, -1)
        data[0, i] = (name, word, small, np.array([[word]], object))
    scipy.io.savemat(root / 'testCharBound.mat', {'testCharBound': bounds})
    scipy.io.savemat(root / 'testdata.mat', {'testdata': data})


def test_iiit5k(tmp_path):
    write_iiit5k(tmp_path)
    words = load_source('iiit5k', 'test', path=str(tmp_path))
    assert texts(words) == ['its', '5', 'way']
    assert [words.read_text(i) for i in range(3)] == ["IT'S", '5', 'WAY']
    assert words.read_lexicon(0) == ()
    np.testing.assert_array_equal(words[2]['image'], pixels(2))
    assert words.image_sizes().tolist() == [[6, 9]] * 3
    small = load_source('iiit5k', 'test[1:]', path=str(tmp_path), lexicon='small')
    assert small.read_lexicon(1) == ('WAY', 'OTHER', 'W2')
    assert load_source('iiit5k', 'test', path=str(tmp_path), lexicon='medium').read_lexicon(0) == ("It's",)


def test_a_matlab_file_without_its_fields(tmp_path):
    scipy.io.savemat(
        tmp_path / 'testdata.mat', {'testdata': np.zeros((1, 1), [('ImgName', object), ('chars', object)])}
    )
    with pytest.raises(UsageError, match=r'testdata\.mat: testdata has no field smallLexi; it has ImgName, chars'):
        load_source('iiit5k', 'test', path=str(tmp_path), lexicon='small')
    scipy.io.savemat(tmp_path / 'trainCharBound.mat', {'other': np.ones(2)})
    with pytest.raises(UsageError, match=r'trainCharBound\.mat has no variable trainCharBound; it has other'):
        load_source('iiit5k', 'train', path=str(tmp_path))
    for content in (b'nonsense' * 40, b'', b'M', (tmp_path / 'testdata.mat').read_bytes()[:200]):
        (tmp_path / 'trainCharBound.mat').write_bytes(content)
        with pytest.raises(CanonError, match=r'trainCharBound\.mat is not a MATLAB file'):
            load_source('iiit5k', 'train', path=str(tmp_path))
    with pytest.raises(UsageError, match="there is no split 'tset'; did you mean 'test'"):
        load_source('iiit5k', 'tset', path=str(tmp_path))


# --- SVT and ICDAR 2003 ----------------------------------------------------------------------------------------------

SVT = """<?xml version="1.0" encoding="utf-8"?>
<tagset><image><imageName>img/14_03.png</imageName><address>LIVING ROOM THEATERS</address>
<lex>LIVING,ROOM,THEATERS</lex><Resolution x="40" y="20"/><taggedRectangles>
<taggedRectangle height="8" width="12" x="3" y="-2"><tag>LIVING</tag></taggedRectangle>
<taggedRectangle height="5" width="30" x="35" y="4"><tag>ROOM</tag></taggedRectangle>
</taggedRectangles></image></tagset>"""


def test_svt(tmp_path, caplog):
    scene = pixels(0, 20, 40)
    save(tmp_path / 'img/14_03.png', scene)
    (tmp_path / 'test.xml').write_text(SVT)
    words = load_source('svt', 'test', path=str(tmp_path))
    assert texts(words) == ['living', 'room']
    assert words.read_lexicon(1) == ('LIVING', 'ROOM', 'THEATERS')
    # Boxes may reach beyond the photograph.
    np.testing.assert_array_equal(words[0]['image'], scene[0:6, 3:15])
    np.testing.assert_array_equal(words[1]['image'], scene[4:9, 35:40])
    assert words.image_sizes().tolist() == [[8, 12], [5, 30]]
    assert 'left out' not in caplog.text


def test_icdar_2003_as_scenes_and_as_words(tmp_path, caplog):
    save(tmp_path / 'SceneTrialTest/ryoungt/IMG_1.PNG', pixels(0, 30, 30))
    boxes = ''.join(
        f'<taggedRectangle x="{x}.5" y="2.0" width="6.0" height="5.0" offset="0.0" userName="admin"><tag>{tag}</tag>'
        '<segmentation><xOff>3.0</xOff></segmentation></taggedRectangle>'
        for x, tag in ((1, 'self'), (9, 'of'), (17, 'caf\u00e9s'), (20, 'F12'), (22, '  '))
    )
    (tmp_path / 'SceneTrialTest/words.xml').write_bytes(
        ('<?xml version="1.0" encoding="ISO-8859-1"?><tagset><image><imageName>ryoungt/IMG_1.PNG</imageName>'
        f'<resolution x="30" y="30"/><taggedRectangles>{boxes}</taggedRectangles></image></tagset>').encode('latin-1')
    )  # fmt: skip
    scenes = load_source('icdar2003', 'test', path=str(tmp_path))
    assert texts(scenes) == ['self', 'f12']
    assert scenes[0]['image'].shape == (5, 7, 3)  # x from 1.5 to 7.5 touches seven pixels
    assert (
        '3 of 5 texts are left out (1 shorter than 3 characters, 1 not alphanumeric, 1 without a text)' in caplog.text
    )
    assert texts(load_source('icdar2003', 'test', path=str(tmp_path), words='all')) == ['self', 'of', 'cafs', 'f12']
    save(tmp_path / 'TrialTrain/word/1/1.png', pixels(1))
    (tmp_path / 'TrialTrain/word.xml').write_text(
        '<?xml version="1.0"?><imagelist><image file="word/1/1.png" tag="Tea&amp;Co" />'
        '<image file="word/1/2.png" tag=""/></imagelist>'
    )
    (word,) = [load_source('icdar2003', 'train', path=str(tmp_path), words='all')]
    assert (texts(word), word.read_text(0)) == (['teaco'], 'Tea&Co')


@pytest.mark.parametrize(
    ('xml', 'message'),
    [
        ('<annotation><object/></annotation>', r'the root <annotation> has no <image>; expected <tagset>'),
        ('<tagset><image><name>x</name></image></tagset>', r'image 1 has neither <imageName> nor the attribute file'),
        (SVT.replace('height="8" ', ''), r'taggedRectangle 1 needs the numbers x, y, width and height'),
        (SVT.replace('width="12"', 'width="0"'), r'a box of 0x8 pixels has no area'),
        (SVT.replace('LIVING', '!').replace('ROOM', '?'), r'has no texts: all are left out, 2 without a character of'),
        (SVT[:-10], r'test\.xml is not XML'),
    ],
)
def test_xml_of_another_form(tmp_path, xml, message):
    (tmp_path / 'test.xml').write_text(xml)
    with pytest.raises((UsageError, CanonError), match=message):
        load_source('svt', 'test', path=str(tmp_path))


def test_a_box_outside_of_its_image(tmp_path):
    save(tmp_path / 'img/14_03.png', pixels(0, 5, 5))
    (tmp_path / 'test.xml').write_text(SVT)
    with pytest.raises(CanonError, match=r'image 1, word 2: the box .* lies outside of img/14_03\.png, 5x5 pixels'):
        load_source('svt', 'test', path=str(tmp_path))[1]


# --- lists of words --------------------------------------------------------------------------------------------------


def test_icdar_2013_and_its_variants(tmp_path, caplog):
    rows = ['word_1.png, "Tiredness"', 'word_2.png, "2.20"', 'word_3.png, "kills,"', 'word_4.png, "A"',
            'word_5.png, "say \\"hi\\""']  # fmt: skip
    (tmp_path / 'Challenge2_Test_Task3_GT.txt').write_bytes('\ufeff'.encode() + '\r\n'.join(rows).encode())
    for i in range(5):
        save(tmp_path / f'Challenge2_Test_Task3_Images/word_{i + 1}.png', pixels(i))
    variants = {words: texts(load_source('icdar2013', 'test', path=str(tmp_path), words=words, alphabet=CASED))
                for words in ('all', 'alphanumeric', 'three_alphanumeric')}  # fmt: skip
    assert variants == {
        'all': ['Tiredness', '2.20', 'kills,', 'A', 'say "hi"'],
        'alphanumeric': ['Tiredness', 'A'],
        'three_alphanumeric': ['Tiredness'],
    }
    assert '3 of 5 texts are left out (3 not alphanumeric)' in caplog.text
    (tmp_path / 'exclude.txt').write_text('word_1.png\nChallenge2_Test_Task3_Images/word_2.png\n')
    rest = load_source('icdar2013', 'test', path=str(tmp_path), words='all', exclude=str(tmp_path / 'exclude.txt'))
    assert texts(rest) == ['kills', 'a', 'sayhi']
    (tmp_path / 'exclude.txt').write_text('7.png\n')
    with pytest.raises(UsageError, match=r'names 1 images that are not in .*, such as 7\.png'):
        load_source('icdar2013', 'test', path=str(tmp_path), exclude=str(tmp_path / 'exclude.txt'))


def test_icdar_2015(tmp_path):
    folder = tmp_path / 'ch4_training_word_images_gt'
    save(folder / 'word_1.png', pixels(1))
    (folder / 'gt.txt').write_bytes('\ufeffword_1.png, "[06]"\n\n'.encode())
    assert texts(load_source('icdar2015', 'train', path=str(tmp_path))) == ['06']
    assert texts(load_source('icdar2015', 'all', path=str(folder))) == ['06']
    with pytest.raises(UsageError, match=r"is the folder of one split: give the folder above it, or split='all'"):
        load_source('icdar2015', 'test', path=str(folder))
    with pytest.raises(UsageError, match=r'has no list of words: it needs Challenge4_Test_Task3_GT\.txt or'):
        load_source('icdar2015', 'test', path=str(tmp_path))
    for content, line in ((b'\xef\xbb\xbfword_1.png, "caf\xe9"\n', 1), (b'word_1.png, "x"\nword_1.png, "\xe9"', 2)):
        (folder / 'gt.txt').write_bytes(content)
        with pytest.raises(CanonError, match=rf'gt\.txt, line {line} is not UTF-8 text; convert it'):
            load_source('icdar2015', 'train', path=str(tmp_path))
    (folder / 'gt.txt').write_bytes(b'word\0_1.png, "x"\n')
    with pytest.raises(CanonError, match=r'cannot be read .*null byte'):
        load_source('icdar2015', 'train', path=str(tmp_path))[0]
    (folder / 'gt.txt').write_text('word_1.png "x"\n')
    with pytest.raises(CanonError, match=r'gt\.txt, line 1: .* is not a row such as word_1\.png, "Tiredness"'):
        load_source('icdar2015', 'train', path=str(tmp_path))


def test_lists_between_spaces(tmp_path):
    save(tmp_path / '13_0.jpg', pixels(0))
    (tmp_path / 'gt.txt').write_text('13_0.jpg WYNDHAM HOTEL,WYNDHAM, INN\n13_1.jpg\tGRAND\n')
    words = load_source('svt_perspective', 'test', path=str(tmp_path))
    assert words.read_lexicon(0) == ('HOTEL', 'WYNDHAM', 'INN')
    assert [words.read_text(i) for i in range(2)] == ['WYNDHAM', 'GRAND']
    (tmp_path / 'gt.txt').write_text('13_0.jpg, "FC"\n13_1.jpg\n')
    with pytest.raises(CanonError, match=r"gt\.txt, line 2: '13_1\.jpg' is not a row such as"):
        load_source('cute80', 'test', path=str(tmp_path))
    (tmp_path / 'gt.txt').write_text('13_0.jpg, "FC"\n')
    assert texts(load_source('cute80', 'test', path=str(tmp_path))) == ['fc']


def test_a_folder_of_images_and_labels(tmp_path, caplog):
    for number, text in ((1, 'PRIVATE'), (2, "Don't\n"), (10, 'ten'), (11, None), (12, '!')):
        save(tmp_path / f'svt_test/IMG/{number}.jpg', pixels(number))
        if text is not None:
            (tmp_path / 'svt_test/label').mkdir(exist_ok=True)
            (tmp_path / f'svt_test/label/{number}.txt').write_text(text)
    with tarfile.open(tmp_path / 'svt_test.tar', 'w') as archive:
        archive.add(tmp_path / 'svt_test', 'svt_test')
    expected = ['private', 'dont', 'ten']
    for path, split in (
        (tmp_path / 'svt_{split}.tar', 'test'),
        (tmp_path / 'svt_test.tar', 'all'),
        (tmp_path / 'svt_test', 'all'),
    ):
        assert texts(load_source('word_folder', split, path=str(path))) == expected
    assert (
        '2 of 5 texts are left out (1 without a file of label/, 1 without a character of the alphabet)' in caplog.text
    )
    assert texts(load_source('word_folder', 'test[1:2]', path=str(tmp_path / 'svt_{split}'))) == ['dont']
    with pytest.raises(
        UsageError, match=r"has no folder test/IMG; a folder of one split has split='all' or '\{split\}'"
    ):
        load_source('word_folder', 'test', path=str(tmp_path / 'svt_test'))
    with pytest.raises(UsageError, match=r'the slice .*100.* of 3 texts is empty'):
        load_source('word_folder', 'all[100:]', path=str(tmp_path / 'svt_test'))
    with pytest.raises(CanonError, match=r'label/1\.txt: .PRIVATE.: .A. is not in the alphabet'):
        load_source('word_folder', 'all', path=str(tmp_path / 'svt_test'), alphabet=Alphabet('abc'), outside='refuse')


# --- LMDB ------------------------------------------------------------------------------------------------------------


def write_lmdb(folder, labels, samples=None):
    folder.mkdir(parents=True)
    environment = lmdb.open(str(folder), map_size=1 << 22)
    with environment.begin(write=True) as transaction:
        for number, label in enumerate(labels, 1):
            transaction.put(f'image-{number:09d}'.encode(), encode_png(pixels(number)))
            if label is not None:
                transaction.put(f'label-{number:09d}'.encode(), label.encode())
        if samples is not None:
            transaction.put(b'num-samples', str(samples).encode())
    environment.close()


def test_lmdb(tmp_path, caplog):
    write_lmdb(tmp_path / 'evaluation/SVT', ['Cafe\u0301', 'B-2', None, '...', 'a' * 30], 5)
    write_lmdb(tmp_path / 'evaluation/CUTE80', ['tea'], 1)
    words = load_source('lmdb_words', 'SVT', path=str(tmp_path))
    assert [words.read_text(i) for i in range(2)] == ['Caf\u00e9', 'B-2']
    assert texts(words) == ['caf', 'b2']
    np.testing.assert_array_equal(words[1]['image'], pixels(2))
    assert '3 of 5 texts are left out' in caplog.text
    assert texts(load_source('lmdb_words', 'evaluation', path=str(tmp_path))) == ['tea', 'caf', 'b2']
    with pytest.raises(
        UsageError, match=r"'SVT' of .* has no texts: all are left out, 3 with characters that are not in"
    ):
        load_source('lmdb_words', 'SVT', path=str(tmp_path), outside='skip')
    # A worker process may be forked while the database is open here.
    with multiprocessing.get_context('fork').Pool(1) as pool:
        assert pool.apply(texts, (words,)) == ['caf', 'b2']


def test_an_lmdb_that_is_locked_or_damaged(tmp_path):
    folder = tmp_path / 'all'
    write_lmdb(folder, ['tea'])
    with pytest.raises(UsageError, match='has no number under the key num-samples'):
        load_source('lmdb_words', 'all', path=str(folder))
    write_lmdb(tmp_path / 'locked', ['tea'], 1)
    script = 'import lmdb, sys; e = lmdb.open(sys.argv[1]); t = e.begin(write=True); print(flush=True); input()'
    arguments = [sys.executable, '-c', script, str(tmp_path / 'locked')]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert texts(load_source('lmdb_words', 'locked', path=str(tmp_path))) == ['tea']
        holder.communicate(b'\n')
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad/data.mdb').write_bytes(b'no database' * 999)
    with pytest.raises(CanonError, match=r'bad/data\.mdb cannot be read'):
        load_source('lmdb_words', 'bad', path=str(tmp_path))
    with pytest.raises(UsageError, match=r"has no folder loked with a data\.mdb; did you mean 'locked'"):
        load_source('lmdb_words', 'loked', path=str(tmp_path))
    with pytest.raises(UsageError, match=r"is a database itself: give the folder above it, or split='all'"):
        load_source('lmdb_words', 'test', path=str(tmp_path / 'locked'))


# --- IAM -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def iam(tmp_path):
    words = ['#--- words.txt ---', '#', 'a01-000u-00-00 ok 154 408 768 27 51 AT A',
             'a01-000u-00-01 err 154 507 766 213 48 NN MOVE',
             'a01-000u-01-00 ok 154 796 764 70 50 , ,', 'a01-117-05-02 ok 1 2 3 4 5 NN broken',
             'b02-000-00-00 ok 179 6 7 8 9 NP two words']  # fmt: skip
    lines = ['# header', 'a01-000u-00 ok 154 19 408 746 1661 89 A|MOVE|to|stop|Mr.|Gaitskell',
             'a01-000u-01 err 156 19 395 932 1850 105 nominating|,|any', 'b02-000-00 ok 1 2 3 4 5 6 x']  # fmt: skip
    (tmp_path / 'ascii').mkdir()
    (tmp_path / 'ascii/words.txt').write_text('\n'.join(words) + '\n')
    (tmp_path / 'ascii/lines.txt').write_text('\n'.join(lines) + '\n')
    for number, name in enumerate(('a01-000u-00-00', 'a01-000u-00-01', 'a01-000u-01-00', 'b02-000-00-00')):
        form = name.rsplit('-', 2)[0]
        save(tmp_path / f'words/{form[:3]}/{form}/{name}.png', pixels(number))
        save(tmp_path / f'lines/{form[:3]}/{form}/{name[:-3]}.png', pixels(number))
    (tmp_path / 'words/a01/a01-117').mkdir(parents=True)
    (tmp_path / 'words/a01/a01-117/a01-117-05-02.png').write_bytes(b'')
    return tmp_path


def test_iam_words_and_partitions(iam, caplog):
    (iam / 'RWTH.iam_word_gt_final.train.thresh').write_text(
        'a01-000u-00-00,154 A\na01-000u-00-01,154 MOVE\na01-117-05-02,1 b\n'
    )
    words = load_source('iam_words', path=str(iam))
    assert texts(words) == ['A']
    np.testing.assert_array_equal(words[0]['image'], pixels(0))
    assert "2 of 3 texts are left out (1 marked as 'err', 1 with a broken image)" in caplog.text
    assert texts(load_source('iam_words', path=str(iam), segmentation='all')) == ['A', 'MOVE']
    # Lists of forms and of lines are lists of their words.
    (iam / 'test.uttlist').write_text('b02-000\n')
    assert texts(load_source('iam_words', 'test', path=str(iam))) == ['two words']
    (iam / 'task').mkdir()
    (iam / 'task/validationset1.txt').write_text('a01-000u-00\n')
    (iam / 'task/validationset2.txt').write_text('a01-000u-01\n\n')
    splits = {
        s: texts(load_source('iam_words', s, path=str(iam), partition='lwitlrt')) for s in ('valid1', 'valid2', 'valid')
    }
    assert splits == {'valid1': ['A'], 'valid2': [','], 'valid': ['A', ',']}
    with pytest.raises(UsageError, match=r"has no list of 'train': it needs trainset\.txt or"):
        load_source('iam_words', 'train', path=str(iam), partition='lwitlrt')
    (iam / 'task/testset.txt').write_text('z01-000-00\n')
    with pytest.raises(UsageError, match=r'has no texts: all are left out, 1 listed in the partition but not in'):
        load_source('iam_words', 'test', path=str(iam), partition='lwitlrt')


def test_iam_lines(iam):
    expected = ['A MOVE to stop Mr. Gaitskell', 'nominating , any', 'x']
    assert texts(load_source('iam_lines', 'all', path=str(iam))) == expected
    assert texts(load_source('iam_lines', 'all', path=str(iam), segmentation='ok')) == [expected[0], 'x']
    with pytest.raises(CanonError, match=r'lines\.txt, line 2: .*: it is longer than max_length=9'):
        load_source('iam_lines', 'all', path=str(iam), max_length=9)
    (iam / 'ascii/lines.txt').write_text('a01-000u-00 yes 1\n')
    with pytest.raises(CanonError, match=r'lines\.txt, line 1: .* is not a row of IAM'):
        load_source('iam_lines', 'all', path=str(iam))


# --- RIMES -----------------------------------------------------------------------------------------------------------

FRENCH = Alphabet(find_characters('printable_ascii') + 'éè')


def test_rimes_words(tmp_path, caplog):
    save(tmp_path / 'data_test/lot_16/lot_16_word_1.png', pixels(0))
    # A byte order mark, a text in normal form D, a line without a text.
    lines = f'\ufefflot_16/lot_16_word_1.png {unicodedata.normalize("NFD", "Créancier")}\nlot_16/2.png\nlot_16/3.png \n'
    (tmp_path / 'grount_truth_test_icdar2011.txt').write_bytes(lines.encode())
    words = load_source('rimes_words', 'test', path=str(tmp_path), alphabet=FRENCH)
    assert texts(words) == ['Créancier']
    assert '2 of 3 texts are left out (2 without a text)' in caplog.text
    with pytest.raises(CanonError, match=r"line 1: 'Créancier': 'é' is not in the alphabet"):
        load_source('rimes_words', 'test', path=str(tmp_path))
    (tmp_path / 'grount_truth_test_icdar2011.txt').write_bytes('a.png tea\nb.png Créancier\n'.encode('latin-1'))
    with pytest.raises(CanonError, match=r'icdar2011\.txt, line 2 is not UTF-8 text'):
        load_source('rimes_words', 'test', path=str(tmp_path))


def test_rimes_lines(tmp_path, monkeypatch):
    page = pixels(0, 40, 60)
    save(tmp_path / 'images_gray/train2011-0.png', page)
    lines = ('<Line Top="-3" Left="2" Right="20" Bottom="9" Value="Je vous &amp;#233;cris&#160; ici"/>'
             '<Line Top="10" Left="0" Right="9" Bottom="19" Value=""/>')  # fmt: skip
    pages = ''.join(
        f'<SinglePage FileName="train2011-{i}.png"><Paragraph Value="">{lines}</Paragraph></SinglePage>'
        for i in range(3)
    )
    (tmp_path / 'training_2011.xml').write_text(f'<DocumentList>{pages}</DocumentList>')
    monkeypatch.setattr(handwriting, '_RIMES_VALID', 1)
    train = load_source('rimes_lines', path=str(tmp_path), alphabet=FRENCH)
    assert [record.text for record in train.records] == ['Je vous écris ici'] * 2
    np.testing.assert_array_equal(train[0]['image'], page[0:10, 2:21])
    valid = load_source('rimes_lines', 'valid', path=str(tmp_path), alphabet=FRENCH)
    assert [record.where for record in valid.records] == [f'{tmp_path}/training_2011.xml, page train2011-2.png, line 1']
    (tmp_path / 'eval_2011_annotated.xml').write_text('<tagset/>')
    with pytest.raises(UsageError, match='has no element SinglePage'):
        load_source('rimes_lines', 'test', path=str(tmp_path))


# --- CASIA -----------------------------------------------------------------------------------------------------------


def gnt(character, image):
    height, width = image.shape
    code = character.encode('gb2312').ljust(2, b'\0')
    return struct.pack('<I', 10 + width * height) + code + struct.pack('<HH', width, height) + image.tobytes()


def test_casia(tmp_path, caplog):
    images = [np.random.default_rng(i).integers(256, size=(5 + i, 7), dtype=np.uint8) for i in range(4)]
    folder = tmp_path / 'HWDB1.1trn_gnt'
    folder.mkdir()
    (folder / '1001-c.gnt').write_bytes(gnt('啊', images[0]) + gnt('a', images[1]))
    (folder / '1002-c.gnt').write_bytes(gnt('座', images[2]) + gnt('亍', images[3]))
    source = load_source('casia_characters', path=str(tmp_path))
    assert texts(source) == ['啊', '座']
    assert [source[i]['label'].tolist() for i in range(2)] == [[1], [3755]]
    for i, image in ((0, images[0]), (1, images[2])):
        np.testing.assert_array_equal(source[i]['image'][..., 0], image)
    assert '2 of 4 texts are left out (2 with characters that are not in the alphabet)' in caplog.text
    assert source.read_text(1) == '座'
    with pytest.raises(UsageError, match=r'no \.gnt files in a folder such as HWDB1\.1trn_gnt .split .test.'):
        load_source('casia_characters', 'test', path=str(tmp_path))
    for cut, message in ((-3, 'ends within a record, at byte 45'), (-45, 'ends within a header, at byte 45')):
        (folder / '1001-c.gnt').write_bytes((gnt('啊', images[0]) + gnt('a', images[1]))[:cut])
        with pytest.raises(CanonError, match=rf'1001-c\.gnt {message}'):
            load_source('casia_characters', path=str(tmp_path))
    (folder / '1001-c.gnt').write_bytes(b'\x89PNG' + bytes(30))
    with pytest.raises(CanonError, match=r'1001-c\.gnt, byte 0: a record of .* it is not a \.gnt'):
        load_source('casia_characters', path=str(tmp_path))


def test_readers_are_found_by_name_and_take_the_alphabet(tmp_path):
    names = ('iiit5k', 'svt', 'icdar2003', 'icdar2013', 'icdar2015', 'svt_perspective', 'cute80', 'word_folder',
             'lmdb_words', 'iam_words', 'iam_lines', 'rimes_words', 'rimes_lines', 'casia_characters')  # fmt: skip
    assert all(DATA_SETS.get(name) for name in names)
    assert DATA_SETS.get('select_texts') is None
    write_iiit5k(tmp_path)
    labelled = load_labelled('iiit5k', 'test', Alphabet('ITSWAY', ignore_case=False), 7, path=str(tmp_path))
    assert texts(labelled) == ['ITS', 'WAY']
    assert labelled[0]['label'].shape == (7,)
