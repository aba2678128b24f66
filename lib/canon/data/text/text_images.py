"""Images with texts that annotation files list: what the readers of scene text and of handwriting share.

A reader turns the files of a data set into `TextRecord`s; `select_texts` applies a `TextProtocol`, counts what it
leaves out, and makes the source. Texts are in normal form C of Unicode, so that an accented letter is one character
however a file writes it.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple
from xml.etree import ElementTree

import numpy as np

from canon import named
from canon.data.detection.file_trees import FileTree
from canon.data.images import image_files
from canon.data.images.geometry import Box
from canon.data.pipeline import splits
from canon.data.pipeline.source import Example, Info
from canon.data.text.alphabets import Alphabet
from canon.errors import CanonError, UsageError, first_line

Outside = Literal['refuse', 'filter', 'skip']
WordRule = Literal['all', 'alphanumeric', 'three_alphanumeric']

_NOT_ALPHANUMERIC = re.compile('[^0-9A-Za-z]')
_SHORTEST = 3  # characters, of 'three_alphanumeric' (Wang et al. 2011)
NO_TEXT = 'without a text'  # a reason to leave it out, which readers count as well


class TextRecord(NamedTuple):
    """An image and its text, as an annotation file has them.

    Attributes:
      image: the name of the file in the tree.
      text: as written.
      where: the file and the line or element, for messages.
      box: x0, y0, x1, y1 of the text in the image, in pixels at their edges; None for the whole image.
      lexicon: the words among which the text is to be found, in experiments with a lexicon.
    """

    image: str
    text: str
    where: str
    box: Box | None = None
    lexicon: tuple[str, ...] = ()


class TextProtocol(NamedTuple):
    """Decides which texts of a data set count, and what their labels are.

    Attributes:
      alphabet: the characters of labels.
      max_length: characters of the longest label.
      outside: what happens to texts with characters that are not in `alphabet`: 'filter' removes these characters and
        leaves out texts of which nothing remains, 'skip' leaves such texts out, 'refuse' raises an error. Texts that
        are too long are left out by the first two.
      words: 'alphanumeric' leaves out words with characters besides Latin letters and digits; 'three_alphanumeric' also
        words of fewer than three characters.
    """

    alphabet: Alphabet
    max_length: int
    outside: Outside = 'filter'
    words: WordRule = 'all'

    def find_problem(self, text: str) -> TextProblem | None:
        """Returns why a text is left out; None if it counts."""
        if not text.strip():
            return TextProblem(NO_TEXT)
        if self.words != 'all' and _NOT_ALPHANUMERIC.search(text):
            return TextProblem('not alphanumeric')
        if self.words == 'three_alphanumeric' and len(text) < _SHORTEST:
            return TextProblem(f'shorter than {_SHORTEST} characters')
        label = self.label(text)
        if not label:
            return TextProblem('without a character of the alphabet')
        if len(label) > self.max_length:
            reason = f'longer than max_length={self.max_length}'
            return TextProblem(reason, f'it is {reason}')
        detail = self.alphabet.find_problem(label, self.max_length)
        return TextProblem('with characters that are not in the alphabet', detail) if detail else None

    def keeps(self, text: str, where: str, dropped: Counter[str]) -> bool:
        """Returns whether a text counts; one that does not is counted in `dropped`, by its reason.

        Raises CanonError, which begins with `where`, if the text is refused.
        """
        problem = self.find_problem(text)
        if problem and problem.detail and self.outside == 'refuse':
            raise CanonError(f"{where}: {text!r}: {problem.detail}; correct it, or set outside='filter' or 'skip'")
        if problem:
            dropped[problem.reason] += 1
        return problem is None

    def label(self, text: str) -> str:
        """Returns the part of a text that its label encodes."""
        return self.alphabet.filter(text) if self.outside == 'filter' else text

    def encode(self, text: str) -> Example:
        """Encodes a text as 'label' int32 [max_length] and 'label_length' int32."""
        return self.alphabet.encode(self.label(text), self.max_length)


class TextProblem(NamedTuple):
    """Why a text is left out: in general; and for this text, if `outside='refuse'` makes that an error."""

    reason: str
    detail: str | None = None


class TextImages:
    """Images of any size with their texts: 'image' uint8 [H, W, 3], 'label' int32 [max_length], 'label_length' int32.

    Attributes:
      records: what the examples are read from.
      alphabet: the characters of labels.
      dropped: {reason: number of texts that were left out}.
    """

    def __init__(
        self,
        files: FileTree,
        records: Sequence[TextRecord],
        protocol: TextProtocol,
        info: Info,
        dropped: Counter[str] | None = None,
    ):
        """
        Args:
          files: the folder or tar.
          records: of the texts that are kept.
          protocol: of the labels.
          info: name and split.
          dropped: how many texts were left out, by reason.
        """
        self.files, self.records, self.protocol, self.info = files, records, protocol, info
        self.alphabet, self.dropped = protocol.alphabet, dropped or Counter()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:
        """Raises CanonError, which names the file, if the image cannot be read or the box is outside of it."""
        record = self.records[index]
        image = image_files.decode_image(self.files.read_encoded(record.image))
        return {'image': _crop(image, record), **self.protocol.encode(record.text)}

    def read_text(self, index: int) -> str:
        """Returns the whole text of an example, with the characters that its label may lack."""
        return self.records[index].text

    def read_lexicon(self, index: int) -> tuple[str, ...]:
        """Returns the lexicon of an example; () if the data set has none."""
        return self.records[index].lexicon

    def image_sizes(self) -> np.ndarray:
        """Returns the (height, width) of all images, int [n, 2], from their boxes and the headers of their files."""
        sizes = [
            (record.box[3] - record.box[1], record.box[2] - record.box[0])
            if record.box
            else self.files.read_image_size(record.image).rotated
            for record in self.records
        ]
        return np.ceil(np.array(sizes, np.float64).reshape(-1, 2)).astype(int)

    def __repr__(self) -> str:
        return f'TextImages({self.info.name}, {self.info.split}, {len(self)} texts)'


def select_texts(
    files: FileTree,
    records: Iterable[TextRecord],
    part: str,
    protocol: TextProtocol,
    dropped: Counter[str] | None = None,
) -> TextImages:
    """Makes the source of the texts that a protocol keeps, and logs how many it leaves out, by reason.

    Args:
      files: the folder or tar.
      records: of the whole split, in its order.
      part: the split as the user gives it; a slice of it is one of the texts that are kept.
      protocol: which texts count.
      dropped: what the reader has left out already, by reason.

    Raises:
      UsageError: no text remains, or the slice is empty.
      CanonError: a text is refused; the message names its file and line.
    """
    dropped = Counter() if dropped is None else dropped
    kept = []
    for record in records:
        record = record._replace(text=unicodedata.normalize('NFC', record.text))
        if protocol.keeps(record.text, record.where, dropped):
            kept.append(record)
    selected = kept[slice_kept(len(kept), part, dropped, files.root)]
    return TextImages(files, selected, protocol, Info(str(files.root), part, total=len(kept)), dropped)


def slice_kept(kept: int, part: str, dropped: Counter[str], root: Path) -> slice:
    """Returns the slice of the texts that are kept, and logs how many were left out, by reason.

    Args:
      kept: texts that remain of the whole split.
      part: the split as the user gives it.
      dropped: the numbers that were left out, by reason.
      root: the data set, for messages.

    Raises:
      UsageError: no text remains, with the reasons; or the slice is empty.
    """
    base, first, last = splits.parse_split(part)
    what = f'split {base!r} of {root}'
    reasons = ', '.join(f'{count} {reason}' for reason, count in dropped.most_common())
    if not kept:
        raise UsageError(f'{what} has no texts{f": all are left out, {reasons}" if reasons else ""}')
    if reasons:
        message = '%s: %d of %d texts are left out (%s)'
        logging.getLogger('canon').warning(message, what, dropped.total(), dropped.total() + kept, reasons)
    chosen = splits.to_slice(first, last, kept)
    if not range(kept)[chosen]:
        raise UsageError(f'{root}: the slice {part!r} of {kept} texts is empty')
    return chosen


def check_split(split: str, names: Iterable[str]) -> str:
    """Returns the name of a split without its slice. Raises UsageError unless it is among `names`."""
    base, names = splits.parse_split(split)[0], list(names)
    if base not in names:
        raise UsageError(f'there is no split {base!r}{named.suggest(base, names)}; the splits are {", ".join(names)}')
    return base


def read_xml(files: FileTree, name: str) -> ElementTree.Element:
    """Returns the root of an XML file, in the encoding that it declares: some of ICDAR 2003 are in Latin-1.

    Raises CanonError, which names the file, if it is not XML.
    """
    try:
        return ElementTree.fromstring(files.read_bytes(name))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise CanonError(f'{files.show(name)} is not XML ({first_line(error)}); repair it or fetch it again') from error


def read_annotation_lines(files: FileTree, name: str, encoding: str = 'utf-8-sig') -> list[str]:
    """Returns the lines of an annotation file, which end at line feeds only: a text may hold other separators.

    Raises CanonError, which names the file and the line, if it is not in the encoding.
    """
    lines = []
    for number, line in enumerate(files.read_bytes(name).split(b'\n'), 1):
        # A byte order mark is at the beginning of the file only; within a text the same bytes are a character.
        codec = encoding if number == 1 else encoding.removesuffix('-sig')
        try:
            lines.append(line.removesuffix(b'\r').decode(codec))
        except UnicodeDecodeError as error:
            shown = f'{files.show(name)}, line {number}'
            raise CanonError(f'{shown} is not {codec.removesuffix("-sig").upper()} text; convert it') from error
    return lines


def find_file(files: FileTree, candidates: Sequence[str], what: str) -> str:
    """Returns the first of the candidates that is a file. Raises UsageError, which lists them, if none is."""
    for name in candidates:
        if files.has_file(name):
            return name
    there = ', '.join(files.list_names()[:8]) or 'nothing'
    raise UsageError(f'{files.root} has no {what}: it needs {" or ".join(candidates)}, and has {there}')


def _crop(image: np.ndarray, record: TextRecord) -> np.ndarray:
    """Cuts the box of a record out of its image; a box may reach beyond it, as some of SVT and RIMES do."""
    if record.box is None:
        return image
    height, width = image.shape[:2]
    x0, y0, x1, y1 = record.box
    left, right = max(int(np.floor(x0)), 0), min(int(np.ceil(x1)), width)
    top, bottom = max(int(np.floor(y0)), 0), min(int(np.ceil(y1)), height)
    if left >= right or top >= bottom:
        raise CanonError(
            f'{record.where}: the box {record.box} lies outside of {record.image}, {width}x{height} pixels; '
            'correct or remove it'
        )
    # A copy, since a view would keep the whole scene in memory.
    return image[top:bottom, left:right].copy()
