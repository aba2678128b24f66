"""Handwriting as its owners distribute it: words and lines of IAM and of RIMES, isolated characters of CASIA.

The readers share the arguments

    path: the folder of the data set, or an uncompressed tar of it.
    split: of the partition; may be sliced.
    alphabet: the characters of labels.
    max_length: characters of the longest label.
    outside: 'filter', 'skip' or 'refuse' texts with other characters (`TextProtocol`). Handwriting is scored with case,
      accents and punctuation, so that 'refuse' is the default.

and raise UsageError for files that are missing or not of this form, and for a set of which no text remains.
"""

from __future__ import annotations

import html
import struct
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from canon import named
from canon.data.detection.file_trees import FileTree
from canon.data.images import image_files
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text import text_files
from canon.data.text.alphabets import Alphabet
from canon.data.text.text_images import (
    NO_TEXT,
    Outside,
    TextImages,
    TextProtocol,
    TextRecord,
    check_split,
    find_file,
    read_annotation_lines,
    read_xml,
    select_texts,
    slice_kept,
)
from canon.errors import CanonError, UsageError
from canon.progress import show_progress

Partition = Literal['rwth', 'lwitlrt']
Segmentation = Literal['ok', 'all']

_ASCII = Alphabet('printable_ascii')
# The lists of each split. Their entries are forms (a01-000u), lines (a01-000u-00) or words (a01-000u-00-00).
_LWITLRT = {
    'train': ('trainset.txt',),
    'valid': ('validationset1.txt', 'validationset2.txt'),
    'valid1': ('validationset1.txt',),
    'valid2': ('validationset2.txt',),
    'test': ('testset.txt',),
}
_IAM_FOLDERS = ('', 'largeWriterIndependentTextLineRecognitionTask/', 'RWTH_partition/', 'splits/', 'task/', 'ascii/')
_BROKEN = ('a01-117-05-02', 'r06-022-03-05')  # images of IAM's distribution that are cut short
_RIMES_WORDS = {
    'train': ('groundtruth_training_icdar2011.txt', ('training_WR', 'trainingsnippets_icdar/training_WR')),
    'valid': (
        'ground_truth_validation_icdar2011.txt',
        ('testdataset_ICDAR', 'validationsnippets_icdar/testdataset_ICDAR'),
    ),
    'test': ('grount_truth_test_icdar2011.txt', ('data_test', 'testsnippets_icdar/data_test')),  # spelt like this
}
_RIMES_LINES = {'train': 'training_2011.xml', 'valid': 'training_2011.xml', 'test': 'eval_2011_annotated.xml'}
_RIMES_FOLDERS = ('', 'images_gray/', 'training_2011_gray/', 'eval_2011_gray/', 'training_2011/', 'eval_2011/')
_RIMES_VALID = 100  # pages, the last of the training set
_CASIA = {'train': ('trn', 'train'), 'test': ('tst', 'test')}  # parts of the names of folders
_GNT_HEADER = struct.Struct('<I2sHH')  # size of the record, character, width, height


def iam_words(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = _ASCII,
    max_length: named.Count = 32,
    outside: Outside = 'refuse',
    partition: Partition = 'rwth',
    segmentation: Segmentation = 'ok',
) -> TextImages:
    """Reads the words of IAM (Marti & Bunke 2002), 115,320 of 657 writers.

    The folder has `ascii/words.txt` (or `words.txt`) and images `words/a01/a01-000u/a01-000u-00-00.png`. The arguments
    are those of this module, and

    Args:
      partition: 'rwth', with splits 'train', 'valid' and 'test', of lists `RWTH.iam_word_gt_final.train.thresh` or
        `train.uttlist`; or 'lwitlrt', the large writer independent text line recognition task of the owners, with
        splits 'train', 'valid1', 'valid2', 'valid' (both) and 'test', of lists `trainset.txt` and so on. Entries of
        lists may be forms, lines or words. 'all' is the split of every partition that needs no list.
      segmentation: 'ok' leaves out words whose segmentation the owners mark as 'err'; 'all' keeps them.
    """
    return _read_iam(path, split, 'words', TextProtocol(alphabet, max_length, outside), partition, segmentation)


def iam_lines(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = _ASCII,
    max_length: named.Count = 100,
    outside: Outside = 'refuse',
    partition: Partition = 'rwth',
    segmentation: Segmentation = 'all',
) -> TextImages:
    """Reads the lines of IAM (Marti & Bunke 2002), 13,353 of them; a space separates words and punctuation alike.

    The folder has `ascii/lines.txt` (or `lines.txt`) and images `lines/a01/a01-000u/a01-000u-00.png`. RWTH's partition
    has 6,482, 976 and 2,915 lines, the owners' 6,161, 900 + 940 and 1,861. A line that is marked 'err' has words with a
    wrong segmentation, while its own image is sound. The arguments are those of `iam_words`.
    """
    return _read_iam(path, split, 'lines', TextProtocol(alphabet, max_length, outside), partition, segmentation)


def rimes_words(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = _ASCII,
    max_length: named.Count = 32,
    outside: Outside = 'refuse',
) -> TextImages:
    """Reads the French words of RIMES, of ICDAR 2011's competition: 51,739, 7,464 and 7,776.

    The folder has the lists `groundtruth_training_icdar2011.txt`, `ground_truth_validation_icdar2011.txt` and
    `grount_truth_test_icdar2011.txt` (spelt like this) with lines `path text`, and the folders of their images. Lines
    without a text are counted. The splits are 'train', 'valid' and 'test'; the arguments are those of this module.
    """
    files = FileTree(path)
    base = check_split(split, _RIMES_WORDS)
    name, folders = _RIMES_WORDS[base]
    listing = find_file(files, [name], 'list of words')
    folder = next((f'{folder}/' for folder in folders if files.has_folder(folder)), '')
    dropped: Counter[str] = Counter()

    def read() -> Iterator[TextRecord]:
        for number, line in enumerate(read_annotation_lines(files, listing), 1):
            image, _, text = line.strip().partition(' ')
            if image and not text.strip():
                dropped[NO_TEXT] += 1
            elif image:
                yield TextRecord(f'{folder}{image}', text.strip(), f'{files.show(listing)}, line {number}')

    return select_texts(files, read(), split, TextProtocol(alphabet, max_length, outside), dropped)


def rimes_lines(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = _ASCII,
    max_length: named.Count = 120,
    outside: Outside = 'refuse',
) -> TextImages:
    """Reads the French lines of RIMES, of ICDAR 2011's competition: boxes in 1,500 and 100 paragraphs.

    The folder has `training_2011.xml` and `eval_2011_annotated.xml`, and the images that they name. There is no
    validation set: 'valid' is the last 100 pages of the training set and 'train' the others, as is customary. The
    arguments are those of this module.
    """
    files = FileTree(path)
    base = check_split(split, _RIMES_LINES)
    listing = find_file(files, [_RIMES_LINES[base]], 'list of lines')
    show, dropped = files.show(listing), Counter()
    pages = read_xml(files, listing).findall('SinglePage')
    if not pages:
        raise UsageError(f'{show} has no element SinglePage; it is not a list of RIMES')
    if base != 'test':
        held_out = max(len(pages) - _RIMES_VALID, 0)
        pages = pages[:held_out] if base == 'train' else pages[held_out:]
    records = _read_rimes_pages(files, show, pages, dropped)
    return select_texts(files, records, split, TextProtocol(alphabet, max_length, outside), dropped)


def casia_characters(
    path: str,
    split: str = 'train',
    alphabet: Alphabet = Alphabet('gb2312_level1'),
    max_length: named.Count = 1,
    outside: Outside = 'skip',
) -> CasiaCharacters:
    """Reads isolated Chinese characters of CASIA-HWDB 1.0 and 1.1 (Liu et al. 2011): a `.gnt` file per writer.

    HWDB 1.1 has 897,758 training and 223,991 test characters of the 3,755 classes of GB 2312-80's level 1. All `.gnt`
    files below a folder with 'trn' or 'train' (or 'tst', 'test') in its name belong to the split; the split 'all' is
    that of every file below `path`, which is not a tar. The arguments are those of this module; characters that are not
    in the alphabet are left out.
    """
    base = check_split(split, (*_CASIA, 'all'))
    root = text_files.expand_path(path)
    if not root.is_dir():
        raise UsageError(f'there is no folder {root}; unpack the archives of CASIA-HWDB into one')
    files = [file for file in sorted(root.rglob('*.gnt')) if base == 'all' or _belongs(file.relative_to(root), base)]
    if not files:
        raise UsageError(f'{root} has no .gnt files' + ('' if base == 'all' else f' in a folder such as HWDB1.1trn_gnt'
                                                        f" (split {base!r}; 'all' takes every file)"))  # fmt: skip
    protocol, dropped, kept = TextProtocol(alphabet, max_length, outside), Counter(), array('q')
    for number, file in enumerate(show_progress(files, 'characters of CASIA', 'file')):
        for offset, text in _scan_gnt(file):
            if protocol.keeps(text, f'{file}, byte {offset}', dropped):
                kept.append(number << 40 | offset)
    places = np.frombuffer(kept, np.int64)[slice_kept(len(kept), split, dropped, root)]
    return CasiaCharacters(files, places, protocol, Info(str(root), split, total=len(kept)), dropped)


class CasiaCharacters:
    """The source of `casia_characters`: 'image' uint8 [H, W, 1] of any size, 'label' int32 [max_length] and its length.

    Attributes:
      dropped: {reason: number of characters that were left out}.
    """

    def __init__(
        self, files: Sequence[Path], places: np.ndarray, protocol: TextProtocol, info: Info, dropped: Counter[str]
    ):
        """places: int64 [n], the number of the file in the bits from 40 on, the offset of the record below."""
        self.files, self.places, self.protocol, self.info, self.dropped = files, places, protocol, info, dropped
        self.alphabet = protocol.alphabet

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Example:
        file, offset = self._locate(index)
        with file.open('rb') as stream:
            stream.seek(offset)
            _, code, width, height = _GNT_HEADER.unpack(stream.read(_GNT_HEADER.size))
            pixels = np.frombuffer(stream.read(width * height), np.uint8).reshape(height, width, 1)
        return {'image': pixels, **self.protocol.encode(_decode_tag(code, file, offset))}

    def read_text(self, index: int) -> str:
        """Returns the character of an example."""
        file, offset = self._locate(index)
        with file.open('rb') as stream:
            stream.seek(offset)
            return _decode_tag(_GNT_HEADER.unpack(stream.read(_GNT_HEADER.size))[1], file, offset)

    def _locate(self, index: int) -> tuple[Path, int]:
        place = int(self.places[index])
        return self.files[place >> 40], place & ((1 << 40) - 1)

    def __repr__(self) -> str:
        return f'CasiaCharacters({self.info.name}, {self.info.split}, {len(self)} characters)'


def _read_iam(
    path: str, split: str, level: str, protocol: TextProtocol, partition: str, segmentation: str
) -> TextImages:
    files = FileTree(path)
    listing = find_file(files, [f'ascii/{level}.txt', f'{level}.txt'], f'list of {level}')
    base = splits.parse_split(split)[0]
    ids = None if base == 'all' else _read_partition(files, partition, base, level)
    dropped: Counter[str] = Counter()
    return select_texts(
        files, _read_iam_list(files, listing, level, ids, segmentation, dropped), split, protocol, dropped
    )


def _read_partition(files: FileTree, partition: str, base: str, level: str) -> set[str]:
    """Returns the ids of the forms, lines or words of a split."""
    if partition == 'lwitlrt':
        groups = [(name,) for name in _LWITLRT[check_split(base, _LWITLRT)]]
    else:
        base = check_split(base, ('train', 'valid', 'test'))
        kinds = ('word', 'line') if level == 'words' else ('line',)  # lines are lists for words, too
        lists = [f'RWTH.iam_{kind}_gt_final.{base}.thresh' for kind in kinds]
        groups = [(*lists, f'{base}.uttlist', *(('validation.uttlist',) if base == 'valid' else ()))]
    ids: set[str] = set()
    for names in groups:
        name = find_file(files, [f'{folder}{n}' for n in names for folder in _IAM_FOLDERS], f'list of {base!r}')
        # A line may have more after the id: 'e02-074-01-00,193 are' of RWTH.
        ids |= {line.split(',')[0].split()[0] for line in read_annotation_lines(files, name) if line.strip(' ,')}
    return ids


def _read_iam_list(
    files: FileTree, listing: str, level: str, ids: set[str] | None, segmentation: str, dropped: Counter[str]
) -> Iterator[TextRecord]:
    unused, show = set(ids or ()), files.show(listing)
    for number, line in enumerate(read_annotation_lines(files, listing), 1):
        if not line.strip() or line.startswith('#'):
            continue
        # id, ok or err, grey level, then for words x y w h tag text, for lines components x y w h text.
        fields = line.split(maxsplit=8)
        if len(fields) < 8 or fields[1] not in ('ok', 'err'):
            raise CanonError(f'{show}, line {number}: {line[:60]!r} is not a row of IAM: id ok 154 ... text')
        name, parts = fields[0], fields[0].split('-')
        # An entry of a list may be the form, the line or the word.
        prefixes = {'-'.join(parts[:count]) for count in range(2, len(parts) + 1)}
        if ids is not None:
            matched = prefixes & ids
            if not matched:
                continue
            unused -= matched
        image = f'{level}/{parts[0]}/{"-".join(parts[:2])}/{name}.png'
        if segmentation == 'ok' and fields[1] == 'err':
            dropped["marked as 'err'"] += 1
        elif len(fields) < 9:
            dropped[NO_TEXT] += 1
        elif name in _BROKEN and not _is_readable(files, image):
            dropped['with a broken image'] += 1
        else:
            text = fields[8].replace('|', ' ').strip() if level == 'lines' else fields[8].strip()
            yield TextRecord(image, text, f'{show}, line {number}')
    if unused:  # of the partition, a wrong list would otherwise be an evaluation of something else
        dropped[f'listed in the partition but not in {listing}'] += len(unused)


def _is_readable(files: FileTree, name: str) -> bool:
    try:
        image_files.decode_image(files.read_encoded(name))
    except CanonError:
        return False
    return True


def _read_rimes_pages(files: FileTree, show: str, pages: Sequence, dropped: Counter[str]) -> Iterator[TextRecord]:
    for page in pages:
        name = page.get('FileName') or ''
        # The lists name images by a folder or without; archives of the images have folders of their own.
        stem = name.rpartition('/')[2]
        candidates = [name, *(f'{folder}{stem}' for folder in _RIMES_FOLDERS)]
        image = next((candidate for candidate in candidates if candidate and files.has_file(candidate)), name)
        for number, line in enumerate(page.iter('Line'), 1):
            where = f'{show}, page {name}, line {number}'
            # Some texts are escaped twice; spaces of all kinds are one space.
            text = ' '.join(html.unescape(line.get('Value') or '').split())
            if not text:
                dropped[NO_TEXT] += 1
                continue
            try:
                left, top, right, bottom = (float(line.attrib[side]) for side in ('Left', 'Top', 'Right', 'Bottom'))
            except (KeyError, ValueError) as error:
                raise CanonError(f'{where} needs the numbers Left, Top, Right and Bottom ({error})') from None
            # Both ends are pixels of the line. A few corners are negative.
            yield TextRecord(image, text, where, (max(left, 0), max(top, 0), right + 1, bottom + 1))


def _belongs(file: Path, base: str) -> bool:
    folders = '/'.join(file.parts[:-1]).lower()
    return any(part in folders for part in _CASIA[base])


def _scan_gnt(file: Path) -> Iterator[tuple[int, str]]:
    """Yields the offset and the character of each record. Raises CanonError for a file that is truncated."""
    size, offset = file.stat().st_size, 0
    with file.open('rb') as stream:
        while offset < size:
            stream.seek(offset)
            header = stream.read(_GNT_HEADER.size)
            if len(header) < _GNT_HEADER.size:
                raise CanonError(f'{file} ends within a header, at byte {offset} of {size}: fetch it again')
            length, code, width, height = _GNT_HEADER.unpack(header)
            # The size is redundant, and a file that is not a .gnt at all fails here.
            if length != _GNT_HEADER.size + width * height or not width or not height:
                raise CanonError(
                    f'{file}, byte {offset}: a record of {length} bytes has {width}x{height} pixels; it is not a .gnt'
                )
            if offset + length > size:
                raise CanonError(f'{file} ends within a record, at byte {offset} of {size}: fetch it again')
            yield offset, _decode_tag(code, file, offset)
            offset += length


def _decode_tag(code: bytes, file: Path, offset: int) -> str:
    """Returns the character of a record: two bytes of GB 2312, or one of ASCII and a zero."""
    try:
        return code.rstrip(b'\0').decode('gb18030')  # a superset: other sets of CASIA have more characters
    except UnicodeDecodeError as error:
        raise CanonError(f'{file}, byte {offset}: {code.hex()} is not a character of GB 2312') from error
