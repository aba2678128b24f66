"""The benchmarks of scene text as their owners distribute them: IIIT5K, SVT, ICDAR 2003, 2013 and 2015, SVTP, CUTE80.

All readers return `TextImages`: cropped words with their labels, their whole texts, and the lexica that a set has. They
share the arguments

    path: the folder of the data set, or an uncompressed tar of it.
    split: 'train' or 'test', which may be sliced; 'all' if `path` is the folder of one split.
    **selection: those of `WordSelection`: the alphabet, and which words count.

and raise UsageError for files that are missing or not of this form, and for a set of which no word remains.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from canon import named
from canon.data.detection.file_trees import FileTree
from canon.data.pipeline import splits
from canon.data.text import text_files
from canon.data.text.alphabets import Alphabet
from canon.data.text.text_images import (
    NO_TEXT,
    Outside,
    TextImages,
    TextProtocol,
    TextRecord,
    WordRule,
    check_split,
    find_file,
    read_annotation_lines,
    read_xml,
    select_texts,
)
from canon.data.text.word_images import parse_row
from canon.errors import CanonError, UsageError, first_line

LexiconSize = Literal['none', 'small', 'medium']

_CASELESS = Alphabet(ignore_case=True)
_WHOLE = 'all'  # the split of a folder that has one only
_ICDAR2003 = {
    'train': ('SceneTrialTrain/words.xml', 'TrialTrain/word.xml', 'train/words.xml', 'train/word.xml'),
    'test': ('SceneTrialTest/words.xml', 'TrialTest/word.xml', 'test/words.xml', 'test/word.xml'),
    _WHOLE: ('words.xml', 'word.xml'),
}
_ICDAR2013 = {
    'train': ('Challenge2_Training_Task3_Images_GT/gt.txt', 'train/gt.txt'),
    'test': ('Challenge2_Test_Task3_GT.txt', 'Challenge2_Test_Task3_Images/gt.txt', 'test/gt.txt'),
    _WHOLE: ('gt.txt',),
}
_ICDAR2015 = {
    'train': ('ch4_training_word_images_gt/gt.txt', 'train/gt.txt'),
    'test': ('Challenge4_Test_Task3_GT.txt', 'ch4_test_word_images_gt/gt.txt', 'test/gt.txt'),
    _WHOLE: ('gt.txt',),
}
_LISTED = {'test': ('test/gt.txt', 'gt.txt'), _WHOLE: ('gt.txt',)}
# Folders of the images that a list outside of them describes.
_FOLDERS = ('Challenge2_Test_Task3_Images/', 'ch4_test_word_images_gt/')
# `file text`, then perhaps a lexicon of words between commas or spaces.
_SPACED_ROW = re.compile(r'(?P<file>\S+)\s+(?P<text>\S+)(?:\s+(?P<lexicon>\S.*))?')


@dataclass(frozen=True)
class WordSelection:
    """Arguments that all readers of this module take: what labels are, and which words count.

    Attributes:
      alphabet: the characters of labels.
      max_length: characters of the longest label.
      outside: 'filter', 'skip' or 'refuse' texts with other characters (`TextProtocol`).
      words: which words count. Published test sets differ in this alone: of ICDAR 2013's 1,095 words, 1,015 are
        'alphanumeric' and 857 'three_alphanumeric'; of ICDAR 2003, 867 are 'three_alphanumeric'.
      exclude: a text file of image names that are left out, one per line, for the variants that no rule describes:
        ICDAR 2003 with 860 words, ICDAR 2015 with 1,811 (Baek et al. 2019 list them).
    """

    alphabet: Alphabet = _CASELESS
    max_length: named.Count = 25
    outside: Outside = 'filter'
    words: WordRule = 'all'
    exclude: str | None = None

    @property
    def protocol(self) -> TextProtocol:
        """The protocol that these settings make: it selects texts and makes their labels."""
        return TextProtocol(self.alphabet, self.max_length, self.outside, self.words)


@named.takes_arguments_of(WordSelection)
def iiit5k(path: str, split: str = 'test', lexicon: LexiconSize = 'none', **selection: Any) -> TextImages:
    """Reads IIIT 5K-Words (Mishra et al. 2012): 2,000 training and 3,000 test words, listed in MATLAB files.

    The folder `IIIT5K` has `train/`, `test/`, `trainCharBound.mat` and `traindata.mat`, and the same of the test set.
    The arguments are those of this module, and

    lexicon: 'small' adds the 50 words of each image, 'medium' its 1,000; both are in `testdata.mat`, which takes long
      to read.
    """
    files = FileTree(path)
    base = check_split(split, ('train', 'test'))
    # The words are in both files; the one without the lexica is a hundredth of the size.
    listings = [f'{base}data.mat'] if lexicon != 'none' else [f'{base}CharBound.mat', f'{base}data.mat']
    listing = find_file(files, listings, 'list of words')
    records = _read_matlab(files, listing, None if lexicon == 'none' else f'{lexicon}Lexi')
    return _select(files, records, split, WordSelection(**selection))


@named.takes_arguments_of(WordSelection)
def svt(path: str, split: str = 'test', **selection: Any) -> TextImages:
    """Reads Street View Text (Wang et al. 2011): 257 training and 647 test words, boxes in 350 photographs.

    The folder `svt1` has `img/`, `train.xml` and `test.xml`, with a lexicon of 50 words per photograph. The arguments
    are those of this module.
    """
    files = FileTree(path)
    base = check_split(split, ('train', 'test'))
    listing = find_file(files, [f'{base}.xml'], 'list of words')
    dropped = Counter()
    records = _read_xml(files, listing, dropped)
    return _select(files, records, split, WordSelection(**selection), dropped)


@named.takes_arguments_of(WordSelection)
def icdar2003(path: str, split: str = 'test', words: WordRule = 'three_alphanumeric', **selection: Any) -> TextImages:
    """Reads ICDAR 2003's words (Lucas et al. 2003): boxes of `words.xml`, or the cropped images of `word.xml`.

    1,110 test words, of which 867 are 'three_alphanumeric'. The folder has `SceneTrialTest/words.xml` or
    `TrialTest/word.xml`, and `Train` likewise. The arguments are those of this module.
    """
    files = FileTree(path)
    listing = _find_listing(files, split, _ICDAR2003)
    dropped = Counter()
    records = _read_xml(files, listing, dropped)
    return _select(files, records, split, WordSelection(words=words, **selection), dropped)


@named.takes_arguments_of(WordSelection)
def icdar2013(path: str, split: str = 'test', words: WordRule = 'alphanumeric', **selection: Any) -> TextImages:
    """Reads ICDAR 2013's cropped words (Karatzas et al. 2013): 848 for training, 1,095 to test, 1,015 or 857 of these.

    The folder has `Challenge2_Test_Task3_GT.txt` next to `Challenge2_Test_Task3_Images/`, and
    `Challenge2_Training_Task3_Images_GT/gt.txt` among its images. The arguments are those of this module.
    """
    return _read_icdar(path, split, _ICDAR2013, WordSelection(words=words, **selection))


@named.takes_arguments_of(WordSelection)
def icdar2015(path: str, split: str = 'test', **selection: Any) -> TextImages:
    """Reads ICDAR 2015's incidental words (Karatzas et al. 2015): 4,468 for training, 2,077 to test.

    The folder has `Challenge4_Test_Task3_GT.txt` next to `ch4_test_word_images_gt/`, and
    `ch4_training_word_images_gt/gt.txt` among its images. The arguments are those of this module; the variant of 1,811
    words needs `exclude`.
    """
    return _read_icdar(path, split, _ICDAR2015, WordSelection(**selection))


@named.takes_arguments_of(WordSelection)
def svt_perspective(path: str, split: str = 'test', **selection: Any) -> TextImages:
    """Reads SVT-Perspective (Phan et al. 2013): 645 cropped words, seen from the side.

    `gt.txt` has a line `file text` per word, and perhaps its lexicon of 50 words after it, between commas or spaces.
    The arguments are those of this module; there is no training split.
    """
    return _read_listed(path, split, WordSelection(**selection))


@named.takes_arguments_of(WordSelection)
def cute80(path: str, split: str = 'test', **selection: Any) -> TextImages:
    """Reads CUTE80 (Risnumawan et al. 2014): 288 cropped words, many of them curved.

    `gt.txt` has a line `file text` per word. The arguments are those of this module; there is no training split.
    """
    return _read_listed(path, split, WordSelection(**selection))


@named.takes_arguments_of(WordSelection)
def word_folder(path: str, split: str = 'all', **selection: Any) -> TextImages:
    """Reads a folder with images `IMG/<name>.jpg` (or .png, ...) and texts `label/<name>.txt`, in the order of names.

    Numbers are ordered by their values. A path may hold '{split}', as in 'words/svt_{split}.tar'; otherwise the folders
    are in one named as the split, or `path` has them itself and the split is 'all'. The other arguments are those of
    this module.
    """
    base = splits.parse_split(split)[0]
    files = FileTree(path.replace('{split}', base))
    folder = '' if base == _WHOLE or '{split}' in path else f'{base}/'
    for name in ('IMG', 'label'):
        if not files.has_folder(f'{folder}{name}'):
            hint = f"; a folder of one split has split='{_WHOLE}' or '{{split}}' in its path" if folder else ''
            raise UsageError(f'{files.root} has no folder {folder}{name}{hint}')
    dropped = Counter()
    records = _read_pairs(files, folder, dropped)
    return _select(files, records, split, WordSelection(**selection), dropped)


def _read_icdar(path: str, split: str, places: Mapping[str, Sequence[str]], selection: WordSelection) -> TextImages:
    files = FileTree(path)
    listing = _find_listing(files, split, places)
    return _select(files, _read_rows(files, listing), split, selection)


def _read_listed(path: str, split: str, selection: WordSelection) -> TextImages:
    files = FileTree(path)
    listing = _find_listing(files, split, _LISTED)
    return _select(files, _read_spaced(files, listing), split, selection)


def _find_listing(files: FileTree, split: str, places: Mapping[str, Sequence[str]]) -> str:
    base = check_split(split, places)
    if base != _WHOLE and any(files.has_file(name) for name in places[_WHOLE] if name not in places[base]):
        raise UsageError(
            f"{files.root} is the folder of one split: give the folder above it, or split='{_WHOLE}'"
        )  # any name would be accepted otherwise, and a test set could be trained on
    return find_file(files, places[base], 'list of words')


def _select(
    files: FileTree,
    records: Iterable[TextRecord],
    split: str,
    selection: WordSelection,
    dropped: Counter[str] | None = None,
) -> TextImages:
    exclude = selection.exclude
    dropped = Counter() if dropped is None else dropped
    if exclude is not None:
        records = list(records)
        names = {line.strip() for line in text_files.read_lines(exclude) if line.strip()}
        kept = [record for record in records if not _is_named(record, names)]
        unused = names - {name for record in records for name in _list_names(record)}
        if unused:  # a list of another form would leave out nothing, and the variant would be another one
            raise UsageError(
                f'{exclude} names {len(unused)} images that are not in {files.root}, such as {min(unused)}'
            )
        dropped[f'listed in {exclude}'] += len(records) - len(kept)
        records = kept
    return select_texts(files, records, split, selection.protocol, dropped)


def _read_matlab(files: FileTree, listing: str, lexicon: str | None) -> Iterator[TextRecord]:
    import scipy.io  # takes 0.2 s to import

    show, key = files.show(listing), listing.removesuffix('.mat')
    try:
        contents = scipy.io.loadmat(io.BytesIO(files.read_bytes(listing)))
    except Exception as error:  # of nearly any kind, for a file that is damaged
        raise CanonError(f'{show} is not a MATLAB file ({first_line(error)}); fetch it again') from error
    if key not in contents:
        there = ', '.join(name for name in contents if not name.startswith('__'))
        raise UsageError(f'{show} has no variable {key}; it has {there or "none"}')
    entries = contents[key].ravel()
    fields = entries.dtype.names or ()
    text = 'GroundTruth' if 'GroundTruth' in fields else 'chars'
    for field in ('ImgName', text, *([lexicon] if lexicon else [])):
        if field not in fields:
            raise UsageError(f'{show}: {key} has no field {field}; it has {", ".join(fields) or "none"}')
    for number, entry in enumerate(entries, 1):
        words = tuple(_list_strings(entry[lexicon])) if lexicon else ()
        name, written = (''.join(_list_strings(entry[field])) for field in ('ImgName', text))
        yield TextRecord(name, written, f'{show}, entry {number}', lexicon=words)


def _list_strings(value: Any) -> Iterator[str]:
    """Yields the texts of a MATLAB array of characters, or of a cell array of them."""
    for item in np.ravel(value):
        if isinstance(item, np.ndarray):
            yield from _list_strings(item)
        else:
            yield str(item)


def _read_xml(files: FileTree, listing: str, dropped: Counter[str]) -> Iterator[TextRecord]:
    """Yields the words of a `tagset` with boxes in images, or of an `imagelist` of cropped words."""
    show = files.show(listing)
    folder = listing[: listing.rfind('/') + 1]
    root = read_xml(files, listing)
    images = root.findall('image')
    if not images:
        raise UsageError(
            f'{show}: the root <{root.tag}> has no <image>; expected <tagset> of SVT or ICDAR 2003, or <imagelist>'
        )
    for number, image in enumerate(images, 1):
        where = f'{show}, image {number}'
        if 'file' in image.attrib:  # a cropped word
            if image.get('tag'):
                yield TextRecord(f'{folder}{image.attrib["file"]}', image.attrib['tag'], where)
            else:
                dropped[NO_TEXT] += 1
            continue
        name = (image.findtext('imageName') or '').strip()
        if not name:
            raise UsageError(f'{where} has neither <imageName> nor the attribute file')
        lexicon = tuple(word for word in re.split(r'[,\s]+', image.findtext('lex') or '') if word)
        for count, box in enumerate(image.iter('taggedRectangle'), 1):
            text = (box.findtext('tag') or '').strip()
            corners = _parse_box(box.attrib, f'{where}, taggedRectangle {count}')
            if text:
                yield TextRecord(f'{folder}{name}', text, f'{where}, word {count}', corners, lexicon)
            else:
                dropped[NO_TEXT] += 1


def _parse_box(attributes: Mapping[str, str], where: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(attributes[name]) for name in ('x', 'y', 'width', 'height'))
    except (KeyError, ValueError) as error:
        raise CanonError(f'{where} needs the numbers x, y, width and height ({error})') from None
    if width <= 0 or height <= 0:
        raise CanonError(f'{where}: a box of {width:g}x{height:g} pixels has no area')
    return x, y, x + width, y + height


def _read_rows(files: FileTree, listing: str) -> Iterator[TextRecord]:
    """Yields the words of ICDAR's lists: `word_1.png, "Tiredness"`, after a byte order mark."""
    folder = listing[: listing.rfind('/') + 1]
    if not folder:
        folder = next((name for name in _FOLDERS if _is_list_of(listing, name) and files.has_folder(name[:-1])), '')
    for number, line in enumerate(read_annotation_lines(files, listing), 1):
        where = f'{files.show(listing)}, line {number}'
        row = parse_row(line) if line.strip() else None
        if row:
            yield TextRecord(f'{folder}{row[0]}', row[1], where)
        elif line.strip():
            raise CanonError(f'{where}: {line.strip()[:80]!r} is not a row such as word_1.png, "Tiredness"')


def _is_list_of(listing: str, folder: str) -> bool:
    """Whether a list is of the challenge of a folder: ICDAR 2013's is Challenge 2, 2015's is Challenge 4."""
    number = re.search(r'(?:Challenge|ch)(\d)', listing)
    return number is not None and re.search(rf'(?:Challenge|ch){number[1]}', folder) is not None


def _read_spaced(files: FileTree, listing: str) -> Iterator[TextRecord]:
    folder = listing[: listing.rfind('/') + 1]
    for number, line in enumerate(read_annotation_lines(files, listing), 1):
        where = f'{files.show(listing)}, line {number}'
        row = _SPACED_ROW.fullmatch(line.strip())
        if row and row['file'].endswith(','):  # as ICDAR writes lists
            file, text = parse_row(line) or ('', '')
            lexicon = ''
        else:
            file, text, lexicon = row.groups(default='') if row else ('', '', '')
        if file:
            words = tuple(word for word in re.split(r'[,\s]+', lexicon) if word)
            yield TextRecord(f'{folder}{file}', text, where, lexicon=words)
        elif line.strip():
            raise CanonError(f'{where}: {line.strip()[:80]!r} is not a row such as 13_15_0_par.jpg WYNDHAM')


def _read_pairs(files: FileTree, folder: str, dropped: Counter[str]) -> Iterator[TextRecord]:
    labels = set(files.list_names(f'{folder}label'))
    for name in sorted(files.list_names(f'{folder}IMG'), key=_natural_order):
        label = f'{name.rpartition(".")[0]}.txt'
        if label not in labels:
            dropped['without a file of label/'] += 1
            continue
        where = files.show(f'{folder}label/{label}')
        yield TextRecord(
            f'{folder}IMG/{name}', '\n'.join(read_annotation_lines(files, f'{folder}label/{label}')).strip(), where
        )


def _natural_order(name: str) -> tuple[int, int, str]:
    """Orders 2.jpg before 10.jpg, and numbers before other names."""
    stem = name.rpartition('.')[0]
    return (0, int(stem), name) if stem.isdecimal() else (1, 0, name)


def _list_names(record: TextRecord) -> tuple[str, str]:
    """Returns the names by which a list may mean an image: with and without its folder."""
    return record.image, record.image.rpartition('/')[2]


def _is_named(record: TextRecord, names: set[str]) -> bool:
    return not names.isdisjoint(_list_names(record))
