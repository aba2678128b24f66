"""MJSynth's engine: each stage against another computation of it, and words that are what their labels say."""

import doctest
from pathlib import Path

import cloudpickle
import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from scipy.spatial.transform import Rotation

from canon.data import Alphabet, Key, load_source
from canon.data.text import rendered_words as module
from canon.data.text.alphabets import gb2312_characters
from canon.data.text.engine import fonts, layers, lexicon, stages, textures
from canon.errors import CanonError, UsageError

LETTERS = Alphabet('abcdefghijklmnopqrstuvwxyz', ignore_case=True)


def read(split='train', **kwargs):
    return load_source('rendered_words', split, **kwargs)


@pytest.fixture(scope='module')
def embedded():
    return fonts.open_fonts(None, LETTERS.characters + 'AV-')


def find_font(opened, name):
    return next(file for file in opened.files if file.endswith(f'/{name}.ttf'))


# --- the data set ----------------------------------------------------------------------------------------------------


def test_a_word_is_a_function_of_seed_split_and_number():
    source = read(signs=0.3, numbers=0.2, invented=0.2)
    sliced, copy = read('train[3:]', signs=0.3, numbers=0.2, invented=0.2), cloudpickle.loads(cloudpickle.dumps(source))
    expected = {i: source[i] for i in (7, 5)}
    assert source.stages is not copy.stages
    for other in (source[5], sliced[2], copy[5]):
        for field, value in expected[5].items():
            np.testing.assert_array_equal(value, other[field])
    others = [s[5]['image'] for s in (read('test', width=100), read(seed=1, width=100), read(width=100))]
    assert len({image.tobytes() for image in others}) == 3
    validation = [read(name)[0]['label'].tolist() for name in ('val', 'valid', 'validation')]
    assert validation[0] == validation[1] == validation[2] != read('test')[0]['label'].tolist()
    assert source.info.total == 1 << 20


def test_examples_have_the_fields_of_text_recognition():
    source = read(width=100, grey=True, height=24, max_length=30)
    example = source[0]
    assert (example['image'].shape, example['image'].dtype) == ((24, 100, 1), np.uint8)
    assert (example['label'].shape, example['label'].dtype) == ((30,), np.int32)
    assert source.texts.alphabet.decode(example['label']) in source.texts.words
    assert len(source.texts.words) > 2500
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_any_of_the_stages_may_be_left_out():
    texts = {}
    for name in (None, *stages.ALL_STAGES):
        chain = tuple(stage for stage in stages.ALL_STAGES if stage != name)
        source = read(words=('canon', 'stage'), stages=dict(chain=chain))
        if name in ('render_text', 'merge_layers'):
            with pytest.raises(UsageError, match=r'render_text|merge_layers'):
                source[0]
            continue
        examples = [source[i] for i in range(3)]
        assert all(e['image'].shape[0] == 32 and e['image'].std() > 1 for e in examples)
        texts[name] = [e['label'].tolist() for e in examples]
    # Each link draws from a stream of its own, so the words do not depend on the stages.
    assert len(texts) == 6
    assert all(text == texts[None] for text in texts.values())
    plain = read(words=('canon',), stages=dict(chain=('render_text', 'merge_layers')))[0]['image']
    assert plain.min() < 70 < 250 < plain.max()
    assert (plain[..., 0] == plain[..., 1]).all()  # black on white


def test_the_words_are_legible():
    """A reader that only knows templates: the drawn word is nearer to its own letters than to other words."""
    words = ('canon', 'stages', 'blending', 'word', 'reader', 'noise')
    chain = tuple(stage for stage in stages.ALL_STAGES if stage != 'project_layers')
    spec = dict(chain=chain, render_text=dict(curve=0.0))
    source = read(words=words, cases=('lower',), width=100, grey=True, stages=spec)
    face = find_font(fonts.open_fonts(None, 'a'), 'DejaVuSans')
    templates = []
    for word in words:
        glyphs = [fonts.draw_glyph(face, 48, c) for c in word]
        line = stages._draw_line(glyphs, stages._place_pens(face, 48, word, glyphs, 0.0), 0.0, 2, None)
        line = cv2.GaussianBlur(cv2.resize(line, (100, 32), interpolation=cv2.INTER_AREA), (0, 0), 2).astype(float)
        templates.append((line - line.mean()) / line.std())
    right = 0
    for example in (source[i] for i in range(120)):
        image = cv2.GaussianBlur(example['image'], (0, 0), 2).astype(float)
        # Letters may be darker or lighter than the ground.
        scores = [abs((image - image.mean()).ravel() @ t.ravel()) for t in templates]
        right += words[int(np.argmax(scores))] == source.texts.alphabet.decode(example['label'])
    assert right > 80  # of 120, where chance gives 20


# --- texts -----------------------------------------------------------------------------------------------------------


def test_shares_of_texts():
    words = ('alpha', 'beta', 'gamma', 'delta')
    texts = lexicon.Lexicon(words, Alphabet(ignore_case=True), 7, ('lower', 'upper'), 0.3, 0.2, 0.1, signs=0.25)
    rng = np.random.default_rng(0)
    pairs = [texts.draw_text(rng) for _ in range(4000)]
    labels = [label for label, _ in pairs]
    assert np.mean([label != text for label, text in pairs]) == pytest.approx(0.25, abs=0.03)
    assert all(''.join(c for c in text.lower() if c.isalnum()) == label.lower() for label, text in pairs)
    numbers = [label for label in labels if label.isdigit()]
    assert len(numbers) / 4000 == pytest.approx(0.2, abs=0.03)
    assert {len(n) for n in numbers} == {1, 2, 3, 4, 5, 6}
    unsigned = [text for label, text in pairs if label == text and not label.isdigit()]
    assert np.mean([text.isupper() for text in unsigned]) == pytest.approx(0.5, abs=0.04)
    assert max(map(len, labels)) == 7


def test_lines_of_words():
    alphabet = Alphabet('abdeghlmpt .')
    words = ('alpha', 'beta', 'gamma', 'delta')
    texts = lexicon.Lexicon(words, alphabet, 16, signs=0.3, words_per_line=(2, 4))
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(400):
        text, written = texts.draw_text(rng)
        parts = text.split(' ')
        assert len(text) <= 16
        assert all(part.strip('.') in words for part in parts)
        assert written.count(' ') == text.count(' ')
        counts.append(len(parts))
    # Two words always fit, a third one not always, and a fourth never.
    assert set(counts) == {2, 3}
    for options, message in (
        (dict(words_per_line=(0, 2)), r'words_per_line=\(0, 2\) must be \(least, most\)'),
        (dict(words_per_line=(1, 2), alphabet=LETTERS), r'words_per_line=\(1, 2\) needs an alphabet with a space'),
    ):
        with pytest.raises(UsageError, match=message):
            read(words=words, **options)


def test_lines_have_the_spaces_of_their_fonts_times_a_factor(embedded):
    """Words are where the pen puts them, whose steps are the advances; jitter moves letters up and down only."""
    alphabet = Alphabet('ilo ')
    chain = dict(chain=('render_text', 'merge_layers'))
    plain = dict(curve=0.0, underline=0.0, weight=(0.0, 0.0), tracking=(0.0, 0.0), margin=0.5)
    opened = fonts.Fonts([find_font(embedded, 'DejaVuSans')], 'ilo ')
    layers_of = {}
    for name, more in (('plain', {}), ('wide', dict(word_space=(3.0, 3.0))), ('jitter', dict(jitter=0.2))):
        stage = stages.render_text(opened, **plain, **more)
        layers_of[name] = stage.apply({'text': 'lo lo'}, Key(0, 0, 0))['layers'].foreground
    gaps = {}
    for name, ink in layers_of.items():
        empty = np.flatnonzero(ink.max(0) == 0)
        inner = empty[(empty > 30) & (empty < ink.shape[1] - 30)]
        gaps[name] = max(map(len, np.split(inner, np.flatnonzero(np.diff(inner) > 1) + 1)))
    space = fonts.draw_glyph(opened.files[0], 48, ' ').advance
    assert gaps['wide'] - gaps['plain'] == pytest.approx(2 * space, abs=1)
    assert layers_of['jitter'].shape[1] == layers_of['plain'].shape[1]
    np.testing.assert_array_equal(layers_of['jitter'].astype(int).sum(0), layers_of['plain'].astype(int).sum(0))
    assert layers_of['jitter'].shape[0] > layers_of['plain'].shape[0]
    # A whole line keeps its aspect at the height of the images.
    source = read(
        words=('lo',),
        alphabet=alphabet,
        words_per_line=(3, 3),
        stages=dict(**chain, render_text=plain),
        cases=('lower',),
    )
    example = source[0]
    assert alphabet.decode(example['label']) == 'lo lo lo'
    assert example['image'].shape[0] == 32 < example['image'].shape[1]


def test_invented_words_are_of_the_lists_sequences():
    words = ('banana', 'bandana', 'cabana', 'anaconda', 'canal')
    texts = lexicon.Lexicon(words, LETTERS, 25, invented=1.0)
    rng = np.random.default_rng(1)
    invented = {texts.draw_text(rng)[0] for _ in range(300)}
    parts = {f'^{word}$'[i : i + 4] for word in words for i in range(len(word))}
    for text in invented:
        marked = f'^{text}$' if len(text) < 25 else f'^{text}'  # a longer one was cut
        assert {marked[i : i + 4] for i in range(len(marked) - 3)} <= parts
    assert len(invented - set(words)) > 5


def test_cases_that_the_alphabet_lacks_are_not_drawn():
    for alphabet, expected in (
        (Alphabet('straße'), {'straße'}),
        (Alphabet('straßeSTRAE'), {'straße', 'STRASSE'}),
        (Alphabet('straßeSTRA'), {'straße'}),
    ):
        texts = lexicon.Lexicon(('straße',), alphabet, 7, ('lower', 'upper'))
        rng = np.random.default_rng(0)
        assert {texts.draw_text(rng)[0] for _ in range(20)} == expected
    short = lexicon.Lexicon(('straße',), Alphabet('straßeSTRAE'), 6, ('upper',))
    assert short.draw_text(np.random.default_rng(0)) == ('straße', 'straße')


def test_lists_of_words(tmp_path, caplog):
    file = tmp_path / 'words.txt'
    file.write_text('tea\n\ncafe\u0301\ntea\nnai\u0308ve\nשלום\n')  # accents as combining characters
    alphabet = Alphabet('acefntvïé', ignore_case=True)
    assert lexicon.read_words(str(file), alphabet)[0] == ('tea', 'café', 'naïve', 'שלום')
    with pytest.raises(CanonError, match=r"words\.txt: the word 'שלום': .* is not in the alphabet"):
        read(words=str(file), alphabet=alphabet)
    source = read(words=str(file), alphabet=alphabet, outside='skip')
    assert source.texts.words == ('tea', 'café', 'naïve')
    assert '1 words are skipped' in caplog.text
    with pytest.raises(CanonError, match='written to the left'):
        read(words=('שלום',), alphabet=Alphabet('שלום'))
    assert read(words=("don't", '!'), outside='filter').texts.words == ('dont',)
    with pytest.raises(UsageError, match=r'no word is left of 1 .*longer than max_length=3'):
        read(words=('long',), max_length=3, outside='skip')


# --- fonts -----------------------------------------------------------------------------------------------------------


def build_font(path, glyphs, codes):
    """Writes a TrueType font of boxes: {glyph: (left, bottom, right, top) or None}, {code: glyph}."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(codes)
    outlines = {}
    for name, box in glyphs.items():
        pen = TTGlyphPen(None)
        if box:
            x0, y0, x1, y1 = box
            pen.moveTo((x0, y0))
            for point in ((x0, y1), (x1, y1), (x1, y0)):
                pen.lineTo(point)
            pen.closePath()
        outlines[name] = pen.glyph()
    builder.setupGlyf(outlines)
    builder.setupHorizontalMetrics({name: (600, box[0] if box else 0) for name, box in glyphs.items()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable(dict(familyName=path.stem, styleName='Regular'))
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def boxes(tmp_path):
    """A font with 'a', a 'b' that is a copy of the box of missing glyphs, and a 'c' without an outline."""
    box = (50, 0, 500, 700)
    glyphs = {'.notdef': box, 'a': (100, 0, 300, 500), 'b': box, 'c': None, 'space': None}
    codes = {ord('a'): 'a', ord('b'): 'b', ord('c'): 'c', ord(' '): 'space'}
    return build_font(tmp_path / 'boxes.ttf', glyphs, codes)


def test_glyphs_that_a_font_lacks(boxes, embedded, caplog):
    assert [fonts.can_draw(boxes, c) for c in 'abcd '] == [True, False, False, False, True]
    dejavu = find_font(embedded, 'DejaVuSans')
    last_resort = dejavu.replace('DejaVuSans', 'LastResortHE-Regular')  # a box for every code
    assert not Path(last_resort).exists() or not fonts.can_draw(last_resort, 'a')
    both = fonts.open_fonts([boxes, dejavu], 'abα\U00013000')
    assert both.find_covering('aa').tolist() == [0, 1]
    assert both.find_covering('aba').tolist() == [1]
    assert both.find_problem('α\U00013000') == f"no font of {boxes}, {dejavu} has '\U00013000' (U+13000)"
    assert both.find_problem('αb') is None
    words = read(words=('aab', 'aaa'), fonts=boxes, outside='skip', cases=('lower',), signs=0.5)
    assert words.texts.words == ('aaa',)
    assert 'no font of' in caplog.text
    assert words[3]['label_length'] == 3  # the font has no signs, so words are drawn without
    with pytest.raises(CanonError, match=r"the word 'aab': no font of .*boxes\.ttf has 'b' \(U\+0062\)"):
        read(words=('aab', 'aaa'), fonts=boxes)
    with pytest.raises(UsageError, match=r"none of its 1 fonts can draw any of 'xyz'"):
        fonts.open_fonts(boxes, 'xyz')


def test_glyphs_that_fonts_share_between_them(tmp_path):
    first = build_font(tmp_path / '1.ttf', {'.notdef': (0, 0, 9, 9), 'a': (100, 0, 300, 500)}, {ord('a'): 'a'})
    second = build_font(tmp_path / '2.ttf', {'.notdef': (0, 0, 9, 9), 'b': (100, 0, 300, 500)}, {ord('b'): 'b'})
    opened = fonts.open_fonts(str(tmp_path), 'ab')
    assert opened.files == (first, second)
    assert opened.find_problem('ab') == f'no single font of {tmp_path} has all of its characters'


def test_embedded_fonts_have_names(embedded):
    opened = fonts.open_fonts(('cmr10', embedded.files[0]), 'ab')
    assert [Path(file).stem for file in opened.files] == ['cmr10', Path(embedded.files[0]).stem]
    assert len(fonts.open_fonts('DejaVuSans', 'ab')) == 1


def test_lists_of_any_length():
    alphabet = Alphabet(ignore_case=True)
    listed = set(lexicon.read_words(None, alphabet)[0])
    words = lexicon.list_lexicon(None, alphabet, 23, 4000)
    assert len(set(words)) == len(words) == 4000
    assert listed < set(words)  # the others are invented
    assert lexicon.list_lexicon(None, alphabet, 23, 4000) == words
    assert lexicon.list_lexicon(['It', "can't", 'it', '!', 'unpronounceable'], alphabet, 5, 9) in (
        ['it', 'cant'],
        ['cant', 'it'],
    )
    assert not set(lexicon.list_lexicon(None, alphabet, 23, 50)) - listed


def test_embedded_fonts_have_all_letters_and_digits():
    opened = fonts.open_fonts(None, Alphabet('alphanumeric_cased').characters)
    assert len(opened) == 21
    assert opened.covered.all()


def test_lines_are_those_of_pillow(embedded):
    """Glyphs one by one against Pillow's drawing of the whole text; no pair of these has kerning."""
    for name in ('DejaVuSans', 'DejaVuSerif-Italic', 'STIXGeneral', 'cmr10'):
        file, text = find_font(embedded, name), 'minimum'
        face = ImageFont.truetype(file, 48, layout_engine=ImageFont.Layout.BASIC)
        glyphs = [fonts.draw_glyph(file, 48, c) for c in text]
        pens = stages._place_pens(file, 48, text, glyphs, 0.0)
        assert pens[-1] == pytest.approx(face.getlength(text), abs=0.01)
        line = stages._draw_line(glyphs, pens, 0.0, 0, None).astype(int)
        x0, y0, x1, y1 = face.getbbox(text, anchor='ls')
        image = Image.new('L', (x1 - x0, y1 - y0))
        ImageDraw.Draw(image).text((-x0, -y0), text, fill=255, font=face, anchor='ls')
        expected = np.asarray(image).astype(int)[: line.shape[0], : line.shape[1]]
        difference = np.abs(line[: expected.shape[0], : expected.shape[1]] - expected)
        assert difference.mean() < 0.06 * expected.mean()  # the pen is rounded to pixels


def test_kerning_is_that_of_the_table(embedded):
    dejavu = find_font(embedded, 'DejaVuSans')
    font = TTFont(dejavu)
    table, units = font['kern'].kernTables[0].kernTable, font['head'].unitsPerEm
    for pair in ('AV', 'VA', 'av', 'AA'):
        expected = 48 * table.get(tuple(pair), 0) / units
        assert fonts.get_kerning(dejavu, 48, pair) == pytest.approx(expected, abs=1 / 64), pair
    assert fonts.get_kerning(dejavu, 48, 'AV') < -2


# --- stages ----------------------------------------------------------------------------------------------------------


def test_weight_moves_edges():
    """The width of a bar grows by twice the pixels, measured by its sum."""
    bar = np.zeros((24, 40), np.uint8)
    bar[:, 14:26] = 255
    for pixels in (-1.0, -0.3, 0.0, 0.5, 1.2, 2.0, 3.0):
        width = stages._change_weight(bar, pixels)[12].sum() / 255
        assert width == pytest.approx(12 + 2 * pixels, abs=0.25)


def test_glyphs_on_a_curve(embedded):
    """The centre of mass of a rotated glyph is where rotation and shift of coordinates put it."""
    glyph = fonts.draw_glyph(find_font(embedded, 'DejaVuSans'), 48, 'k')
    centre = np.add(ndimage.center_of_mass(glyph.opacity)[::-1], (glyph.left, glyph.top))
    middle = glyph.advance / 2
    for angle in (-0.6, -0.1, 0.4):
        opacity, left, top = stages._rotate_glyph(glyph, middle, angle, 31.3, 7.8)
        rotated = np.add(Rotation.from_euler('z', angle).apply((*(centre - (middle, 0)), 0))[:2], (31.3, 7.8))
        found = np.add(ndimage.center_of_mass(opacity)[::-1], (left, top))
        np.testing.assert_allclose(found, rotated, atol=0.1)
        assert opacity.sum() == pytest.approx(float(glyph.opacity.sum()), rel=0.01)
    y, slope = stages._curve(np.array([0.0, 50.0, 100.0]), 100.0, 0.2)
    np.testing.assert_allclose(y, (20, 0, 20))
    np.testing.assert_allclose(slope, (-0.8, 0, 0.8))


def test_an_underline_is_as_long_as_the_word(embedded):
    file = find_font(embedded, 'DejaVuSans')
    glyphs = [fonts.draw_glyph(file, 48, c) for c in 'avon']
    pens = stages._place_pens(file, 48, 'avon', glyphs, 3.0)
    for bend in (0.0, 0.2):
        plain = stages._draw_line(glyphs, pens, bend, 10, None)
        lined = stages._draw_line(glyphs, pens, bend, 10, (9.0, 3))
        above = np.pad(plain, ((0, lined.shape[0] - plain.shape[0]), (0, 0)))
        columns = ((lined > 127) & (above <= 127)).any(0)
        assert columns.sum() == pytest.approx(pens[-1] + 3, abs=2.5)  # its ends are round


def test_homographies_are_those_of_a_pinhole_camera():
    rng = np.random.default_rng(0)
    for _ in range(5):
        angles, slant, focal = rng.uniform(-0.5, 0.5, 3), rng.uniform(-0.3, 0.3), rng.uniform(100, 400)
        matrix = stages._make_homography(angles, slant, focal, 60.0, 20.0)
        points = rng.uniform(0, 100, (6, 2))
        centred = points - (60, 20)
        plane = np.stack([centred[:, 0] + slant * centred[:, 1], centred[:, 1], np.zeros(6)], 1)
        # Extrinsic rotations: about y first, then x, then z.
        turned = Rotation.from_euler('yxz', angles[[1, 0, 2]]).apply(plane)
        expected = focal * turned[:, :2] / (focal + turned[:, 2:]) + (60, 20)
        np.testing.assert_allclose(cv2.perspectiveTransform(points[None], matrix)[0], expected, atol=1e-9)


def test_a_projected_word_is_complete():
    ink = np.zeros((60, 160), np.uint8)
    ink[14:46, 14:146] = 255
    project = stages.project_layers(yaw=60, pitch=40, roll=20, shear=0.5)
    for i in range(20):
        out = project.apply({'layers': layers.Layers(ink, border=ink)}, Key(0, 0, i))['layers']
        edge = np.concatenate([out.foreground[0], out.foreground[-1], out.foreground[:, 0], out.foreground[:, -1]])
        assert not edge.any()
        np.testing.assert_array_equal(out.foreground, out.border)
        assert (out.foreground > 0).sum() > 0.2 * ink.size * 0.4


def test_borders_and_shadows():
    ink = np.zeros((40, 60), np.uint8)
    ink[15:25, 20:40] = 255
    example = {'layers': layers.Layers(ink)}
    for kind, above in (('outset', False), ('inset', True), ('shadow', False)):
        stage = stages.add_border(p=1.0, kinds=(kind,), thickness=(2.0, 4.0))
        for i in range(6):
            out = stage.apply(example, Key(0, 0, i))['layers']
            assert out.border_above == above
            inside, outside = out.border[ink > 0], out.border[ink == 0]
            if kind == 'outset':
                assert inside.min() == 255
                assert outside.any()
            elif kind == 'inset':
                assert inside.any()
                assert not outside.any()
                assert not inside.all()  # the letters stay
            else:
                assert outside.max() > 100
    assert stages.add_border(p=0.0).apply(example, Key(0, 0, 0))['layers'].border is None


def test_blends_against_their_formulas():
    below, above = np.meshgrid(np.arange(256), np.arange(256))
    b, a = below / 255, above / 255
    with np.errstate(divide='ignore', invalid='ignore'):
        expected = {
            'normal': a,
            'add': np.minimum(b + a, 1),
            'subtract': np.maximum(b - a, 0),
            'multiply': b * a,
            'screen': 1 - (1 - b) * (1 - a),
            'burn': np.where(a == 0, b == 1, 1 - np.minimum((1 - b) / a, 1)),
            'dodge': np.where(a == 1, b > 0, np.minimum(b / (1 - a), 1)),
            'darken': np.minimum(b, a),
            'lighten': np.maximum(b, a),
            'difference': np.abs(b - a),
        }
    assert expected.keys() == layers.BLENDS.keys()
    images = [np.repeat(x[..., None], 3, 2).astype(np.uint8) for x in (below, above)]
    for mode, result in expected.items():
        np.testing.assert_allclose(layers.BLENDS[mode](*images)[..., 1], 255 * result, atol=0.51, err_msg=mode)
        mixed = layers.mix_images(*images, mode, 0.3)[..., 2]
        np.testing.assert_allclose(mixed, 255 * (0.7 * b + 0.3 * result), atol=0.7, err_msg=mode)


def test_layers_cover_by_their_opacity():
    rng = np.random.default_rng(0)
    below, paint = rng.integers(0, 256, (2, 9, 13, 3), np.uint8)
    opacity = rng.integers(0, 256, (9, 13), np.uint8)
    weight = 0.8 * opacity[..., None] / 255
    expected = weight * paint + (1 - weight) * below
    np.testing.assert_allclose(layers.cover(below, paint, opacity, 0.8), expected, atol=0.51)


def test_colours_are_the_clusters_of_an_image(tmp_path):
    colours = np.array([(20, 30, 40), (120, 90, 100), (220, 210, 230)], np.uint8)
    Image.fromarray(np.repeat(colours, (30, 10, 60), 0)[None].repeat(64, 0)).save(tmp_path / 'flat.png')
    opened = textures.open_textures(str(tmp_path))
    palette = opened.draw_palette(np.random.default_rng(0))
    np.testing.assert_allclose(palette.means, colours, atol=1e-3)
    np.testing.assert_allclose(palette.deviations, 0, atol=1e-3)
    stage = stages.colour_layers(opened)
    example = {'layers': layers.Layers(np.zeros((4, 4), np.uint8))}
    orders = {tuple(p[0, 0, 0] for p in stage.apply(example, Key(0, 0, i))['layers'].paints) for i in range(40)}
    assert len(orders) >= 4
    assert all(sorted(order) == [20, 120, 220] for order in orders)
    crop = opened.draw_crop(np.random.default_rng(0), (300, 500))  # larger than the image
    assert crop.shape == (300, 500, 3)


def test_clusters_are_those_of_lloyd():
    """k-means by OpenCV against Lloyd's iteration in float64."""
    pixels = textures._load_image(1)
    pixels = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_NEAREST).reshape(-1, 3).astype(np.float64)
    low, high = (pixels[pick(pixels.sum(1))] for pick in (np.argmin, np.argmax))
    far = max(pixels, key=lambda p: min(((p - low) ** 2).sum(), ((p - high) ** 2).sum()))
    labels = ((pixels[:, None] - (low, high, far)) ** 2).sum(-1).argmin(1)
    for _ in range(20):
        means = np.stack([pixels[labels == k].mean(0) for k in range(3)])
        labels = ((pixels[:, None] - means) ** 2).sum(-1).argmin(1)
    np.testing.assert_allclose(textures._cluster_colours(1).means, means[means.sum(1).argsort()], atol=1.5)


def test_letters_differ_from_the_ground():
    images = textures.open_textures(None)
    colour, blend = stages.colour_layers(images, contrast=(60.0, 60.0)), stages.blend_textures(images, p=1.0)
    ink = np.zeros((20, 60), np.uint8)
    ink[5:15, 10:50] = 255
    differences, changed = [], 0
    for i in range(40):
        coloured = colour.apply({'layers': layers.Layers(ink)}, Key(0, 0, i))
        blended = blend.apply(coloured, Key(0, 0, i, 1))
        lumas = [
            [
                float(layers.fill(e['layers'].paints[k], ink.shape)[5:15, 10:50].mean((0, 1)) @ (0.299, 0.587, 0.114))
                for k in (0, 2)
            ]
            for e in (coloured, blended)
        ]
        differences.append([abs(x - y) for x, y in lumas])
        changed += blended['layers'].paints[0].std() > 1
    before, after = np.array(differences).T
    assert np.mean(before >= 60) > 0.9
    assert np.median(after / before) > 0.6  # in the whole background it is so always, in this window mostly
    assert changed > 20


def test_noise_is_as_large_as_stated():
    flat = np.full((32, 100, 3), 128, np.uint8)
    only = dict(elastic=0.0, blur=0.0, noise=0.0, resampling=0.0, jpeg=(100, 100), p=1.0)
    stage = stages.add_noise(**{**only, 'noise': 16.0})
    # Of the luma, since JPEG smooths the other two channels: that of independent channels is 0.67 of theirs.
    luma = np.array((0.299, 0.587, 0.114))
    stds = [float((stage.apply({'image': flat}, Key(0, 0, i))['image'] @ luma).std()) for i in range(60)]
    assert max(stds) == pytest.approx(16 * np.linalg.norm(luma), abs=1)
    assert min(stds) < 2
    ramp = np.repeat((2 * np.arange(100, dtype=np.uint8))[None, :, None], 32, 0).repeat(3, 2)
    moved = stages._distort_elastically(np.random.default_rng(0), ramp, 1.5).astype(int) - ramp
    assert 1 < np.abs(moved[:, 4:-4]).max() <= 2 * 1.5 * 1.3 + 1  # cubic interpolation overshoots
    np.testing.assert_array_equal(stages._distort_elastically(np.random.default_rng(0), ramp, 0.0), ramp)
    np.testing.assert_array_equal(stages.add_noise(p=0.0).apply({'image': ramp}, Key(0, 0, 0))['image'], ramp)


def test_a_square_keeps_the_form_of_a_stroke():
    shapes = {}
    for frame in ('word', 'square'):
        merge = dict(frame=frame, margin=(0.0, 0.0), strength=(1.0, 1.0))
        render = dict(curve=0.0, underline=0.0, weight=(0.0, 0.0))
        spec = dict(chain=('render_text', 'merge_layers'), render_text=render, merge_layers=merge)
        source = read(words=('-',), alphabet=Alphabet('-'), stages=spec, width=64, height=64, cases=('as written',))
        ink = source[0]['image'][..., 0] < 200
        shapes[frame] = ink.any(1).sum(), ink.any(0).sum()
    assert min(shapes['word']) >= 60
    assert shapes['square'][0] < 32 < 60 <= shapes['square'][1]


def test_chinese_characters():
    """All 3,755 of level 1 are drawn, distinct and not blank, in each font that Debian's packages install."""
    try:
        files = fonts.find_chinese_fonts()
    except UsageError as error:
        pytest.skip(str(error))
    characters = gb2312_characters(1)
    opened = fonts.Fonts(files, characters)
    assert opened.covered.all()
    for file in opened.files:
        glyphs = [fonts.draw_glyph(file, 24, c).opacity for c in characters]
        assert len({(g.shape, g.tobytes()) for g in glyphs}) == len(glyphs) == 3755


# --- errors ----------------------------------------------------------------------------------------------------------


def test_what_is_refused(tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'bad').mkdir()
    (tmp_path / 'bad' / 'text.ttf').write_text('not a font')
    few = dict(words=('canon',))
    for error, message, arguments in (
        (UsageError, r"no split 'tset'; did you mean 'test'", dict(split='tset')),
        (UsageError, 'has no words', dict(split='train[5:]', num_examples=5)),
        (UsageError, r'empty has no fonts \(\.otc', dict(fonts=str(tmp_path / 'empty'))),
        (UsageError, 'there is no folder or font file', dict(fonts=str(tmp_path / 'none'))),
        (CanonError, r'text\.ttf cannot be read as a font', dict(fonts=str(tmp_path / 'bad'))),
        (UsageError, 'empty has no images to take textures from', dict(textures=str(tmp_path / 'empty'))),
        (UsageError, 'there is no folder of textures', dict(textures=str(tmp_path / 'none'))),
        (UsageError, 'there is no file', dict(words=str(tmp_path / 'none.txt'))),
        (UsageError, 'the list of words has no words', dict(words=('', ' '))),
        (CanonError, r"the word 'a-b': '-' is not in the alphabet", dict(words=('a-b',))),
        (UsageError, "cases has 'title'", dict(cases=('title',))),
        (UsageError, 'are more than 1 together', dict(invented=0.7, numbers=0.4)),
        (UsageError, r"outside='ignore' must be one of", dict(outside='ignore')),
        (UsageError, r"no stage is called 'add_boarder'; did you mean", dict(stages=dict(chain=('add_boarder',)))),
        (UsageError, r'curve=2 must be a number at least 0', dict(stages=dict(render_text=dict(curve=2)))),
        (UsageError, r'weight=\(0, 9\) must be in -1\.\.6', dict(stages=dict(render_text=dict(weight=(0, 9))))),
        (UsageError, r'strength=\(0\.0, 1\.0\) must be in', dict(stages=dict(merge_layers=dict(strength=(0.0, 1.0))))),
        (UsageError, "'burnt'; did you mean 'burn'", dict(stages=dict(blend_textures=dict(modes=('burnt',))))),
        (UsageError, r"kinds=\('glow',\)", dict(stages=dict(add_border=dict(kinds=('glow',))))),
        (UsageError, 'width=0', dict(width=0)),
        (UsageError, 'seed=-1', dict(seed=-1)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            read(**{**few, **arguments})
    with pytest.raises(UsageError, match='put merge_layers before it'):
        read(**few, stages=dict(chain=('render_text', 'add_noise', 'merge_layers')))[0]
    with pytest.raises(CanonError, match='spaces alone'):
        read(words=('a b',), alphabet=Alphabet('ab ')).stages[1].apply({'text': '  '}, Key(0, 0, 0))
